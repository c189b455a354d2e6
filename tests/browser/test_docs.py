"""The documentation pages, and what all pages may load and run."""

from __future__ import annotations

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cutout_api.errors import error_classes
from cutout_api.openapi import describe_service
from cutout_api.request import PARAMETERS

from .conftest import PATIENCE, ZTF_FILE, ZTF_OBJECT, Browser, RunningService

PAGES = ("/", "/try", "/gallery", "/docs", "/docs/errors")


def open_docs(browser: Browser) -> None:
    browser.open("/docs")
    browser.wait(lambda: browser.find_all(".opblock"), "no operations")


def test_the_documentation_holds_every_operation(browser: Browser) -> None:
    browser.use_other_name()  # on loopback, Swagger UI's validator badge would stay away
    open_docs(browser)
    shown = browser.run(  # at once: Swagger UI may draw them anew
        "const part = (block, name) => block.querySelector(`.opblock-summary-${name}`).innerText;"
        "return [...document.querySelectorAll('.opblock')].map((block) =>"
        " [part(block, 'method').toLowerCase(), part(block, 'path').replaceAll('\u200b', '')])"
    )
    described = {
        (method, path)
        for path, methods in describe_service()["paths"].items()
        for method in methods
    }
    assert {(method, path) for method, path in shown} == described
    assert not browser.find_all(".errors-wrapper")


def test_try_it_out_shows_a_picture(browser: Browser) -> None:
    open_docs(browser)
    browser.find(".opblock-get .opblock-summary-control").click()
    browser.wait(lambda: browser.find_all(".try-out__btn"), "cannot be tried")[0].click()
    controls = "tr[data-param-name] :is(input, select)"
    browser.wait(lambda: browser.find_all(f"{controls}:enabled"), "no fields")
    filled = [control.get_attribute("value") for control in browser.find_all(controls)]
    assert len(filled) == len(PARAMETERS)
    assert set(filled) == {""}  # examples of everything at once would be refused

    for name, value in {"hdfsPath": ZTF_FILE, "objectId": ZTF_OBJECT}.items():
        # Swagger UI takes a text when it is left, or somewhat after it was typed.
        browser.find(f"tr[data-param-name='{name}'] input").send_keys(value, Keys.TAB)
    for name, value in {"kind": "Template", "output-format": "PNG"}.items():
        browser.find(f"tr[data-param-name='{name}'] option[value='{value}']").click()
    browser.find(".opblock.is-open .execute").click()
    browser.wait(
        lambda: (
            browser.run(
                "const picture = document.querySelector('.live-responses-table img');"
                "return picture && [picture.naturalWidth, picture.naturalHeight]"
            )
            == [62, 63]
        ),
        "not the stamp",
    )


def test_every_error_is_explained_at_its_anchor(browser: Browser, service: RunningService) -> None:
    browser.open("/docs/errors")
    explained = {
        article.get_attribute("id"): article.text for article in browser.find_all("article")
    }
    assert set(explained) == {cls.code for cls in error_classes()}
    for cls in error_classes():
        meaning = (cls.__doc__ or "").strip().replace("``", "")
        assert cls.title in explained[cls.code]
        assert meaning in " ".join(explained[cls.code].split())
        section = browser.find(f"#{cls.code}").find_element(By.XPATH, "ancestor::section")
        assert section.find_element(By.TAG_NAME, "h2").text == str(cls.status)

    problem = service.get(kind="Science", colour="red").json()
    browser.open(problem["type"])
    assert browser.find("article:target").get_attribute("id") == problem["code"]


@pytest.mark.parametrize("path", PAGES)
def test_a_script_written_into_a_page_does_not_run(browser: Browser, path: str) -> None:
    browser.open(path)
    ran = browser.run(
        "const script = document.createElement('script');"
        "script.textContent = 'window.injected = true';"
        "document.body.append(script);"
        "return window.injected === true"
    )
    assert not ran
    refused = [entry["message"] for entry in browser.read_log("browser")]
    assert any("Content Security Policy" in message for message in refused)


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_no_script_or_style_of_their_own(service: RunningService, path: str) -> None:
    answer = requests.get(service.url + path, timeout=PATIENCE)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert ("unsafe-inline" in policy) == (path == "/docs")  # Swagger UI sets style attributes
    assert "<style" not in answer.text
    assert " style=" not in answer.text


def test_every_link_of_the_pages_leads_somewhere(browser: Browser, service: RunningService) -> None:
    browser.open()
    links = {link.get_attribute("href") or "" for link in browser.find_all("header a")}
    assert len(links) == 8
    for link in links:
        assert link.startswith(service.url)
        assert requests.get(link, timeout=PATIENCE).status_code == 200
