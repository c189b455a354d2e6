"""Ids however they are written, and what a value that is none is told, on every route."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from flask.testing import FlaskClient

from cutout_api.client import Client
from cutout_api.openapi import describe_service
from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..archive import NIGHT, SampleArchive
from ..catalogue import catalogued
from ..samples import REAL_DATA, lsst_alert, ztf_alert
from ..service import running_service
from .test_get_command import get as run_get

CUTOUTS = "/api/v1/cutouts"
ZTF_FILE, LSST_FILE = f"{NIGHT}/part-00000.snappy.parquet", "lsst/nested.parquet"
NAME, CANDID = "ZTF24aaaaaaa", str(ztf_alert(0)["candid"])
SOURCE = str(lsst_alert(0)["diaSourceId"])
OBJECT = str(lsst_alert(0)["diaSource"]["diaObjectId"])
DS, DO = f"LSST-AP-DS-{SOURCE}", f"LSST-AP-DO-{OBJECT}"
TOO_LARGE = "1" * 23


@pytest.fixture(scope="module")
def everything(local_settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(catalogued(local_settings, "archive", "lsst"))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def get(client: FlaskClient, route: str, **query: Any) -> Any:
    return client.get(f"/api/v1/{route}", query_string=query)


def post(client: FlaskClient, route: str, **body: Any) -> Any:
    return client.post(f"/api/v1/{route}", json=body)


def lines(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.data.splitlines()]


def unknown_ids(answer: Any) -> list[str]:
    return [unquote(it) for it in answer.headers.get("X-Unknown-Ids", "").split(",") if it]


# --- other spellings

SPELLINGS = [
    ("objectId", NAME, "objectId", "ZTF24AAAAAAA"),
    ("objectId", NAME, "objectId", "ztf24aaaaaaa"),
    ("objectId", NAME, "objectId", " Ztf24aAaaaAA "),
    ("diaSourceId", SOURCE, "diaSourceId", DS),
    ("diaSourceId", SOURCE, "diaSourceId", DS.lower()),
    ("diaObjectId", OBJECT, "diaObjectId", DO),
    ("diaObjectId", OBJECT, "objectId", OBJECT),
    ("diaObjectId", OBJECT, "objectId", int(OBJECT)),
    ("diaObjectId", OBJECT, "objectId", DO),
]


@pytest.mark.parametrize("path", [None, "its file"])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_another_spelling_of_an_id_gives_the_same_stamp(
    everything: FlaskClient, spelling: tuple[str, str, str, Any], path: str | None
) -> None:
    key, usual, name, other = spelling
    more = {"kind": "Science", "output-format": "FITS"}
    if path:
        more["hdfsPath"] = ZTF_FILE if usual == NAME else LSST_FILE
    expected = get(everything, "cutouts", **{key: usual}, **more)
    assert expected.status_code == 200
    for answer in (
        get(everything, "cutouts", **{name: other}, **more),
        post(everything, "cutouts", **{name: other}, **more),
        everything.post(CUTOUTS, data={name: other} | more),
        everything.head(CUTOUTS, query_string={name: other} | more),
    ):
        assert answer.status_code == 200, answer.text
        for header in ("ETag", "X-Cutout-Id", "Content-Disposition"):
            assert answer.headers[header] == expected.headers[header]
    del more["output-format"]
    info = get(everything, "cutouts/info", **{name: other}, **more)
    assert info.json == get(everything, "cutouts/info", **{key: usual}, **more).json


@pytest.mark.parametrize(("key", "usual", "name", "other"), SPELLINGS)
def test_another_spelling_gives_the_same_in_batches_and_tables(
    everything: FlaskClient, key: str, usual: str, name: str, other: Any
) -> None:
    (expected,) = lines(post(everything, "cutouts/batch", **{key: [usual]}, kind="Science"))
    (found,) = lines(post(everything, "cutouts/batch", **{name: [other]}, kind="Science"))
    assert found.pop("id") == str(other)[:64]
    assert expected.pop("id") == usual
    assert found == expected
    address = f"{CUTOUTS}/batch?kind=Science"
    answer = everything.post(address, data=f"{name}\n{other}\n", content_type="text/csv")
    assert lines(answer)[0]["status"] == 200
    if key == "diaSourceId":
        return
    for route in ("objects", "sources", "fp") if key == "diaObjectId" else ("objects",):
        expected = post(everything, route, **{key: usual})
        assert expected.status_code == 200
        assert route == "fp" or len(expected.json) > 0
        for ids in (other, [other], f"{other},", f"{other},{usual}"):
            answer = post(everything, route, **{name: ids})
            assert (answer.status_code, answer.data) == (200, expected.data), answer.text
            assert "X-Hint" not in answer.headers


@pytest.mark.parametrize("text", ["ZTF24AAAAAAA", "ztf24aaaaaaa", DS, DS.lower(), DO])
def test_identify_understands_them_and_answers_the_usual_one(
    everything: FlaskClient, text: str
) -> None:
    usual = text.rpartition("-")[2] if "-" in text else NAME
    expected = get(everything, "identify", id=usual).json
    found = get(everything, "identify", id=text).json
    assert found["id"] == expected["id"] == usual
    assert found["matches"] == expected["matches"]
    page = everything.get("/plain", query_string={"id": text})
    assert usual in page.text


@pytest.mark.parametrize(
    "text",
    [
        "ZTF24aaaaaa\u017f",  # long s, whose upper case is S
        "\uff3a\uff34\uff2624aaaaaaa",
        "ZTF\uff12\uff14aaaaaaa",
        "ZTF24aaaaaa\u0131",
        f"L\u017f\u017fT-AP-DS-{SOURCE}",
        f"LSST-AP-DS-{SOURCE[:-1]}\uff10",
        "ZTF24aaaaaaaa",
        "ZTF24aaaa1aa",
        f"LSST-AP-DX-{SOURCE}",
        f"LSST-AP-DS{SOURCE}",
        f"LSST-AP-DS--{SOURCE}",
        f"LSST-AP-DS-LSST-AP-DS-{SOURCE}",
        "LSST-AP-DS-",
    ],
)
def test_nothing_else_is_taken_for_an_id(everything: FlaskClient, text: str) -> None:
    for key in ("objectId", "diaSourceId", "diaObjectId", "candid"):
        answer = post(everything, "cutouts", **{key: text}, kind="Science")
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
    assert get(everything, "identify", id=text).status_code == 400
    assert post(everything, "objects", objectId=text).json == []


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("diaObjectId", DS, "diaSourceId"),
        ("diaSourceId", DO, "diaObjectId"),
        ("candid", DS, "diaSourceId"),
        ("candid", NAME, "objectId"),
        ("objectId", DS, "diaSourceId"),
        ("diaSourceId", "ztf24aaaaaaa", "objectId"),
    ],
)
def test_an_id_of_another_key_is_refused_with_the_name_of_that(
    everything: FlaskClient, key: str, value: str, right: str
) -> None:
    answer = post(everything, "cutouts", **{key: value}, kind="Science")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
    assert (answer.json["parameter"], answer.json["suggestion"]) == (key, right)
    (item,) = lines(post(everything, "cutouts/batch", **{key: [value]}, kind="Science"))
    assert item["error"] == answer.json


def test_digits_as_object_id_contradict_what_belongs_to_another_survey(
    everything: FlaskClient,
) -> None:
    answer = post(everything, "cutouts", objectId=OBJECT, candid=CANDID, kind="Science")
    assert (answer.status_code, answer.json["code"]) == (400, "conflicting_parameters")
    assert answer.json["parameter"] == "candid"
    assert f"objectId {OBJECT} is a diaObjectId of LSST" in answer.json["detail"]
    both = post(everything, "cutouts", objectId=OBJECT, diaObjectId=DO, kind="Science")
    assert both.status_code == 200
    other = post(everything, "cutouts", objectId=OBJECT, diaObjectId="5", kind="Science")
    assert (other.status_code, other.json["code"]) == (400, "conflicting_parameters")
    source = str(lsst_alert(1)["diaSourceId"])
    owner = str(lsst_alert(1)["diaSource"]["diaObjectId"])
    pair = post(everything, "cutouts", objectId=owner, diaSourceId=source, kind="Science")
    assert (pair.status_code, pair.headers["X-Cutout-Id"]) == (200, source)
    unknown = post(everything, "cutouts", objectId="5", kind="Science")
    assert (unknown.status_code, unknown.json["code"]) == (404, "alert_not_found")
    unknown = post(everything, "cutouts", objectId="5", kind="Science", hdfsPath=ZTF_FILE)
    assert unknown.status_code == 404
    assert "does not hold alerts of LSST" in unknown.json["detail"]


def test_lists_of_names_and_digits_are_of_the_names(everything: FlaskClient) -> None:
    for ids in ([OBJECT, NAME, "x"], ["x", NAME, OBJECT]):
        items = lines(post(everything, "cutouts/batch", objectId=ids, kind="Science"))
        assert [item["status"] for item in items] == [200 if it == NAME else 400 for it in ids]
        answer = post(everything, "objects", objectId=ids, columns="i:objectId")
        assert {row["i:objectId"] for row in answer.json} == {NAME}
        assert sorted(unknown_ids(answer)) == sorted([OBJECT, "x"])


def test_an_alert_may_be_named_as_its_file_in_batches_too(everything: FlaskClient) -> None:
    ids = [f"{SOURCE}_cutoutScience", f"{DS}_cutoutscience", f"{SOURCE}_cutoutTemplate"]
    items = lines(post(everything, "cutouts/batch", diaSourceId=ids, kind="Science"))
    assert [item["status"] for item in items] == [200, 200, 400]
    assert items[0]["cutouts"] == items[1]["cutouts"]
    alone = post(everything, "cutouts", diaSourceId=ids[2], kind="Science")
    assert items[2]["error"] == alone.json
    plan = post(everything, "cutouts/batch", diaSourceId=ids[:2], kind="Science", dry_run=1)
    assert plan.json["known"] == 2


# --- one value, one error

MALFORMED: list[tuple[str, Any]] = [
    *(("candid", it) for it in ("12a", TOO_LARGE, f"-{TOO_LARGE}", "0", "-1", "9" * 300, "1.5")),
    *(("candid", it) for it in (2**63, 0, -1, 1.5, True, "1_000", "\u0661", "0x1", " ", "1" * 200)),
    *(("candid", it) for it in ([5], [[5]], {"a": 1}, [])),
    *(("objectId", it) for it in ("ldfksjflkdsjf", "0", TOO_LARGE, "ZTF24", 1.5, False, [NAME])),
    *(("diaSourceId", it) for it in ("ldfksjflkdsjf", DO, TOO_LARGE, 10**22, "0", {})),
    *(("diaObjectId", it) for it in ("ldfksjflkdsjf", DS, TOO_LARGE, "LSST-AP-DO-0", -1)),
]


@pytest.mark.parametrize(("key", "value"), MALFORMED, ids=lambda it: str(it)[:30])
def test_a_malformed_value_has_one_error_on_every_route(
    everything: FlaskClient, key: str, value: Any
) -> None:
    expected = post(everything, "cutouts", **{key: value}, kind="Science")
    assert (expected.status_code, expected.json["code"]) == (400, "invalid_parameter")
    assert expected.json["parameter"] == key
    path = post(everything, "cutouts", **{key: value}, kind="Science", hdfsPath=ZTF_FILE)
    assert path.json == expected.json
    (item,) = lines(post(everything, "cutouts/batch", **{key: [value]}, kind="Science"))
    assert (item["status"], item["error"]) == (400, expected.json)
    if isinstance(value, str):
        assert get(everything, "cutouts", **{key: value}, kind="Science").json == expected.json
        assert get(everything, "cutouts/info", **{key: value}).json == expected.json
    if isinstance(value, str) and key in ("diaObjectId", "objectId"):
        table = post(everything, "objects", **{key: value})
        assert (table.json, table.headers["X-Hint"]) == ([], expected.json["detail"])
    if isinstance(value, str) and value.strip("-").isdigit() and value.isascii():
        # What it is follows from its form, so identify can say no other thing.
        problem = get(everything, "identify", id=value).json
        assert problem["code"] == "invalid_parameter"
        if key == "candid":
            assert problem["detail"] == expected.json["detail"].replace(key, "id", 1)


def test_a_number_of_too_many_digits_is_told_that_it_exceeds_64_bits(
    everything: FlaskClient,
) -> None:
    for answer in (
        get(everything, "cutouts", candid=TOO_LARGE, kind="Science"),
        post(everything, "cutouts", candid=int(TOO_LARGE), kind="Science"),
        get(everything, "identify", id=TOO_LARGE),
    ):
        assert "64 bits" in answer.json["detail"]
        assert "digits only" not in answer.json["detail"]


# --- tables of objects that nobody has heard of

NOBODY: list[tuple[str, Any]] = [
    ("objectId", "ldfksjflkdsjf"),
    ("objectId", "ZTF99zzzzzzz"),
    ("objectId", "0"),
    ("objectId", "../x"),
    ("diaObjectId", "ldfksjflkdsjf"),
    ("diaObjectId", "12.0"),
    ("diaObjectId", 0),
    ("diaObjectId", -1),
    ("diaObjectId", "5"),
    ("diaObjectId", TOO_LARGE),
    ("diaObjectId", 10**22),
    ("diaObjectId", str(2**63)),
    ("diaObjectId", "\u202e\r\nSet-Cookie: x=1"),
    ("diaObjectId", "\ud800"),
]


@pytest.mark.parametrize(("key", "value"), NOBODY)
def test_an_object_that_nobody_has_heard_of_has_no_rows(
    everything: FlaskClient, key: str, value: Any
) -> None:
    for route in ("objects", "sources", "fp"):
        answer = post(everything, route, **{key: [value]})
        assert (answer.status_code, answer.data) == (200, b"[]"), answer.text
        assert unknown_ids(answer) == [str(value).replace("\ud800", "\ufffd")]
        assert answer.headers["X-Hint"].isascii()
        assert 0 < len(answer.headers["X-Hint"]) < 1000
        assert "Set-Cookie" not in answer.headers
        if "\ud800" not in str(value):
            assert post(everything, route, **{key: value}).data == b"[]"
            assert get(everything, route, **{key: value}).data == b"[]"
            head = everything.head(f"/api/v1/{route}", query_string={key: value})
            assert (head.status_code, head.data) == (200, b"")
            assert unknown_ids(head) == [str(value)]


@pytest.mark.parametrize("route", ["objects", "sources"])
@pytest.mark.parametrize("value", ["ldfksjflkdsjf", "5"])
def test_an_empty_table_is_one_in_every_format(
    everything: FlaskClient, route: str, value: str
) -> None:
    asked = {"diaObjectId": value, "columns": "r:diaObjectId,r:ra"}
    if route == "sources":
        asked["columns"] = "r:diaObjectId,r:midpointMjdTai"
    names = asked["columns"].split(",")
    content = {
        form: post(everything, route, **asked, **{"output-format": form})
        for form in ("csv", "parquet", "votable")
    }
    assert {answer.status_code for answer in content.values()} == {200}
    assert {tuple(unknown_ids(answer)) for answer in content.values()} == {(value,)}
    frame = pd.read_csv(io.BytesIO(content["csv"].data))
    assert (list(frame.columns), len(frame)) == (names, 0)
    table = pq.read_table(io.BytesIO(content["parquet"].data))
    assert (table.column_names, table.num_rows) == (names, 0)
    first = votable.parse(io.BytesIO(content["votable"].data)).get_first_table()
    assert ([field.name for field in first.fields], len(first.array)) == (names, 0)


def test_in_a_list_the_others_have_their_rows(everything: FlaskClient) -> None:
    expected = post(everything, "objects", objectId=NAME).data
    for ids in (f"ldfk,{NAME},ZTF99zzzzzzz", ["ldfk", NAME, "ZTF99zzzzzzz", "", "ldfk"]):
        answer = post(everything, "objects", objectId=ids)
        assert (answer.status_code, answer.data) == (200, expected)
        assert unknown_ids(answer)[:2] == ["ZTF99zzzzzzz", "ldfk"]
        assert "'ldfk'" in answer.headers["X-Hint"]
    many = post(everything, "objects", objectId=[NAME, *(f"é{n}" for n in range(90))])
    assert len(many.headers["X-Unknown-Ids"]) < 2_100


def test_a_table_says_how_fresh_the_catalog_is_that_lacks_an_object(
    everything: FlaskClient,
) -> None:
    answer = post(everything, "objects", objectId="ZTF99zzzzzzz")
    assert "is in the catalog, which was brought up to date at 2" in answer.headers["X-Hint"]


def test_a_known_object_without_rows_is_not_unknown(everything: FlaskClient) -> None:
    answer = post(everything, "sources", diaObjectId=OBJECT, midpointMjdTai=1)
    assert (answer.status_code, answer.json, unknown_ids(answer)) == (200, [], [])


def test_the_document_has_the_headers_and_browsers_may_read_them(everything: FlaskClient) -> None:
    answer = everything.get("/api/v1/objects?objectId=x", headers={"Origin": "https://a.example"})
    exposed = answer.headers["Access-Control-Expose-Headers"]
    for route in ("objects", "sources"):
        for method in ("get", "post"):
            found = describe_service()["paths"][f"/api/v1/{route}"][method]["responses"]["200"]
            assert {"X-Unknown-Ids", "X-Hint"} <= set(found["headers"])
    assert "X-Unknown-Ids" in exposed
    assert "X-Hint" in exposed


# --- the client, and the command


def test_the_client_and_the_command_take_ids_in_words(
    sample_archive: SampleArchive, local_settings: Settings, tmp_path: Path
) -> None:
    settings = catalogued(local_settings, "archive", "lsst")
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "CUTOUT_API_CATALOG_URL": settings.catalog.url,
    }
    with running_service(environment) as service, Client(service.address, cache=None) as client:
        expected = client.cutout(diaSourceId=SOURCE)
        assert client.cutout(DS).fits == expected.fits
        latest = client.cutout(diaObjectId=OBJECT)
        for found in (client.cutout(DO), client.cutout(objectId=OBJECT)):
            assert (found.survey, found.id, found.fits) == ("lsst", latest.id, latest.fits)
        assert client.cutout("ZTF24AAAAAAA").fits == client.cutout(NAME).fits
        assert len(client.sources(DO)) == len(client.sources(OBJECT)) > 1
        (item,) = client.batch([OBJECT], key="objectId")
        assert (item.error, item.alert_id) == (None, latest.id)
    ids = (DS, DO, f"objectId={OBJECT}", "ztf24aaaaaaa", f"diaObjectId={DO}")
    for id_ in ids:
        ended = run_get(environment, id_, "--kind", "science", "-o", tmp_path, "--overwrite")
        assert ended.returncode == 0, ended.stderr
    names = {f"{SOURCE}_Science.fits", f"{latest.id}_Science.fits", f"{NAME}_Science.fits"}
    assert {path.name for path in tmp_path.iterdir()} == names


# --- the three tests of the public service, and real alerts


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the folder of real alerts is not here")
def test_ids_in_words_answer_on_real_alerts() -> None:
    client = create_app(
        catalogued(Settings(archive=Archive(uri=f"file://{REAL_DATA}")))
    ).test_client()
    for route, key in (
        ("objects", "objectId"),
        ("objects", "diaObjectId"),
        ("sources", "diaObjectId"),
    ):
        frame = pd.read_json(io.BytesIO(post(client, route, **{key: "ldfksjflkdsjf"}).data))
        assert frame.empty
    path = "lsst_spark_1.12_offsetindex.parquet"
    source = pq.read_table(REAL_DATA / path)["diaSource"][0].as_py()["diaSourceId"]
    asked = {"kind": "Science", "output-format": "FITS"}
    expected = get(client, "cutouts", diaSourceId=source, **asked)
    found = get(client, "cutouts", diaSourceId=f"LSST-AP-DS-{source}", **asked)
    assert (found.status_code, found.data) == (200, expected.data)
    assert get(client, "identify", id=f"LSST-AP-DS-{source}").json["id"] == str(source)
    client.application.extensions["cutout_reader"].close()
