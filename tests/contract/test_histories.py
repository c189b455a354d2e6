"""What alerts repeat of the past of their objects: detections, limits, forced photometry."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from flask.testing import FlaskClient

from cutout_api.settings import Archive, Limits, Settings
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..histories import (
    BARE,
    EARLIER,
    FIRST,
    FORCED,
    LSST_SCHEMA,
    OBJECT,
    SECOND,
    TIMELESS,
    ZTF_ALERT,
    ZTF_OBJECT,
    alert,
    forced,
    make_histories,
    source,
)
from ..samples import REAL_DATA, write

REAL = REAL_DATA / "lsst_spark_1.12_offsetindex.parquet"
ID, FORCED_ID, TIME = "r:diaSourceId", "r:diaForcedSourceId", "r:midpointMjdTai"
FLUX, TAG = "r:psfFlux", "f:tag"


def serve(folder: Path, **limits: Any) -> FlaskClient:
    settings = Settings(archive=Archive(uri=f"file://{folder}"), limits=Limits(**limits))
    return create_app(catalogued(settings)).test_client()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    client = serve(make_histories(tmp_path_factory.mktemp("histories")))
    yield client
    client.application.extensions["cutout_reader"].close()


def ask(client: FlaskClient, route: str, **payload: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/api/v1/{route}", json=payload)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = json.loads(answer.data)
    return found


# --- LSST ----------------------------------------------------------------------------------------


def test_sources_show_what_their_packets_repeat_each_once(client: FlaskClient) -> None:
    found = ask(client, "sources", diaObjectId=str(OBJECT), withupperlim=True)
    told = [(row[TAG], row[ID], row[FORCED_ID], row[TIME], row[FLUX]) for row in found]
    assert told == [
        ("valid", SECOND, -1, 61_010.25, 900),
        ("forced", -1, FORCED[2], 61_010.25, None),
        ("valid", FIRST, -1, 61_000.25, 800),
        ("forced", -1, FORCED[1], 61_000.25, 42),
        ("history", BARE, -1, 60_995.5, None),
        ("history", EARLIER, -1, 60_990.5, 301),
        ("forced", -1, FORCED[0], 60_990.5, 40),
        ("history", TIMELESS, -1, None, 500),
    ]
    assert {row["r:diaObjectId"] for row in found} == {OBJECT}
    assert [row["r:band"] for row in found][:5] == ["i", "r", "r", "r", None]


def test_without_being_asked_for_there_is_no_history(client: FlaskClient) -> None:
    found = ask(client, "sources", diaObjectId=str(OBJECT))
    assert [row[ID] for row in found] == [SECOND, FIRST]
    assert not {TAG, FORCED_ID, "r:scienceFlux", "r:reliability"} & set(found[0])


def test_columns_are_those_asked_for_and_the_tag(client: FlaskClient) -> None:
    found = ask(
        client,
        "sources",
        diaObjectId=OBJECT,
        withupperlim="True",
        columns="r:scienceFlux,r:diaForcedSourceId",
    )
    assert [tuple(row) for row in found] == [("r:scienceFlux", FORCED_ID, TAG)] * 8
    assert [row["r:scienceFlux"] for row in found if row[TAG] == "forced"] == [None, None, 1000]


@pytest.mark.parametrize("form", ["json", "csv", "parquet", "votable"])
def test_every_id_is_exact_in_every_format(client: FlaskClient, form: str) -> None:
    answer = client.get(f"/api/v1/sources?diaObjectId={OBJECT}&withupperlim=1&output-format={form}")
    content = io.BytesIO(answer.data)
    if form == "votable":
        frame = (
            votable.parse(content).get_first_table().to_table(use_names_over_ids=True).to_pandas()
        )
    else:
        reader = {"json": pd.read_json, "csv": pd.read_csv, "parquet": pd.read_parquet}[form]
        frame = reader(content)
    assert set(frame[ID].astype(object)) == {SECOND, FIRST, BARE, EARLIER, TIMELESS, -1}
    assert set(frame[FORCED_ID].astype(object)) == {*FORCED, -1}
    assert frame[ID].dtype == frame[FORCED_ID].dtype == np.int64


def test_the_broker_s_columns_are_null_beside_a_history(client: FlaskClient) -> None:
    found = ask(client, "sources", diaObjectId=OBJECT, withupperlim=True)
    assert {row["f:cdsxmatch"] for row in found if row[TAG] == "valid"} == {"Unknown"}
    assert {row["f:cdsxmatch"] for row in found if row[TAG] != "valid"} == {None}


def test_one_time_has_the_history_of_its_packet(client: FlaskClient) -> None:
    found = ask(client, "sources", diaObjectId=OBJECT, withupperlim=True, midpointMjdTai=61_000.25)
    assert [row[ID] for row in found if row[TAG] == "valid"] == [FIRST]
    assert [row[ID] for row in found if row[TAG] == "history"] == [EARLIER]


def test_an_unknown_object_has_the_columns_of_a_history(client: FlaskClient) -> None:
    answer = client.get("/api/v1/sources?diaObjectId=123456789&withupperlim=1&output-format=csv")
    assert answer.status_code == 200
    names = answer.text.strip().replace('"', "").split(",")
    assert names[-1] == TAG
    assert {FORCED_ID, "r:reliability", ID} <= set(names)
    known = client.get("/api/v1/columns?survey=lsst").json["columns"]
    mine = {row["name"]: row for row in known if row["table"] == "sources"}
    assert mine[TAG]["description"]
    assert mine[FORCED_ID]["description"]
    assert mine[FORCED_ID]["type"] == "long"


# --- forced photometry alone ---------------------------------------------------------------------


def test_forced_photometry_is_a_table_of_its_own(client: FlaskClient) -> None:
    found = ask(client, "fp", diaObjectId=str(OBJECT))
    assert [row[FORCED_ID] for row in found] == [FORCED[2], FORCED[1], FORCED[0]]
    assert [row[FLUX] for row in found] == [None, 42, 40]
    names = {"diaForcedSourceId", "diaObjectId", "midpointMjdTai", "ra", "dec", "psfFlux"}
    names |= {"psfFluxErr", "band", "scienceFlux"}
    assert set(found[0]) == {f"r:{name}" for name in names}
    assert {row["r:diaObjectId"] for row in found} == {OBJECT}


def test_forced_photometry_by_columns_and_by_get(client: FlaskClient) -> None:
    address = f"/api/v1/fp?diaObjectId={OBJECT},{OBJECT + 8}&columns={TIME},r:band,f:cdsxmatch"
    answer = client.get(address)
    assert [tuple(row) for row in answer.json] == [(TIME, "r:band")] * 3
    assert answer.headers["X-Unknown-Columns"] == "f:cdsxmatch"
    assert client.head(address).status_code == 200
    names = [row["name"] for row in client.get("/api/v1/fp").json["args"]]
    assert names == ["diaObjectId", "objectId", "columns", "output-format", "strict"]
    assert ask(client, "fp", diaObjectId=str(OBJECT + 8)) == []
    assert ask(client, "fp", diaObjectId="5") == []


@pytest.mark.parametrize("form", ["csv", "parquet", "votable"])
def test_forced_photometry_has_the_formats_of_tables(client: FlaskClient, form: str) -> None:
    answer = client.get(f"/api/v1/fp?diaObjectId={OBJECT}&output-format={form}")
    assert answer.status_code == 200
    assert str(FORCED[1]).encode() in answer.data or form == "parquet"


# --- ZTF -----------------------------------------------------------------------------------------


def test_ztf_s_forced_photometry_stands_beside_its_limits(client: FlaskClient) -> None:
    found = ask(client, "objects", objectId=ZTF_OBJECT, withupperlim=True)
    told = [(row["d:tag"], row["i:candid"], row["i:forcediffimflux"]) for row in found]
    assert told == [
        ("valid", ZTF_ALERT, None),
        ("forced", -1, 1100),
        ("upperlim", -1, None),
        ("forced", -1, 20),
        ("forced", -1, 1000),
    ]
    assert found[1]["i:jd"] == found[0]["i:jd"]


# --- files that are odd --------------------------------------------------------------------------


ODD_LISTS: dict[str, pa.DataType] = {
    "text": pa.string(),
    "numbers": pa.list_(pa.int64()),
    "one struct": pa.struct([("psfFlux", pa.float32())]),
    "lists in structs": pa.list_(pa.struct([("psfFlux", pa.list_(pa.float32()))])),
}


@pytest.mark.parametrize("name", ODD_LISTS)
def test_a_column_that_is_no_list_of_measurements_is_no_history(tmp_path: Path, name: str) -> None:
    place = LSST_SCHEMA.get_field_index("prvDiaSources")
    schema = LSST_SCHEMA.set(place, pa.field("prvDiaSources", ODD_LISTS[name]))
    row = alert(source(FIRST, 61_000.25), None, [forced(FORCED[0], 60_990.5)])
    write(tmp_path / "a.parquet", [row], schema)
    found = ask(serve(tmp_path), "sources", diaObjectId=OBJECT, withupperlim=True)
    assert [row[TAG] for row in found] == ["valid", "forced"]


def test_lower_case_names_and_ids_of_other_types_are_understood(tmp_path: Path) -> None:
    kinds = {"diaSourceId": pa.string(), "diaForcedSourceId": pa.decimal128(20, 0)}

    def lower(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(lower(kind.value_type))
        if not pa.types.is_struct(kind):
            return kind
        fields = [(f.name.lower(), kinds.get(f.name, f.type)) for f in kind]
        return pa.struct(fields)

    schema = pa.schema([(f.name.lower(), lower(f.type)) for f in LSST_SCHEMA])
    row = alert(
        source(FIRST, 61_000.25), [source(EARLIER, 60_990.5)], [forced(FORCED[0], 60_990.5)]
    )

    def spell(value: Any) -> Any:
        if isinstance(value, list):
            return [spell(one) for one in value]
        if not isinstance(value, dict):
            return value
        made = {name.lower(): spell(one) for name, one in value.items()}
        if "diasourceid" in made:
            made["diasourceid"] = str(made["diasourceid"])
        return made

    write(tmp_path / "a.parquet", [spell(row)], schema)
    found = ask(serve(tmp_path), "sources", diaObjectId=OBJECT, withupperlim=True)
    told = [(row[TAG], row[ID], row[FORCED_ID]) for row in found]
    assert sorted(told) == [
        ("forced", -1, FORCED[0]),
        ("history", EARLIER, -1),
        ("valid", FIRST, -1),
    ]
    assert ask(serve(tmp_path), "fp", diaObjectId=OBJECT)[0][FLUX] == 40


@pytest.mark.parametrize("lost", ["midpointMjdTai", "band", "psfFlux"])
def test_alerts_that_lack_a_column_have_a_history_all_the_same(tmp_path: Path, lost: str) -> None:
    kept = [field for field in LSST_SCHEMA.field("diaSource").type if field.name != lost]
    schema = LSST_SCHEMA.set(0, pa.field("diaSource", pa.struct(kept)))
    row = alert(
        source(FIRST, 61_000.25), [source(EARLIER, 60_990.5)], [forced(FORCED[0], 60_990.5)]
    )
    del row["diaSource"][lost]
    write(tmp_path / "a.parquet", [row], schema)
    found = ask(
        serve(tmp_path), "sources", diaObjectId=OBJECT, withupperlim=True, columns=f"{ID},r:{lost}"
    )
    assert sorted(row[TAG] for row in found) == ["forced", "history", "valid"]
    assert [row[f"r:{lost}"] is None for row in found].count(True) == 1
    assert len(ask(serve(tmp_path), "fp", diaObjectId=OBJECT)) == 1


def test_histories_that_are_too_large_say_so(tmp_path: Path) -> None:
    make_histories(tmp_path)
    answer = serve(tmp_path, answer_bytes=200).get(
        f"/api/v1/sources?diaObjectId={OBJECT}&withupperlim=1"
    )
    assert (answer.status_code, answer.json["code"]) == (413, "answer_too_large")
    assert "columns" in answer.json["detail"]
    few = serve(tmp_path, table_rows=5).get(f"/api/v1/fp?diaObjectId={OBJECT}")
    assert few.json["code"] == "too_many_rows"


# --- real alerts ---------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/data")
def test_a_real_alert_shows_its_89_detections() -> None:
    client = serve(REAL.parent)
    table = pq.read_table(REAL, columns=["diaSource", "prvDiaSources", "prvDiaForcedSources"])
    row = int(np.argmax(pc.list_value_length(table["prvDiaSources"]).to_numpy()))
    own, past, photometry = (column[row].as_py() for column in table.columns)
    assert len(past) == 89
    wanted = "r:diaSourceId,r:midpointMjdTai,r:psfFlux,r:psfFluxErr,r:band,r:diaForcedSourceId"
    for columns in (wanted, "*"):
        found = ask(
            client,
            "sources",
            diaObjectId=str(own["diaObjectId"]),
            withupperlim=True,
            columns=columns,
        )
        assert len(found) == 1 + 89 + len(photometry)
        stored = {one["diaSourceId"]: one for one in (*past, own)}
        detections = [one for one in found if one[TAG] != "forced"]
        assert len({one[ID] for one in detections}) == 90
        for one in detections:
            kept = stored[one[ID]]
            assert one[TIME] == kept["midpointMjdTai"]
            assert np.float32(one[FLUX]) == np.float32(kept["psfFlux"])
            assert one["r:band"] == kept["band"]
        times = [one[TIME] for one in found]
        assert times == sorted(times, reverse=True)
    alone = ask(client, "fp", diaObjectId=str(own["diaObjectId"]))
    assert [one[FORCED_ID] for one in alone] == [one["diaForcedSourceId"] for one in photometry]
