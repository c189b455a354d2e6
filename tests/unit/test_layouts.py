"""Names in any case, ids in any type, text that is none: what each is taken for."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutout_api.layouts import (
    FLOATS,
    INTEGERS,
    Leaves,
    clean_text,
    exact_integers,
    floats_of,
    stamps_of,
)
from cutout_api.surveys import LSST, ZTF

LARGE = 2**62 + 1


def leaves(path: Path, columns: dict[str, pa.Array | list[Any]]) -> Leaves:
    pq.write_table(pa.table(columns), path / "a.parquet")
    return Leaves(pq.read_metadata(path / "a.parquet"))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["candid"], "candid"),
        (["CandID"], "CandID"),
        (["candid", "CANDID"], "candid"),
        (["CandId", "CANDID"], None),
        (["other"], None),
    ],
)
def test_a_name_is_found_in_any_case_where_that_is_clear(
    tmp_path: Path, columns: list[str], found: str | None
) -> None:
    known = leaves(tmp_path, {name: [1] for name in columns})
    assert known.find(["candid"], INTEGERS) == found
    assert known.find_key(ZTF.alert_key) == found


def test_a_column_is_not_found_where_two_have_its_very_name(tmp_path: Path) -> None:
    """A dot in a name, and a struct: pyarrow writes the same path for both."""
    inner = pa.StructArray.from_arrays([pa.array([1.0])], names=["jd"])
    known = leaves(tmp_path, {"candidate.jd": [2.0], "candidate": inner})
    assert known.find(["candidate.jd"], FLOATS) is None


def test_the_reason_why_a_column_is_not_found_names_it(tmp_path: Path) -> None:
    known = leaves(tmp_path, {"CandId": [1], "CANDID": [2], "cutoutScience": [3]})
    assert known.doubt(["candid"]) == "it holds CandId and CANDID, which differ only in case"
    assert known.doubt(ZTF.stamp_column_names("Science")) == "it holds cutoutScience as INT64"
    assert known.doubt(ZTF.stamp_column_names("Template")) is None


def test_an_integer_is_taken_before_what_only_stands_for_it(tmp_path: Path) -> None:
    def struct(values: pa.Array) -> pa.Array:
        return pa.StructArray.from_arrays([values], names=["diaObjectId"])

    floats, decimals = pa.array([1.0]), pa.array([Decimal(1)], pa.decimal128(20, 0))
    for exact in ("diaSource", "diaObject"):
        others = {"diaObjectId": floats, "diaSource": struct(decimals), "diaObject": struct(floats)}
        known = leaves(tmp_path, {**others, exact: struct(pa.array([LARGE]))})
        assert known.find_key(LSST.object_key) == f"{exact}.diaObjectId"
    assert leaves(tmp_path, {"diaObjectId": floats}).find_key(LSST.object_key) == "diaObjectId"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pa.array([LARGE, None]), [LARGE, None]),
        (pa.array([2**64 - 1, 7], pa.uint64()), [None, 7]),
        (pa.array([Decimal(LARGE), None], pa.decimal128(20, 0)), [LARGE, None]),
        (pa.array([Decimal(10**19), Decimal(7)], pa.decimal128(20, 0)), [None, 7]),
        (pa.array([Decimal("7.5"), Decimal("8.0")], pa.decimal128(20, 1)), [None, 8]),
        # 2^53 is also what 2^53 + 1 becomes as a float.
        (pa.array([2.0**53 - 1, 2.0**53, float(LARGE), 1.5]), [2**53 - 1, None, None, None]),
        (pa.array([float("nan"), float("inf"), None, -3.0]), [None, None, None, -3]),
        (pa.array([str(LARGE), "007", " 7", "7_0", "\u0667", "9" * 5_000]), [LARGE] + [None] * 5),
        (pa.array([b"12", b"\xff"]), [12, None]),
        (pa.array([b"12"]).view(pa.string()).cast(pa.string_view()), [12]),
        (pa.array([b"12"], pa.binary(2)), [12]),
        (pa.array(["12", None]).dictionary_encode(), [12, None]),
        (pa.array([datetime(2024, 1, 1)]), [None]),
        (pa.array([True]), [None]),
    ],
    ids=lambda values: str(getattr(values, "type", "")),
)
def test_ids_are_exact_or_null(values: pa.Array, found: list[int | None]) -> None:
    taken = exact_integers(values)
    assert taken.type == pa.int64()
    assert taken.to_pylist() == found
    assert exact_integers(pa.concat_arrays([values, values]).slice(1)).to_pylist() == [
        *found[1:],
        *found,
    ]


def test_times_are_numbers_of_any_type_or_null() -> None:
    assert floats_of(pa.array([1.5], pa.float32())).to_pylist() == [1.5]
    assert floats_of(pa.array([Decimal("2460000.25")])).to_pylist() == [2460000.25]
    assert floats_of(pa.array([60_000])).to_pylist() == [60_000.0]
    assert floats_of(pa.array([datetime(2024, 1, 1)])).to_pylist() == [None]


ODD = pa.array([b"a\xff", None, b"ok"]).view(pa.string())
CLEAN = ["a\ufffd", None, "ok"]


def test_text_that_is_not_utf8_is_replaced_at_any_depth() -> None:
    assert clean_text(ODD).to_pylist() == CLEAN
    assert clean_text(ODD.slice(1)).to_pylist() == CLEAN[1:]
    assert clean_text(ODD.dictionary_encode()).to_pylist() == CLEAN
    structs = pa.StructArray.from_arrays(
        [ODD, pa.array([1, 2, 3])], names=["t", "n"], mask=pa.array([False, True, False])
    )
    assert clean_text(structs).to_pylist() == [
        {"t": "a\ufffd", "n": 1},
        None,
        {"t": "ok", "n": 3},
    ]
    lists = pa.ListArray.from_arrays([0, 2, 2, 3], structs, mask=pa.array([False, True, False]))
    assert clean_text(lists).to_pylist() == [
        [{"t": "a\ufffd", "n": 1}, None],
        None,
        [{"t": "ok", "n": 3}],
    ]
    assert clean_text(lists.slice(2)).to_pylist() == [[{"t": "ok", "n": 3}]]
    maps = pa.MapArray.from_arrays([0, 2, 3], pa.array(["a", "b", "c"]), ODD)
    assert clean_text(maps.slice(0, 1)).to_pylist() == [[("a", "a\ufffd"), ("b", None)]]
    assert clean_text(pa.array([1, 2])).equals(pa.array([1, 2]))


def test_a_list_that_is_no_bytes_spoils_no_other() -> None:
    lists = pa.array([[1, None], [300], [-1], [], None, [0, 255]], pa.list_(pa.int32()))
    *bad, empty, null, good = stamps_of(lists)
    assert all(isinstance(found, ValueError) for found in bad)
    assert "300 not in range" in str(bad[1])
    assert (empty, null, good) == (b"", None, b"\x00\xff")


def test_signed_bytes_are_the_bytes_that_java_means() -> None:
    lists = pa.array([[-1, 0, 127, -128]], pa.list_(pa.int8()))
    assert list(stamps_of(lists)) == [b"\xff\x00\x7f\x80"]
