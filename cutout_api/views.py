"""What of a stamp is answered: which plane, with which sign, and with which cards in its header."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from .epochs import Entry
from .errors import FactMissing, PlaneMissing, StampUnreadable
from .stamp import Stamp, open_fits, read_pixels
from .surveys import Survey
from .wcs import complete_header

IMAGE, VARIANCE, PSF, SNR = "image", "variance", "psf", "snr"
PLANES = (IMAGE, VARIANCE, PSF, SNR)
AS_DELIVERED, SCIENCE_MINUS_TEMPLATE = "as-delivered", "sci-ref"
SIGNS = (SCIENCE_MINUS_TEMPLATE, AS_DELIVERED)
NO_WCS, FIX_WCS = "none", "fix"

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class View:
    """What is answered of each stamp; the defaults are the stamp as it is stored."""

    plane: str = IMAGE
    diffsign: str = AS_DELIVERED
    wcs: str = NO_WCS


AS_STORED = View()


def has_plane(survey: Survey, plane: str) -> bool:
    """Whether the stamps of a survey ever have such a plane."""
    return plane == IMAGE or (VARIANCE if plane == SNR else plane) in survey.planes


def read_view(stamp: Stamp, survey: Survey, view: View, entry: Entry | None) -> Pixels:
    """Return the pixels of the plane, (ny, nx), a Difference with the sign that is asked for.

    ``snr`` is image / sqrt(variance), NaN where the variance is not positive.
    Raises PlaneMissing, FactMissing (the sign is not known), StampUnreadable.
    """
    if view.plane == SNR:
        image = np.asarray(read_pixels(stamp), np.float64)
        variance = np.asarray(_read_plane(stamp, survey, VARIANCE), np.float64)
        if image.shape != variance.shape:
            raise StampUnreadable(
                f"the {stamp.kind} stamp's variance has another shape than its image"
            )
        with np.errstate(all="ignore"):
            noise = np.sqrt(np.where(variance > 0, variance, np.nan))
            pixels: Pixels = (image / noise).astype(np.float32)
    else:
        pixels = _read_plane(stamp, survey, view.plane)
    if view.plane not in (IMAGE, SNR) or not is_reversed(stamp, survey, view, entry):
        return pixels
    wide = pixels if pixels.dtype.kind == "f" else pixels.astype(np.float64)
    return np.negative(wide)


def is_reversed(stamp: Stamp, survey: Survey, view: View, entry: Entry | None) -> bool:
    """Whether the stamp is a Difference that is turned into science - template.

    Raises FactMissing where that depends on a sign that the alert does not tell.
    """
    follows = survey.difference_follows_sign and stamp.kind == "Difference"
    if view.diffsign == AS_DELIVERED or not follows:
        return False
    if entry is None or entry.positive is None:
        raise FactMissing(
            f"the alert's row has no {survey.sign_columns[0]}, so the sign of its Difference "
            "stamp is not known"
        )
    return not entry.positive


def write_view(stamp: Stamp, survey: Survey, view: View, entry: Entry | None) -> bytes:
    """Return the stamp's FITS file: as stored byte for byte, or with what ``view`` changes.

    A plane becomes the primary HDU of a file of its own; what was changed stands in HISTORY.
    Raises PlaneMissing, FactMissing, StampUnreadable.
    """
    reverse = is_reversed(stamp, survey, view, entry)
    if view.plane == IMAGE and view.wcs == NO_WCS and not reverse:
        return stamp.fits
    buffer = io.BytesIO()
    changes_pixels = reverse or view.plane != IMAGE
    with open_fits(stamp, scaled=changes_pixels) as hdus:
        if changes_pixels:
            pixels = read_view(stamp, survey, view, entry)
            hdus[0] = _image_hdu(pixels, hdus[0].header, view, reverse)
        if view.wcs == FIX_WCS and view.plane != PSF:
            complete_header(hdus[0].header, survey, entry)
        # ZTF's first card has its T at the wrong column, which astropy would write again.
        hdus[0].header.set("SIMPLE", True, "conforms to FITS standard")
        written = hdus if view.plane == IMAGE else fits.HDUList([hdus[0]])
        written.writeto(buffer, output_verify="silentfix+ignore")
    return buffer.getvalue()


def _image_hdu(pixels: Pixels, header: fits.Header, view: View, reverse: bool) -> fits.PrimaryHDU:
    """Return a primary HDU of ``pixels`` with the cards of the image it was made from."""
    kept = header.copy(strip=True)
    for keyword in ("BSCALE", "BZERO", "BLANK"):
        kept.remove(keyword, ignore_missing=True)
    if view.plane == PSF:  # has its own pixels: those of the image mean nothing here
        kept = fits.Header()
    elif view.plane == SNR:
        kept.remove("BUNIT", ignore_missing=True)
    elif view.plane == VARIANCE and "BUNIT" in kept:
        kept["BUNIT"] = f"{str(kept['BUNIT']).strip()}^2"
    made = fits.PrimaryHDU(pixels, kept)
    if view.plane != IMAGE:
        made.header["PLANE"] = (view.plane, "what of the stamp this is")
        made.header.add_history(f"plane {view.plane} taken from the stamp by cutout_api")
    if reverse:
        made.header.add_history("sign reversed by cutout_api: science - template")
    return made


def _read_plane(stamp: Stamp, survey: Survey, plane: str) -> Pixels:
    if plane == IMAGE:
        return read_pixels(stamp)
    name = survey.planes.get(plane)
    with open_fits(stamp) as hdus:
        found = [hdu for hdu in hdus[1:] if name is not None and hdu.name == name]
        if not found:
            raise PlaneMissing(
                f"the {stamp.kind} stamp holds no {name or plane}, so there is no {plane}"
            )
        data = found[0].data
        if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype.kind not in "fiu":
            raise StampUnreadable(f"the {stamp.kind} stamp's {name} is not a 2-D image")
        if data.size == 0:
            raise StampUnreadable(f"the {stamp.kind} stamp's {name} is empty")
        return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
