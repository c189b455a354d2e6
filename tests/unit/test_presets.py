"""Presets are parameters like any other, and give way to those that are given."""

from __future__ import annotations

import pytest

from cutout_api.presets import PRESETS, apply_preset
from cutout_api.request import PARAMETERS, parse_request

ALERT = {"hdfsPath": "x.parquet", "candid": "1", "kind": "Science", "return_type": "PNG"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_request_that_could_be_spelled_out(name: str) -> None:
    for parameter, value in PRESETS[name].values.items():
        assert PARAMETERS[parameter].parse(value) == value
    short = parse_request({**ALERT, "preset": name})
    long = parse_request({**ALERT, **PRESETS[name].values})
    assert short.rendering == long.rendering


@pytest.mark.parametrize(
    ("given", "applied"),
    [
        ({}, {}),
        ({"stretch": "log"}, {"stretch": "log"}),
        ({"preset": "ds9"}, {"interval": "minmax", "stretch": "linear"}),
        ({"preset": "ds9", "stretch": "log"}, {"interval": "minmax", "stretch": "log"}),
        (
            {"preset": "faint", "interval": "zscale"},
            {"interval": "zscale", "stretch": "asinh", "a": 0.02},
        ),
        (
            {"preset": "faint", "pmin": 1.0},
            {"interval": "percentile", "pmin": 1.0, "pmax": 99.9, "stretch": "asinh", "a": 0.02},
        ),
        (
            {"preset": "faint", "vmin": 1.0},
            {"interval": "manual", "vmin": 1.0, "stretch": "asinh", "a": 0.02},
        ),
        ({"preset": "finding-chart", "invert": False, "interval": "minmax"}, None),
    ],
    ids=str,
)
def test_what_is_given_replaces_what_the_preset_says_of_it(
    given: dict[str, object], applied: dict[str, object] | None
) -> None:
    found = apply_preset(given)
    found.pop("preset", None)
    expected = {"interval": "minmax", "stretch": "linear", "invert": False}
    assert found == (expected if applied is None else applied)
