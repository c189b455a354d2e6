"""What is believed of the headers of proxies, and what the service makes of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from flask.testing import FlaskClient

from cutout_api.proxy import PROXIED, Front, parse_hop
from cutout_api.settings import OWN_PATHS, Server, Settings
from cutout_api.web import create_app
from tests.archive import NIGHT

TRUSTED = ("127.0.0.1", "::1", "unix", "10.0.0.0/8", "2001:db8::/32")
SPOOFED = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
}


def nothing(_environ: dict[str, Any], _start: Any) -> list[bytes]:
    return []


def sifted(peer: str, below: str = "", path: str = "/", /, **headers: str) -> dict[str, Any]:
    """Return the environ that the application behind the middleware sees."""
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.update(environ)
        return []

    environ = {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in headers.items()}
    environ |= {"REMOTE_ADDR": peer, "PATH_INFO": path, "SCRIPT_NAME": ""}
    Front(application, application, below, TRUSTED)(environ, None)
    return seen


CLIENTS = [
    # peer, X-Forwarded-For, the client
    ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
    ("127.0.0.1", "1.2.3.4:567", "1.2.3.4"),
    ("127.0.0.1", "2001:DB9::1", "2001:db9::1"),
    ("127.0.0.1", "[2001:db9::1]", "2001:db9::1"),
    ("127.0.0.1", "[2001:db9::1]:567", "2001:db9::1"),
    ("127.0.0.1", "fe80::1%eth0", "fe80::1"),
    ("127.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
    ("::1", "1.2.3.4", "1.2.3.4"),
    ("::ffff:127.0.0.1", "1.2.3.4", "1.2.3.4"),
    ("2001:db8::9", "1.2.3.4", "1.2.3.4"),
    ("", "1.2.3.4", "1.2.3.4"),  # a unix socket
    # Several hops: the last that is no proxy of ours.
    ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
    ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
    ("127.0.0.1", "6.6.6.6,1.2.3.4,2001:db8::5,10.9.9.9:80", "1.2.3.4"),
    ("127.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
    ("127.0.0.1", "127.0.0.1, 1.2.3.4", "1.2.3.4"),
    ("127.0.0.1", ",, 1.2.3.4 ,,", "1.2.3.4"),
    ("127.0.0.1", "1.2.3.4," * 1000, "1.2.3.4"),
    # What is no address ends what is known.
    ("127.0.0.1", "1.2.3.4, unknown", "127.0.0.1"),
    ("127.0.0.1", "1.2.3.4, unknown, 10.0.0.7", "10.0.0.7"),
    ("127.0.0.1", "_hidden", "127.0.0.1"),
    ("127.0.0.1", '"><script>', "127.0.0.1"),
    ("127.0.0.1", "1.2.3.4 5.6.7.8", "127.0.0.1"),
    ("127.0.0.1", "1.2.3.4:x", "127.0.0.1"),
    ("127.0.0.1", "127.1", "127.0.0.1"),
    ("127.0.0.1", "٣.2.3.4", "127.0.0.1"),
    ("127.0.0.1", ",,,,", "127.0.0.1"),
]


@pytest.mark.parametrize(("peer", "hops", "client"), CLIENTS)
def test_the_client_is_the_last_address_that_is_no_proxy(peer: str, hops: str, client: str) -> None:
    assert sifted(peer, **{"for": hops})["HTTP_X_FORWARDED_FOR"] == client


@pytest.mark.parametrize("peer", ["127.0.0.2", "8.8.8.8", "::2", "::ffff:8.8.8.8", "11.0.0.1"])
def test_of_a_stranger_nothing_is_believed(peer: str) -> None:
    seen = sifted(peer, **{"for": "1.2.3.4", "proto": "https", "host": "h", "prefix": "/p"})
    assert not [name for name in seen if name.startswith("HTTP_")]
    assert seen[PROXIED]
    assert seen["SCRIPT_NAME"] == ""


def test_who_connects_through_a_socket_is_trusted_where_that_is_said() -> None:
    for peer in ("", "/run/client.sock"):
        assert Front(nothing, nothing, "", ["unix"])._trusts(peer)
        assert not Front(nothing, nothing, "", ["127.0.0.1"])._trusts(peer)
    assert not Front(nothing, nothing, "", ["unix"])._trusts("127.0.0.1")


@pytest.mark.parametrize("hop", ["", "[]", "[::1", "1.2.3", "host", "1.2.3.4:", "%", "::1%"])
def test_what_is_no_address_is_none(hop: str) -> None:
    found = parse_hop(hop)
    assert found is None or str(found) == "::1"


BELIEVED = [
    ("prefix", "/stamps", "/stamps"),
    ("prefix", "/stamps/", "/stamps"),
    ("prefix", "/a/b-c_d.e~1", "/a/b-c_d.e~1"),
    ("prefix", "/of-the-client, /stamps", "/stamps"),
    ("proto", "https", "https"),
    ("proto", "HTTPS", "https"),
    ("proto", "http, https", "https"),
    ("host", "cutouts.example.org", "cutouts.example.org"),
    ("host", "cutouts.example.org:8443", "cutouts.example.org:8443"),
    ("host", "my_service:80", "my_service:80"),
    ("host", "[2001:db8::1]:443", "[2001:db8::1]:443"),
    ("host", "evil.example, cutouts.example.org", "cutouts.example.org"),
]
REFUSED = [
    *(
        ("prefix", value)
        for value in (
            "stamps",
            "//evil.example",
            "/stamps//",
            "/a//b",
            "/../x",
            "/a/..",
            "/.",
            "/a\\b",
            "\\evil",
            "/a%2f..",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\tb",
            "/a\x00",
            "/a\r\nSet-Cookie: x",
            '/"><script>alert(1)</script>',
            "javascript:alert(1)",
            "http://evil.example",
            "/é",
            "/" + "a" * 200,
            "/stamps, //evil.example",
        )
    ),
    *(("proto", value) for value in ("javascript", "ftp", "https:", "http s", "x" * 9000)),
    *(
        ("host", value)
        for value in (
            "a b",
            "evil.example/x",
            "user@evil.example",
            "evil.example\\",
            "x';rm -rf ~;'",
            '"><script>',
            "a:b",
            "a:1:2",
            "a:123456",
            "[x]",
            "-a",
            ".",
            "é.example",
            "h" * 256,
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "believed"), BELIEVED)
def test_what_a_proxy_says_is_believed(name: str, value: str, believed: str) -> None:
    assert sifted("10.1.2.3", **{name: value})[f"HTTP_X_FORWARDED_{name.upper()}"] == believed


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_makes_no_safe_link_is_passed_over_and_said_once(
    name: str, value: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("cutout_api"), "propagate", True)
    seen: list[dict[str, Any]] = []

    def note(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.append(environ)
        return []

    front = Front(note, note, "", TRUSTED)
    header = f"HTTP_X_FORWARDED_{name.upper()}"
    for _ in range(2):
        front({"REMOTE_ADDR": "10.1.2.3", "PATH_INFO": "/", header: value}, None)
        assert header not in seen[-1]
    (record,) = caplog.records
    assert f"X-Forwarded-{name.title()}: " in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 200


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/stamps", ""),
        ("/stamps/", "/"),
        ("/stamps/api/v1/cutouts", "/api/v1/cutouts"),
        ("/api/v1/cutouts", "/api/v1/cutouts"),
        ("/stampsx", "/stampsx"),
        ("/x/stamps/api", "/x/stamps/api"),
        ("/stamps/stamps", "/stamps"),
        ("/", "/"),
    ],
)
def test_the_path_is_taken_with_the_prefix_and_without(path: str, rest: str) -> None:
    seen = sifted("8.8.8.8", "/stamps", path)
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/stamps", rest)
    assert PROXIED not in seen


# The service


@pytest.fixture
def client(local_settings: Settings) -> FlaskClient:
    return create_app(local_settings).test_client()


class Links(HTMLParser):
    """Collects what the tags of a page point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "action", "data-document") and value:
                self.found.add(value)


PAGES = ("/", "/plain", "/plain?id=7", "/try", "/gallery", "/docs", "/docs/errors")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("way", ["header", "setting", "root"])
def test_every_link_of_a_page_stays_below_the_prefix(
    local_settings: Settings, page: str, way: str
) -> None:
    server = Server(prefix="/below" if way == "setting" else "")
    client = create_app(replace(local_settings, server=server)).test_client()
    headers = {"X-Forwarded-Prefix": "/below"} if way == "header" else {}
    answer = client.get(page, headers=headers)
    start = "/" if way == "root" else "/below/"
    links = Links(answer.text).found
    assert len(links) > 5
    assert {link for link in links if not link.startswith(("#", start))} == set()
    assert ("/below" in answer.text) == (way != "root")


def test_snippets_have_the_scheme_and_host_that_the_proxy_is_asked_by(client: FlaskClient) -> None:
    said = {
        "X-Forwarded-Prefix": "/below",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "obs.example.org:8443",
    }
    url = "https://obs.example.org:8443/below/api/v1/cutouts"
    assert f"curl '{url}'" in client.get("/try", headers=said).text
    stranger = client.get("/try", headers=said, environ_base={"REMOTE_ADDR": "127.0.0.2"})
    assert "curl 'http://localhost/api/v1/cutouts'" in stranger.text
    assert "example.org" not in stranger.text
    assert "/below" not in stranger.text


def test_errors_and_openapi_name_the_prefix(client: FlaskClient) -> None:
    headers = {"X-Forwarded-Prefix": "/below"}
    problem = client.get("/nowhere", headers=headers).json
    assert problem["type"] == "/below/docs/errors#route_not_found"
    assert "/below/nowhere" in problem["detail"]
    assert "the page at /below/ " in problem["detail"]
    assert client.get("/nowhere").json["type"] == "/docs/errors#route_not_found"
    assert client.get("/openapi.json", headers=headers).json["servers"] == [{"url": "/below"}]
    assert client.get("/openapi.json").json["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("package", ["ndjson", "zip"])
def test_errors_in_a_batch_name_the_prefix(client: FlaskClient, package: str) -> None:
    asked = {"candid": ["1"], "kind": "Science", "package": package, "hdfsPath": NIGHT}
    headers = {"X-Forwarded-Prefix": "/below"}
    answer = client.post("/api/v1/cutouts/batch", json=asked, headers=headers)
    assert answer.status_code == 200
    assert b'"/below/docs/errors#alert_not_found"' in answer.data


def test_a_cache_keeps_pages_for_different_places_apart(client: FlaskClient) -> None:
    for page in (*PAGES, "/openapi.json"):
        answer = client.get(page)
        assert "X-Forwarded-Prefix" in answer.headers["Vary"]
        # nginx keeps nothing with a Vary that is longer.
        assert len(answer.headers["Vary"]) <= 128
    tags = {
        client.get("/openapi.json", headers=headers).headers["ETag"]
        for headers in ({}, {"X-Forwarded-Prefix": "/below"})
    }
    assert len(tags) == 2
    redirect = client.get("/api//v1/cutouts", headers={"X-Forwarded-Prefix": "/below"})
    assert redirect.headers["Location"] == "http://localhost/below/api/v1/cutouts"
    assert "X-Forwarded-Prefix" in redirect.headers["Vary"]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"]
)
def test_metrics_are_neither_shown_nor_linked_to_who_comes_through_a_proxy(
    client: FlaskClient, header: str, peer: str
) -> None:
    peers = {"REMOTE_ADDR": peer}
    for value in ("", "x", "127.0.0.1", "/below"):
        answer = client.get("/metrics", headers={header: value}, environ_base=peers)
        assert answer.status_code == 404
        page = client.get("/", headers={header: value}, environ_base=peers).text
        assert "/metrics" not in page
    assert client.get("/metrics", environ_base=peers).status_code == 200
    assert client.get("/", environ_base=peers).text.count('href="/metrics"') == 2


def test_the_log_names_the_client_and_not_who_it_says_it_is(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("cutout_api"), "propagate", True)
    with caplog.at_level(logging.INFO, "cutout_api"):
        client.get("/healthz", headers=SPOOFED)
        client.get("/healthz", headers=SPOOFED, environ_base={"REMOTE_ADDR": "127.0.0.2"})
        client.get("/healthz", environ_base={"REMOTE_ADDR": ""})
    named = [record.getMessage().partition(" from=")[2].split()[0] for record in caplog.records]
    assert named == ["1.2.3.4", "127.0.0.2", "-"]


def test_a_prefix_may_begin_as_no_address_of_the_service_does(client: FlaskClient) -> None:
    first = {rule.rule.split("/")[1] for rule in client.application.url_map.iter_rules()}
    assert first - {""} == set(OWN_PATHS)
