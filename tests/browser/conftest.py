"""A real Chromium in front of the real service, over a small archive made here.

Whatever is started dies with the process that started it (``setpriv --pdeathsig``), even when
that is killed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from astropy.io import fits
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from ..service import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 60
"""Seconds until what does not come is taken for missing, on the slowest machine."""
CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
KINDS = ("Science", "Template", "Difference")

ZTF_FILE, LSST_FILE = "ztf night/o'brien.parquet", "lsst.parquet"  # names that a shell trips over
ZTF_OBJECT, ZTF_OLD, ZTF_NEW = "ZTF24abcdefg", 2656254792815010011, 2657254792815010013
LSST_OBJECT, LSST_SOURCE = 169830579938263176, 169936132527095844
LSST_WIDE = 169936132527095845  # as wide as such stamps get
OTHER_NAME = "cutouts.test"  # this machine, under a name that no browser trusts as its own

OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--force-color-profile=srgb",
    f"--host-resolver-rules=MAP {OTHER_NAME} 127.0.0.1",
    "--window-size=1280,1000",
)


# ---- the archive


def make_stamp(seed: int, ny: int, nx: int) -> bytes:
    """Make a FITS file with a source off the centre: no flip or turn of it looks the same."""
    y, x = np.mgrid[:ny, :nx]
    pixels = np.random.default_rng(seed).normal(100, 3, (ny, nx))
    pixels += 900 * np.exp(-((x - nx * 0.6) ** 2 + (y - ny * 0.35) ** 2) / 8)
    pixels[0, :5] = np.nan
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels.astype(">f4")).writeto(buffer)
    return buffer.getvalue()


def write_archive(folder: Path) -> None:
    """Write a ZTF file with two epochs of one object, newest first, and an LSST file."""
    (folder / ZTF_FILE).parent.mkdir(parents=True)
    ztf: dict[str, Any] = {
        "objectId": [ZTF_OBJECT] * 2,
        "candid": pa.array([ZTF_NEW, ZTF_OLD], pa.int64()),
        "candidate": [{"jd": 2460600.5}, {"jd": 2460500.5}],
    }
    for number, kind in enumerate(KINDS):
        stamps = [gzip.compress(make_stamp(seed + number, 63, 62)) for seed in (10, 20)]
        ztf[f"cutout{kind}"] = [{"fileName": "x.fits.gz", "stampData": stamp} for stamp in stamps]
    pq.write_table(pa.table(ztf), folder / ZTF_FILE)

    lsst = {
        "diaSourceId": pa.array([LSST_SOURCE, LSST_WIDE], pa.int64()),
        "diaSource": [
            {"diaObjectId": LSST_OBJECT, "midpointMjdTai": 60600.0},
            {"diaObjectId": LSST_OBJECT + 1, "midpointMjdTai": 60600.0},
        ],
        "cutoutScience": [make_stamp(30, 30, 34), make_stamp(32, 102, 102)],
        "cutoutTemplate": [make_stamp(31, 30, 34), make_stamp(33, 102, 102)],
        "cutoutDifference": pa.array([None, make_stamp(34, 102, 102)], pa.binary()),
    }
    pq.write_table(pa.table(lsst), folder / LSST_FILE)


# ---- the service


@dataclass(frozen=True)
class RunningService:
    url: str

    def get(self, **arguments: str) -> requests.Response:
        """Ask the service past the browser; ``output_format`` stands for the wire's name."""
        named = {name.replace("output_", "output-"): value for name, value in arguments.items()}
        return requests.get(f"{self.url}/api/v1/cutouts", named, timeout=PATIENCE)


def with_parent(command: list[str]) -> list[str]:
    """Return ``command`` so that the kernel ends it when its parent dies, however that dies."""
    return ["setpriv", "--pdeathsig", "TERM", *command]


def end_group(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def serve(archive: Path, catalog_url: str, log: Path) -> Iterator[RunningService]:
    """Run the service over an archive until it is no longer needed."""
    port = free_port()
    with log.open("w") as written:
        process = subprocess.Popen(
            with_parent([sys.executable, "-m", "cutout_api", "serve"]),
            cwd=REPOSITORY,
            env={
                **{name: value for name, value in os.environ.items() if "CUTOUT_API" not in name},
                "CUTOUT_API_ARCHIVE_URI": archive.as_uri(),
                "CUTOUT_API_CATALOG_URL": catalog_url,
                "CUTOUT_API_SERVER_HOST": "127.0.0.1",
                "CUTOUT_API_SERVER_PORT": str(port),
                "CUTOUT_API_SERVER_WORKERS": "1",
            },
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                requests.get(f"{url}/readyz", timeout=10).raise_for_status()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("the service did not start:\n" + log.read_text())
            time.sleep(0.1)
        yield RunningService(url)
    finally:
        end_group(process)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service over an archive that nothing has catalogued."""
    archive = tmp_path_factory.mktemp("archive")
    write_archive(archive)
    nothing = f"sqlite:///{archive.parent}/nothing.sqlite"
    with serve(archive, nothing, archive.parent / "service.log") as running:
        yield running


# ---- the browser


@dataclass
class Browser:
    """Chromium on one page of the service, and what it said and fetched meanwhile."""

    driver: webdriver.Chrome
    url: str
    fetched: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> None:
        self.driver.get(self.url + path)

    def use_other_name(self) -> None:
        """Reach the service as from another machine: browsers trust loopback addresses more."""
        self.url = f"http://{OTHER_NAME}:{urlsplit(self.url).port}"

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def appear(self, selector: str) -> WebElement:
        """Return an element of the page that comes now."""
        return cast(WebElement, self.wait(lambda: self.find_all(selector), f"no {selector}")[0])

    def text(self, selector: str) -> str:
        while True:
            with contextlib.suppress(StaleElementReferenceException):  # drawn anew in between
                return self.find(selector).text

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: condition(), what)

    def copy(self, button: str) -> None:
        """Press a button that copies, and wait until it has said so, for a moment only."""
        self.run(
            "const button = document.querySelector(arguments[0]); window.said = [];"
            "new MutationObserver(() => said.push(button.textContent))"
            ".observe(button, {childList: true, characterData: true, subtree: true})",
            button,
        )
        self.find(button).click()
        self.wait(lambda: "Copied" in self.run("return said"), "not copied")

    def fill(self, **values: str) -> None:
        """Put values into the form as a person does; ``output_format`` stands for its wire name."""
        for name, value in values.items():
            element = self.find(f"#{name.replace('output_', 'output-').replace('key_', 'key-')}")
            if element.tag_name == "select":
                element.find_element(By.XPATH, f".//option[normalize-space()='{value}']").click()
            else:
                element.clear()
                element.send_keys(value)

    def show(self) -> None:
        """Press the button and wait for whatever comes of it."""
        self.run("document.querySelector('#caption').textContent = ''")
        self.find("button.show").click()
        self.wait_for_answer()

    def wait_for_answer(self) -> None:
        self.wait(
            lambda: self.text("#caption") and not self.find_all("#stage[aria-busy]"), "no answer"
        )

    def emulate(self, **features: str) -> None:
        """Set media features such as ``prefers_color_scheme``."""
        pairs = [
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": pairs})

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )

    def read_log(self, kind: str) -> list[dict[str, Any]]:
        """Return what Chromium logged since last time: ``performance`` or ``browser``."""
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def collect(self) -> None:
        """Take what the logs hold since last time."""
        for entry in self.read_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.fetched.append(message["params"]["request"]["url"])
        for entry in self.read_log("browser"):
            # Chromium logs every answer that is an error; and it looks for an icon of an answer
            # that it shows by itself, which names none.
            # The last is what a test that takes the network away asks for.
            expected = (
                "/api/v1/cutouts",
                "/api/v1/identify",
                "net::ERR_INTERNET_DISCONNECTED",
            )
            if entry["source"] != "network" or not any(n in entry["message"] for n in expected):
                self.console.append(f"{entry['level']} {entry['source']}: {entry['message']}")


def require_chromium() -> None:
    missing = [str(program) for program in (CHROMIUM, CHROMEDRIVER) if not program.exists()]
    if not missing:
        return
    sentence = f"no {' and no '.join(missing)}: run install/test-programs.sh"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextlib.contextmanager
def start_chromium(folder: Path, preferences: dict[str, Any]) -> Iterator[webdriver.Chrome]:
    require_chromium()
    wrapper = folder / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv --pdeathsig KILL {CHROMIUM} "$@"\n')
    wrapper.chmod(0o755)
    driver_wrapper = folder / "chromedriver"
    driver_wrapper.write_text(f'#!/bin/sh\nexec setpriv --pdeathsig KILL {CHROMEDRIVER} "$@"\n')
    driver_wrapper.chmod(0o755)

    options = webdriver.ChromeOptions()
    options.binary_location = str(wrapper)
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root with it
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # The path is given, so that selenium looks for no driver on the net.
    server = Service(str(driver_wrapper), popen_kw={"start_new_session": True})
    driver = webdriver.Chrome(options, server)
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()
        end_group(server.process)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    folder = tmp_path_factory.mktemp("chromium")
    downloads = {"download.default_directory": str(folder), "download.prompt_for_download": False}
    with start_chromium(folder, downloads) as driver:
        yield driver


@pytest.fixture
def browser(chromium: webdriver.Chrome, service: RunningService) -> Iterator[Browser]:
    """A browser as if just started; afterwards it must have been quiet, and on this host only."""
    yield from watch(chromium, service)


@pytest.fixture(scope="session")
def chromium_without_javascript(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[webdriver.Chrome]:
    folder = tmp_path_factory.mktemp("plain")
    off = {"profile.managed_default_content_settings.javascript": 2}
    with start_chromium(folder, off) as driver:
        yield driver


@pytest.fixture
def plain_browser(
    chromium_without_javascript: webdriver.Chrome, service: RunningService
) -> Iterator[Browser]:
    yield from watch(chromium_without_javascript, service)


def watch(driver: webdriver.Chrome, service: RunningService) -> Iterator[Browser]:
    driver.get("about:blank")
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page = Browser(driver, service.url)
    for kind in ("performance", "browser"):
        page.read_log(kind)  # what came before, such as Chromium's own first page
    yield page
    page.collect()
    own = urlsplit(page.url).netloc
    elsewhere = [
        url
        for url in page.fetched
        if urlsplit(url).scheme not in ("data", "blob", "about") and urlsplit(url).netloc != own
    ]
    assert elsewhere == [], "the page asks other hosts"
    assert page.console == [], "the browser complains"
