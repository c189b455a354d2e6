"""Rows of different schemas in one table: nothing is lost, above all no id."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest

from cutout_api.joining import join

LARGE = 2**62 + 1

CASES = [
    (pa.array([1, None], pa.int32()), pa.array([LARGE], pa.int64()), pa.int64(), [1, None, LARGE]),
    (pa.array([0.5], pa.float32()), pa.array([0.1]), pa.float64(), [0.5, 0.1]),
    (pa.array([1], pa.int32()), pa.array([0.5]), pa.float64(), [1.0, 0.5]),
    (pa.array([LARGE]), pa.array([7.0, None, float("nan")]), pa.int64(), [LARGE, 7, None, None]),
    (pa.array([LARGE]), pa.array([1.5, float(LARGE)]), pa.int64(), [LARGE, None, None]),
    (pa.array([3]), pa.array([float(LARGE)]), pa.float64(), [3.0, float(LARGE)]),
    (pa.array([1], pa.uint64()), pa.array([-1]), pa.int64(), [1, -1]),
    (pa.array([2**64 - 1], pa.uint64()), pa.array([-1]), pa.string(), [str(2**64 - 1), "-1"]),
    (pa.array(["x"]), pa.array([LARGE]), pa.string(), ["x", str(LARGE)]),
    (pa.array(["x"]), pa.array(["y"]).dictionary_encode(), pa.string(), ["x", "y"]),
    (pa.array(["x"]), pa.array(["y"], pa.large_string()), pa.string(), ["x", "y"]),
    (pa.nulls(2), pa.array([LARGE]), pa.int64(), [None, None, LARGE]),
    (pa.array([True]), pa.array(["t"]), pa.string(), ["true", "t"]),
    (
        pa.array(["2021-01-01"]),
        pa.array([datetime(2021, 1, 2)], pa.timestamp("us")),
        pa.string(),
        ["2021-01-01", "2021-01-02 00:00:00.000000"],
    ),
]


@pytest.mark.parametrize(("first", "second", "kind", "values"), CASES)
def test_types_meet_in_one_that_loses_nothing(
    first: pa.Array, second: pa.Array, kind: pa.DataType, values: list[object]
) -> None:
    joined = join([{"x": first}, {"x": second}], [len(first), len(second)])["x"]
    assert joined.type == kind
    assert joined.to_pylist() == values


def test_a_column_that_a_part_lacks_is_null_there() -> None:
    parts = [{"a": pa.array([1, 2])}, {"b": pa.array(["x"])}, {}]
    joined = join(parts, [2, 1, 3])
    assert joined["a"].to_pylist() == [1, 2, None, None, None, None]
    assert joined["b"].to_pylist() == [None, None, "x", None, None, None]
    assert list(joined) == ["a", "b"]


def test_no_parts_are_no_columns() -> None:
    assert join([], []) == {}
