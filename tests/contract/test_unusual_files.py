"""Files of an archive that are not plain alerts: encrypted ones, summaries, odd names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cutout_api.settings import Archive, Catalog, Index, Settings
from cutout_api.web import create_app

from ..samples import KINDS, stored_fits, write, write_encrypted, ztf_alert
from .test_index_command import run_index

ROWS = [ztf_alert(n) for n in range(6)]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unusual")
    write_encrypted(folder / "encrypted/column.parquet", ROWS)
    write_encrypted(folder / "encrypted/footer.parquet", ROWS[:1], plaintext_footer=False)
    write(folder / "encrypted/plain.parquet", [ztf_alert(20)])
    # A HATS catalog: partitions, and above them what sums them up.
    part = write(folder / "hats/Npix=1/part0.parquet", ROWS)
    metadata = pq.read_metadata(part)
    metadata.set_file_path("Npix=1/part0.parquet")
    metadata.write_metadata_file(folder / "hats/_metadata")
    pq.write_metadata(pq.read_schema(part), folder / "hats/_common_metadata")
    write(folder / "summed/part.parquet", ROWS)
    metadata.write_metadata_file(folder / "summed/all.parquet")
    for number, name in enumerate(("a.parq", "b.PARQUET", "c.Parq", "d.parquet")):
        write(folder / "named" / name, [ztf_alert(50 + number)])
    (folder / "named/e.parquet.crc").write_bytes(b"crc")
    (folder / "named/notes.txt").write_text("no alerts")
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    other = tmp_path_factory.mktemp("other")
    return Settings(
        archive=Archive(uri=str(folder)),
        catalog=Catalog(f"sqlite:///{other / 'catalog.sqlite'}"),
        index=Index(str(other / "index")),
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(settings)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def ask(client: FlaskClient, row: Row, kind: str = "Science", **more: str) -> TestResponse:
    query = {"candid": str(row["candid"]), "kind": kind, "output-format": "FITS"} | more
    return client.get("/api/v1/cutouts", query_string=query)


def problem(answer: TestResponse, status: int, code: str) -> str:
    found = json.loads(answer.data)
    assert (answer.status_code, found["code"]) == (status, code), found
    detail: str = found["detail"]
    return detail


def test_of_an_encrypted_column_it_is_said_and_the_others_are_answered(client: FlaskClient) -> None:
    for row in ROWS:
        for kind in KINDS:
            answer = ask(client, row, kind, hdfsPath="encrypted/column.parquet")
            if kind == "Science":
                detail = problem(answer, 502, "file_unreadable")
                assert (
                    detail == "the column cutoutScience.stampData of 'column.parquet' is encrypted"
                )
            else:
                assert answer.data == stored_fits(row, kind)


def test_of_an_encrypted_file_it_is_said(client: FlaskClient) -> None:
    answer = ask(client, ROWS[0], hdfsPath="encrypted/footer.parquet")
    assert "encrypted" in problem(answer, 502, "file_unreadable")


def test_a_batch_goes_on_beside_an_encrypted_column(client: FlaskClient) -> None:
    ids = [str(row["candid"]) for row in ROWS]
    for kind, is_there in (("Science", False), ("Template", True)):
        answer = client.post(
            "/api/v1/cutouts/batch",
            json={
                "hdfsPath": "encrypted/column.parquet",
                "candid": ids,
                "kind": kind,
            },
        )
        assert answer.status_code == 200, answer.text
        items = [json.loads(line) for line in answer.text.splitlines()]
        assert len(items) == len(ids)
        for item in items:
            assert ("error" not in item) == is_there
            assert is_there or "is encrypted" in json.dumps(item)


@pytest.mark.parametrize("option", [(), ("--pages",), ("--blocks",)])
def test_indexing_reports_encryption_and_goes_on(
    folder: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_INDEX_FOLDER": str(tmp_path / "index"),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
    }
    ended = run_index(environment, "encrypted", *option)
    assert ended.returncode == 1
    assert ended.stdout == "3 files, 1 of them could not be read\n"
    reported = ended.stderr.splitlines()
    assert any("column.parquet: the column cutoutScience.stampData" in line for line in reported)
    assert any("'footer.parquet' is encrypted" in line for line in reported)
    # Its alerts are in the catalog: what is not encrypted of them is answered.
    app = create_app(
        Settings(
            archive=Archive(uri=str(folder)),
            catalog=Catalog(environment["CUTOUT_API_CATALOG_URL"]),
            index=Index(environment["CUTOUT_API_INDEX_FOLDER"]),
        )
    )
    client = app.test_client()
    assert ask(client, ROWS[2], "Template").data == stored_fits(ROWS[2], "Template")
    assert "is encrypted" in problem(ask(client, ROWS[2]), 502, "file_unreadable")
    assert ask(client, ztf_alert(20)).data == stored_fits(ztf_alert(20), "Science")
    rows = client.get("/api/v1/objects", query_string={"objectId": ROWS[0]["objectId"]})
    assert rows.status_code == 200
    assert len(rows.get_json()) == len(ROWS) + 1
    app.extensions["cutout_reader"].close()


@pytest.mark.parametrize("name", ["hats/_metadata", "hats/_common_metadata", "summed/all.parquet"])
def test_a_summary_says_that_it_is_one(client: FlaskClient, name: str) -> None:
    for more in ({}, {"which": "latest"}):
        query = {"objectId": str(ROWS[0]["objectId"]), "kind": "Science", "hdfsPath": name} | more
        answer = client.get("/api/v1/cutouts", query_string=query)
        assert "summary of other parquet files" in problem(answer, 400, "not_parquet")


@pytest.mark.parametrize("name", ["hats", "summed"])
def test_a_folder_is_served_without_its_summary(client: FlaskClient, name: str) -> None:
    for row in ROWS:
        assert ask(client, row, hdfsPath=name).data == stored_fits(row, "Science")
    query = {"objectId": str(ROWS[0]["objectId"]), "hdfsPath": name, "which": "latest"}
    query["kind"] = "Science"
    answer = client.get("/api/v1/cutouts", query_string=query | {"output-format": "FITS"})
    assert answer.data == stored_fits(ROWS[-1], "Science")
    batch = {"kind": "Science", "hdfsPath": name, "candid": [str(row["candid"]) for row in ROWS]}
    answer = client.post("/api/v1/cutouts/batch", json=batch)
    assert answer.status_code == 200
    assert "error" not in answer.text


@pytest.mark.parametrize("number", range(4))
def test_parquet_files_are_known_by_every_spelling_of_their_name(
    client: FlaskClient, number: int
) -> None:
    row = ztf_alert(50 + number)
    assert ask(client, row, hdfsPath="named").data == stored_fits(row, "Science")


def test_indexing_leaves_summaries_out_and_takes_every_spelling(
    folder: Path, tmp_path: Path
) -> None:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_INDEX_FOLDER": str(tmp_path / "index"),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
    }
    ended = run_index(environment, "named", "hats")
    assert (ended.returncode, ended.stdout) == (0, "5 files, 0 of them could not be read\n")
