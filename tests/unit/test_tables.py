"""How tables are read: work done together, rows picked out of row groups, names of columns."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutout_api.columns import (
    columns_of,
    describe,
    leaves,
    maps_of,
)
from cutout_api.errors import FileUnreadable
from cutout_api.pages import read_footer, read_rows
from cutout_api.reader import Reader
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import Archive
from cutout_api.surveys.lsst import LSST_OBJECTS, LSST_SOURCES
from cutout_api.surveys.ztf import ZTF_ALERTS
from cutout_api.table_formats import Head, write_votable
from cutout_api.table_request import parse_boolean, parse_columns

# --- together ----------------------------------------------------------------------------------


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(Settings(archive=ArchiveSettings(uri=str(tmp_path))))
    yield reader
    reader.close()


def test_results_come_in_the_order_of_the_calls(reader: Reader) -> None:
    def call(number: int) -> int:
        time.sleep(0.002 * (7 - number % 7))
        return number

    calls = [lambda n=n: call(n) for n in range(40)]
    assert reader.together(calls) == list(range(40))
    assert reader.together([]) == []


def test_so_many_calls_run_at_once_and_no_more(reader: Reader) -> None:
    running, most, lock = [0], [0], threading.Lock()
    three = threading.Barrier(3, timeout=20)

    def call() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        three.wait()
        with lock:
            running[0] -= 1

    reader.together([call] * 12, at_once=3)
    assert most[0] == 3


@pytest.mark.parametrize("place", [0, 5, 19])
def test_the_error_of_any_call_is_raised_and_the_rest_left_undone(
    reader: Reader, place: int
) -> None:
    done = []

    def call(number: int) -> None:
        if number == place:
            raise KeyError(number)
        time.sleep(0.005)
        done.append(number)

    with pytest.raises(KeyError):
        reader.together([lambda n=n: call(n) for n in range(2000)], at_once=4)
    assert len(done) < 1999


# --- rows --------------------------------------------------------------------------------------

STRUCT = pa.struct([("x", pa.int64()), ("deep", pa.struct([("y", pa.float32())]))])


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    rng = np.random.default_rng(5)
    rows = [
        {
            "id": int(rng.integers(2**62)),
            "s": None if n % 7 == 3 else {"x": n, "deep": None if n % 5 == 1 else {"y": n / 4}},
            "dotted.name": f"row {n}",
            "list": [{"a": n, "b": None}] * (n % 3),
            "bytes": rng.bytes(3_000),
        }
        for n in range(100)
    ]
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("bytes", pa.binary()),
            ("s", STRUCT),
            ("dotted.name", pa.string()),
            ("list", pa.list_(pa.struct([("a", pa.int32()), ("b", pa.int64())]))),
        ]
    )
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=40, compression="snappy")
    return table


def test_rows_are_those_that_pyarrow_reads(tmp_path: Path, table: pa.Table) -> None:
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(tmp_path))))
    (file_id,) = archive.locate("rows.parquet")
    with archive.open(file_id) as file:
        footer = read_footer(file)
        picked = np.array([39, 3, 3, 0, 17])
        names = ["s.deep.y", "id", "dotted.name", "s.x", "list"]
        found = read_rows(footer, 1, picked, names)
    expected = table.slice(40, 40).take(picked).to_pylist()
    assert found[1].to_pylist() == [row["id"] for row in expected]
    assert found[2].to_pylist() == [row["dotted.name"] for row in expected]
    assert found[3].to_pylist() == [row["s"] and row["s"]["x"] for row in expected]
    deep = [row["s"] and row["s"]["deep"] and row["s"]["deep"]["y"] for row in expected]
    assert found[0].to_pylist() == deep
    assert found[4].to_pylist() == [row["list"] for row in expected]
    archive.close()


def test_a_damaged_column_is_an_error_and_the_others_are_not(
    tmp_path: Path, table: pa.Table
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    place = chunk.data_page_offset + chunk.total_compressed_size - 3
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(tmp_path))))
    (file_id,) = archive.locate("rows.parquet")
    with archive.open(file_id) as file:
        footer = read_footer(file)
        assert read_rows(footer, 0, np.array([5]), ["s.x"])[0].to_pylist() == [5]
        with pytest.raises(FileUnreadable):
            read_rows(footer, 0, np.array([5]), ["id"])
    archive.close()


# --- names -------------------------------------------------------------------------------------


def test_columns_are_named_as_the_existing_service_names_them() -> None:
    schema = pa.schema(
        [
            ("candidate", pa.struct([("candid", pa.int64()), ("magpsf", pa.float32())])),
            ("objectId", pa.string()),
            ("candid", pa.int64()),
            ("publisher", pa.string()),
            ("prv_candidates", pa.list_(pa.struct([("jd", pa.float64())]))),
            ("cutoutScience", pa.struct([("fileName", pa.string()), ("stampData", pa.binary())])),
            ("mulens", pa.struct([("class_1", pa.string())])),
            ("lc_features_g", pa.struct([("mean", pa.float64())])),
            ("t2", pa.map_(pa.string(), pa.float32())),
            ("roid", pa.int32()),
        ]
    )
    found = columns_of(ZTF_ALERTS, schema)
    assert {name: column.path for name, column in found.items()} == {
        "i:objectId": "objectId",
        "i:candid": "candid",
        "i:publisher": "publisher",
        "i:magpsf": "candidate.magpsf",
        "d:mulens_class_1": "mulens.class_1",
        "d:lc_features_g_mean": "lc_features_g.mean",
        "d:roid": "roid",
        "d:lc_features_g": "lc_features_g",
    }
    assert maps_of(ZTF_ALERTS, schema) == {"d:t2_": "t2"}


def test_the_two_tables_of_lsst_show_their_own_struct_unasked() -> None:
    schema = pa.schema(
        [
            ("diaSourceId", pa.int64()),
            ("diaSource", pa.struct([("diaSourceId", pa.int64()), ("ra", pa.float64())])),
            ("diaObject", pa.struct([("diaObjectId", pa.int64()), ("ra", pa.float64())])),
            ("cutoutScience", pa.binary()),
            ("xm", pa.string()),
        ]
    )

    def named(view: Any) -> dict[str, bool]:
        return {name: column.asked for name, column in columns_of(view, schema).items()}

    assert named(LSST_SOURCES) == {
        "r:diaSourceId": False,
        "r:ra": False,
        "r:diaObject_diaObjectId": True,
        "r:diaObject_ra": True,
        "f:xm": False,
    }
    assert named(LSST_OBJECTS) == {
        "r:diaObjectId": False,
        "r:ra": False,
        "r:diaSource_diaSourceId": True,
        "r:diaSource_ra": True,
        "r:diaSourceId": True,
        "f:xm": False,
    }


def test_every_field_of_the_demo_schemas_is_described() -> None:
    from cutout_api.demo import read_schema

    lsst = [LSST_SOURCES, LSST_OBJECTS]
    for name, views in (("ztf", [ZTF_ALERTS]), ("lsst_v7", lsst), ("lsst_v10", lsst)):
        schema = read_schema(name)
        assert list(leaves(schema))
        for view in views:
            for column, found in columns_of(view, schema).items():
                if not found.asked and column[0] in "ir":
                    assert describe(view, column)[1], column


@pytest.mark.parametrize("value", [None, 2, 1.0, "yes", [], {}, "truee"])
def test_what_is_no_truth_value_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="True or False"):
        parse_boolean(value)


def test_columns_are_taken_once_and_in_order() -> None:
    assert parse_columns(" b, a ,b,,a") == ("b", "a")
    assert parse_columns("a,*") is None


def test_no_two_columns_of_a_votable_share_an_id() -> None:
    names = ["i:jd", "i_jd", "i-jd", "1st", "", "v:\u03b1", "i_jd_1", "i:jd "]
    schema = pa.schema([(name, pa.int32()) for name in names])
    written = b"".join(write_votable(Head(schema), [])).decode()
    ids = re.findall(r'<FIELD ID="([^"]*)"', written)
    assert ids[:3] == ["i_jd", "i_jd_1", "i-jd"]
    assert len(set(ids)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", one, re.ASCII) for one in ids)
