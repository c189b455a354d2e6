"""Ways of storing the same thing: a survey's names and values in a file that has its own.

Hive writes names in lower case, brokers drop the struct around a stamp, pandas makes floats of
ids that have nulls between them. Whatever recognises a column, or takes ids, text or stamps out
of one, does it here. Source: parquet-format, LogicalTypes (lists, decimals, strings).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .surveys import SURVEYS, Key

T = TypeVar("T")
StoredCell = bytes | ValueError | None
"""The stored bytes of a stamp, None where it is null, or why it holds no bytes."""
INTEGERS, FLOATS = ("INT32", "INT64"), ("DOUBLE", "FLOAT")
BYTES = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
"""Text, stamps, and decimals too."""
NUMBERS = (FLOATS, (*INTEGERS, "FIXED_LEN_BYTE_ARRAY"))
"""Groups for times and the like: floats before what a writer may have made of them."""
EXACT = 2**53
"""Below this a float64 tells every whole number from its neighbours."""
MOST_DIGITS = 20
"""Of an id that is kept as text: an int64 has no more, its sign counted."""
_LIST_DEPTH = 2
"""Names between a list and its values: ``list.element``, ``bag.array_element``, ``array``."""


# --- names -------------------------------------------------------------------------------------


class Leaves:
    """The leaf columns of a file by their dotted names.

    A name is found in any case. If two columns differ only in case, the exact spelling is taken;
    without one the name is not found.
    """

    def __init__(self, metadata: pq.FileMetaData) -> None:
        self._schema = metadata.schema
        columns = [self._schema.column(number) for number in range(len(self._schema))]
        flat = [(it.path, n) for n, it in enumerate(columns) if not it.max_repetition_level]
        self._every = [it.path for it in columns]
        self._numbers = named_once(flat)
        """Of those that hold one value a row."""
        self._twins = {path for path, _ in flat} - self._numbers.keys()
        self._spelled = spellings(self._numbers)

    def find(self, names: Sequence[str], *types: tuple[str, ...]) -> str | None:
        """Return the path of the first of several names that the file has.

        ``types`` are groups of parquet's physical types: a column of the first group is taken
        before any of the next.
        """
        paths = [path for path in map(self._path, names) if path is not None]
        for group in types:
            for path in paths:
                if self._type(self._numbers[path]) in group:
                    return path
        return None

    def find_key(self, key: Key) -> str | None:
        """Return the path of the column that holds an id: integers before what only stands for
        them, since a float may have lost the last digits."""
        groups = (INTEGERS, BYTES, FLOATS) if key.is_number else (BYTES,)
        return self.find(key.columns, *groups)

    def has(self, name: str) -> bool:
        """Whether there is such a column, or a struct or a list with columns in it, in any case."""
        folded = name.lower()
        return any(f"{path.lower()}.".startswith(f"{folded}.") for path in self._every)

    def find_stamps(self, names: Sequence[str]) -> tuple[str, int] | None:
        """Return the path of the column that holds stamps, and the number of its leaf.

        Bytes, text, or a list of whole numbers; the path of a list is that of the list itself.
        """
        for name in names:
            path = self._path(name)
            if path is not None and self._type(self._numbers[path]) in BYTES:
                return path, self._numbers[path]
            found = [] if path is not None else self._list(name)
            if len(found) == 1:
                return found[0]
        return None

    def doubt(self, names: Iterable[str]) -> str | None:
        """Return why a file that has a column of one of these names cannot be read by it."""
        for name in names:
            folded, prefix = name.lower(), f"{name.lower()}."
            if name in self._twins:
                return f"it holds more than one {name}"
            same = [path for path in self._numbers if path.lower() == folded]
            if len(same) > 1:
                return f"it holds {' and '.join(same)}, which differ only in case"
            if same:
                return f"it holds {same[0]} as {self._type(self._numbers[same[0]])}"
            everything = (*self._numbers.items(), *self._lists)
            below = [(path, it) for path, it in everything if path.lower().startswith(prefix)]
            if below:
                fields = ", ".join(f"{path} as {self._type(it)}" for path, it in below[:4])
                return f"it holds {fields}{', ...' if len(below) > 4 else ''}"
        return None

    @cached_property
    def _lists(self) -> list[tuple[str, int]]:
        """Return the paths of the leaves inside one list, and their numbers."""
        columns = enumerate(map(self._schema.column, range(len(self._schema))))
        return [(it.path, number) for number, it in columns if it.max_repetition_level == 1]

    def _path(self, name: str) -> str | None:
        return name if name in self._numbers else self._spelled.get(name.lower())

    def _type(self, number: int) -> str:
        found: str = self._schema.column(number).physical_type
        return found

    def _list(self, name: str) -> list[tuple[str, int]]:
        """Return the lists of whole numbers of this name: the exact one, or all in other cases."""
        depth = name.count(".") + 1
        found = []
        for path, number in self._lists:
            if path.lower().startswith(name.lower()) and self._type(number) in INTEGERS:
                parts = path.split(".")
                head = ".".join(parts[:depth])
                if head.lower() == name.lower() and len(parts) - depth <= _LIST_DEPTH:
                    found.append((head, number))
        return [it for it in found if it[0] == name] or found


def recognise(leaves: Leaves) -> dict[str, tuple[str | None, str | None]]:
    """Return by name the surveys whose alerts a file holds, in the order of ``SURVEYS``.

    With each go the columns of its alerts' and its objects' ids, or None. A column is one survey's:
    where several have ids of that name, it is the one whose mark the file has besides.
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    claimed: set[str | None] = set()
    for survey in sorted(SURVEYS, key=lambda survey: not survey.marks):
        if survey.marks and not any(map(leaves.has, survey.marks)):
            continue
        alert, object_ = (leaves.find_key(key) for key in (survey.alert_key, survey.object_key))
        alert, object_ = (None if it in claimed else it for it in (alert, object_))
        if alert or object_:
            found[survey.name] = alert, object_
        if survey.marks:
            claimed |= {alert, object_} - {None}
    return {survey.name: found[survey.name] for survey in SURVEYS if survey.name in found}


def named_once(items: Sequence[tuple[str, T]]) -> dict[str, T]:
    """Return what has a name of its own; no reader could tell two of one name apart."""
    found = dict(items)
    if len(found) < len(items):
        counts = Counter(name for name, _ in items)
        found = {name: it for name, it in items if counts[name] == 1}
    return found


def spellings(names: Iterable[str]) -> dict[str, str]:
    """Return the names by what they are in lower case, without those that differ only in case."""
    every = list(names)
    found = {name.lower(): name for name in every}
    if len(found) < len(every):
        counts = Counter(map(str.lower, dict.fromkeys(every)))
        found = {folded: name for folded, name in found.items() if counts[folded] == 1}
    return found


# --- values ------------------------------------------------------------------------------------


def plain_values(values: pa.Array) -> pa.Array:
    """Return an array without what may be wrapped around its values; text as the bytes it is.

    Writers do not check that text is UTF-8, nor does pyarrow before it makes strings of it.
    """
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        return values.cast(pa.binary_view()).cast(pa.large_binary())
    if pa.types.is_string(values.type):
        return values.cast(pa.binary())
    if pa.types.is_large_string(values.type) or pa.types.is_fixed_size_binary(values.type):
        return values.cast(pa.large_binary())
    return values


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether values are bytes of any length, as ``plain_values`` leaves text too."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def exact_integers(values: pa.Array) -> pa.Array:
    """Return ids as int64; null for what is none, is too large, or may have lost digits.

    Integers, decimals and digits are taken as they are; of floats those whole numbers that a
    float tells from their neighbours, which are below 2^53.
    """
    values = plain_values(values)
    for fits, convert in _EXACTLY:
        if fits(values.type):
            return convert(values)
    return pa.nulls(len(values), pa.int64())  # times: whole numbers underneath, but no ids


def _from_unsigned(values: pa.Array) -> pa.Array:
    fits = pc.less_equal(values, pa.scalar(2**63 - 1, pa.uint64()))
    return pc.if_else(fits, values, pa.scalar(None, pa.uint64())).cast(pa.int64())


def _from_floats(values: pa.Array) -> pa.Array:
    values = values.cast(pa.float64())
    there = pc.and_(pc.is_finite(values), pc.less(pc.abs(values), float(EXACT)))
    there = pc.and_(there, pc.equal(values, pc.trunc(values)))
    return pc.if_else(there, values, pa.scalar(None, pa.float64())).cast(pa.int64())


def _from_decimals(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:  # one that is not whole, or too large
        found = (None if it is None or it % 1 else int(it) for it in values.to_pylist())
        fitting = [it if it is not None and _fits(it) else None for it in found]
        return pa.array(fitting, pa.int64())


def _from_texts(values: pa.Array) -> pa.Array:
    return pa.array([_whole(text) for text in values.to_pylist()], pa.int64())


def _whole(text: bytes | None) -> int | None:
    if text is None or len(text) > MOST_DIGITS:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    # Only as it would be sent: "007" and " 7" are other names than 7.
    return number if str(number).encode() == text and _fits(number) else None


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


_EXACTLY: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (pa.types.is_uint64, _from_unsigned),
    (pa.types.is_integer, lambda values: values.cast(pa.int64())),
    (pa.types.is_floating, _from_floats),
    (pa.types.is_decimal, _from_decimals),
    (is_bytes, _from_texts),
)


def floats_of(values: pa.Array) -> pa.Array:
    """Return numbers as float64; null for what is no number."""
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False)
    return pa.nulls(len(values), pa.float64())


def clean_text(values: pa.Array) -> pa.Array:
    """Return values with U+FFFD in the place of bytes that are not UTF-8, at any depth."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return _cleaned(values)
    return values


def _cleaned(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_fixed_size_list(values.type):
        values = values.cast(pa.list_(values.type.value_type))
    kind = values.type
    if pa.types.is_struct(kind):
        fields = [_cleaned(field) for field in values.flatten()]
        named = [
            pa.field(old.name, new.type, old.nullable)
            for old, new in zip(kind, fields, strict=True)
        ]
        return pa.StructArray.from_arrays(fields, fields=named, mask=values.is_null())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        # A slice shows offsets and values of the whole.
        whole = values.take(pa.array(np.arange(len(values))))
        if pa.types.is_map(kind):
            return pa.MapArray.from_arrays(
                whole.offsets, _cleaned(whole.keys), _cleaned(whole.items)
            )
        maker = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
        return maker.from_arrays(whole.offsets, _cleaned(whole.values), mask=whole.is_null())
    if is_text(kind):
        return text_of(values)
    return values


def decoded(text: bytes) -> str:
    """Return text with U+FFFD in the place of what is not UTF-8."""
    return text.decode("utf-8", "replace")


def is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def text_of(values: pa.Array) -> pa.Array:
    """Return bytes as the text that they are."""
    texts = plain_values(values).to_pylist()
    return pa.array([None if it is None else decoded(it) for it in texts], pa.string())


def listed(fields: Sequence[str], values: pa.Array) -> pa.Array:
    """Return numbers that a file keeps as structs, maps or lists as text: each a JSON list.

    Those of a struct or a map come in the order of ``fields``, null where one is not there, then
    those that ``fields`` does not name. A null is ``[]``, and NaN is NaN, which Python reads: so
    does Spark write them, and today's clients read what it writes.
    """
    if pa.types.is_struct(values.type):
        names = [field.name for field in values.type]
        rows = zip(*(_numbers(child) for child in values.flatten()), strict=True)
        found = [dict(zip(names, row, strict=True)) for row in rows]
        there = values.is_valid().to_pylist()
        lists = [
            _in_order(fields, row) if valid else () for row, valid in zip(found, there, strict=True)
        ]
    elif pa.types.is_map(values.type):
        lists = [_in_order(fields, dict(row or ())) for row in values.to_pylist()]
    else:
        lists = [row or () for row in values.to_pylist()]
    return pa.array([json.dumps(list(row), default=str) for row in lists], pa.string())


def _in_order(fields: Sequence[str], row: dict[str, Any]) -> Sequence[Any]:
    if not row:
        return ()
    return (*(row.pop(name, None) for name in fields), *row.values())


def _numbers(values: pa.Array) -> list[Any]:
    """Return numbers as Python's; a float32 as what its shortest decimal says."""
    if pa.types.is_float32(values.type):
        values = values.cast(pa.string()).cast(pa.float64())
    found: list[Any] = values.to_pylist()
    return found


def stamps_of(values: pa.Array) -> Iterator[StoredCell]:
    """Yield the stored bytes of each stamp, None where one is null, or why it has none.

    ``values`` may be bytes or text of any length, or lists of whole numbers, one for each byte.
    """
    for row in range(len(values)):
        # One by one: together they may be more than a column of binary holds.
        try:
            yield _stamp(values.slice(row, 1))
        except (ValueError, pa.ArrowException) as error:
            yield ValueError(f"{values.type} that are no bytes: {error}")


def _stamp(values: pa.Array) -> bytes | None:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if values.null_count or pa.types.is_null(values.type):
        return None
    value: Any = values[0]
    if not isinstance(value, pa.ListScalar):
        stored: bytes = plain_values(values).cast(pa.large_binary())[0].as_py()
        return stored
    numbers = value.values
    if numbers.null_count:
        raise ValueError("a null between them")
    if not pa.types.is_integer(numbers.type):
        raise ValueError("no whole numbers")
    # int8 is how Java says byte. Others have to be what a byte can be: the cast refuses them.
    signed = pa.types.is_int8(numbers.type)
    numbers = numbers.view(pa.uint8()) if signed else numbers.cast(pa.uint8())
    return np.frombuffer(numbers.buffers()[1] or b"", np.uint8)[
        numbers.offset : numbers.offset + len(numbers)
    ].tobytes()
