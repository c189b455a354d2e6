"""Times and brightnesses as astronomers compare them: MJD, UTC, AB magnitudes.

UTC is made of TAI by ERFA, with its leap seconds (those of the IERS, which come with pyerfa).
An AB magnitude is 31.4 - 2.5 log10(flux / nJy): 0 is 3631 Jy.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import erfa

from .surveys import Survey

NO_TIME = "no time"
"""What people are told of an alert whose time is not known."""
ZERO_POINTS = {"nJy": 31.4}
"""By the unit of a flux: the AB magnitude of one."""
_MJD_0 = 2400000.5
_MJDS = (-600_000, 2_900_000)
"""Days with a calendar date of at most four digits, which ERFA knows."""


def find_mjd(time: float, survey: Survey) -> float | None:
    """Return a time of the survey's column as MJD, in its time scale; None: unknown."""
    mjd = time - survey.mjd_offset
    return mjd if _MJDS[0] < mjd < _MJDS[1] else None  # which NaN is not


def find_utc(time: float, survey: Survey, digits: int = 3) -> str | None:
    """Return a time of the survey's column in UTC, ISO 8601; None: unknown.

    ``digits`` are those behind the point of the seconds, which are rounded.
    """
    mjd = find_mjd(time, survey)
    return None if mjd is None else _write_utc(mjd, survey.time_scale, digits)


@lru_cache(maxsize=4096)
def _write_utc(mjd: float, time_scale: str, digits: int) -> str | None:
    # Kept, since the three stamps of an alert are asked for one after the other.
    first, second = _MJD_0, mjd
    # ERFA's functions below the Python of pyerfa, which warns of years without leap seconds.
    if time_scale == "tai":
        first, second, _ = erfa.ufunc.taiutc(first, second)
    year, month, day, clock, status = erfa.ufunc.d2dtf(b"UTC", digits, first, second)
    if status < 0 or not 0 < year < 10_000:
        return None
    hour, minute, whole, part = clock.item()
    fraction = f".{part:0{digits}d}" if digits else ""
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{whole:02d}{fraction}Z"


def find_magnitude(brightness: float, unit: str) -> float | None:
    """Return a magnitude, or the AB magnitude of a flux; None: unknown, or the flux not above 0."""
    if not math.isfinite(brightness):
        return None
    zero_point = ZERO_POINTS.get(unit)
    if zero_point is None:
        return brightness
    return zero_point - 2.5 * math.log10(brightness) if brightness > 0 else None


@cache
def leap_seconds() -> tuple[tuple[float, float], ...]:
    """Return since which MJD in TAI it is how many seconds ahead of UTC, since 1972."""
    found = []
    for year, month, ahead in erfa.leap_seconds.get().tolist():
        if year >= 1972:
            _, mjd = erfa.cal2jd(year, month, 1)
            found.append((float(mjd) + ahead / 86400, float(ahead)))
    return tuple(found)
