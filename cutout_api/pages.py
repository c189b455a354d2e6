"""The bytes of one cell of one column, reading as little of the file as possible.

A column chunk is made of pages; a page of a binary column holds the values of some rows, and
levels that say which are null. What is compressed as one run of bytes is called a *body* here.
Where only the pages are known, one page is read and the cell is looked for in it; where the
cells' places and the independent blocks of their bodies are known too (``CellMap``), only those
blocks are read.

What these functions do not know, they say by ``None``, and pyarrow reads the row group.
Source: parquet-format 2.11 (Data Pages, Encodings, Page Index), snappy's format description.
"""

from __future__ import annotations

import logging
import posixpath
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from struct import Struct as Packed
from struct import error as PackedTooShort  # noqa: N812
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from .errors import FileUnreadable, NotParquet, StampTooLarge, StoredDataError
from .footer import ChunkMetadata, FileMetadata
from .isolation import ReadAt, resident_bytes, run_isolated
from .layouts import StoredCell, stamps_of
from .storage import (
    GAP_BYTES,
    RUN_BYTES,
    FileId,
    LentFile,
    OpenFile,
    Readable,
    Source,
    file_name,
    is_parquet_name,
    near_ones,
)
from .thrift import Struct, ThriftError, ThriftShort, read_struct, write_varint

log = logging.getLogger("cutout_api")

MAGIC, MAGIC_ENCRYPTED = b"PAR1", b"PARE"
TAIL_BYTES = 262_144
"""Read first of a file never seen: the footer, and the page index before it, of most files."""
MAX_FOOTER_BYTES = 1 << 28
FOOTER_BYTES = 1 << 19
"""A longer footer is parsed in another process first. pyarrow takes up to 240 times its bytes, of
one made of empty column chunks; of usual ones some 10 times."""
SUMMARY_NAMES = ("_metadata", "_common_metadata")
HEADER_BYTES = 128
"""Read first for a page header, which is some 25 bytes unless it carries statistics."""
SNAPPY_BLOCK = 65_536
"""What every snappy writer seen compresses at a time, though the format promises nothing."""
MOST_ROWS = 1 << 22
"""Of a file: its ids, and what orders them, take some 60 bytes a row."""
MOST_INFLATED = 1 << 31
"""Of a column chunk that pyarrow reads: a second of work."""
INFLATION = {"snappy": 22, "lz4": 255, "lz4_raw": 255, "gzip": 1032, "none": 1}
"""How many times larger the bytes of a codec can become; of the others there is no such bound."""
FEW_TAGS = 32
"""A block of more is not looked through for cells that stand in it as they are."""

# Thrift field ids. Source: parquet.thrift.
_PAGE_TYPE, _PAGE_INFLATED, _PAGE_SIZE, _PAGE_CRC = 1, 2, 3, 4
_PAGE_V1, _PAGE_DICTIONARY, _PAGE_V2 = 5, 7, 8
_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = range(4)
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8

_UINT32 = Packed("<I")
_UINT32_BE = Packed(">I")


class PageDamaged(ValueError):
    """The bytes of a page contradict themselves."""


# What taking apart bytes raises that are not what they should be.
MISTAKEN = (
    PageDamaged,
    ThriftError,
    PackedTooShort,
    KeyError,
    TypeError,
    IndexError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class Chunk:
    """A column chunk of a binary column, as the footer describes it."""

    start: int
    length: int
    codec: str
    rows: int
    max_definition_level: int
    offset_index: tuple[int, int] | None
    """Offset and length of the page locations, where the writer left them."""


@dataclass(frozen=True)
class PageTable:
    """Where the pages of a chunk are: arrays with one entry a page, in order of rows."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """Header and body."""
    first_rows: NDArray[np.int64]
    """Within the row group, and one more: where the rows of the last page end."""
    dictionary: tuple[int, int] | None
    """Offset and size of the dictionary page."""
    confirmed: int
    """Of how many pages, from the first on, the headers were read and say the same. An offset index
    alone is not believed: with one row too many in it, each later stamp would be a neighbour's."""

    def page_of(self, row: int) -> int | None:
        """Return the number of the page that holds a row, None unless it is confirmed."""
        number = int(self.first_rows.searchsorted(row, "right")) - 1
        return number if number < self.confirmed else None


@dataclass(frozen=True)
class CellMap:
    """Where every cell of a chunk is, and the blocks of each body that inflate on their own.

    A body is what is compressed as one: the values of a page, or the dictionary.
    """

    body_offsets: NDArray[np.int64]
    """In the file."""
    body_sizes: NDArray[np.int64]
    """As stored."""
    body_inflated: NDArray[np.int64]
    first_blocks: NDArray[np.int32]
    """Where each body's blocks begin in ``blocks``, and one more. No block: the body is stored
    as it is. One: it is inflated whole. More: one for each 64 kB."""
    blocks: NDArray[np.int32]
    """Offset of each block in its body, as stored."""
    cell_bodies: NDArray[np.int32]
    cell_starts: NDArray[np.int32]
    """In the inflated body."""
    cell_lengths: NDArray[np.int32]
    """-1 where the cell is null."""
    cell_offsets: NDArray[np.int32]
    """In the stored body, where the cell stands there as it is, as gzipped stamps in a snappy page
    do; -1 where it does not."""
    cell_gaps: NDArray[np.uint8]
    """Of such a cell: how many bytes stand between its parts in one block and in the next."""
    cell_checks: NDArray[np.uint32]
    """The CRC-32 of each cell's bytes, 0 where it is null."""

    def is_right(self, row: int, cell: bytes | None) -> bool:
        """Tell whether these are the bytes that were in this row when the file was mapped."""
        length = self.cell_lengths.item(row)
        if cell is None or length < 0:
            return cell is None and length < 0
        return len(cell) == length and crc32(cell) == self.cell_checks.item(row)


class Window:
    """A file of which one range is at hand already; reads outside it go to the file."""

    def __init__(self, file: Readable, start: int, data: bytes) -> None:
        self.file = file
        self.id = file.id
        self.size = file.size
        self.page_bytes = file.page_bytes
        self.start = start
        self.data = data

    def read_at(self, length: int, offset: int) -> bytes:
        length = min(length, self.size - offset)
        within = offset - self.start
        if within >= 0 and 0 <= length <= len(self.data) - within:
            return self.data[within : within + length]
        return self.file.read_at(length, offset)


@contextmanager
def parquet_errors(path: str, source: Source | None, part: str) -> Iterator[None]:
    """Turn what pyarrow raises on damaged bytes into FileUnreadable.

    What went wrong below pyarrow, in the storage, is raised as it was.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, RuntimeError) as error:
        if source is not None and source.failure is not None:
            raise source.failure from None
        raise FileUnreadable(f"{part} of {file_name(path)} is damaged", path) from error


@dataclass(frozen=True)
class Footer:
    """What the end of a file says, and the bytes before it."""

    metadata: FileMetadata
    window: Window


def read_footer(file: OpenFile | LentFile) -> Footer:
    """Read the file's footer: schema, row groups, statistics, in one read where it is usual.

    Raises FileUnreadable for a parquet file that is empty, cut short, damaged or encrypted,
    NotParquet for a file that neither is one nor is named like one, and for a summary of others.
    """
    path = file.id.path
    length = min(TAIL_BYTES, file.size)
    window = Window(file, file.size - length, file.read_at(length, file.size - length))
    source = Source(window)
    if window.data[-len(MAGIC) :] == MAGIC_ENCRYPTED:
        raise FileUnreadable(f"{file_name(path)} is encrypted, its footer too", path, is_whole=True)
    try:
        with parquet_errors(path, source, "the footer"):
            if window.data[-len(MAGIC) :] != MAGIC:
                raise ValueError("no magic number at the end")
            (stored_length,) = _UINT32.unpack_from(window.data, len(window.data) - 8)
            start = file.size - 8 - stored_length
            if stored_length > MAX_FOOTER_BYTES or start < 0:
                raise ValueError("the footer is impossibly long")
            if stored_length > FOOTER_BYTES and not isinstance(file, LentFile):
                size = run_isolated(_weigh_footer, (file.id, file.page_bytes), read_at=file.read_at)
                check_size(size, file.page_bytes, path, FileUnreadable)
            native = pq.read_metadata(pa.PythonFile(source, mode="r"))
            _refuse_summary(path, native, start)
            content = window.read_at(stored_length, start)
            return Footer(FileMetadata(native, content, start), window)
    except FileUnreadable as error:
        if is_parquet_name(path) or file.read_at(len(MAGIC), 0) == MAGIC:
            raise
        raise NotParquet(f"{file_name(path)} is not a parquet file") from error


def _weigh_footer(read_at: ReadAt, lent: tuple[FileId, int]) -> int:
    """Return how much memory pyarrow takes to parse a footer, in bytes."""
    before = resident_bytes()
    metadata = pq.read_metadata(pa.PythonFile(Source(LentFile(*lent, read_at)), mode="r"))
    grown = resident_bytes() - before
    del metadata
    return grown


def _refuse_summary(path: str, native: pq.FileMetaData, footer_start: int) -> None:
    """Raise NotParquet for a file that describes the row groups of others, and holds no page."""
    is_named_so = posixpath.basename(path) in SUMMARY_NAMES
    if is_named_so or (native.num_rows and footer_start <= len(MAGIC)):
        raise NotParquet(
            f"{file_name(path)} is a summary of other parquet files and holds no alerts itself; "
            "name one of those, or their folder"
        )


def first_rows_of(footer: Footer) -> NDArray[np.int64]:
    """Return the first row of each row group, and one more: the number of rows.

    Raises FileUnreadable where no index could hold so many.
    """
    metadata, path = footer.metadata, footer.window.id.path
    if metadata.num_rows > MOST_ROWS:
        raise FileUnreadable(
            f"{file_name(path)} has more than {MOST_ROWS} rows", path, is_whole=True
        )
    counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def read_columns(footer: Footer, columns: list[str]) -> list[pa.Array]:
    """Return whole leaf columns of the file, as flat arrays in the order of ``columns``.

    ``columns`` are dotted leaf names that the footer has, none of them inside a list.
    Raises FileUnreadable for damaged pages and encrypted columns.
    """
    metadata = footer.metadata
    row_groups = list(range(metadata.num_row_groups))
    source = Source(footer.window)
    check_columns(footer.window, _chunks_of(footer, row_groups, leaf_places(metadata, columns)))
    with parquet_errors(footer.window.id.path, source, "a page"):
        reader = _open_parquet(source, metadata)
        try:
            table = reader.read_row_groups(row_groups, columns=columns, use_threads=False)
            arrays = [_leaf(table, column) for column in columns]
        except pa.ArrowNotImplementedError:
            # pyarrow joins no dictionaries inside a struct; what they stand for it does.
            tables = [reader.read_row_group(n, columns, use_threads=False) for n in row_groups]
            parts = [[_decoded(_leaf(table, column)) for table in tables] for column in columns]
            arrays = [pa.concat_arrays(part) for part in parts]
        if any(len(array) != metadata.num_rows for array in arrays):
            raise ValueError("a column is shorter than its row groups")
        return arrays


def _open_parquet(source: Source, metadata: FileMetadata, buffer_size: int = 0) -> pq.ParquetFile:
    """Return pyarrow's reader, to be used once: those are not safe to share between threads."""
    return pq.ParquetFile(
        pa.PythonFile(source, mode="r"),
        metadata=metadata.native,
        page_checksum_verification=True,
        buffer_size=buffer_size,
    )


def _chunks_of(
    footer: Footer, row_groups: Sequence[int], leaves: Sequence[int]
) -> list[ChunkMetadata]:
    """Return what the footer says of the chunks of some leaf columns, before they are read.

    Raises FileUnreadable where one is encrypted, or cannot be where the footer says.
    """
    path = footer.window.id.path
    found = []
    with parquet_errors(path, None, "the footer"):
        for leaf in leaves:
            chunks = footer.metadata.chunks(leaf)
            found += [chunks[number] for number in row_groups]
            if any(chunks[number].is_encrypted for number in row_groups):
                raise FileUnreadable(encrypted_column(footer, leaf), path, is_whole=True)
    return found


def encrypted_column(footer: Footer, leaf: int) -> str:
    """Return how it is said that a column is encrypted."""
    column = footer.metadata.paths[leaf]
    return f"the column {column} of {file_name(footer.window.id.path)} is encrypted"


def _decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _leaf(table: pa.Table, column: str) -> pa.Array:
    """Return a nested column as one flat array; a null struct makes its fields null."""
    # A name may have dots of its own.
    head, *rest = [column] if column in table.column_names else column.split(".")
    values = table.column(head).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    for name in rest:
        values = values.flatten()[values.type.get_field_index(name)]
    return values


def read_cell_by_row_group(file: OpenFile, row_group: int, column: str, row: int) -> bytes | None:
    """Return a cell the slow way, which knows every encoding: pyarrow reads the whole chunk.

    Raises FileUnreadable for damaged pages.
    """
    (cell,) = read_cells_by_row_group(file, row_group, column, [row])
    if isinstance(cell, FileUnreadable):
        raise cell
    return cell


def read_cells_by_row_group(
    file: OpenFile, row_group: int, column: str, rows: Sequence[int]
) -> list[bytes | FileUnreadable | None]:
    """Return the cells of some rows, counted within the row group, or why one holds no bytes.

    In another process: these are pages that nobody here understood. Raises StampTooLarge too.
    """
    where = f"{column} of {file_name(file.id.path)}"
    with parquet_errors(file.id.path, None, "a page"):
        cells = run_isolated(
            _cells_by_row_group,
            (file.id, file.page_bytes),
            row_group,
            column,
            list(rows),
            read_at=file.read_at,
        )
    return [
        FileUnreadable(f"{where} holds {cell}", file.id.path)
        if isinstance(cell, ValueError)
        else cell
        for cell in cells
    ]


def _cells_by_row_group(
    read_at: ReadAt, lent: tuple[FileId, int], row_group: int, column: str, rows: list[int]
) -> list[StoredCell]:
    wanted = set(rows)
    # To the end, though the last row may come sooner: only then is it known that no page had a
    # value more or less than it said, by which each later one is another row's.
    cells = cells_by_pyarrow(LentFile(*lent, read_at), row_group, column)
    found = {row: cell for row, cell in cells if row in wanted}
    return [found[row] for row in rows]


def cells_by_pyarrow(
    file: OpenFile | LentFile, row_group: int, column: str
) -> Iterator[tuple[int, StoredCell]]:
    """Yield every row of a row group, counted within it, and its cell as pyarrow reads it.

    A few pages are held at a time. Raises FileUnreadable for damaged pages, StampTooLarge.
    """
    footer = read_footer(file)
    window, metadata = footer.window, footer.metadata
    path, group = file.id.path, metadata.row_group(row_group)
    (chunk,) = _chunks_of(footer, [row_group], leaf_places(metadata, [column]))
    largest = check_chunk(window, chunk, StampTooLarge)
    source = Source(window)
    done = 0
    with parquet_errors(path, source, "a page"):
        reader = _open_parquet(source, metadata, RUN_BYTES)
        # So few rows that they fit, were each of them as large as a page, or a word of the
        # dictionary, can be.
        most = min(max(file.page_bytes // max(largest, 1), 1), 1024)
        batches = reader.iter_batches(most, [row_group], [column], use_threads=False)
        try:
            for batch in batches:
                values = _leaf(pa.Table.from_batches([batch]), column)
                yield from enumerate(stamps_of(values), done)
                done += len(values)
        except pa.ArrowNotImplementedError:
            # pyarrow joins no dictionaries inside a struct; a whole row group it reads.
            table = reader.read_row_group(row_group, [column], use_threads=False)
            yield from enumerate(stamps_of(_leaf(table, column).slice(done)), done)
            done = table.num_rows
        if done != group.num_rows:
            raise ValueError("a column is shorter than its row group")


# --- what pages inflate to -------------------------------------------------------------------


def leaf_places(metadata: FileMetadata, columns: Sequence[str]) -> list[int]:
    """Return the places of the leaf columns that stand for ``columns``, in order of places."""
    wanted = set(columns)
    prefixes = tuple(f"{name}." for name in wanted)
    return [
        number
        for number, path in enumerate(metadata.paths)
        if path in wanted or path.startswith(prefixes)
    ]


def check_columns(file: Readable, chunks: Sequence[ChunkMetadata]) -> None:
    """Raise FileUnreadable for columns that would inflate to more than is read at a time.

    Most are so short that their codec cannot do that, and cost nothing.
    """
    for chunk in chunks:
        ratio = INFLATION.get(chunk.codec or "", file.page_bytes)
        stored = chunk.total_compressed_size * ratio
        if max(stored, chunk.total_uncompressed_size) > file.page_bytes:
            check_chunk(file, chunk, FileUnreadable)


def check_chunk(file: Readable, chunk: ChunkMetadata, refusal: type[StoredDataError]) -> int:
    """Return what the largest page of a column chunk inflates to, by the headers of all of them.

    pyarrow inflates what a header says, whatever that is. Raises ``refusal`` where it is more than
    ``limits.page_bytes``, FileUnreadable where the headers cannot be read or hold another number of
    values than the chunk.
    """
    path = file.id.path
    start, end = chunk.start, chunk.start + chunk.total_compressed_size
    values = largest = total = 0
    reached = start
    try:
        for place, size, header in _walk_headers(file, start, end):
            values += _values_of(header)
            largest = max(largest, header[_PAGE_INFLATED])
            total += header[_PAGE_INFLATED]
            reached = place + size
            check_size(header[_PAGE_INFLATED] + size, file.page_bytes, path, refusal)
    except MISTAKEN:
        reached = -1
    check_size(total, MOST_INFLATED, path, refusal)
    if reached != end or values != chunk.num_values:
        raise FileUnreadable(
            f"a column of {file_name(path)} has other pages than its footer says", path
        )
    return largest


def check_size(
    size: int, most: int, path: str = "", refusal: type[StoredDataError] = StampTooLarge
) -> None:
    """Raise ``refusal`` for what takes more bytes, as stored and inflated, than are read."""
    if size > most:
        error = refusal(f"to read it would take {size} bytes of memory; the limit is {most}")
        error.where = path
        raise error


# --- where the pages are -----------------------------------------------------------------------


def describe_chunk(footer: Footer, row_group: int, leaf: int) -> Chunk | None:
    """Return where a column chunk is and how it is written, or None if that is not understood.

    Raises FileUnreadable where it cannot be where the footer says.
    """
    schema = footer.metadata.schema.column(leaf)
    if schema.max_repetition_level or schema.physical_type != "BYTE_ARRAY":
        return None
    group = footer.metadata.row_group(row_group)
    with parquet_errors(footer.window.id.path, None, "the footer"):
        chunk = group.column(leaf)
    if chunk.codec is None or chunk.is_encrypted or chunk.num_values != group.num_rows:
        return None
    return Chunk(
        start=chunk.start,
        length=chunk.total_compressed_size,
        codec=chunk.codec,
        rows=chunk.num_values,
        max_definition_level=schema.max_definition_level,
        offset_index=chunk.offset_index,
    )


def locate_pages(file: OpenFile | Window, chunk: Chunk) -> PageTable | None:
    """Return where the pages of a chunk are: from its offset index, else by walking headers.

    What an offset index says is not confirmed yet: see ``confirm_pages``. A walk ends at the first
    header that cannot be read; the pages before it are known then. Returns None where there are
    none, or where they contradict the chunk.
    """
    if not _is_inside(file, chunk.start, chunk.length):
        return None
    table = _read_offset_index(file, chunk) if chunk.offset_index else None
    return table or _walk_pages(file, chunk)


def confirm_pages(
    file: OpenFile, chunk: Chunk, table: PageTable, row: int | None = None
) -> PageTable | None:
    """Return the table, confirmed up to the page of a row, or all of it; else as a walk finds it.

    The headers from the first page on are read, so that the rows before the page are counted by
    those who hold them. Where the offset index says otherwise, one of the two is wrong: the whole
    chunk is read once to see whether each page holds what its header says.
    Raises FileUnreadable where one does not, StampTooLarge.
    """
    count = len(table.offsets)
    needed = count
    if row is not None and not table.confirmed:  # the second time it is the rest at once
        needed = min(int(table.first_rows.searchsorted(row, "right")), count)
    if needed <= table.confirmed:
        return table
    if _headers_agree(file, table, needed):
        return replace(table, confirmed=needed)
    walked = _walk_pages(file, chunk)
    try:
        is_true = walked is not None and _map_cells(file, chunk, walked) is not None
    except MISTAKEN as error:
        path = file.id.path
        raise FileUnreadable(f"pages of {file_name(path)} contradict each other", path) from error
    return walked if is_true else None


def _headers_agree(file: OpenFile, table: PageTable, needed: int) -> bool:
    numbers = range(table.confirmed, needed)
    places = [(table.offsets.item(n), table.sizes.item(n)) for n in numbers]
    rows = np.diff(table.first_rows)[table.confirmed : needed].tolist()
    if table.dictionary is not None and not table.confirmed:
        places.insert(0, table.dictionary)
        rows.insert(0, None)
    starts = file.read_parts([(offset, min(size, HEADER_BYTES)) for offset, size in places])
    try:
        for (offset, size), count, data in zip(places, rows, starts, strict=True):
            window = Window(file, offset, data)
            header, length, _ = _read_header(window, offset, offset + size, HEADER_BYTES)
            if length + header[_PAGE_SIZE] != size or _rows_of(header) != count:
                return False
    except MISTAKEN:
        return False
    return True


def _is_inside(file: Readable, offset: int, length: int) -> bool:
    return 0 <= offset <= offset + length <= file.size


def _read_offset_index(file: OpenFile | Window, chunk: Chunk) -> PageTable | None:
    offset, length = chunk.offset_index or (0, 0)
    if length <= 0 or not _is_inside(file, offset, length):
        return None
    try:
        index, _ = read_struct(file.read_at(length, offset))
        table = _table([(page[1], page[2], page[3]) for page in index[1]], chunk)
    except MISTAKEN:
        return None
    return table if table is not None and _is_plausible(table, chunk) else None


def _table(locations: list[tuple[int, int, int]], chunk: Chunk) -> PageTable | None:
    if not locations:
        return None
    offsets, sizes, first_rows = np.array(locations, np.int64).T.copy()
    before = int(offsets[0]) - chunk.start
    dictionary = (chunk.start, before) if before > 0 else None
    return PageTable(offsets, sizes, np.append(first_rows, chunk.rows), dictionary, confirmed=0)


def _is_plausible(table: PageTable, chunk: Chunk) -> bool:
    """Tell whether the pages fill the chunk, one behind the other, each with some of its rows."""
    # Each by itself first: a sum of two can be too large for an integer, and seem small.
    if not all(
        ((values >= 0) & (values <= chunk.start + chunk.length)).all()
        for values in (table.offsets, table.sizes)
    ):
        return False
    ends = table.offsets + table.sizes
    return bool(
        table.first_rows[0] == 0
        and (table.first_rows[:-1] < table.first_rows[1:]).all()
        and (table.sizes > 0).all()
        and table.offsets[0] >= chunk.start
        and (ends[:-1] == table.offsets[1:]).all()
        and ends[-1] == chunk.start + chunk.length
    )


def _walk_pages(file: OpenFile | Window, chunk: Chunk) -> PageTable | None:
    locations: list[tuple[int, int, int]] = []
    dictionary = None
    reached, end, row = chunk.start, chunk.start + chunk.length, 0
    try:
        for place, size, header in _walk_headers(file, chunk.start, end):
            rows = _rows_of(header)
            if rows is None and not locations:
                dictionary = dictionary or (place, size)
            elif rows:
                locations.append((place, size, row))
                row += rows
            reached = place + size
    except MISTAKEN:
        reached = -1
    # Where all of them were read, one that has a row more or less than it says shows in the sum.
    if not locations or row > chunk.rows or (reached == end and row != chunk.rows):
        return None
    offsets, sizes, first_rows = np.array(locations, np.int64).T.copy()
    return PageTable(offsets, sizes, np.append(first_rows, row), dictionary, len(locations))


def _rows_of(header: Struct) -> int | None:
    """Return how many rows a data page of a column outside lists holds, None of a dictionary.

    Raises one of ``MISTAKEN``.
    """
    if header[_PAGE_TYPE] == _DICTIONARY_PAGE:
        return None
    rows = _values_of(header)
    if header[_PAGE_TYPE] == _DATA_PAGE_V2 and header[_PAGE_V2][3] != rows:
        raise PageDamaged("a page has another number of values than of rows")
    return rows


def _values_of(header: Struct) -> int:
    """Return how many values a page says it adds to its column. Raises one of ``MISTAKEN``."""
    kind = header[_PAGE_TYPE]
    if kind not in (_DATA_PAGE, _DATA_PAGE_V2):
        return 0
    count: int = header[_PAGE_V1 if kind == _DATA_PAGE else _PAGE_V2][1]
    if count < 0:
        raise PageDamaged("a page of less than no values")
    return count


def _walk_headers(file: Readable, start: int, end: int) -> Iterator[tuple[int, int, Struct]]:
    """Yield place, size and header of each page from ``start`` on, as far as they can be read."""
    place, ahead = start, HEADER_BYTES
    window = Window(file, 0, b"")
    while place < end:
        try:
            header, length, window = _read_header(window, place, end, ahead)
            size = length + header[_PAGE_SIZE]
            if header[_PAGE_SIZE] < 0 or header[_PAGE_INFLATED] < 0 or place + size > end:
                return
            yield place, size, header
        except (ThriftError, KeyError, TypeError):
            return
        place += size
        # Small pages are met several in one read.
        ahead = HEADER_BYTES if size > TAIL_BYTES // 4 else TAIL_BYTES


def _read_header(window: Window, position: int, end: int, ahead: int) -> tuple[Struct, int, Window]:
    """Read the page header at ``position``; return it, its length, and the bytes read for it."""
    while True:
        within = position - window.start
        if 0 <= within < len(window.data):
            try:
                header, stop = read_struct(window.data, within)
                return header, stop - within, window
            except ThriftShort:
                if window.start + len(window.data) >= end:
                    raise
                ahead = max(8 * ahead, 2 * (len(window.data) - within))
        length = min(ahead, end - position)
        data = window.file.read_at(length, position)
        if not data:
            raise ThriftShort("the file ends before its page")
        window = Window(window.file, position, data)


# --- a cell in its page ------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A data page taken apart."""

    values: memoryview
    """The inflated body."""
    values_start: int
    """Where the values begin in it; in a page of version 1 the levels stand before them."""
    defined: NDArray[np.bool_]
    """For each row, whether it has a value."""
    by_dictionary: bool
    body: tuple[int, int, int, bool]
    """Of the body: its offset in the page, its stored and inflated size, whether compressed."""


def read_cell(
    file: OpenFile, chunk: Chunk, table: PageTable, row: int
) -> tuple[bytes | None] | None:
    """Return the cell in a row of the chunk, as a tuple of one, reading one page.

    A page of a dictionary costs a second read. None stands for what is not understood or
    contradicts itself: pyarrow may know better.
    """
    number = table.page_of(row)
    try:
        page = None if number is None else _read_page(file, chunk, table, number)
        if page is None or number is None:
            return None
        place = row - table.first_rows.item(number)
        if not page.defined[place]:
            return (None,)
        rank = int(np.count_nonzero(page.defined[:place]))
        if not page.by_dictionary:
            count = int(np.count_nonzero(page.defined))
            # One run of levels has told already that there are so many values.
            is_counted = chunk.max_definition_level and count == len(page.defined)
            total = None if is_counted else count
            return (_nth_value(page.values, page.values_start, rank, total),)
        if table.dictionary is None:
            return None
        rank = int(_read_indices(page)[rank])
        opened = _read_dictionary(file, chunk, table.dictionary)
        return None if opened is None else (_nth_value(opened[0], 0, rank, None),)
    except MISTAKEN:
        return None


def _read_page(file: OpenFile, chunk: Chunk, table: PageTable, number: int) -> Page | None:
    """Return a page taken apart; None for what is not understood. Raises one of ``MISTAKEN``,
    StampTooLarge."""
    rows = table.first_rows.item(number + 1) - table.first_rows.item(number)
    stored = _read_bounded(file, table.offsets.item(number), table.sizes.item(number))
    return open_page(stored, chunk, rows, file.page_bytes)


def _read_dictionary(
    file: OpenFile, chunk: Chunk, place: tuple[int, int]
) -> tuple[memoryview, tuple[int, int, int, bool]] | None:
    return open_dictionary(_read_bounded(file, *place), chunk, file.page_bytes)


def _read_bounded(file: OpenFile, offset: int, size: int) -> bytes:
    check_size(size, file.page_bytes, file.id.path)
    return file.read_at(size, offset)


def read_cells(
    file: OpenFile, chunk: Chunk, table: PageTable, rows: NDArray[np.int64]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the cells of some rows of the chunk, in order of rows, reading each page once.

    The rows of a page that is not understood, or contradicts itself, are left out.
    """
    numbers = table.first_rows.searchsorted(rows, "right") - 1
    words: _Words | None = None
    for number in np.unique(numbers[numbers < table.confirmed]).tolist():
        mine = rows[numbers == number]
        try:
            page = _read_page(file, chunk, table, number)
            if page is None:
                continue
            if page.by_dictionary and words is None:
                words = _read_words(file, chunk, table)
                if words is None:
                    return
            found = _cells_of_page(page, words, mine - table.first_rows.item(number))
        except MISTAKEN:
            continue
        yield from zip(mine.tolist(), found, strict=True)


@dataclass(frozen=True)
class _Words:
    """A dictionary: its inflated page, and where each value is in it."""

    view: memoryview
    starts: NDArray[np.int32]
    lengths: NDArray[np.int32]


def _read_words(file: OpenFile, chunk: Chunk, table: PageTable) -> _Words | None:
    if table.dictionary is None:
        return None
    opened = _read_dictionary(file, chunk, table.dictionary)
    return None if opened is None else _Words(opened[0], *_places_of_values(opened[0], 0, None))


def _cells_of_page(
    page: Page, words: _Words | None, places: NDArray[np.int64]
) -> list[bytes | None]:
    """Return the cells at some places of a page; its dictionary is needed where it has one."""
    ranks = np.cumsum(page.defined)[places] - 1
    there = page.defined[places].tolist()
    if page.by_dictionary and words is not None:
        view, starts, lengths = words.view, words.starts, words.lengths
        indices = _read_indices(page)
        ranks = np.array(
            [indices[rank] if ok else 0 for rank, ok in zip(ranks, there, strict=True)]
        )
    else:
        view = page.values
        count = int(np.count_nonzero(page.defined))
        starts, lengths = _places_of_values(view, page.values_start, count)
    return [
        bytes(view[starts[rank] : starts[rank] + lengths[rank]]) if ok else None
        for rank, ok in zip(ranks.tolist(), there, strict=True)
    ]


def open_page(stored: bytes, chunk: Chunk, rows: int, most: int) -> Page | None:
    """Take a data page of so many rows apart; None for an encoding that is not understood.

    Raises one of ``MISTAKEN`` for bytes that contradict themselves or have another number of rows,
    StampTooLarge where they and what they inflate to are more than ``most``.
    """
    header, start, payload = _check_page(stored, most)
    if _rows_of(header) != rows:
        raise PageDamaged("the page has another number of rows than it should")
    if header[_PAGE_TYPE] == _DATA_PAGE:
        described = header[_PAGE_V1]
        encoding, level_encoding = described[2], described[3]
        values = inflate(payload, chunk.codec, header[_PAGE_INFLATED])
        body = (start, len(payload), len(values), chunk.codec != "none")
        begin = 0
        defined = np.ones(rows, bool)
        if chunk.max_definition_level:
            if level_encoding != _RLE:
                return None
            (length,) = _UINT32.unpack_from(values)
            begin = 4 + length
            defined = _read_levels(values[4:begin], chunk.max_definition_level, rows)
    elif header[_PAGE_TYPE] == _DATA_PAGE_V2:
        described = header[_PAGE_V2]
        encoding, length = described[4], described[5]
        if described[6]:  # repetition levels: a list
            return None
        compressed = described.get(7, True) and chunk.codec != "none"
        stored_values = payload[length:]
        values = (
            inflate(stored_values, chunk.codec, header[_PAGE_INFLATED] - length)
            if compressed and len(stored_values)
            else stored_values
        )
        body = (start + length, len(stored_values), len(values), compressed)
        begin = 0
        defined = np.ones(rows, bool)
        if chunk.max_definition_level:
            defined = _read_levels(payload[:length], chunk.max_definition_level, rows)
    else:
        return None
    if encoding not in (_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY):
        return None
    return Page(values, begin, defined, encoding != _PLAIN, body)


def open_dictionary(
    stored: bytes, chunk: Chunk, most: int
) -> tuple[memoryview, tuple[int, int, int, bool]] | None:
    """Return the inflated values of a dictionary page, and its body; None if not understood.

    Raises as ``open_page`` does.
    """
    header, start, payload = _check_page(stored, most)
    if header[_PAGE_TYPE] != _DICTIONARY_PAGE:
        return None
    if header[_PAGE_DICTIONARY][2] not in (_PLAIN, _PLAIN_DICTIONARY):
        return None
    values = inflate(payload, chunk.codec, header[_PAGE_INFLATED])
    return values, (start, len(payload), len(values), chunk.codec != "none")


def _check_page(stored: bytes, most: int) -> tuple[Struct, int, memoryview]:
    """Return a page's header, where its payload begins, and the payload, its checksum checked."""
    header, start = read_struct(stored)
    payload = memoryview(stored)[start:]
    if len(payload) != header[_PAGE_SIZE]:
        raise PageDamaged("the page is not as long as it says")
    # Before any of it is inflated: a page of 29 kB can become one of 900 MB.
    check_size(len(stored) + header[_PAGE_INFLATED], most)
    if _PAGE_CRC in header and zlib.crc32(payload) != header[_PAGE_CRC] & 0xFFFFFFFF:
        raise PageDamaged("the page's checksum does not match")
    return header, start, payload


def inflate(stored: bytes | memoryview, codec: str, size: int) -> memoryview:
    """Return ``size`` bytes from their compressed form. Raises PageDamaged."""
    if not 0 <= size < 2**31:
        raise PageDamaged("the page has an impossible size")
    if codec == "none":
        if len(stored) != size:
            raise PageDamaged("the page is not as long as it says")
        return memoryview(stored)
    if codec == "lz4":
        return _inflate_hadoop_lz4(memoryview(stored), size)
    if codec == "snappy" and _snappy_preamble(memoryview(stored))[0] != size:
        raise PageDamaged("the page is not as long as it says")
    return _view(_decompress(stored, size, codec))


def _decompress(stored: bytes | memoryview, size: int, codec: str) -> pa.Buffer:
    """Return ``size`` bytes from their compressed form, no more and no fewer.

    ``pa.decompress`` fails where there are more. Where there are fewer, as of gzip, brotli and LZ4
    it does not tell, and what follows them is whatever was in memory before.
    """
    try:
        if codec in ("gzip", "brotli"):
            stream = pa.CompressedInputStream(pa.BufferReader(stored), codec)
            found = stream.read_buffer(size + 1)
        else:
            found = pa.decompress(stored, decompressed_size=size, codec=codec)
            if codec == "lz4_raw" and size and _fits(stored, size - 1, codec):
                raise PageDamaged("the page is not as long as it says")
    except (pa.ArrowException, OSError) as error:
        raise PageDamaged(f"the {codec} bytes are damaged") from error
    if len(found) != size:
        raise PageDamaged("the page is not as long as it says")
    return found


def _fits(stored: bytes | memoryview, size: int, codec: str) -> bool:
    try:
        pa.decompress(stored, decompressed_size=size, codec=codec)
    except (pa.ArrowException, OSError):
        return False
    return True


def _view(buffer: pa.Buffer) -> memoryview:
    """Return a buffer's bytes as such; pyarrow says that they are signed."""
    return memoryview(buffer).cast("B")


def _inflate_hadoop_lz4(stored: memoryview, size: int) -> memoryview:
    """Inflate the framing of Hadoop: blocks of an inflated size and as many chunks as make it up.

    A chunk says how long it is as stored, not inflated; pyarrow expects one to a block.
    """
    pieces: list[bytes] = []
    place = done = 0
    while place < len(stored):
        (left,) = _UINT32_BE.unpack_from(stored, place)
        place += 4
        done += left
        if done > size:
            raise PageDamaged("a block of LZ4 is longer than its page")
        while left:
            (length,) = _UINT32_BE.unpack_from(stored, place)
            place += 4
            chunk = stored[place : place + length]
            place += length
            if not length or place > len(stored):
                raise PageDamaged("a chunk of LZ4 is longer than its page")
            inflated = left if place == len(stored) else _lz4_size(chunk)
            if inflated > left:
                raise PageDamaged("a chunk of LZ4 is longer than its block")
            pieces.append(_decompress(chunk, inflated, "lz4_raw").to_pybytes())
            left -= inflated
    if done != size:
        raise PageDamaged("the page is not as long as it says")
    return memoryview(b"".join(pieces))


def _lz4_size(chunk: memoryview) -> int:
    """Return how long a chunk is when inflated. Source: LZ4 block format description."""

    def extended(length: int, place: int) -> tuple[int, int]:
        if length == 15:
            while True:
                byte = chunk[place]
                place += 1
                length += byte
                if byte != 255:
                    break
        return length, place

    size = place = 0
    while True:
        token = chunk[place]
        literals, place = extended(token >> 4, place + 1)
        size += literals
        place += literals
        if place >= len(chunk):  # the last sequence has no match
            return size
        match, place = extended(token & 15, place + 2)
        size += match + 4


def _read_levels(levels: memoryview, most: int, rows: int) -> NDArray[np.bool_]:
    """Return which rows are defined at every level."""
    defined: NDArray[np.bool_] = read_hybrid(levels, most.bit_length(), rows) == most
    return defined


def _read_indices(page: Page) -> NDArray[np.uint32]:
    values = page.values[page.values_start :]
    return read_hybrid(values[1:], values[0], int(np.count_nonzero(page.defined)))


def read_hybrid(data: memoryview, width: int, count: int) -> NDArray[np.uint32]:
    """Decode ``count`` numbers of ``width`` bits in parquet's RLE and bit-packing hybrid."""
    if not 0 <= width <= 32:
        raise PageDamaged("numbers wider than 32 bits")
    found = np.zeros(count, np.uint32)
    place = done = 0
    while done < count and width:
        head, place = _read_varint(data, place)
        if head & 1:
            length = (head >> 1) * width
            bits = np.unpackbits(
                np.frombuffer(data[place : place + length], np.uint8), bitorder="little"
            )
            numbers = bits[: len(bits) // width * width].reshape(-1, width)
            run = numbers @ (np.uint32(1) << np.arange(width, dtype=np.uint32))
            place += length
        else:
            length = (width + 7) // 8
            value = int.from_bytes(data[place : place + length], "little")
            if head >> 1 > count - done:
                raise PageDamaged("a run of more numbers than there are")
            run = np.full(head >> 1, value, np.uint32)
            place += length
        if not len(run):
            raise PageDamaged("a run of no numbers")
        taken = min(len(run), count - done)
        found[done : done + taken] = run[:taken]
        done += taken
    return found


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 35:
            raise PageDamaged("a number is longer than 32 bits")


def _nth_value(view: memoryview, start: int, rank: int, count: int | None) -> bytes:
    """Return the ``rank``-th of PLAIN byte arrays: each behind its length in four bytes.

    Of ``count`` of them, all that there are; where it is None, those behind it are not looked at.
    """
    unpack = _UINT32.unpack_from
    for _ in range(rank):
        start += 4 + unpack(view, start)[0]
    (length,) = unpack(view, start)
    found = start + 4
    end = found + length
    if count is not None:
        # One more or less than the header says, and the rows of the next page are not its own.
        for _ in range(count - rank - 1):
            end += 4 + unpack(view, end)[0]
        if end != len(view):
            raise PageDamaged("the page has another number of values than it says")
    if end > len(view):
        raise PageDamaged("a value is longer than its page")
    return bytes(view[found : found + length])


# --- every cell of a chunk, and the blocks that inflate on their own --------------------------


class _Bodies:
    """What ``map_cells`` has noted of the bodies of a chunk so far."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self.places: list[tuple[int, int, int]] = []
        self.blocks: list[list[int]] = []
        self.literals: list[NDArray[np.int64]] = []

    def add(
        self, stored: bytes, offset: int, body: tuple[int, int, int, bool], values: memoryview
    ) -> None:
        start, size, inflated, compressed = body
        self.places.append((offset + start, size, inflated))
        payload = memoryview(stored)[start : start + size]
        found: list[tuple[int, int, int]] = []
        if not compressed:
            self.blocks.append([])
        elif self._codec == "snappy":
            starts = split_snappy(payload, values)
            found = find_literals(payload, starts or [], len(values))
            self.blocks.append(starts or [0])
        else:
            self.blocks.append([0])
        self.literals.append(np.array(found, np.int64).reshape(-1, 3))


def map_cells(file: OpenFile, chunk: Chunk, table: PageTable) -> CellMap | None:
    """Read a chunk once and note where each of its cells is, and its CRC-32.

    Returns None if some of it is not understood, or not confirmed. Raises StampTooLarge.
    """
    if table.confirmed < len(table.offsets):
        return None
    try:
        return _map_cells(file, chunk, table)
    except MISTAKEN:
        return None


def _map_cells(file: OpenFile, chunk: Chunk, table: PageTable) -> CellMap | None:
    if table.first_rows[-1] != chunk.rows:
        raise PageDamaged("some of the pages cannot be read")
    bodies = _Bodies(chunk.codec)
    cell_bodies = np.zeros(chunk.rows, np.int32)
    cell_starts = np.zeros(chunk.rows, np.int32)
    cell_lengths = np.full(chunk.rows, -1, np.int32)
    cell_checks = np.zeros(chunk.rows, np.uint32)
    words: tuple[NDArray[Any], ...] | None = None
    if table.dictionary is not None:
        stored, offset = _read_bounded(file, *table.dictionary), table.dictionary[0]
        opened = open_dictionary(stored, chunk, file.page_bytes)
        if opened is None:
            return None
        places = _places_of_values(opened[0], 0, None)
        words = *places, _checks_of(opened[0], *places)
        bodies.add(stored, offset, opened[1], opened[0])
    for number, offset in enumerate(table.offsets.tolist()):
        first, end = table.first_rows[number : number + 2].tolist()
        stored = _read_bounded(file, offset, table.sizes.item(number))
        page = open_page(stored, chunk, end - first, file.page_bytes)
        if page is None or (page.by_dictionary and words is None):
            return None
        rows = first + np.flatnonzero(page.defined)
        if page.by_dictionary and words is not None:
            # These cells are in the dictionary, body 0.
            indices = _read_indices(page)
            values = tuple(of_words[indices] for of_words in words)
        else:
            places = _places_of_values(page.values, page.values_start, len(rows))
            values = *places, _checks_of(page.values, *places)
            cell_bodies[rows] = len(bodies.places)
            bodies.add(stored, offset, page.body, page.values)
        cell_starts[rows], cell_lengths[rows], cell_checks[rows] = values
    counts = [len(found) for found in bodies.blocks]
    offsets, sizes, inflated = np.array(bodies.places, np.int64).reshape(-1, 3).T.copy()
    return CellMap(
        offsets,
        sizes,
        inflated,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        np.array([start for found in bodies.blocks for start in found], np.int32),
        cell_bodies,
        cell_starts,
        cell_lengths,
        *_find_cells_as_stored(bodies.literals, cell_bodies, cell_starts, cell_lengths),
        cell_checks,
    )


def _checks_of(
    view: memoryview, starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> NDArray[np.uint32]:
    """Return the CRC-32 of each of some values."""
    places = zip(starts.tolist(), lengths.tolist(), strict=True)
    return np.array([crc32(view[at : at + length]) for at, length in places], np.uint32)


def compare_with_pyarrow(file: OpenFile, row_group: int, column: str, cells: CellMap) -> None:
    """Raise FileUnreadable where pyarrow, which knows nothing of this module, reads other cells.

    What pyarrow cannot read, like the LZ4 of Hadoop as Spark writes it, is not compared.
    """
    path = file.id.path
    try:
        for row, cell in cells_by_pyarrow(file, row_group, column):
            if isinstance(cell, ValueError) or not cells.is_right(row, cell):
                break
        else:
            return
    except FileUnreadable as error:
        log.info("%s: pyarrow does not read %s: %s", path, column, error.__cause__)
        return
    raise FileUnreadable(f"the pages of {column} in {file_name(path)} contradict each other", path)


def _find_cells_as_stored(
    literals: list[NDArray[np.int64]],
    cell_bodies: NDArray[np.int32],
    cell_starts: NDArray[np.int32],
    cell_lengths: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return ``cell_offsets`` and ``cell_gaps`` of a map, given the literals of each body."""
    offsets = np.full(len(cell_bodies), -1, np.int32)
    gaps = np.zeros(len(cell_bodies), np.uint8)
    for body, runs in enumerate(literals):
        rows = np.flatnonzero((cell_bodies == body) & (cell_lengths > 0))
        if len(rows) and len(runs):
            offsets[rows], gaps[rows] = _places_as_stored(
                runs, cell_starts[rows], cell_lengths[rows]
            )
    return offsets, gaps


def _places_as_stored(
    runs: NDArray[np.int64], starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where cells stand as they are, -1 for none, and the gap between their two parts.

    ``runs`` are literals as ``find_literals`` returns them. A cell is in one of them, or in two
    that meet at the border of a block.
    """
    first, length, stored = runs.T
    ends = starts.astype(np.int64) + lengths
    run = np.searchsorted(first, starts, "right") - 1
    following = np.minimum(run + 1, len(runs) - 1)
    run = np.maximum(run, 0)
    run_ends = first[run] + length[run]
    offsets = stored[run] + starts - first[run]
    begins = (first[run] <= starts) & (starts < run_ends)
    alone = begins & (ends <= run_ends)
    gaps = stored[following] - stored[run] - length[run]
    border = (starts // SNAPPY_BLOCK + 1) * SNAPPY_BLOCK
    meets = (run_ends == border) & (first[following] == border)
    split = begins & ~alone & meets & (ends <= border + length[following])
    split &= (gaps > 0) & (gaps < 256)
    return np.where(alone | split, offsets, -1), np.where(split, gaps, 0)


def _places_of_values(
    view: memoryview, start: int, count: int | None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return start and length of PLAIN byte arrays: all that there are, ``count`` if it is given.

    Raises PageDamaged where that is another number.
    """
    unpack = _UINT32.unpack_from
    starts: list[int] = []
    lengths: list[int] = []
    while len(starts) < count if count is not None else start < len(view):
        (length,) = unpack(view, start)
        start += 4
        if start + length > len(view):
            raise PageDamaged("a value is longer than its page")
        starts.append(start)
        lengths.append(length)
        start += length
    if start != len(view):
        raise PageDamaged("the page has another number of values than it says")
    return np.array(starts, np.int32), np.array(lengths, np.int32)


def read_mapped_cell(file: OpenFile, codec: str, cells: CellMap, row: int) -> bytes | None:
    """Return a cell whose place is known, reading only the blocks it lies in.

    Raises PageDamaged where the bytes are no longer what was mapped.
    """
    length = cells.cell_lengths.item(row)
    if length <= 0:
        return None if length < 0 else b""
    body, start = cells.cell_bodies.item(row), cells.cell_starts.item(row)
    if cells.cell_offsets.item(row) >= 0:
        span = _span_as_stored(cells, row)
    else:
        span = _span(cells, body, *_blocks_of(cells, body, start, length))
    content = _inflate_span(file.read_at(span.size, span.offset), codec, span)
    start -= span.base
    return bytes(content[start : start + length])


class _Span(NamedTuple):
    """Bytes of the file that inflate on their own."""

    offset: int
    size: int
    base: int
    """Where what they inflate to begins in the inflated body."""
    inflated: int
    """Its size."""
    blocks: int
    """How many; none: stored as it is."""
    is_whole: bool
    """Whether it is all of its body, as the writer compressed it."""
    gap: tuple[int, int] = (0, 0)
    """Of what is stored as it is: where bytes stand that do not belong to it, and how many."""


def _blocks_of(cells: CellMap, body: int, start: int, length: int) -> tuple[int, int]:
    """Return the first and the last block of a cell; of a body without blocks, the bytes."""
    low, high = cells.first_blocks.item(body), cells.first_blocks.item(body + 1)
    if low == high:
        return start, start + length - 1
    if high - low == 1:
        return 0, 0
    return start // SNAPPY_BLOCK, (start + length - 1) // SNAPPY_BLOCK


def _span(cells: CellMap, body: int, first: int, last: int) -> _Span:
    """Return where the blocks from ``first`` to ``last`` of a body are."""
    offset, size = cells.body_offsets.item(body), cells.body_sizes.item(body)
    inflated = cells.body_inflated.item(body)
    low, high = cells.first_blocks.item(body), cells.first_blocks.item(body + 1)
    if low == high:
        length = last - first + 1
        return _Span(offset + first, length, first, length, 0, is_whole=False)
    if high - low == 1:
        return _Span(offset, size, 0, inflated, 1, is_whole=True)
    begin = cells.blocks.item(low + first)
    end = cells.blocks.item(low + last + 1) if low + last + 1 < high else size
    base = first * SNAPPY_BLOCK
    inflated = min((last + 1) * SNAPPY_BLOCK, inflated) - base
    return _Span(offset + begin, end - begin, base, inflated, last - first + 1, is_whole=False)


def _span_as_stored(cells: CellMap, row: int) -> _Span:
    """Return where a cell is that stands in its stored body as it is."""
    body, start = cells.cell_bodies.item(row), cells.cell_starts.item(row)
    length, gap = cells.cell_lengths.item(row), cells.cell_gaps.item(row)
    offset = cells.body_offsets.item(body) + cells.cell_offsets.item(row)
    cut = SNAPPY_BLOCK - start % SNAPPY_BLOCK if gap else 0
    return _Span(offset, length + gap, start, length, 0, is_whole=False, gap=(cut, gap))


def _inflate_span(stored: bytes | memoryview, codec: str, span: _Span) -> memoryview:
    if span.is_whole:
        return inflate(stored, codec, span.inflated)
    if not span.blocks:
        cut, gap = span.gap
        if gap and stored[cut] & 3:
            raise PageDamaged("there is no literal where one was")
        return memoryview(b"".join((stored[:cut], stored[cut + gap :])) if gap else stored)
    return inflate(write_varint(span.inflated) + stored, "snappy", span.inflated)


@dataclass(frozen=True)
class _Piece:
    """A span and the cells in it: the row of each, its start in the inflated body, its length."""

    span: _Span
    cells: list[tuple[int, int, int]]


def _pieces(cells: CellMap, rows: NDArray[np.int64]) -> list[_Piece]:
    """Return what to read of the rows that are neither null nor empty, in the order of the file.

    Cells that share a block share a piece.
    """
    bodies, starts, lengths = cells.cell_bodies[rows], cells.cell_starts[rows], cells.cell_lengths
    order = np.lexsort((starts, bodies))
    order = order[lengths[rows][order] > 0]
    found: list[_Piece] = []
    at, known = -1, (-1, 0, 0)  # the last piece of blocks: its place, body, first and last block
    for body, start, row in zip(
        bodies[order].tolist(), starts[order].tolist(), rows[order].tolist(), strict=True
    ):
        cell = (row, start, lengths.item(row))
        if cells.cell_offsets.item(row) >= 0:
            found.append(_Piece(_span_as_stored(cells, row), [cell]))
            continue
        first, last = _blocks_of(cells, body, start, cell[2])
        if body == known[0] and first <= known[2]:
            last = max(last, known[2])
            joined = _span(cells, body, known[1], last)
            if joined.size <= RUN_BYTES or joined == found[at].span:
                found[at].cells.append(cell)
                found[at] = _Piece(joined, found[at].cells)
                known = (body, known[1], last)
                continue
            first, last = _blocks_of(cells, body, start, cell[2])
        at, known = len(found), (body, first, last)
        found.append(_Piece(_span(cells, body, first, last), [cell]))
    found.sort(key=lambda piece: piece.span.offset)
    return found


def _place_of(piece: _Piece) -> tuple[int, int]:
    return piece.span.offset, piece.span.size


def read_mapped_cells(
    file: OpenFile, codec: str, cells: CellMap, rows: NDArray[np.int64]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the cells of different rows whose places are known, reading each block once.

    Those whose bytes are no longer what was mapped are left out.
    """
    lengths = cells.cell_lengths[rows]
    for row in rows[lengths <= 0].tolist():
        yield row, None if cells.cell_lengths.item(row) < 0 else b""
    for start, end, pieces in near_ones(_pieces(cells, rows), _place_of):
        data = memoryview(file.read_at(end - start, start))
        for piece in pieces:
            span = piece.span
            stored = data[span.offset - start : span.offset - start + span.size]
            try:
                content = _inflate_span(stored, codec, span)
            except MISTAKEN:
                continue
            for row, place, length in piece.cells:
                within = place - span.base
                yield row, bytes(content[within : within + length])


@dataclass(frozen=True)
class Plan:
    """What is read to have some cells."""

    cells: int = 0
    reads: int = 0
    pages: int = 0
    blocks: int = 0
    row_groups: int = 0
    """That pyarrow reads whole."""
    bytes: int = 0
    stamp_bytes: int = 0
    """Of the cells, as stored; about, where only their pages are known."""

    def __add__(self, other: Plan) -> Plan:
        mine, theirs = vars(self), vars(other)
        return Plan(**{name: mine[name] + theirs[name] for name in mine})


def plan_mapped_cells(cells: CellMap, rows: NDArray[np.int64]) -> Plan:
    """Return what ``read_mapped_cells`` would read."""
    pieces = _pieces(cells, rows)
    runs = list(near_ones(pieces, _place_of))
    return Plan(
        cells=len(rows),
        reads=len(runs),
        blocks=sum(max(piece.span.blocks, 1) for piece in pieces),
        bytes=sum(end - start for start, end, _ in runs),
        stamp_bytes=int(np.maximum(cells.cell_lengths[rows], 0).sum()),
    )


def plan_cells(chunk: Chunk, table: PageTable, rows: NDArray[np.int64]) -> Plan:
    """Return what ``read_cells`` would read."""
    numbers = table.first_rows.searchsorted(rows, "right") - 1
    numbers = np.unique(numbers[numbers < len(table.offsets)])
    _, dictionary = table.dictionary or (0, 0)
    return Plan(
        cells=len(rows),
        reads=len(numbers) + bool(dictionary),
        pages=len(numbers),
        bytes=int(table.sizes[numbers].sum()) + dictionary,
        stamp_bytes=chunk.length * len(rows) // max(chunk.rows, 1),
    )


def split_snappy(stored: memoryview, inflated: memoryview) -> list[int] | None:
    """Return where each 64 kB block of a snappy stream begins, if each inflates on its own.

    A block is compressed anew first: where the result is what is stored, as with every writer
    that uses the common library, that proves it in a fiftieth of the time. Else the tags are
    walked: none may cross a border or copy from before it. None where one does.
    """
    size, place = _snappy_preamble(stored)
    if size != len(inflated):
        return None
    starts = []
    for begin in range(0, size, SNAPPY_BLOCK):
        starts.append(place)
        block = inflated[begin : begin + SNAPPY_BLOCK]
        again = _view(pa.compress(block, codec="snappy"))
        again = again[_snappy_preamble(again)[1] :]
        if stored[place : place + len(again)] == again:
            place += len(again)
            continue
        end = _walk_snappy(stored, place, len(block))
        if end is None:
            return None
        place = end
    return starts if place == len(stored) else None


def find_literals(
    stored: memoryview, starts: list[int], inflated: int
) -> list[tuple[int, int, int]]:
    """Return what stands in a snappy stream as it is: place inflated, length, place as stored.

    ``starts`` are those of its independent blocks. Blocks of many tags are passed over.
    """
    found = []
    for number, start in enumerate(starts):
        place, done = start, number * SNAPPY_BLOCK
        end = min(done + SNAPPY_BLOCK, inflated)
        in_block = []
        for _ in range(FEW_TAGS):
            literal, length, _, place = _read_snappy_tag(stored, place)
            if literal is not None:
                in_block.append((done, length, literal))
            done += length
            if done >= end:
                found += in_block
                break
    return found


def _read_snappy_tag(stored: memoryview, place: int) -> tuple[int | None, int, int, int]:
    """Return where a literal's bytes are (None of a copy), length, how far back, where it ends."""
    tag = stored[place]
    kind, number = tag & 3, tag >> 2
    place += 1
    if kind == 0:
        length = number + 1
        if length > 60:
            extra = length - 60
            length = int.from_bytes(stored[place : place + extra], "little") + 1
            place += extra
        return place, length, 0, place + length
    if kind == 1:
        return None, (number & 7) + 4, (tag >> 5) << 8 | stored[place], place + 1
    end = place + (2 if kind == 2 else 4)
    return None, number + 1, int.from_bytes(stored[place:end], "little"), end


def _snappy_preamble(stored: memoryview) -> tuple[int, int]:
    """Return the inflated size that a snappy stream begins with, and where its tags begin."""
    return _read_varint(stored, 0)


def _walk_snappy(stored: memoryview, place: int, size: int) -> int | None:
    """Return where a block of ``size`` inflated bytes ends, or None if it leans on others."""
    done = 0
    while done < size:
        literal, length, back, place = _read_snappy_tag(stored, place)
        if literal is None and (back == 0 or back > done):
            return None
        done += length
    return place if done == size else None


# --- some rows of many columns -----------------------------------------------------------------


class Ranges:
    """A file of which some ranges are at hand already; reads outside them go to the file."""

    def __init__(self, file: OpenFile | Window, ranges: list[tuple[int, int]]) -> None:
        self.id = file.id
        self.size = file.size
        self.page_bytes = file.page_bytes
        self._file = file
        self._parts = [(start, file.read_at(end - start, start)) for start, end in ranges]

    def read_at(self, length: int, offset: int) -> bytes:
        length = min(length, self.size - offset)
        for start, data in self._parts:
            if start <= offset and 0 <= length <= start + len(data) - offset:
                return data[offset - start : offset - start + length]
        return self._file.read_at(length, offset)


def read_rows(
    footer: Footer,
    row_group: int,
    rows: NDArray[np.int64],
    columns: list[str],
    parts: Mapping[str, Sequence[str]] | None = None,
) -> list[pa.Array]:
    """Return ``rows`` of a row group, counted within it, of each column, in that order.

    A column is the dotted name of a leaf outside lists, or a whole top-level column; ``parts``
    has, for some of the latter, the leaves that are read of them. Its chunks
    are read in as few reads as they lie apart. Raises FileUnreadable for damaged pages.
    """
    window = footer.window
    leaves = [leaf for name in columns for leaf in (parts or {}).get(name, (name,))]
    chunks = _chunks_of(footer, [row_group], leaf_places(footer.metadata, leaves))
    at_hand = Ranges(window, _merged_ranges(chunks))
    check_columns(at_hand, chunks)
    source = Source(at_hand)
    with parquet_errors(window.id.path, source, "a page"):
        reader = _open_parquet(source, footer.metadata)
        table = reader.read_row_group(row_group, columns=leaves, use_threads=False)
        if table.num_rows != footer.metadata.row_group(row_group).num_rows:
            raise ValueError("a column is shorter than its row group")
        # A column may come in several pieces, and each is made whole where it is taken from.
        table = table.take(pa.array(rows))
        structs: dict[str, tuple[pa.DataType, list[pa.Array]]] = {}
        return [_field(table, column, structs) for column in columns]


def _field(
    table: pa.Table, column: str, structs: dict[str, tuple[pa.DataType, list[pa.Array]]]
) -> pa.Array:
    """Return a column as ``_leaf`` does, taking each struct apart once; ``structs`` keeps it."""
    head, _, name = column.rpartition(".")
    if not head or column in table.column_names:
        return _leaf(table, column)
    if head not in structs:
        values = _field(table, head, structs)
        structs[head] = values.type, values.flatten()
    kind, fields = structs[head]
    return fields[kind.get_field_index(name)]


def _merged_ranges(chunks: Sequence[ChunkMetadata]) -> list[tuple[int, int]]:
    """Return where some chunks are, as start and end, near ones as one."""
    found = [(chunk.start, chunk.start + chunk.total_compressed_size) for chunk in chunks]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start - merged[-1][1] <= GAP_BYTES:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
