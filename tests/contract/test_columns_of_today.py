"""The columns that the clients of the public service know: their names, where they find them."""

from __future__ import annotations

import io
import itertools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.io.votable.ucd import parse_ucd
from flask.testing import FlaskClient

from cutout_api.columns import columns_of, describe, public_types
from cutout_api.settings import Archive, Settings
from cutout_api.surveys import SURVEYS, TABLES, read_descriptions
from cutout_api.surveys.lsst import LSST_SOURCES
from cutout_api.surveys.ztf import ZTF_ALERTS
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..epochs_archive import DOCUMENTED, DOCUMENTED_OBJECT, make_epochs_archive
from ..samples import LSST_SCHEMA, ZTF_SCHEMA, lsst_alert, write, ztf_alert

CASES = Path(__file__).parents[3] / "shared" / "cases"
ZTF_TITLES = {
    "ZTF original fields (i:)",
    "Fink science module outputs (d:)",
    "ZTF original cutouts (b:)",
    "Fink on-the-fly added values (v:)",
}
LSST_TITLES = {"LSST original fields (r:)", "Fink science module outputs (f:)"}
FIRST = DOCUMENTED[0]
OBJECT = 3_068_394_238_371_692_001
"""Of ``lsst_alert``."""
Serve = Callable[[Path], FlaskClient]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """Both surveys, in files of two versions of each schema."""
    return serve(make_epochs_archive(tmp_path_factory.mktemp("epochs")).folder)


def serve(folder: Path) -> FlaskClient:
    settings = Settings(archive=Archive(uri=f"file://{folder}"))
    return create_app(catalogued(settings)).test_client()


def rows(client: FlaskClient, route: str = "objects", **payload: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/api/v1/{route}", json=payload)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = json.loads(answer.data)
    return found


# --- the schema --------------------------------------------------------------------------------


def test_the_schema_has_the_four_families_of_ztf(client: FlaskClient) -> None:
    """As the broker's portal reads it, which names no endpoint."""
    schema = client.get("/api/v1/schema").json
    assert set(schema) == {*ZTF_TITLES, "ztf", "lsst"}
    for title in ZTF_TITLES:
        family = schema[title]
        assert family
        assert list(family) == sorted(family)
        for entry in family.values():
            assert set(entry) == {"type", "doc"}
            assert entry["doc"]
    fields = schema["ZTF original fields (i:)"]
    types = {name: fields[name]["type"] for name in ("jd", "fid", "candid", "objectId", "ra")}
    assert types == {
        "jd": "double",
        "fid": "int",
        "candid": "long",
        "objectId": "string",
        "ra": "double",
    }
    added = schema["Fink science module outputs (d:)"]
    assert {"mulens", "lc_features_g", "tag", "roid"} <= set(added)
    assert not [name for name in added if name.startswith("lc_features_g_")]
    assert set(schema["ZTF original cutouts (b:)"]) == {
        f"cutout{kind}_stampData" for kind in ("Science", "Template", "Difference")
    }
    assert {"g-r", "sigma(rate(g-r))"} <= set(schema["Fink on-the-fly added values (v:)"])


def test_scores_that_todays_schema_has_no_word_of_are_in_answers_alone(tmp_path: Path) -> None:
    """A test of the public service compares both, but for the columns of t2."""
    schema = ZTF_SCHEMA.append(pa.field("t2", pa.struct([("SNIa", pa.float32())])))
    write(tmp_path / "a.parquet", [ztf_alert(1) | {"t2": {"SNIa": 0.5}}], schema)
    client = serve(tmp_path)
    (row,) = rows(client, objectId="ZTF24aaaaaaa")
    added = client.get("/api/v1/schema").json["Fink science module outputs (d:)"]
    assert row["d:t2_SNIa"] == 0.5
    assert not [name for name in added if name.startswith("t2_")]
    assert "d:t2_SNIa" in client.get("/api/v1/schema?survey=ztf").json["ztf"]["objects"]


@pytest.mark.parametrize("way", ["query", "json", "form", "query of a POST"])
@pytest.mark.parametrize(
    ("endpoint", "titles"),
    [
        ("/api/v1/sources", LSST_TITLES),
        ("/api/v1/objects", {*LSST_TITLES, *(ZTF_TITLES - {"ZTF original cutouts (b:)"})}),
        ("/api/v1/cutouts", {"LSST original cutouts (b:)", "ZTF original cutouts (b:)"}),
    ],
)
def test_the_schema_of_an_endpoint_comes_by_title(
    client: FlaskClient, endpoint: str, titles: set[str], way: str
) -> None:
    asked = {"endpoint": endpoint, "major_version": "10", "minor_version": "0"}
    answer = {
        "query": lambda: client.get("/api/v1/schema", query_string=asked),
        "json": lambda: client.post("/api/v1/schema", json=asked | {"major_version": 10}),
        "form": lambda: client.post("/api/v1/schema", data=asked),
        "query of a POST": lambda: client.post("/api/v1/schema", query_string=asked),
    }[way]()
    assert answer.status_code == 200
    assert set(answer.json) == titles
    assert all(set(it) == {"type", "doc"} for kind in answer.json.values() for it in kind.values())


def test_fluxes_and_flags_have_todays_types(client: FlaskClient) -> None:
    schema = client.post("/api/v1/schema", json={"endpoint": "/api/v1/sources"}).json
    assert schema["LSST original fields (r:)"]["psfFlux"]["type"] == "float"
    assert schema["LSST original fields (r:)"]["diaSourceId"]["type"] == "long"
    added = schema["Fink science module outputs (f:)"]
    assert {name: added[name]["type"] for name in ("is_sso", "xm_simbad_otype")} == {
        "is_sso": "boolean",
        "xm_simbad_otype": "string",
    }


@pytest.mark.parametrize("endpoint", ["/api/v1/sources", "/api/v1/objects"])
def test_every_column_of_a_whole_answer_is_in_the_schema(
    client: FlaskClient, endpoint: str
) -> None:
    asked = {"endpoint": endpoint, "survey": "lsst"}
    schema = client.post("/api/v1/schema", json=asked).json
    known = {f"{title[-3:-1]}{name}" for title, family in schema.items() for name in family}
    for history in ({}, {"withupperlim": True})[: 2 if endpoint == "/api/v1/sources" else 1]:
        answer = client.post(endpoint, json={"diaObjectId": str(DOCUMENTED_OBJECT)} | history)
        assert answer.json
        assert set(answer.json[0]) <= known


def test_a_survey_alone_has_only_its_own(client: FlaskClient) -> None:
    assert set(client.get("/api/v1/schema?survey=ztf").json) == {"ztf"}
    asked = {"endpoint": "/api/v1/objects", "survey": "lsst"}
    assert set(client.get("/api/v1/schema", query_string=asked).json) == LSST_TITLES


def test_an_archive_of_one_survey_has_only_its_families(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [lsst_alert(1)], LSST_SCHEMA)
    client = serve(tmp_path)
    assert not ZTF_TITLES & set(client.get("/api/v1/schema").json)
    objects = client.get("/api/v1/schema?endpoint=/api/v1/objects").json
    assert set(objects) == LSST_TITLES


def test_an_archive_of_nothing_still_has_the_public_schema(tmp_path: Path) -> None:
    client = create_app(Settings(archive=Archive(uri=f"file://{tmp_path}"))).test_client()
    assert set(client.get("/api/v1/schema").json) >= ZTF_TITLES
    sources = client.get("/api/v1/schema?endpoint=/api/v1/sources").json
    assert set(sources) == LSST_TITLES


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"endpoint": "/api/v1/source"}, 404, "did you mean /api/v1/sources?"),
    ({"endpoint": "/api/v1/skymap"}, 404, "no endpoint"),
    ({"endpoint": "\u00e9" * 100}, 404, "no endpoint"),
    ({"endpoint": "x" * 10_000}, 400, "letters"),
    ({"endpoint": 5}, 400, "must be text"),
    ({"endpoint": ["/api/v1/sources"]}, 400, "one value"),
    ({"endpoint": "/api/v1/sources", "major_version": "ten"}, 400, "whole number"),
    ({"endpoint": "/api/v1/sources", "minor_version": -1}, 400, "0 or above"),
    ({"endpoint": "/api/v1/sources", "survey": "gaia"}, 400, "survey"),
]


@pytest.mark.parametrize(("asked", "status", "words"), WRONG)
def test_what_is_no_endpoint_is_said_so(
    client: FlaskClient, asked: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post("/api/v1/schema", json=asked)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert words in answer.json["detail"]
    if status == 404:
        assert answer.json["parameter"] == "endpoint"
        assert "/api/v1/sources" in answer.json["allowed"]


# --- the broker's structs ----------------------------------------------------------------------

BROKER = pa.schema(
    [
        *LSST_SCHEMA,
        ("pred", pa.struct([("is_sso", pa.bool_()), ("main_label_crossmatch", pa.string())])),
        ("misc", pa.struct([("firstDiaSourceMjdTaiFink", pa.float64())])),
        ("xm", pa.struct([("simbad_otype", pa.string())])),
        ("clf", pa.struct([("cats_class", pa.int32())])),
    ]
)
ADDED = {
    "pred": {"is_sso": False, "main_label_crossmatch": "QSO"},
    "misc": {"firstDiaSourceMjdTaiFink": 60512.25},
    "xm": {"simbad_otype": "QSO"},
    "clf": {"cats_class": 11},
}


@pytest.mark.parametrize("route", ["sources", "objects"])
@pytest.mark.parametrize("in_lower_case", [False, True])
def test_the_broker_s_columns_have_their_public_names(
    tmp_path: Path, route: str, in_lower_case: bool
) -> None:
    schema, row = BROKER, lsst_alert(1) | ADDED
    write(tmp_path / "a.parquet", [row], schema)
    if in_lower_case:
        table = pq.read_table(tmp_path / "a.parquet")
        misc = pa.array([ADDED["misc"]["firstDiaSourceMjdTaiFink"]])
        misc = pa.StructArray.from_arrays([misc], ["firstdiasourcemjdtaifink"])
        table = table.set_column(table.schema.get_field_index("misc"), "misc", misc)
        pq.write_table(table, tmp_path / "a.parquet")
    client = serve(tmp_path)
    expected = {
        "f:is_sso": False,
        "f:main_label_crossmatch": "QSO",
        "f:firstDiaSourceMjdTaiFink": 60512.25,
        "f:xm_simbad_otype": "QSO",
        "f:clf_cats_class": 11,
    }
    assert rows(client, route, diaObjectId=OBJECT, columns=",".join(expected)) == [expected]
    (whole,) = rows(client, route, diaObjectId=OBJECT)
    assert expected.items() <= whole.items()
    assert not [name for name in whole if name.startswith(("f:pred", "f:misc"))]


def test_the_names_that_they_had_before_are_understood(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [lsst_alert(1) | ADDED], BROKER)
    client = serve(tmp_path)
    expected = {
        "f:pred_is_sso": False,
        "f:is_sso": False,
        "f:misc_firstDiaSourceMjdTaiFink": 60512.25,
    }
    answer = client.post(
        "/api/v1/sources", json={"diaObjectId": OBJECT, "columns": ",".join(expected)}
    )
    assert answer.json == [expected]
    assert "X-Unknown-Columns" not in answer.headers
    listed = {entry["name"] for entry in client.get("/api/v1/columns").json["columns"]}
    assert "f:is_sso" in listed
    assert not {"f:pred_is_sso", "f:misc_firstDiaSourceMjdTaiFink"} & listed


def test_a_name_that_is_a_column_s_own_stays_with_it() -> None:
    """A field without the name of its struct may be called as another column is."""
    schema = pa.schema(
        [
            ("diaSourceId", pa.int64()),
            ("pred", pa.struct([("is_sso", pa.bool_()), ("x", pa.int32()), ("y", pa.int32())])),
            ("misc", pa.struct([("x", pa.float64()), ("is_sso", pa.string())])),
            ("is_sso", pa.int64()),
            ("pred_y", pa.string()),
        ]
    )
    found = columns_of(LSST_SOURCES, schema)
    shown = {name: it.path for name, it in found.items() if not it.asked}
    assert shown == {
        "r:diaSourceId": "diaSourceId",
        "f:pred_is_sso": "pred.is_sso",
        "f:misc_is_sso": "misc.is_sso",
        "f:is_sso": "is_sso",
        "f:x": "pred.x",
        "f:misc_x": "misc.x",
        "f:y": "pred.y",
        "f:pred_y": "pred_y",
    }
    assert {name: it.path for name, it in found.items() if it.asked} == {"f:pred_x": "pred.x"}


def test_the_columns_of_the_broker_s_own_files(tmp_path: Path) -> None:
    case = CASES / "lsst-broker-columns" / "alerts.parquet"
    if not case.exists():
        pytest.skip("the folder ../shared/cases is missing")
    (tmp_path / "alerts.parquet").write_bytes(case.read_bytes())
    expected = {
        "f:is_sso": False,
        "f:is_first": True,
        "f:is_cataloged": True,
        "f:main_label_crossmatch": "QSO",
        "f:main_label_classifier": 11,
        "f:firstDiaSourceMjdTaiFink": 60512.25,
    }
    client = serve(tmp_path)
    for route in ("sources", "objects"):
        asked = ",".join((*expected, "f:xm_simbad_otype", "f:clf_cats_class"))
        (found,) = rows(client, route, diaObjectId="313761043604045880", columns=asked)
        assert expected.items() <= found.items()
        assert set(found) == {*expected, "f:xm_simbad_otype", "f:clf_cats_class"}


# --- what a file lacks -------------------------------------------------------------------------

SNAD = ("i:jd", "i:objectId", "d:cdsxmatch", "d:mulens", "d:rf_kn_vs_nonkn", "d:snn_sn_vs_all")


def test_a_column_of_the_public_schema_is_null_where_no_file_has_it(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(1), ztf_alert(2)], ZTF_SCHEMA)
    client = serve(tmp_path)
    answer = client.get(
        "/api/v1/objects",
        query_string={"objectId": "ZTF24aaaaaaa", "columns": ",".join((*SNAD, "d:no", "v:rate"))},
    )
    assert [list(row) for row in answer.json] == [[*SNAD, "v:rate"]] * 2
    assert {row[name] for row in answer.json for name in SNAD[2:]} == {None}
    assert answer.headers["X-Unknown-Columns"] == "d:no"


@pytest.mark.parametrize("object_id", ["ZTF24aaaaaaa", "ZTF24zzzzzzz"])
def test_such_a_column_has_the_type_that_it_would_have(tmp_path: Path, object_id: str) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(1)], ZTF_SCHEMA)
    client = serve(tmp_path)
    asked = {"objectId": object_id, "columns": "d:mulens,d:roid,d:from_upper,d:tns,i:magpsf,v:rate"}
    answer = client.get("/api/v1/objects", query_string=asked | {"output-format": "parquet"})
    schema = pq.read_schema(io.BytesIO(answer.data))
    assert {field.name: field.type for field in schema} == {
        "d:mulens": pa.float64(),
        "d:roid": pa.int32(),
        "d:from_upper": pa.bool_(),
        "d:tns": pa.string(),
        "i:magpsf": pa.float32(),
        "v:rate": pa.float64(),
    }
    answer = client.get("/api/v1/objects", query_string=asked | {"output-format": "votable"})
    fields = votable.parse(io.BytesIO(answer.data)).get_first_table().fields
    types = ["double", "int", "boolean", "unicodeChar", "float", "double"]
    assert [field.datatype for field in fields] == types


def test_a_band_of_an_lsst_object_is_null_too(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [lsst_alert(1)], LSST_SCHEMA)
    asked = "r:ra,r:g_psfFluxMean,r:q_psfFluxMean,r:target_name,f:is_sso,r:diaSource_psfFlux"
    answer = serve(tmp_path).post("/api/v1/objects", json={"diaObjectId": OBJECT, "columns": asked})
    assert answer.json == [
        {
            "r:ra": 250.2,
            "r:g_psfFluxMean": None,
            "r:target_name": None,
            "f:is_sso": None,
            "r:diaSource_psfFlux": None,
        }
    ]
    assert answer.headers["X-Unknown-Columns"] == "r:q_psfFluxMean"


def test_a_whole_answer_has_what_the_files_have_and_what_today_s_always_has(
    tmp_path: Path,
) -> None:
    own = {"i:objectId", "i:candid", "i:jd", "i:fid", "v:lastdate"}
    write(tmp_path / "a.parquet", [ztf_alert(1)], ZTF_SCHEMA)
    (row,) = rows(serve(tmp_path), objectId="ZTF24aaaaaaa")
    assert set(row) == own
    schema = pa.schema([*ZTF_SCHEMA, ("roid", pa.int32())])
    write(tmp_path / "a.parquet", [ztf_alert(1) | {"roid": 2}], schema)
    (row,) = rows(serve(tmp_path), objectId="ZTF24aaaaaaa")
    assert set(row) == {*own, "d:roid", *ZTF_ALERTS.always}
    assert {row[name] for name in ZTF_ALERTS.always} == {None}


def test_the_request_of_a_viewer_of_real_alerts(real_data: Path, tmp_path: Path) -> None:
    name = "ztf_spark_1.10.parquet"
    (tmp_path / name).write_bytes((real_data / name).read_bytes())
    found = rows(serve(tmp_path), objectId="ZTF18aaqfhlj", columns=",".join(SNAD))
    assert len(found) == 3
    for row in found:
        assert list(row) == list(SNAD)
        assert (row["d:mulens"], row["d:cdsxmatch"]) == (None, "HotSubdwarf")


# --- features ----------------------------------------------------------------------------------

FEATURES = ZTF_ALERTS.listings[0].fields
STRUCT = pa.struct([(name, pa.float64()) for name in sorted(FEATURES)])


def features_file(path: Path, kind: pa.DataType, values: list[Any]) -> FlaskClient:
    schema = pa.schema([*ZTF_SCHEMA, ("lc_features_g", kind)])
    alerts = [ztf_alert(n) | {"lc_features_g": value} for n, value in enumerate(values)]
    write(path / "a.parquet", alerts, schema)
    return serve(path)


def test_features_are_one_text_in_the_order_of_the_broker(tmp_path: Path) -> None:
    whole = {name: number + 0.1 for number, name in enumerate(FEATURES)}
    client = features_file(
        tmp_path, STRUCT, [whole, None, whole | {"mean": math.nan, "skew": None}]
    )
    found = [row["d:lc_features_g"] for row in rows(client, objectId="ZTF24aaaaaaa")]
    odd, none, full = found
    assert all(isinstance(text, str) for text in found)
    assert json.loads(full) == list(whole.values())
    assert len(json.loads(full)) == 26
    assert none == "[]"
    assert math.isnan(json.loads(odd)[0])
    assert json.loads(odd)[FEATURES.index("skew")] is None


def test_the_order_is_that_of_the_broker_s_own_files(real_data: Path) -> None:
    stored = pq.read_schema(real_data / "ztf_spark_1.12_offsetindex.parquet")
    assert [field.name for field in stored.field("lc_features_g").type] == list(FEATURES)


def test_every_feature_has_its_place(tmp_path: Path) -> None:
    assert FEATURES[:3] == ("mean", "weighted_mean", "standard_deviation")
    assert FEATURES[-3:] == ("chi2", "skew", "stetson_K")
    alphabetical = {name: float(FEATURES.index(name)) for name in sorted(FEATURES)}
    client = features_file(tmp_path, STRUCT, [alphabetical])
    (row,) = rows(client, objectId="ZTF24aaaaaaa", columns="d:lc_features_g")
    assert json.loads(row["d:lc_features_g"]) == list(range(26))


def test_a_feature_alone_is_a_column_where_it_is_asked_for(tmp_path: Path) -> None:
    client = features_file(tmp_path, STRUCT, [dict.fromkeys(FEATURES, 0.5)])
    (row,) = rows(client, objectId="ZTF24aaaaaaa")
    assert [name for name in row if "lc_features" in name] == ["d:lc_features_g"]
    asked = "d:lc_features_g_amplitude,d:lc_features_g,d:lc_features_r"
    (row,) = rows(client, objectId="ZTF24aaaaaaa", columns=asked)
    assert row == {
        "d:lc_features_g_amplitude": 0.5,
        "d:lc_features_g": json.dumps([0.5] * 26),
        "d:lc_features_r": None,
    }


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.list_(pa.float64()), [0.5, None, 1.0], "[0.5, null, 1.0]"),
        (pa.map_(pa.string(), pa.float64()), [("extra", 2.0), ("mean", 1.0)], None),
        (pa.struct([("extra", pa.float32()), ("mean", pa.float32())]), {"mean": 0.1}, None),
        (pa.string(), "[0.25]", "[0.25]"),
    ],
    ids=["list", "map", "struct", "text"],
)
@pytest.mark.parametrize("form", ["json", "csv", "parquet", "votable"])
def test_features_stored_in_another_way_are_a_text_too(
    tmp_path: Path, kind: pa.DataType, value: Any, text: str | None, form: str
) -> None:
    client = features_file(tmp_path, kind, [value])
    asked = {"objectId": "ZTF24aaaaaaa", "columns": "d:lc_features_g", "output-format": form}
    content = client.get("/api/v1/objects", query_string=asked).data
    if form == "json":
        found = json.loads(content)[0]["d:lc_features_g"]
    elif form == "csv":
        found = content.decode().splitlines()[1].strip('"')
    elif form == "parquet":
        found = pq.read_table(io.BytesIO(content))["d:lc_features_g"][0].as_py()
    else:
        found = votable.parse(io.BytesIO(content)).get_first_table().array[0][0]
    if text is None:
        numbers = json.loads(found)
        assert (numbers[0], numbers[-1]) in ((1.0, 2.0), (0.1, None))
        assert len(numbers) == 27
    else:
        assert found == text


# --- rates and colours -------------------------------------------------------------------------


def test_every_whole_answer_has_rates_and_colours(client: FlaskClient) -> None:
    found = rows(client, objectId=FIRST)
    names = ZTF_ALERTS.derived[-6:]
    assert all(set(names) <= set(row) for row in found)
    by_band = [row for row in found if row["i:fid"] == 1]
    for newer, older in itertools.pairwise(by_band):
        days = newer["i:jd"] - older["i:jd"]
        rate = (newer["i:magpsf"] - older["i:magpsf"]) / days
        assert newer["v:rate"] == pytest.approx(rate, rel=1e-9)
    assert by_band[-1]["v:rate"] is None
    some = rows(client, objectId=FIRST, columns="i:candid,v:g-r,v:sigma(rate(g-r))")
    assert [row["v:g-r"] for row in some] == [row["v:g-r"] for row in found]
    assert any(row["v:g-r"] is not None for row in found)


def test_the_history_has_no_rates_and_changes_none(client: FlaskClient) -> None:
    alone = {row["i:candid"]: row["v:rate"] for row in rows(client, objectId=FIRST)}
    for row in rows(client, objectId=FIRST, withupperlim=True):
        assert row["v:rate"] == alone.get(row["i:candid"])


# --- UCDs --------------------------------------------------------------------------------------

UCDS = [
    (
        {"objectId": FIRST},
        "objects",
        {
            "i:candid": "meta.id;meta.main",
            "i:jd": "time.epoch",
            "i:ra": "pos.eq.ra;meta.main",
            "i:dec": "pos.eq.dec;meta.main",
            "i:magpsf": "phot.mag;em.opt",
            "i:sigmapsf": "stat.error;phot.mag;em.opt",
            "v:g-r": "phot.color;em.opt.B;em.opt.R",
        },
        ("UTC", "JD-origin"),
    ),
    (
        {"diaObjectId": DOCUMENTED_OBJECT},
        "sources",
        {
            "r:diaSourceId": "meta.id;meta.main",
            "r:midpointMjdTai": "time.epoch",
            "r:ra": "pos.eq.ra;meta.main",
            "r:psfFlux": "phot.flux;em.opt",
            "r:band": "instr.bandpass",
        },
        ("TAI", "MJD-origin"),
    ),
    (
        {"diaObjectId": DOCUMENTED_OBJECT},
        "objects",
        {"r:diaObjectId": "meta.id;meta.main", "r:g_psfFluxMean": "phot.flux;em.opt;stat.mean"},
        None,
    ),
]


@pytest.mark.parametrize(("asked", "route", "ucds", "time"), UCDS)
def test_a_votable_says_what_kind_of_quantity_a_column_is(
    client: FlaskClient, asked: dict[str, Any], route: str, ucds: dict[str, str], time: Any
) -> None:
    answer = client.get(f"/api/v1/{route}", query_string=asked | {"output-format": "votable"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = votable.parse(io.BytesIO(answer.data), verify="exception")
    fields = {field.name: field for field in document.get_first_table().fields}
    assert {name: fields[name].ucd for name in ucds} == ucds
    (resource,) = document.resources
    (sky,) = resource.coordinate_systems
    assert sky.system == "ICRS"
    places = [field for field in fields.values() if (field.ucd or "").startswith("pos.eq")]
    assert {field.ref for field in places} == {sky.ID}
    times = [field for field in fields.values() if (field.ucd or "") == "time.epoch" and field.unit]
    if time is None:
        assert not times
    else:
        (frame,) = resource.time_systems
        assert (frame.timescale, frame.timeorigin) == time
        assert {field.ref for field in times} == {frame.ID}


def test_a_column_of_another_table_is_not_the_main_one(client: FlaskClient) -> None:
    asked = {
        "diaObjectId": DOCUMENTED_OBJECT,
        "columns": "r:ra,r:diaObject_ra",
        "output-format": "votable",
    }
    answer = client.get("/api/v1/sources", query_string=asked)
    fields = votable.parse(io.BytesIO(answer.data)).get_first_table().fields
    assert [field.ucd for field in fields] == ["pos.eq.ra;meta.main", "pos.eq.ra"]


@pytest.mark.parametrize("survey", SURVEYS, ids=lambda survey: survey.name)
def test_what_the_public_schema_has_is_described(survey: Any) -> None:
    views = [view for views in TABLES.values() for view in views if view.survey is survey]
    assert views
    for view in views:
        types = public_types(view)
        assert set(view.derived) <= set(types)
        assert set(view.always) <= set(types)
        assert all(describe(view, name).text for name in types)


def test_every_ucd_is_of_the_vocabulary() -> None:
    sections = [json.loads(text) for text in read_descriptions()]
    members = [it for file in sections for section in file.values() for it in section.values()]
    ucds = {it[3] for it in members if len(it) > 3}
    assert len(ucds) > 30
    for ucd in ucds:
        assert parse_ucd(ucd, check_controlled_vocabulary=True, has_colon=False), ucd
