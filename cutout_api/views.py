"""What of a stamp is answered: which plane, with which sign, and with which cards in its header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .epochs import Entry
from .errors import FactMissing, PlaneMissing, StampUnreadable
from .hdus import (
    Cards,
    Hdu,
    copy_hdu,
    drop_structure,
    make_card,
    make_header,
    rewrite_hdu,
    write_image,
)
from .planes import Role, find_role
from .stamp import SCALE, Stamp, find_image, image_cards, read_pixels, read_plane
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


Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Uncertainty:
    """What the pixels of an uncertainty become; each is NaN where there is no noise."""

    variance: Callable[[Numbers], Numbers]
    noise: Callable[[Numbers], Numbers]


# In the order in which they are taken where a file holds several.
UNCERTAINTIES: Mapping[Role, Uncertainty] = {
    Role.VARIANCE: Uncertainty(lambda stored: stored, np.sqrt),
    Role.DEVIATION: Uncertainty(np.square, lambda stored: stored),
    Role.INVERSE_VARIANCE: Uncertainty(np.reciprocal, lambda stored: 1 / np.sqrt(stored)),
}


def read_view(stamp: Stamp, survey: Survey, view: View, entry: Entry | None) -> Pixels:
    """Return the pixels of the plane, (ny, nx), a Difference with the sign that is asked for.

    ``variance`` is made of a standard deviation or an inverse variance where that is stored;
    ``snr`` is image / noise, NaN where that is not positive.
    Raises PlaneMissing, FactMissing (the sign is not known), StampUnreadable, StampTooLarge.
    """
    if view.plane == PSF:
        return read_plane(stamp, _find_psf(stamp, survey))
    if view.plane == VARIANCE:
        return _read_variance(stamp, survey)
    if view.plane == SNR:
        return _read_snr(stamp, survey)
    pixels = read_pixels(stamp)
    if not is_reversed(stamp, survey, view, entry):
        return pixels
    wide = pixels if pixels.dtype.kind == "f" else pixels.astype(np.float64)
    return np.negative(wide)


def _read_variance(stamp: Stamp, survey: Survey) -> Pixels:
    hdu, role = _find_uncertainty(stamp, survey)
    stored = read_plane(stamp, hdu)
    if role is Role.VARIANCE:
        return stored
    kept = np.result_type(stored.dtype, np.float32)
    return UNCERTAINTIES[role].variance(_positive(stored)).astype(kept)


def _read_snr(stamp: Stamp, survey: Survey) -> Pixels:
    image = np.asarray(read_pixels(stamp), np.float64)
    hdu, role = _find_uncertainty(stamp, survey)
    stored = read_plane(stamp, hdu)
    if image.shape != stored.shape:
        raise StampUnreadable(f"the {stamp.kind} stamp's {role} has another shape than its image")
    with np.errstate(all="ignore"):
        snr: Pixels = (image / UNCERTAINTIES[role].noise(_positive(stored))).astype(np.float32)
    return snr


def _positive(stored: Pixels) -> Numbers:
    wide = np.asarray(stored, np.float64)
    with np.errstate(all="ignore"):
        return np.where(wide > 0, wide, np.nan)


def find_planes(stamp: Stamp, survey: Survey) -> list[tuple[Hdu, Role]]:
    """Return each HDU of the stamp with what its pixels are, by its cards, else by the survey."""
    image = find_image(stamp)
    unit = image.text("BUNIT")
    found = []
    for hdu in stamp.hdus:
        utype, bunit = hdu.text("UTYPE"), hdu.text("BUNIT")
        role = find_role(hdu.name, utype, bunit, unit)
        if hdu.number == image.number:
            role = Role.IMAGE
        elif not utype and not bunit and hdu.name == survey.planes.get(VARIANCE):
            role = Role.VARIANCE
        found.append((hdu, role))
    return found


def _find_uncertainty(stamp: Stamp, survey: Survey) -> tuple[Hdu, Role]:
    planes = find_planes(stamp, survey)
    for sought in UNCERTAINTIES:
        for hdu, role in planes:
            if role == sought:
                return hdu, role
    unclear = [hdu.name for hdu, role in planes if role is Role.UNKNOWN]
    if unclear:
        raise StampUnreadable(
            f"the {stamp.kind} stamp's {unclear[0]} does not say by EXTNAME, UTYPE or BUNIT "
            "whether it is a variance or a standard deviation"
        )
    raise PlaneMissing(f"the {stamp.kind} stamp holds no variance, nor what gives one")


def _find_psf(stamp: Stamp, survey: Survey) -> Hdu:
    for hdu, role in find_planes(stamp, survey):
        if role is Role.PSF:
            return hdu
    raise PlaneMissing(f"the {stamp.kind} stamp holds no {survey.planes.get(PSF, PSF)}")


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

    A plane becomes the primary HDU of a file of its own; what was changed stands in HISTORY. An HDU
    that is changed has no CHECKSUM, and the others are as they are stored, unless their header is
    not valid. Raises PlaneMissing, FactMissing, StampUnreadable, StampTooLarge.
    """
    reverse = is_reversed(stamp, survey, view, entry)
    if view.plane == IMAGE and view.wcs == NO_WCS and not reverse:
        return stamp.fits
    image = find_image(stamp)
    primary = image.number == 0 or view.plane != IMAGE
    cards: Cards = image_cards(image)
    if view.wcs == FIX_WCS and view.plane != PSF:
        header = make_header(cards)
        if complete_header(header, survey, entry):
            cards = [str(card).encode("ascii") for card in header.cards]
        elif view.plane == IMAGE and not reverse:
            return stamp.fits
    cards = drop_structure(cards)
    if reverse or view.plane != IMAGE:
        pixels = read_view(stamp, survey, view, entry)
        cards = _describe(cards, stamp, survey, view, reverse)
        written = _write_pixels(pixels, cards, primary=primary)
    elif image.is_compressed:
        pixels = read_pixels(stamp)
        written = _write_pixels(pixels, _drop(cards, *SCALE), primary=primary)
    else:
        written = rewrite_hdu(image, cards, primary=primary)
    if view.plane != IMAGE:
        return written
    return b"".join(written if hdu.number == image.number else copy_hdu(hdu) for hdu in stamp.hdus)


def _drop(cards: Cards, *keywords: str) -> list[bytes]:
    names = {keyword.encode().ljust(8) for keyword in keywords}
    return [card for card in cards if card[:8] not in names]


def _describe(cards: Cards, stamp: Stamp, survey: Survey, view: View, reverse: bool) -> list[bytes]:
    """Return the cards of the image as they hold of the pixels that ``view`` makes of it."""
    if view.plane == PSF:  # has its own pixels: those of the image mean nothing here
        cards = ()
    kept = _drop(cards, *SCALE, *(() if view.plane == IMAGE else _OF_THE_IMAGE))
    history = []
    if view.plane == VARIANCE:
        unit = find_image(stamp).text("BUNIT")
        if unit:
            kept.append(make_card("BUNIT", f"{unit}^2"))
        _, role = _find_uncertainty(stamp, survey)
        if role is not Role.VARIANCE:
            history.append(f"variance made of the {role} in the stamp by cutout_api")
    if view.plane != IMAGE:
        kept.append(make_card("PLANE", view.plane, "what of the stamp this is"))
        history.append(f"plane {view.plane} taken from the stamp by cutout_api")
    if reverse:
        history.append("sign reversed by cutout_api: science - template")
    return [*kept, *(make_card("HISTORY", text) for text in history)]


_OF_THE_IMAGE = ("BUNIT", "EXTNAME", "EXTVER", "EXTLEVEL", "UTYPE", "DATAMIN", "DATAMAX")


def _write_pixels(pixels: Pixels, cards: Cards, *, primary: bool) -> bytes:
    """Return an image of floats, or of integers that FITS has, as an HDU."""
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    # FITS has bytes without a sign and other integers with one; the others are shifted by BZERO.
    shift = {("i", 1): -(2**7), ("u", 2): 2**15, ("u", 4): 2**31, ("u", 8): 2**63}.get((kind, size))
    stored = pixels
    if shift is not None:
        signed = f"{'u' if kind == 'i' else 'i'}{size}"
        stored = (pixels.view(f"u{size}") ^ np.array(2 ** (8 * size - 1), f"u{size}")).view(signed)
        cards = [*cards, make_card("BSCALE", 1), make_card("BZERO", shift)]
    content = stored.astype(stored.dtype.newbyteorder(">"), copy=False).tobytes()
    bitpix = -8 * size if kind == "f" else 8 * size
    return write_image(bitpix, pixels.shape[::-1], cards, content, primary=primary)
