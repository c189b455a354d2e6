"""Rows of files with different schemas -> one table.

A column that a file lacks is null in its rows. Types meet in one that loses nothing: an int64
never goes through a float, since an id would come out as another's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .layouts import EXACT, exact_integers, is_text

Columns = dict[str, pa.Array]


def join(parts: Sequence[Columns], rows: Sequence[int]) -> Columns:
    """Return the columns of several parts one below the other, in the order they first appear."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _stack([part.get(name) for part in parts], rows) for name in names}


def take_map_apart(values: pa.Array) -> Columns:
    """Return a column for each key of an array of maps, null in the rows that lack the key."""
    rows = [dict(row) if row is not None else {} for row in values.to_pylist()]
    names = dict.fromkeys(key for row in rows for key in row)
    kind = values.type.item_type
    return {name: pa.array([row.get(name) for row in rows], kind) for name in names}


def _stack(pieces: Sequence[pa.Array | None], rows: Sequence[int]) -> pa.Array:
    there = [_plain(piece) for piece in pieces if piece is not None]
    kind = common_type(there)
    cast = iter([convert(piece, kind) for piece in there])
    return pa.concat_arrays(
        [
            pa.nulls(count, kind) if piece is None else next(cast)
            for piece, count in zip(pieces, rows, strict=True)
        ]
    )


def _plain(values: pa.Array) -> pa.Array:
    """Return values without a dictionary or an extension around them."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_text(values.type):
        values = values.cast(pa.string())
    return values


def common_type(pieces: Sequence[pa.Array]) -> pa.DataType:
    """Return the narrowest type that holds the values of all pieces exactly; text if none does."""
    kinds = {piece.type for piece in pieces if not pa.types.is_null(piece.type)}
    if len(kinds) <= 1:
        return next(iter(kinds), pa.null())
    if any(pa.types.is_list(kind) or pa.types.is_struct(kind) for kind in kinds):
        try:
            return (
                pa.unify_schemas(
                    [pa.schema([("x", kind)]) for kind in kinds], promote_options="permissive"
                )
                .field("x")
                .type
            )
        except pa.ArrowException:
            return pieces[0].type
    if all(pa.types.is_integer(kind) for kind in kinds):
        return pa.int64() if all(_fits_int64(piece) for piece in pieces) else pa.string()
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        return _type_of_numbers(pieces)
    return pa.string()


def _type_of_numbers(pieces: Sequence[pa.Array]) -> pa.DataType:
    """Return the type for whole numbers in one file and floats in another."""
    floats = [piece for piece in pieces if pa.types.is_floating(piece.type)]
    if len(floats) == len(pieces):
        return pa.float64()
    integers = [piece for piece in pieces if pa.types.is_integer(piece.type)]
    if not all(_fits_int64(piece) for piece in integers):
        return pa.string()
    are_ids = not all(_is_exact(piece) for piece in integers)
    return pa.int64() if are_ids or all(_is_whole(piece) for piece in floats) else pa.float64()


def _numbers(values: pa.Array) -> np.ndarray:
    found: np.ndarray = values.drop_null().to_numpy(zero_copy_only=False)
    return found


def _fits_int64(values: pa.Array) -> bool:
    if not pa.types.is_uint64(values.type):
        return True
    return bool((_numbers(values) < 2**63).all())


def _is_whole(values: pa.Array) -> bool:
    """Tell whether those of some floats that are numbers are whole and exact."""
    numbers = values.filter(pc.invert(pc.is_nan(values)))
    return bool(exact_integers(numbers).null_count == numbers.null_count)


def _is_exact(values: pa.Array) -> bool:
    numbers = _numbers(values)
    return bool((numbers <= EXACT).all() and (numbers >= -EXACT).all())


def convert(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return values as a type that ``common_type`` chose for them."""
    if values.type == kind:
        return values
    if pa.types.is_floating(values.type) and pa.types.is_integer(kind):
        # An id that a file keeps as a float is no id any more.
        values = exact_integers(values)
    try:
        return values.cast(kind)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values.to_pylist()])


def without_nan(values: pa.Array) -> pa.Array:
    """Return values with null in the place of NaN and infinities, which no table format shares."""
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
