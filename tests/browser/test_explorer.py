"""The page at /: an id, its stamps, its light curve, and what can be taken from there."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pytest
import requests
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from cutout_api.demo import make_archive
from cutout_api.settings import Archive, Settings

from .. import histories as odd
from ..catalogue import catalogued
from ..epochs_archive import OLD_SCHEMA, epoch
from ..samples import KINDS, WINTER_SCHEMA, lsst_fits, pixels, winter_alert, write
from .conftest import (
    LSST_FILE,
    LSST_SOURCE,
    PATIENCE,
    ZTF_FILE,
    ZTF_NEW,
    ZTF_OBJECT,
    ZTF_OLD,
    Browser,
    RunningService,
    serve,
    watch,
)
from .test_try import CONTRAST, run_curl

LONELY = "ZTF24lonelya"
WINTER = "WNTR24aaaaa"
SURVEYS = ("ztf", "lsst")
ALERT_KEYS = {"ztf": "candid", "lsst": "diaSourceId"}
OBJECT_KEYS = {"ztf": "objectId", "lsst": "diaObjectId"}


TIMELESS_ALERT = odd.SECOND + 2
ODD_SCHEMA = pa.schema([*odd.LSST_SCHEMA, *((f"cutout{kind}", pa.binary()) for kind in KINDS)])


def odd_sources() -> list[dict[str, Any]]:
    """Return alerts of one object: one has neither band nor a positive flux, one no time."""
    (_, first), (_, second) = odd.lsst_nights()
    first["diaSource"] |= {"band": None, "psfFlux": -70.0}
    timeless = odd.alert(odd.source(TIMELESS_ALERT, None), None, None)
    stamps = {f"cutout{kind}": lsst_fits(pixels(7, (30, 30))) for kind in KINDS}
    return [row | stamps for row in (first, second, timeless)]


@dataclass(frozen=True)
class Explored:
    """A running service over a catalogued archive, and an object of each survey in it."""

    running: RunningService
    objects: dict[str, str]
    epochs: dict[str, list[dict[str, Any]]]
    """By survey: the epochs of that object, oldest first, as the service tells them."""

    @property
    def url(self) -> str:
        return self.running.url

    def alerts(self, survey: str) -> list[str]:
        return [found[ALERT_KEYS[survey]] for found in self.epochs[survey]]

    def get(self, path: str, **arguments: str) -> requests.Response:
        named = {name.replace("_format", "-format"): value for name, value in arguments.items()}
        return requests.get(self.url + path, named, timeout=PATIENCE)


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    folder = tmp_path_factory.mktemp("explored")
    summary = make_archive(folder, nights=4, objects=20)
    nothing = {"fileName": None, "stampData": None}
    lonely = [epoch(70, LONELY, cutoutTemplate=nothing, jd=2_450_000.5)]
    write(folder / "lonely/part-0.parquet", lonely, OLD_SCHEMA)
    write(folder / "odd/part-0.parquet", odd_sources(), ODD_SCHEMA)
    write(folder / "winter/part-0.parquet", [winter_alert(n) for n in (0, 1)], WINTER_SCHEMA)
    settings = catalogued(Settings(archive=Archive(uri=folder.as_uri())))
    with serve(folder, settings.catalog.url, folder.parent / "explored.log") as running:
        objects = {archive.survey: archive.example_object for archive in summary.archives}
        epochs = {}
        for survey, name in objects.items():
            answer = requests.get(f"{running.url}/api/v1/identify", {"id": name}, timeout=PATIENCE)
            epochs[survey] = answer.json()["matches"][0]["epochs"]
        assert min(map(len, epochs.values())) >= 3
        yield Explored(running, objects, epochs)


@pytest.fixture
def page(chromium: webdriver.Chrome, explored: Explored) -> Iterator[Browser]:
    """A browser in front of that service, quiet and on this host only when the test is over."""
    yield from watch(chromium, explored.running)


@pytest.fixture
def plain_page(
    chromium_without_javascript: webdriver.Chrome, explored: Explored
) -> Iterator[Browser]:
    yield from watch(chromium_without_javascript, explored.running)


# ---- what a person does


def settle(page: Browser) -> None:
    """Wait until whatever was asked for is shown, or what went wrong."""
    page.wait(
        lambda: page.run(
            "const [status, problem] = ['#status', '#problem'].map((id) =>"
            " document.querySelector(`${id}:not([hidden])`)?.textContent.trim() ?? '');"
            "return !document.querySelector('[aria-busy]')"
            " && !status.endsWith('…') && Boolean(status || problem)"
        ),
        "nothing is shown",
    )


def visit(page: Browser, path: str) -> None:
    page.open(path)
    settle(page)


def look_for(page: Browser, text: str) -> None:
    page.find("#id").clear()
    page.find("#id").send_keys(text, Keys.ENTER)
    settle(page)


def choose(page: Browser, control: str, value: str) -> None:
    Select(page.find(f"#{control}")).select_by_value(value)
    settle(page)


def press(page: Browser, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()
    settle(page)


def slide(page: Browser, control: str, value: float) -> None:
    """Move a slider to a value, as a finger does: the page hears of it by ``input``."""
    page.run(
        "const slider = document.querySelector(arguments[0]); slider.value = arguments[1];"
        "slider.dispatchEvent(new Event('input', {bubbles: true}))",
        f"#{control}",
        value,
    )


def shown_alert(page: Browser) -> str:
    return page.text("#facts dd")


def current_point(page: Browser) -> str:
    marked = page.find_all("#curve .current")
    assert len(marked) == 1
    return str(marked[0].get_attribute("data-alert"))


def read_canvas(page: Browser, kind: str) -> np.ndarray:
    """Return the picture of a stamp: (ny, nx, RGBA)."""
    address = page.run(
        "return document.querySelector(`[data-kind=${arguments[0]}] canvas`).toDataURL()", kind
    )
    return read_png(base64.b64decode(address.partition(",")[2]))


def read_png(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGBA"))


def assert_like(shown: np.ndarray, answered: np.ndarray) -> None:
    assert shown.shape == answered.shape
    away = np.abs(shown.astype(int) - answered.astype(int))
    assert away.max() <= 2, f"up to {away.max()} levels apart"


def link(page: Browser) -> str:
    return str(page.find("#as-link a").get_attribute("href"))


# ---- an id


def test_the_examples_are_objects_of_the_archive_and_open_with_one_press(page: Browser) -> None:
    page.open()
    examples = [example.text for example in page.find_all(".example")]
    assert len(examples) == 7
    assert any(name.startswith("ZTF") for name in examples)
    page.find_all(".example")[-1].click()
    settle(page)
    assert page.text("#curve-title") == examples[-1]
    assert f"id={examples[-1]}" in page.driver.current_url


@pytest.mark.parametrize("survey", SURVEYS)
def test_an_object_is_shown_at_its_latest_alert(
    page: Browser, explored: Explored, survey: str
) -> None:
    page.open()
    look_for(page, explored.objects[survey])
    assert page.text("#curve-title") == explored.objects[survey]
    assert shown_alert(page) == current_point(page) == explored.alerts(survey)[-1]


def test_an_object_of_a_survey_that_shares_its_keys_is_shown_too(
    page: Browser, explored: Explored
) -> None:
    """Its stamps are asked for by a candid, which may be of ZTF, and hold masked pixels."""
    visit(page, f"/?id={WINTER}")
    assert page.text("#curve-title") == WINTER
    assert shown_alert(page) == "3608001"
    assert len(page.find_all("#curve [data-alert]")) == 2
    assert not page.find_all("#problem:not([hidden])")
    for kind in KINDS:
        drawn = read_canvas(page, kind)
        asked = {"candid": "3608001", "kind": kind, "output_format": "array"}
        (rows,) = explored.get("/api/v1/cutouts", **asked).json().values()
        assert drawn.shape[:2] == np.shape(rows)
        assert np.ptp(drawn[..., 0]) > 100


@pytest.mark.parametrize("survey", SURVEYS)
def test_an_alert_is_shown_among_those_of_its_object(
    page: Browser, explored: Explored, survey: str
) -> None:
    wanted = explored.alerts(survey)[1]
    page.open()
    look_for(page, f"  {wanted}  ")
    assert page.text("#curve-title") == explored.objects[survey]
    assert shown_alert(page) == current_point(page) == wanted
    look_for(page, f"{explored.alerts(survey)[0]}_cutoutScience")
    assert shown_alert(page) == explored.alerts(survey)[0]


@pytest.mark.parametrize("survey", SURVEYS)
def test_a_link_may_name_the_key_as_requests_do(
    page: Browser, explored: Explored, survey: str
) -> None:
    visit(page, f"/?{OBJECT_KEYS[survey]}={explored.objects[survey]}")
    assert shown_alert(page) == explored.alerts(survey)[-1]
    visit(page, f"/?{ALERT_KEYS[survey]}={explored.alerts(survey)[0]}")
    assert shown_alert(page) == explored.alerts(survey)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ZTF24zzzzzzz", "no alert or object ZTF24zzzzzzz is in the catalog"),
        ("123456789012345678", "brought up to date at"),
        ("ZTF1", "must be a ZTF object name"),
        ("12e3", "must be a ZTF object name"),
        ("<img src=x>", "'<img src=x>'"),
        ("9" * 30, "must be"),
    ],
)
def test_an_id_that_names_nothing_is_said_in_the_service_s_words(
    page: Browser, text: str, words: str
) -> None:
    page.open()
    look_for(page, text)
    assert words in page.text("#problem")
    assert not page.find("#explorer").is_displayed()
    page.find("#problem a").click()
    page.appear("article:target")


def test_a_service_that_is_gone_is_said_and_can_be_tried_again(
    page: Browser, explored: Explored
) -> None:
    page.open()
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    emulate = "Network.emulateNetworkConditions"
    page.driver.execute_cdp_cmd(emulate, {"offline": True, **network})
    try:
        look_for(page, explored.objects["ztf"])
        assert "The service cannot be reached" in page.text("#problem")
    finally:
        page.driver.execute_cdp_cmd(emulate, {"offline": False, **network})
    page.find("#problem .retry").click()
    settle(page)
    assert shown_alert(page) == explored.alerts("ztf")[-1]
    assert not page.find("#problem").is_displayed()


def test_a_view_takes_a_handful_of_requests(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['ztf']}")
    page.wait(lambda: page.find_all("#curve .error-bar"), "no errors")
    page.collect()
    assert len([url for url in page.fetched if "/api/" in url]) == 4


def test_the_page_is_there_before_its_data(page: Browser, explored: Explored) -> None:
    body = explored.get("/", id=explored.objects["ztf"]).text
    assert "What this service can do" in body
    assert explored.alerts("ztf")[-1] not in body


# ---- the stamps


LOOKS = [
    {},
    {"stretch": "linear"},
    {"stretch": "sqrt"},
    {"stretch": "log"},
    {"stretch": "log", "colormap": "viridis"},
    {"stretch": "linear", "colormap": "bwr", "invert": "1"},
    {"stretch": "asinh", "colormap": "inferno", "low": "20", "high": "90"},
    {"stretch": "linear", "limits": "zscale"},
    {"stretch": "linear", "limits": "manual", "low": "100", "high": "400"},
    {"stretch": "linear", "low": "0", "high": "100"},
]


@pytest.mark.parametrize("survey", SURVEYS)
@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_what_is_drawn_is_what_the_copied_request_gives(
    page: Browser, explored: Explored, survey: str, look: dict[str, str]
) -> None:
    words = "&".join(f"{name}={value}" for name, value in look.items())
    visit(page, f"/?id={explored.objects[survey]}&{words}")
    drawn = {kind: read_canvas(page, kind) for kind in KINDS}
    assert len(np.unique(drawn["Science"][..., 1])) > 8

    answer = requests.get(link(page), timeout=PATIENCE)
    assert answer.ok, answer.text
    assert parse_qs(urlsplit(link(page)).query)["kind"] == ["All"]
    assert_like(np.concatenate([drawn[kind] for kind in KINDS], axis=1), read_png(answer.content))
    for kind in KINDS:
        choose(page, "kind", kind)
        asked = {name: value for name, [value] in parse_qs(urlsplit(link(page)).query).items()}
        assert asked["kind"] == kind
        assert float(asked["vmin"]) < float(asked["vmax"])
        assert_like(
            read_canvas(page, kind), read_png(requests.get(link(page), timeout=PATIENCE).content)
        )


def test_masked_pixels_are_drawn_as_the_service_does_and_said(
    page: Browser, service: RunningService, chromium: webdriver.Chrome
) -> None:
    page.url = service.url  # whose stamps have masked pixels, in a file that nothing catalogued
    visit(page, f"/?id={ZTF_OBJECT}&hdfsPath={ZTF_FILE}")
    assert_like(
        np.concatenate([read_canvas(page, kind) for kind in KINDS], axis=1),
        read_png(requests.get(link(page), timeout=PATIENCE).content),
    )
    frame = page.find("[data-kind=Science] .sky-frame")
    cell = frame.size["width"] / 63
    chain = ActionChains(page.driver)
    chain.move_to_element_with_offset(frame, round((1.5 - 31) * cell), round((0.5 - 31.5) * cell))
    chain.perform()
    assert "x 1, y 0 · Science masked" in page.text("#readout")


@pytest.mark.parametrize("survey", SURVEYS)
def test_sliders_move_the_limits_at_once(page: Browser, explored: Explored, survey: str) -> None:
    visit(page, f"/?id={explored.objects[survey]}&stretch=linear")
    before, words = read_canvas(page, "Science"), page.text("[data-kind=Science] .limits")
    page.collect()
    page.fetched.clear()
    slide(page, "high", 70)
    assert (read_canvas(page, "Science") != before).any()
    assert page.text("[data-kind=Science] .limits") != words
    assert page.find("#high-value").get_attribute("value") == "70"
    assert "pmax=70" in link(page)
    assert "high=70" in page.driver.current_url

    slide(page, "low", 80)  # pushes the other before it
    assert float(page.find("#high-value").get_attribute("value") or 0) > 80
    slide(page, "high", 0)
    low, high = (
        float(page.find(f"#{name}-value").get_attribute("value") or 0) for name in ("low", "high")
    )
    assert 0 <= low < high <= 100
    assert requests.get(link(page), timeout=PATIENCE).ok
    page.collect()
    assert page.fetched == []  # all of that without the service


def test_limits_are_typed_as_numbers_too(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['ztf']}&limits=manual&low=100&high=300")
    number = page.find("#high-value")
    number.send_keys(Keys.CONTROL, "a", Keys.NULL, "512.5", Keys.ENTER)
    assert "vmax=512.5" in link(page)
    number.send_keys(Keys.CONTROL, "a", Keys.NULL, "much", Keys.ENTER)
    assert number.get_attribute("value") == "512.5"
    page.find("#reset").click()
    assert "interval=percentile" in link(page)
    assert "limits=" not in page.driver.current_url


def test_switching_to_pixel_values_keeps_the_limits_of_the_stamp_chosen(
    page: Browser, explored: Explored
) -> None:
    visit(page, f"/?id={explored.objects['lsst']}&kind=Difference")
    before = page.text("[data-kind=Difference] .limits")
    choose(page, "limits", "manual")
    assert page.text("[data-kind=Difference] .limits") == before
    assert page.text("[data-kind=Science] .limits") == before


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_cursor_tells_pixel_value_and_place(
    page: Browser, explored: Explored, survey: str
) -> None:
    alert = explored.alerts(survey)[-1]
    asked = {ALERT_KEYS[survey]: alert, "kind": "Science", "output_format": "FITS", "wcs": "fix"}
    with fits.open(io.BytesIO(explored.get("/api/v1/cutouts", **asked).content)) as hdus:
        pixels, wcs = np.array(hdus[0].data), WCS(hdus[0].header)
    ny, nx = pixels.shape
    for north in ("0", "1"):
        visit(page, f"/?id={alert}&north={north}")
        frame = page.find("[data-kind=Science] .sky-frame")
        for part in ((0.5, 0.5), (0.4, 0.55), (0.58, 0.35)):
            offset = [round((place - 0.5) * frame.size["width"]) for place in part]
            ActionChains(page.driver).move_to_element_with_offset(frame, *offset).perform()
            found = re.search(
                r"x (\d+), y (\d+) · Science (\S+) .* RA ([\d.]+)° Dec ([+-][\d.]+)°",
                page.text("#readout"),
            )
            assert found, page.text("#readout")
            x, y = int(found[1]), int(found[2])
            if north == "0":
                # The pixel's centre; the pointer is put to whole pixels of the screen.
                assert abs(x + 0.5 - part[0] * nx) <= 1
                assert abs(y + 0.5 - part[1] * ny) <= 1
            assert float(found[3]) == pytest.approx(float(pixels[y, x]), rel=1e-4)
            ra, dec = wcs.pixel_to_world_values(x, y)
            assert float(found[4]) == pytest.approx(float(ra), abs=2e-5)
            assert float(found[5]) == pytest.approx(float(dec), abs=2e-5)
            mark = page.find("[data-kind=Science] .mark").rect
            middle = mark["x"] + mark["width"] / 2 - frame.rect["x"]
            assert abs(middle - part[0] * frame.size["width"]) <= 1.5 * frame.size["width"] / nx


@pytest.mark.parametrize("survey", SURVEYS)
def test_north_up_shows_the_stamp_as_the_service_turns_it(
    page: Browser, explored: Explored, survey: str
) -> None:
    visit(page, f"/?id={explored.objects[survey]}&stretch=linear")
    page.find("#north").click()
    assert "orient=north" in link(page)
    choose(page, "kind", "Science")
    frame = page.find("[data-kind=Science] .sky-frame")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    size = frame.size["width"]
    seen = Image.open(io.BytesIO(frame.screenshot_as_png)).convert("L").resize((size, size))
    asked = f"{link(page)}&resample=nearest&size={size}"
    turned = Image.open(io.BytesIO(requests.get(asked, timeout=PATIENCE).content)).convert("L")
    # Coarser than the stamp's pixels, of which the screen's are no whole number.
    one, other = (
        np.asarray(it.resize((32, 32), Image.Resampling.BOX), float) for it in (seen, turned)
    )
    inside = slice(6, -6)

    def likeness(image: np.ndarray) -> float:
        return float(np.corrcoef(one[inside, inside].ravel(), image[inside, inside].ravel())[0, 1])

    assert likeness(other) > 0.9
    assert likeness(other[::-1]) < likeness(other) - 0.1
    assert likeness(other[:, ::-1]) < likeness(other) - 0.1


def test_a_missing_template_is_said_in_its_place(page: Browser) -> None:
    page.open()
    look_for(page, LONELY)
    assert page.text("[data-kind=Template] .nothing") == "The alert has no such stamp."
    assert len(np.unique(read_canvas(page, "Science")[..., 0])) > 8
    assert len(np.unique(read_canvas(page, "Difference")[..., 0])) > 8
    assert not page.find("#problem").is_displayed()
    assert "kind=Science" in link(page)
    assert_like(
        read_canvas(page, "Science"), read_png(requests.get(link(page), timeout=PATIENCE).content)
    )
    assert page.find_all("#kind option[value=All]:disabled, #kind option:disabled")
    press(page, "3")
    assert "kind=Difference" in link(page)
    for download in page.find_all("#downloads a"):
        assert requests.get(str(download.get_attribute("href")), timeout=PATIENCE).ok, download.text


def test_an_object_of_one_epoch_has_nowhere_to_step(page: Browser) -> None:
    visit(page, f"/?id={LONELY}")
    assert "Epoch 1 of 1" in page.text("#status")
    assert all(not page.find(f"#{name}").is_enabled() for name in ("first", "previous", "next"))
    assert len(page.find_all("#curve .point[data-alert]")) == 1
    here = page.driver.current_url
    press(page, Keys.ARROW_RIGHT)
    assert page.driver.current_url == here


# ---- blinking


def watch_blinking(page: Browser, count: int, most: float = 20) -> tuple[list[str], float]:
    """Return so many stamps that are shown one after the other, and in how many seconds.

    They are fewer where they take more than ``most`` seconds.
    """
    seen, milliseconds = page.driver.execute_async_script(
        "const [count, most, done] = arguments, seen = [], start = performance.now();"
        "const look = () => { const shown = document.querySelector('.stamp.shown')?.dataset.kind;"
        " if (shown && shown !== seen.at(-1)) seen.push(shown);"
        " const past = performance.now() - start;"
        " if (seen.length < count && past < most) setTimeout(look, 10);"
        " else done([seen, past]); };"
        "look()",
        count,
        1000 * most,
    )
    return seen, milliseconds / 1000


def test_stamps_blink_in_one_place_at_the_pace_chosen(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['ztf']}")
    choose(page, "blinked", "Science,Template,Difference")
    choose(page, "pace", "8")
    page.find("#blink").click()
    assert page.find("#blink").get_attribute("aria-pressed") == "true"
    # The first is there already, somewhere in its time; on a busy machine not each turn is even.
    page.wait(lambda: 4 * 0.11 < watch_blinking(page, 6)[1] < 7 * 0.125, "another pace", 60)
    assert set(watch_blinking(page, 4)[0]) == set(KINDS)
    # Asked in one moment: they blink meanwhile.
    shown = "[...document.querySelectorAll('.stamp')].filter((frame) => frame.checkVisibility())"
    assert page.run(f"return {shown}.length") == 1
    choose(page, "blinked", "Science,Template")
    assert set(watch_blinking(page, 5)[0][1:]) == {"Science", "Template"}

    page.run("document.activeElement.blur()")
    press(page, "b")
    assert page.find("#blink").get_attribute("aria-pressed") == "false"
    assert all(frame.is_displayed() for frame in page.find_all(".stamp"))


def test_nothing_blinks_by_itself_where_motion_is_not_wanted(
    page: Browser, explored: Explored
) -> None:
    page.emulate(prefers_reduced_motion="reduce")
    visit(page, f"/?id={explored.objects['ztf']}&limits=percentile")
    press(page, "b")
    assert watch_blinking(page, 2, 1.1)[0] == ["Science"]
    press(page, "b")
    assert watch_blinking(page, 1)[0] == ["Template"]
    press(page, "b")
    assert not page.find_all(".blinking")


# ---- the light curve


@pytest.mark.parametrize("survey", SURVEYS)
def test_every_epoch_is_a_point_brighter_ones_higher(
    page: Browser, explored: Explored, survey: str
) -> None:
    visit(page, f"/?id={explored.objects[survey]}")
    epochs = [found for found in explored.epochs[survey] if found["brightness"] is not None]
    points = page.run(
        "return [...document.querySelectorAll('#curve .point[data-alert]')].map((point) => {"
        " const box = point.querySelector('.marker').getBoundingClientRect();"
        " return [point.dataset.alert, box.x + box.width / 2, box.y + box.height / 2] })"
    )
    assert sorted(point[0] for point in points) == sorted(explored.alerts(survey))
    place = {alert: (x, y) for alert, x, y in points}
    sign = 1 if epochs[0]["brightness_unit"] == "mag" else -1
    brightness = [found["brightness"] * sign for found in epochs]
    heights = [place[found[ALERT_KEYS[survey]]][1] for found in epochs]
    assert np.corrcoef(brightness, heights)[0, 1] > 0.99  # down the page is fainter
    times = [place[alert][0] for alert in explored.alerts(survey)]
    assert times == sorted(times)
    page.wait(lambda: page.find_all("#curve .error-bar"), "no errors")
    assert bool(page.find_all("#curve .limit")) == (survey == "ztf")
    bands = {found["band"] for found in epochs}
    drawn = page.run(
        "return [...document.querySelectorAll('#curve .point')]"
        ".map((point) => point.classList[1].replace('band-', ''))"
    )
    assert {mark.text.strip() for mark in page.find_all("#legend .of-band")} == bands | {*drawn}
    explained = "upper limit" in page.text("#legend")
    assert explained == bool(page.find_all("#curve .limit"))
    tags = {"valid": "without stamps here", "history": "without stamps here"}
    for tag, words in (tags | {"forced": "forced photometry"}).items():
        if page.find_all(f"#curve .tag-{tag} .marker"):
            assert words in page.text("#legend")
    if survey == "lsst":
        assert page.find_all("#curve .tag-forced .marker")
    explained = "alert, with stamps" in page.text("#legend")
    assert explained == bool(page.find_all("#curve .other"))
    # What stands beside the axis does not stand on its numbers.
    name = page.find("#curve .axes .name").rect
    assert all(
        name["x"] + name["width"] <= value.rect["x"] for value in page.find_all("#curve .value")
    )


def title_of(page: Browser, selector: str) -> str:
    """Return what hovering over a point says."""
    return str(page.find(f"{selector} title").get_attribute("textContent"))


@pytest.mark.parametrize("survey", SURVEYS)
def test_a_point_says_what_it_is_when_and_how_bright(
    page: Browser, explored: Explored, survey: str
) -> None:
    visit(page, f"/?id={explored.objects[survey]}")
    page.wait(lambda: page.find_all("#curve .error-bar"), "no errors")
    entry = explored.epochs[survey][0]
    said = title_of(page, f'#curve [data-alert="{entry[ALERT_KEYS[survey]]}"]').split(", ")
    time = Time(entry["mjd"], format="mjd", scale=entry["time_scale"])
    utc = time.utc
    utc.precision = 0
    assert said[0] == f"band {entry['band']}"
    assert said[-2:] == [f"MJD {entry['mjd']:.5f} {entry['time_scale'].upper()}", f"{utc.iso} UTC"]
    route, value, error = {
        "ztf": ("objects", "i:magpsf", "i:sigmapsf"),
        "lsst": ("sources", "r:psfFlux", "r:psfFluxErr"),
    }[survey]
    rows = explored.get(
        f"/api/v1/{route}",
        **{OBJECT_KEYS[survey]: explored.objects[survey], "columns": f"{value},{error}"},
    ).json()
    digits = 2 if survey == "ztf" else 0
    brightness = (
        f"{rows[-1][value]:.{digits}f} ± {rows[-1][error]:.{digits}f} {entry['brightness_unit']}"
    )
    assert said[1] == brightness
    # The same value and error stand beside the stamps.
    press(page, Keys.HOME)
    facts = page.text("#facts").splitlines()
    assert brightness in facts
    if survey == "lsst":
        flux = rows[-1][value]
        assert said[2].startswith(f"AB {31.4 - 2.5 * np.log10(flux):.2f} ±")
        forced = title_of(page, "#curve .tag-forced").split(", ")
        assert forced[0] == "forced photometry"
        assert page.find_all("#curve .axes .magnitude")


def test_what_has_no_time_or_band_or_a_negative_flux_says_so(
    page: Browser, explored: Explored
) -> None:
    visit(page, f"/?id={odd.OBJECT}")
    page.wait(lambda: page.find_all("#curve .tag-forced"), "no forced photometry")
    # Of three alerts and six other measurements, one each has no time; one forced has no flux.
    assert len(page.find_all("#curve .point[data-alert]")) == 2
    assert len(page.find_all("#curve .tag-history")) == 1
    assert len(page.find_all("#curve .tag-forced")) == 2
    assert "2 with no time, not drawn" in page.text("#legend")
    assert "NaN" not in str(page.find("#explorer").get_attribute("outerHTML"))
    said = title_of(page, f'#curve [data-alert="{odd.FIRST}"]')
    assert said == (
        "no band, -70 ± 25 nJy, no AB magnitude: the flux is not above 0, "
        "MJD 61000.25000 TAI, 2025-11-21 05:59:23 UTC"
    )
    press(page, Keys.HOME)
    assert shown_alert(page) == str(TIMELESS_ALERT)
    assert "no time" in page.text("#status")
    assert "no time" in page.text("#facts").splitlines()
    assert "no time" in page.find(f'#epoch option[value="{TIMELESS_ALERT}"]').text


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_epochs_are_stepped_through_by_keys(
    page: Browser, explored: Explored, survey: str
) -> None:
    alerts = explored.alerts(survey)
    visit(page, f"/?id={explored.objects[survey]}")
    before = read_canvas(page, "Science")
    steps = [
        (Keys.ARROW_LEFT, -2), (Keys.HOME, 0), (Keys.ARROW_LEFT, 0), (Keys.ARROW_RIGHT, 1),
        (Keys.END, -1), (Keys.ARROW_RIGHT, -1),
    ]  # fmt: skip
    for key, place in steps:
        press(page, key)
        assert shown_alert(page) == current_point(page) == alerts[place]
        assert page.find("#epoch").get_attribute("value") == alerts[place]
        assert f"={alerts[place]}&" in link(page)
    np.testing.assert_array_equal(read_canvas(page, "Science"), before)
    press(page, Keys.HOME)
    assert (read_canvas(page, "Science") != before).any()


def test_a_key_that_is_held_ends_where_it_was_let_go(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['ztf']}")
    page.run(
        "for (let n = 0; n < 50; n++) document.body.dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'ArrowLeft', bubbles: true, repeat: n > 0}))"
    )
    settle(page)
    assert shown_alert(page) == explored.alerts("ztf")[0]


def test_the_epochs_are_chosen_by_buttons_list_and_points(
    page: Browser, explored: Explored
) -> None:
    alerts = explored.alerts("ztf")
    visit(page, f"/?id={explored.objects['ztf']}")
    for button, place in (("first", 0), ("next", 1), ("last", -1), ("previous", -2)):
        page.find(f"#{button}").click()
        settle(page)
        assert shown_alert(page) == alerts[place]
    choose(page, "epoch", alerts[1])
    assert current_point(page) == alerts[1]
    page.run(
        "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click',"
        " {bubbles: true}))",
        f'#curve [data-alert="{alerts[0]}"] .target',
    )
    settle(page)
    assert shown_alert(page) == current_point(page) == alerts[0]


def test_one_band_alone_may_be_looked_at(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['ztf']}")
    bands = [option.get_attribute("value") for option in page.find_all("#band option")]
    assert len(bands) >= 3
    for band in bands[1:]:
        choose(page, "band", str(band))
        kept = [found["candid"] for found in explored.epochs["ztf"] if found["band"] == band]
        points = page.find_all("#curve .point[data-alert]")
        assert {point.get_attribute("data-alert") for point in points} == set(kept)
        assert shown_alert(page) in kept
        sheet = page.find("#downloads").find_element(By.PARTIAL_LINK_TEXT, "Contact sheet")
        assert sheet.text == f"Contact sheet of {len(kept)} epoch{'s' * (len(kept) > 1)}"
        assert f"band={band}" in str(sheet.get_attribute("href"))
        page.run("document.activeElement.blur()")  # in a list, Home is the list's
        press(page, Keys.HOME)
        assert shown_alert(page) == kept[0]
        assert f"band={band}" in page.driver.current_url
        page.driver.refresh()
        settle(page)
        assert page.find("#band").get_attribute("value") == band
    choose(page, "band", "")
    assert len(page.find_all("#curve .point[data-alert]")) == len(explored.epochs["ztf"])


# ---- facts, requests, downloads


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_facts_are_those_of_the_service(page: Browser, explored: Explored, survey: str) -> None:
    alert = explored.alerts(survey)[0]
    visit(page, f"/?id={alert}")
    told = explored.get("/api/v1/cutouts/info", **{ALERT_KEYS[survey]: alert}).json()
    names = [name.text for name in page.find_all("#facts dt")]
    facts = dict(zip(names, [fact.text for fact in page.find_all("#facts dd")], strict=True))
    assert facts[ALERT_KEYS[survey]] == alert
    assert facts[OBJECT_KEYS[survey]] == told["alert"][OBJECT_KEYS[survey]]
    assert facts["date"] == told["alert"]["date"]
    if survey == "lsst":
        utc = Time(told["alert"]["midpointMjdTai"], format="mjd", scale="tai").utc
        utc.precision = 0
        assert facts["UTC"] == f"{utc.iso} UTC"
        flux = told["alert"]["brightness"]
        expected = f"{31.4 - 2.5 * np.log10(flux):.2f}" if flux > 0 else "none"
        assert facts["AB magnitude"].startswith(expected)
    else:
        assert facts["MJD (UTC)"] == f"{told['alert']['jd'] - 2400000.5:.6f}"
    assert facts["band"] == told["alert"]["band"]
    rows = [row.text.split() for row in page.find_all("#measured tbody tr")]
    for row, stamp in zip(rows, told["stamps"], strict=True):
        assert row[0] == stamp["kind"]
        assert float(row[1]) == pytest.approx(stamp["noise"], rel=1e-3)
        assert float(row[3]) == pytest.approx(stamp["at_alert"]["snr"], abs=0.06)
        assert float(row[4]) == pytest.approx(stamp["brightest_pixel"]["snr"], abs=0.06)
    heads = [head.text for head in page.find_all("#measured th[scope=col]")]
    assert heads[1:3] == ["S/N at the alert", "brightest pixel"]


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_request_works_as_curl_and_in_python(
    page: Browser, explored: Explored, tmp_path: Path, survey: str
) -> None:
    visit(page, f"/?id={explored.objects[survey]}&kind=Difference&colormap=magma")
    expected = requests.get(link(page), timeout=PATIENCE).content
    folder = tmp_path / "curl"
    folder.mkdir()
    assert run_curl(str(page.find("#as-curl").get_attribute("textContent")), folder) == expected
    code = str(page.find("#as-python").get_attribute("textContent"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=30)
    [saved] = tmp_path.glob("*.png")
    assert saved.read_bytes() == expected
    assert saved.name == f"{explored.alerts(survey)[-1]}_Difference.png"


@pytest.mark.parametrize("form", ["link", "curl", "python"])
def test_copy_puts_the_request_on_the_clipboard(
    page: Browser, explored: Explored, form: str
) -> None:
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardSanitizedWrite"], "origin": page.url},
    )
    visit(page, f"/?id={explored.objects['ztf']}")
    page.copy(f"[data-copy={form}] .copy")
    page.run(
        "const area = document.createElement('textarea'); area.id = 'pasted';"
        "document.body.append(area)"
    )
    page.find("#pasted").send_keys(Keys.CONTROL, "v")
    page.wait(lambda: page.find("#pasted").get_attribute("value"), "nothing to paste")
    code = page.find(f"#as-{form}").get_attribute("textContent")
    assert page.find("#pasted").get_attribute("value") == code


TYPES = {
    "FITS": "octet-stream", "PNG": "image/png", "Contact": "image/png", "GIF": "image/gif",
    "WebP": "image/webp", "JSON": "application/json", "CSV": "text/csv",
}  # fmt: skip


@pytest.mark.parametrize("survey", SURVEYS)
def test_every_download_is_what_it_says(page: Browser, explored: Explored, survey: str) -> None:
    visit(page, f"/?id={explored.objects[survey]}")
    links = {it.text: it for it in page.find_all("#downloads a[download]")}
    assert len(links) == 10
    for label, anchor in links.items():
        answer = requests.get(str(anchor.get_attribute("href")), timeout=PATIENCE)
        assert answer.ok, (label, answer.text)
        kind = next(kind for word, kind in TYPES.items() if word in label)
        assert kind in answer.headers["Content-Type"], label
    [whole] = [a for label, a in links.items() if label == "FITS, all three"]
    body = requests.get(str(whole.get_attribute("href")), timeout=PATIENCE).content
    with fits.open(io.BytesIO(body)) as hdus:
        assert {kind.upper() for kind in KINDS} <= {hdu.name for hdu in hdus}


def test_a_download_is_saved_under_a_name_of_its_own(
    page: Browser, explored: Explored, tmp_path: Path
) -> None:
    visit(page, f"/?id={explored.objects['lsst']}")
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.find("#downloads a").click()
    # The service names its files; a link can only name what has no name.
    saved = page.wait(lambda: list(tmp_path.glob("*.fits")), "nothing was saved")[0]
    assert explored.alerts("lsst")[-1] in saved.name


def test_every_parameter_leads_to_the_form_with_this_request(
    page: Browser, explored: Explored
) -> None:
    visit(page, f"/?id={explored.objects['ztf']}&kind=Science")
    page.find("#downloads").find_element(By.PARTIAL_LINK_TEXT, "Every parameter").click()
    page.wait_for_answer()
    assert page.find_all("#stage img")
    assert page.find("#key").get_attribute("value") == explored.alerts("ztf")[-1]


# ---- the address of the page


def test_back_and_forward_go_through_what_was_looked_at(page: Browser, explored: Explored) -> None:
    alerts = explored.alerts("ztf")
    page.open()
    look_for(page, explored.objects["ztf"])
    choose(page, "epoch", alerts[0])
    press(page, Keys.ESCAPE)
    page.run("document.activeElement.blur()")
    press(page, Keys.ARROW_RIGHT)
    press(page, Keys.ARROW_RIGHT)  # a walk by keys is one step back
    look_for(page, explored.objects["lsst"])

    def go(way: str) -> None:
        before = page.driver.current_url
        getattr(page.driver, way)()
        page.wait(lambda: page.driver.current_url != before, "it stays")
        settle(page)

    go("back")
    assert shown_alert(page) == alerts[2]
    go("back")
    assert shown_alert(page) == alerts[0]
    go("back")
    assert shown_alert(page) == alerts[-1]
    go("forward")
    assert shown_alert(page) == alerts[0]
    go("forward")
    go("forward")
    assert page.text("#curve-title") == explored.objects["lsst"]
    assert page.find("#id").get_attribute("value") == explored.objects["lsst"]


def test_the_address_shows_the_same_again(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['lsst']}")
    choose(page, "stretch", "log")
    choose(page, "colormap", "cividis")
    page.find("#invert").click()
    press(page, Keys.HOME)
    before, request = read_canvas(page, "Science"), link(page)
    page.driver.refresh()
    settle(page)
    assert link(page) == request
    np.testing.assert_array_equal(read_canvas(page, "Science"), before)
    assert page.find("#stretch").get_attribute("value") == "log"


@pytest.mark.parametrize(
    "words", ["stretch=none&colormap=x&low=abc&high=&limits=1", "low=5&high=2", "epoch=5&band=q"]
)
def test_an_address_that_makes_no_sense_shows_what_it_can(
    page: Browser, explored: Explored, words: str
) -> None:
    visit(page, f"/?id={explored.objects['ztf']}&{words}")
    assert shown_alert(page) == explored.alerts("ztf")[-1]
    assert requests.get(link(page), timeout=PATIENCE).ok


# ---- for everybody


def test_the_explorer_is_used_by_keyboard_alone(page: Browser, explored: Explored) -> None:
    page.open()

    def tab_to(name: str) -> None:
        for _ in range(40):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            if page.driver.switch_to.active_element.get_attribute("id") == name:
                return
        pytest.fail(f"{name} is not reached by Tab")

    ActionChains(page.driver).send_keys("/").perform()
    assert page.driver.switch_to.active_element.get_attribute("id") == "id"
    press(page, explored.objects["lsst"], Keys.ENTER)
    assert shown_alert(page) == explored.alerts("lsst")[-1]
    tab_to("stretch")
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(page, "l")
    tab_to("low")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)  # the slider's, not an epoch's
    assert "pmin=1.2" in link(page)
    assert shown_alert(page) == explored.alerts("lsst")[-1]
    tab_to("invert")
    press(page, Keys.SPACE)
    assert "invert=1" in link(page)
    press(page, "n")
    assert page.find("#north").is_selected()
    press(page, Keys.ARROW_LEFT)
    assert shown_alert(page) == explored.alerts("lsst")[-2]
    press(page, "2")
    assert "kind=Template" in link(page)
    page.find("[data-kind=Science] .sky-frame").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    page.find("[data-kind=Science] .sky-frame").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    assert page.text("#readout").startswith("x 16, y 15")

    ActionChains(page.driver).send_keys("?").perform()
    assert page.find("#help").is_displayed()
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    assert not page.find("#help").is_displayed()


def test_every_control_has_a_name(page: Browser, explored: Explored) -> None:
    visit(page, f"/?id={explored.objects['ztf']}")
    nameless = page.run(
        "return [...document.querySelectorAll('input, select, button, canvas, svg[role]')]"
        ".filter((it) => !it.labels?.length && !it.ariaLabel && !it.textContent.trim())"
        ".map((it) => it.outerHTML)"
    )
    assert nameless == []
    live = {place.get_attribute("id") for place in page.find_all("[role=status], [role=alert]")}
    assert {"status", "problem"} <= live


@pytest.mark.parametrize("width", [320, 360, 390, 768])
@pytest.mark.parametrize("survey", SURVEYS)
def test_a_phone_does_not_scroll_sideways(
    page: Browser, explored: Explored, width: int, survey: str
) -> None:
    page.resize(width, 800, phone=True)
    visit(page, f"/?id={explored.objects[survey]}")
    page.wait(lambda: page.find_all("#curve .error-bar"), "no errors")
    assert page.run("return document.documentElement.scrollWidth") == width
    page.find("#blink").click()
    assert page.run("return document.documentElement.scrollWidth") == width
    look_for(page, "nothing-of-that-name-is-known-anywhere-in-this-archive")
    assert page.run("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_by_day_and_by_night(
    page: Browser, explored: Explored, scheme: str
) -> None:
    page.emulate(prefers_color_scheme=scheme)
    visit(page, f"/?id={explored.objects['ztf']}")
    low, _ = page.run(CONTRAST)
    enabled = [text for text in low if "BUTTON" not in text]
    assert enabled == []


# ---- around it


def test_every_link_of_the_page_works(page: Browser, explored: Explored) -> None:
    page.open()
    anchors = page.find_all(".abilities a")
    links = {str(anchor.get_attribute("href")): anchor.text for anchor in anchors}
    assert len(links) > 60
    broken = {
        f"{links[address]} {address}": answer.text[:200]
        for address in links
        if not (answer := requests.get(address, timeout=PATIENCE)).ok
    }
    assert broken == {}


def test_the_gallery_draws_objects_of_the_archive(page: Browser) -> None:
    page.open("/gallery")
    figures = page.find_all(".gallery img")
    assert len(figures) >= 20
    for figure in figures:
        page.run("arguments[0].scrollIntoView()", figure)
        page.wait(lambda figure=figure: figure.get_property("naturalWidth"), "not drawn")
    assert page.run("return document.documentElement.scrollWidth") <= 1280


def test_an_archive_that_is_not_catalogued_says_so_and_is_read_by_path(
    page: Browser, service: RunningService
) -> None:
    page.url = service.url
    page.open()
    assert "cutout_api index" in page.text("#no-catalog")
    assert "cutout_api index" in requests.get(f"{page.url}/gallery", timeout=PATIENCE).text
    page.find("#hdfsPath").send_keys(ZTF_FILE)
    look_for(page, ZTF_OBJECT)
    assert shown_alert(page) == str(ZTF_NEW)
    press(page, Keys.ESCAPE)
    page.run("document.activeElement.blur()")
    press(page, Keys.ARROW_LEFT)
    assert shown_alert(page) == current_point(page) == str(ZTF_OLD)
    assert requests.get(link(page), timeout=PATIENCE).ok

    page.find("#hdfsPath").clear()
    page.find("#hdfsPath").send_keys(LSST_FILE)
    look_for(page, str(LSST_SOURCE))
    assert shown_alert(page) == str(LSST_SOURCE)
    assert page.text("[data-kind=Difference] .nothing") == "The alert has no such stamp."
    look_for(page, ZTF_OBJECT)
    assert f"no alert or object {ZTF_OBJECT} in '{LSST_FILE}'" in page.text("#problem")


# ---- without scripts


def test_without_scripts_the_form_gives_a_picture(plain_page: Browser, explored: Explored) -> None:
    plain_page.open()
    plain_page.find("#id").send_keys(explored.alerts("lsst")[0], Keys.ENTER)
    picture = plain_page.appear("img.plain")
    assert picture.get_property("naturalWidth") > 700
    assert explored.alerts("lsst")[0] in str(picture.get_attribute("src"))


def test_without_scripts_a_link_to_an_object_gives_its_picture(
    plain_page: Browser, explored: Explored
) -> None:
    plain_page.open(f"/?id={explored.objects['ztf']}")
    plain_page.wait(lambda: plain_page.find_all("img.plain"), "no picture")
    assert f"The latest of {len(explored.epochs['ztf'])} alerts" in plain_page.text("main")


def test_without_scripts_an_unknown_id_is_said(plain_page: Browser) -> None:
    plain_page.open("/plain?id=ZTF24zzzzzzz")
    assert "no alert or object ZTF24zzzzzzz" in plain_page.text(".problem")
    plain_page.open("/plain")
    assert "id is missing" in plain_page.text(".problem")
