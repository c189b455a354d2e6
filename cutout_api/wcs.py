"""Where a stamp is on the sky: its matrix, its WCS, and the cards that its header lacks.

An LSST header has CRPIX, CRVAL and PC, but no CTYPE, so that its WCS is not one of the sky; a
ZTF header has nothing, but every ZTF stamp is oriented and scaled alike (``Survey.sky_matrix``),
and shows its alert in the central pixel. astropy's WCS takes 12 MB, so it is imported where asked.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from .epochs import Entry
from .errors import FactMissing
from .geometry import Matrix
from .hdus import make_header
from .stamp import WARNINGS, Stamp, find_image, image_cards
from .surveys import Survey

if TYPE_CHECKING:
    from astropy.wcs import WCS

_LINEAR = ("PC1_1", "PC2_2", "PC1_2", "PC2_1", "CD1_1", "CD2_2", "CD1_2", "CD2_1")
_PROJECTION = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"}
_HISTORY_WIDTH = 72
_LARGEST_DISTORTION = 2.0
"""A pixel that is more than so much longer than it is wide is a mistake in the header."""


def read_header(stamp: Stamp) -> fits.Header:
    """Return the header of the image's HDU, its cards mended; raises StampUnreadable.

    Of a compressed image it is the header that the image would have by itself.
    """
    return make_header(image_cards(find_image(stamp)))


def has_position(header: fits.Header) -> bool:
    """Whether the header says where its pixels are, if not in which projection."""
    return all(f"{name}{axis}" in header for name in ("CRPIX", "CRVAL") for axis in (1, 2)) and any(
        name in header for name in _LINEAR
    )


def complete_header(header: fits.Header, survey: Survey, entry: Entry | None) -> None:
    """Add what the header of an image lacks to be a celestial WCS, and say so in HISTORY.

    Cards that are there are left as they are. Raises FactMissing where neither the header nor the
    alert says where the image is.
    """
    if has_position(header):
        added: dict[str, str | float] = dict(_PROJECTION)
        history = "WCS completed by cutout_api: the header had no projection"
    else:
        added = _approximate_cards(header, survey, entry)
        history = "approximate WCS by cutout_api: the alert in the central pixel"
    added["RADESYS"] = "ICRS"
    new = {name: value for name, value in added.items() if name not in header}
    if not new:
        return
    header.update(new)
    header.add_history(history)
    for line in textwrap.wrap("added: " + ", ".join(new), _HISTORY_WIDTH):
        header.add_history(line)


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


def find_wcs(header: fits.Header, survey: Survey, entry: Entry | None) -> WCS:
    """Return the celestial WCS of an image, completed where its header lacks cards.

    Raises FactMissing where there is none.
    """
    from astropy.wcs import WCS, FITSFixedWarning

    completed = header.copy()
    complete_header(completed, survey, entry)
    try:
        with WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            found = WCS(completed, naxis=2)
            if not found.has_celestial:
                raise ValueError("it is not one of the sky")
            found.pixel_to_world_values(0, 0)  # a singular matrix is found when it is used
    except (ValueError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        raise FactMissing("the stamp's header has a WCS that cannot be used") from error
    _check_matrix(np.array(found.pixel_scale_matrix))
    return found


def find_sky_matrix(stamp: Stamp, survey: Survey) -> Matrix:
    """Return the degrees (east, north) for one pixel along (columns, rows) of the stamp.

    Raises FactMissing where the header should say it and does not.
    """
    header = read_header(stamp)
    if survey.sky_matrix is not None and not has_position(header):
        return np.array(survey.sky_matrix)
    if not has_position(header):
        raise FactMissing(
            f"the {stamp.kind} stamp's header has no usable PC matrix: which way is north is "
            "not known"
        )
    matrix: Matrix = np.array(find_wcs(header, survey, None).pixel_scale_matrix)
    return matrix


def _check_matrix(matrix: Matrix) -> None:
    """Raise FactMissing for a matrix that turns pixels into lines, or into nothing."""
    singular = np.linalg.svd(matrix, compute_uv=False) if np.isfinite(matrix).all() else (0.0, 0.0)
    least, most = float(min(singular)), float(max(singular))
    if not (least > 0 and most <= _LARGEST_DISTORTION * least and most < 1):
        raise FactMissing("the stamp's header has a PC matrix that cannot be one of the sky")


def pixel_scale(matrix: Matrix) -> float:
    """Return the side of a pixel in arcsec."""
    return math.sqrt(abs(float(np.linalg.det(matrix)))) * 3600
