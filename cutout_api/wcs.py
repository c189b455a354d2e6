"""Where a stamp is on the sky: its WCS, evaluated at the stamp, and the cards its header lacks.

An LSST header has CRPIX, CRVAL and PC, but no CTYPE, so that its WCS is not one of the sky; a
ZTF header has nothing, but every ZTF stamp is oriented and scaled alike (``Survey.sky_matrix``),
and shows its alert in the central pixel. A header that has a WCS of its own is believed, whatever
the survey.

All positions are ICRS, and so are north and east. They are evaluated where the stamp is: in most
projections, and in every other frame, the matrix of the header holds at its reference only, which
may be degrees away.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from .celestial import Cards, has_place, make_wcs, read_frame, select_cards
from .epochs import Entry
from .errors import FactMissing
from .geometry import Matrix
from .hdus import make_header
from .stamp import Stamp, find_image, image_cards
from .surveys import Survey

if TYPE_CHECKING:
    from astropy.wcs import WCS

Vectors = NDArray[np.float64]
"""(n, 3): unit vectors to places on the sky, ICRS."""

_PROJECTION = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"}
_SCALES = ("PC", "CD", "CDELT")
_HISTORY_WIDTH = 72
_LARGEST_PIXEL = 0.5
"""Degrees. The matrix of a header that has none is a degree for each pixel."""
_LARGEST_DISTORTION = 20.0
"""A pixel that is more than so much longer than it is wide is a mistake in the header, or too
near to the edge of its projection: a plate carree has 20 at 87 degrees from its equator."""
_LARGEST_BEND = 0.02
"""The cubes QSC and XPH bend at the middle of a face, where no matrix holds for all directions."""
_AROUND = np.array(
    [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)], np.float64
)
_STEPS = 20
_FOUND = 1e-3
"""Pixels by which a place that was sought may be missed."""


def read_header(stamp: Stamp) -> fits.Header:
    """Return the header of the image's HDU, its cards mended; raises StampUnreadable.

    Of a compressed image it is the header that the image would have by itself.
    """
    return make_header(image_cards(find_image(stamp)))


# --- the sky of an image ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sky:
    """Where the pixels of an image are. Pixel (x, y) = (0, 0) is the centre of the first."""

    wcs: WCS
    frame: Any
    """astropy's frame of the WCS; None: ICRS."""
    shape: tuple[int, int]
    """(ny, nx)"""
    approximate: Matrix | None = None
    """The survey's matrix, where the header has no WCS."""

    def find_positions(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return RA and Dec in degrees; NaN where a pixel is not on the sky."""
        try:
            first, second = self.wcs.all_pix2world(x, y, 0)
        except ValueError:  # of wcslib: parameters that the projection cannot have there
            return np.full(len(x), np.nan), np.full(len(x), np.nan)
        longitude, latitude = (first, second) if self.wcs.wcs.lng == 0 else (second, first)
        if self.frame is None:
            return longitude, latitude
        from astropy.coordinates import SkyCoord

        with np.errstate(all="ignore"):
            latitude = np.clip(latitude, -90.0, 90.0)  # rounded, a pole may lie beyond itself
            place = SkyCoord(longitude, latitude, unit="deg", frame=self.frame).icrs
        return place.ra.deg, place.dec.deg

    @property
    def centre(self) -> tuple[float, float]:
        """RA and Dec of the centre of the image, degrees."""
        ra, dec = self.find_positions(*np.array([[middle] for middle in self._middle]))
        return float(ra[0]), float(dec[0])

    @property
    def corners(self) -> list[tuple[float, float]]:
        """RA and Dec of the outer corners of the pixels at the corners, round the image."""
        ny, nx = self.shape
        x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
        y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        return [(float(ra), float(dec)) for ra, dec in zip(*self.find_positions(x, y), strict=True)]

    @cached_property
    def matrix(self) -> Matrix:
        """Degrees (east, north) for one pixel along (columns, rows), at the centre.

        Raises ValueError where there is none that holds for the stamp.
        """
        if self.approximate is not None:
            return self.approximate
        plane = self._look_around(*self._middle)
        if not plane.bend < _LARGEST_BEND:  # nor NaN
            raise ValueError("no matrix holds for the whole stamp, or it is not on the sky")
        return plane.matrix

    def find_pixel(self, ra: float, dec: float) -> tuple[float, float] | None:
        """Return the pixel (x, y) at a place in the image; None where it is not in it."""
        sought = _vectors(np.array([ra]), np.array([dec]))[0]
        x, y = self._middle
        for _ in range(_STEPS):
            # Newton's method on the way from pixels to the sky, which any frame and distortion has.
            plane = self._look_around(x, y)
            here, *axes = plane.axes
            if not (plane.bend < _LARGEST_BEND and sought @ here > 0):
                return None
            step_x, step_y = np.linalg.solve(plane.matrix, np.degrees(np.array(axes) @ sought))
            x, y = x + float(step_x), y + float(step_y)
            if math.hypot(step_x, step_y) < _FOUND:
                inside = -0.5 <= x < self.shape[1] - 0.5 and -0.5 <= y < self.shape[0] - 0.5
                return (x, y) if inside else None
        return None

    @property
    def _middle(self) -> tuple[float, float]:
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    def _look_around(self, x: float, y: float) -> Plane:
        """Return the tangent plane at a pixel, by points a quarter of the image away from it."""
        steps = max(min(self.shape) / 4, 0.5) * _AROUND
        ra, dec = self.find_positions(x + steps[:, 0], y + steps[:, 1])
        vectors = _vectors(ra, dec)
        alpha, delta = math.radians(ra[0]), math.radians(dec[0])
        east = (-math.sin(alpha), math.cos(alpha), 0.0)
        north = (
            -math.sin(delta) * math.cos(alpha),
            -math.sin(delta) * math.sin(alpha),
            math.cos(delta),
        )
        axes = np.array([vectors[0], east, north])
        offsets = np.degrees(vectors @ axes[1:].T)
        matrix = np.linalg.lstsq(steps, offsets, rcond=None)[0].T
        missed = np.hypot(*(offsets - steps @ matrix.T)[1:].T)
        with np.errstate(all="ignore"):
            bend = float(np.max(missed / np.hypot(*offsets[1:].T)))
        return Plane(axes, matrix, bend)


def _vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> Vectors:
    alpha, delta = np.radians(ra), np.radians(dec)
    return np.stack(
        [np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], 1
    )


class Plane(NamedTuple):
    """The sky around a pixel."""

    axes: Vectors
    """To the pixel itself, and from there to the east and to the north."""
    matrix: Matrix
    bend: float
    """How far the pixels around it are from where the matrix says, in parts of the way."""


def find_sky(header: fits.Header, survey: Survey, entry: Entry | None) -> Sky:
    """Return where the image of a header is, which is completed where it lacks cards.

    Raises FactMissing where neither the header nor the alert says it.
    """
    cards = _select(header)
    added = _find_missing(cards, header, survey, entry)
    return _evaluate({**cards, **added}, header, None if has_place(cards) else survey)


def find_matrix(header: fits.Header, survey: Survey) -> Matrix:
    """Return the degrees (east, north) for one pixel along (columns, rows) of an image.

    Raises FactMissing where the header should say it and does not.
    """
    if survey.sky_matrix is not None and not has_wcs(header):
        return np.array(survey.sky_matrix)
    return find_sky(header, survey, None).matrix


def has_wcs(header: fits.Header) -> bool:
    """Whether the header says anything of where its pixels are. Raises FactMissing."""
    return has_place(_select(header))


def pixel_scale(matrix: Matrix) -> float:
    """Return the side of a pixel in arcsec."""
    return math.sqrt(abs(float(np.linalg.det(matrix)))) * 3600


def _select(header: fits.Header) -> Cards:
    try:
        return select_cards(header)
    except ValueError as error:
        raise _unusable(error) from error


def _evaluate(cards: Cards, header: fits.Header, survey: Survey | None) -> Sky:
    """Return the sky of complete cards; ``survey`` where they are approximate."""
    try:
        shape = int(header["NAXIS2"]), int(header["NAXIS1"])
        matrix = None if survey is None else np.array(survey.sky_matrix)
        sky = Sky(make_wcs(cards, shape), find_frame(*read_frame(cards)), shape, matrix)
        _check_matrix(sky.matrix)
    except (ValueError, KeyError, TypeError, ArithmeticError, MemoryError) as error:
        raise _unusable(error) from error
    return sky


def _unusable(error: Exception) -> FactMissing:
    return FactMissing(f"the stamp's header has a WCS that cannot be used: {error}")


@lru_cache(maxsize=32)
def find_frame(system: str, name: str, equinox: float | None) -> Any:
    """Return astropy's frame of what ``read_frame`` found; None: ICRS, which needs no way."""
    if system == "RA--" and name == "ICRS":
        return None
    from astropy import coordinates

    if system in ("GLON", "SLON"):
        return coordinates.Galactic() if system == "GLON" else coordinates.Supergalactic()
    if system == "ELON":
        year = _year(2000.0 if equinox is None else equinox, "jyear")
        return coordinates.BarycentricMeanEcliptic(equinox=year)
    if name == "FK5":
        return coordinates.FK5(equinox=_year(2000.0 if equinox is None else equinox, "jyear"))
    year = _year(1950.0 if equinox is None else equinox, "byear")
    made = coordinates.FK4 if name == "FK4" else coordinates.FK4NoETerms
    return made(equinox=year)


def _year(year: float, form: str) -> Any:
    from astropy.time import Time

    return Time(year, format=form, scale="tt")


def _check_matrix(matrix: Matrix) -> None:
    """Raise ValueError for a matrix that turns pixels into lines, or into nothing."""
    most, least = (float(side) for side in np.linalg.svd(matrix, compute_uv=False))
    if not (least > 0 and most <= _LARGEST_DISTORTION * least and most < _LARGEST_PIXEL):
        raise ValueError("its pixels are too large, or have no width")


# --- the cards that are missing -----------------------------------------------------------------


def complete_header(header: fits.Header, survey: Survey, entry: Entry | None) -> bool:
    """Add what the header of an image lacks to be a celestial WCS, and say so in HISTORY.

    Cards that are there are left as they are, and a header that is celestial already gets none.
    Returns whether there was something to add.
    Raises FactMissing where neither the header nor the alert says where the image is.
    """
    cards = _select(header)
    added = _find_missing(cards, header, survey, entry)
    approximate = not has_place(cards)
    _evaluate({**cards, **added}, header, survey if approximate else None)
    if not added:
        return False
    header.update(added)
    header.add_history(
        "approximate WCS by cutout_api: the alert in the central pixel"
        if approximate
        else "WCS completed by cutout_api: the header had no projection"
    )
    for line in textwrap.wrap("added: " + ", ".join(added), _HISTORY_WIDTH):
        header.add_history(line)
    return True


def _find_missing(
    cards: Cards, header: fits.Header, survey: Survey, entry: Entry | None
) -> dict[str, str | float]:
    if not has_place(cards):
        added = _approximate_cards(header, survey, entry)
        _refuse_another_frame(cards)
    elif "CTYPE1" in cards or "CTYPE2" in cards:
        return {}
    elif not any(name.startswith(_SCALES) for name in cards):
        raise FactMissing("the stamp's header does not say how large its pixels are")
    else:
        added = {name: value for name, value in _PROJECTION.items() if name not in cards}
    # A header with another frame, or with an equinox, has said it.
    if not {"RADESYS", "EQUINOX", "EPOCH"} & set(cards):
        added["RADESYS"] = "ICRS"
    return added


def _refuse_another_frame(cards: Cards) -> None:
    """Raise FactMissing where the alert's place, which is ICRS, would be read as of another."""
    try:
        _, frame, equinox = read_frame(cards)
    except ValueError as error:
        raise _unusable(error) from error
    if frame != "ICRS" and (frame, equinox or 2000.0) != ("FK5", 2000.0):
        raise FactMissing("the stamp's header has a frame other than ICRS, but no position")


def _approximate_cards(
    header: fits.Header, survey: Survey, entry: Entry | None
) -> dict[str, str | float]:
    if survey.sky_matrix is None:
        raise FactMissing("the stamp's header does not say where it is on the sky")
    if entry is None or not _on_sky(entry):
        raise FactMissing(
            f"the alert's row has no {survey.ra_columns[0]} and {survey.dec_columns[0]}, so "
            "where its stamp is on the sky is not known"
        )
    (a, b), (c, d) = survey.sky_matrix
    return {
        "WCSAXES": 2,
        **_PROJECTION,
        "CRPIX1": header["NAXIS1"] // 2 + 1.0,
        "CRPIX2": header["NAXIS2"] // 2 + 1.0,
        "CRVAL1": entry.ra,
        "CRVAL2": entry.dec,
        "CD1_1": a,
        "CD1_2": b,
        "CD2_1": c,
        "CD2_2": d,
    }


def _on_sky(entry: Entry) -> bool:
    return 0 <= entry.ra <= 360 and -90 <= entry.dec <= 90
