"""What a survey's file is made of: keys, the survey itself, its tables, its light curve."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

KINDS = ("Science", "Template", "Difference")

_DIGITS = re.compile(r"-?[0-9]+", re.ASCII)
_NAME = re.compile(r"([A-Za-z]+)([0-9]+[A-Za-z]+)", re.ASCII)
MOST_DIGITS = 200
"""Of a number that is told how large it may be."""

KeyValue = int | str
INT64_SCHEMA: Mapping[str, Any] = {
    "oneOf": [
        {"type": "string", "pattern": "^[0-9]{1,19}$"},
        {"type": "integer", "format": "int64", "minimum": 1},
    ]
}


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


# int() reads digits of base 26 as 0-9 and a-p; names count with a-z.
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TO_DIGITS = str.maketrans(_LETTERS, "0123456789abcdefghijklmnop")


@dataclass(frozen=True)
class YearNames:
    """Names of objects as several surveys make them: a prefix, two digits of the year, letters.

    The letters count in base 26. A name is packed into its year, then its letters.
    """

    prefix: str
    letters: int
    title: str
    """Of the survey, as errors say it."""
    example: str

    @property
    def pattern(self) -> str:
        return f"{self.prefix}[0-9]{{2}}[a-z]{{{self.letters}}}"

    @property
    def words(self) -> str:
        spelled = {5: "five", 6: "six", 7: "seven"}.get(self.letters, str(self.letters))
        return f"{self.prefix}, two digits, {spelled} lower-case letters"

    def read(self, value: object) -> str:
        """Return ``value`` as a name; raises ValueError for what is none."""
        name = value.strip() if isinstance(value, str) else ""
        if not self._form.fullmatch(name):
            raise ValueError(
                f"must be a {self.title} object name: {self.words}, e.g. {self.example}"
            )
        return name

    def pack(self, name: KeyValue) -> int:
        """Return a name as a number. Raises ValueError for anything not spelled as one."""
        if not isinstance(name, str) or not self._form.fullmatch(name):
            raise ValueError(f"{name!r} is not a {self.title} object name")
        start = len(self.prefix)
        year, letters = name[start : start + 2], name[start + 2 :]
        years: int = int(year) * 26**self.letters
        return years + int(letters.translate(_TO_DIGITS), 26)

    def unpack(self, number: int) -> str:
        """Return the name that ``pack`` made this number of."""
        year, rest = divmod(number, 26**self.letters)
        places = range(self.letters - 1, -1, -1)
        letters = "".join(_LETTERS[rest // 26**place % 26] for place in places)
        return f"{self.prefix}{year:02d}{letters}"

    @cached_property
    def _form(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.ASCII)


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
    pattern: str = "[0-9]{1,18}"
    """What its values look like, as a regular expression of JSON Schema."""
    words: str = ""
    """The same in words: ``a ZTF object name (ZTF, two digits, ...)``. Of numbers: nothing."""
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

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema of its values."""
        if self.is_number:
            return INT64_SCHEMA
        return {"type": "string", "pattern": f"^{self.pattern}$"}

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
    """Template of the member that holds a stamp in the public dialect's JSON. In templates
    ``{kind}`` is ``Science``, ``{lower}`` is ``science``."""
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
    marks: tuple[str, ...] = ()
    """Columns of which its files have at least one, and which no other survey's files have: needed
    where another survey's ids have columns of the same names, in whatever case."""

    @property
    def title(self) -> str:
        """The survey's name for people."""
        return self.name.upper()

    @property
    def keys(self) -> tuple[Key, Key]:
        return (self.object_key, self.alert_key)

    @property
    def id_columns(self) -> frozenset[str]:
        """The names of the columns of its keys, in lower case: files spell them in any."""
        return frozenset(name.lower() for key in self.keys for name in key.columns)

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
        return tuple(it.format(kind=kind, lower=kind.lower()) for it in self.stamp_columns)

    def response_name(self, kind: str) -> str:
        """Return the member, or the column of a table, that holds the stamps of ``kind``."""
        return self.response_key.format(kind=kind, lower=kind.lower())


@dataclass(frozen=True)
class Rule:
    """What becomes of some columns of a file."""

    path: str
    """A column of the file, or with a dot behind it the fields of a struct."""
    prefix: str | None
    """Of the names in the table; None: not shown."""
    asked: bool = False
    """Only where a caller names it."""
    former: str = ""
    """Prefix of the names that the fields of a struct had before, and have where another column
    has the one with ``prefix``."""

    def name(self, path: str, *, any_case: bool) -> str | None:
        """Return the name of a leaf that this rule is for, without its prefix."""
        fold = str.lower if any_case else str
        if self.path.endswith("."):
            is_field = fold(path[: len(self.path)]) == fold(self.path)
            return path[len(self.path) :] if is_field else None
        return path if fold(path) == fold(self.path) else None


@dataclass(frozen=True)
class Listing:
    """A struct, a map or a list of numbers that a table shows as one text, a JSON list."""

    column: str
    name: str
    """In the table."""
    fields: tuple[str, ...]
    """Of the struct or the map, in the order of the list: by its place a reader knows each."""


@dataclass(frozen=True)
class Quality:
    """What tells measurements apart that are valid, bad, and upper limits."""

    value_name: str
    """Of the measurement: null in an upper limit."""
    least: tuple[str, float]
    """A column and what it must at least be for the measurement to be valid,"""
    zero: str
    """and one that must be zero."""


@dataclass(frozen=True)
class Past:
    """One list of measurements that the packet of an alert repeats: a struct for each."""

    column: str
    tag: str
    """What the table's column of tags says of its rows, where no ``quality`` says it."""
    id_name: str | None = None
    """The column of the table with what names one measurement; None: there are no ids."""
    are_alerts: bool = False
    """Whether they have packets of their own; ``id_name`` is then the alerts'."""
    once_a_visit: bool = False
    """Whether those of an object at one time in one band are one measurement."""
    quality: Quality | None = None


@dataclass(frozen=True)
class History:
    """The measurements that packets repeat beside their alerts, and the columns they are shown in.

    Their fields are named as those of the alerts, with ``prefix``.
    """

    lists: tuple[Past, ...]
    prefix: str
    object_name: str
    alert_name: str
    time_name: str
    band_name: str
    tag: str
    """The column that tells what a row is."""


@dataclass(frozen=True)
class View:
    """One table: the alerts of a survey, or its objects."""

    survey: Survey
    title: str
    """What it has rows of, in words that end a sentence: ``the alerts of ZTF objects``."""
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
    shows_alerts: bool = True
    """False: only what the history holds."""
    derived: tuple[str, ...] = ()
    """Columns that are worked out from others: names among ``derived.DERIVED``."""
    described: tuple[tuple[str, str], ...] = ()
    """Prefixes of this table, and the section of the descriptions that explains them."""
    listings: tuple[Listing, ...] = ()
    always: tuple[str, ...] = ()
    """Columns of the public schema that a whole answer with any of ``rest`` has, even where no file
    does."""
    titles: tuple[tuple[str, str], ...] = ()
    """Prefixes of this table, and what ``/api/v1/schema`` calls the columns that have them."""
    is_default: bool = False
    """Whether ``/api/v1/schema`` has its columns by title where no endpoint is named."""

    @property
    def prefixes(self) -> set[str]:
        """What the names of its columns begin with."""
        prefixes = {rule.prefix for rule in self.rules} | {self.rest, self.stamp_name(KINDS[0])}
        return {prefix for prefix in prefixes if prefix} | set(self.derived)

    def stamp_name(self, kind: str) -> str:
        return self.survey.response_name(kind)

    def family(self, prefix: str) -> str:
        """Return what the columns with a prefix are called together."""
        return dict(self.titles).get(prefix, f"{self.survey.title} columns ({prefix})")


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
    tags: Mapping[str, str] = field(default_factory=dict)
    """Rows that are no alerts of the archive: their tag -> what they are. Others are not drawn,
    but for limits."""
