"""Tables of alert data: what each answers, held against pyarrow's reading of the same files."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from astropy.io import votable
from flask.testing import FlaskClient

from cutout_api import metrics, tables
from cutout_api.pages import TAIL_BYTES
from cutout_api.settings import Archive, Limits, Settings
from cutout_api.surveys import ZTF
from cutout_api.table_request import TABLE_PARAMETERS
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..epochs_archive import (
    DOCUMENTED_OBJECT,
    DOCUMENTED_SOURCE,
    NEXT_NIGHT,
    OLD_SCHEMA,
    EpochsArchive,
    copy_of,
    epoch,
    make_epochs_archive,
)
from ..samples import image_of, stored_fits, write
from ..service import running_service

FIRST, SECOND, THIRD, FOURTH = "ZTF21aaxtctv", "ZTF21abfmbix", "ZTF21abfaohe", "ZTF24abssjsb"
UNKNOWN = "ZTF99zzzzzzz"
FORMATS = ("json", "csv", "parquet", "votable")


def serve(archive: EpochsArchive, **limits: Any) -> FlaskClient:
    settings = Settings(archive=Archive(uri=f"file://{archive.folder}"), limits=Limits(**limits))
    return create_app(catalogued(settings)).test_client()


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> EpochsArchive:
    return make_epochs_archive(tmp_path_factory.mktemp("epochs"))


@pytest.fixture(scope="module")
def client(epochs: EpochsArchive) -> Iterator[FlaskClient]:
    client = serve(epochs)
    yield client
    client.application.extensions["cutout_reader"].close()


def rows(client: FlaskClient, route: str = "objects", **payload: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/api/v1/{route}", json=payload)
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == "application/json"
    return json.loads(answer.data)


def read(answer: Any, form: str) -> pd.DataFrame:
    content = io.BytesIO(answer.data)
    if form == "json":
        return pd.read_json(content)
    if form == "csv":
        return pd.read_csv(content)
    if form == "parquet":
        return pq.read_table(content).to_pandas()
    return votable.parse(content).get_first_table().to_table(use_names_over_ids=True).to_pandas()


# --- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["*", "i:magpsf,i:candid", "v:lapse,i:candid"])
def test_rows_come_newest_first_whatever_the_columns(
    client: FlaskClient, epochs: EpochsArchive, columns: str
) -> None:
    found = rows(client, objectId=FIRST, columns=columns)
    assert [row["i:candid"] for row in found] == [row["candid"] for row in epochs.alerts(FIRST)]


def test_every_value_is_the_stored_one(client: FlaskClient, epochs: EpochsArchive) -> None:
    found = rows(client, objectId=FIRST)
    for row, alert in zip(found, epochs.alerts(FIRST), strict=True):
        for name, value in alert["candidate"].items():
            if name in ("objectidps1", "exptime"):
                continue
            given = row[f"i:{name}"]
            assert given == value or np.float32(given) == np.float32(value), name
        for name in ("cdsxmatch", "roid", "rf_snia_vs_nonia"):
            assert row[f"d:{name}"] == alert[name]
        assert (row["i:objectId"], row["i:publisher"]) == (FIRST, "Fink")


def test_a_column_that_a_file_lacks_is_null_in_its_rows(
    client: FlaskClient, epochs: EpochsArchive
) -> None:
    found = {row["i:candid"]: row for row in rows(client, objectId=FIRST)}
    for name in ("i:exptime", "d:tracklet", "d:mulens", "d:mulens_class_1", "d:lc_features_g"):
        assert {row[name] for row in found.values()} >= {None}, name
    assert {row["i:exptime"] for row in found.values()} == {30.0, None}
    assert {row["d:mulens_class_1"] for row in found.values()} == {"ML", None}
    assert {row["d:mulens"] for row in found.values()} == {0.0, None}


def test_an_id_never_goes_through_a_float(client: FlaskClient, epochs: EpochsArchive) -> None:
    """One file keeps the id as int64, one as a float, in which it is no id any more."""
    found = rows(client, objectId=FIRST, columns="i:candid,i:objectidps1,i:exptime")
    wide = {row["i:objectidps1"] for row in found}
    assert wide == {None, 111_111_938_000_000_001}
    assert all(row["i:objectidps1"] is None for row in found if row["i:exptime"] == 30.0)


def test_histories_and_stamps_are_no_columns_unasked(client: FlaskClient) -> None:
    for row in rows(client, objectId=FIRST):
        assert not [name for name in row if name.startswith("b:") or "prv_candidates" in name]
        assert "d:tag" not in row


def test_several_objects_answer_together_newest_first(
    client: FlaskClient, epochs: EpochsArchive
) -> None:
    wanted = f"{FIRST},{SECOND}, {THIRD}"
    found = rows(client, objectId=wanted, columns="i:jd,i:objectId")
    assert {row["i:objectId"] for row in found} == {FIRST, SECOND, THIRD}
    times = [row["i:jd"] for row in found]
    assert times == sorted(times, reverse=True)
    assert len(found) == sum(len(epochs.alerts(name)) for name in (FIRST, SECOND, THIRD))
    assert rows(client, objectId=[FIRST, SECOND, THIRD], columns="i:jd,i:objectId") == found


def test_get_and_a_form_answer_as_json_does(client: FlaskClient) -> None:
    payload = {"objectId": FIRST, "columns": "i:jd,d:roid"}
    by_post = client.post("/api/v1/objects", json=payload)
    assert client.get("/api/v1/objects", query_string=payload).data == by_post.data
    assert client.post("/api/v1/objects", data=payload).data == by_post.data
    assert (
        client.head("/api/v1/objects", query_string=payload).headers["ETag"]
        == (by_post.headers["ETag"])
    )


def test_an_alert_that_two_files_repeat_is_one_row(epochs: EpochsArchive, tmp_path: Any) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    (archive.folder / "archive/again.parquet").write_bytes(
        (archive.folder / NEXT_NIGHT).read_bytes()
    )
    found = rows(serve(archive), objectId=FIRST, columns="i:candid")
    assert len(found) == len(epochs.alerts(FIRST))


def test_of_an_alert_that_two_files_have_the_one_written_last_answers(
    epochs: EpochsArchive, tmp_path: Any
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    old = archive.folder / NEXT_NIGHT
    os.utime(old, ns=(0, 10**18))
    kept = [row | {"publisher": "anew"} for row in epochs.rows[NEXT_NIGHT]]
    for name in ("archive/a.parquet", "archive/z.parquet"):
        write(archive.folder / name, kept, pq.read_schema(old))
        found = rows(serve(archive), objectId=FIRST, columns="i:candid,i:publisher")
        candids = {row["candid"] for row in kept}
        given = {row["i:publisher"] for row in found if row["i:candid"] in candids}
        assert given == {"anew"}
        (archive.folder / name).unlink()


# --- columns -----------------------------------------------------------------------------------


def test_columns_come_in_the_order_asked_and_unknown_ones_are_named(client: FlaskClient) -> None:
    answer = client.post(
        "/api/v1/objects",
        json={"objectId": FIRST, "columns": "d:roid, i:nothing,i:jd,x:y\nz, v:lapse"},
    )
    assert list(json.loads(answer.data)[0]) == ["d:roid", "i:jd", "v:lapse"]
    assert answer.headers["X-Unknown-Columns"] == "i:nothing,x:y%0Az"


def test_columns_that_all_do_not_exist_are_an_error_that_suggests_one(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&columns=i:magpsv")
    assert answer.status_code == 400
    assert "i:magpsf" in answer.json["detail"]


def test_only_the_columns_asked_for_are_read(tmp_path: Any) -> None:
    archive = EpochsArchive(tmp_path)
    kept = [epoch(n, FIRST, publisher=random.randbytes(2_500).hex()) for n in range(100)]
    archive.write("large.parquet", kept, OLD_SCHEMA, row_group_size=100)
    client = serve(archive)

    def bytes_read(**payload: Any) -> float:
        before = metrics.BYTES_READ._value.get()
        assert len(rows(client, objectId=FIRST, **payload)) == 100
        return metrics.BYTES_READ._value.get() - before

    few = bytes_read(columns="i:jd,d:roid") - TAIL_BYTES
    more = bytes_read(columns="i:jd,d:roid,i:publisher") - TAIL_BYTES
    assert few < 10_000
    assert more > few + 200_000
    assert bytes_read() < (tmp_path / "large.parquet").stat().st_size / 3


# --- derived -----------------------------------------------------------------------------------


def test_dates_lapse_and_constellation_are_worked_out(client: FlaskClient) -> None:
    row = rows(client, objectId=FOURTH)[0]
    assert row["v:lastdate"] == "2021-05-26 03:00:00.000"
    assert row["v:firstdate"] == "2021-04-26 03:00:00.000"
    assert row["v:lapse"] == pytest.approx(30)
    assert row["v:constellation"] == "Virgo"
    assert row["v:classification"] == "SN candidate"


def test_the_classification_follows_the_rules(client: FlaskClient) -> None:
    found = {row["i:candid"]: row for row in rows(client, objectId=f"{FIRST},{SECOND}")}
    classes = {row["v:classification"] for row in found.values()}
    assert {"SN candidate", "Tracklet", "QSO", "Solar System MPC", "Ambiguous"} <= classes


def test_a_derived_column_alone_reads_what_it_needs(client: FlaskClient) -> None:
    found = rows(client, objectId=FOURTH, columns="v:classification")
    assert found == [{"v:classification": "SN candidate"}]


# --- history -----------------------------------------------------------------------------------


def test_the_history_is_told_apart_by_a_tag(client: FlaskClient, epochs: EpochsArchive) -> None:
    found = rows(client, objectId=FIRST, withupperlim="True")
    tags = [row["d:tag"] for row in found]
    alerts = len(epochs.alerts(FIRST))
    assert tags.count("upperlim") == 2
    assert tags.count("badquality") == 4
    assert tags.count("valid") == alerts + 2
    assert all((row["i:magpsf"] is None) == (row["d:tag"] == "upperlim") for row in found)
    times = [row["i:jd"] for row in found]
    assert times == sorted(times, reverse=True)
    assert {row["i:objectId"] for row in found} == {FIRST}


def test_a_measurement_that_is_an_alert_is_not_repeated(client: FlaskClient) -> None:
    found = rows(client, objectId=FIRST, withupperlim=True, columns="i:jd,i:fid,i:candid")
    assert all("d:tag" in row for row in found)
    seen = [(round(row["i:jd"], 5), row["i:fid"]) for row in found]
    assert len(seen) == len(set(seen))


def test_pandas_reads_every_candid_exactly_beside_upper_limits(
    client: FlaskClient, epochs: EpochsArchive
) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&withupperlim=1")
    frame = read(answer, "json")
    assert frame["i:candid"].dtype == np.int64
    assert {row["candid"] for row in epochs.alerts(FIRST)} <= set(frame["i:candid"].tolist())
    assert -1 in frame["i:candid"].tolist()


def test_lsst_has_no_history_to_ask_for(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/objects?diaObjectId={DOCUMENTED_OBJECT}&withupperlim=True")
    assert (answer.status_code, answer.json["code"]) == (400, "conflicting_parameters")


# --- stamps ------------------------------------------------------------------------------------


def test_stamps_are_the_stored_pixels(client: FlaskClient, epochs: EpochsArchive) -> None:
    found = rows(client, objectId=FIRST, withcutouts=True)
    for row, alert in zip(found, epochs.alerts(FIRST), strict=True):
        for kind in ("Science", "Template", "Difference"):
            pixels = np.array(row[f"b:cutout{kind}_stampData"], np.float32)
            np.testing.assert_array_equal(pixels, image_of(stored_fits(alert, kind)))


def test_one_kind_is_answered_alone(client: FlaskClient) -> None:
    found = rows(
        client, objectId=FIRST, withcutouts="true", columns="i:jd", **{"cutout-kind": "template"}
    )
    assert {tuple(row) for row in found} == {("i:jd", "b:cutoutTemplate_stampData")}


def test_rows_of_the_history_have_no_stamps(client: FlaskClient) -> None:
    for row in rows(client, objectId=FIRST, withcutouts=True, withupperlim=True):
        has_alert = row["d:tag"] == "valid" and row["v:lastdate"] is not None
        assert (row["b:cutoutScience_stampData"] is not None) == has_alert


def test_lsst_stamps_are_named_as_they_are_there(
    client: FlaskClient, epochs: EpochsArchive
) -> None:
    found = rows(client, "sources", diaObjectId=str(DOCUMENTED_OBJECT), withcutouts=True)
    stored = image_of(stored_fits(epochs.sources(DOCUMENTED_OBJECT)[0], "Science"))
    np.testing.assert_array_equal(np.array(found[0]["b:cutoutScience"], np.float32), stored)


def test_parquet_holds_stamps_as_lists(client: FlaskClient, epochs: EpochsArchive) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&withcutouts=True&output-format=parquet")
    table = pq.read_table(io.BytesIO(answer.data))
    kept = table["b:cutoutDifference_stampData"]
    assert kept.type == pa.list_(pa.list_(pa.float32()))
    for value, alert in zip(kept.to_pylist(), epochs.alerts(FIRST), strict=True):
        stored = image_of(stored_fits(alert, "Difference"))
        np.testing.assert_array_equal(np.array(value, np.float32), stored)


@pytest.mark.parametrize("form", ["csv", "votable"])
def test_a_format_that_cannot_hold_stamps_says_which_can(client: FlaskClient, form: str) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&withcutouts=1&output-format={form}")
    assert answer.status_code == 400
    assert "json or parquet" in answer.json["detail"]


def test_stamps_of_one_page_read_it_once(epochs: EpochsArchive) -> None:
    client = serve(epochs)
    rows(client, objectId=FIRST, withcutouts=True)
    before = metrics.READS._value.get()
    rows(client, objectId=FIRST, columns="i:jd")
    plain = metrics.READS._value.get() - before
    rows(client, objectId=FIRST, columns="i:jd", withcutouts=True)
    stamps = metrics.READS._value.get() - before - 2 * plain
    # Three files, three kinds, and in each as many pages as row groups of four rows have.
    groups = sum(
        pq.read_metadata(epochs.folder / name).num_row_groups
        for name, kept in epochs.rows.items()
        if any(row.get("objectId") == FIRST for row in kept)
    )
    with_dictionary = 2
    assert stamps <= 3 * groups * with_dictionary
    assert stamps < 3 * len(epochs.alerts(FIRST))


def test_a_stamp_that_cannot_be_used_is_null_and_the_rest_answers(
    epochs: EpochsArchive, tmp_path: Any
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    kept = [dict(row) for row in archive.rows[NEXT_NIGHT]]
    kept[1]["cutoutScience"] = {"fileName": "x", "stampData": b"\x1f\x8b no gzip"}
    kept[2]["cutoutScience"] = None
    schema = pq.read_schema(archive.folder / NEXT_NIGHT)
    write(archive.folder / NEXT_NIGHT, kept, schema)
    found = {row["i:candid"]: row for row in rows(serve(archive), objectId=FIRST, withcutouts=True)}
    lost = [candid for candid, row in found.items() if row["b:cutoutScience_stampData"] is None]
    assert sorted(lost) == sorted(row["candid"] for row in kept[1:3])
    assert all(row["b:cutoutTemplate_stampData"] for row in found.values())


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_stamps_may_be_all_that_is_asked_for(
    client: FlaskClient, epochs: EpochsArchive, form: str
) -> None:
    name = "b:cutoutScience_stampData"
    query = {"objectId": FIRST, "columns": name, "withcutouts": 1, "cutout-kind": "Science"}
    answer = client.post("/api/v1/objects", json=query | {"output-format": form})
    frame = read(answer, form)
    assert list(frame.columns) == [name]
    assert len(frame) == len(epochs.alerts(FIRST))


# --- LSST --------------------------------------------------------------------------------------


def test_sources_are_those_of_the_object(client: FlaskClient, epochs: EpochsArchive) -> None:
    found = rows(client, "sources", diaObjectId=str(DOCUMENTED_OBJECT))
    stored = epochs.sources(DOCUMENTED_OBJECT)
    assert [row["r:diaSourceId"] for row in found] == [row["diaSourceId"] for row in stored]
    assert found[0]["r:diaSourceId"] == DOCUMENTED_SOURCE
    assert found[0]["f:cdsxmatch"] == "Unknown"
    assert [row["r:snr"] for row in found] == [7.5, None, None, None]
    assert not [name for name in found[0] if name.startswith("r:diaObject_")]


def test_a_time_picks_one_source(client: FlaskClient, epochs: EpochsArchive) -> None:
    time = epochs.sources(DOCUMENTED_OBJECT)[1]["diaSource"]["midpointMjdTai"]
    found = rows(client, "sources", diaObjectId=DOCUMENTED_OBJECT, midpointMjdTai=time)
    assert [row["r:midpointMjdTai"] for row in found] == [time]
    assert rows(client, "sources", diaObjectId=DOCUMENTED_OBJECT, midpointMjdTai=time + 0.1) == []


def test_the_summary_of_an_object_is_that_of_its_latest_alert(
    client: FlaskClient, epochs: EpochsArchive
) -> None:
    found = rows(client, diaObjectId=f"{DOCUMENTED_OBJECT},{DOCUMENTED_OBJECT + 1}")
    assert {row["r:diaObjectId"] for row in found} == {DOCUMENTED_OBJECT, DOCUMENTED_OBJECT + 1}
    latest = epochs.sources(DOCUMENTED_OBJECT)[0]
    mean = {row["r:diaObjectId"]: row["r:g_psfFluxMean"] for row in found}[DOCUMENTED_OBJECT]
    assert mean == latest["diaObject"]["g_psfFluxMean"]


# --- formats -----------------------------------------------------------------------------------

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "votable": "application/x-votable+xml",
}


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_holds_the_same_rows_and_exact_ids(
    client: FlaskClient, epochs: EpochsArchive, form: str
) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&output-format={form}")
    assert answer.mimetype == MEDIA_TYPES[form]
    frame = read(answer, form)
    assert frame["i:candid"].tolist() == [row["candid"] for row in epochs.alerts(FIRST)]
    stored = [row["candidate"]["jd"] for row in epochs.alerts(FIRST)]
    assert frame["i:jd"].tolist() == stored
    assert list(frame.columns) == list(rows(client, objectId=FIRST)[0])
    if form != "json":
        assert FIRST in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("columns", ["*", "i:jd,i:candid"])
def test_an_unknown_object_is_a_table_without_rows(
    client: FlaskClient, form: str, columns: str
) -> None:
    answer = client.get(
        f"/api/v1/objects?objectId={UNKNOWN}&output-format={form}&columns={columns}"
    )
    assert (answer.status_code, answer.mimetype) == (200, MEDIA_TYPES[form])
    frame = read(answer, form)
    assert len(frame) == 0
    if form == "json":
        assert answer.data == b"[]"
    elif columns != "*":
        assert list(frame.columns) == ["i:jd", "i:candid"]


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_without_the_survey_gives_a_table_with_a_head(tmp_path: Any, form: str) -> None:
    settings = Settings(archive=Archive(uri=f"file://{tmp_path}"))
    client = create_app(settings).test_client()
    for query, names in (
        (f"objectId={UNKNOWN}", ["i:objectId", "i:candid", "i:jd"]),
        (f"objectId={UNKNOWN}&columns=i:jd,i:magpsf", ["i:jd", "i:magpsf"]),
        ("diaObjectId=7", ["r:diaObjectId"]),
    ):
        answer = client.get(f"/api/v1/objects?{query}&output-format={form}")
        assert answer.status_code == 200
        frame = read(answer, form)
        assert len(frame) == 0
        assert form == "json" or list(frame.columns) == names


def test_the_tag_is_a_column_only_beside_a_history(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&columns=i:jd,d:tag")
    assert list(answer.json[0]) == ["i:jd"]
    assert answer.headers["X-Unknown-Columns"] == "d:tag"


def test_nan_and_what_is_not_there_are_null_in_every_format(client: FlaskClient) -> None:
    payload = {"objectId": SECOND, "columns": "i:candid,d:lc_features_g_skew,d:lc_features_g_mean"}
    found = rows(client, **payload)
    assert {row["d:lc_features_g_skew"] for row in found} == {None}
    assert {row["d:lc_features_g_mean"] for row in found} == {None, 18.5}
    for form in FORMATS[1:]:
        answer = client.post("/api/v1/objects", json=payload | {"output-format": form})
        assert b"nan" not in answer.data.lower() or form == "parquet"
        skews = read(answer, form)["d:lc_features_g_skew"]
        assert skews.isna().all()


def test_a_float_of_32_bits_is_the_shortest_decimal(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&columns=i:sigmapsf")
    assert b"0.1}" in answer.data


def test_a_votable_says_units_and_what_columns_are(client: FlaskClient) -> None:
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&output-format=votable")
    table = votable.parse(io.BytesIO(answer.data)).get_first_table()
    field = table.get_field_by_id_or_name("i:magpsf")
    assert (str(field.unit), field.datatype) == ("mag", "double")
    assert "Magnitude" in field.description
    assert table.get_field_by_id_or_name("i:candid").datatype == "long"


@pytest.mark.parametrize(
    "asked", [f"objects?objectId={FIRST}", f"sources?diaObjectId={DOCUMENTED_OBJECT}"]
)
def test_a_votable_is_read_without_a_warning(client: FlaskClient, asked: str) -> None:
    answer = client.get(f"/api/v1/{asked}&output-format=votable")
    assert answer.status_code == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = votable.parse(io.BytesIO(answer.data), verify="exception").get_first_table()
    by_id = table.to_table().colnames
    by_name = table.to_table(use_names_over_ids=True).colnames
    assert len(set(by_id)) == len(by_name)
    assert by_id == [re.sub("[:()]", "_", name) for name in by_name]


def test_text_that_no_xml_may_hold_does_not_break_a_votable(
    epochs: EpochsArchive, tmp_path: Any
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    kept = [row | {"cdsxmatch": "a<b>&\x01\u00e9\"'"} for row in archive.rows[NEXT_NIGHT]]
    write(archive.folder / NEXT_NIGHT, kept, pq.read_schema(archive.folder / NEXT_NIGHT))
    answer = serve(archive).get(f"/api/v1/objects?objectId={FIRST}&output-format=votable")
    found = votable.parse(io.BytesIO(answer.data)).get_first_table()
    table = found.to_table(use_names_over_ids=True)
    assert table["d:cdsxmatch"][0] == "a<b>&\ufffd\u00e9\"'"


STRANGE = {
    "half": pa.array([0.5, None, float("nan")], pa.float16()),
    "money": pa.array(["1.25", None, "3.00"]).cast(pa.decimal128(9, 2)),
    "day": pa.array([1, None, 3], pa.date32()),
    "moment": pa.array([1, None, 3], pa.timestamp("us", "UTC")),
    "clock": pa.array([1, None, 3], pa.time64("us")),
    "span": pa.array([1, None, 3], pa.duration("us")),
    "word": pa.array(["a", None, 'b,"c"\n']).dictionary_encode(),
    "large": pa.array(["a", None, "c"], pa.large_string()),
    "unsigned": pa.array([2**64 - 1, None, 3], pa.uint64()),
    "tiny": pa.array([-1, None, 3], pa.int8()),
    "nothing": pa.nulls(3),
    "raw": pa.array([b"\xff", None, b"c"]),
    "list": pa.array([[1], None, [3]]),
    "deep": pa.array([{"x": {"y": 1}}, None, {"x": None}]),
    "i:odd name.": pa.array([1, None, 3]),
}


@pytest.mark.parametrize("form", FORMATS)
def test_columns_of_any_type_are_answered(epochs: EpochsArchive, tmp_path: Any, form: str) -> None:
    """A broker may add what it likes; and in another file of the object it may be missing."""
    kept = pa.Table.from_pylist(epochs.rows[NEXT_NIGHT][:3], OLD_SCHEMA)
    for name, values in STRANGE.items():
        kept = kept.append_column(name, values)
    pq.write_table(kept, tmp_path / "strange.parquet", row_group_size=2)
    plain = pa.Table.from_pylist(epochs.rows[NEXT_NIGHT][3:], OLD_SCHEMA)
    pq.write_table(plain.append_column("half", pa.array(["x"])), tmp_path / "plain.parquet")
    client = serve(EpochsArchive(tmp_path))
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&output-format={form}")
    assert answer.status_code == 200, answer.text
    frame = read(answer, form)
    assert len(frame) == 4
    named = {f"d:{name}" for name in STRANGE} - {"d:raw", "d:list", "d:deep"} | {"d:deep_x_y"}
    assert set(frame.columns) >= {name.replace(".", "_") for name in named}
    if form == "csv":
        assert str(2**64 - 1) in answer.text


# --- sending -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "csv", "parquet", "votable"])
def test_a_large_answer_is_sent_as_it_is_made(
    epochs: EpochsArchive, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    client = serve(epochs)
    address = f"/api/v1/objects?objectId={FIRST}&output-format={form}"
    whole = client.get(address)
    monkeypatch.setattr("cutout_api.tables.CHUNK_ROWS", 4)
    parts = client.get(address)
    assert whole.headers["ETag"]
    assert parts.is_streamed
    assert "ETag" not in parts.headers
    pd.testing.assert_frame_equal(read(parts, form), read(whole, form))


def test_stamps_are_read_as_they_are_sent(
    epochs: EpochsArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(epochs)
    whole = rows(client, objectId=FIRST, withcutouts=True)
    monkeypatch.setattr("cutout_api.tables.CHUNK_STAMPS", 9)
    before = metrics.READS._value.get()
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&withcutouts=True", buffered=False)
    parts = iter(answer.response)
    first = next(parts)
    begun = metrics.READS._value.get() - before
    assert json.loads(first + b"".join(parts)) == whole
    assert metrics.READS._value.get() - before > begun


def test_stamps_that_follow_wait_longer_for_their_turn_than_a_request_does(
    epochs: EpochsArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(epochs, concurrent_reads=1, queue_seconds=2)
    monkeypatch.setattr("cutout_api.tables.CHUNK_STAMPS", 9)
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&withcutouts=True", buffered=False)
    parts = iter(answer.response)
    first = next(parts)
    places = client.application.extensions["cutout_reader"]._slots
    assert places.acquire(timeout=20)  # somebody else reads
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: b"".join(parts))
        try:
            wait([rest], timeout=2.5)
        finally:
            places.release()
        assert json.loads(first + rest.result()) == rows(client, objectId=FIRST, withcutouts=True)


def test_an_answer_that_has_not_changed_is_not_sent_again(client: FlaskClient) -> None:
    address = f"/api/v1/objects?objectId={FIRST}"
    tag = client.get(address).headers["ETag"]
    again = client.get(address, headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")


# --- files that change -------------------------------------------------------------------------


def test_rows_of_a_file_written_anew_are_found_again(epochs: EpochsArchive, tmp_path: Any) -> None:
    """The catalogue still has the old file and the old rows."""
    archive = copy_of(epochs, tmp_path / "archive")
    client = serve(archive)
    before = rows(client, objectId=FIRST, withcutouts=True)
    path = archive.folder / NEXT_NIGHT
    schema = pq.read_schema(path)
    write(path, archive.rows[NEXT_NIGHT][::-1], schema, row_group_size=3)
    assert rows(client, objectId=FIRST, withcutouts=True) == before


def test_what_a_rewritten_file_was_catalogued_for_is_still_answered(
    epochs: EpochsArchive, tmp_path: Any
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    client = serve(archive)
    reader = client.application.extensions["cutout_reader"]
    path = Path(reader.catalog.latest_file(ZTF).path)
    asked = [
        f"/api/v1/objects?objectId={UNKNOWN}&columns=i:jd&output-format=csv",
        "/api/v1/columns",
        "/api/v1/schema",
    ]
    before = [client.get(address).data for address in asked]
    assert "ztf" in client.get("/api/v1/schema").json
    write(path, archive.rows[str(path.relative_to(archive.folder))], pq.read_schema(path))
    assert [client.get(address).data for address in asked] == before
    path.unlink()  # what it held is not known any more, what others hold is
    assert "ztf" not in client.get("/api/v1/schema").json
    assert client.get(asked[0]).status_code == 200


def test_a_file_written_anew_is_found_again_below_a_symbolic_link(
    epochs: EpochsArchive, tmp_path: Any
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    (tmp_path / "link").symlink_to(archive.folder)
    client = serve(replace(archive, folder=tmp_path / "link"))
    before = rows(client, objectId=FIRST)
    path = archive.folder / NEXT_NIGHT
    write(path, archive.rows[NEXT_NIGHT][::-1], pq.read_schema(path), row_group_size=3)
    assert rows(client, objectId=FIRST) == before


def test_a_file_rewritten_in_place_while_it_is_read_is_read_again(
    epochs: EpochsArchive, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    client = serve(archive)
    path = archive.folder / NEXT_NIGHT
    schema = pq.read_schema(path)
    kept = [row | {"publisher": "anew"} for row in archive.rows[NEXT_NIGHT]]
    write(tmp_path / "anew.parquet", kept, schema)
    original = tables.read_rows

    def read_then_rewrite(footer: Any, *more: Any) -> Any:
        found = original(footer, *more)
        if footer.window.id.path == str(path):
            path.write_bytes((tmp_path / "anew.parquet").read_bytes())
            monkeypatch.setattr(tables, "read_rows", original)
        return found

    monkeypatch.setattr(tables, "read_rows", read_then_rewrite)
    found = rows(client, objectId=FIRST, columns="i:publisher")
    assert [row["i:publisher"] for row in found].count("anew") == len(kept)


def test_rows_that_hold_other_alerts_than_the_catalogue_says_are_found_again(
    epochs: EpochsArchive, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    settings = Settings(archive=Archive(uri=f"file://{archive.folder}"))
    client = create_app(catalogued(settings)).test_client()
    catalog = client.application.extensions["cutout_reader"].catalog
    right = catalog.alerts_of
    before = rows(client, objectId=FIRST)

    def wrong(survey: Any, ids: Any) -> Any:
        return [replace(entry, row=entry.row + 1) for entry in right(survey, ids)]

    monkeypatch.setattr(catalog, "alerts_of", wrong)
    assert rows(client, objectId=FIRST) == before


def test_a_file_that_is_gone_or_lost_its_alerts_is_an_honest_503(
    epochs: EpochsArchive, tmp_path: Any
) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    client = serve(archive)
    path = archive.folder / NEXT_NIGHT
    schema = pq.read_schema(path)
    write(path, archive.rows[NEXT_NIGHT][:1], schema)
    answer = client.get(f"/api/v1/objects?objectId={FIRST}")
    assert (answer.status_code, answer.json["code"]) == (503, "storage_unavailable")
    path.unlink()
    answer = client.get(f"/api/v1/objects?objectId={FIRST}")
    assert answer.status_code == 503
    assert rows(client, objectId=THIRD)


def test_a_damaged_file_is_said_to_be_damaged(epochs: EpochsArchive, tmp_path: Any) -> None:
    archive = copy_of(epochs, tmp_path / "archive")
    path = archive.folder / NEXT_NIGHT
    content = bytearray(path.read_bytes())
    client = serve(archive)
    place = pq.read_metadata(path).row_group(0).column(0).dictionary_page_offset or 4
    content[place : place + 60] = bytes(60)
    path.write_bytes(content)
    answer = client.get(f"/api/v1/objects?objectId={FIRST}")
    assert answer.status_code in (502, 503), answer.text
    assert "Traceback" not in answer.text


# --- refusals ----------------------------------------------------------------------------------

BAD = [
    ("objects", {}, "missing_parameter", "objectId"),
    ("objects", {"columns": "i:jd"}, "missing_parameter", "objectId"),
    ("objects", {"objectId": ""}, "missing_parameter", "objectId"),
    ("objects", {"objectId": ","}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": []}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": [FIRST, 7.5]}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": [FIRST, [SECOND]]}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": [FIRST, {"a": 1}]}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": [FIRST, None]}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": True}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": "x" * 201}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": {"a": 1}}, "invalid_parameter", "objectId"),
    ("objects", {"objectId": FIRST, "diaObjectId": "1"}, "conflicting_parameters", "diaObjectId"),
    ("objects", {"objectId": FIRST, "withcutouts": "yes"}, "invalid_parameter", "withcutouts"),
    ("objects", {"objectId": FIRST, "withcutouts": 2}, "invalid_parameter", "withcutouts"),
    ("objects", {"objectId": FIRST, "cutout-kind": "Sciense"}, "invalid_parameter", "cutout-kind"),
    ("objects", {"objectId": FIRST, "output-format": "xml"}, "invalid_parameter", "output-format"),
    ("objects", {"objectId": FIRST, "columns": ["i:jd", 7]}, "invalid_parameter", "columns"),
    ("objects", {"objectId": FIRST, "columns": "i:" + "x" * 300}, "invalid_parameter", "columns"),
    ("objects", {"objectId": FIRST, "columns": " , "}, "invalid_parameter", "columns"),
    ("objects", {"objectId": FIRST, "colums": "i:jd"}, "unknown_parameter", "colums"),
    ("sources", {"diaObjectId": 1.5}, "invalid_parameter", "diaObjectId"),
    ("sources", {"diaObjectId": "1", "objectId": "1"}, "conflicting_parameters", "objectId"),
    ("sources", {"diaObjectId": 1, "midpointMjdTai": "now"}, "invalid_parameter", "midpointMjdTai"),
    ("sources", {"diaObjectId": 1, "midpointMjdTai": "nan"}, "invalid_parameter", "midpointMjdTai"),
    ("sources", {"diaObjectId": 1, "midpointMjdTai": "6_0"}, "invalid_parameter", "midpointMjdTai"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "payload", "code", "parameter"), BAD)
def test_what_cannot_be_understood_is_refused_in_words(
    client: FlaskClient, route: str, payload: dict[str, Any], code: str, parameter: str
) -> None:
    answer = client.post(f"/api/v1/{route}", json=payload)
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert (answer.json["code"], answer.json["parameter"]) == (code, parameter)


def test_too_many_ids_and_too_many_rows_are_refused(epochs: EpochsArchive) -> None:
    client = serve(epochs, table_ids=2, table_rows=5)
    answer = client.post("/api/v1/objects", json={"objectId": [FIRST, SECOND, THIRD]})
    assert answer.json["code"] == "invalid_parameter"
    answer = client.post("/api/v1/objects", json={"objectId": FIRST})
    assert (answer.status_code, answer.json["code"]) == (400, "too_many_rows")
    assert "5" in answer.json["detail"]
    assert len(rows(client, objectId=THIRD)) == 1


def test_alerts_whose_histories_are_asked_for_count_for_more(epochs: EpochsArchive) -> None:
    client = serve(epochs, table_rows=50)
    assert client.get(f"/api/v1/objects?objectId={FIRST}").status_code == 200
    answer = client.get(f"/api/v1/objects?objectId={FIRST}&withupperlim=1")
    assert (answer.status_code, answer.json["code"]) == (400, "too_many_rows")


@pytest.mark.parametrize("word", ["True", "true", "1", True, 1, "TRUE"])
def test_truth_is_understood_however_it_is_spelled(client: FlaskClient, word: Any) -> None:
    found = rows(client, objectId=THIRD, withcutouts=word, columns="i:jd")
    assert "b:cutoutScience_stampData" in found[0]


@pytest.mark.parametrize("word", ["False", "false", "0", False, 0, None, ""])
def test_so_is_its_contrary(client: FlaskClient, word: Any) -> None:
    assert list(rows(client, objectId=THIRD, withcutouts=word, columns="i:jd")[0]) == ["i:jd"]


@pytest.mark.parametrize("route", TABLE_PARAMETERS)
def test_a_table_without_arguments_describes_itself(client: FlaskClient, route: str) -> None:
    args = client.get(f"/api/v1/{route}").json["args"]
    assert [arg["name"] for arg in args] == list(TABLE_PARAMETERS[route])


# --- what there is -----------------------------------------------------------------------------


def test_every_column_that_a_table_answers_is_described(client: FlaskClient) -> None:
    entries = client.get("/api/v1/columns?survey=ztf").json["columns"]
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["i:magpsf"]["unit"] == "mag"
    assert by_name["i:candid"]["type"] == "long"
    assert by_name["b:cutoutScience_stampData"]["type"] == "array"
    assert by_name["v:constellation"]["description"]
    undescribed = [name for name, entry in by_name.items() if not entry["description"]]
    assert undescribed == []


def test_the_schema_has_every_survey_and_table(client: FlaskClient) -> None:
    schema = client.get("/api/v1/schema").json
    assert {survey: set(schema[survey]) for survey in ("ztf", "lsst")} == {
        "ztf": {"objects"},
        "lsst": {"objects", "sources"},
    }
    assert schema["lsst"]["sources"]["r:psfFlux"] == {
        "type": "float",
        "unit": "nJy",
        "description": "Flux of a point source in the difference image",
    }
    assert set(client.get("/api/v1/schema?survey=LSST").json) == {"lsst"}
    assert client.get("/api/v1/schema?survey=gaia").status_code == 400


# --- real alerts -------------------------------------------------------------------------------

REAL = ["ztf_spark_1.10", "ztf_pyarrow_dict", "ztf_spark_1.12_offsetindex", "ztf_raw_stream"]


@pytest.fixture(scope="module")
def real(real_data: Any) -> FlaskClient:
    settings = Settings(archive=Archive(uri=f"file://{real_data}"))
    return create_app(catalogued(settings)).test_client()


@pytest.mark.parametrize("name", REAL)
def test_real_ztf_alerts_answer_as_pyarrow_reads_them(
    real: FlaskClient, real_data: Any, name: str
) -> None:
    table = pq.read_table(real_data / f"{name}.parquet")
    names = table["objectId"].to_pylist()
    single = [i for i, object_id in enumerate(names) if names.count(object_id) == 1][:3]
    for row in single:
        alert = (
            table.slice(row, 1)
            .drop_columns(
                [c for c in table.column_names if c.startswith("cutout") or c == "prv_candidates"]
            )
            .to_pylist()[0]
        )
        (found,) = rows(real, objectId=names[row])
        assert found["i:candid"] == alert["candid"]
        for field, value in alert["candidate"].items():
            given = found[f"i:{field}"]
            if value is None or (isinstance(value, float) and math.isnan(value)):
                assert given is None, field
            elif isinstance(value, float):
                assert given == value or np.float32(given) == np.float32(value), field
            else:
                assert given == value, field


def test_real_lsst_sources_answer_as_pyarrow_reads_them(real: FlaskClient, real_data: Any) -> None:
    table = pq.read_table(real_data / "lsst_spark_1.12_offsetindex.parquet", columns=["diaSource"])
    for alert in table["diaSource"].to_pylist()[:5]:
        if not alert["diaObjectId"]:
            continue
        (found,) = rows(real, "sources", diaObjectId=alert["diaObjectId"])
        for field, value in alert.items():
            given = found[f"r:{field}"]
            if isinstance(value, float):
                assert (
                    (given is None and not math.isfinite(value))
                    or given == value
                    or (np.float32(given) == np.float32(value))
                ), field
            else:
                assert given == value, field


def test_the_keys_of_a_map_are_columns(real: FlaskClient, real_data: Any) -> None:
    """Older files of the broker keep as a map what later ones keep as a struct."""
    table = pq.read_table(real_data / "ztf_spark_1.12_offsetindex.parquet")
    alert = table.slice(0, 1).drop_columns(["prv_candidates"]).to_pylist()[0]
    (whole,) = rows(real, objectId=alert["objectId"])
    for key, value in alert["t2"]:
        assert np.float32(whole[f"d:t2_{key}"]) == np.float32(value)
    query = {"objectId": alert["objectId"], "columns": "d:mangrove_2MASS_name,d:mangrove_x"}
    answer = real.post("/api/v1/objects", json=query)
    expected = {"d:mangrove_2MASS_name": dict(alert["mangrove"])["2MASS_name"]}
    assert answer.json == [expected]
    assert answer.headers["X-Unknown-Columns"] == "d:mangrove_x"


# --- many and large rows


def test_half_a_surrogate_is_an_unknown_column_that_is_named_escaped(client: FlaskClient) -> None:
    columns = ["i:jd", "\ud800", "x\r\nX-Evil: 1", "\0", *(f"x{n}" for n in range(3000))]
    answer = client.post("/api/v1/objects", json={"objectId": FIRST, "columns": columns})
    assert (answer.status_code, list(answer.json[0])) == (200, ["i:jd"])
    assert answer.headers["X-Unknown-Columns"].startswith("%EF%BF%BD,x%0D%0AX-Evil:%201,%00,x0,")
    assert len(answer.headers["X-Unknown-Columns"]) <= 2010


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_large_stamps_are_sent_in_smaller_parts_of_the_same_table(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    payload = {"objectId": FIRST, "withcutouts": True, "output-format": form}
    whole = client.post("/api/v1/objects", json=payload)
    assert "ETag" in whole.headers
    monkeypatch.setattr(tables, "CHUNK_BYTES", 150_000)  # a stamp has 20,160
    parted = client.post("/api/v1/objects", json=payload)
    assert "ETag" not in parted.headers
    if form == "json":
        assert parted.json == whole.json
    else:
        one, many = (pq.ParquetFile(io.BytesIO(answer.data)) for answer in (whole, parted))
        assert (one.num_row_groups, many.num_row_groups > 3) == (1, True)
        assert one.read().equals(many.read())


def test_long_tables_have_places_of_their_own(tmp_path: Path) -> None:
    rows = [epoch(n, FIRST, mulens=None) for n in range(400)] + [epoch(500, SECOND, mulens=None)]
    write(tmp_path / "archive/a.parquet", rows, OLD_SCHEMA)
    settings = catalogued(Settings(archive=Archive(uri=str(tmp_path / "archive"))))
    environment = {
        "CUTOUT_API_ARCHIVE_URI": settings.archive.uri,
        "CUTOUT_API_CATALOG_URL": settings.catalog.url,
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_SERVER_THREADS": "4",  # so that one table is sent at a time, and none waits
        "CUTOUT_API_LIMITS_CLIENT_SECONDS": "60",
    }
    with running_service(environment) as service:
        address = f"{service.address}/api/v1/objects"
        long = {"objectId": FIRST, "withcutouts": "True"}
        with ExitStack() as slow:
            first = slow.enter_context(requests.get(address, long, stream=True, timeout=60))
            assert first.status_code == 200
            pieces = first.iter_content(200)
            assert next(pieces) == b"["  # the rest waits, for whoever has the iterator
            for _ in range(6):  # more than there are threads
                busy = slow.enter_context(requests.get(address, long, stream=True, timeout=60))
                assert (busy.status_code, busy.json()["code"]) == (503, "saturated")
                assert busy.headers["Retry-After"] == "1"
            assert requests.get(f"{service.address}/healthz", timeout=20).ok
            short = requests.get(address, {"objectId": SECOND, "withcutouts": "True"}, timeout=20)
            assert len(short.json()) == 1
        end = time.monotonic() + 60
        while (again := requests.get(address, long, timeout=60)).status_code == 503:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert [row["i:candid"] for row in again.json()] == [
            row["candid"] for row in sorted(rows[:400], key=lambda row: -row["candidate"]["jd"])
        ]
        # One that was read to its end gives its place back too, and so does one that asks by HEAD.
        for _ in range(3):
            assert requests.head(address, params=long, timeout=60).ok
        assert requests.get(address, long, timeout=60).ok
