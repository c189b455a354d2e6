"""The alerts of an object, one for each epoch, and the choice among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .stamp import Stamp
from .storage import FileId
from .surveys import KeyValue, Survey

LATEST, FIRST, BRIGHTEST, FAINTEST = "latest", "first", "brightest", "faintest"
WHICH = (LATEST, FIRST, BRIGHTEST, FAINTEST)


@dataclass(frozen=True)
class Entry:
    """One alert, where it is, and what an object's alerts are chosen by."""

    file: FileId
    row: int
    """Of the whole file."""
    alert_id: int | None
    object_id: KeyValue | None
    time: float
    """Days, as the survey's column has it: JD (UTC) for ZTF, MJD (TAI) for LSST; NaN: unknown."""
    band: str | None = None
    brightness: float = math.nan
    """Magnitude or nJy, as ``survey.brightness_unit`` says; NaN: unknown."""
    ra: float = math.nan
    dec: float = math.nan
    positive: bool | None = None
    """Whether the source is brighter than in the template."""
    moving_id: int | None = None
    """Of ``survey.moving_key``, where the alert belongs to no object."""


@dataclass(frozen=True)
class Alert:
    """One alert: its stamps, those that were asked for, and what is known of it."""

    stamps: Sequence[Stamp]
    entry: Entry | None = None

    @property
    def alert_id(self) -> int | None:
        """None where the file has no ids of alerts."""
        return None if self.entry is None else self.entry.alert_id

    @property
    def time(self) -> float | None:
        """Days, as the survey's column has it; None: unknown."""
        unknown = self.entry is None or math.isnan(self.entry.time)
        return None if unknown or self.entry is None else self.entry.time


@dataclass(frozen=True)
class Choice:
    """Which alerts of an object are asked for."""

    which: str = LATEST
    band: str | None = None
    mjd: float | None = None
    """The alert nearest to this Modified Julian Date, in the survey's time scale."""
    every: bool = False
    """All of them (``epochs=all``), oldest first."""
    since: float | None = None
    until: float | None = None
    """Of all of them, those from one Modified Julian Date to another, both counted in; in the
    survey's time scale. None: without end."""

    @property
    def is_bounded(self) -> bool:
        return self.since is not None or self.until is not None


PLAIN = Choice()
"""The latest alert: what is meant where nothing is said."""


def choose_epochs(survey: Survey, entries: Iterable[Entry], choice: Choice) -> Sequence[Entry]:
    """Return the alerts asked for, in the order of time; none where no alert fits.

    An alert without a time comes before all others, and is chosen by date, or as the first, only
    where there is no other; one without brightness is neither brightest nor faintest. The greater
    alert id breaks ties of time. Between two dates there is no alert without a time.
    """
    ordered = sorted(
        (entry for entry in entries if choice.band is None or entry.band == choice.band),
        key=lambda entry: (_known(entry.time, -math.inf), entry.alert_id or 0, entry.row),
    )
    if choice.is_bounded:
        ordered = [entry for entry in ordered if _is_within(entry.time - survey.mjd_offset, choice)]
    if choice.every or not ordered:
        return ordered
    if choice.mjd is not None:
        sought = choice.mjd + survey.mjd_offset
        return [min(reversed(ordered), key=lambda entry: _distance(entry.time, sought))]
    if choice.which in (BRIGHTEST, FAINTEST):
        less_is_brighter = survey.brightness_unit == "mag"
        sign = 1 if less_is_brighter == (choice.which == BRIGHTEST) else -1
        measured = [entry for entry in ordered if not math.isnan(entry.brightness)]
        measured.sort(key=lambda entry: -sign * entry.brightness)
        return measured[-1:]
    if choice.which == FIRST:
        return [next((entry for entry in ordered if not math.isnan(entry.time)), ordered[0])]
    return [ordered[-1]]


def drop_repeats(entries: Iterable[Entry]) -> list[Entry]:
    """Return each alert once, from the file written last; rows without an id are all kept."""
    newest_first = sorted(entries, key=lambda entry: entry.file.modified, reverse=True)
    known: set[int] = set()
    kept = []
    for entry in newest_first:
        if entry.alert_id is None or entry.alert_id not in known:
            kept.append(entry)
        if entry.alert_id is not None:
            known.add(entry.alert_id)
    return kept


def _known(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def _distance(time: float, sought: float) -> float:
    return math.inf if math.isnan(time) else abs(time - sought)


def _is_within(mjd: float, choice: Choice) -> bool:
    since = -math.inf if choice.since is None else choice.since
    until = math.inf if choice.until is None else choice.until
    return since <= mjd <= until  # never of NaN
