"""Rates and colours: by hand at their limits, and against pandas' own difference and nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cutout_api.derived import DERIVED

NAMES = ("v:rate", "v:sigma(rate)", "v:g-r", "v:sigma(g-r)", "v:rate(g-r)", "v:sigma(rate(g-r))")
START = 2_459_000.5
Point = tuple[str, float, int, float, float]


def work_out(points: list[Point], **types: pa.DataType) -> list[dict[str, Any]]:
    """Return the six columns of alerts (object, days, band, magnitude, error), row by row."""
    names = ("i:objectId", "i:jd", "i:fid", "i:magpsf", "i:sigmapsf")
    columns = dict(zip(names, map(list, zip(*points, strict=True)), strict=True))
    columns["i:jd"] = [None if jd is None else START + jd for jd in columns["i:jd"]]
    inputs = {name: pa.array(values, types.get(name[2:])) for name, values in columns.items()}
    made: dict[Any, Any] = {}
    found = {name: DERIVED[name].values(inputs, made) for name in NAMES}
    assert all(values.type == pa.float64() for values in found.values())
    return pa.table(found).to_pylist()


def columns_of(points: list[Point], *names: str) -> list[tuple[float | None, ...]]:
    return [tuple(row[name] for name in names) for row in work_out(points)]


def test_one_alert_has_neither() -> None:
    assert work_out([("a", 0, 1, 18.0, 0.1)]) == [dict.fromkeys(NAMES)]


def test_two_alerts_of_a_band_have_one_rate_exactly() -> None:
    newest_first = [("a", 2.0, 1, 18.5, 0.3), ("a", 0.0, 1, 18.25, 0.4)]
    assert columns_of(newest_first, "v:rate", "v:sigma(rate)") == [(0.125, 0.25), (None, None)]
    assert columns_of(newest_first[::-1], "v:rate") == [(None,), (0.125,)]


def test_two_alerts_of_two_bands_have_one_colour_exactly() -> None:
    found = work_out([("a", 0.25, 2, 18.0, 0.4), ("a", 0.0, 1, 18.5, 0.3)])
    assert found == [dict.fromkeys(NAMES) | {"v:g-r": 0.5, "v:sigma(g-r)": 0.5}] * 2


def test_a_colour_changes_since_the_colour_before() -> None:
    points = [
        ("a", 0.0, 1, 18.5, 0.0),
        ("a", 0.125, 2, 18.0, 0.0),
        ("a", 2.0, 1, 19.5, 0.3),
        ("a", 2.125, 2, 18.0, 0.4),
        ("a", 2.25, 3, 17.0, 0.1),
    ]
    found = columns_of(points, "v:g-r", "v:rate(g-r)", "v:sigma(rate(g-r))")
    assert found == [(0.5, None, None)] * 2 + [(1.5, 0.5, 0.25)] * 3


def test_bands_further_apart_than_a_night_have_no_colour() -> None:
    points = [("a", 0.0, 1, 18.5, 0.1), ("a", 0.31, 2, 18.0, 0.1)]
    assert columns_of(points, "v:g-r") == [(None,)] * 2
    assert columns_of([points[0], ("a", 0.29, 2, 18.0, 0.1)], "v:g-r") == [(0.5,)] * 2


def test_of_two_as_near_the_earlier_makes_the_colour() -> None:
    points = [("a", 0.0, 2, 18.0, 0.1), ("a", 0.125, 1, 18.5, 0.1), ("a", 0.25, 2, 17.0, 0.1)]
    assert columns_of(points, "v:g-r") == [(0.5,)] * 3
    points = [("a", 0.0, 1, 18.0, 0.1), ("a", 0.125, 2, 17.5, 0.1), ("a", 0.25, 1, 20.0, 0.1)]
    assert columns_of(points, "v:g-r") == [(0.5,), (0.5,), (2.5,)]


def test_objects_and_bands_keep_to_themselves() -> None:
    points = [
        ("a", 0.0, 1, 18.0, 0.1),
        ("b", 0.1, 2, 17.0, 0.1),
        ("a", 1.0, 2, 19.0, 0.1),
        ("b", 1.0, 2, 18.0, 0.1),
        ("a", 2.0, 1, 20.0, 0.1),
        ("a", 2.0, 3, 15.0, 0.1),
        ("a", 3.0, 3, 16.0, 0.1),
    ]
    found = [row for (row,) in columns_of(points, "v:rate")]
    assert found == [None, None, None, pytest.approx(1 / 0.9), 1.0, None, None]
    assert [row for (row,) in columns_of(points, "v:g-r")] == [None] * 7


def test_no_time_between_is_no_rate_and_not_infinite() -> None:
    points = [("a", 0.0, 1, 18.0, 0.1), ("a", 0.0, 1, 19.0, 0.1), ("a", 0.0, 2, 17.0, 0.1)]
    for row in work_out(points):
        assert row["v:rate"] is None
        assert row["v:rate(g-r)"] is None
        assert row["v:g-r"] in (1.0, 2.0)


def test_what_is_not_known_makes_nothing() -> None:
    points: list[Any] = [
        ("a", 0.0, 1, None, 0.1),
        ("a", 1.0, 1, 18.0, None),
        ("a", None, 1, 19.0, 0.1),
        ("a", 2.0, 1, 19.0, 0.1),
        ("a", 2.0, None, 19.0, 0.1),
    ]
    found = columns_of(points, "v:rate", "v:sigma(rate)")
    assert found == [(None, None)] * 3 + [(1.0, None), (None, None)]


def test_a_float_of_32_bits_counts_as_it_is_shown() -> None:
    points = [("a", 0.0, 1, 18.1, 0.1), ("a", 1.0, 1, 18.3, 0.1)]
    (_, row) = work_out(points, magpsf=pa.float32(), sigmapsf=pa.float32(), fid=pa.int32())
    assert row["v:rate"] == 18.3 - 18.1
    assert row["v:sigma(rate)"] == np.hypot(0.1, 0.1)


def reference(frame: pd.DataFrame) -> pd.DataFrame:
    """Work the six columns out by pandas, an object after the other, a row after the other."""
    found = pd.DataFrame(np.nan, index=frame.index, columns=list(NAMES))
    for _, alerts in frame.sort_values("jd").groupby("object"):
        for _, band in alerts[alerts.fid < 3].groupby("fid"):
            days = band.jd.diff()
            found.loc[band.index, "v:rate"] = band.mag.diff() / days
            squares = band.err**2 + band.err.shift() ** 2
            found.loc[band.index, "v:sigma(rate)"] = np.sqrt(squares) / days
        blue, red = alerts[alerts.fid == 1], alerts[alerts.fid == 2]
        if blue.empty or red.empty:
            continue
        rows = []
        for _, one in blue.iterrows():
            other = red.loc[(red.jd - one.jd).abs().idxmin()]
            if abs(other.jd - one.jd) <= 0.3:
                rows.append((one.jd, one.mag - other.mag, np.sqrt(one.err**2 + other.err**2)))
        colours = pd.DataFrame(rows, columns=["jd", "colour", "err"])
        colours["rate"] = colours.colour.diff() / colours.jd.diff()
        squares = colours.err**2 + colours.err.shift() ** 2
        colours["rate_err"] = np.sqrt(squares) / colours.jd.diff()
        for place, one in alerts.iterrows():
            distances = (colours.jd - one.jd).abs()
            if len(distances) and distances.min() <= 0.3:
                nearest = colours.loc[distances.idxmin(), ["colour", "err", "rate", "rate_err"]]
                found.loc[place, list(NAMES[2:])] = nearest.to_numpy(float)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_numbers_are_those_of_pandas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 120
    frame = pd.DataFrame(
        {
            "object": rng.choice(["a", "b", "c"][: 1 + seed % 3], rows),
            "jd": START + np.cumsum(rng.exponential((0.05, 0.2, 0.5)[seed % 3], rows)),
            "fid": rng.choice([1, 2, 3], rows, p=[0.45, 0.45, 0.1]),
            "mag": rng.normal(18, 1, rows),
            "err": rng.uniform(0.01, 0.3, rows),
        }
    ).iloc[rng.permutation(rows)]
    expected = reference(frame)
    assert expected.notna().any().all()
    inputs = {
        f"i:{name}": pa.array(frame[column].to_numpy())
        for name, column in {
            "objectId": "object",
            "jd": "jd",
            "fid": "fid",
            "magpsf": "mag",
            "sigmapsf": "err",
        }.items()
    }
    made: dict[Any, Any] = {}
    for name in NAMES:
        found = DERIVED[name].values(inputs, made).to_numpy(zero_copy_only=False)
        np.testing.assert_allclose(found, expected[name].to_numpy(), rtol=1e-12, err_msg=name)
