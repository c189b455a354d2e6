"""The page with every parameter: what each control does, and that it does it for everybody."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import matplotlib
import numpy as np
import pytest
import requests
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from cutout_api.request import PARAMETERS

from .conftest import (
    LSST_FILE,
    LSST_OBJECT,
    LSST_SOURCE,
    LSST_WIDE,
    PATIENCE,
    ZTF_FILE,
    ZTF_NEW,
    ZTF_OBJECT,
    ZTF_OLD,
    Browser,
    RunningService,
)

ZTF = {"hdfsPath": ZTF_FILE, "key": ZTF_OBJECT}
PIXELS = """
    const image = document.querySelector("#stage img");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.width, canvas.height, [...data]];
"""


def read_shown(browser: Browser) -> np.ndarray:
    """Return the picture on the stage as the browser decoded it: (ny, nx, RGBA)."""
    width, height, values = browser.run(PIXELS)
    return np.array(values, np.uint8).reshape(height, width, 4)


def read_png(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGBA"))


def asked(browser: Browser) -> dict[str, str]:
    """Return the arguments of the request that the page says it made."""
    query = urlsplit(browser.find("#link").get_attribute("href") or "").query
    return {name: values[0] for name, values in parse_qs(query).items()}


@pytest.mark.parametrize(
    ("controls", "arguments"),
    [
        ({}, {}),
        ({"kind": "Template"}, {"kind": "Template"}),
        ({"kind": "All"}, {"kind": "All"}),
        ({"key_name": "candid", "key": str(ZTF_OLD)}, {"candid": str(ZTF_OLD), "objectId": ""}),
        ({"stretch": "asinh"}, {"stretch": "asinh"}),
        ({"colormap": "viridis"}, {"colormap": "viridis"}),
        ({"stretch": "linear", "pmin": "20"}, {"stretch": "linear", "pmin": "20"}),
        ({"stretch": "linear", "pmax": "70"}, {"stretch": "linear", "pmax": "70"}),
        ({"convolution_kernel": "gauss"}, {"convolution_kernel": "gauss"}),
    ],
    ids=str,
)
def test_the_picture_shown_is_the_one_that_the_controls_ask_for(
    browser: Browser, service: RunningService, controls: dict[str, str], arguments: dict[str, str]
) -> None:
    usual = {
        "hdfsPath": ZTF_FILE,
        "objectId": ZTF_OBJECT,
        "kind": "Science",
        "output_format": "PNG",
    }
    expected = read_png(service.get(**{**usual, **arguments}).content)
    plain = read_png(service.get(**usual).content)
    assert not controls or expected.shape != plain.shape or (expected != plain).any()

    browser.open("/try")
    browser.fill(**{**ZTF, **controls})
    browser.show()

    np.testing.assert_array_equal(read_shown(browser), expected)


@pytest.mark.parametrize(
    ("which", "key"), [("diaSourceId", LSST_SOURCE), ("diaObjectId", LSST_OBJECT)]
)
def test_lsst_alerts_are_shown_by_either_id(
    browser: Browser, service: RunningService, which: str, key: int
) -> None:
    browser.open("/try")
    browser.fill(hdfsPath=LSST_FILE, key_name=which, key=str(key))
    browser.show()

    answer = service.get(
        hdfsPath=LSST_FILE, kind="Science", output_format="PNG", **{which: str(key)}
    )
    np.testing.assert_array_equal(read_shown(browser), read_png(answer.content))
    assert str(LSST_SOURCE) in browser.text("#caption")


def test_the_picture_is_enlarged_to_whole_crisp_squares(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF)
    browser.show()

    drawn, natural, rendering = browser.run(
        'const i = document.querySelector("#stage img"), box = i.getBoundingClientRect();'
        "return [[box.width, box.height], [i.naturalWidth, i.naturalHeight],"
        " getComputedStyle(i).imageRendering]"
    )
    assert natural == [62, 63]
    assert drawn == [62 * 8, 63 * 8]
    assert rendering == "pixelated"


def test_the_picture_is_fetched_once(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF)
    browser.show()
    sent = browser.run(
        'return performance.getEntriesByType("resource")'
        '.filter((e) => e.name.includes("/api/") && e.transferSize > 0).length'
    )
    assert sent == 1


def test_the_latest_alert_is_named_under_its_picture(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF)
    browser.show()
    assert f"Alert {ZTF_NEW}" in browser.text("#caption")


def test_fits_is_offered_for_saving_as_it_is_stored(
    browser: Browser, service: RunningService, tmp_path: Path
) -> None:
    browser.open("/try")
    browser.fill(**ZTF, output_format="FITS")
    browser.show()
    link = browser.find("#stage a")
    assert link.text == f"Save {ZTF_OBJECT}_Science.fits"

    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    link.click()
    saved = tmp_path / f"{ZTF_OBJECT}_Science.fits"
    browser.wait(saved.exists, "nothing was saved")

    answer = service.get(
        hdfsPath=ZTF_FILE, objectId=ZTF_OBJECT, kind="Science", output_format="FITS"
    )
    assert saved.read_bytes() == answer.content
    assert f"{len(answer.content):,} bytes" in browser.text("#caption")


@pytest.mark.parametrize("secure", [True, False])  # a browser says that it is one to the former
def test_arrays_are_shown_with_their_shape_and_their_first_values(
    browser: Browser, service: RunningService, secure: bool
) -> None:
    if not secure:
        browser.use_other_name()
    browser.open("/try")
    browser.fill(**ZTF, kind="All", output_format="array")
    browser.show()

    arguments = {"objectId": ZTF_OBJECT, "kind": "All", "output_format": "array"}
    answer = service.get(hdfsPath=ZTF_FILE, nan="null", **arguments).json()
    tables = browser.find_all("#stage table")
    assert len(tables) == len(answer) == 3
    for table, (name, rows) in zip(tables, answer.items(), strict=True):
        caption, *lines = table.text.splitlines()
        assert caption == f"{name} 63 \u00d7 62, the beginning"
        shown = [None if word == "null" else float(word) for word in lines[1].split()[:-1]]
        assert shown == rows[1][:6]
        assert lines[0] == "null null null null null " + str(rows[0][5]) + " …"


def test_drawing_is_asked_for_with_pictures_only(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF, colormap="viridis", output_format="array")
    assert browser.find_all("#stretch:disabled")
    browser.show()
    assert asked(browser) == {
        "hdfsPath": ZTF_FILE,
        "objectId": ZTF_OBJECT,
        "kind": "Science",
        "which": "latest",
        "epochs": "one",
        "output-format": "array",
    }


def test_every_parameter_has_a_labelled_control_with_its_description(browser: Browser) -> None:
    browser.open("/try")
    options = [option.get_attribute("value") for option in browser.find_all("#key-name option")]
    for parameter in PARAMETERS.values():
        # One says the same as output-format, the other is for requests that people write.
        if parameter.name in ("return_type", "strict"):
            assert not browser.find_all(f"[name='{parameter.name}']")
        elif parameter.name in options:
            browser.fill(key_name=parameter.name)
            assert browser.find("#key").get_attribute("name") == parameter.name
            assert browser.text("#hint-key") == parameter.description
        else:
            assert browser.find(f"label[for='{parameter.name}']").text == parameter.name
            hint = parameter.description.removeprefix("Pictures: ")
            assert browser.text(f"#hint-{parameter.name}").lower() == hint.lower()


def test_every_colormap_is_suggested(browser: Browser) -> None:
    browser.open("/try")
    suggested = browser.run(
        'return [...document.querySelector("#colormap").list.options].map((o) => o.value)'
    )
    assert set(suggested) == set(PARAMETERS["colormap"].allowed or ())
    assert len(suggested) > 150


def test_nothing_is_prefilled(browser: Browser) -> None:
    browser.open("/try")
    texts = browser.find_all("form input")
    assert len(texts) >= 5
    assert [text.get_attribute("value") for text in texts] == [""] * len(texts)


@pytest.mark.parametrize(
    ("controls", "at", "words"),
    [
        ({"date": "yesterday"}, "date", "must be a date"),
        ({"hdfsPath": "../etc/passwd"}, "hdfsPath", "must not contain '..'"),
        ({"hdfsPath": "nowhere.parquet"}, "hdfsPath", "nowhere.parquet"),
        ({"key": ""}, "key", "which alert?"),
        ({"key": "ZTF1"}, "key", "must be a ZTF object name"),
        ({"key_name": "candid", "key": "12e3"}, "key", "must be a whole number"),
        ({"colormap": "virids"}, "colormap", "did you mean 'viridis'?"),
        ({"pmin": "101"}, "pmin", "must be a percentage"),
        ({"pmin": "60", "pmax": "40"}, "pmin", "pmin must be below pmax"),
        ({"pmax": "abc"}, "pmax", "must be a number"),
    ],
    ids=str,
)
def test_an_error_is_said_at_the_field_it_names(
    browser: Browser, controls: dict[str, str], at: str, words: str
) -> None:
    browser.open("/try")
    browser.fill(**{**ZTF, **controls})
    browser.show()

    said = {e.get_attribute("id"): e.text for e in browser.find_all(".error") if e.is_displayed()}
    assert list(said) == [f"error-{at}"]
    assert words in said[f"error-{at}"]
    field = browser.find(f"#{at}")
    assert field.get_attribute("aria-invalid") == "true"
    assert f"error-{at}" in (field.get_attribute("aria-describedby") or "").split()
    assert browser.driver.switch_to.active_element == field
    assert not browser.find_all("#stage img")


def test_an_error_of_no_field_is_said_where_the_answer_would_be(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(hdfsPath=ZTF_FILE, key="ZTF24zzzzzzz")
    browser.show()
    assert "No such alert" in browser.text("#stage")
    assert "no alert with objectId ZTF24zzzzzzz" in browser.text("#stage")
    assert browser.text("#caption") == "404 · alert_not_found"
    assert not [e for e in browser.find_all(".error") if e.is_displayed()]

    browser.find("#stage a").click()
    assert browser.appear("article:target").get_attribute("id") == "alert_not_found"


def test_a_missing_stamp_is_said_at_the_kind(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(
        hdfsPath=LSST_FILE, key_name="diaSourceId", key=str(LSST_SOURCE), kind="Difference"
    )
    browser.show()
    assert "Difference is null in the archive" in browser.text("#error-kind")


def test_a_suggestion_is_taken_with_one_press(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF, colormap="virids")
    browser.show()
    browser.find("#error-colormap button").click()
    assert browser.find("#colormap").get_attribute("value") == "viridis"
    assert not browser.find("#error-colormap").is_displayed()
    browser.show()
    assert browser.find_all("#stage img")


def test_a_service_that_is_gone_is_said_in_words(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF)
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    emulate = "Network.emulateNetworkConditions"
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd(emulate, {"offline": True, **network})
    try:
        browser.show()
        assert "The service cannot be reached" in browser.text("#stage")
    finally:
        browser.driver.execute_cdp_cmd(emulate, {"offline": False, **network})


def run_curl(text: str, folder: Path) -> bytes:
    """Run what a person would paste into a shell; return what it saved, or else printed."""
    done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    saved = list(folder.iterdir())
    return saved[0].read_bytes() if saved else done.stdout


@pytest.mark.parametrize("output_format", ["PNG", "FITS", "array"])
def test_the_request_shown_works_as_a_link_and_as_curl(
    browser: Browser, service: RunningService, tmp_path: Path, output_format: str
) -> None:
    browser.open("/try")
    browser.fill(**ZTF, output_format=output_format)
    browser.show()

    answer = service.get(
        hdfsPath=ZTF_FILE, objectId=ZTF_OBJECT, kind="Science", output_format=output_format
    )
    link = browser.find("#link").get_attribute("href") or ""
    assert link == browser.text("#link")
    for content in (
        run_curl(browser.text("#curl"), tmp_path),
        requests.get(link, timeout=PATIENCE).content,
    ):
        assert without_recipe(content) == without_recipe(answer.content)


def without_recipe(content: bytes) -> bytes:
    """Return a picture's pixels, whose recipe tells how it was asked for; else what it is."""
    if not content.startswith(b"\x89PNG"):
        return content
    return Image.open(io.BytesIO(content)).tobytes()


@pytest.mark.parametrize("example", ["PNG", "FITS", "array", "POST"])
def test_each_example_works_once_the_form_is_filled(
    browser: Browser, service: RunningService, tmp_path: Path, example: str
) -> None:
    browser.open("/try")
    assert "PATH" in browser.text(f"[data-example={example}]")
    browser.fill(**ZTF, kind="Template")

    answer = service.get(
        hdfsPath=ZTF_FILE,
        objectId=ZTF_OBJECT,
        kind="Template",
        **({"return_type": "array"} if example == "POST" else {"output_format": example}),
    )
    assert answer.ok
    assert run_curl(browser.text(f"[data-example={example}]"), tmp_path) == answer.content


def test_the_first_example_works_as_it_stands(browser: Browser, tmp_path: Path) -> None:
    browser.open("/try")
    assert b'"args"' in run_curl(browser.text(".examples code"), tmp_path)


@pytest.mark.parametrize("secure", [True, False])
def test_copy_puts_the_curl_text_on_the_clipboard(browser: Browser, secure: bool) -> None:
    if secure:
        browser.driver.execute_cdp_cmd(
            "Browser.grantPermissions",
            {"permissions": ["clipboardSanitizedWrite"], "origin": browser.url},
        )
    else:
        browser.use_other_name()
    browser.open("/try")
    assert browser.run("return isSecureContext") == secure
    browser.fill(**ZTF)
    browser.show()
    browser.copy("#request .copy")

    field = browser.find("#pmin")
    field.send_keys(Keys.CONTROL, "v")
    browser.wait(lambda: field.get_attribute("value"), "nothing to paste")
    assert field.get_attribute("value") == browser.text("#curl")
    assert browser.url in browser.text("#curl")


def test_a_link_to_the_page_shows_the_same_answer_again(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF, kind="Template", colormap="magma")
    browser.show()
    shown, request = read_shown(browser), asked(browser)

    browser.driver.refresh()
    browser.wait_for_answer()
    np.testing.assert_array_equal(read_shown(browser), shown)
    assert asked(browser) == request


def test_the_page_is_used_by_keyboard_alone(browser: Browser) -> None:
    browser.open("/try")

    def press(*keys: str) -> None:
        ActionChains(browser.driver).send_keys(*keys).perform()

    def tab_to(name: str, attribute: str = "id") -> None:
        for _ in range(20):
            press(Keys.TAB)
            if browser.driver.switch_to.active_element.get_attribute(attribute) == name:
                return
        pytest.fail(f"{name} is not reached by Tab")

    press(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the content"
    press(Keys.ENTER)
    tab_to("hdfsPath")
    press(ZTF_FILE)
    tab_to("key-name")
    press("c")  # candid
    tab_to("key")
    press(str(ZTF_OLD))
    tab_to("kind")
    press("T")  # Template
    tab_to("colormap")
    press("gray")
    press(Keys.ESCAPE)  # closes the suggestions
    tab_to("convolution_kernel")
    tab_to("show", "class")
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press(Keys.ENTER)
    browser.wait_for_answer()

    assert browser.find_all("#stage img")
    assert asked(browser)["candid"] == str(ZTF_OLD)
    assert asked(browser)["kind"] == "Template"
    assert asked(browser)["colormap"] == "gray"


@pytest.mark.parametrize("path", ["/try", "/docs/errors", "/docs"])
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_does_not_scroll_sideways(browser: Browser, path: str, width: int) -> None:
    browser.resize(width, 800, phone=True)
    browser.open(path)
    if path == "/docs":
        browser.wait(lambda: browser.find_all(".opblock"), "no operations")
    if path == "/try":
        browser.fill(hdfsPath=LSST_FILE, key_name="diaSourceId", key=str(LSST_WIDE), kind="All")
        for output_format in ("array", "FITS", "PNG"):
            browser.fill(output_format=output_format)
            browser.show()
            assert browser.run("return document.documentElement.scrollWidth") == width
        drawn, natural, room = browser.run(
            'const image = document.querySelector("#stage img");'
            "return [image.getBoundingClientRect().width, image.naturalWidth,"
            " document.querySelector('#stage').clientWidth]"
        )
        assert natural == 3 * 102
        assert natural - 64 < drawn <= min(natural, room)  # whole, if need be made smaller
    assert browser.run("return document.documentElement.scrollWidth") == width


# The contrast of every text with what is behind it. Source: WCAG 2.2, relative luminance.
CONTRAST = """
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d", {willReadFrequently: true});
    const rgba = (text) => {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = text;
      context.fillRect(0, 0, 1, 1);
      return context.getImageData(0, 0, 1, 1).data;
    };
    const linear = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) =>
      .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
    const ground = (element) => {
      const color = getComputedStyle(element).backgroundColor;
      return rgba(color)[3] || !element.parentElement ? color : ground(element.parentElement);
    };
    const unseen = "fieldset:disabled, option, datalist, noscript, script";
    const weak = [];
    for (const element of document.querySelectorAll("body *")) {
      const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
      if (!texts.some((node) => node.data.trim()) || element.closest(unseen)) continue;
      if (!element.checkVisibility()) continue;
      const pair = [ground(element), getComputedStyle(element).color].map(rgba).map(luminance);
      const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
      if (ratio < 4.5) weak.push(`${element.tagName} ${element.textContent} ${ratio}`);
    }
    return [weak, ground(document.documentElement)];
"""


@pytest.mark.parametrize("path", ["/try", "/docs/errors"])
def test_text_has_contrast_by_day_and_by_night(browser: Browser, path: str) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        browser.emulate(prefers_color_scheme=scheme)
        browser.open(path)
        if path == "/try":
            browser.fill(**ZTF, colormap="virids")
            browser.show()
        low, ground = browser.run(CONTRAST)
        assert low == []  # WCAG 2.2, 1.4.3: 4.5 to 1
        grounds.add(ground)
    assert len(grounds) == 2


def test_pictures_of_any_colormap_have_its_colours(browser: Browser) -> None:
    browser.open("/try")
    browser.fill(**ZTF, colormap="inferno_r")
    browser.show()
    table: Any = matplotlib.colormaps["inferno_r"](np.arange(256), bytes=True)
    shown = {tuple(pixel) for pixel in read_shown(browser).reshape(-1, 4).tolist()}
    assert shown <= {tuple(row) for row in table.tolist()}
