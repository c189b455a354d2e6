"""What is written and drawn on a picture for people: titles, crosshair, scale, compass, captions.

Titles stand above the tiles and captions below them, so that they hide nothing; crosshair, scale
bar and compass are outlined, so that they can be seen on black and on white.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .epochs import Entry
from .geometry import Matrix
from .quantities import NO_TIME, find_magnitude, find_utc
from .render import Picture
from .surveys import Survey
from .wcs import pixel_scale

TITLES, CROSSHAIR, SCALE, COMPASS = "titles", "crosshair", "scale", "compass"
ID, DATE, BAND, MAGNITUDE = "id", "date", "band", "magnitude"
LABELS = (TITLES, CROSSHAIR, SCALE, COMPASS, ID, DATE, BAND, MAGNITUDE)
CAPTIONS = (ID, DATE, BAND, MAGNITUDE)

_GAP = 4
_PAPER, _INK, _OUTLINE, _MARK = (16, 18, 22), (240, 240, 240), (0, 0, 0), (64, 224, 128)
_BARS = (0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_MJD_0 = datetime(1858, 11, 17)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """The picture of one stamp, and what is known of its place on the sky."""

    title: str
    picture: Picture
    place: tuple[float, float]
    """Where the alert is in the picture, from its left and upper edges."""
    sky: Matrix | None
    """Of the picture's pixels; None: not known, so that neither scale nor compass is drawn."""


def draw_panel(
    tiles: Sequence[Tile], entry: Entry | None, survey: Survey, labels: Sequence[str]
) -> Image.Image:
    """Return the tiles of one alert side by side, RGB, with the ``labels`` asked for."""
    width = sum(tile.picture.shape[1] for tile in tiles) + _GAP * (len(tiles) - 1)
    height = max(tile.picture.shape[0] for tile in tiles)
    widest = max(tile.picture.shape[1] for tile in tiles)
    font = _font(min(max(widest // 16, 10), 28))
    line = math.ceil(sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 12) + 2
    captions = _wrap(describe_alert(entry, survey, labels), font, width - 2 * _GAP)
    top = line if TITLES in labels else 0
    panel = Image.new("RGB", (width, top + height + line * len(captions)), _PAPER)
    draw = ImageDraw.Draw(panel)
    left = 0
    for tile in tiles:
        panel.paste(to_rgb(tile.picture), (left, top))
        if TITLES in labels:
            middle = left + tile.picture.shape[1] / 2
            draw.text((middle, top / 2), tile.title, _INK, font, anchor="mm")
        _mark(draw, tile, (left, top), labels, font)
        left += tile.picture.shape[1] + _GAP
    for number, text in enumerate(captions):
        draw.text((_GAP, top + height + line * (number + 0.5)), text, _INK, font, anchor="lm")
    return panel


def to_rgb(picture: Picture) -> Image.Image:
    """Return a picture without transparency: what is transparent is black."""
    image = Image.fromarray(picture)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")


def describe_alert(entry: Entry | None, survey: Survey, labels: Sequence[str]) -> list[str]:
    """Return the captions of an alert in the order of ``CAPTIONS``; what is not known is left out.

    A solar system source has no object, a forced one perhaps no flux. Only of its time it is said
    that it is not known.
    """
    if entry is None:
        return []
    texts = {
        ID: [str(name) for name in (entry.object_id, entry.alert_id) if name is not None],
        DATE: [_date(entry.time, survey)],
        BAND: _known(entry.band),
        MAGNITUDE: _known(_brightness(entry.brightness, survey)),
    }
    return [text for name in CAPTIONS if name in labels for text in texts[name]]


def format_time(time: float, survey: Survey) -> str | None:
    """Return a time of the survey's column as a date, to the second, in its time scale."""
    mjd = time - survey.mjd_offset
    if not -600_000 < mjd < 2_900_000:  # what a datetime holds; NaN is not in it either
        return None
    moment = _MJD_0 + timedelta(seconds=round(mjd * 86400))
    return f"{moment:%Y-%m-%d %H:%M:%S} {survey.time_scale.upper()}"


def _date(time: float, survey: Survey) -> str:
    """Return a time as a date in the survey's scale, and its UTC beside it where that differs."""
    date, utc = format_time(time, survey), find_utc(time, survey, 0)
    if date is None:
        return NO_TIME
    if utc is None or survey.time_scale == "utc":
        return date
    day, clock = utc[:-1].split("T")
    return f"{date} ({clock} UTC)" if date.startswith(day) else f"{date} ({day} {clock} UTC)"


def _known(text: str | None) -> list[str]:
    return [] if text is None else [text]


def _brightness(value: float, survey: Survey) -> str | None:
    if not math.isfinite(value):
        return None
    magnitude = find_magnitude(value, survey.brightness_unit)
    if survey.brightness_unit == "mag":
        return f"{magnitude:.2f} mag"
    flux = f"{value:.0f} {survey.brightness_unit}"
    return flux if magnitude is None else f"{magnitude:.2f} mag ({flux})"


def _wrap(texts: Sequence[str], font: Font, width: float) -> list[str]:
    """Return ``texts`` in as few lines as they fit, none broken unless it is too long alone."""
    lines: list[str] = []
    for text in texts:
        longer = f"{lines[-1]}  ·  {text}" if lines else text
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines += _break(text, font, width)
    return lines


def _break(text: str, font: Font, width: float) -> list[str]:
    words = text.split(" ")
    lines = [words[0]]
    for word in words[1:]:
        if font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _mark(
    draw: ImageDraw.ImageDraw,
    tile: Tile,
    corner: tuple[int, int],
    labels: Sequence[str],
    font: Font,
) -> None:
    ny, nx = tile.picture.shape[:2]
    if CROSSHAIR in labels:
        _draw_crosshair(draw, corner[0] + tile.place[0], corner[1] + tile.place[1], min(nx, ny))
    if tile.sky is None:
        return
    if SCALE in labels:
        _draw_scale(draw, corner, (nx, ny), pixel_scale(tile.sky), font)
    if COMPASS in labels:
        _draw_compass(draw, corner, (nx, ny), tile.sky, font)


def _stroke(draw: ImageDraw.ImageDraw, ends: Sequence[float], colour: tuple[int, int, int]) -> None:
    whole = [round(end) for end in ends]  # between pixels, a line is as often thin as thick
    draw.line(whole, _OUTLINE, 4)
    draw.line(whole, colour, 2)


def _draw_crosshair(draw: ImageDraw.ImageDraw, x: float, y: float, side: int) -> None:
    """Draw four ticks that leave the source itself free."""
    near, far = 0.06 * side, 0.14 * side
    for right, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ends = (x + near * right, y + near * down, x + far * right, y + far * down)
        _stroke(draw, ends, _MARK)


def _draw_scale(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    arcsec: float,
    font: Font,
) -> None:
    """Draw the longest round length that takes at most two fifths of the width."""
    fitting = [bar for bar in _BARS if bar / arcsec <= 0.4 * size[0]]
    if not fitting:
        return
    margin = max(size[0] // 25, 4)
    left, low = corner[0] + margin, corner[1] + size[1] - margin
    right = left + fitting[-1] / arcsec
    _stroke(draw, (left, low, right, low), _INK)
    draw.text(
        ((left + right) / 2, low - 4),
        f'{fitting[-1]:g}"',
        _INK,
        font,
        anchor="ms",
        stroke_width=1,
        stroke_fill=_OUTLINE,
    )


def _draw_compass(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    sky: Matrix,
    font: Font,
) -> None:
    """Draw arrows to the north and to the east, in the lower right corner."""
    arm = 0.11 * min(size)
    reach = arm + float(font.getlength("N")) + 4
    x, y = corner[0] + size[0] - reach - 2, corner[1] + size[1] - reach - 2
    arrows = {"N": np.linalg.solve(sky, (0.0, 1.0)), "E": np.linalg.solve(sky, (1.0, 0.0))}
    for letter, direction in arrows.items():
        right, down = direction / np.hypot(*direction)
        _stroke(draw, (x, y, x + arm * right, y + arm * down), _INK)
        out = arm + float(font.getlength("N")) / 2 + 2
        draw.text(
            (x + out * right, y + out * down),
            letter,
            _INK,
            font,
            anchor="mm",
            stroke_width=1,
            stroke_fill=_OUTLINE,
        )


@cache
def _font(size: int) -> Font:
    """Return the font that Pillow brings along."""
    return ImageFont.load_default(size)
