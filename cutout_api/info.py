"""What is in a stamp, in numbers: its header, its place on the sky, its noise, its source.

Background and noise are astropy's sigma-clipped median and standard deviation (3 sigma), noise of
one pixel. The signal at the alert is the sum, above the background, of the pixels whose centres
are at most ``SIGNAL_RADIUS`` pixels from it; its S/N is that sum over noise * sqrt(pixels), which
counts the noise of the sky alone. Pixels that are masked or outside the stamp are left out.
The centroid is the first moment of what stands more than one noise above the background within
``APERTURE`` pixels of the alert, below it where that is what stands out.

The alert is where the stamp's own WCS has its position (LSST), and in the central pixel
(nx // 2, ny // 2) where the header has no WCS (ZTF), or the alert no position.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from .epochs import Alert, Entry
from .errors import FactMissing
from .hdus import WARNINGS, Hdu
from .panels import Layout, find_alert
from .planes import Role
from .recipe import SOFTWARE, describe_entry, north_angle
from .stamp import Stamp, find_image, find_layout, find_shape, read_pixels
from .surveys import Survey
from .views import find_planes
from .wcs import find_sky, pixel_scale, read_header

APERTURE = 5
SIGNAL_RADIUS = 3
_ENOUGH_PIXELS = 1_000_000
"""For the background: of a larger image so many are taken, evenly, or it takes seconds."""
_SATURATED_PIXELS = 4
_CARDS = ("SATURATE", "SATURVAL")
EDGE, NAN_AT_CENTRE, SATURATED, ODD_SHAPE = "edge", "nan_at_centre", "saturated", "odd_shape"
NO_PIXELS, CONSTANT = "no_finite_pixel", "constant"
FLAGS = {
    EDGE: "a whole row or column at the border is masked: the stamp reaches over the detector",
    NAN_AT_CENTRE: "the pixel at the alert is masked",
    SATURATED: "pixels at the top share one value, or reach the header's saturation level",
    ODD_SHAPE: "the stamp is not square",
    NO_PIXELS: "every pixel is masked",
    CONSTANT: "all pixels have one value",
}

Image = NDArray[np.float64]


def describe_shot(shot: Alert, layout: Layout) -> dict[str, Any]:
    """Return what is known of an alert and measured in its stamps, ready for JSON.

    Raises StampUnreadable.
    """
    return {
        "software": SOFTWARE,
        "survey": layout.survey.name,
        "alert": describe_entry(shot.entry, layout.survey),
        "stamps": [describe_stamp(stamp, shot.entry, layout) for stamp in shot.stamps],
        "flags": FLAGS,
    }


def describe_stamp(stamp: Stamp, entry: Entry | None, layout: Layout) -> dict[str, Any]:
    """Return header, WCS, shape, and what is measured in the image of one stamp."""
    pixels = np.asarray(read_pixels(stamp), np.float64)
    shape = (pixels.shape[0], pixels.shape[1])
    image = find_image(stamp)
    header = read_header(stamp)
    place = find_alert(header, shape, entry, layout)
    found = {
        "kind": stamp.kind,
        "bytes": len(stamp.fits),
        "shape": list(shape),
        "unit": _value(header.get("BUNIT")),
        "hdu": {"number": image.number, "name": image.name or None},
        "header": _cards(header),
        "planes": [
            _plane(hdu, role)
            for hdu, role in find_planes(stamp, layout.survey)
            if hdu.number != image.number
        ],
        "wcs": describe_wcs(header, layout.survey, entry),
        **measure(pixels, place, header),
    }
    offset = found["centroid_offset"]
    if offset is not None and found["wcs"] is not None:
        scale = found["wcs"]["pixel_scale"]
        found["centroid_offset"] = {**offset, "arcsec": round(offset["pixels"] * scale, 4)}
    return found


def _plane(hdu: Hdu, role: Role) -> dict[str, Any]:
    found = find_layout(hdu)
    axes = hdu.axes if found is None else found[1]
    return {
        "hdu": hdu.number,
        "name": hdu.name or None,
        "is": str(role) if find_shape(hdu) else None,
        "shape": list(axes[::-1]),
    }


def _cards(header: fits.Header) -> list[dict[str, Any]]:
    with WARNINGS, warnings.catch_warnings(action="ignore"):
        return [_card(card) for card in header.cards]


def _card(card: fits.Card) -> dict[str, Any]:
    return {
        "keyword": card.keyword,
        "value": _value(card.value),
        "comment": str(card.comment),
    }


def _value(value: Any) -> Any:
    """Return a header's value as JSON has it; ids among them may exceed 2^53."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value).strip()


def describe_wcs(header: fits.Header, survey: Survey, entry: Entry | None) -> dict[str, Any] | None:
    """Return where the stamp is on the sky, as ``wcs=fix`` would have it; None: not known.

    ``ctype``, ``crpix`` and ``crval`` (degrees) are of the header's own frame; all else is ICRS,
    evaluated at the centre of the image.
    """
    try:
        sky = find_sky(header, survey, entry)
    except FactMissing:
        return None
    wcs = sky.wcs.wcs
    return {
        "ctype": [str(name) for name in wcs.ctype],
        "crpix": [_value(float(number)) for number in wcs.crpix],
        "crval": [_value(float(number)) for number in wcs.crval],
        "matrix": [[float(number) for number in row] for row in sky.matrix],
        "centre": list(sky.centre),
        "pixel_scale": round(pixel_scale(sky.matrix), 6),
        "north_angle": north_angle(sky.matrix),
        "approximate": sky.approximate is not None,
        "corners": [[_value(ra), _value(dec)] for ra, dec in sky.corners],
    }


def measure(pixels: Image, place: tuple[float, float], header: fits.Header) -> dict[str, Any]:
    """Return what is measured in an image whose alert is at pixel ``place``, (x, y) from 0."""
    finite = np.isfinite(pixels)
    background, noise = _background(pixels[finite])
    found: dict[str, Any] = {
        "nan_fraction": round(1 - float(finite.mean()), 6),
        "background": _value(background),
        "noise": _value(noise),
        "minimum": None,
        "maximum": None,
        "at_alert": None,
        "brightest_pixel": None,
        # The brightest pixel again, under the names that it had first.
        "peak": None,
        "peak_snr": None,
        "centroid_offset": None,
        "flags": _flags(pixels, finite, place, header),
    }
    if not finite.any():
        return found
    with np.errstate(all="ignore"):
        above = pixels - background
    above[~finite] = 0.0
    # Without a copy of all that stands out, made positive.
    highest, lowest = int(above.argmax()), int(above.argmin())
    peak = min((highest, lowest), key=lambda place: (-abs(above.flat[place]), place))
    y, x = (int(n) for n in np.unravel_index(peak, above.shape))
    found["minimum"] = _value(float(pixels[finite].min()))
    found["maximum"] = _value(float(pixels[finite].max()))
    found["peak"] = {"x": x, "y": y, "value": _value(float(pixels[y, x]))}
    if noise > 0 and math.isfinite(noise):
        found["peak_snr"] = _value(round(float(above[y, x]) / noise, 3))
        found["centroid_offset"] = _centroid(above, noise, place)
    found["brightest_pixel"] = {**found["peak"], "snr": found["peak_snr"]}
    found["at_alert"] = _measure_alert(above, finite, noise, place)
    return found


def _background(values: Image) -> tuple[float, float]:
    from astropy.stats import sigma_clipped_stats

    if values.size == 0:
        return math.nan, math.nan
    values = values[:: math.ceil(values.size / _ENOUGH_PIXELS)]
    # Several threads must not change Python's filters of warnings at one time.
    with np.errstate(all="ignore"), WARNINGS, warnings.catch_warnings(action="ignore"):
        _, median, deviation = sigma_clipped_stats(values, sigma=3.0)
    return float(median), float(deviation)


def _measure_alert(
    above: Image, finite: NDArray[np.bool_], noise: float, place: tuple[float, float]
) -> dict[str, Any]:
    """Return the signal at the alert; its sum and S/N are null where each pixel is masked."""
    rows, columns = _near(place, above.shape, SIGNAL_RADIUS)
    distance = np.hypot(columns - place[0], rows[:, np.newaxis] - place[1])
    near = np.ix_(rows, columns)
    taken = finite[near] & (distance <= SIGNAL_RADIUS)
    count = int(taken.sum())
    total = float(above[near][taken].sum()) if count else math.nan
    usable = noise > 0 and math.isfinite(noise) and count > 0
    snr = total / (noise * math.sqrt(count)) if usable else math.nan
    return {
        "x": round(place[0], 3),
        "y": round(place[1], 3),
        "radius": SIGNAL_RADIUS,
        "pixels": count,
        "sum": _value(total),
        "snr": _value(round(snr, 3)),
    }


def _near(
    place: tuple[float, float], shape: tuple[int, ...], radius: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns within ``radius`` of a place, those that the image has."""
    columns, rows = (
        np.arange(max(math.ceil(at - radius), 0), min(math.floor(at + radius) + 1, length))
        for at, length in zip(place, shape[::-1], strict=True)
    )
    return rows, columns


def _centroid(above: Image, noise: float, place: tuple[float, float]) -> dict[str, float] | None:
    """Return how far the centroid of what stands out is from the alert, in pixels."""
    rows, columns = _near(place, above.shape, APERTURE)
    near = above[np.ix_(rows, columns)]
    sign = 1.0 if float(near.sum()) >= 0 else -1.0
    weights = np.where(sign * near > noise, sign * near, 0.0)
    total = float(weights.sum())
    if not 0 < total < math.inf:
        return None
    x = float((weights * columns).sum()) / total - place[0]
    y = float((weights * rows[:, np.newaxis]).sum()) / total - place[1]
    return {"x": round(x, 4), "y": round(y, 4), "pixels": round(math.hypot(x, y), 4)}


def _flags(
    pixels: Image, finite: NDArray[np.bool_], place: tuple[float, float], header: fits.Header
) -> list[str]:
    values = pixels[finite]
    borders = (finite[0], finite[-1], finite[:, 0], finite[:, -1])
    row, column = round(place[1]), round(place[0])
    saturation = next((header[name] for name in _CARDS if name in header), None)
    flags = {
        EDGE: any(not border.any() for border in borders),
        NAN_AT_CENTRE: not finite[min(row, len(finite) - 1), min(column, finite.shape[1] - 1)],
        ODD_SHAPE: pixels.shape[0] != pixels.shape[1],
        NO_PIXELS: values.size == 0,
    }
    if values.size:
        highest = values.max()
        flags[CONSTANT] = bool(values.min() == highest)
        flat_top = int((values == highest).sum()) >= _SATURATED_PIXELS
        reached = isinstance(saturation, int | float) and highest >= saturation
        flags[SATURATED] = not flags[CONSTANT] and (flat_top or reached)
    return [name for name in FLAGS if flags.get(name)]
