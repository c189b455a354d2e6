"""The looks people know, as rows of parameters: what ``preset`` stands for.

A parameter that is given besides the preset replaces the preset's. Sources: DS9's defaults
(its reference manual, Scale menu); the ZTF project's alert notebook (ztf-avro-alert, which draws
by APLpy's ``stretch='arcsinh'`` between its default percentiles); the public Fink API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .render import ASINH, MANUAL, MINMAX, PERCENTILE, SIGMOID, ZSCALE


@dataclass(frozen=True)
class Preset:
    """A look: what it is for, and the parameters that give it."""

    description: str
    values: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    "fink": Preset("the public Fink API's: what is drawn by default", {"stretch": SIGMOID}),
    "ds9": Preset("DS9 as it opens", {"interval": MINMAX, "stretch": "linear"}),
    "ds9-zscale": Preset("DS9's zscale button", {"interval": ZSCALE, "stretch": "linear"}),
    "ztf-notebook": Preset(
        "the ZTF project's alert notebook",
        {"interval": PERCENTILE, "pmin": 0.25, "pmax": 99.75, "stretch": ASINH, "a": 0.1},
    ),
    "finding-chart": Preset(
        "black stars on white, for print", {"interval": ZSCALE, "stretch": "linear", "invert": True}
    ),
    "faint": Preset(
        "hosts and tails beside a bright source",
        {"interval": PERCENTILE, "pmin": 5.0, "pmax": 99.9, "stretch": ASINH, "a": 0.02},
    ),
    "difference": Preset(
        "for kind=Difference: less is blue, more is red, the noise about white",
        {"interval": ZSCALE, "stretch": "linear", "colormap": "bwr"},
    ),
}

# A group is replaced as a whole: a preset's percentiles say nothing once an interval is given.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "interval": ("interval", "pmin", "pmax", "vmin", "vmax"),
    "stretch": ("stretch", "a"),
}


def apply_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with those of their ``preset`` where they say nothing themselves."""
    if "preset" not in values:
        return dict(values)
    preset = dict(PRESETS[values["preset"]].values)
    for head, group in GROUPS.items():
        limits_given = head == "interval" and {"vmin", "vmax"} & set(values)
        if head in values or limits_given:
            preset = {name: value for name, value in preset.items() if name not in group}
            if limits_given and head not in values:
                preset[head] = MANUAL
    return preset | dict(values)
