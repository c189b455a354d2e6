"""Stamps -> pictures: the stamps of one alert as a panel, or of many on one shared scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from astropy.io import fits
from PIL import Image

from .arrays import NULL
from .epochs import Alert, Entry
from .errors import FactMissing, PictureTooLarge, StampTooLarge
from .geometry import Geometry, Matrix
from .labels import CROSSHAIR, Tile, draw_panel
from .render import Picture, Rendering, Scale, choose_scale, render, triptych
from .stamp import Stamp
from .surveys import Survey
from .views import AS_STORED, PSF, Pixels, View, read_view
from .wcs import find_matrix, find_sky, has_wcs, read_header

AS_IS, NORTH = "asis", "north"
ORIENTATIONS = (NORTH, AS_IS)
READABLE = 252
"""Pixels to which a stamp is enlarged at least, so that its labels can be read."""

RESHAPED_PART = 4
"""What is resized, turned or labelled may have this part of ``image_pixels``: a pixel of it takes
some 40 bytes while it is drawn."""


@dataclass(frozen=True)
class Frame:
    """The shape of a picture and what is written on it; the defaults change nothing."""

    size: int | None = None
    """Pixels of the longer side of the largest stamp."""
    zoom: float | None = None
    resample: str | None = None
    orient: str = AS_IS
    labels: tuple[str, ...] | None = None
    """Rows of ``LABELS``; None: as the format likes, which is none for a single alert."""
    readable: int = READABLE

    @property
    def is_plain(self) -> bool:
        return self.size is None and self.zoom is None and self.orient == AS_IS and not self.labels


@dataclass(frozen=True)
class Layout:
    """What a format needs to know of the request besides the stamps."""

    survey: Survey
    by_name: bool
    """Array answers: an object by column name (public dialect) or a plain list (internal)."""
    rendering: Rendering
    image_pixels: int
    """The most pixels that a stamp, and its picture, may have."""
    view: View = AS_STORED
    frame: Frame = field(default_factory=Frame)
    request: str = ""
    """The address that gives the answer again."""
    kinds: tuple[str, ...] = ()
    """What was asked for, of which an alert among many may lack some."""
    masked: str = NULL
    """Array answers: how a masked pixel is written."""


@dataclass(frozen=True)
class Panel:
    """The pictures of one alert's stamps, and how they were drawn."""

    shot: Alert
    tiles: tuple[Tile, ...]
    scales: tuple[Scale, ...]

    def picture(self, layout: Layout) -> Picture:
        """Return the tiles side by side: 8-bit, (ny, nx), (ny, nx, 3) or (ny, nx, 4)."""
        if layout.frame.labels:
            return np.asarray(
                draw_panel(self.tiles, self.shot.entry, layout.survey, layout.frame.labels)
            )
        pictures = [tile.picture for tile in self.tiles]
        return pictures[0] if len(pictures) == 1 else triptych(pictures)


def draw_panels(shots: Sequence[Alert], layout: Layout) -> list[Panel]:
    """Draw the alerts, several on one scale for each kind; all of them have the same kinds.

    Raises StampUnreadable, PlaneMissing, FactMissing, StampTooLarge, PictureTooLarge.
    """
    return _draw_panels(shots, _read_views(shots, layout), layout)


def _read_views(shots: Sequence[Alert], layout: Layout) -> list[list[Pixels]]:
    return [
        [read_view(stamp, layout.survey, layout.view, shot.entry) for stamp in shot.stamps]
        for shot in shots
    ]


def _draw_panels(
    shots: Sequence[Alert], pixels: Sequence[Sequence[Pixels]], layout: Layout
) -> list[Panel]:
    scales = [choose_scale(images, layout.rendering) for images in zip(*pixels, strict=True)]
    factor = find_factor([image for images in pixels for image in images], layout.frame)
    for images in pixels:
        _check_size(images, factor, layout)
    return [
        Panel(
            shot,
            tuple(
                _draw_tile(shot, place, image, layout, scale=scale, factor=factor)
                for place, (image, scale) in enumerate(zip(images, scales, strict=True))
            ),
            tuple(scales),
        )
        for shot, images in zip(shots, pixels, strict=True)
    ]


def find_factor(images: Sequence[Pixels], frame: Frame) -> float:
    """Return how much larger than the stamps their pictures are: the same for all of them."""
    longest: int = max(max(image.shape) for image in images)
    if frame.size is not None:
        return frame.size / longest
    if frame.zoom is not None:
        return frame.zoom
    # A whole number, so that every pixel of the stamp is a square.
    return float(max(math.ceil(frame.readable / longest), 1)) if frame.labels else 1.0


def _check_size(images: Sequence[Pixels], factor: float, layout: Layout) -> None:
    """Raise unless the pictures side by side have a size that is drawn."""
    total = sum(image.size for image in images)
    if total > layout.image_pixels:
        raise PictureTooLarge(
            f"the stamps have {total} pixels together, and a picture is drawn of at most "
            f"{layout.image_pixels}: ask for one kind, or for an array"
        )
    geometry = Geometry(factor)
    sizes = [geometry.size((image.shape[0], image.shape[1])) for image in images]
    height, width = max(ny for ny, _ in sizes), sum(nx for _, nx in sizes)
    plain = layout.frame.is_plain
    most = layout.image_pixels if plain else layout.image_pixels // RESHAPED_PART
    if height * width <= len(images) * most:
        return
    if plain:
        raise StampTooLarge(f"side by side, the stamps exceed {most} pixels each")
    raise PictureTooLarge(
        f"a picture of {width} x {height} pixels exceeds {most} for each stamp: "
        "give a smaller size or zoom"
    )


def _draw_tile(
    shot: Alert, place: int, pixels: Pixels, layout: Layout, *, scale: Scale, factor: float
) -> Tile:
    stamp, frame = shot.stamps[place], layout.frame
    if frame.is_plain:
        picture = render(pixels, layout.rendering, scale)
        return Tile(stamp.kind, picture, (0.0, 0.0), None)
    header = read_header(stamp)
    try:
        sky = find_matrix(header, layout.survey)
    except FactMissing:
        if frame.orient == NORTH:
            raise
        sky = None
    shape = (pixels.shape[0], pixels.shape[1])
    geometry = Geometry(factor, frame.resample, sky if frame.orient == NORTH else None)
    picture = render(pixels, layout.rendering, scale, geometry)
    x, y = shape[1] // 2, shape[0] // 2
    if CROSSHAIR in (frame.labels or ()):
        x, y = find_alert(header, shape, shot.entry, layout)
    drawn_sky = None if sky is None else geometry.drawn_sky(sky, shape)
    return Tile(stamp.kind, picture, geometry.place(x, y, shape), drawn_sky)


def find_stamp_matrix(stamp: Stamp, layout: Layout) -> Matrix | None:
    """Return the matrix of the stamp's pixels; None where it is not known."""
    try:
        return find_matrix(read_header(stamp), layout.survey)
    except FactMissing:
        return None


def find_alert(
    header: fits.Header, shape: tuple[int, int], entry: Entry | None, layout: Layout
) -> tuple[float, float]:
    """Return the pixel (x, y) where the alert is, counted from 0; the central one at worst.

    ``header`` is of the stamp's image, ``shape`` (ny, nx) of the plane that is drawn.
    """
    centre = float(shape[1] // 2), float(shape[0] // 2)
    if entry is None or layout.view.plane == PSF or math.isnan(entry.ra + entry.dec):
        return centre
    try:
        # Without a WCS of its own, the stamp is taken to show its alert in the central pixel.
        if not has_wcs(header):
            return centre
        return find_sky(header, layout.survey, entry).find_pixel(entry.ra, entry.dec) or centre
    except FactMissing:
        return centre


# --- many alerts -------------------------------------------------------------------------------

MOST_EPOCHS = 200
SHEET_READABLE = 189
FRAME_MILLISECONDS = 600
_PAPER = 16
_SHEET_LABELS = ("date", "band", "magnitude")


def draw_epochs(
    shots: Sequence[Alert], layout: Layout
) -> tuple[list[Picture], list[Panel], Layout]:
    """Draw each alert on one shared scale, with its date, all pictures of one size, RGB.

    Returns the pictures, what they were made of, and the layout with what was chosen for them.
    Raises PictureTooLarge for more than ``MOST_EPOCHS``, or more pixels in all than
    twice ``image_pixels``.
    """
    if len(shots) > MOST_EPOCHS:
        raise PictureTooLarge(
            f"{len(shots)} epochs are more than the {MOST_EPOCHS} that are drawn at once: "
            "narrow them by band or by date"
        )
    frame = layout.frame
    if frame.labels is None:
        frame = replace(frame, labels=_SHEET_LABELS)
    chosen = replace(layout, frame=replace(frame, readable=SHEET_READABLE))
    pixels = _read_views(shots, chosen)
    _check_total(pixels, chosen)
    panels = _draw_panels(shots, pixels, chosen)
    pictures = [panel.picture(chosen) for panel in panels]
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    return [_pad(picture, height, width) for picture in pictures], panels, chosen


def arrange_sheet(pictures: Sequence[Picture]) -> Picture:
    """Return pictures of one size as a grid about as wide as high, in reading order."""
    ny, nx = pictures[0].shape[:2]
    columns = min(max(round(math.sqrt(len(pictures) * ny / nx)), 1), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    gap = 6
    sheet = np.full((rows * (ny + gap) - gap, columns * (nx + gap) - gap, 3), _PAPER, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (ny + gap), number % columns * (nx + gap)
        sheet[top : top + ny, left : left + nx] = picture
    return sheet


def _check_total(pixels: Sequence[Sequence[Pixels]], layout: Layout) -> None:
    images = [image for epoch in pixels for image in epoch]
    geometry = Geometry(find_factor(images, layout.frame))
    sizes = [geometry.size((image.shape[0], image.shape[1])) for image in images]
    most = 2 * layout.image_pixels
    total = len(sizes) * max(ny for ny, _ in sizes) * max(nx for _, nx in sizes)
    if total > most:
        raise PictureTooLarge(
            f"{len(pixels)} epochs have {total} pixels in all, more than {most}: narrow them by "
            "band or by date, or give a smaller size or zoom"
        )


def _pad(picture: Picture, height: int, width: int) -> Picture:
    padded = np.full((height, width, 3), _PAPER, np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = np.asarray(
        Image.fromarray(picture).convert("RGB")
    )
    return padded
