"""Rows of alert data -> the bytes of the answer: one row of ``TABLE_FORMATS`` for each way.

Rows come in chunks and leave in chunks, so that no answer is ever whole in memory. Integers are
written as integers in each format, ids of 64 bits too: JSON parsers of Python and R read them
exactly, while pandas before version 3 reads digits in quotes through a float.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .arrays import widen

Images = Sequence[NDArray[np.generic] | None]
STAMP = pa.list_(pa.list_(pa.float32()))


@dataclass(frozen=True)
class Chunk:
    """Some rows: plain columns, and columns of images as arrays of shape (ny, nx)."""

    rows: int
    data: pa.Table
    """May be without columns, and then it does not know how many rows it has."""
    stamps: Mapping[str, Images] = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """What is known before the first row."""

    schema: pa.Schema
    """Of the plain columns."""
    stamps: tuple[str, ...] = ()
    describe: Callable[[str], tuple[str, str, str, str]] = lambda _: ("", "", "", "")
    """Name of a column -> its unit, what it is, its type in the public schema, and its UCD."""
    time_scale: str = ""
    """Of the columns that are times: ``utc`` or ``tai``."""
    mjd_offset: float = 0.0
    """Those times minus this are Modified Julian Dates."""


@dataclass(frozen=True)
class TableFormat:
    """One way to answer."""

    media_type: str
    suffix: str
    """Of the file name that the answer is saved under; empty: none is given."""
    holds_stamps: bool
    write: Callable[[Head, Iterable[Chunk]], Iterator[bytes]]


def plain_values(values: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Return a column as what orjson writes: a float32 as the shortest decimal it comes back from.

    NaN and infinities are None, and so is null.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_float32(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        return [number if np.isfinite(number) else None for number in numbers]
    found: list[Any] = values.to_pylist()
    return found


def write_json(_head: Head, chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """Write a list of objects, one for each row; images are lists of rows of numbers."""
    before = b"["
    for chunk in chunks:
        data = _with_texts(chunk.data)
        columns: dict[str, Sequence[Any]] = {
            name: plain_values(column)
            for name, column in zip(data.column_names, data.columns, strict=True)
        }
        columns |= {
            name: [_image(image) for image in images] for name, images in chunk.stamps.items()
        }
        names = list(columns)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        rows = rows or [{}] * chunk.rows
        yield before
        yield orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        before = b","
    yield b"[]" if before == b"[" else b"]"


def _image(image: NDArray[np.generic] | None) -> NDArray[np.generic] | None:
    return None if image is None else widen(image)


def write_csv(head: Head, chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """Write a line of names, and one for each row; a null is an empty field."""
    if not len(head.schema):
        return
    yield _csv(_with_texts(head.schema.empty_table()), header=True)
    for chunk in chunks:
        yield _csv(_with_texts(chunk.data), header=False)


def _csv(table: pa.Table, *, header: bool) -> bytes:
    for number, column in enumerate(table.columns):
        if pa.types.is_string(column.type):  # many readers end a text at a NUL
            texts = pc.replace_substring(column, "\0", "\ufffd")
            table = table.set_column(number, table.column_names[number], texts)
    sink = io.BytesIO()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(include_header=header))
    return sink.getvalue()


def write_parquet(head: Head, chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """Write a parquet file, a row group for each chunk; images are lists of lists of floats."""
    schema = head.schema
    for name in head.stamps:
        schema = schema.append(pa.field(name, STAMP))
    sink = Drain()
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="snappy") as writer:
        for chunk in chunks:
            images = [image_lists(chunk.stamps[name]) for name in head.stamps]
            arrays = [*chunk.data.columns, *images]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


class Drain(io.RawIOBase):
    """A file that is written to on one side and emptied on the other."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def image_lists(images: Images) -> pa.Array:
    """Return images as lists of lists of float32, null for a masked pixel."""
    flat = [image.astype(np.float32).ravel() for image in images if image is not None]
    pixels = np.concatenate(flat) if flat else np.zeros(0, np.float32)
    shapes = [(0, 0) if image is None else image.shape for image in images]
    widths = [width for height, width in shapes for _ in range(height)]
    values = pa.array(pixels, pa.float32(), mask=~np.isfinite(pixels))
    rows = pa.ListArray.from_arrays(_offsets(widths), values)
    missing = np.array([image is None for image in images], bool)
    offsets = _offsets([height for height, _ in shapes])
    return pa.ListArray.from_arrays(offsets, rows, mask=pa.array(missing))


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


VOTABLE_TYPES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, 'datatype="boolean"'),
    (pa.types.is_int64, 'datatype="long"'),
    (pa.types.is_uint64, 'datatype="char" arraysize="*"'),
    (pa.types.is_int32, 'datatype="int"'),
    (pa.types.is_uint32, 'datatype="long"'),
    (pa.types.is_integer, 'datatype="int"'),
    (pa.types.is_float32, 'datatype="float"'),
    (pa.types.is_floating, 'datatype="double"'),
)
_NOT_XML = "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\ufffe\uffff]"


# What of a UCD begins so is in the frame of this ID, if its unit is the one behind.
FRAMES = (
    ("pos.eq.", "frame_sky", "deg"),
    ("time.epoch", "frame_time", "d"),
    ("time.start", "frame_time", "d"),
    ("time.end", "frame_time", "d"),
)


def write_votable(head: Head, chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """Write a VOTable 1.4 with its cells as text; an empty cell is a null."""
    fields = [
        _votable_field(head, field, id_)
        for field, id_ in zip(head.schema, _xml_ids(head.schema.names), strict=True)
    ]
    yield (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        '<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/>\n'
        + _votable_frames(head, "".join(fields))
        + "<TABLE>\n"
        + "".join(fields)
        + "<DATA><TABLEDATA>\n"
    ).encode()
    for chunk in chunks:
        cells = [_votable_cells(column) for column in chunk.data.columns]
        rows = ("<TR>" + "".join(row) + "</TR>\n" for row in zip(*cells, strict=True))
        yield "".join(rows).encode()
    yield b"</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n"


def _xml_ids(names: Iterable[str]) -> list[str]:
    """Return what each column is called where only XML's own names are taken: ``i:jd`` as i_jd."""
    found: dict[str, None] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        unique = (f"{plain}_{number}" if number else plain for number in itertools.count())
        found[next(one for one in unique if one not in found)] = None
    return list(found)


def _votable_frames(head: Head, fields: str) -> str:
    """Return the frames that fields refer to."""
    origin = "JD-origin" if head.mjd_offset else "MJD-origin"
    elements = {
        "frame_sky": 'COOSYS ID="frame_sky" system="ICRS"',
        "frame_time": f'TIMESYS ID="frame_time" timescale="{head.time_scale.upper()}" '
        f'timeorigin="{origin}" refposition="TOPOCENTER"',
    }
    found = (words for id_, words in elements.items() if f' ref="{id_}"' in fields)
    return "".join(f"<{words}/>\n" for words in found)


def _votable_field(head: Head, field: pa.Field, id_: str) -> str:
    described = (words for check, words in VOTABLE_TYPES if check(field.type))
    datatype = next(described, 'datatype="unicodeChar" arraysize="*"')
    unit, text, _, ucd = head.describe(field.name)
    frames = (frame for start, frame, of in FRAMES if ucd.startswith(start) and unit == of)
    values = {"unit": unit, "ucd": ucd, "ref": next(frames, "")}
    more = "".join(f" {name}={quoteattr(value)}" for name, value in values.items() if value)
    text = f"<DESCRIPTION>{escape(text)}</DESCRIPTION>" if text else ""
    name = re.sub(_NOT_XML, "\ufffd", field.name)
    return f"<FIELD ID={quoteattr(id_)} name={quoteattr(name)} {datatype}{more}>{text}</FIELD>\n"


def _votable_cells(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_boolean(column.type):
        words = {True: "<TD>T</TD>", False: "<TD>F</TD>", None: "<TD>?</TD>"}
        return [words[value] for value in column.to_pylist()]
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        found = plain_values(column)
        return ["<TD/>" if value is None else f"<TD>{value!s}</TD>" for value in found]
    texts = pc.replace_substring_regex(_as_texts(column), _NOT_XML, "\ufffd")
    return ["<TD/>" if text is None else f"<TD>{escape(text)}</TD>" for text in texts.to_pylist()]


def _with_texts(table: pa.Table) -> pa.Table:
    """Return a table whose columns are numbers, truth values and text."""
    for number, column in enumerate(table.columns):
        kind = column.type
        if not (
            pa.types.is_boolean(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_string(kind)
            or pa.types.is_null(kind)
        ):
            table = table.set_column(number, table.column_names[number], _as_texts(column))
    return table


def _as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times, decimals and the like as text, as they are usually written."""
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])


TABLE_FORMATS: Mapping[str, TableFormat] = {
    "json": TableFormat("application/json", "", holds_stamps=True, write=write_json),
    "csv": TableFormat("text/csv", ".csv", holds_stamps=False, write=write_csv),
    "parquet": TableFormat(
        "application/vnd.apache.parquet", ".parquet", holds_stamps=True, write=write_parquet
    ),
    "votable": TableFormat(
        "application/x-votable+xml", ".vot", holds_stamps=False, write=write_votable
    ),
}
