"""The WCS of an image, made of the few cards that say it: by the service and by its client.

wcslib is C and takes what it is given: a header with some ninety cards that it rejects overflows
the buffer of its complaints and ends the process. It is therefore given no header at all. The
cards are picked out and checked here, and only numbers and names that stand in the tables below
are handed over; ``tests/unit/test_celestial.py`` tries how it takes those.

Sources: FITS 4.0, section 8; Calabretta and Greisen 2002, A&A 395, 1077 (projections); Shupe et
al. 2005, ADASS XIV, 491 (SIP); Shupe et al. 2012, SPIE 8451, 84511M (TPV, section 7).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astropy.wcs import WCS, Sip

Cards = Mapping[str, Any]
"""The WCS cards of one header by keyword, in the spelling of FITS 4.0, values as they stand."""

_CODES = (
    "AZP SZP TAN STG SIN ARC ZPN ZEA AIR CYP CEA CAR MER SFL PAR MOL AIT COP COE COD COO BON PCO "
    "TSC CSC QSC HPX XPH TPV"
)
PROJECTIONS = frozenset(_CODES.split())
SYSTEMS = {"RA--": "DEC-", "GLON": "GLAT", "ELON": "ELAT", "SLON": "SLAT"}
"""Longitude and latitude: equatorial, galactic, (mean) ecliptic, supergalactic."""
FRAMES = ("ICRS", "FK5", "FK4", "FK4-NO-E")
UNITS = {
    **dict.fromkeys(("", "deg", "degree", "degrees"), "deg"),
    "arcmin": "arcmin",
    "arcsec": "arcsec",
    "mas": "mas",
    "rad": "rad",
}
_EQUINOXES = (1700.0, 2300.0)
_MOST = 1e12
"""No number of a WCS is larger; sums and products of those that are not stay finite."""
_SIP_ORDERS = range(2, 10)
_SCAMP = 5
"""PVi_m of TAN from this m on are SCAMP's, which were named TPV later."""

_CARD = re.compile(
    r"(?:CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA|CPDIS|CQDIS|D2IMDIS)[12]"
    r"|(?:PC|CD)(?:[1-9]_[1-9]|00[1-9]00[1-9])"
    r"|PV[12]_(?:[0-9]|[1-3][0-9])"
    r"|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH"
    r"|(?:A|B|AP|BP)_(?:ORDER|[0-9]_[0-9])"
)
_OLD_MATRIX = re.compile(r"(PC|CD)00([1-9])00([1-9])")
_PLACE = re.compile(r"(?:CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA|PC|CD|PV)[1-9].*|L(?:ON|AT)POLE")
_OF_OTHER_AXES = re.compile(r"(?:PC|CD)(?:[12]_[3-9]|[3-9]_[12])")
_TABLES = re.compile(r"(?:CPDIS|CQDIS|D2IMDIS)[12]")


def select_cards(header: fits.Header) -> Cards:
    """Return the cards of the primary WCS, two axes; what is not of it is left out.

    So are cards without a value and PVi_m that are not numbers, as astropy leaves them out.
    Raises ValueError for a keyword that stands there twice with two values.
    """
    found: dict[str, Any] = {}
    for card in header.cards:
        if _CARD.fullmatch(card.keyword) is None:
            continue
        name = _OLD_MATRIX.sub(r"\1\2_\3", card.keyword)
        name = "RADESYS" if name == "RADECSYS" else name
        try:
            value = card.value
        except (ValueError, TypeError, fits.VerifyError) as error:
            if name.startswith("PV"):
                continue
            raise ValueError(f"its {card.keyword} cannot be read") from error
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "" or isinstance(value, fits.card.Undefined):
            continue
        if name.startswith("PV") and not _is_number(value):
            continue
        if name in found and found[name] != value:
            raise ValueError(f"it has two values of {name}")
        found[name] = value
    return found


def has_place(cards: Cards) -> bool:
    """Whether any card says where pixels are; a frame alone says nothing of them."""
    return any(_PLACE.fullmatch(name) for name in cards)


def make_wcs(cards: Cards, shape: tuple[int, int]) -> WCS:
    """Return the celestial WCS of an image of ``shape`` (ny, nx), ready for use.

    Raises ValueError, with the reason, where the cards are not one that is known here: without
    CTYPE, CRPIX or CRVAL, of other axes than the sky's, with an unknown projection, unit or frame,
    a singular matrix, a number that is none, or distorted by a table.
    """
    # 12 MB, and a plain stamp has no use for it.
    from astropy.wcs import WCS

    ctype = _read_ctype(cards)
    _refuse_unknown(cards)
    matrix = _read_matrix(cards)
    made = WCS(naxis=2)
    made.pixel_shape = (shape[1], shape[0])
    wcs = made.wcs
    wcs.ctype = ctype
    wcs.cunit = [_read_unit(cards, axis) for axis in (1, 2)]
    wcs.crpix = [_number(cards, f"CRPIX{axis}") for axis in (1, 2)]
    wcs.crval = [_number(cards, f"CRVAL{axis}") for axis in (1, 2)]
    wcs.cdelt = [_number(cards, f"CDELT{axis}", 1.0) for axis in (1, 2)]
    for name, value in matrix.items():
        setattr(wcs, name, value)
    for name in ("LONPOLE", "LATPOLE"):
        if name in cards:
            setattr(wcs, name.lower(), _number(cards, name))
    system, frame, equinox = read_frame(cards)
    if system == "RA--" and "RADESYS" in cards:
        wcs.radesys = frame
    if equinox is not None:
        wcs.equinox = equinox
    wcs.set_pv(_read_parameters(cards))
    if ctype[0].endswith("-SIP"):
        made.sip = _read_sip(cards, wcs.crpix)
    try:
        wcs.set()
    except ValueError as error:  # its first line is the place in wcslib's source
        reason = (str(error).splitlines()[1:] or ["no reason"])[0]
        raise ValueError(f"wcslib refuses it: {reason.strip().rstrip('.')}") from error
    return made


def read_frame(cards: Cards) -> tuple[str, str, float | None]:
    """Return the system (a key of ``SYSTEMS``), the frame (of ``FRAMES``), and the equinox.

    The equinox is None where it does not matter or is not given. Without CTYPE the system is
    equatorial. Raises ValueError for what is not known.
    """
    ctype = str(cards.get("CTYPE1", "RA--"))
    system = next((lon for lon, lat in SYSTEMS.items() if ctype[:4] in (lon, lat)), "")
    if system in ("GLON", "SLON"):
        return system, "ICRS", None
    frame = cards.get("RADESYS")
    if frame is not None and not (isinstance(frame, str) and frame.upper() in FRAMES):
        raise ValueError("its RADESYS is not a frame that is known here")
    if frame is not None and frame.upper() == "ICRS" and system == "RA--":
        return system, "ICRS", None
    name = "EQUINOX" if "EQUINOX" in cards else "EPOCH"  # EPOCH is its name before 1988
    equinox = _number(cards, name) if name in cards else None
    if equinox is not None and not _EQUINOXES[0] <= equinox <= _EQUINOXES[1]:
        raise ValueError(f"its {name} is not a year")
    if frame is None:
        frame = "ICRS" if equinox is None else "FK4" if equinox < 1984 else "FK5"
    if system == "ELON" and frame.upper().startswith("FK4"):
        raise ValueError("its ecliptic is that of FK4, which is not known here")
    return system, frame.upper(), equinox


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) <= _MOST
    )


def _number(cards: Cards, name: str, default: float | None = None) -> float:
    value = cards.get(name, default)
    if not _is_number(value):
        raise ValueError(f"its {name} is missing" if value is None else f"its {name} is no number")
    return float(value)


def _read_ctype(cards: Cards) -> list[str]:
    first, second = (cards.get(f"CTYPE{axis}") for axis in (1, 2))
    if not isinstance(first, str) or not isinstance(second, str):
        raise ValueError("it has no projection: CTYPE1 and CTYPE2 are not both there")
    names = {first[:4], second[:4]}
    pair = any(names == {longitude, latitude} for longitude, latitude in SYSTEMS.items())
    rest = first[4:].removesuffix("-SIP")
    if not pair or first[4:] != second[4:] or rest[:1] != "-" or rest[1:] not in PROJECTIONS:
        raise ValueError("its CTYPE1 and CTYPE2 are not those of a projection that is known here")
    if rest == "-TAN" and first[4:] == rest and _has_scamp(cards):
        return [f"{first[:4]}-TPV", f"{second[:4]}-TPV"]
    return [first, second]


def _has_scamp(cards: Cards) -> bool:
    return any(name.startswith("PV") and int(name[4:]) >= _SCAMP for name in cards)


def _refuse_unknown(cards: Cards) -> None:
    """Raise ValueError for cards that move pixels in a way that is not followed here."""
    if any(_TABLES.fullmatch(name) for name in cards):
        raise ValueError("it is distorted by a table")
    if any(_OF_OTHER_AXES.fullmatch(name) and cards[name] != 0 for name in cards):
        raise ValueError("its matrix mixes the sky with other axes")
    has_sip = bool({"A_ORDER", "B_ORDER"} & set(cards))
    suffix = str(cards["CTYPE1"])[8:]
    if has_sip != (suffix == "-SIP"):
        raise ValueError("it has SIP coefficients, or -SIP in its CTYPE, but not both")
    if has_sip and (_has_scamp(cards) or not str(cards["CTYPE1"])[:8].endswith("-TAN")):
        raise ValueError("it has two distortions")


def _read_unit(cards: Cards, axis: int) -> str:
    unit = UNITS.get(str(cards.get(f"CUNIT{axis}", "")).lower())
    if unit is None:
        raise ValueError(f"its CUNIT{axis} is not a unit of angles")
    return unit


def _read_matrix(cards: Cards) -> dict[str, list[Any]]:
    """Return the matrix as wcslib has it: ``cd``, or ``pc``, or ``crota``, or none (unit matrix).

    FITS 4.0, section 8.1: CDELT and CROTA mean nothing beside CD, nor CROTA beside PC.
    """
    kinds = [kind for kind in ("PC", "CD") if any(re.match(rf"{kind}[12]_", n) for n in cards)]
    if len(kinds) == 2:
        raise ValueError("it has a PC and a CD matrix")
    for kind in kinds:
        unit = 1.0 if kind == "PC" else 0.0
        matrix = [
            [_number(cards, f"{kind}{i}_{j}", unit if i == j else 0.0) for j in (1, 2)]
            for i in (1, 2)
        ]
        return {kind.lower(): matrix}
    if "CROTA1" in cards or "CROTA2" in cards:
        return {"crota": [_number(cards, f"CROTA{axis}", 0.0) for axis in (1, 2)]}
    return {}


def _read_parameters(cards: Cards) -> list[tuple[int, int, float]]:
    """Return (axis, m, value) of each PVi_m."""
    return [
        (int(name[2]), int(name[4:]), float(value))
        for name, value in cards.items()
        if name.startswith("PV")
    ]


def _read_sip(cards: Cards, crpix: NDArray[np.float64]) -> Sip:
    from astropy.wcs import Sip

    forward = [_read_polynomial(cards, name) for name in ("A", "B")]
    # The way back is found by iteration: AP and BP are only an approximation of it.
    return Sip(*forward, None, None, crpix)


def _read_polynomial(cards: Cards, name: str) -> NDArray[np.float64]:
    order = cards.get(f"{name}_ORDER")
    if not isinstance(order, int) or order not in _SIP_ORDERS:
        raise ValueError(f"its {name}_ORDER is not from 2 to 9")
    matrix = np.zeros((order + 1, order + 1))
    for i in range(order + 1):
        for j in range(order + 1 - i):
            matrix[i, j] = _number(cards, f"{name}_{i}_{j}", 0.0)
    return matrix
