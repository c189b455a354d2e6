"""The service below a path of another host: through real nginx, and who is believed."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
import requests

from cutout_api import settings
from cutout_api.client import Client
from cutout_api.demo import make_archive
from cutout_api.settings import Archive, Settings

from ..catalogue import catalogued
from ..nginx import PATH_CONF, require_nginx, running_nginx, site_below_a_path
from ..service import ROOT, Service, free_port, running_service

PREFIX = "/stamps"
SPOOFED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Ssl": "on",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
    "X_Forwarded_Prefix": "/evil",
    "Script_Name": "/evil",
    "SCRIPT_NAME": "/evil",
    "Path_Info": "/evil",
}
PAGES = ("/", "/plain", "/try", "/gallery", "/docs", "/docs/errors")
FROM_OUTSIDE = "127.0.0.9"
"""An address of this machine that is no trusted proxy."""

# A proxy that says nothing but the path; one that leaves the path as it is; and one in front of
# another, which knows no path.
MORE_SITES = """
server {{
    listen 127.0.0.1:{least};
    access_log off;
    location /stamps/ {{
        proxy_pass http://127.0.0.1:{plain}/;
        proxy_set_header X-Forwarded-Prefix /stamps;
    }}
}}
server {{
    listen 127.0.0.1:{kept};
    access_log off;
    location /stamps {{
        proxy_pass http://127.0.0.1:{prefixed};
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
}}
server {{
    listen 127.0.0.1:{outer};
    access_log off;
    location /stamps/ {{
        proxy_pass http://127.0.0.1:{inner}/;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Prefix /stamps;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Host public.example;
        proxy_set_header X-Forwarded-Proto https;
    }}
}}
server {{
    listen 127.0.0.1:{inner};
    access_log off;
    location / {{
        proxy_pass http://127.0.0.1:{plain};
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
}}
"""


@dataclass
class Places:
    """One archive, served in several ways."""

    plain: Service
    prefixed: Service
    base: dict[str, str]
    """Where the service begins, by the way to it."""
    objects: dict[str, str]


WAYS = (
    "at the root",
    "path taken away",
    "path left there",
    "by a socket",
    "the path and no more",
    "with the setting alone",
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    require_nginx()
    folder = tmp_path_factory.mktemp("below")
    summary = make_archive(folder / "archive", nights=3, objects=8)
    made = catalogued(Settings(archive=Archive(uri=(folder / "archive").as_uri())))
    environment = {
        "CUTOUT_API_ARCHIVE_URI": made.archive.uri,
        "CUTOUT_API_CATALOG_URL": made.catalog.url,
        "CUTOUT_API_SERVER_WORKERS": "1",
    }
    listening, socket_file = folder / "listening.py", folder / "service.sock"
    listening.write_text(f"from cutout_api.server import *\nbind = [bind, 'unix:{socket_file}']\n")
    both = (sys.executable, "-m", "gunicorn", "--config", str(listening), "app:app")
    below = environment | {"CUTOUT_API_SERVER_PREFIX": PREFIX}
    with running_service(environment, both) as plain, running_service(below) as prefixed:
        taken, kept, by_socket, least, outer, inner = (free_port() for _ in range(6))
        sites = site_below_a_path(taken, plain.address)
        sites += site_below_a_path(by_socket, f"http://unix:{socket_file}:")
        sites += MORE_SITES.format(
            kept=kept,
            least=least,
            outer=outer,
            inner=inner,
            prefixed=prefixed.port,
            plain=plain.port,
        )
        (folder / "nginx").mkdir()
        for each in (folder.parent, folder):
            each.chmod(0o755)
        with running_nginx(sites, f"http://127.0.0.1:{taken}", folder / "nginx"):
            base = {
                "at the root": plain.address,
                "path taken away": f"http://127.0.0.1:{taken}{PREFIX}",
                "path left there": f"http://127.0.0.1:{kept}{PREFIX}",
                "the path and no more": f"http://127.0.0.1:{least}{PREFIX}",
                "by a socket": f"http://127.0.0.1:{by_socket}{PREFIX}",
                "with the setting alone": f"{prefixed.address}{PREFIX}",
                "two proxies": f"http://127.0.0.1:{outer}{PREFIX}",
            }
            objects = {each.survey: each.example_object for each in summary.archives}
            yield Places(plain, prefixed, base, objects)


def ask_exactly(
    address: str, target: str, source: str = "127.0.0.1", headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, str]]:
    """Ask for a target as it is spelled, from an address of this machine."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=20, source_address=(source, 0)
    )
    with closing(connection):
        connection.request("GET", target, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "action", "data-document") and value is not None:
                self.found.append(value)
            if name == "content" and value and "url=" in value:
                self.found.append(value.partition("url=")[2])


def links_in(answer: requests.Response) -> list[str]:
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    if kind == "text/html":
        parser = Links()
        parser.feed(answer.text)
        return parser.found
    if kind.endswith("javascript") and "/docs/assets/" not in answer.url:
        return re.findall(r'^import .* from "(.+)";', answer.text, re.MULTILINE)
    return []


@pytest.mark.parametrize("way", WAYS)
def test_every_link_stays_below_the_path_and_leads_somewhere(places: Places, way: str) -> None:
    base = places.base[way]
    start = [f"{base}{page}" for page in PAGES] + [f"{base}/?id={places.objects['ztf']}"]
    start += [f"{base}/plain?id={name}" for name in places.objects.values()]
    waiting, seen, pictures = list(start), set(start), 0
    with requests.Session() as session:
        while waiting:
            url = waiting.pop()
            answer = session.get(url, timeout=60)
            assert (url, answer.status_code) == (url, 200)
            pictures += answer.headers["Content-Type"].startswith("image/")
            for link in links_in(answer):
                absolute = urldefrag(urljoin(answer.url, link)).url
                assert absolute.startswith(f"{base}/"), f"{link} in {url}"
                if absolute not in seen:
                    seen.add(absolute)
                    waiting.append(absolute)
    assert pictures > 30
    assert len(seen) > 90
    assert ({base + "/metrics"} <= seen) == (way in ("at the root", "with the setting alone"))


@pytest.mark.parametrize("way", WAYS)
def test_the_openapi_document_says_where_its_paths_begin(places: Places, way: str) -> None:
    url = f"{places.base[way]}/openapi.json"
    document = requests.get(url, timeout=20).json()
    (server,) = document["servers"]
    root = urljoin(url, server["url"]).rstrip("/")
    assert root == places.base[way]
    assert len(document["paths"]) > 8
    for path in document["paths"]:
        answer = requests.get(root + path, timeout=20)
        # Metrics are for those who come without a proxy; some routes take no GET without arguments.
        allowed = {200, 400, 405} | ({404} if path == "/metrics" else set())
        assert (path, answer.status_code in allowed) == (path, True)
        if answer.status_code >= 400 and path != "/metrics":
            explained = urljoin(answer.url, answer.json()["type"])
            assert explained.startswith(f"{places.base[way]}/docs/errors#")


@pytest.mark.parametrize("way", [*WAYS, "two proxies"])
def test_an_error_and_a_redirect_lead_below_the_path(places: Places, way: str) -> None:
    base = places.base[way]
    answer = requests.get(f"{base}/api/v1/cutouts?kind=x", timeout=20)
    assert answer.status_code == 400
    path = urlsplit(base).path
    assert answer.json()["type"] == f"{path}/docs/errors#{answer.json()['code']}"
    status, _, headers = ask_exactly(base, f"{path}/api//v1/cutouts")
    if way not in ("at the root", "path left there", "with the setting alone"):
        assert status == 200  # nginx has joined the slashes
    else:
        assert (status, urlsplit(headers["Location"]).path) == (308, f"{path}/api/v1/cutouts")


def test_the_path_alone_leads_to_its_page(places: Places) -> None:
    for way in ("path taken away", "path left there", "with the setting alone"):
        answer = requests.get(places.base[way], timeout=20)
        assert answer.status_code == 200
        assert f'href="{PREFIX}/static/' in answer.text
    other = urljoin(places.base["path taken away"], "/api/v1/cutouts")
    assert requests.get(other, timeout=20).status_code == 404  # the host's own pages


def test_with_the_setting_both_paths_are_answered_alike(places: Places) -> None:
    for path in ("/openapi.json", "/try", "/api/v1/cutouts", "/nowhere"):
        answers = [
            requests.get(places.prefixed.address + start + path, timeout=20)
            for start in ("", PREFIX)
        ]
        assert answers[0].status_code == answers[1].status_code
        assert answers[0].content == answers[1].content
        assert answers[0].headers.get("ETag") == answers[1].headers.get("ETag")
    twice = requests.get(f"{places.prefixed.address}{PREFIX * 2}/try", timeout=20)
    assert twice.status_code == 404


@pytest.mark.parametrize("way", WAYS)
def test_the_client_takes_an_address_with_a_path(places: Places, way: str, tmp_path: Path) -> None:
    wanted = requests.get(
        f"{places.plain.address}/api/v1/cutouts",
        {"objectId": places.objects["ztf"], "kind": "Science", "output-format": "FITS"},
        timeout=20,
    ).content
    for address in (places.base[way], places.base[way] + "/"):
        with Client(address, cache=tmp_path / "cache") as client:
            for _ in range(2):
                assert client.cutout(places.objects["ztf"]).fits == wanted
    command = [sys.executable, "-m", "cutout_api", "get", places.objects["ztf"], "--url"]
    command += [places.base[way] + "/", "--format", "fits", "--kind", "Science", "-o", "-"]
    environment = os.environ | {"CUTOUT_API_CONFIG": os.devnull}
    got = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=60)
    assert (got.returncode, got.stderr[:300]) == (0, got.stderr[:300])
    assert got.stdout == wanted


@pytest.mark.parametrize("way", ["path taken away", "path left there", "by a socket"])
def test_a_batch_and_its_limit_are_the_same_below_the_path(places: Places, way: str) -> None:
    url = f"{places.base[way]}/api/v1/cutouts/batch"
    asked = {"objectId": [places.objects["ztf"], "ZTF99zzzzzzz"], "kind": "Science"}
    answer = requests.post(url, json=asked | {"package": "ndjson"}, timeout=60)
    good, bad = (line for line in answer.text.splitlines())
    assert '"status":200' in good
    assert f'"type":"{PREFIX}/docs/errors#' in bad
    # Longer than any other body may be.
    ids = "\n".join(["objectId", *["ZTF99zzzzzzz"] * 6_000])
    text = {"Content-Type": "text/plain"}
    long = requests.post(f"{url}?kind=Science&dry_run=1", data=ids, timeout=60, headers=text)
    assert (long.status_code, long.json()["ids"]) == (200, 6_000)


def test_the_file_for_nginx_repeats_the_settings_it_names() -> None:
    limits = settings.Limits()
    assert f"http://127.0.0.1:{settings.Server().port}/;" in PATH_CONF
    assert f"client_max_body_size     {limits.body_bytes};" in PATH_CONF
    assert f"client_max_body_size {limits.batch_bytes};" in PATH_CONF
    whole = (ROOT / "install/nginx.conf").read_text()
    assert re.findall(r"proxy_read_timeout +\d+s", PATH_CONF)
    assert [int(n) for n in re.findall(r"proxy_read_timeout +(\d+)s", PATH_CONF)] == [
        int(n) for n in re.findall(r"proxy_read_timeout +(\d+)s", whole)
    ]


# Who is believed


def facts(text: str) -> dict[str, Any]:
    """Return what a page tells of where it was asked."""
    return {
        "curl": re.findall(r"curl '([^']*)'", text)[0],
        "prefixes": set(re.findall(r'(?:href|src|action)="([^"#]*?)/(?:static|docs|api)/', text)),
        "evil": "evil" in text,
    }


def test_a_stranger_who_asks_the_service_itself_is_not_believed(places: Places) -> None:
    host = {"Host": "cutouts.example"}
    _, plainly, _ = ask_exactly(places.plain.address, "/try", FROM_OUTSIDE, host)
    # Not the same page: whoever has such headers comes through a proxy, and gets no metrics.
    status, text, _ = ask_exactly(places.plain.address, "/try", FROM_OUTSIDE, host | SPOOFED)
    assert status == 200
    assert facts(text) == facts(plainly)
    assert facts(text)["curl"] == "http://cutouts.example/api/v1/cutouts"
    assert f"from={FROM_OUTSIDE}" in places.plain.log
    assert "from=6.6.6.6" not in places.plain.log


def test_a_trusted_proxy_is_believed_but_in_no_other_header(places: Places) -> None:
    _, text, _ = ask_exactly(places.plain.address, "/try", headers=SPOOFED)
    assert facts(text)["curl"] == "https://evil.example/evil/api/v1/cutouts"
    others = {
        name: value for name, value in SPOOFED.items() if not re.match("X-Forwarded-[FPH]", name)
    }
    assert len(others) == 6
    _, text, _ = ask_exactly(places.plain.address, "/try", headers=others | {"Host": "h.example"})
    assert facts(text) == {
        "curl": "http://h.example/api/v1/cutouts",
        "prefixes": {""},
        "evil": False,
    }
    # Once these two were believed by the server, and refused where they disagree.
    torn = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off", "Host": "h.example"}
    status, text, _ = ask_exactly(places.plain.address, "/try", headers=torn)
    assert (status, facts(text)["curl"]) == (200, "https://h.example/api/v1/cutouts")


@pytest.mark.parametrize("way", ["path taken away", "by a socket"])
def test_through_the_proxy_nothing_of_a_caller_is_believed(places: Places, way: str) -> None:
    base, log = places.base[way], places.plain.log
    headers = SPOOFED | {"Host": "cutouts.example"}
    status, text, _ = ask_exactly(base, f"{PREFIX}/try", FROM_OUTSIDE, headers)
    assert status == 200
    assert facts(text) == {
        "curl": f"http://cutouts.example{PREFIX}/api/v1/cutouts",
        "prefixes": {PREFIX},
        "evil": False,
    }
    new = places.plain.log[len(log) :]
    assert f"from={FROM_OUTSIDE}" in new
    assert "6.6.6.6" not in new


def test_behind_two_proxies_the_client_is_who_the_first_one_saw(places: Places) -> None:
    log = places.plain.log
    headers = SPOOFED | {"Host": "cutouts.example"}
    _, text, _ = ask_exactly(places.base["two proxies"], f"{PREFIX}/try", FROM_OUTSIDE, headers)
    assert facts(text)["curl"] == f"https://public.example{PREFIX}/api/v1/cutouts"
    assert f"from={FROM_OUTSIDE} " in places.plain.log[len(log) :]


HOSTILE = [
    {"X-Forwarded-Prefix": "//evil.example"},
    {"X-Forwarded-Prefix": "/\\evil.example"},
    {"X-Forwarded-Prefix": '/"><script>evil()</script>'},
    {"X-Forwarded-Prefix": "/evil" * 1000},
    {"X-Forwarded-Prefix": "javascript:evil()"},
    {"X-Forwarded-Prefix": "/../evil"},
    {"X-Forwarded-Proto": "javascript"},
    {"X-Forwarded-Host": "evil.example/x"},
    {"X-Forwarded-Host": "x';evil;'"},
    {"X-Forwarded-Host": "a@evil.example"},
    {"X-Forwarded-For": "," * 7000 + "evil"},
]


@pytest.mark.parametrize("headers", HOSTILE, ids=lambda each: str(each)[:60])
def test_what_makes_no_safe_link_is_passed_over(places: Places, headers: dict[str, str]) -> None:
    for page in (*PAGES, "/openapi.json", "/nowhere"):
        _, plainly, _ = ask_exactly(places.plain.address, page, headers={"X-Forwarded-For": "::1"})
        status, text, answered = ask_exactly(places.plain.address, page, headers=headers)
        assert text == plainly
        assert status == (404 if page == "/nowhere" else 200)
        assert "evil" not in str(answered)


@pytest.mark.parametrize("way", ["path taken away", "path left there", "by a socket"])
def test_metrics_are_not_shown_through_a_proxy(places: Places, way: str) -> None:
    for spelled in (
        "/metrics",
        "/Metrics",
        "//metrics",
        "/%6detrics",
        "/x/../metrics",
        "/metrics/",
    ):
        status, text, _ = ask_exactly(places.base[way], PREFIX + spelled)
        assert (spelled, status in (404, 400, 308)) == (spelled, True)
        assert "cutout_requests_total" not in text
    assert ask_exactly(places.prefixed.address, f"{PREFIX}/metrics")[0] == 200
