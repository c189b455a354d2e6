"""What the pixels of an HDU are, by its own cards: the image, its variance, a mask, ..."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What the pixels of an HDU are."""

    IMAGE = "image"
    VARIANCE = "variance"
    DEVIATION = "standard deviation"
    INVERSE_VARIANCE = "inverse variance"
    UNKNOWN = "uncertainty"
    """One whose cards do not say which."""
    MASK = "mask"
    PSF = "psf"


# By EXTNAME. Sources: astropy's CCDData, LSST's MaskedImage and alert packets, HST and DESI files.
_BY_NAME: Mapping[str, Role] = {
    **dict.fromkeys(("VARIANCE", "VAR"), Role.VARIANCE),
    **dict.fromkeys(("ERR", "ERROR", "STD", "STDDEV", "STDEV", "SIGMA", "RMS"), Role.DEVIATION),
    **dict.fromkeys(("IVAR", "INVVAR", "INVERSE_VARIANCE"), Role.INVERSE_VARIANCE),
    **dict.fromkeys(("UNCERT", "UNCERTAINTY", "NOISE"), Role.UNKNOWN),
    **dict.fromkeys(("MASK", "DQ", "FLAG", "FLAGS", "BPM"), Role.MASK),
    **dict.fromkeys(("PSF", "PSFIMAGE"), Role.PSF),
}
# By UTYPE, where astropy's CCDData names the class, or the kind, of its uncertainty.
_BY_UTYPE: Mapping[str, Role] = {
    **dict.fromkeys(("VARIANCEUNCERTAINTY", "VAR", "VARIANCE"), Role.VARIANCE),
    **dict.fromkeys(("STDDEVUNCERTAINTY", "STD"), Role.DEVIATION),
    **dict.fromkeys(("INVERSEVARIANCE", "IVAR"), Role.INVERSE_VARIANCE),
    "UNKNOWNUNCERTAINTY": Role.UNKNOWN,
}
# By BUNIT: what stands around the unit of the image, without spaces, asterisks, carets, brackets.
_BY_UNIT: Mapping[str, Role] = {
    "{}": Role.DEVIATION,
    "{}2": Role.VARIANCE,
    "{}-2": Role.INVERSE_VARIANCE,
    "1/{}2": Role.INVERSE_VARIANCE,
    "/{}2": Role.INVERSE_VARIANCE,
}


def find_role(name: str, utype: str, bunit: str = "", image_unit: str = "") -> Role:
    """Return what the pixels of an HDU are by its EXTNAME, UTYPE and BUNIT.

    A name that says what it is goes before BUNIT, which files often copy from the image. Where
    EXTNAME and UTYPE contradict each other it is UNKNOWN.
    """
    named, typed = _BY_NAME.get(name.strip().upper()), _BY_UTYPE.get(utype.strip().upper())
    if typed is not None and named not in (None, Role.UNKNOWN, typed):
        return Role.UNKNOWN
    role = typed or named or Role.IMAGE
    if role is Role.UNKNOWN and image_unit:
        forms = {form.format(_bare(image_unit)): kind for form, kind in _BY_UNIT.items()}
        return forms.get(_bare(bunit), Role.UNKNOWN)
    return role


def _bare(unit: str) -> str:
    return re.sub(r"[ *^()]", "", unit)
