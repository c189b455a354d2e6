"""Columns that are worked out from others: dates, a classification, rates and colours."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .rates import Points, colours, rates

Inputs = Mapping[str, pa.Array]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Derived:
    """A column that no file has."""

    name: str
    needs: tuple[str, ...]
    """Without one of these the column is null."""
    may_need: tuple[str, ...]
    compute: Callable[[Any], pa.Array]
    """From its inputs, or from what ``first`` made of them."""
    type: pa.DataType
    first: Callable[[Inputs], Any] | None = None
    """What several columns are made of, which need the same: made once for all of them."""

    def values(self, columns: Inputs, made: dict[Any, Any]) -> pa.Array | None:
        """Return the column of rows that have these columns; None where it has no inputs.

        ``made`` keeps what columns share from one call to the next.
        """
        if not all(name in columns for name in self.needs):
            return None
        inputs: Any = {
            name: columns[name] for name in (*self.needs, *self.may_need) if name in columns
        }
        if self.first is None:
            return self.compute(inputs)
        if self.first not in made:
            made[self.first] = self.first(inputs)
        return self.compute(made[self.first])


def to_numbers(values: pa.Array) -> NDArray[np.float64]:
    """Return numbers as float64, NaN where they are null, infinite or no numbers."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        cast = values.cast(pa.float64(), safe=False)
    except pa.ArrowException:
        cast = pa.nulls(len(values), pa.float64())
    found: NDArray[np.float64] = cast.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def to_texts(values: pa.Array) -> NDArray[Any]:
    """Return text, empty where it is null."""
    return np.array([str(value or "") for value in values.to_pylist()], object)


# --- dates and places --------------------------------------------------------------------------

_YEARS = (1721426.0, 5373484.0)
"""Julian dates of the years 1 to 9999, which have a calendar date of four digits."""


def _date(jd: pa.Array) -> pa.Array:
    from astropy.time import Time

    numbers = to_numbers(jd)
    good = (numbers >= _YEARS[0]) & (numbers < _YEARS[1])
    dates = np.full(len(numbers), None, object)
    if good.any():
        dates[good] = Time(numbers[good], format="jd").iso
    return pa.array(dates, pa.string())


def _lapse(inputs: Inputs) -> pa.Array:
    days = to_numbers(inputs["i:jd"]) - to_numbers(inputs["i:jdstarthist"])
    return pa.array(days, pa.float64(), mask=~np.isfinite(days))


def _constellation(inputs: Inputs) -> pa.Array:
    from astropy.coordinates import SkyCoord, get_constellation

    ra, dec = to_numbers(inputs["i:ra"]), to_numbers(inputs["i:dec"])
    good = np.isfinite(ra) & (np.abs(ra) <= 720) & (np.abs(dec) <= 90)
    names = np.full(len(ra), None, object)
    if good.any():
        names[good] = get_constellation(SkyCoord(ra[good], dec[good], unit="deg"))
    return pa.array(names, pa.string())


# --- classification ----------------------------------------------------------------------------

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
AGE = "i:jd - i:jdstarthist"
EXTRAGALACTIC = frozenset(
    """Unknown|Candidate_SN*|SN*_Candidate|SN|Transient|Fail|Fail 504|galaxy|Galaxy|EmG|Seyfert|
    Seyfert_1|Seyfert_2|BlueCompG|StarburstG|LSB_G|HII_G|High_z_G|GinPair|GinGroup|BClG|GinCl|
    PartofG|Compact_Gr_G|IG|PairG|GroupG|ClG|SuperClG|Void|LINER|Possible_ClG|Possible_SClG|
    GravLens_Candidate""".replace("\n", "")
    .replace("    ", "")
    .split("|")
)
"""What SIMBAD may call the place of an extragalactic transient, or where it knows nothing."""
NO_COUNTERPART = frozenset(("", "Unknown", "Transient"))
NO_COUNTERPART_PREFIXES = ("Fail", "Galaxy")

Test = tuple[str, str, float]


@dataclass(frozen=True)
class Label:
    """One thing an alert may be taken for, and when."""

    name: str
    tests: tuple[Test, ...] = ()
    """All must hold; one of a column that is null, or not there, does not."""
    any_of: tuple[Test, ...] = ()
    """One must hold, if there are any."""
    extragalactic: bool = False
    """And SIMBAD must not know a star there."""
    starts: tuple[str, str] | None = None
    """And a column's text must begin so."""
    equals: tuple[tuple[str, str], ...] = ()
    """And columns must have these texts."""
    ambiguous: bool = False
    """Counts among those of which only one may hold."""


_SN_SCORES: tuple[Test, ...] = (("d:snn_snia_vs_nonia", ">", 0.5), ("d:snn_sn_vs_all", ">", 0.5))
_REAL: tuple[Test, ...] = (("i:drb", ">", 0.5), ("i:classtar", ">", 0.4))

LABELS = (
    Label("Microlensing candidate", tests=(("d:mulens", ">", 0.0),), ambiguous=True),
    # Before the broker's version 2 each band had a class of its own.
    Label(
        "Microlensing candidate",
        equals=(("d:mulens_class_1", "ML"), ("d:mulens_class_2", "ML")),
        ambiguous=True,
    ),
    Label(
        "SN candidate",
        tests=(*_REAL, (AGE, "<=", 90), ("i:ndethist", ">", 1), ("d:roid", "!=", 3)),
        any_of=_SN_SCORES,
        extragalactic=True,
        ambiguous=True,
    ),
    Label(
        "Early SN Ia candidate",
        tests=(*_REAL, ("i:ndethist", "<=", 20), ("d:rf_snia_vs_nonia", ">", 0.5)),
        any_of=_SN_SCORES,
        extragalactic=True,
    ),
    Label(
        "Kilonova candidate",
        tests=(
            *_REAL,
            ("d:rf_kn_vs_nonkn", ">", 0.5),
            (AGE, "<", 5),
            ("i:ndethist", "<", 20),
            ("d:roid", "!=", 3),
        ),
        extragalactic=True,
    ),
    Label("Solar System candidate", tests=(("d:roid", "==", 2),), ambiguous=True),
    Label("Tracklet", starts=("d:tracklet", "TRCK_")),
    Label("Solar System MPC", tests=(("d:roid", "==", 3),), ambiguous=True),
)
"""From the least to the most particular: of several that hold, the last gives the name.

Source: fink-filters 7.45, ``ztf/classification.py`` and the filters it calls.
"""


def _holds(label: Label, numbers: Mapping[str, Any], texts: Mapping[str, Any], rows: int) -> Rows:
    def passed(test: Test) -> Rows:
        name, sign, bound = test
        values = numbers.get(name)
        if values is None:
            return np.zeros(rows, bool)
        compared: Rows = _OPERATORS[sign](values, bound) & ~np.isnan(values)
        return compared

    def text(name: str) -> NDArray[Any]:
        found: NDArray[Any] = texts.get(name, np.full(rows, "", object))
        return found

    held = np.ones(rows, bool)
    for test in label.tests:
        held &= passed(test)
    if label.any_of:
        held &= np.any([passed(test) for test in label.any_of], axis=0)
    if label.extragalactic:
        held &= np.array([value in EXTRAGALACTIC for value in text("d:cdsxmatch")], bool)
    if label.starts:
        name, beginning = label.starts
        held &= np.array([value.startswith(beginning) for value in text(name)], bool)
    for name, value in label.equals:
        held &= text(name) == value
    return held


def classify(inputs: Inputs) -> pa.Array:
    """Return what the broker takes each alert for.

    The type of the counterpart in SIMBAD where there is one that is no galaxy; else the last of
    ``LABELS`` that holds, ``Ambiguous`` where several hold that exclude each other, and
    ``Unknown`` where none does.
    """
    rows = len(inputs["d:cdsxmatch"])
    numbers = {
        name: to_numbers(values) for name, values in inputs.items() if name not in _TEXT_INPUTS
    }
    texts = {name: to_texts(inputs[name]) for name in _TEXT_INPUTS if name in inputs}
    numbers[AGE] = numbers["i:jd"] - numbers["i:jdstarthist"]
    found = np.full(rows, "Unknown", object)
    flags = np.zeros(rows, int)
    for label in LABELS:
        held = _holds(label, numbers, texts, rows)
        found[held] = label.name
        flags += held & label.ambiguous
    found[flags > 1] = "Ambiguous"
    matches = texts["d:cdsxmatch"]
    known = np.array(
        [
            match not in NO_COUNTERPART and not match.startswith(NO_COUNTERPART_PREFIXES)
            for match in matches
        ],
        bool,
    )
    found[known] = matches[known]
    return pa.array(found, pa.string())


# --- rates and colours -------------------------------------------------------------------------

GREEN, RED = 1.0, 2.0
"""Of ``i:fid``. The broker gives neither rates nor colours of the third band."""


def shown_numbers(values: pa.Array) -> NDArray[np.float64]:
    """Return numbers as answers show them: a float32 as its shortest decimal.

    So that what is worked out here is what anybody gets who works it out from an answer, as the
    broker does from its texts.
    """
    return to_numbers(values.cast(pa.string()) if pa.types.is_float32(values.type) else values)


_POINTS = ("i:objectId", "i:jd", "i:fid", "i:magpsf", "i:sigmapsf")


def changes(inputs: Inputs) -> dict[str, NDArray[np.float64]]:
    """Return rate and colour of each alert, by the name of the column; not finite: none."""
    objects, *numbers = (inputs[name] for name in _POINTS)
    points = Points(to_texts(objects).astype(str), *map(shown_numbers, numbers))
    rate = rates(points, (GREEN, RED))
    colour, change = colours(points, GREEN, RED)
    return {
        "v:rate": rate.values,
        "v:sigma(rate)": rate.errors,
        "v:g-r": colour.values,
        "v:sigma(g-r)": colour.errors,
        "v:rate(g-r)": change.values,
        "v:sigma(rate(g-r))": change.errors,
    }


def _change(name: str) -> Derived:
    def pick(found: dict[str, NDArray[np.float64]]) -> pa.Array:
        return pa.array(found[name], pa.float64(), mask=~np.isfinite(found[name]))

    return Derived(name, _POINTS, (), pick, pa.float64(), changes)


_TEXT_INPUTS = ("d:cdsxmatch", "d:tracklet", "d:mulens_class_1", "d:mulens_class_2")

ZTF_DERIVED = (
    Derived("v:lastdate", ("i:jd",), (), lambda inputs: _date(inputs["i:jd"]), pa.string()),
    Derived(
        "v:firstdate",
        ("i:jdstarthist",),
        (),
        lambda inputs: _date(inputs["i:jdstarthist"]),
        pa.string(),
    ),
    Derived("v:lapse", ("i:jd", "i:jdstarthist"), (), _lapse, pa.float64()),
    Derived("v:constellation", ("i:ra", "i:dec"), (), _constellation, pa.string()),
    Derived(
        "v:classification",
        (
            "d:cdsxmatch",
            "d:roid",
            "d:snn_snia_vs_nonia",
            "d:snn_sn_vs_all",
            "d:rf_snia_vs_nonia",
            "d:rf_kn_vs_nonkn",
            "i:ndethist",
            "i:drb",
            "i:classtar",
            "i:jd",
            "i:jdstarthist",
        ),
        ("d:mulens", "d:mulens_class_1", "d:mulens_class_2", "d:tracklet"),
        classify,
        pa.string(),
    ),
    _change("v:rate"),
    _change("v:sigma(rate)"),
    _change("v:g-r"),
    _change("v:sigma(g-r)"),
    _change("v:rate(g-r)"),
    _change("v:sigma(rate(g-r))"),
)

DERIVED: Mapping[str, Derived] = {derived.name: derived for derived in ZTF_DERIVED}
"""By name, as a survey's tables list them."""
