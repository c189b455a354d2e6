"""The bytes of one cell of one column, reading no more than its column chunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import FileUnreadable, NotParquet, shorten
from .storage import OpenFile, Source

MAGIC = b"PAR1"


@contextmanager
def parquet_errors(file: OpenFile, source: Source, part: str) -> Iterator[None]:
    """Turn what pyarrow raises on damaged bytes into FileUnreadable.

    What went wrong below pyarrow, in the storage, is raised as it was.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, RuntimeError) as error:
        if source.failure is not None:
            raise source.failure from None
        raise FileUnreadable(f"{part} of {shorten(file.id.path)} is damaged") from error


def read_footer(file: OpenFile) -> pq.FileMetaData:
    """Return the file's footer: schema, row groups, statistics.

    Raises FileUnreadable for a parquet file that is empty, cut short or damaged, NotParquet
    for a file that neither is one nor is named like one.
    """
    source = file.source()
    try:
        with parquet_errors(file, source, "the footer"):
            return pq.read_metadata(pa.PythonFile(source, mode="r"))
    except FileUnreadable as error:
        if file.id.path.endswith(".parquet") or file.read_at(len(MAGIC), 0) == MAGIC:
            raise
        raise NotParquet(f"{shorten(file.id.path)} is not a parquet file") from error


def read_columns(
    file: OpenFile, footer: pq.FileMetaData, row_group: int, columns: list[str]
) -> list[pa.Array]:
    """Return whole leaf columns of one row group, as flat arrays in the order of ``columns``.

    ``columns`` are dotted leaf names that the footer has, none of them inside a list.
    Raises FileUnreadable for damaged pages.
    """
    source = file.source()
    with parquet_errors(file, source, "a page"):
        # A reader of its own for each call: pyarrow's are not safe to share between threads.
        reader = pq.ParquetFile(
            pa.PythonFile(source, mode="r"),
            metadata=footer,
            page_checksum_verification=True,
        )
        table = reader.read_row_group(row_group, columns=columns, use_threads=False)
        arrays = [_leaf(table, column) for column in columns]
        rows = footer.row_group(row_group).num_rows
        if any(len(array) != rows for array in arrays):
            raise ValueError("a column is shorter than its row group")
        return arrays


def read_cell(
    file: OpenFile, footer: pq.FileMetaData, row_group: int, column: str, row: int
) -> bytes | None:
    """Return the value of a binary column in one row of a row group; None where it is null.

    Raises FileUnreadable for a damaged page.
    """
    (values,) = read_columns(file, footer, row_group, [column])
    value: bytes | None = values[row].as_py()
    return value


def _leaf(table: pa.Table, column: str) -> pa.Array:
    """Return a nested column as one flat array; a null struct makes its fields null."""
    head, *rest = column.split(".")
    values = table.column(head).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    for name in rest:
        values = values.flatten()[values.type.get_field_index(name)]
    return values
