"""What the page at ``/`` is made of: surveys as it draws them, examples, what there is to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from .surveys import CURVES, KEYS, SURVEYS, TABLES, Survey, list_titles

INFO, IDENTIFY = f"{CUTOUTS}/info", "/api/v1/identify"
EXAMPLES_SECONDS = 60.0
"""How long the examples are kept: the page is made without waiting for a catalog that hangs."""


def describe_surveys() -> dict[str, Any]:
    """Return the surveys by name, as the page's scripts need them."""
    return {
        survey.name: {
            "title": survey.title,
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


def group_keys() -> list[tuple[str, list[str]]]:
    """Return the names of keys, those of the same surveys together, with the surveys' titles."""
    groups: dict[str, list[str]] = {}
    for name, meant in KEYS.items():
        title = list_titles([survey for survey, _ in meant], "or")
        groups.setdefault(title, []).append(name)
    return list(groups.items())


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
class Link:
    """A request that shows something; the id of an example is added."""

    label: str
    path: str = CUTOUTS
    """Of the service; empty: the table of the survey's alerts."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    survey: Survey | None = None
    """Of which an example is to be; None: of any."""
    id_name: str | None = None
    """The argument that takes the id, where that is not the key of the survey's objects."""


@dataclass(frozen=True)
class Ability:
    """Something the service does, and where that can be seen."""

    name: str
    links: Sequence[Link]


ANYTHING = "anything"
"""Stands for no id at all."""


def _cutouts(label: str, survey: Survey | None = None, **arguments: str) -> Link:
    """Return a link to a stamp; ``output_format`` stands for the name on the wire."""
    named = {name.replace("_format", "-format"): value for name, value in arguments.items()}
    return Link(label, CUTOUTS, {"kind": "Science"} | named, survey)


def _formats(*names: str, kind: str = "Science") -> list[Link]:
    return [_cutouts(name, kind=kind, output_format=name) for name in names]


def _planes() -> Ability:
    """Return what stamps of some surveys hold besides the image, or with another sign."""
    with_planes = [survey for survey in SURVEYS if survey.planes]
    with_signs = [survey for survey in SURVEYS if survey.difference_follows_sign]
    links = [
        *(_cutouts(name, it, plane=name) for it in with_planes for name in (*it.planes, "snr")),
        _cutouts("science - template", with_signs[0], kind="Difference", diffsign="sci-ref"),
    ]
    return Ability(
        f"Planes of {list_titles(with_planes)} stamps, "
        f"the sign of {list_titles(with_signs)} differences",
        links,
    )


def _tables() -> Ability:
    links = [
        Link(name, "", {"output-format": name}) for name in ("json", "csv", "parquet", "votable")
    ]
    with_history = next((view for view in TABLES["objects"] if view.history), None)
    if with_history:
        arguments = {"withupperlim": "True"}
        links.append(Link("with upper limits", "/api/v1/objects", arguments, with_history.survey))
    links.append(Link("with stamps", "", {"withcutouts": "True"}))
    links += [
        Link(view.title.removeprefix("the "), f"/api/v1/{route}", {}, view.survey)
        for route, views in TABLES.items()
        for view in views
    ]
    return Ability("All alerts of an object", links)


# Those that are turned as they were observed show most of it.
_TURNED = next((survey for survey in SURVEYS if survey.sky_matrix is None), None)

ABILITIES: Mapping[str, Sequence[Ability]] = {
    "Stamps": (
        Ability(
            "One stamp, in each format",
            _formats("PNG", "JPEG", "WebP", "GIF", "FITS", "array", "NPY", "NPZ"),
        ),
        Ability(
            "Science, Template and Difference in one answer",
            _formats("PNG", "FITS", "array", "NPY", "NPZ", kind="All"),
        ),
        Ability(
            "Which alert of an object",
            [
                *(_cutouts(which, which=which) for which in ("latest", "first")),
                _cutouts("nearest to a date", date="2024-11-14T05:30:00"),
            ],
        ),
        Ability(
            "A WCS in the FITS file",
            [_cutouts(s.title, s, output_format="FITS", wcs="fix") for s in SURVEYS],
        ),
        _planes(),
    ),
    "Pictures": (
        Ability("Looks people know", [_cutouts(name, preset=name) for name in PRESETS]),
        Ability(
            "Limits, stretch and colormap",
            [
                _cutouts("zscale", interval="zscale"),
                _cutouts("percentiles", interval="percentile", pmin="1", pmax="99.5"),
                _cutouts("asinh", interval="minmax", a="0.05"),
                _cutouts("viridis", colormap="viridis"),
                _cutouts("smoothed", convolution_kernel="gauss"),
            ],
        ),
        Ability(
            "Larger, inverted, north up",
            [
                _cutouts("enlarged", size="504"),
                _cutouts("lanczos", size="504", resample="lanczos"),
                _cutouts("inverted", interval="zscale", invert="1"),
                _cutouts("north up", _TURNED, orient="north", size="504"),
            ],
        ),
        Ability(
            "Titles, crosshair, scale bar, compass, date, magnitude",
            [_cutouts(s.title, s, kind="All", labels="all") for s in SURVEYS],
        ),
        Ability(
            "All epochs: contact sheet and animations",
            [
                _cutouts(label, epochs="all", output_format=name)
                for label, name in (
                    ("sheet", "PNG"),
                    ("GIF", "GIF"),
                    ("WebP", "WebP"),
                    ("array", "array"),
                    ("FITS", "FITS"),
                )
            ],
        ),
        Ability("How a picture was drawn", [_cutouts("explain", kind="All", explain="1")]),
    ),
    "Facts and tables": (
        Ability(
            "Header, WCS, noise and flags of the stamps",
            [Link(s.title, INFO, {}, s) for s in SURVEYS],
        ),
        _tables(),
        Ability(
            "Every column: type, unit, meaning",
            [
                Link("schema", "/api/v1/schema", id_name=ANYTHING),
                Link("columns", "/api/v1/columns", id_name=ANYTHING),
            ],
        ),
        Ability("What an id names", [Link("identify", IDENTIFY, id_name="id")]),
    ),
}


def list_abilities(examples: Sequence[Example]) -> dict[str, list[dict[str, Any]]]:
    """Return the abilities with addresses that work on this archive.

    Without an example of the survey, an address is that of the documentation.
    """
    ids = {example.survey: example.id for example in reversed(examples)}
    shown = next((survey for survey in SURVEYS if survey.name in ids), None)

    def address(link: Link) -> str:
        if link.id_name == ANYTHING:
            return link.path
        survey = link.survey or shown
        if survey is None or survey.name not in ids:
            return "/docs"
        name = link.id_name or survey.object_key.name
        arguments = {name: ids[survey.name], **link.arguments}
        path = link.path or CURVES[survey.name].table
        return f"{path}?{urlencode(arguments, safe=':')}"

    return {
        title: [
            {
                "name": ability.name,
                "links": [(link.label, address(link)) for link in ability.links],
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
