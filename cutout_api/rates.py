"""How fast the brightness and the colour of an object change, from its alerts.

As the public service of the Fink broker works them out for ZTF (fink-object-api 3.5,
``extract_rate_and_color``), so that the same alerts give the same numbers: pandas' ``diff`` and
``merge_asof`` are what the rules below say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

SAME_COLOUR_DAYS = 0.3
"""Measurements in two bands that are no further apart make a colour."""
NONE = -1


@dataclass(frozen=True)
class Points:
    """Measurements as arrays of one length: of any objects and bands, in any order."""

    objects: NDArray[np.generic]
    """What tells objects apart."""
    times: Floats
    """Days."""
    bands: Floats
    magnitudes: Floats
    errors: Floats


@dataclass(frozen=True)
class Changes:
    """Values and their errors, NaN where there are none."""

    values: Floats
    errors: Floats


def rates(points: Points, bands: tuple[float, ...]) -> Changes:
    """Return mag/day since the measurement before of the same object in the same band.

    Of those in other ``bands``, the first of each band, and those at the time of the one before,
    there is none.
    """
    found = _nothing(len(points.times))
    for band in bands:
        for rows in _by_object(points, points.bands == band):
            slopes = _slopes(points.times[rows], points.magnitudes[rows], points.errors[rows])
            found.values[rows], found.errors[rows] = slopes.values, slopes.errors
    return found


def colours(points: Points, blue: float, red: float) -> tuple[Changes, Changes]:
    """Return the colour of each measurement (mag), and how fast it changes (mag/day).

    A colour belongs to a measurement in ``blue``: the difference to the one in ``red`` nearest in
    time. It changed since the colour before. Every measurement, whatever its band, has the colour
    nearest in time. All of these within ``SAME_COLOUR_DAYS``; of two as near, the earlier.
    """
    colour, change = _nothing(len(points.times)), _nothing(len(points.times))
    for rows in _by_object(points, np.isfinite(points.times)):
        in_blue, in_red = rows[points.bands[rows] == blue], rows[points.bands[rows] == red]
        partners = _nearest(points.times[in_blue], points.times[in_red])
        matched = partners != NONE
        in_blue, in_red = in_blue[matched], in_red[partners[matched]]
        known = np.isfinite(points.magnitudes[in_red])
        in_blue, in_red = in_blue[known], in_red[known]
        differences = points.magnitudes[in_blue] - points.magnitudes[in_red]
        errors = np.hypot(points.errors[in_blue], points.errors[in_red])
        times = points.times[in_blue]
        slopes = _slopes(times, differences, errors)
        own = _nearest(points.times[rows], times)
        mine, own = rows[own != NONE], own[own != NONE]
        colour.values[mine], colour.errors[mine] = differences[own], errors[own]
        change.values[mine], change.errors[mine] = slopes.values[own], slopes.errors[own]
    return colour, change


def _nothing(rows: int) -> Changes:
    return Changes(np.full(rows, np.nan), np.full(rows, np.nan))


def _by_object(points: Points, chosen: NDArray[np.bool_]) -> list[Rows]:
    """Return the chosen rows of each object, the earliest first; those without a time left out."""
    # From the end: tables have the newest first, and what is of one time shall turn round too.
    rows = np.flatnonzero(chosen & np.isfinite(points.times))[::-1]
    if not len(rows):
        return []
    _, codes = np.unique(points.objects[rows], return_inverse=True)
    order = np.lexsort((points.times[rows], codes))
    borders = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(rows[order], borders)


def _slopes(times: Floats, values: Floats, errors: Floats) -> Changes:
    """Return how fast values change since the one before, for values in the order of time."""
    found = _nothing(len(times))
    with np.errstate(divide="ignore", invalid="ignore"):
        days = np.diff(times)
        found.values[1:] = np.diff(values) / days
        found.errors[1:] = np.hypot(errors[1:], errors[:-1]) / days
    return found


def _nearest(times: Floats, others: Floats) -> Rows:
    """Return the place of the nearest of ``others``, which are in order, or NONE for each time.

    Of several at the same time it is the last if they are at ``times`` or before, else the first.
    """
    if not len(others):
        return np.full(len(times), NONE, np.int64)
    before = np.searchsorted(others, times, "right") - 1
    after = np.searchsorted(others, times, "left")
    to_before = np.where(before >= 0, times - others[before], np.inf)
    to_after = np.full(len(times), np.inf)
    there = after < len(others)
    to_after[there] = others[after[there]] - times[there]
    found = np.where(to_before <= to_after, before, after)
    return np.where(np.minimum(to_before, to_after) <= SAME_COLOUR_DAYS, found, NONE)
