"""What the rows of one file say of their alerts: ids, time, band, brightness, position, sign."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from .epochs import Entry
from .pages import parquet_errors, read_columns, read_footer
from .storage import OpenFile
from .surveys import Survey

T = TypeVar("T")


def read_entries(file: OpenFile, survey: Survey, rows: Iterable[int] | None = None) -> list[Entry]:
    """Return the entry of each row, or of ``rows``; reads a dozen narrow columns, no stamps.

    What a file has no column for, or a row no value, is None or NaN.
    Raises FileUnreadable, NotParquet.
    """
    footer = read_footer(file)
    sources = {
        "alert_id": survey.alert_key.columns,
        "object_id": survey.object_key.columns,
        "time": survey.time_columns,
        "band": survey.band_columns,
        "brightness": survey.brightness_columns,
        "ra": survey.ra_columns,
        "dec": survey.dec_columns,
        "positive": survey.sign_columns,
    }
    leaves = _leaf_names(footer.metadata)
    columns = {
        fact: next(name for name in names if name in leaves)
        for fact, names in sources.items()
        if any(name in leaves for name in names)
    }
    read = read_columns(footer.window, footer.metadata, sorted(set(columns.values())))
    arrays = dict(zip(sorted(set(columns.values())), read, strict=True))
    with parquet_errors(file.id.path, None, "a column"):
        numbers = range(footer.metadata.num_rows) if rows is None else rows
        return [
            _entry(file, survey, row, {fact: arrays[columns[fact]] for fact in columns})
            for row in numbers
        ]


def _leaf_names(metadata: pq.FileMetaData) -> set[str]:
    columns = (metadata.schema.column(number) for number in range(len(metadata.schema)))
    return {column.path for column in columns if column.max_repetition_level == 0}


def _entry(file: OpenFile, survey: Survey, row: int, arrays: Mapping[str, pa.Array]) -> Entry:
    def value(fact: str) -> Any:
        if fact not in arrays:
            return None
        found = arrays[fact][row].as_py()
        return found.decode(errors="replace") if isinstance(found, bytes) else found

    def number(fact: str) -> float:
        found = value(fact)
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        return float(found) if is_number else math.nan

    return Entry(
        file=file.id,
        row=row,
        alert_id=_parsed(survey.alert_key.parse, value("alert_id")),
        object_id=_parsed(survey.object_key.parse, value("object_id")),
        time=number("time"),
        band=_among(survey.bands, value("band")),
        brightness=number("brightness"),
        ra=number("ra"),
        dec=number("dec"),
        positive=_among(survey.signs, value("positive")),
    )


def _parsed(parse: Any, value: object) -> Any:
    try:
        return None if value is None else parse(value)
    except ValueError:
        return None


def _among(names: Mapping[Any, T], value: object) -> T | None:
    return names.get(value) if isinstance(value, bool | int | str) else None
