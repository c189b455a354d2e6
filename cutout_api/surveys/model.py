"""What a survey's file is made of: keys, the survey itself, its tables, its light curve."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

KINDS = ("Science", "Template", "Difference")

_DIGITS = re.compile(r"-?[0-9]+", re.ASCII)
_NAME = re.compile(r"([A-Za-z]+)([0-9]+[A-Za-z]+)", re.ASCII)
MOST_DIGITS = 200
"""Of a number that is told how large it may be."""

KeyValue = int | str


class OutOfRange(ValueError):
    """A value that has the form of an id, and cannot be one."""


def parse_int64(value: object) -> int:
    """Return ``value``, a JSON integer or a string of digits, as an int64.

    Raises ValueError for anything else, floats above all: an id exceeds 2^53 and would
    come out of a float as another alert's.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number, sent as a string or a JSON integer")
    if isinstance(value, str):
        value = value.strip()
        if not _DIGITS.fullmatch(value):
            raise ValueError("must be a whole number, digits only")
        value = int(value[:MOST_DIGITS])
    if not -(2**63) <= value < 2**63:
        raise OutOfRange("must be at most 9223372036854775807, to fit 64 bits")
    return value


@dataclass(frozen=True)
class Key:
    """A name that callers look alerts up by, and the columns that may hold it."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[object], KeyValue]
    description: str
    example: str
    pack: Callable[[KeyValue], int] = int
    """The value as an int64, for the catalog; raises ValueError for what is not one."""
    unpack: Callable[[int], KeyValue] = int
    least: int = 1
    """Of numbers: those below it stand for no alert or no object, as 0 and -1 do in LSST files."""
    prefixes: tuple[str, ...] = ()
    """What others write before its digits, in whatever case."""
    aliases: tuple[str, ...] = ()
    """Names of keys, of other surveys too, under which callers send its values."""

    @property
    def is_number(self) -> bool:
        return self.pack is int

    @property
    def least_packed(self) -> int:
        return self.least if self.is_number else 0

    def parse(self, value: object) -> KeyValue:
        """Return what a caller sent as a value of this key; raises ValueError for what is none."""
        try:
            found = self.read(value)
        except ValueError:
            usual = self._respell(value)
            if usual is None:
                raise
            found = self.read(usual)
        if isinstance(found, int) and found < self.least:
            raise OutOfRange(f"must be at least {self.least}: 0 and below stand for none")
        return found

    def _respell(self, value: object) -> str | None:
        """Return the usual spelling of digits behind a prefix, or of a name in another case."""
        # Only ASCII: some other letters become ASCII ones where their case is changed.
        text = value.strip() if isinstance(value, str) and value.isascii() else ""
        for prefix in self.prefixes:
            if text[: len(prefix)].upper() == prefix and text[len(prefix) :].isdigit():
                return text[len(prefix) :]
        name = None if self.is_number else _NAME.fullmatch(text)
        return name and name[1].upper() + name[2].lower()

    def takes(self, value: object) -> bool:
        """Whether what a caller sent may be one of its values."""
        try:
            self.parse(value)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Survey:
    """One survey's columns and names."""

    name: str
    since: int
    """The year of its first alerts, by which the surveys are listed."""
    alert_key: Key
    """Names one alert."""
    object_key: Key
    """Names an object, which has one alert per epoch."""
    moving_key: Key | None
    """Names what moves through the sky, whose alerts belong to no object."""
    time_columns: tuple[str, ...]
    """Orders an object's alerts, in days; the alert id breaks ties and stands in for it."""
    stamp_columns: tuple[str, ...]
    """Templates of the column that holds a stamp: the usual one, then what other writers make."""
    id_names: tuple[str, ...]
    """Last names of columns that hold ids, which no answer shows as floats."""
    file_key: str
    """The key that names a saved file, where the caller gave it; the alert id otherwise."""
    response_key: str
    """Template of the member that holds a stamp in the public dialect's JSON."""
    time_scale: str
    """``utc`` or ``tai``."""
    mjd_offset: float
    """A time in its column minus this is a Modified Julian Date."""
    band_columns: tuple[str, ...]
    bands: Mapping[int | str, str]
    """What the column of bands holds -> the band's name, from blue to red."""
    brightness_columns: tuple[str, ...]
    brightness_unit: str
    """``mag``, of which less is brighter, or ``nJy``."""
    ra_columns: tuple[str, ...]
    dec_columns: tuple[str, ...]
    """Degrees, ICRS."""
    sign_columns: tuple[str, ...]
    signs: Mapping[bool | int | str, bool]
    """What the column holds -> whether the source is brighter than in the template."""
    sky_matrix: tuple[tuple[float, float], tuple[float, float]] | None
    """Degrees (east, north) for one pixel along (columns, rows); None: the header says it."""
    planes: Mapping[str, str]
    """What a stamp's file holds besides its image -> the name of the HDU."""
    difference_follows_sign: bool
    """Whether a Difference stamp is template - science where the source is fainter."""

    @property
    def keys(self) -> tuple[Key, Key]:
        return (self.object_key, self.alert_key)

    @property
    def time_name(self) -> str:
        """The name of the time in answers: ``jd``, ``midpointMjdTai``."""
        return self.time_columns[0].rpartition(".")[2]

    @property
    def row_0_on_top(self) -> bool:
        """Whether a stamp has the parity of the sky with row 0 on top, and not at the bottom."""
        # LSST's headers turn each stamp otherwise, but never mirror it with row 0 at the bottom.
        return self.sky_matrix is not None and self.sky_matrix[1][1] < 0

    def stamp_column_names(self, kind: str) -> tuple[str, ...]:
        """Return the dotted names under which a file may hold the stamps of ``kind``."""
        return tuple(template.format(kind=kind) for template in self.stamp_columns)


@dataclass(frozen=True)
class Rule:
    """What becomes of some columns of a file."""

    path: str
    """A column of the file, or with a dot behind it the fields of a struct."""
    prefix: str | None
    """Of the names in the table; None: not shown."""
    asked: bool = False
    """Only where a caller names it."""

    def name(self, path: str, *, any_case: bool) -> str | None:
        """Return the name of a leaf that this rule is for, without its prefix."""
        fold = str.lower if any_case else str
        if self.path.endswith("."):
            is_field = fold(path[: len(self.path)]) == fold(self.path)
            return path[len(self.path) :] if is_field else None
        return path if fold(path) == fold(self.path) else None


@dataclass(frozen=True)
class History:
    """The measurements before an alert that its packet repeats."""

    column: str
    """A list of structs, whose fields are named as ``rule`` names them."""
    rule: Rule
    object_name: str
    alert_name: str
    time_name: str
    band_name: str
    value_name: str
    """Of the measurement: null in an upper limit."""
    least: tuple[str, float]
    """A column and what it must at least be for the measurement to be valid,"""
    zero: str
    """and one that must be zero."""
    tag: str


@dataclass(frozen=True)
class View:
    """One table: the alerts of a survey, or its objects."""

    survey: Survey
    rules: tuple[Rule, ...]
    rest: str
    """Prefix of what no rule names: fields that the broker added."""
    least: tuple[tuple[str, str], ...]
    """What a table without rows shows where no file says what it would have, and Arrow's name of
    its type."""
    time_name: str
    one_per_object: bool = False
    """Only the latest alert of each object, for the summary of the object that it carries."""
    history: History | None = None
    derived: tuple[str, ...] = ()
    """Columns that are worked out from others: names among ``derived.DERIVED``."""
    described: tuple[tuple[str, str], ...] = ()
    """Prefixes of this table, and the section of the descriptions that explains them."""

    def stamp_name(self, kind: str) -> str:
        return self.survey.response_key.format(kind=kind)


STAMP_RULES = (
    *(Rule(f"cutout{kind}", None) for kind in KINDS),
    *(Rule(f"cutout{kind}.", None) for kind in KINDS),
)
"""Stamps are no columns of a table: they are asked for otherwise."""


@dataclass(frozen=True)
class Curve:
    """Where the light curve of an object comes from: a table, and its columns by what they are."""

    table: str
    columns: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)
