"""Arguments that a route does not have: passed over, unless they can only be a mistake.

The services of today pass over what they do not know, and their clients rely on it. But an answer
that silently leaves out what was asked is worse than an error: so a name is refused that is one
slip of the pen away from an argument of the route, or that this service alone has, elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from .errors import UnknownParameter

MOST_COMPARED = 1000
"""Of the unknown names of one request: comparing them takes time, and no client has so many."""
_SEPARATORS = str.maketrans("", "", "-_ ")
_WORDS = re.compile(r"[-_ ]")
LEAST_WORD = 6
"""Letters of a word that stands for an argument: ``format``; ``type`` may be of another service."""

_OLDER = """
hdfsPath objectId candid diaSourceId kind return_type

diaObjectId output-format stretch colormap pmin pmax convolution_kernel
columns withupperlim withcutouts cutout-kind midpointMjdTai

endpoint major_version minor_version schema version flavor
ra dec radius n startdate stopdate window start_date stop_date
class trend color tag date id n_or_d withEphem withResiduals withCutouts
ssoCandId maxnumber sso_name sso_number resolver name name_or_id reverse nmax
file event_name credible_level n_day_before n_day_after
internal_name username comments

cols unused
"""
OLDER = frozenset(_OLDER.split())
"""Arguments of the services of today, whose clients may send any of them to any route: of Fink's
cutout service; of the stamps, objects and sources of its public ones; of their other routes; and
what notebooks send although no route knows it."""


def refuse_mistakes(
    names: Iterable[str], known: Collection[str], ours: Collection[str], *, strict: bool
) -> None:
    """Raise UnknownParameter for the first of the names that is not one to be passed over.

    ``known`` are the arguments of the route, ``ours`` those of all routes; strict: none is
    passed over.
    """
    for number, name in enumerate(names):
        if strict or (name in ours and name not in OLDER):
            raise UnknownParameter(name, known)
        if number < MOST_COMPARED and name not in OLDER:
            meant = find_meant(name, known)
            if meant is not None:
                raise UnknownParameter(name, known, meant)


def find_meant(name: str, known: Collection[str]) -> str | None:
    """Return the known name that this one is but for its case, its separators, or one slip.

    Or but for some of its words: ``format`` for ``output-format``. A slip is a letter too many, too
    few or another one, or two that changed places; never the first letter, and less of them in
    short names, where most words are near some other word.
    """
    for other in known:
        if _is_near(_fold(name), _fold(other)):
            return other
    if len(name) < LEAST_WORD:
        return None
    return next((other for other in known if name.lower() in _WORDS.split(other)), None)


def _fold(name: str) -> str:
    return name.lower().translate(_SEPARATORS)


def _is_near(name: str, known: str) -> bool:
    if name == known:
        return True
    if abs(len(name) - len(known)) > 1 or name[:1] != known[:1]:
        return False
    left, right = _difference(name, known)
    if len(left) == len(right) == 2 and left == right[::-1]:
        return len(known) > 3
    too_long, too_short = (left, right) == (left[:1], ""), (left, right) == ("", right[:1])
    another = len(left) == len(right) == 1
    least = 4 if too_long else 5 if too_short else 6 if another else None
    return least is not None and len(known) >= least


def _difference(left: str, right: str) -> tuple[str, str]:
    """Return what is left of both without what they begin and end with together."""
    start = _shared(zip(left, right, strict=False))
    left, right = left[start:], right[start:]
    end = _shared(zip(left[::-1], right[::-1], strict=False))
    return left[: len(left) - end], right[: len(right) - end]


def _shared(pairs: Iterator[tuple[str, str]]) -> int:
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count
