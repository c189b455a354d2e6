"""Array answers: each value is the file's, and masked pixels are what the caller can read."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cutout_api.settings import Answers, Archive, Settings
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..samples import (
    KINDS,
    LSST_SCHEMA,
    REAL_DATA,
    ZTF_SCHEMA,
    lsst_alert,
    lsst_fits,
    pixels,
    write,
    ztf_alert,
    ztf_fits,
)

ROUTE, BATCH = "/api/v1/cutouts", "/api/v1/cutouts/batch"
CALLER = {"Accept", "Sec-Fetch-Mode", "Origin"}
OBJECT, SOURCE_OBJECT = "ZTF24aaaaaaa", 7


def masked(value: float, kind: str = ">f4") -> np.ndarray:
    image = pixels(5).astype(kind)
    image[0, :4] = [np.nan, value, -value, np.nan]
    return image


IMAGES = {
    "float32": pixels(1),
    "float64": pixels(2).astype(">f8") * np.pi,
    "int16": pixels(3).astype(">i2"),
    "int32": pixels(4).astype(">i4") * 1_000_003,
    "uint8": pixels(6).astype(np.uint8),
    "masked": masked(np.nan),
    "infinite": masked(np.inf),
    "infinite doubles": masked(np.inf, ">f8"),
    "only NaN": np.full((63, 63), np.nan, ">f4"),
}
"""An alert each, the oldest first."""


def alert(what: str) -> dict[str, Any]:
    number = list(IMAGES).index(what)
    stored = gzip.compress(ztf_fits(IMAGES[what]), 1, mtime=0)
    more: dict[str, Any] = {"Template": None} if what == "masked" else {}
    return ztf_alert(number, OBJECT, Science=stored, Difference=stored, **more)


def make_app(folder: Path, nan: str = "auto") -> Any:
    settings = Settings(archive=Archive(uri=f"file://{folder}"), answers=Answers(nan))
    return create_app(catalogued(settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    write(folder / "ztf.parquet", [alert(what) for what in IMAGES], ZTF_SCHEMA)
    image = pixels(9, (30, 31))
    image[3, :5] = np.nan
    write(folder / "lsst.parquet", [lsst_alert(0, 1, Science=lsst_fits(image))], LSST_SCHEMA)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[FlaskClient]:
    app = make_app(folder)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def of(what: str, **more: str) -> dict[str, str]:
    return {"candid": str(alert(what)["candid"]), "kind": "Science", **more}


def image_in(client: FlaskClient, asked: dict[str, str]) -> np.ndarray:
    """Return what astropy reads of the stamp's FITS file."""
    named = {name: value for name, value in asked.items() if not name.startswith("nan")}
    named.pop("return_type", None)
    content = client.get(ROUTE, query_string=named | {"output-format": "FITS"}).data
    with fits.open(io.BytesIO(content), ignore_missing_simple=True) as hdus:
        return np.array(hdus[0].data)


def get(client: FlaskClient, asked: dict[str, str], **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.get(ROUTE, query_string=asked, headers=named)
    assert answer.status_code == 200, answer.text
    return answer


ARRAY = {"return_type": "array"}


# --- exact ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [name for name in IMAGES if name != "only NaN"])
def test_an_array_equals_its_fits_file(client: FlaskClient, what: str) -> None:
    asked = of(what)
    stored = image_in(client, asked)
    values = [
        get(client, asked | ARRAY).json[0],
        get(client, asked | {"output-format": "array"}).json["b:cutoutScience_stampData"],
    ]
    for found in map(np.array, values):
        assert found.shape == stored.shape
        finite = np.isfinite(stored)
        assert np.all(found[finite] == stored[finite])
        np.testing.assert_array_equal(found, stored)


def test_arrays_of_batches_and_tables_and_all_epochs_equal_it_too(client: FlaskClient) -> None:
    asked = of("float32")
    stored, candid = image_in(client, asked), asked["candid"]
    name = "b:cutoutScience_stampData"
    batch = client.post(BATCH, json={"candid": [candid], "kind": "Science"})
    assert np.all(np.array(json.loads(batch.data)["cutouts"][name]) == stored)
    table = client.get(f"/api/v1/objects?objectId={OBJECT}&withcutouts=1&columns=i:candid").json
    (row,) = (row for row in table if str(row["i:candid"]) == candid)
    assert np.all(np.array(row[name]) == stored)
    epochs = get(client, {"objectId": OBJECT, "kind": "Science", "epochs": "all", **ARRAY}).json
    (epoch,) = (epoch for epoch in epochs if epoch["candid"] == candid)
    assert np.all(np.array(epoch["stamps"][0]) == stored)


def test_planes_of_an_lsst_stamp_equal_its_hdus(client: FlaskClient) -> None:
    asked = {"diaSourceId": str(lsst_alert(0)["diaSourceId"]), "kind": "Science"}
    content = get(client, asked | {"output-format": "FITS"}).data
    with fits.open(io.BytesIO(content)) as hdus:
        planes = {"image": hdus[0].data, "variance": hdus[1].data, "psf": hdus[2].data}
        for plane, stored in planes.items():
            found = get(client, asked | ARRAY | {"plane": plane}).json[0]
            np.testing.assert_array_equal(np.array(found), stored)


def test_real_stamps_equal_their_fits_files() -> None:
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real alerts, ../shared/data, is not here")
    app = create_app(Settings(archive=Archive(uri=f"file://{REAL_DATA}")))
    client = app.test_client()
    asked = {"hdfsPath": "ztf_pyarrow_dict.parquet", "objectId": "ZTF24aaknknn"}
    for kind in KINDS:
        stored = image_in(client, asked | {"kind": kind})
        assert np.all(np.array(get(client, asked | {"kind": kind} | ARRAY).json[0]) == stored)
    app.extensions["cutout_reader"].close()


# --- masked --------------------------------------------------------------------------------------


def spelling(answer: TestResponse) -> str:
    found = {word for word in (b"null", b"NaN") if word in answer.data}
    assert len(found) == 1, found
    return found.pop().decode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "NaN"),
        ({"Accept": "*/*"}, "NaN"),
        ({"Accept": "application/*"}, "NaN"),
        ({"Accept": "text/html, */*;q=0.8"}, "NaN"),
        ({"Accept": "application/problem+json, application/x-json"}, "NaN"),
        ({"Accept": "application/json;q=0"}, "NaN"),
        ({"Accept": "application/json;q=0.0, */*"}, "NaN"),
        ({"Accept": "application/x-ndjson"}, "NaN"),
        ({"Accept": "json"}, "NaN"),
        ({"Accept": ""}, "NaN"),
        ({"Accept": "application/json"}, "null"),
        ({"Accept": "Application/JSON"}, "null"),
        ({"Accept": "application/json;charset=utf-8"}, "null"),
        ({"Accept": "text/plain, application/json;q=0.1, */*"}, "null"),
        ({"Sec-Fetch-Mode": "cors"}, "null"),
        ({"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, "null"),
        ({"Origin": "https://portal.example"}, "null"),
        ({"Origin": "null"}, "null"),
    ],
    ids=str,
)
def test_masked_pixels_are_what_the_caller_reads(
    client: FlaskClient, headers: dict[str, str], expected: str
) -> None:
    for asked in (of("masked") | ARRAY, of("masked", **{"output-format": "array"})):
        answer = get(client, asked, **headers)
        assert spelling(answer) == expected
        assert {str(name) for name in answer.vary} >= CALLER
        posted = client.post(ROUTE, json=asked, headers=headers)
        assert posted.data == answer.data
        said = {"null": "NaN", "NaN": "null"}[expected]
        other = get(client, asked | {"nan": said}, **headers)
        assert spelling(other) == said
        assert not {str(name) for name in other.vary} & CALLER
        assert other.headers["ETag"] != answer.headers["ETag"]


def test_what_worked_in_a_notebook_works(client: FlaskClient) -> None:
    rows = get(client, of("masked") | ARRAY).json[0]
    array = np.array(rows)
    assert array.dtype == np.float64
    assert np.isnan(array).sum() == 4
    assert np.nanmax(array) == np.nanmax(IMAGES["masked"])


@pytest.mark.parametrize("value", ["null", "NULL", "NaN", "nan", " NAN "])
def test_how_it_is_said_matters_neither_in_case_nor_in_method(
    client: FlaskClient, value: str
) -> None:
    asked = of("masked", nan=value) | ARRAY
    expected = "null" if value.lower() == "null" else "NaN"
    for answer in (
        get(client, asked),
        client.post(ROUTE, json=asked),
        client.post(ROUTE, data=asked),
        client.post(ROUTE, query_string=asked),
    ):
        assert spelling(answer) == expected


@pytest.mark.parametrize("value", ["none", "0", "NaN,null", 1, True, 0.5, ["null"], {"a": 1}])
def test_another_word_is_refused(client: FlaskClient, value: object) -> None:
    answer = client.post(ROUTE, json=of("masked") | ARRAY | {"nan": value})
    assert answer.status_code == 400
    assert answer.json["parameter"] == "nan"


def test_infinities_are_pythons_words_or_null(client: FlaskClient) -> None:
    for what in ("infinite", "infinite doubles"):
        rows = get(client, of(what, nan="NaN") | ARRAY).data
        assert rows.startswith(b"[[[ NaN,Infinity,-Infinity, NaN,")
        rows = get(client, of(what, nan="null") | ARRAY).data
        assert rows.startswith(b"[[[null,null,null,null,")


def test_a_missing_stamp_is_null_beside_masked_pixels(client: FlaskClient) -> None:
    asked = {"objectId": OBJECT, "kind": "All", "epochs": "all"}
    for form in (ARRAY, {"output-format": "array"}):
        epochs = get(client, asked | form | {"nan": "NaN"}).json
        (epoch,) = (epoch for epoch in epochs if epoch["candid"] == of("masked")["candid"])
        stamps = epoch.get("stamps") or [epoch[f"b:cutout{kind}_stampData"] for kind in KINDS]
        assert stamps[1] is None
        assert np.isnan(np.array(stamps[0])[0, 0])
        strict = get(client, asked | form | {"nan": "null"})
        assert b"NaN" not in strict.data
        assert json.loads(strict.data)[5].keys() == epoch.keys()


def test_a_copy_in_one_spelling_is_none_of_the_other(client: FlaskClient) -> None:
    asked = of("masked") | ARRAY
    tag = get(client, asked).headers["ETag"]
    again = client.get(ROUTE, query_string=asked, headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert {str(name) for name in again.vary} >= CALLER
    page = get(client, asked, If_None_Match=tag, Origin="https://portal.example")
    assert spelling(page) == "null"


def test_other_answers_depend_on_none_of_it(client: FlaskClient) -> None:
    for form in ("FITS", "PNG", "NPY", "NPZ"):
        asked = of("masked", **{"output-format": form})
        plain = get(client, asked)
        assert "Sec-Fetch-Mode" not in plain.headers.get("Vary", "")
        # A picture tells the request that it answers.
        for more in ({},) if form == "PNG" else ({"nan": "null"}, {"nan": "NaN"}):
            assert get(client, asked | more, Origin="https://a.example").data == plain.data
    explained = get(client, of("float32") | ARRAY | {"explain": "1"})
    assert "Sec-Fetch-Mode" not in explained.headers["Vary"]


@pytest.mark.parametrize(
    ("headers", "more", "expected"),
    [
        ({}, {}, "NaN"),
        ({"Accept": "*/*"}, {}, "NaN"),
        ({"Accept": "application/json"}, {}, "null"),
        ({"Accept": "application/x-ndjson"}, {}, "null"),
        ({"Origin": "https://portal.example"}, {}, "null"),
        ({"Origin": "https://portal.example"}, {"nan": "NaN"}, "NaN"),
        ({}, {"nan": "null"}, "null"),
    ],
    ids=str,
)
def test_a_batch_of_lines_is_as_its_stamps_are(
    client: FlaskClient, headers: dict[str, str], more: dict[str, str], expected: str
) -> None:
    asked = of("masked")
    body = {"candid": [asked["candid"], "5"], "kind": "Science", **more}
    first, second = client.post(BATCH, json=body, headers=headers).data.splitlines()
    single = get(client, asked | {"output-format": "array", "nan": expected})
    assert json.dumps(json.loads(first)["cutouts"]) == json.dumps(single.json)
    assert (b"NaN" in first) == (expected == "NaN")
    assert json.loads(second)["status"] == 404


def test_tables_have_null_whoever_asks(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/objects?objectId={OBJECT}&withcutouts=1&columns=i:candid")
    assert b"null" in answer.data
    assert b"NaN" not in answer.data


@pytest.mark.parametrize("setting", ["null", "NaN"])
def test_a_setting_takes_the_place_of_what_the_caller_reads(folder: Path, setting: str) -> None:
    app = make_app(folder, setting)
    client = app.test_client()
    for headers in ({}, {"Accept": "application/json", "Origin": "https://a.example"}):
        answer = client.get(ROUTE, query_string=of("masked") | ARRAY, headers=headers)
        assert spelling(answer) == setting
        assert "Sec-Fetch-Mode" not in answer.headers["Vary"]
        said = client.get(ROUTE, query_string=of("masked", nan="null") | ARRAY, headers=headers)
        assert spelling(said) == "null"
    app.extensions["cutout_reader"].close()
