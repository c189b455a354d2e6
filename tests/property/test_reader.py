"""The reader agrees with pyarrow, whatever wrote the file and however."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutout_api import metrics
from cutout_api.index import FileIndex, build_index, pack_index, unpack_index
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import Archive, OpenFile
from cutout_api.surveys import LSST, ZTF, Survey

from ..samples import KINDS, LSST_SCHEMA, LSST_TOP_LEVEL_SCHEMA, ZTF_SCHEMA

CODECS = ("snappy", "zstd", "gzip", "lz4", "none", "brotli")


@st.composite
def ztf_tables(draw: st.DrawFn) -> pa.Table:
    """Tables with nulls at every level, repeated ids, and any bytes for stamps."""
    rows = draw(st.integers(0, 40))
    stamp = st.none() | st.fixed_dictionaries(
        {
            "fileName": st.none() | st.text(max_size=3),
            "stampData": st.none() | st.binary(max_size=30) | st.just(b"s" * 5_000),
        }
    )
    row = st.fixed_dictionaries(
        {
            "objectId": st.none() | st.sampled_from(["ZTF24aaaaaaa", "ZTF24aaaaaab", ""]),
            "candid": st.none() | st.integers(2**60, 2**60 + 20) | st.sampled_from([-1, 2**63 - 1]),
            "candidate": st.none()
            | st.fixed_dictionaries(
                {"jd": st.none() | st.floats(width=32), "fid": st.none() | st.just(1)}
            ),
            **{f"cutout{kind}": stamp for kind in KINDS},
        }
    )
    return pa.Table.from_pylist(draw(st.lists(row, min_size=rows, max_size=rows)), ZTF_SCHEMA)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Ways to write a file: codec, encoding, page and row group sizes, indexes, checksums."""
    return {
        "compression": draw(st.sampled_from(CODECS)),
        "use_dictionary": draw(st.booleans()),
        "row_group_size": draw(st.integers(1, 50)),
        "data_page_size": draw(st.sampled_from([1, 100, 2_000, 1 << 20])),
        "write_batch_size": draw(st.sampled_from([1, 3, 1024])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "write_page_index": draw(st.booleans()),
        "write_page_checksum": draw(st.booleans()),
        "write_statistics": draw(st.booleans()),
        "dictionary_pagesize_limit": draw(st.sampled_from([10, 1 << 20])),
    }


def open_index(path: Path) -> tuple[Archive, OpenFile, FileIndex]:
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(path.parent))))
    (file_id,) = archive.locate(path.name)
    with archive.open(file_id) as file:
        return archive, file, build_index(file)


def ways_to_read(file: OpenFile, index: FileIndex) -> dict[str, FileIndex]:
    """Return the same index as first built, complete, with blocks, and stored and loaded."""
    complete, mapped = build_index(file), build_index(file)
    complete.complete(file, blocks=False)
    mapped.complete(file, blocks=True)
    loaded = unpack_index(pack_index(mapped))
    assert loaded is not None
    assert loaded.file_id == file.id
    return {"built": index, "complete": complete, "mapped": mapped, "loaded": loaded}


def expected_row(rows: list[dict[str, Any]], keys: dict[str, Any]) -> int | None:
    """Return the newest matching row by plain Python: the independent path."""

    def order(number: int) -> tuple[float, int, int]:
        time = (rows[number]["candidate"] or {}).get("jd")
        known = time is not None and abs(time) < float("inf")
        candid = rows[number]["candid"]
        return (time if known else float("-inf"), -(2**63) if candid is None else candid, number)

    matching = [
        number
        for number, row in enumerate(rows)
        if all(row[name] == value for name, value in keys.items())
    ]
    return max(matching, key=order, default=None)


@given(table=ztf_tables(), layout=layouts())
@settings(max_examples=120)
def test_every_id_is_found_where_plain_python_finds_it(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, layout: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.parquet"
    pq.write_table(table, path, **layout)
    rows = table.to_pylist()
    for row in rows:  # -1 is what surveys write where there is no id
        row["candid"] = None if row["candid"] == -1 else row["candid"]
    archive, file, index = open_index(path)
    ways = ways_to_read(file, index)
    objects = {row["objectId"] for row in rows} - {None} | {"ZTF99zzzzzzz"}
    candids = {row["candid"] for row in rows} - {None} | {7, -1}
    sought = [{"objectId": name} for name in objects] + [{"candid": n} for n in candids]
    sought += [{"objectId": a, "candid": b} for a, b in itertools.product(objects, candids)][:20]
    for keys in sought:
        expected = expected_row(rows, keys)
        found = index.find(ZTF, keys)
        if expected is None:
            assert found is None
            continue
        assert found is not None
        place = found.row
        assert order_of(rows[place]) == order_of(rows[expected])
        assert all(known.find(ZTF, keys) == found for known in ways.values())
    slow = metrics.READ_BY.labels("row group")._value.get()
    for known, kind in itertools.product(ways.values(), KINDS):
        column = known.stamp_column(ZTF, kind)
        assert column is not None
        for place, row in enumerate(rows):
            stamp = row[f"cutout{kind}"]
            assert known.read_stamp(file, column, place) == (stamp and stamp["stampData"])
    assert metrics.READ_BY.labels("row group")._value.get() == slow  # nothing was left to pyarrow
    archive.close()


def order_of(row: dict[str, Any]) -> tuple[Any, Any]:
    return (row["candidate"] or {}).get("jd"), row["candid"]


@given(layout=layouts(), nulls=st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=60)
@pytest.mark.parametrize("schema", [LSST_SCHEMA, LSST_TOP_LEVEL_SCHEMA], ids=["nested", "top"])
def test_lsst_ids_are_found_nested_or_not(
    tmp_path_factory: pytest.TempPathFactory,
    schema: pa.Schema,
    layout: dict[str, Any],
    nulls: list[bool],
) -> None:
    rows = [
        {
            "diaSourceId": 2**61 + n,
            "diaSource": {
                "diaSourceId": 2**61 + n,
                "diaObjectId": None if null else 2**60 + n % 3,
                "midpointMjdTai": 60_000.0 - n,
            },
            "diaObject": None if null else {"diaObjectId": 2**60 + n % 3, "ra": 1.0},
            "cutoutScience": None if null else b"%d" % n,
            "cutoutTemplate": b"t",
            "cutoutDifference": b"d",
        }
        for n, null in enumerate(nulls)
    ]
    path = tmp_path_factory.mktemp("files") / "a.parquet"
    table = pa.Table.from_pylist(
        [{name: row[name] for name in schema.names} for row in rows], schema
    )
    pq.write_table(table, path, **layout)
    archive, file, index = open_index(path)
    for number, row in enumerate(rows):
        found = index.find(LSST, {"diaSourceId": row["diaSourceId"]})
        assert found is not None
        assert found.row == number
        column = index.stamp_column(LSST, "Science")
        assert column is not None
        assert index.read_stamp(file, column, number) == row["cutoutScience"]
    for number in range(3):
        object_id = 2**60 + number
        newest = [n for n, row in enumerate(rows) if row["diaSource"]["diaObjectId"] == object_id]
        found = index.find(LSST, {"diaObjectId": object_id})
        if newest:
            assert found is not None
            assert found.row == newest[0]
        else:
            assert found is None
    archive.close()


@pytest.mark.parametrize(
    ("column_type", "survey", "found"),
    [
        (pa.int64(), ZTF, True),
        (pa.uint64(), ZTF, True),
        (pa.string(), ZTF, True),
        (pa.large_string(), ZTF, True),
        (pa.binary(), ZTF, True),
        (pa.dictionary(pa.int32(), pa.string()), ZTF, True),
        # A float cannot tell this id from its neighbours, so the column is not one of ids.
        (pa.float64(), ZTF, False),
    ],
)
def test_ids_of_every_exact_type_are_found_and_floats_are_not_trusted(
    tmp_path: Path, column_type: pa.DataType, survey: Survey, found: bool
) -> None:
    ids = [2**60 + n for n in range(3)]
    values = pa.array(ids) if not pa.types.is_dictionary(column_type) else None
    if column_type in (pa.string(), pa.large_string(), pa.binary()) or values is None:
        values = pa.array([str(number) for number in ids])
    values = (
        values.dictionary_encode()
        if pa.types.is_dictionary(column_type)
        else values.cast(column_type, safe=False)
    )
    pq.write_table(
        pa.table({"candid": values, "cutoutScience": [b"a", b"b", b"c"]}), tmp_path / "a.parquet"
    )
    _, _, index = open_index(tmp_path / "a.parquet")
    location = index.find(survey, {"candid": ids[1]})
    assert (location is not None) == found
    if location:
        assert location.row == 1
        assert index.find(survey, {"candid": ids[1] + 9}) is None
