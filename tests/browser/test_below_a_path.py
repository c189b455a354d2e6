"""The pages in Chromium, below a path of another host through nginx, and at the root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from cutout_api.demo import make_archive
from cutout_api.settings import Archive, Settings

from ..catalogue import catalogued
from ..nginx import require_nginx, running_nginx, site_below_a_path
from ..service import free_port
from .conftest import PATIENCE, Browser, RunningService, serve, watch
from .test_explorer import look_for, settle, visit

WAYS = ("at the root", "below a path")
SURVEYS = ("ztf", "lsst")


@dataclass(frozen=True)
class Places:
    base: dict[str, str]
    objects: dict[str, str]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    require_nginx()
    folder = tmp_path_factory.mktemp("below")
    summary = make_archive(folder / "archive", nights=4, objects=8)
    made = catalogued(Settings(archive=Archive(uri=(folder / "archive").as_uri())))
    objects = {each.survey: each.example_object for each in summary.archives}
    with serve(folder / "archive", made.catalog.url, folder / "service.log") as running:
        port = free_port()
        site = site_below_a_path(port, running.url)
        (folder / "nginx").mkdir()
        for each in (folder.parent, folder):
            each.chmod(0o755)
        host = f"http://127.0.0.1:{port}"
        with running_nginx(site, host, folder / "nginx"):
            yield Places({"at the root": running.url, "below a path": f"{host}/stamps"}, objects)


@dataclass
class Watched:
    """A browser, and what each request of its pages was answered."""

    page: Browser
    places: Places
    way: str

    def __post_init__(self) -> None:
        self.answers: dict[str, int] = {}

    def note(self) -> None:
        for entry in self.page.read_log("performance"):
            message = json.loads(entry["message"])["message"]
            params: dict[str, Any] = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                self.page.fetched.append(params["request"]["url"])
            if message["method"] == "Network.responseReceived":
                self.answers[params["response"]["url"]] = params["response"]["status"]


@pytest.fixture(params=WAYS)
def watched(
    request: pytest.FixtureRequest, chromium: webdriver.Chrome, places: Places
) -> Iterator[Watched]:
    yield from watch_all(chromium, places, request.param)


@pytest.fixture(params=WAYS)
def watched_plain(
    request: pytest.FixtureRequest,
    chromium_without_javascript: webdriver.Chrome,
    places: Places,
) -> Iterator[Watched]:
    yield from watch_all(chromium_without_javascript, places, request.param)


def watch_all(driver: webdriver.Chrome, places: Places, way: str) -> Iterator[Watched]:
    base = places.base[way]
    for page in watch(driver, RunningService(base)):
        made = Watched(page, places, way)
        yield made
        made.note()
        fetched = [url for url in page.fetched if urlsplit(url).scheme.startswith("http")]
        assert len(fetched) > 2
        assert [url for url in fetched if not url.startswith(f"{base}/")] == []
        missed = {url: status for url, status in made.answers.items() if status >= 400}
        expected = [url for url in missed if "zzzz" in url]  # what a test looks for in vain
        assert missed == dict.fromkeys(expected, 404)


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_explorer_draws_stamps_and_light_curve(watched: Watched, survey: str) -> None:
    page, base, name = (
        watched.page,
        watched.places.base[watched.way],
        watched.places.objects[survey],
    )
    page.open("/")
    look_for(page, name)
    found = requests.get(f"{base}/api/v1/identify", {"id": name}, timeout=PATIENCE).json()
    epochs = found["matches"][0]["epochs"]
    assert len(epochs) > 1
    assert page.driver.current_url == f"{base}/?id={name}"
    widths = page.run("return [...document.querySelectorAll('#stamps canvas')].map((c) => c.width)")
    assert min(widths) >= 30
    assert len(page.find_all("#curve .point[data-alert]")) >= len(epochs)
    assert not page.find("#problem").is_displayed()
    assert "Without errors" not in page.text("#curve-note")

    page.find("#previous").click()
    settle(page)
    moved = page.driver.current_url
    assert moved.startswith(f"{base}/?id={name}&epoch=")
    visit(page, moved.removeprefix(base))  # what the page's address says is found again
    assert page.driver.current_url == moved

    assert page.text("#as-link").startswith(f"{base}/api/v1/cutouts?")
    assert page.text("#as-curl").startswith(f"curl '{base}/api/v1/cutouts?")
    assert f'"{base}/api/v1/cutouts"' in page.text("#as-python")
    links = [link.get_attribute("href") or "" for link in page.find_all("main a, header a")]
    assert len(links) > 80
    assert [link for link in links if not link.startswith(f"{base}/")] == []
    for link in [link.get_attribute("href") or "" for link in page.find_all("#downloads a")]:
        assert requests.get(link, timeout=PATIENCE).status_code == 200


def test_what_went_wrong_is_explained_below_the_path(watched: Watched) -> None:
    page, base = watched.page, watched.places.base[watched.way]
    page.open("/")
    look_for(page, "ZTF24zzzzzzz")
    page.find("#problem a").click()
    page.appear("article:target")
    assert page.driver.current_url.startswith(f"{base}/docs/errors#")


def test_the_form_shows_a_picture_and_the_request(watched: Watched) -> None:
    page, base = watched.page, watched.places.base[watched.way]
    page.open("/try")
    page.fill(key=watched.places.objects["ztf"], output_format="PNG")
    page.show()
    assert page.run("return document.querySelector('#stage img').naturalWidth") > 30
    assert page.text("#curl").startswith(f"curl '{base}/api/v1/cutouts?")
    assert page.driver.current_url.startswith(f"{base}/try?")
    page.driver.refresh()  # the address of the page asks the same again
    page.wait_for_answer()
    assert page.run("return document.querySelector('#stage img').naturalWidth") > 30
    for example in page.find_all(".examples pre code"):
        assert f"'{base}/api/v1/cutouts'" in example.text


def test_the_documentation_tries_it_out_at_the_right_place(watched: Watched) -> None:
    page, base = watched.page, watched.places.base[watched.way]
    page.open("/docs")
    page.wait(lambda: page.find_all(".opblock"), "no operations")
    page.find(".opblock-get .opblock-summary-control").click()
    page.wait(lambda: page.find_all(".try-out__btn"), "cannot be tried")[0].click()
    page.wait(lambda: page.find_all("tr[data-param-name] input:enabled"), "no fields")
    name = watched.places.objects["ztf"]
    page.find("tr[data-param-name='objectId'] input").send_keys(name, Keys.TAB)
    for parameter, value in {"kind": "Template", "output-format": "PNG"}.items():
        page.find(f"tr[data-param-name='{parameter}'] option[value='{value}']").click()
    page.find(".opblock.is-open .execute").click()
    page.wait(
        lambda: page.run(
            "return document.querySelector('.live-responses-table img')?.naturalWidth > 30"
        ),
        "no picture",
    )
    assert page.text(".request-url pre").startswith(f"{base}/api/v1/cutouts?")


def test_the_gallery_shows_its_pictures(watched: Watched) -> None:
    page = watched.page
    page.open("/gallery")
    pictures = "[...document.querySelectorAll('.gallery img')]"
    page.run(f"for (const picture of {pictures}) picture.loading = 'eager'")
    page.wait(
        lambda: page.run(
            f"const all = {pictures}; return all.length > 15 && all.every((p) => p.naturalWidth)"
        ),
        "not all pictures",
    )


def test_without_scripts_the_form_leads_to_a_picture(watched_plain: Watched) -> None:
    page, base = watched_plain.page, watched_plain.places.base[watched_plain.way]
    name = watched_plain.places.objects["lsst"]
    page.open(f"/?id={name}")  # which sends on to the page without scripts
    picture = "return document.querySelector('img.plain')?.naturalWidth > 90"
    page.wait(lambda: page.run(picture), "no picture")
    assert page.driver.current_url == f"{base}/plain?id={name}"
    page.find("#id").clear()
    page.find("#id").send_keys(watched_plain.places.objects["ztf"], Keys.ENTER)
    page.wait(lambda: name not in page.driver.current_url, "not sent")
    page.wait(lambda: page.run(picture), "no picture")
    link = page.find("main a[href*='/api/v1/cutouts?']").get_attribute("href") or ""
    assert link.startswith(f"{base}/api/v1/cutouts?")
