"""What the catalog keeps of a file's alerts: ids, time, band, brightness, position, sign.

These few columns of some four hundred are read whole, a few kilobytes of a file of 100 MB.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .epochs import Entry
from .layouts import (
    BYTES,
    FLOATS,
    INTEGERS,
    NUMBERS,
    Leaves,
    decoded,
    exact_integers,
    floats_of,
    plain_values,
    recognise,
)
from .pages import Footer, encrypted_column, parquet_errors, read_columns, read_footer
from .storage import FileId, OpenFile
from .surveys import KINDS, SURVEYS, Key, KeyValue, Survey

ANYTHING = ((*INTEGERS, *BYTES, "BOOLEAN", *FLOATS),)

AlertRow = tuple[
    int | None,
    int | None,
    float | None,
    str | None,
    float | None,
    float | None,
    float | None,
    bool | None,
]
"""Alert id, packed object, time, band, brightness, ra, dec, sign; None: null or no number."""


@dataclass(frozen=True)
class AlertColumns:
    """The alerts of one file as one survey names them: lists with one value for each row."""

    survey: Survey
    alert_ids: list[int | None]
    object_ids: list[int | None]
    """Packed, as ``survey.object_key.pack`` does; None too for what is not an object's name. Of an
    alert without an object, the number of what moves there, below zero: no object's id is."""
    times: list[float | None]
    bands: list[str | None]
    brightness: list[float | None]
    ra: list[float | None]
    dec: list[float | None]
    signs: list[bool | None]
    warning: str = ""
    """What of the file cannot be read, though its alerts are known."""

    def __len__(self) -> int:
        return len(self.alert_ids)

    def rows(self) -> Iterator[AlertRow]:
        """Yield the rows of the file in their order."""
        return zip(
            self.alert_ids,
            self.object_ids,
            self.times,
            self.bands,
            self.brightness,
            self.ra,
            self.dec,
            self.signs,
            strict=True,
        )

    def entries(
        self, file_id: FileId, object_ids: Collection[KeyValue] | None = None
    ) -> Iterator[Entry]:
        """Yield the alerts of the file, or those of some objects."""
        wanted = None if object_ids is None else set(map(self.survey.object_key.pack, object_ids))
        for number, row in enumerate(self.rows()):
            if wanted is None or row[1] in wanted:
                yield make_entry(self.survey, file_id, number, row)


def make_entry(survey: Survey, file_id: FileId, number: int, row: AlertRow) -> Entry:
    alert_id, object_id, time, band, brightness, ra, dec, sign = row
    moves = survey.moving_key is not None and object_id is not None and object_id <= 0
    return Entry(
        file_id,
        number,
        alert_id,
        None if object_id is None or moves else survey.object_key.unpack(object_id),
        math.nan if time is None else time,
        band,
        math.nan if brightness is None else brightness,
        math.nan if ra is None else ra,
        math.nan if dec is None else dec,
        None if sign is None else bool(sign),
        # 0 and -1 are what earlier versions cataloged of alerts that have neither.
        -object_id if moves and object_id is not None and object_id < -1 else None,
    )


def pack_object(survey: Survey, entry: Entry) -> int | None:
    """Return what is the same of all alerts of an object, or of what moves, as it is cataloged."""
    if entry.object_id is not None:
        return survey.object_key.pack(entry.object_id)
    return None if entry.moving_id is None else -entry.moving_id


def read_alert_columns(file: OpenFile) -> list[AlertColumns]:
    """Read these columns for each survey whose ids the file has; none: an unknown schema.

    Raises FileUnreadable, NotParquet.
    """
    footer = read_footer(file)
    with parquet_errors(file.id.path, None, "the schema"):
        leaves = Leaves(footer.metadata)

    def named(columns: tuple[str, ...], types: tuple[tuple[str, ...], ...]) -> str:
        return leaves.find(columns, *types) or ""

    ids = recognise(leaves)
    names = {
        survey.name: (
            *(name or "" for name in ids[survey.name]),
            (survey.moving_key and leaves.find_key(survey.moving_key)) or "",
            named(survey.time_columns, NUMBERS),
            named(survey.band_columns, ANYTHING),
            named(survey.brightness_columns, NUMBERS),
            named(survey.ra_columns, NUMBERS),
            named(survey.dec_columns, NUMBERS),
            named(survey.sign_columns, ANYTHING),
        )
        for survey in SURVEYS
        if survey.name in ids
    }
    wanted = sorted({name for found in names.values() for name in found if name})
    arrays = dict(zip(wanted, read_columns(footer, wanted), strict=True))
    rows = footer.metadata.num_rows
    with parquet_errors(file.id.path, None, "a column of the catalog"):
        return [
            _convert(
                survey,
                rows,
                [arrays.get(name) for name in names[survey.name]],
                _warn_of_encryption(footer, leaves, survey),
            )
            for survey in SURVEYS
            if survey.name in names
        ]


def _warn_of_encryption(footer: Footer, leaves: Leaves, survey: Survey) -> str:
    """Return a sentence about the stamps that nobody can read, empty where there are none."""
    found = (leaves.find_stamps(survey.stamp_column_names(kind)) for kind in KINDS)
    return "; ".join(
        encrypted_column(footer, leaf)
        for _, leaf in filter(None, found)
        if any(chunk.is_encrypted for chunk in footer.metadata.chunks(leaf))
    )


def _convert(
    survey: Survey, rows: int, arrays: list[pa.Array | None], warning: str
) -> AlertColumns:
    alert, object_, moving, time, band, brightness, ra, dec, sign = arrays
    nothing: list[Any] = [None] * rows

    def floats(values: pa.Array | None) -> list[float | None]:
        return nothing if values is None else _floats(values)

    return AlertColumns(
        survey,
        alert_ids=nothing if alert is None else _packed(alert, survey.alert_key),
        object_ids=_packed_objects(survey, rows, object_, moving),
        times=floats(time),
        bands=nothing if band is None else _mapped(band, survey.bands.get),
        brightness=floats(brightness),
        ra=floats(ra),
        dec=floats(dec),
        signs=nothing if sign is None else _mapped(sign, survey.signs.get),
        warning=warning,
    )


def _floats(values: pa.Array) -> list[float | None]:
    """Return float64, to which a float32 converts exactly; None for null, NaN and infinities."""
    numbers = floats_of(values).to_numpy(zero_copy_only=False)
    found: list[float | None] = numbers.tolist()
    for place in np.flatnonzero(~np.isfinite(numbers)):
        found[place] = None
    return found


def _packed_objects(
    survey: Survey, rows: int, objects: pa.Array | None, moving: pa.Array | None
) -> list[int | None]:
    packed: list[int | None] = [None] * rows
    if objects is not None:
        packed = _packed(objects, survey.object_key)
    if moving is None or survey.moving_key is None:
        return packed
    moves = _packed(moving, survey.moving_key)
    return [
        -other if number is None and other is not None else number
        for number, other in zip(packed, moves, strict=True)
    ]


def _packed(values: pa.Array, key: Key) -> list[int | None]:
    """Return ids as the catalog keeps them; None too for what names nothing."""
    if key.is_number:
        numbers = exact_integers(values).to_pylist()
        return [
            number if number is not None and number >= key.least else None for number in numbers
        ]

    def pack(name: Any) -> int | None:
        try:
            return key.pack(name)
        except ValueError:
            return None

    return _mapped(values, pack)


def _mapped(values: pa.Array, convert: Callable[..., Any]) -> list[Any]:
    """Return what each value converts to; each different value is converted once."""
    encoded = plain_values(values).dictionary_encode()
    texts = (
        decoded(value) if isinstance(value, bytes) else value
        for value in encoded.dictionary.to_pylist()
    )
    meanings = [convert(value) for value in texts]
    return [None if place is None else meanings[place] for place in encoded.indices.to_pylist()]


def read_entry(file: OpenFile, survey: Survey, row: int) -> Entry:
    """Return what one row of a file says of its alert.

    Raises FileUnreadable, NotParquet.
    """
    unknown = Entry(file.id, row, None, None, math.nan)
    for alerts in read_alert_columns(file):
        if alerts.survey is survey:
            return next(itertools.islice(alerts.entries(file.id), row, None), unknown)
    return unknown
