"""What a picture was made from and how, so that it can be made again.

``explain=1`` answers it, pictures carry it. A recipe is plain JSON; the
ids in it are strings, for they exceed 2^53.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import orjson
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from . import __version__
from .epochs import Entry
from .geometry import Matrix
from .labels import format_time
from .panels import Layout, Panel, find_stamp_matrix
from .quantities import find_magnitude, find_mjd, find_utc
from .render import SIGMOID, Rendering, Scale
from .surveys import Survey

SOFTWARE = f"cutout_api {__version__}"
# EXIF's ImageDescription and Software, which JPEG and WebP carry.
_EXIF_DESCRIPTION, _EXIF_SOFTWARE = 0x010E, 0x0131


def describe_panels(panels: Sequence[Panel], layout: Layout) -> dict[str, Any]:
    """Return the recipe of the pictures of one alert, or of several drawn alike."""
    alerts = [describe_entry(panel.shot.entry, layout.survey) for panel in panels]
    if len(alerts) > 1:  # EXIF holds 64 kB
        told = (layout.survey.alert_key.name, "date")
        alerts = [{name: alert[name] for name in told if name in alert} for alert in alerts]
    recipe: dict[str, Any] = {
        "software": SOFTWARE,
        "request": layout.request,
        "survey": layout.survey.name,
        **({"alert": alerts[0]} if len(alerts) == 1 else {"alerts": alerts}),
        "kinds": [
            {"kind": stamp.kind, **describe_scale(scale, layout.rendering)}
            for stamp, scale in zip(panels[0].shot.stamps, panels[0].scales, strict=True)
        ],
        "rendering": describe_rendering(layout.rendering),
    }
    frame, view = layout.frame, layout.view
    recipe["view"] = {"plane": view.plane, "diffsign": view.diffsign}
    if not frame.is_plain:
        recipe["frame"] = {
            name: value
            for name in ("size", "zoom", "resample", "orient", "labels")
            if (value := getattr(frame, name))
        }
    return recipe


def explain(panels: Sequence[Panel], layout: Layout) -> dict[str, Any]:
    """Return the recipe with what takes a look at the headers: where north is, and the shapes."""
    recipe = describe_panels(panels, layout)
    tiles = panels[0].tiles
    stamps = panels[0].shot.stamps
    for kind, stamp, tile in zip(recipe["kinds"], stamps, tiles, strict=True):
        sky = find_stamp_matrix(stamp, layout) if tile.sky is None else tile.sky
        kind["picture"] = {"width": tile.picture.shape[1], "height": tile.picture.shape[0]}
        kind["north_angle"] = None if sky is None else north_angle(sky)
    return recipe


def north_angle(sky: Matrix) -> float:
    """Return the degrees from up to north, counter-clockwise, in a picture with row 0 on top.

    From -180, which is down, to less than 180.
    """
    determinant = float(sky[0, 0] * sky[1, 1] - sky[0, 1] * sky[1, 0])
    # Columns and rows of a step to the north.
    right, down = -sky[0, 1] / determinant, sky[0, 0] / determinant
    angle = round(math.degrees(math.atan2(-right, -down)), 4)
    # Down has two names, and so has up: adding 0 makes -0 a 0.
    return -180.0 if angle == 180 else angle + 0.0


def describe_entry(entry: Entry | None, survey: Survey) -> dict[str, Any]:
    """Return what is known of an alert; what is not is null."""
    if entry is None:
        return {}
    facts: dict[str, Any] = {
        survey.alert_key.name: _text(entry.alert_id),
        survey.object_key.name: _text(entry.object_id),
        survey.time_columns[0].rpartition(".")[2]: entry.time,
        "date": format_time(entry.time, survey),
        "mjd": find_mjd(entry.time, survey),
        "time_scale": survey.time_scale,
        "utc": find_utc(entry.time, survey),
        "band": entry.band,
        "brightness": entry.brightness,
        "brightness_unit": survey.brightness_unit,
        "magnitude": _round(find_magnitude(entry.brightness, survey.brightness_unit)),
        "ra": entry.ra,
        "dec": entry.dec,
        "positive": entry.positive,
    }
    if survey.moving_key is not None and entry.moving_id is not None:
        facts[survey.moving_key.name] = str(entry.moving_id)
    return {name: _finite(value) for name, value in facts.items()}


def describe_scale(scale: Scale, rendering: Rendering) -> dict[str, float | None]:
    """Return the numbers that the pixels were measured by, as they go into a manual interval."""
    names = ("mean", "std") if rendering.stretch == SIGMOID else ("vmin", "vmax")
    return {
        name: _finite(value) for name, value in zip(names, (scale.low, scale.high), strict=True)
    }


def describe_rendering(rendering: Rendering) -> dict[str, Any]:
    """Return the parameters of the drawing that are not left at nothing."""
    found = {item.name: getattr(rendering, item.name) for item in fields(rendering)}
    return {name: value for name, value in found.items() if value not in (None, False)}


def png_chunks(recipe: dict[str, Any]) -> PngInfo:
    """Return the text chunks of a PNG; the recipe is under ``Description``, as JSON."""
    chunks = PngInfo()
    chunks.add_text("Software", SOFTWARE)
    chunks.add_text("Description", orjson.dumps(recipe).decode("ascii", errors="replace"))
    return chunks


def exif(recipe: dict[str, Any]) -> bytes:
    """Return the EXIF of a JPEG or WebP; the recipe is its ImageDescription, as JSON."""
    tags = Image.Exif()
    tags[_EXIF_DESCRIPTION] = orjson.dumps(recipe).decode()
    tags[_EXIF_SOFTWARE] = SOFTWARE
    return tags.tobytes()


def _round(magnitude: float | None) -> float | None:
    return None if magnitude is None else round(magnitude, 4)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
