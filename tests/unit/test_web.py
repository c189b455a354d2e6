"""Headers, caches, health and metrics; what is asked and answered is in tests/contract."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from cutout_api.errors import error_classes
from cutout_api.settings import Archive, Limits, Server, Settings
from cutout_api.web import create_app

from ..archive import NIGHT, SampleArchive

ROUTE = "/api/v1/cutouts"
FIRST = f"{NIGHT}/part-00000.snappy.parquet"
LATEST = {"hdfsPath": FIRST, "objectId": "ZTF24aaaaaaa", "kind": "Science"}
ONE = {"hdfsPath": FIRST, "candid": "2656254792815010000", "kind": "Science"}


@pytest.fixture(scope="module")
def client(local_settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(local_settings)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def test_a_stamp_addressed_by_its_alert_never_changes(client: FlaskClient) -> None:
    for asked in (ONE, ONE | {"objectId": "ZTF24aaaaaaa"}):
        response = client.get(ROUTE, query_string=asked)
        assert response.cache_control.immutable
        assert response.cache_control.max_age == 31_536_000
    response = client.get(ROUTE, query_string=LATEST)
    assert not response.cache_control.immutable
    assert response.cache_control.max_age == 60


@pytest.mark.parametrize("form", ["array", "FITS", "PNG"])
def test_a_copy_that_is_still_right_is_304(client: FlaskClient, form: str) -> None:
    asked = ONE | {"return_type": form}
    first = client.get(ROUTE, query_string=asked)
    tag = first.headers["ETag"]
    again = client.get(ROUTE, query_string=asked, headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == tag
    other = client.get(ROUTE, query_string=asked, headers={"If-None-Match": '"other"'})
    assert other.data == first.data
    different = client.get(ROUTE, query_string=asked | {"kind": "Template"})
    assert different.headers["ETag"] != tag


def test_errors_are_not_kept_by_caches(client: FlaskClient) -> None:
    response = client.get(ROUTE, query_string=ONE | {"candid": "1"})
    assert response.status_code == 404
    assert response.headers["Cache-Control"] == "no-store"


def test_json_is_gzipped_when_asked_for(client: FlaskClient) -> None:
    plain = client.get(ROUTE, query_string=ONE)
    assert "Content-Encoding" not in plain.headers
    packed = client.get(ROUTE, query_string=ONE, headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["Content-Length"] == str(len(packed.data))
    assert packed.headers["ETag"] != plain.headers["ETag"]
    for response in (plain, packed):
        assert "Accept-Encoding" in response.headers["Vary"]
    tag = packed.headers["ETag"]
    again = client.get(
        ROUTE, query_string=ONE, headers={"Accept-Encoding": "gzip", "If-None-Match": tag}
    )
    assert again.status_code == 304


@pytest.mark.parametrize("encodings", ["", "identity", "gzip;q=0", "br", "*;q=0"])
def test_nothing_is_gzipped_unasked(client: FlaskClient, encodings: str) -> None:
    response = client.get(ROUTE, query_string=ONE, headers={"Accept-Encoding": encodings})
    assert "Content-Encoding" not in response.headers
    assert response.data[:3] == b"[[["


def test_pictures_and_fits_are_not_gzipped(client: FlaskClient) -> None:
    for form in ("FITS", "PNG"):
        response = client.get(
            ROUTE,
            query_string=ONE | {"return_type": form},
            headers={"Accept-Encoding": "gzip"},
        )
        assert "Content-Encoding" not in response.headers


def test_any_web_page_may_ask_by_default(client: FlaskClient) -> None:
    preflight = client.options(
        ROUTE,
        headers={
            "Origin": "https://portal.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "content-type" in preflight.headers["Access-Control-Allow-Headers"].lower()
    for asked in (ONE, {"kind": "nonsense"}):  # errors must be readable too
        response = client.get(ROUTE, query_string=asked, headers={"Origin": "https://a.example"})
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "X-Cutout-Id" in response.headers["Access-Control-Expose-Headers"]


def test_only_the_configured_pages_may_ask(local_settings: Settings) -> None:
    settings = replace(local_settings, server=Server(cors_origins=("https://portal.example",)))
    client = create_app(settings).test_client()
    for origin, allowed in (("https://portal.example", True), ("https://other.example", False)):
        response = client.get("/healthz", headers={"Origin": origin})
        assert ("Access-Control-Allow-Origin" in response.headers) == allowed


def test_a_cache_keeps_answers_to_different_pages_apart(local_settings: Settings) -> None:
    origins = ("https://a.example", "https://b.example")
    for allowed in (origins, origins[:1]):
        settings = replace(local_settings, server=Server(cors_origins=allowed))
        client = create_app(settings).test_client()
        for origin in (*origins, "https://elsewhere.example", None):
            headers = {"Origin": origin} if origin else {}
            response = client.get(ROUTE, query_string=ONE, headers=headers)
            assert "Origin" in response.headers["Vary"]


def test_a_request_id_is_taken_over_or_made(client: FlaskClient) -> None:
    given = client.get("/healthz", headers={"X-Request-ID": "abc-123"})
    assert given.headers["X-Request-ID"] == "abc-123"
    made = {client.get("/healthz").headers["X-Request-ID"] for _ in range(3)}
    assert len(made) == 3
    for bad in ("a b", "x" * 200, "<script>", "a\tb", "é"):
        response = client.get("/healthz", headers={"X-Request-ID": bad})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_each_request_is_one_log_line(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("cutout_api")
    logger.propagate = True
    with caplog.at_level(logging.INFO, "cutout_api"):
        client.get(ROUTE, query_string=ONE, headers={"X-Request-ID": "abc"})
        client.get(ROUTE, query_string=ONE | {"kind": "x"})
    assert len(caplog.records) == 2
    first, second = (record.getMessage() for record in caplog.records)
    assert re.match(r"GET /api/v1/cutouts 200 \d+ B [\d.]+ ms id=abc", first)
    assert " 400 " in second
    assert "Traceback" not in caplog.text


def test_an_address_cannot_forge_a_log_line(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cutout_api"):
        client.get("/x%0a2026-01-01 INFO forged")
    assert len(caplog.records) == 1
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_health_and_readiness(client: FlaskClient, tmp_path: Path) -> None:
    assert client.get("/healthz").json["status"] == "ok"
    assert client.get("/readyz").json["status"] == "ready"
    gone = create_app(Settings(archive=Archive(uri=str(tmp_path / "gone")))).test_client()
    assert gone.get("/healthz").status_code == 200
    response = gone.get("/readyz")
    assert response.status_code == 503
    assert response.mimetype == "application/problem+json"


def metric(client: FlaskClient, line: str) -> float:
    text = client.get("/metrics").text
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def test_metrics_count_requests_stages_bytes_and_caches(client: FlaskClient) -> None:
    lines = {
        'cutout_requests_total{format="PNG",route="/api/v1/cutouts",status="200"}': 1,
        'cutout_requests_total{format="",route="/api/v1/cutouts",status="400"}': 1,
        'cutout_requests_total{format="",route="unknown",status="404"}': 1,
        'cutout_stage_seconds_count{stage="find"}': 1,
        'cutout_stage_seconds_count{stage="read"}': 1,
        'cutout_stage_seconds_count{stage="decode"}': 1,
        'cutout_stage_seconds_count{stage="format"}': 1,
    }
    client.get(ROUTE, query_string=ONE | {"return_type": "PNG"})
    before = {line: metric(client, line) for line in lines}
    read = metric(client, "cutout_storage_bytes_total")
    hits = metric(client, 'cutout_cache_total{cache="indexes",result="hit"}')
    client.get(ROUTE, query_string=ONE | {"return_type": "PNG"})
    client.get(ROUTE, query_string=ONE | {"kind": "x"})
    client.get("/nowhere")
    for line, more in lines.items():
        assert metric(client, line) == before[line] + more, line
    assert metric(client, "cutout_storage_bytes_total") > read
    assert metric(client, 'cutout_cache_total{cache="indexes",result="hit"}') > hits


def test_metrics_cannot_be_flooded_with_names(client: FlaskClient) -> None:
    for number in range(50):
        client.get(f"/nowhere/{number}")
        client.get(ROUTE, query_string={"output-format": f"x{number}"})
    text = client.get("/metrics").text
    assert "nowhere" not in text
    assert "x49" not in text


def test_a_defect_is_500_without_its_trace(
    local_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(local_settings)
    app.extensions["cutout_reader"]._pool.shutdown()  # what nothing expects
    with caplog.at_level(logging.ERROR, "cutout_api"):
        response = app.test_client().get(ROUTE, query_string=ONE)
    problem = json.loads(response.data)
    assert (response.status_code, problem["code"]) == (500, "internal_error")
    assert "shutdown" not in response.text
    assert "Traceback" not in response.text
    assert "Traceback" in caplog.text


def test_limits_are_answered_by_their_own_errors(
    local_settings: Settings, sample_archive: SampleArchive
) -> None:
    for limits, code, status in (
        (Limits(stamp_bytes=10_000), "stamp_too_large", 502),
        (Limits(image_pixels=3_000), "stamp_too_large", 502),
        (Limits(body_bytes=50), "body_too_large", 413),
        (Limits(folder_files=1), "invalid_parameter", 400),
    ):
        client = create_app(replace(local_settings, limits=limits)).test_client()
        asked = ONE | {"hdfsPath": "archive"} if limits.folder_files == 1 else ONE
        response = client.post(ROUTE, json=asked)
        assert (response.status_code, response.json["code"]) == (status, code)


def test_unavailable_storage_says_when_to_come_back() -> None:
    settings = Settings(
        archive=Archive(uri="hdfs://127.0.0.1:1/", driver="native"),
        limits=Limits(deadline_seconds=20),
    )
    response = create_app(settings).test_client().get(ROUTE, query_string=ONE)
    assert response.status_code in (503, 504)
    if response.status_code == 503:
        assert int(response.headers["Retry-After"]) > 0
    assert "127.0.0.1" not in response.text


def test_every_code_is_explained_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for cls in error_classes():
        line = rf"^\| {cls.status} \| `{cls.code}` \| .+ \|"
        assert re.search(line, text, re.MULTILINE), f"docs/api.md lacks {cls.status} {cls.code}"


def test_every_problem_type_is_an_address_that_explains_it(client: FlaskClient) -> None:
    page = client.get("/docs/errors").text
    for cls in error_classes():
        assert f'id="{cls.code}"' in page
