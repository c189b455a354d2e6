"""The tables of alert data: what of a file each shows, and under which names.

A leaf of a file's schema becomes a column by the first rule of its survey's table (a ``View``)
that names it or the struct it is in; ``candidate.jd`` is ``i:jd``, ``mulens.class_1`` is
``d:mulens_class_1``. Lists (the history of an alert) are no columns. Source of the names: the
public API of the Fink broker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import orjson
import pyarrow as pa

from .derived import DERIVED, Derived
from .layouts import exact_integers, is_text, listed, named_once, spellings, text_of
from .surveys import Survey, View, read_descriptions


class Description(NamedTuple):
    """What is known of a column, whatever a file holds; empty: nothing."""

    unit: str = ""
    text: str = ""
    type: str = ""
    """As callers are told it. Only what the public schema has, in files or not, has one."""
    ucd: str = ""
    """What kind of quantity it is: IVOA's UCD1+, for VOTables."""


_MAIN = ";meta.main"


@dataclass(frozen=True)
class Column:
    """A leaf of a file, as a table shows it."""

    path: str
    type: pa.DataType
    asked: bool
    convert: Callable[[pa.Array], pa.Array] | None = None
    """What makes ``type`` of what the file holds; None: that is the type."""
    is_former: bool = False
    """Whether this is a name of before, which is understood and in no list."""


_KNOWN_SCHEMAS = 16
_known: list[tuple[View, pa.Schema, dict[str, Column]]] = []


def columns_of(view: View, schema: pa.Schema) -> Mapping[str, Column]:
    """Return the columns that ``view`` makes of a file, by name, in the order of its rules.

    Most files of an archive share a schema, and comparing two is ten times faster than this.
    """
    for known, other, columns in _known:
        if known is view and other.equals(schema):
            return columns
    columns = _name_columns(view, schema)
    _known.insert(0, (view, schema, columns))
    del _known[_KNOWN_SCHEMAS:]
    return columns


def _name_columns(view: View, schema: pa.Schema) -> dict[str, Column]:
    """Return the columns by name: in the survey's usual spelling, whatever the file's is.

    Of two columns that differ only in case each keeps its own.
    """
    found: list[tuple[int, str, str, Column]] = []
    kinds = named_once(list(leaves(schema)))
    spelled = spellings(kinds)
    usual = usual_names(view)
    for path, kind in kinds.items():
        convert, any_case = _id_conversion(view.survey, path, kind), path.lower() in spelled
        if convert is None and _is_bytes(kind):
            continue
        place, name, asked, former = len(view.rules), path, False, ""
        prefix: str | None = view.rest
        for number, rule in enumerate(view.rules):
            matched = rule.name(path, any_case=any_case)
            if matched is not None:
                place, prefix, name, asked = number, rule.prefix, matched, rule.asked
                former = rule.former
                break
        if prefix is None:
            continue
        name = name.replace(".", "_")
        former = former and former + name
        name = prefix + name
        if any_case:
            name = usual.get(name.lower(), name)
        column = Column(path, kind, asked)
        if convert is not None:
            twin = _exact_twin(view.survey, path, kinds, spelled)
            column = Column(twin, convert[0], asked, convert[1])
        found.append((place, name, former, column))
    found.sort(key=lambda entry: entry[0])
    return _settle_names(found) | _listings(view, schema)


def _settle_names(found: Iterable[tuple[int, str, str, Column]]) -> dict[str, Column]:
    """Return columns by name, each with a name of its own.

    A column that is called so keeps its name; a field that lost the name of its struct has it back
    where it would meet such a column, or one that lost it before. So none is hidden.
    """
    own = {name for _, name, former, _ in found if not former}
    columns: dict[str, Column] = {}
    before: dict[str, Column] = {}
    for _, name, former, column in found:
        if former:
            before[former] = replace(column, asked=True, is_former=True)
        is_taken = former and (name in own or name in columns)
        columns.setdefault(former if is_taken else name, column)
    return columns | {name: it for name, it in before.items() if name not in columns}


def _listings(view: View, schema: pa.Schema) -> dict[str, Column]:
    """Return the columns that are many in a file and one text in the table."""
    spelled = spellings(schema.names)
    paths = {it: spelled.get(it.column.lower()) for it in view.listings}
    return {
        listing.name: Column(path, pa.string(), False, partial(listed, listing.fields))
        for listing, path in paths.items()
        if path is not None and pa.types.is_nested(schema.field(path).type)
    }


Conversion = tuple[pa.DataType, Callable[[pa.Array], pa.Array]]
_TO_INTEGERS: Conversion = (pa.int64(), exact_integers)
_TO_TEXT: Conversion = (pa.string(), text_of)


def _id_conversion(survey: Survey, path: str, kind: pa.DataType) -> Conversion | None:
    """Return what an id has to become that a file keeps as something else; None: nothing."""
    folded = path.lower()
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    key = next((it for it in survey.keys if folded in map(str.lower, it.columns)), None)
    if key is not None and not key.is_number:
        return _TO_TEXT if _is_bytes(kind) else None
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        is_id = folded.rpartition(".")[2] in map(str.lower, survey.id_names)
        return _TO_INTEGERS if is_id else None
    return _TO_INTEGERS if key is not None and (is_text(kind) or _is_bytes(kind)) else None


def _exact_twin(
    survey: Survey, path: str, kinds: Mapping[str, pa.DataType], spelled: Mapping[str, str]
) -> str:
    """Return the column that holds the same id of the same alert exactly, or ``path``."""
    for key in survey.keys:
        twins = [it for name in key.columns if (it := spelled.get(name.lower())) is not None]
        if path in twins:
            return min(twins, key=lambda it: _inexactness(kinds[it]))
    return path


def _inexactness(kind: pa.DataType) -> int:
    """Return how far a type is from integers, as ``Leaves.find_key`` takes columns of ids."""
    return 0 if pa.types.is_integer(kind) else 2 if pa.types.is_floating(kind) else 1


def public_types(view: View) -> Mapping[str, pa.DataType]:
    """Return the columns of a table's public schema, which files need not have, and their types.

    Those that today's service has: they are null where a file lacks them. Stamps are none of them.
    """
    types = _public_types(view.described, tuple(view.survey.bands.values()))
    # Surveys share descriptions of what is worked out, and not all of it is for each.
    others = DERIVED.keys() - set(view.derived)
    return {name: kind for name, kind in types.items() if name not in others}


@cache
def _public_types(
    described: tuple[tuple[str, str], ...], bands: tuple[str, ...]
) -> Mapping[str, pa.DataType]:
    types = {name: _TYPES.get(found.type) for name, found in _described(described, bands)}
    return {name: kind for name, kind in types.items() if kind is not None}


@cache
def _usual_names(described: tuple[tuple[str, str], ...], bands: tuple[str, ...]) -> dict[str, str]:
    """Return the names that are described, by what they are in lower case."""
    return {name.lower(): name for name, _ in _described(described, bands)}


def _described(
    described: tuple[tuple[str, str], ...], bands: tuple[str, ...]
) -> Iterator[tuple[str, Description]]:
    """Yield the name and the description of what is described, each band for itself."""
    for prefix, section in described:
        for short, members in _descriptions()[section].items():
            for band in bands if "*" in short else ("",):
                yield prefix + short.replace("*", band, 1), Description(*members)


def usual_names(view: View) -> dict[str, str]:
    """Return the names of a table in the survey's spelling, by what they are in lower case."""
    return _usual_names(view.described, tuple(view.survey.bands.values()))


def derived_of(view: View) -> tuple[Derived, ...]:
    """Return the columns of a table that are worked out from others."""
    return tuple(DERIVED[name] for name in view.derived)


def maps_of(view: View, schema: pa.Schema) -> dict[str, str]:
    """Return the columns of a file that are maps by text, by what their keys' names begin with.

    ``mangrove``, a map, has columns ``d:mangrove_<key>``: which, only its rows tell.
    """
    named = {rule.path for rule in view.rules}
    return {
        f"{view.rest}{field.name}_": field.name
        for field in schema
        if pa.types.is_map(field.type)
        and pa.types.is_string(field.type.key_type)
        and not (pa.types.is_nested(field.type.item_type) or _is_bytes(field.type.item_type))
        and field.name not in named
    }


def leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Yield dotted name and type of each leaf that holds one value a row."""

    def walk(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from walk(f"{path}.{field.name}", field.type)
        elif not pa.types.is_nested(kind):
            yield path, kind

    for field in schema:
        yield from walk(field.name, field.type)


def _is_bytes(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )


@cache
def _descriptions() -> dict[str, dict[str, list[str]]]:
    content: dict[str, dict[str, list[str]]] = {}
    for text in read_descriptions():
        content |= orjson.loads(text)
    return defaultdict(dict, content)  # a survey need not describe its columns


def describe(view: View, name: str) -> Description:
    """Return what is known of a column; of one that nobody has written down, nothing."""
    for prefix, section in view.described:
        if name.startswith(prefix):
            found = _describe(_descriptions()[section], name[len(prefix) :])
            # What tells the rows of its own table apart does not tell those of another.
            is_own = prefix.endswith(":")
            return found if is_own else found._replace(ucd=found.ucd.removesuffix(_MAIN))
    return Description()


def _describe(known: Mapping[str, list[str]], name: str) -> Description:
    """Describe a column; for all bands it may stand there once: ``u_psfFluxMean`` as ``*_...``."""
    if name in known:
        return Description(*known[name])
    band, _, rest = name.partition("_")
    if len(band) != 1 or f"*_{rest}" not in known:
        return Description()
    found = Description(*known[f"*_{rest}"])
    return found._replace(text=found.text.replace("{band}", band))


_TYPES = {
    "long": pa.int64(),
    "int": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "string": pa.string(),
}


def type_name(kind: pa.DataType) -> str:
    """Return a type as callers are told it."""
    if pa.types.is_dictionary(kind):
        return type_name(kind.value_type)
    names = {kind: name for name, kind in _TYPES.items()}
    names |= {pa.int16(): "int", pa.int8(): "int", pa.large_string(): "string"}
    return names.get(kind, str(kind))
