"""The home page is a plain form where scripts are off."""

from __future__ import annotations

import json

from .conftest import ZTF_FILE, ZTF_OBJECT, ZTF_OLD, Browser


def send(browser: Browser) -> None:
    """Press the button and wait until the browser shows the service's own answer."""
    browser.find("button.show").click()
    browser.wait(lambda: "/api/v1/cutouts?" in browser.driver.current_url, "not sent")
    browser.wait(lambda: browser.find_all("body > img, body > pre"), "no answer")


def test_the_form_is_answered_by_the_service(plain_browser: Browser) -> None:
    plain_browser.open("/try")
    assert not plain_browser.find("#filled").is_displayed()
    plain_browser.fill(hdfsPath=ZTF_FILE, objectId=ZTF_OBJECT, candid=str(ZTF_OLD), kind="All")
    send(plain_browser)
    picture = plain_browser.find("img")
    assert (picture.size["width"], picture.size["height"]) == (3 * 62, 63)


def test_arrays_and_errors_come_as_the_service_writes_them(plain_browser: Browser) -> None:
    for key, status in ((ZTF_OBJECT, None), ("ZTF24zzzzzzz", 404)):
        plain_browser.open("/try")
        plain_browser.fill(hdfsPath=ZTF_FILE, objectId=key, output_format="array")
        send(plain_browser)
        answer = json.loads(plain_browser.text("pre"))
        if status:
            assert answer["status"] == status
        else:
            assert len(answer["b:cutoutScience_stampData"]) == 63


def test_a_form_without_an_id_is_answered_with_what_is_missing(plain_browser: Browser) -> None:
    plain_browser.open("/try")
    send(plain_browser)
    answer = json.loads(plain_browser.text("pre"))
    assert (answer["status"], answer["code"]) == (400, "missing_parameter")


def test_the_documentation_points_to_what_needs_no_script(plain_browser: Browser) -> None:
    plain_browser.open("/docs")
    plain_browser.find("noscript a").click()
    assert plain_browser.driver.current_url.endswith("/openapi.json")
