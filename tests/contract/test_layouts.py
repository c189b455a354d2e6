"""Alerts in unusual layouts, by every route: the usual answer, or an error that says why not."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient

from cutout_api import catalog
from cutout_api.alert_columns import make_entry
from cutout_api.epochs import Entry
from cutout_api.indexing import open_indexer
from cutout_api.settings import Archive, Catalog, Settings
from cutout_api.surveys import LSST
from cutout_api.web import create_app

from ..layouts import STAMP_BYTES, Layout, lsst_table, write_layout, ztf_table
from ..samples import (
    KINDS,
    LSST_SCHEMA,
    ZTF_SCHEMA,
    image_of,
    lsst_alert,
    stored_fits,
    write,
    ztf_alert,
)

ROUTE = "/api/v1/cutouts"
Open = Callable[[], FlaskClient]


@dataclass
class World:
    """A folder of files, which is indexed when the client is first asked for."""

    folder: Path
    settings: Settings

    def write(self, name: str, columns: Mapping[str, Any]) -> None:
        pq.write_table(pa.table(dict(columns)), self.folder / name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "archive"
    folder.mkdir()
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    return World(folder, Settings(archive=Archive(uri=str(folder)), catalog=Catalog(url)))


@pytest.fixture
def opened(world: World) -> Iterator[Open]:
    apps = []

    def open_client() -> FlaskClient:
        with open_indexer(world.settings, blocks=True, jobs=1) as indexer:
            indexer.run(indexer.plan())
        app = create_app(world.settings)
        apps.append(app)
        return app.test_client()

    yield open_client
    for app in apps:
        app.extensions["cutout_reader"].close()


def get(client: FlaskClient, address: str, **arguments: Any) -> Any:
    return client.get(address, query_string=arguments)


# --- stamps ------------------------------------------------------------------------------------


def ztf_columns(rows: list[dict[str, Any]], store: Callable[[bytes], Any]) -> dict[str, pa.Array]:
    """Return columns of alerts whose stamps stand in no struct; ``store`` makes values of them."""
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA)
    columns = {name: table[name] for name in ("objectId", "candid", "candidate")}
    return columns | {
        f"cutout{kind}": pa.array([store(row[f"cutout{kind}"]["stampData"]) for row in rows])
        for kind in KINDS
    }


def test_a_folder_of_mixed_layouts_answers_as_one(world: World, opened: Open) -> None:
    rows = [ztf_alert(n, "ZTF24aaaaaaa") for n in range(4)]
    write(world.folder / "usual.parquet", rows[:1])
    world.write("bare.parquet", ztf_columns(rows[1:2], bytes))
    listed = ztf_columns(rows[2:3], lambda it: pa.scalar(list(it), pa.list_(pa.uint8())))
    world.write("lists.parquet", listed)
    table = pa.Table.from_pylist(rows[3:], ZTF_SCHEMA)
    world.write("lower.parquet", {name.lower(): table[name] for name in table.column_names})
    client = opened()
    for row in rows:
        for kind in KINDS:
            for path in ({}, {"hdfsPath": "."}):
                asked = {"candid": row["candid"], "kind": kind, "output-format": "FITS", **path}
                assert get(client, ROUTE, **asked).data == stored_fits(row, kind)
    asked = {"objectId": "ZTF24aaaaaaa", "hdfsPath": ".", "output-format": "FITS"}
    assert get(client, ROUTE, kind="Science", **asked).data == stored_fits(rows[3], "Science")
    batch = client.post(
        f"{ROUTE}/batch", json={"candid": [str(r["candid"]) for r in rows], "kind": "Science"}
    )
    lines = [orjson.loads(line) for line in batch.data.splitlines()]
    assert [line["status"] for line in lines] == [200] * 4
    table = get(client, "/api/v1/objects", objectId="ZTF24aaaaaaa", withcutouts="True").json
    assert [line["i:candid"] for line in table] == [row["candid"] for row in reversed(rows)]
    for line, row in zip(table, reversed(rows), strict=True):
        assert line["i:jd"] == row["candidate"]["jd"]
        for kind in KINDS:
            image = np.array(line[f"b:cutout{kind}_stampData"], np.float32)
            assert (image == image_of(stored_fits(row, kind))).all()


def test_lsst_stamps_may_stand_in_a_struct(world: World, opened: Open) -> None:
    rows = [lsst_alert(n) for n in range(2)]
    table = pa.Table.from_pylist(rows, LSST_SCHEMA)
    columns = {name: table[name] for name in ("diaSource", "diaObject")}
    for kind in KINDS:
        held = [{"fileName": "x.fits", "stampData": row[f"cutout{kind}"]} for row in rows]
        columns[f"cutout{kind}"] = pa.array(held)
    world.write("a.parquet", columns)
    client = opened()
    asked = {"diaSourceId": rows[1]["diaSourceId"], "kind": "Science", "output-format": "FITS"}
    assert get(client, ROUTE, **asked).data == rows[1]["cutoutScience"]
    object_id = rows[0]["diaSource"]["diaObjectId"]
    (line, _) = get(client, "/api/v1/sources", diaObjectId=object_id).json
    assert not [name for name in line if "cutout" in name]


@pytest.mark.parametrize(
    ("stamps", "status", "words"),
    [
        (pa.array([1, 2]), 404, "it holds cutoutScience as INT64"),
        (pa.array([[1.0], [2.0]]), 404, "it holds cutoutScience.list.element as DOUBLE"),
        (pa.array([{"data": b"x"}] * 2), 404, "it holds cutoutScience.data as BYTE_ARRAY"),
        (pa.array([[1, 300], [2]]), 502, "300 not in range"),
        (pa.array([[1, None], [2]]), 502, "a null between them"),
        (pa.array([[], [2]], pa.list_(pa.uint8())), 404, "Science is null"),
        (pa.array([None, [2]], pa.list_(pa.uint8())), 404, "Science is null"),
        (pa.nulls(2), 404, "it holds cutoutScience as INT32"),
        (pa.array([[[1]], [[2]]]), 404, "its file holds no column for Science"),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_what_is_no_stamp_is_said_to_be_what_it_is(
    world: World, opened: Open, stamps: pa.Array, status: int, words: str
) -> None:
    rows = [ztf_alert(n) for n in range(2)]
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA)
    columns = {name: table[name] for name in ("objectId", "candid", "cutoutTemplate")}
    world.write("a.parquet", {**columns, "cutoutScience": stamps})
    client = opened()
    for path in ({}, {"hdfsPath": "a.parquet"}):
        asked = {"candid": rows[0]["candid"], **path}
        answer = get(client, ROUTE, kind="Science", **asked)
        assert answer.status_code == status
        assert words in answer.json["detail"]
        # The others of the alert, and the other alerts, are not concerned.
        whole = get(client, ROUTE, kind="Template", **{"output-format": "FITS"}, **asked)
        assert whole.data == stored_fits(rows[0], "Template")
    batch = client.post(
        f"{ROUTE}/batch", json={"candid": [str(rows[0]["candid"])], "kind": "Science"}
    )
    assert words in orjson.loads(batch.data)["error"]["detail"]


def test_columns_that_differ_only_in_case_are_not_guessed_among(world: World, opened: Open) -> None:
    rows = [ztf_alert(n) for n in range(2)]
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA)
    science = table["cutoutScience"]
    columns = {"objectId": table["objectId"], "candid": table["candid"]}
    columns |= {"CutoutScience": science, "CUTOUTSCIENCE": science}
    columns |= {"CUTOUTTEMPLATE": science, "cutoutTemplate": table["cutoutTemplate"]}
    world.write("stamps.parquet", columns)
    columns = {"Candid": table["candid"], "CANDID": table["candid"], "cutoutScience": science}
    world.write("ids.parquet", {**columns, "objectId": table["objectId"]})
    client = opened()
    asked = {"candid": rows[0]["candid"], "hdfsPath": "stamps.parquet"}
    answer = get(client, ROUTE, kind="Science", **asked)
    assert answer.status_code == 404
    words = "CutoutScience.stampData and CUTOUTSCIENCE.stampData, which differ only in case"
    assert words in answer.json["detail"]
    exact = get(client, ROUTE, kind="Template", **{"output-format": "FITS"}, **asked)
    assert exact.data == stored_fits(rows[0], "Template")
    answer = get(client, ROUTE, kind="Science", candid=rows[0]["candid"], hdfsPath="ids.parquet")
    assert answer.status_code == 404
    assert "Candid and CANDID, which differ only in case" in answer.json["detail"]


def test_columns_of_one_name_are_left_out(world: World, opened: Open) -> None:
    """Whatever they hold, nobody could say which is meant; the others still answer."""
    rows = [ztf_alert(n) for n in range(2)]
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA)
    twins = pa.StructArray.from_arrays([pa.array([1.0, 2.0])] * 2, names=["jd", "jd"])
    science, ids = table["cutoutScience"], table["candid"]
    for name, others in {
        "a.parquet": {"candid": [ids], "candidate": [twins], "x": [ids, ids]},
        "b.parquet": {"candid": [ids, ids]},
    }.items():
        columns = {"objectId": [table["objectId"]], "cutoutScience": [science], **others}
        names = [name for name, held in columns.items() for _ in held]
        arrays = [array for held in columns.values() for array in held]
        pq.write_table(pa.Table.from_arrays(arrays, names=names), world.folder / name)
    client = opened()
    lines = get(client, "/api/v1/objects", objectId=rows[0]["objectId"]).json
    held = [{"i:objectId": row["objectId"], "i:candid": row["candid"]} for row in rows]
    unnamed = [{"i:objectId": row["objectId"], "i:candid": None} for row in rows]
    assert sorted(lines, key=str) == sorted(held + unnamed, key=str)
    asked = {"candid": rows[0]["candid"], "kind": "Science", "output-format": "FITS"}
    assert get(client, ROUTE, **asked).data == stored_fits(rows[0], "Science")
    answer = get(client, ROUTE, hdfsPath="b.parquet", **asked)
    assert answer.status_code == 404
    assert "it holds more than one candid" in answer.json["detail"]


# --- ids ---------------------------------------------------------------------------------------

SOURCE, OBJECT = 169_936_132_527_095_844, 169_830_579_938_263_177
STAMPS = dict.fromkeys(KINDS, bytes(STAMP_BYTES))


def source(number: int, object_id: int | None) -> dict[str, Any]:
    return {
        "diaSourceId": SOURCE + number,
        "diaObjectId": object_id,
        "midpointMjdTai": 60_900.0 + number,
        **STAMPS,
    }


@pytest.mark.parametrize("numbers", ["int64", "decimal", "text", "uint64"])
@pytest.mark.parametrize("spelling", ["usual", "lower"])
def test_an_id_is_an_exact_integer_in_every_table(
    world: World, opened: Open, numbers: str, spelling: str
) -> None:
    """``diaObject`` holds the object's id as a double, which is that of a neighbour."""
    assert int(float(OBJECT)) != OBJECT
    layout = Layout(numbers=numbers, spelling=spelling, in_struct=False)
    alerts = [source(n, OBJECT) for n in range(3)]
    write_layout(world.folder / "a.parquet", lsst_table(alerts, layout), layout)
    client = opened()
    for form in ("json", "csv", "parquet", "votable"):
        asked = {"diaObjectId": OBJECT, "output-format": form}
        (line,) = read_rows(form, get(client, "/api/v1/objects", **asked).data)
        assert line["r:diaObjectId"] == OBJECT
        lines = read_rows(form, get(client, "/api/v1/sources", **asked).data)
        assert [line["r:diaObjectId"] for line in lines] == [OBJECT] * 3
        assert [line["r:diaSourceId"] for line in lines] == [SOURCE + n for n in (2, 1, 0)]


def read_rows(form: str, content: bytes) -> list[dict[str, Any]]:
    """Return the rows of an answer by a reader that is not ours, ids as integers."""

    def number(value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdigit() else value or None

    if form == "json":
        rows: list[dict[str, Any]] = orjson.loads(content)
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    elif form == "parquet":
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
    else:
        space = {"v": "http://www.ivoa.net/xml/VOTable/v1.3"}
        tree = ElementTree.fromstring(content)
        names = [field.attrib["name"] for field in tree.iterfind(".//v:FIELD", space)]
        rows = [
            dict(zip(names, (cell.text for cell in row), strict=True))
            for row in tree.iterfind(".//v:TR", space)
        ]
    return [{name: number(value) for name, value in row.items()} for row in rows]


def test_an_id_that_only_a_float_holds_is_exact_or_null(world: World, opened: Open) -> None:
    rows = [lsst_alert(n, object_number=1) for n in range(2)]
    table = pa.Table.from_pylist(rows, LSST_SCHEMA)
    parents = pa.array([7.0, 2.0**60])
    fields = [*table["diaSource"].combine_chunks().flatten(), parents]
    names = ["diaSourceId", "diaObjectId", "midpointMjdTai", "parentDiaSourceId"]
    held = pa.StructArray.from_arrays(fields, names=names)
    world.write("a.parquet", {"diaSource": held, "cutoutScience": table["cutoutScience"]})
    client = opened()
    object_id = rows[0]["diaSource"]["diaObjectId"]
    lines = get(client, "/api/v1/sources", diaObjectId=object_id).json
    assert [line["r:parentDiaSourceId"] for line in lines] == [None, 7]
    types = {
        entry["name"]: entry["type"]
        for entry in get(client, "/api/v1/columns").json["columns"]
        if entry["table"] == "sources"
    }
    assert types["r:parentDiaSourceId"] == "long"


def test_names_and_ids_kept_as_bytes_are_in_tables_and_their_histories(
    world: World, opened: Open
) -> None:
    alerts = [
        {"objectId": "ZTF24aaaaaaa", "candid": 2_656_254_792_815_010_011 + n, "jd": 2460000.5 + n}
        for n in range(2)
    ]
    alerts = [{**alert, "fid": 1, **STAMPS} for alert in alerts]
    layout = Layout(names="bytes", numbers="bytes")
    table = ztf_table(alerts, layout)
    past = [{"candid": float(n) if n else None, "jd": 2459000.5 + n, "fid": 1} for n in range(2)]
    write_layout(
        world.folder / "a.parquet", table.append_column("prv_candidates", [[past, past]]), layout
    )
    client = opened()
    asked = {"objectId": "ZTF24aaaaaaa", "withupperlim": "True"}
    lines = get(client, "/api/v1/objects", **asked).json
    assert [line["i:objectId"] for line in lines] == ["ZTF24aaaaaaa"] * 4
    assert [line["i:candid"] for line in lines] == [
        alerts[1]["candid"],
        alerts[0]["candid"],
        1,
        -1,
    ]


# --- text --------------------------------------------------------------------------------------

FORMS = ("json", "csv", "parquet", "votable")
ODD_TEXTS = {
    b"caf\xe9": "caf\ufffd",
    b"\xff\xfe": "\ufffd\ufffd",
    b"\xed\xa0\x80": "\ufffd\ufffd\ufffd",  # half a surrogate
    b"a\x00b": "a\x00b",
    b"a\x1b[31m\x07": "a\x1b[31m\x07",
    b"<&>\"'": "<&>\"'",
    b"two\nlines, and a comma": "two\nlines, and a comma",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_that_is_none_is_answered_in_every_format(
    world: World, opened: Open, form: str, kind: pa.DataType
) -> None:
    texts = list(ODD_TEXTS)
    held = pa.array(texts, pa.binary()).view(pa.string())
    held = held if kind == pa.string() else held.dictionary_encode()
    rows = [ztf_alert(n, "ZTF24aaaaaaa") for n in range(len(texts))]
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA)
    pq.write_table(table.append_column("x", held), world.folder / "a.parquet")
    client = opened()
    asked = {"objectId": "ZTF24aaaaaaa", "output-format": form, "columns": "i:candid,d:x"}
    answer = get(client, "/api/v1/objects", **asked)
    assert answer.status_code == 200
    shown = {line["i:candid"]: line["d:x"] for line in read_rows(form, answer.data)}
    expected = {
        row["candid"]: allowed(form, ODD_TEXTS[text]) for row, text in zip(rows, texts, strict=True)
    }
    assert shown == expected


def allowed(form: str, text: str) -> str:
    """Return a text without what no file of this form may hold."""
    if form == "votable":
        return "".join(it if it >= " " or it == "\n" else "\ufffd" for it in text)
    return text.replace("\0", "\ufffd") if form == "csv" else text


def test_ids_and_bands_that_are_no_text_spoil_no_other_alert(world: World, opened: Open) -> None:
    rows = [lsst_alert(n) for n in range(3)]
    table = pa.Table.from_pylist(rows, LSST_SCHEMA)
    ids = [str(row["diaSourceId"]).encode() for row in rows]
    ids[1] = b"\xff\xfe"
    band = pa.array([b"\xff", b"r", b"g"]).view(pa.string())
    columns = {"diaSourceId": pa.array(ids).view(pa.string()), "band": band}
    columns |= {f"cutout{kind}": table[f"cutout{kind}"] for kind in KINDS}
    world.write("a.parquet", columns)
    client = opened()
    for path in ({}, {"hdfsPath": "a.parquet"}):
        for number in (0, 2):
            asked = {"diaSourceId": rows[number]["diaSourceId"], "output-format": "FITS", **path}
            answer = get(client, ROUTE, kind="Science", **asked)
            assert answer.data == rows[number]["cutoutScience"]
    (match,) = get(client, "/api/v1/identify", id=rows[0]["diaSourceId"]).json["matches"]
    assert match["epochs"][0]["band"] is None


# --- what stands for no object -----------------------------------------------------------------


@pytest.mark.parametrize("nothing", ["0", "-1", 0, -(2**63)])
def test_an_id_that_stands_for_none_is_refused(
    world: World, opened: Open, nothing: str | int
) -> None:
    alerts = [source(n, 0) for n in range(3)]
    layout = Layout(in_struct=False)
    write_layout(world.folder / "a.parquet", lsst_table(alerts, layout), layout)
    client = opened()
    for name in ("diaObjectId", "diaSourceId"):
        for path in ({}, {"hdfsPath": "a.parquet"}, {"epochs": "all"}):
            answer = client.post(ROUTE, json={name: nothing, "kind": "Science", **path})
            assert answer.status_code == 400
            assert "stand for none" in answer.json["detail"]
        batch = client.post(f"{ROUTE}/batch", json={name: [nothing], "kind": "Science"})
        assert orjson.loads(batch.data)["error"]["code"] == "invalid_parameter"
    for table in ("objects", "sources"):
        answer = get(client, f"/api/v1/{table}", diaObjectId=nothing)
        assert (answer.status_code, answer.json) == (200, [])  # as of any object that is not there
        assert "stand for none" in answer.headers["X-Hint"]
    assert get(client, "/api/v1/identify", id=nothing).status_code == 400


def moving_sources(count: int) -> dict[str, pa.Array]:
    """Return alerts of known asteroids: two of one, and others that nothing tells apart."""
    moving = [22_552_096_084_275_251, 22_552_096_084_275_251, *[0, None] * count][:count]
    fields = {
        "diaSourceId": pa.array(range(SOURCE, SOURCE + count)),
        "diaObjectId": pa.array([0, None] * (count // 2)),
        "ssObjectId": pa.array(moving, pa.int64()),
        "midpointMjdTai": pa.array(np.arange(count) + 60_900.0),
    }
    held = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    return {"diaSource": held, "cutoutScience": pa.array([b"x"] * count)}


def test_alerts_without_an_object_have_the_history_of_what_moves(
    world: World, opened: Open
) -> None:
    world.write("a.parquet", moving_sources(8))
    client = opened()
    for path in ({}, {"hdfsPath": "."}):
        for number in range(8):
            answer = get(client, "/api/v1/identify", id=SOURCE + number, **path).json
            (match,) = answer["matches"]
            together = range(2) if number < 2 else [number]
            shown = [epoch["diaSourceId"] for epoch in match["epochs"]]
            assert shown == [str(SOURCE + other) for other in together]
            for epoch in match["epochs"]:
                assert epoch["diaObjectId"] is None
                assert epoch.get("ssObjectId") == ("22552096084275251" if number < 2 else None)
    # No object's id is below zero, as the catalog keeps what moves.
    assert get(client, "/api/v1/identify", id="-22552096084275251").status_code == 400
    known = catalog.Catalog(world.settings.catalog, world.settings.archive.address)
    assert known.examples(LSST) == []
    known.close()


def test_a_hundred_thousand_alerts_without_an_object_are_not_looked_through(
    world: World, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 100_000
    world.write("a.parquet", moving_sources(count))
    client = opened()
    made: list[Entry] = []

    def make(*given: Any) -> Entry:
        made.append(make_entry(*given))
        return made[-1]

    monkeypatch.setattr(catalog, "make_entry", make)
    for number in (2, 3, count - 1):
        (match,) = get(client, "/api/v1/identify", id=SOURCE + number).json["matches"]
        assert len(match["epochs"]) == 1
    assert len(made) == 3  # of each the alert itself, looked up once
    assert get(client, ROUTE, diaObjectId="0", kind="Science").status_code == 400
    assert get(client, "/api/v1/sources", diaObjectId="0").json == []
    assert len(made) == 3
