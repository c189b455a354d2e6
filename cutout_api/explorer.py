"""What the page at ``/`` is made of: surveys as it draws them, examples, what there is to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from .answer import CUTOUTS
from .catalog import Catalog
from .epochs import Entry
from .errors import CutoutError
from .presets import PRESETS
from .quantities import ZERO_POINTS, leap_seconds
from .recipe import describe_entry
from .request import IdentifyRequest, Meaning
from .surveys import CURVES, LSST, SURVEYS, ZTF, Survey

INFO, IDENTIFY = f"{CUTOUTS}/info", "/api/v1/identify"
EXAMPLES_SECONDS = 60.0
"""How long the examples are kept: the page is made without waiting for a catalog that hangs."""


def describe_surveys() -> dict[str, Any]:
    """Return the surveys by name, as the page's scripts need them."""
    return {
        survey.name: {
            "title": survey.name.upper(),
            "alertKey": survey.alert_key.name,
            "objectKey": survey.object_key.name,
            "movingKey": survey.moving_key and survey.moving_key.name,
            "timeName": survey.time_name,
            "timeScale": survey.time_scale.upper(),
            "mjdOffset": survey.mjd_offset,
            "bands": {str(held): name for held, name in survey.bands.items()},
            "unit": survey.brightness_unit,
            "lessIsBrighter": survey.brightness_unit == "mag",
            "zeroPoint": ZERO_POINTS.get(survey.brightness_unit),
            "leapSeconds": leap_seconds() if survey.time_scale == "tai" else (),
            "curve": asdict(CURVES[survey.name]),
        }
        for survey in SURVEYS
    }


def describe_identities(
    asked: IdentifyRequest, found: Sequence[tuple[Meaning, Sequence[Entry]]]
) -> dict[str, Any]:
    """Return what an id names, ready for JSON; ids are strings, for they exceed 2^53."""
    return {
        "id": asked.text,
        "matches": [
            {
                "survey": meaning.survey.name,
                "key": meaning.key.name,
                "value": str(meaning.value),
                "epochs": [describe_entry(entry, meaning.survey) for entry in entries],
            }
            for meaning, entries in found
        ],
    }


# --- examples ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """An object of the archive that may be looked at."""

    survey: str
    key: str
    id: str


class Examples:
    """The examples of one catalog, looked up anew every ``EXAMPLES_SECONDS``."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._found: tuple[Example, ...] = ()
        self._until = -1.0

    def get(self) -> tuple[Example, ...]:
        """Return objects of each survey; none where nothing is catalogued, or it cannot be told."""
        # Whoever comes while another looks is given what there was.
        if time.monotonic() < self._until or not self._lock.acquire(blocking=False):
            return self._found
        try:
            self._found = tuple(self._look_up())
            # An empty catalog may be filled any moment.
            self._until = time.monotonic() + (EXAMPLES_SECONDS if self._found else 1.0)
        except CutoutError:
            self._found, self._until = (), time.monotonic() + EXAMPLES_SECONDS / 4
        finally:
            self._lock.release()
        return self._found

    def _look_up(self) -> list[Example]:
        return [
            Example(survey.name, survey.object_key.name, str(object_id))
            for survey in SURVEYS
            for object_id in self._catalog.examples(survey)
        ]


# --- what there is to do -----------------------------------------------------------------------


@dataclass(frozen=True)
class Ability:
    """Something the service does, and where that can be seen."""

    name: str
    links: Sequence[tuple[str, str, Mapping[str, str]]]
    """Label, path, arguments; an argument ``{survey}`` stands for an example's id."""


def _cutouts(label: str, survey: Survey, **arguments: str) -> tuple[str, str, dict[str, str]]:
    """Return a link to a stamp; ``output_format`` stands for the name on the wire."""
    named = {name.replace("_format", "-format"): value for name, value in arguments.items()}
    return label, CUTOUTS, {survey.object_key.name: f"{{{survey.name}}}", "kind": "Science"} | named


def _formats(**arguments: str) -> list[tuple[str, str, dict[str, str]]]:
    names = ("PNG", "JPEG", "WebP", "GIF", "FITS", "array", "NPY", "NPZ")
    return [_cutouts(name, ZTF, output_format=name, **arguments) for name in names]


ABILITIES: Mapping[str, Sequence[Ability]] = {
    "Stamps": (
        Ability("One stamp, in each format", _formats()),
        Ability(
            "Science, Template and Difference in one answer",
            [
                _cutouts(name, ZTF, kind="All", output_format=name)
                for name in ("PNG", "FITS", "array", "NPY", "NPZ")
            ],
        ),
        Ability(
            "Which alert of an object",
            [
                *(_cutouts(which, ZTF, which=which) for which in ("latest", "first")),
                _cutouts("nearest to a date", ZTF, date="2024-11-14T05:30:00"),
            ],
        ),
        Ability(
            "A WCS in the FITS file",
            [_cutouts(s.name.upper(), s, output_format="FITS", wcs="fix") for s in SURVEYS],
        ),
        Ability(
            "Planes of LSST stamps, the sign of ZTF differences",
            [
                *(_cutouts(name, LSST, plane=name) for name in ("variance", "psf", "snr")),
                _cutouts("science - template", ZTF, kind="Difference", diffsign="sci-ref"),
            ],
        ),
    ),
    "Pictures": (
        Ability("Looks people know", [_cutouts(name, ZTF, preset=name) for name in PRESETS]),
        Ability(
            "Limits, stretch and colormap",
            [
                _cutouts("zscale", ZTF, interval="zscale"),
                _cutouts("percentiles", ZTF, interval="percentile", pmin="1", pmax="99.5"),
                _cutouts("asinh", ZTF, interval="minmax", a="0.05"),
                _cutouts("viridis", ZTF, colormap="viridis"),
                _cutouts("smoothed", ZTF, convolution_kernel="gauss"),
            ],
        ),
        Ability(
            "Larger, inverted, north up",
            [
                _cutouts("enlarged", ZTF, size="504"),
                _cutouts("lanczos", ZTF, size="504", resample="lanczos"),
                _cutouts("inverted", ZTF, interval="zscale", invert="1"),
                _cutouts("north up", LSST, orient="north", size="504"),
            ],
        ),
        Ability(
            "Titles, crosshair, scale bar, compass, date, magnitude",
            [_cutouts(s.name.upper(), s, kind="All", labels="all") for s in SURVEYS],
        ),
        Ability(
            "All epochs: contact sheet and animations",
            [
                _cutouts(label, ZTF, epochs="all", output_format=name)
                for label, name in (
                    ("sheet", "PNG"),
                    ("GIF", "GIF"),
                    ("WebP", "WebP"),
                    ("array", "array"),
                    ("FITS", "FITS"),
                )
            ],
        ),
        Ability("How a picture was drawn", [_cutouts("explain", ZTF, kind="All", explain="1")]),
    ),
    "Facts and tables": (
        Ability(
            "Header, WCS, noise and flags of the stamps",
            [(s.name.upper(), INFO, {s.object_key.name: f"{{{s.name}}}"}) for s in SURVEYS],
        ),
        Ability(
            "All alerts of an object",
            [
                *(
                    (name, "/api/v1/objects", {"objectId": "{ztf}", "output-format": name})
                    for name in ("json", "csv", "parquet", "votable")
                ),
                (
                    "with upper limits",
                    "/api/v1/objects",
                    {"objectId": "{ztf}", "withupperlim": "True"},
                ),
                ("with stamps", "/api/v1/objects", {"objectId": "{ztf}", "withcutouts": "True"}),
                ("LSST sources", "/api/v1/sources", {"diaObjectId": "{lsst}"}),
                ("LSST object", "/api/v1/objects", {"diaObjectId": "{lsst}"}),
            ],
        ),
        Ability(
            "Every column: type, unit, meaning",
            [("schema", "/api/v1/schema", {}), ("columns", "/api/v1/columns", {})],
        ),
        Ability("What an id names", [("identify", IDENTIFY, {"id": "{ztf}"})]),
    ),
}


def list_abilities(examples: Sequence[Example]) -> dict[str, list[dict[str, Any]]]:
    """Return the abilities with addresses that work on this archive.

    Without an example of the survey, an address is that of the documentation.
    """
    ids = {example.survey: example.id for example in reversed(examples)}

    def address(path: str, arguments: Mapping[str, str]) -> str:
        wanted = [survey.name for survey in SURVEYS if f"{{{survey.name}}}" in arguments.values()]
        if any(name not in ids for name in wanted):
            return "/docs"
        filled = {
            name: ids.get(value.strip("{}"), value) if value.startswith("{") else value
            for name, value in arguments.items()
        }
        return f"{path}?{urlencode(filled, safe=':')}" if filled else path

    return {
        title: [
            {
                "name": ability.name,
                "links": [(label, address(path, given)) for label, path, given in ability.links],
            }
            for ability in abilities
        ]
        for title, abilities in ABILITIES.items()
    }


def list_figures(examples: Sequence[Example]) -> list[dict[str, str]]:
    """Return every picture among the abilities, for a page of them all; none without examples."""
    pictures = list_abilities(examples)["Pictures"]
    return [
        {"name": ability["name"], "label": label, "address": address}
        for ability in pictures
        for label, address in ability["links"]
        if address.startswith(CUTOUTS)
        and not any(word in address for word in ("explain=", "format=array", "format=FITS"))
    ]
