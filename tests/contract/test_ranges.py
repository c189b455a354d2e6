"""Parts of an answer: by the headers, and by the programs that ask for them."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import requests
from astropy.io import fits
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..archive import NIGHT, SampleArchive
from ..catalogue import catalogued
from ..samples import ZTF_SCHEMA, stored_fits, write, ztf_alert
from ..service import Service, running_service

ROUTE = "/api/v1/cutouts"
FIRST = f"{NIGHT}/part-00000.snappy.parquet"
ONE = {"hdfsPath": FIRST, "candid": str(ztf_alert(0)["candid"]), "kind": "Science"}
MANY = "ZTF24zzzzzzz"
"""An object of which a table with stamps is sent as it is made."""
OBJECT = "ZTF24aaaaaaa"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, sample_archive: SampleArchive) -> Settings:
    folder = tmp_path_factory.mktemp("ranges")
    (folder / "archive").symlink_to(sample_archive.folder / "archive")
    (folder / "lsst").symlink_to(sample_archive.folder / "lsst")
    write(
        folder / "many.parquet", [ztf_alert(n, MANY, shape=(5, 5)) for n in range(40)], ZTF_SCHEMA
    )
    roots = (str(folder), str(sample_archive.folder))
    return catalogued(Settings(archive=Archive(uri=f"file://{folder}", roots=roots)))


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(settings)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Service]:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": settings.archive.uri,
        "CUTOUT_API_ARCHIVE_ROOTS": ",".join(settings.archive.roots),
        "CUTOUT_API_CATALOG_URL": settings.catalog.url,
        "CUTOUT_API_SERVER_WORKERS": "1",
    }
    with running_service(environment) as running:
        yield running


def ask(client: FlaskClient, asked: dict[str, Any] | str, **headers: str) -> TestResponse:
    """Ask for a stamp, or for what an address names."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(asked, str):
        return client.get(asked, headers=named)
    return client.get(ROUTE, query_string=asked, headers=named)


WHOLE: tuple[dict[str, str] | str, ...] = (
    *(
        ONE | {"return_type": form}
        for form in ("array", "FITS", "PNG", "JPEG", "WebP", "GIF", "NPY", "NPZ")
    ),
    ONE | {"return_type": "FITS", "kind": "All"},
    ONE | {"return_type": "PNG", "explain": "1"},
    *(
        f"/api/v1/objects?objectId={OBJECT}&output-format={form}"
        for form in ("json", "csv", "parquet", "votable")
    ),
    f"/api/v1/objects?objectId={OBJECT}&output-format=parquet&withcutouts=1",
    "/api/v1/columns?survey=ztf",
    "/static/try.js",
    "/docs/assets/swagger-ui.css",
    "/favicon.ico",
)


@pytest.mark.parametrize("asked", WHOLE, ids=str)
def test_any_part_of_a_whole_answer_can_be_had(
    client: FlaskClient, asked: dict[str, str] | str
) -> None:
    whole = ask(client, asked)
    length = len(whole.data)
    assert (whole.status_code, whole.headers["Accept-Ranges"]) == (200, "bytes")
    for wanted, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, length),
        ("bytes=20-39", 20, 40),
        (f"bytes=100-{length}", 100, length),
        ("bytes=-7", length - 7, length),
    ):
        part = ask(client, asked, Range=wanted, Accept_Encoding="gzip")
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{length}"
        assert part.headers["Content-Length"] == str(stop - start)
        assert part.data == whole.data[start:stop]
        for name in ("Content-Type", "ETag", "Vary", "Cache-Control", "Content-Disposition"):
            assert part.headers.get(name) == whole.headers.get(name)
    beyond = ask(client, asked, Range=f"bytes={length}-")
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{length}"
    assert beyond.mimetype == "application/problem+json"
    assert beyond.json["code"] == "range_not_satisfiable"
    assert "ETag" not in beyond.headers


FITS = ONE | {"return_type": "FITS"}


def test_head_says_what_get_sends(client: FlaskClient) -> None:
    for headers in ({}, {"Range": "bytes=2880-5759"}, {"Range": "bytes=99999999-"}):
        got = client.get(ROUTE, query_string=FITS, headers=headers)
        head = client.head(ROUTE, query_string=FITS, headers=headers)
        assert (head.status_code, head.data) == (got.status_code, b"")
        for name in ("Accept-Ranges", "Content-Length", "Content-Range", "ETag"):
            assert head.headers.get(name) == got.headers.get(name)


def test_a_part_is_of_the_answer_that_if_range_names(client: FlaskClient) -> None:
    whole = ask(client, FITS)
    tag = whole.headers["ETag"]
    part = ask(client, FITS, Range="bytes=0-9", If_Range=tag)
    assert (part.status_code, part.data) == (206, whole.data[:10])
    for other in ('"other"', f"W/{tag}", "*", "Thu, 01 Jan 2099 00:00:00 GMT"):
        answer = ask(client, FITS, Range="bytes=0-9", If_Range=other)
        assert (answer.status_code, answer.data) == (200, whole.data)
    # Even a range that the present answer does not have.
    assert ask(client, FITS, Range="bytes=999999-", If_Range='"other"').status_code == 200


def test_a_copy_that_is_still_right_comes_before_its_part(client: FlaskClient) -> None:
    tag = ask(client, FITS).headers["ETag"]
    for wanted in ("bytes=0-9", "bytes=999999-"):
        answer = ask(client, FITS, Range=wanted, If_None_Match=tag)
        assert (answer.status_code, answer.data) == (304, b"")
        assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "bytes=9-1", "rows=0-1", "bytes=x", "", "b" * 99]
)
def test_what_cannot_be_one_part_is_the_whole(client: FlaskClient, wanted: str) -> None:
    answer = ask(client, FITS, Range=wanted)
    assert (answer.status_code, answer.data) == (200, ask(client, FITS).data)
    assert "Content-Range" not in answer.headers


def test_post_has_no_parts(client: FlaskClient) -> None:
    answer = client.post(ROUTE, json=FITS, headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.data) == (200, ask(client, FITS).data)
    assert "Accept-Ranges" not in answer.headers


def test_an_error_has_no_parts(client: FlaskClient) -> None:
    for asked in (FITS | {"candid": "1"}, FITS | {"kind": "Sciense"}, "/nowhere"):
        answer = ask(client, asked, Range="bytes=0-9")
        assert answer.status_code in (400, 404)
        assert answer.json["status"] == answer.status_code
        assert not {"Accept-Ranges", "Content-Range"} & {name for name, _ in answer.headers}


def test_what_is_sent_as_it_is_made_has_no_parts(client: FlaskClient) -> None:
    table = f"/api/v1/objects?objectId={MANY}&withcutouts=1&output-format=parquet"
    answer = ask(client, table, Range="bytes=0-9")
    assert (answer.status_code, answer.headers["Accept-Ranges"]) == (200, "none")
    assert "Content-Length" not in answer.headers
    assert answer.data[-4:] == b"PAR1"
    body = {"candid": [ONE["candid"]], "kind": "Science"}
    batch = client.post(f"{ROUTE}/batch", json=body, headers={"Range": "bytes=0-9"})
    assert (batch.status_code, batch.headers["Accept-Ranges"]) == (200, "none")


# --- the programs --------------------------------------------------------------------------------


def address(service: Service, asked: dict[str, str]) -> str:
    return requests.Request("GET", service.address + ROUTE, params=asked).prepare().url or ""


@pytest.mark.parametrize(
    "command", [["curl", "-sS", "-C", "-", "-o"], ["wget", "-q", "-c", "-O"]], ids=lambda it: it[0]
)
def test_a_download_that_broke_off_goes_on(
    service: Service, sample_archive: SampleArchive, tmp_path: Path, command: list[str]
) -> None:
    whole = stored_fits(sample_archive.rows[FIRST][0], "Science")
    file = tmp_path / "stamp.fits"
    file.write_bytes(whole[:3000])
    before = service.log.count(f" 206 {len(whole) - 3000} B ")
    subprocess.run([*command, str(file), address(service, FITS)], check=True, timeout=60)
    assert file.read_bytes() == whole
    assert service.log.count(f" 206 {len(whole) - 3000} B ") == before + 1


def test_astropy_reads_the_hdus_of_a_stamp_block_by_block(
    service: Service, sample_archive: SampleArchive
) -> None:
    row = sample_archive.rows["lsst/nested.parquet"][0]
    asked = {"hdfsPath": "lsst/nested.parquet", "diaSourceId": str(row["diaSourceId"])}
    url = address(service, asked | {"kind": "Science", "return_type": "FITS"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", category=fits.verify.VerifyWarning)
        with fits.open(url, use_fsspec=True, fsspec_kwargs={"block_size": 2880}) as hdus:
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "UNCERT", "PSFIMAGE"]
            stored = fits.HDUList.fromstring(stored_fits(row, "Science"))
            for found, expected in zip(hdus, stored, strict=True):
                assert found.data.tobytes() == expected.data.tobytes()


def test_pyarrow_reads_some_columns_of_a_table_over_fsspec(service: Service) -> None:
    url = f"{service.address}/api/v1/objects?objectId={OBJECT}&output-format=parquet&withcutouts=1"
    whole = pq.read_table(fsspec.open(url).open())
    with fsspec.open(url, block_size=4096) as file:
        some = pq.ParquetFile(file).read(columns=["i:candid"])
    assert some.num_rows == whole.num_rows > 1
    assert some.column("i:candid") == whole.column("i:candid")
