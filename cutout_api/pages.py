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

import posixpath
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from struct import Struct as Packed
from struct import error as PackedTooShort  # noqa: N812
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .errors import FileUnreadable, NotParquet
from .footer import ChunkMetadata, FileMetadata
from .isolation import ReadAt, run_isolated
from .storage import FileId, LentFile, OpenFile, Source, file_name, is_parquet_name
from .thrift import Struct, ThriftError, ThriftShort, read_struct

MAGIC, MAGIC_ENCRYPTED = b"PAR1", b"PARE"
TAIL_BYTES = 262_144
"""Read first of a file never seen: the footer, and the page index before it, of most files."""
MAX_FOOTER_BYTES = 1 << 28
SUMMARY_NAMES = ("_metadata", "_common_metadata")
HEADER_BYTES = 128
"""Read first for a page header, which is some 25 bytes unless it carries statistics."""
SNAPPY_BLOCK = 65_536
"""What every snappy writer seen compresses at a time, though the format promises nothing."""
GAP_BYTES = 65_536
"""What is skipped between two ranges costs less to read than another read."""
RUN_BYTES = 4 << 20
"""Cells that lie near each other are read together, so many bytes at a time."""
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
MISTAKEN = (PageDamaged, ThriftError, PackedTooShort, KeyError, TypeError, IndexError, ValueError)


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
    """Where the pages of a chunk are: three arrays with one entry a page, in order of rows."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """Header and body."""
    first_rows: NDArray[np.int64]
    """Within the row group."""
    dictionary: tuple[int, int] | None
    """Offset and size of the dictionary page."""


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


class Window:
    """A file of which one range is at hand already; reads outside it go to the file."""

    def __init__(self, file: OpenFile | LentFile, start: int, data: bytes) -> None:
        self.file = file
        self.id = file.id
        self.size = file.size
        self.start = start
        self.data = data

    def read_at(self, length: int, offset: int) -> bytes:
        length = min(length, self.size - offset)
        within = offset - self.start
        if within >= 0 and within + length <= len(self.data):
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
        raise FileUnreadable(f"{file_name(path)} is encrypted, its footer too", path)
    try:
        with parquet_errors(path, source, "the footer"):
            if window.data[-len(MAGIC) :] != MAGIC:
                raise ValueError("no magic number at the end")
            (stored_length,) = _UINT32.unpack_from(window.data, len(window.data) - 8)
            start = file.size - 8 - stored_length
            if stored_length > MAX_FOOTER_BYTES or start < 0:
                raise ValueError("the footer is impossibly long")
            native = pq.read_metadata(pa.PythonFile(source, mode="r"))
            _refuse_summary(path, native, start)
            content = window.read_at(stored_length, start)
            return Footer(FileMetadata(native, content, start), window)
    except FileUnreadable as error:
        if is_parquet_name(path) or file.read_at(len(MAGIC), 0) == MAGIC:
            raise
        raise NotParquet(f"{file_name(path)} is not a parquet file") from error


def _refuse_summary(path: str, native: pq.FileMetaData, footer_start: int) -> None:
    """Raise NotParquet for a file that describes the row groups of others, and holds no page."""
    is_named_so = posixpath.basename(path) in SUMMARY_NAMES
    if is_named_so or (native.num_rows and footer_start <= len(MAGIC)):
        raise NotParquet(
            f"{file_name(path)} is a summary of other parquet files and holds no alerts itself; "
            "name one of those, or their folder"
        )


def first_rows_of(metadata: FileMetadata) -> NDArray[np.int64]:
    """Return the first row of each row group, and one more: the number of rows."""
    counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def read_columns(footer: Footer, columns: list[str]) -> list[pa.Array]:
    """Return whole leaf columns of the file, as flat arrays in the order of ``columns``.

    ``columns`` are dotted leaf names that the footer has, none of them inside a list.
    Raises FileUnreadable for damaged pages and encrypted columns.
    """
    return _read_columns(footer, list(range(footer.metadata.num_row_groups)), columns)


def _read_columns(footer: Footer, row_groups: list[int], columns: list[str]) -> list[pa.Array]:
    metadata, path = footer.metadata, footer.window.id.path
    source = Source(footer.window)
    _chunks_of(footer, row_groups, _leaves_below(metadata, columns))
    with parquet_errors(path, source, "a page"):
        # A reader of its own for each call: pyarrow's are not safe to share between threads.
        reader = pq.ParquetFile(
            pa.PythonFile(source, mode="r"),
            metadata=metadata.native,
            page_checksum_verification=True,
        )
        try:
            table = reader.read_row_groups(row_groups, columns=columns, use_threads=False)
            arrays = [_leaf(table, column) for column in columns]
        except pa.ArrowNotImplementedError:
            # pyarrow joins no dictionaries inside a struct; what they stand for it does.
            tables = [reader.read_row_group(n, columns, use_threads=False) for n in row_groups]
            parts = [[_decoded(_leaf(table, column)) for table in tables] for column in columns]
            arrays = [pa.concat_arrays(part) for part in parts]
        rows = sum(metadata.row_group(number).num_rows for number in row_groups)
        if any(len(array) != rows for array in arrays):
            raise ValueError("a column is shorter than its row groups")
        return arrays


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
                raise FileUnreadable(encrypted_column(footer, leaf), path)
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
    return read_cells_by_row_group(file, row_group, column, [row])[0]


def read_cells_by_row_group(
    file: OpenFile, row_group: int, column: str, rows: Sequence[int]
) -> list[bytes | None]:
    """Return the cells of some rows, counted within the row group, as above.

    In another process: these are pages that nobody here understood.
    """
    with parquet_errors(file.id.path, None, "a page"):
        return run_isolated(
            _cells_by_row_group, file.id, row_group, column, list(rows), read_at=file.read_at
        )


def _cells_by_row_group(
    read_at: ReadAt, file_id: FileId, row_group: int, column: str, rows: list[int]
) -> list[bytes | None]:
    footer = read_footer(LentFile(file_id, read_at))
    (values,) = _read_columns(footer, [row_group], [column])
    with parquet_errors(file_id.path, None, "a page"):
        # One by one: together they may be more than a column of binary holds. Text is taken for
        # the bytes it is.
        return [values.slice(row, 1).cast(pa.large_binary())[0].as_py() for row in rows]


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

    A walk ends at the first header that cannot be read; the pages before it are known then.
    Returns None where there are none.
    """
    table = _read_offset_index(file, chunk) if chunk.offset_index else None
    return table or _walk_pages(file, chunk)


def _read_offset_index(file: OpenFile | Window, chunk: Chunk) -> PageTable | None:
    offset, length = chunk.offset_index or (0, 0)
    try:
        index, _ = read_struct(file.read_at(length, offset))
        locations = [(page[1], page[2], page[3]) for page in index[1]]
    except (ThriftError, KeyError, TypeError):
        return None
    table = _table(locations, chunk)
    if table is None or not _is_plausible(table, chunk):
        return None
    return table


def _table(locations: list[tuple[int, int, int]], chunk: Chunk) -> PageTable | None:
    if not locations:
        return None
    offsets, sizes, first_rows = np.array(locations, np.int64).T.copy()
    before = int(offsets[0]) - chunk.start
    return PageTable(offsets, sizes, first_rows, (chunk.start, before) if before > 0 else None)


def _is_plausible(table: PageTable, chunk: Chunk) -> bool:
    ends = table.offsets + table.sizes
    return bool(
        table.first_rows[0] == 0
        and (np.diff(table.first_rows) > 0).all()
        and table.first_rows[-1] < chunk.rows
        and (table.sizes > 0).all()
        and table.offsets[0] >= chunk.start
        and (ends[:-1] <= table.offsets[1:]).all()
        and ends[-1] <= chunk.start + chunk.length
    )


def _walk_pages(file: OpenFile | Window, chunk: Chunk) -> PageTable | None:
    locations = []
    position, end, row = chunk.start, chunk.start + chunk.length, 0
    ahead = HEADER_BYTES
    window = Window(file, 0, b"") if isinstance(file, OpenFile) else file
    while position < end and row < chunk.rows:
        try:
            header, length, window = _read_header(window, position, end, ahead)
            size = length + header[_PAGE_SIZE]
            kind = header[_PAGE_TYPE]
            if kind == _DATA_PAGE:
                rows = header[_PAGE_V1][1]
            elif kind == _DATA_PAGE_V2:
                rows = header[_PAGE_V2][3]
            else:
                rows = 0
            if header[_PAGE_SIZE] < 0 or rows < 0 or position + size > end:
                break
        except (ThriftError, KeyError, TypeError):
            break
        if rows:
            locations.append((position, size, row))
        row += rows
        position += size
        # Small pages are met several in one read.
        ahead = HEADER_BYTES if size > TAIL_BYTES // 4 else TAIL_BYTES
    return _table(locations, chunk)


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
    number = int(table.first_rows.searchsorted(row, "right")) - 1
    stored = file.read_at(table.sizes.item(number), table.offsets.item(number))
    try:
        page = open_page(stored, chunk)
        place = row - table.first_rows.item(number)
        if page is None or place >= len(page.defined):
            return None
        if not page.defined[place]:
            return (None,)
        rank = int(np.count_nonzero(page.defined[:place]))
        if not page.by_dictionary:
            return (_nth_value(page.values, page.values_start, rank),)
        if table.dictionary is None:
            return None
        rank = int(_read_indices(page)[rank])
        offset, size = table.dictionary
        opened = open_dictionary(file.read_at(size, offset), chunk)
        return None if opened is None else (_nth_value(opened[0], 0, rank),)
    except MISTAKEN:
        return None


def read_cells(
    file: OpenFile, chunk: Chunk, table: PageTable, rows: NDArray[np.int64]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the cells of some rows of the chunk, in order of rows, reading each page once.

    The rows of a page that is not understood, or contradicts itself, are left out.
    """
    numbers = table.first_rows.searchsorted(rows, "right") - 1
    words: _Words | None = None
    for number in np.unique(numbers).tolist():
        stored = file.read_at(table.sizes.item(number), table.offsets.item(number))
        mine = rows[numbers == number]
        try:
            page = open_page(stored, chunk)
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
    offset, size = table.dictionary
    opened = open_dictionary(file.read_at(size, offset), chunk)
    return None if opened is None else _Words(opened[0], *_places_of_values(opened[0], 0, None))


def _cells_of_page(
    page: Page, words: _Words | None, places: NDArray[np.int64]
) -> list[bytes | None]:
    """Return the cells at some places of a page; its dictionary is needed where it has one."""
    if (places >= len(page.defined)).any():
        raise PageDamaged("the page has fewer rows than it should")
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
        count = int(ranks.max()) + 1
        starts, lengths = _places_of_values(view, page.values_start, count)
    return [
        bytes(view[starts[rank] : starts[rank] + lengths[rank]]) if ok else None
        for rank, ok in zip(ranks.tolist(), there, strict=True)
    ]


def open_page(stored: bytes, chunk: Chunk) -> Page | None:
    """Take a data page apart; None for an encoding that is not understood.

    Raises one of ``MISTAKEN`` for bytes that contradict themselves.
    """
    header, start, payload = _check_page(stored)
    if header[_PAGE_TYPE] == _DATA_PAGE:
        described = header[_PAGE_V1]
        rows, encoding, level_encoding = described[1], described[2], described[3]
        _check_rows(rows, chunk)
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
        rows, encoding, length = described[3], described[4], described[5]
        _check_rows(rows, chunk)
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


def _check_rows(rows: int, chunk: Chunk) -> None:
    """Raise PageDamaged before memory is taken for rows that the chunk does not have."""
    if not 0 <= rows <= chunk.rows:
        raise PageDamaged("the page has more rows than its column")


def open_dictionary(
    stored: bytes, chunk: Chunk
) -> tuple[memoryview, tuple[int, int, int, bool]] | None:
    """Return the inflated values of a dictionary page, and its body; None if not understood."""
    header, start, payload = _check_page(stored)
    if header[_PAGE_TYPE] != _DICTIONARY_PAGE:
        return None
    if header[_PAGE_DICTIONARY][2] not in (_PLAIN, _PLAIN_DICTIONARY):
        return None
    values = inflate(payload, chunk.codec, header[_PAGE_INFLATED])
    return values, (start, len(payload), len(values), chunk.codec != "none")


def _check_page(stored: bytes) -> tuple[Struct, int, memoryview]:
    """Return a page's header, where its payload begins, and the payload, its checksum checked."""
    header, start = read_struct(stored)
    size = header[_PAGE_SIZE]
    payload = memoryview(stored)[start : start + size]
    if size < 0 or len(payload) != size:
        raise PageDamaged("the page is cut short")
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
    try:
        return pa.decompress(stored, decompressed_size=size, codec=codec)
    except (pa.ArrowException, OSError) as error:
        raise PageDamaged(f"the {codec} bytes are damaged") from error


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
            run = np.full(min(head >> 1, count - done), value, np.uint32)
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


def _nth_value(view: memoryview, start: int, rank: int) -> bytes:
    """Return the ``rank``-th of PLAIN byte arrays: each behind its length in four bytes."""
    unpack = _UINT32.unpack_from
    for _ in range(rank):
        start += 4 + unpack(view, start)[0]
    (length,) = unpack(view, start)
    start += 4
    if start + length > len(view):
        raise PageDamaged("a value is longer than its page")
    return bytes(view[start : start + length])


# --- every cell of a chunk, and the blocks that inflate on their own --------------------------


def map_cells(file: OpenFile, chunk: Chunk, table: PageTable) -> CellMap | None:
    """Read a chunk once and note where each of its cells is.

    Returns None if some of it is not understood.
    """
    bodies: list[tuple[int, int, int]] = []
    blocks: list[list[int]] = []
    literals: list[NDArray[np.int64]] = []
    cell_bodies = np.zeros(chunk.rows, np.int32)
    cell_starts = np.zeros(chunk.rows, np.int32)
    cell_lengths = np.full(chunk.rows, -1, np.int32)

    def add_body(
        stored: bytes, offset: int, body: tuple[int, int, int, bool], values: memoryview
    ) -> None:
        start, size, inflated, compressed = body
        bodies.append((offset + start, size, inflated))
        payload = memoryview(stored)[start : start + size]
        found: list[tuple[int, int, int]] = []
        if not compressed:
            blocks.append([])
        elif chunk.codec == "snappy":
            starts = split_snappy(payload, values)
            found = find_literals(payload, starts or [], len(values))
            blocks.append(starts or [0])
        else:
            blocks.append([0])
        literals.append(np.array(found, np.int64).reshape(-1, 3))

    try:
        words: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        if table.dictionary is not None:
            offset, size = table.dictionary
            stored = file.read_at(size, offset)
            opened = open_dictionary(stored, chunk)
            if opened is None:
                return None
            view = opened[0]
            words = _places_of_values(view, 0, None)
            add_body(stored, offset, opened[1], view)
        ends = np.append(table.first_rows[1:], chunk.rows)
        for offset, size, first, end in zip(
            table.offsets, table.sizes, table.first_rows, ends, strict=True
        ):
            stored = file.read_at(int(size), int(offset))
            page = open_page(stored, chunk)
            if (
                page is None
                or len(page.defined) != end - first
                or (page.by_dictionary and words is None)
            ):
                return None
            rows = first + np.flatnonzero(page.defined)
            if page.by_dictionary and words is not None:
                places = _read_indices(page)
                cell_starts[rows], cell_lengths[rows] = words[0][places], words[1][places]
                continue  # these cells are in the dictionary, body 0
            view = page.values
            cell_starts[rows], cell_lengths[rows] = _places_of_values(
                view, page.values_start, len(rows)
            )
            cell_bodies[rows] = len(bodies)
            add_body(stored, int(offset), page.body, view)
    except MISTAKEN:
        return None
    counts = [len(found) for found in blocks]
    offsets, sizes, inflated = np.array(bodies, np.int64).reshape(-1, 3).T.copy()
    return CellMap(
        offsets,
        sizes,
        inflated,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        np.array([start for found in blocks for start in found], np.int32),
        cell_bodies,
        cell_starts,
        cell_lengths,
        *_find_cells_as_stored(literals, cell_bodies, cell_starts, cell_lengths),
    )


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
    """Return start and length of PLAIN byte arrays: ``count`` of them, or all."""
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
    return inflate(_varint(span.inflated) + stored, "snappy", span.inflated)


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


def _runs(pieces: Sequence[_Piece]) -> Iterator[tuple[int, int, list[_Piece]]]:
    """Yield where to read, start and end, and the pieces that it gives: near ones as one."""
    run: list[_Piece] = []
    start = end = 0
    for piece in pieces:
        span = piece.span
        begins, ends = span.offset, span.offset + span.size
        if run and (begins - end > GAP_BYTES or max(ends, end) - start > RUN_BYTES):
            yield start, end, run
            run = []
        start = start if run else begins
        end = max(end, ends) if run else ends
        run.append(piece)
    if run:
        yield start, end, run


def read_mapped_cells(
    file: OpenFile, codec: str, cells: CellMap, rows: NDArray[np.int64]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the cells of different rows whose places are known, reading each block once.

    Those whose bytes are no longer what was mapped are left out.
    """
    lengths = cells.cell_lengths[rows]
    for row in rows[lengths <= 0].tolist():
        yield row, None if cells.cell_lengths.item(row) < 0 else b""
    for start, end, pieces in _runs(_pieces(cells, rows)):
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
    runs = list(_runs(pieces))
    return Plan(
        cells=len(rows),
        reads=len(runs),
        blocks=sum(max(piece.span.blocks, 1) for piece in pieces),
        bytes=sum(end - start for start, end, _ in runs),
        stamp_bytes=int(np.maximum(cells.cell_lengths[rows], 0).sum()),
    )


def plan_cells(chunk: Chunk, table: PageTable, rows: NDArray[np.int64]) -> Plan:
    """Return what ``read_cells`` would read."""
    numbers = np.unique(table.first_rows.searchsorted(rows, "right") - 1)
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


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


# --- some rows of many columns -----------------------------------------------------------------


class Ranges:
    """A file of which some ranges are at hand already; reads outside them go to the file."""

    def __init__(self, file: OpenFile | Window, ranges: list[tuple[int, int]]) -> None:
        self.size = file.size
        self._file = file
        self._parts = [(start, file.read_at(end - start, start)) for start, end in ranges]

    def read_at(self, length: int, offset: int) -> bytes:
        length = min(length, self.size - offset)
        for start, data in self._parts:
            if start <= offset and offset + length <= start + len(data):
                return data[offset - start : offset - start + length]
        return self._file.read_at(length, offset)


def read_rows(
    footer: Footer, row_group: int, rows: NDArray[np.int64], columns: list[str]
) -> list[pa.Array]:
    """Return ``rows`` of a row group, counted within it, of each column, in that order.

    A column is the dotted name of a leaf outside lists, or a whole top-level column. Its chunks
    are read in as few reads as they lie apart. Raises FileUnreadable for damaged pages.
    """
    window = footer.window
    leaves = _leaves_below(footer.metadata, columns)
    ranges = _merged_ranges(_chunks_of(footer, [row_group], leaves))
    source = Source(Ranges(window, ranges))
    with parquet_errors(window.id.path, source, "a page"):
        reader = pq.ParquetFile(
            pa.PythonFile(source, mode="r"),
            metadata=footer.metadata.native,
            page_checksum_verification=True,
        )
        table = reader.read_row_group(row_group, columns=columns, use_threads=False)
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


def _leaves_below(metadata: FileMetadata, columns: list[str]) -> list[int]:
    """Return the places of the leaf columns that stand for ``columns``."""
    wanted = set(columns)
    return [
        number
        for number, path in enumerate(metadata.paths)
        if path in wanted or path.partition(".")[0] in wanted
    ]


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
