"""What the footer of a parquet file says, asking pyarrow only what it survives.

pyarrow parses a footer, and reads columns by it, without harm whatever the bytes are. But
``RowGroupMetaData.column`` and some attributes of its result throw C++ exceptions that nothing
catches: a column that is encrypted, a codec that is not known, statistics of another shape than
the schema end the process. So what the footer says of column chunks is read from its own bytes,
and ``FileMetadata`` does not hand out pyarrow's view of them.
Source: parquet.thrift of parquet-format 2.11, Encryption.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.parquet as pq

from .thrift import Struct, ThriftError, read_struct, write_varint

# Thrift field ids.
_FILE_ROW_GROUPS, _GROUP_COLUMNS = 4, 1
_CHUNK_META, _CHUNK_OFFSET_INDEX, _CHUNK_OFFSET_INDEX_LENGTH = 3, 4, 5
_CHUNK_CRYPTO, _CHUNK_ENCRYPTED_META = 8, 9
_META_PATH, _META_CODEC, _META_VALUES, _META_UNCOMPRESSED, _META_COMPRESSED = 3, 4, 5, 6, 7
_META_DATA_PAGE, _META_DICTIONARY = 9, 11
_NEEDED = (_META_CODEC, _META_VALUES, _META_UNCOMPRESSED, _META_COMPRESSED, _META_DATA_PAGE)
# Names of pyarrow by number; "lz4" is the framing of Hadoop, "lz4_raw" has none.
CODECS = {0: "none", 1: "snappy", 2: "gzip", 4: "brotli", 5: "lz4", 6: "zstd", 7: "lz4_raw"}
MOST_MISTAKES = 16
"""Of what looks like a chunk and is none; each may take as long as walking the footer."""
WALKED_BYTES = 1 << 20
"""Of a footer that is parsed here as a whole: a second of work."""


class FooterDamaged(ValueError):
    """The footer contradicts itself, or the file that it is the footer of."""


@dataclass(frozen=True)
class ChunkMetadata:
    """A column chunk as the footer describes it."""

    codec: str | None
    """None: a codec that is not known."""
    num_values: int
    total_uncompressed_size: int
    total_compressed_size: int
    data_page_offset: int
    dictionary_page_offset: int | None
    offset_index: tuple[int, int] | None
    """Offset and length of the page locations, where the writer left them."""
    is_encrypted: bool

    @property
    def start(self) -> int:
        return min(self.dictionary_page_offset or self.data_page_offset, self.data_page_offset)


class RowGroupMetadata:
    """A row group as the footer describes it."""

    def __init__(self, file: FileMetadata, number: int) -> None:
        self._file = file
        self._number = number
        self.num_rows: int = file.native.row_group(number).num_rows

    def column(self, leaf: int) -> ChunkMetadata:
        """Return what the footer says of one column chunk. Raises FooterDamaged."""
        return self._file.chunks(leaf)[self._number]


class FileMetadata:
    """A footer: pyarrow's view of it, but for its column chunks."""

    def __init__(self, native: pq.FileMetaData, content: bytes, pages_end: int) -> None:
        """``pages_end`` is the end, exclusive, of the bytes of the file that may be pages.

        Raises FooterDamaged where the row groups have other rows than the file.
        """
        self.native = native
        """To be given to pyarrow. Ask it for no column of a row group."""
        self.schema = native.schema
        self.num_rows: int = native.num_rows
        self.num_row_groups: int = native.num_row_groups
        self._content = content
        self._pages_end = pages_end
        self._chunks: dict[int, list[ChunkMetadata]] = {}
        self._walked: list[list[Any]] | None = None
        counts = [native.row_group(number).num_rows for number in range(self.num_row_groups)]
        if min(counts, default=0) < 0 or sum(counts) != self.num_rows:
            raise FooterDamaged("the row groups have other rows than the file")

    @cached_property
    def paths(self) -> list[str]:
        """The dotted names of the leaf columns; pyarrow takes a microsecond for each."""
        return [self.schema.column(number).path for number in range(len(self.schema))]

    def row_group(self, number: int) -> RowGroupMetadata:
        return RowGroupMetadata(self, number)

    def chunks(self, leaf: int) -> list[ChunkMetadata]:
        """Return the chunks of a leaf column, one for each row group. Raises FooterDamaged."""
        found = self._chunks.get(leaf)
        if found is None:
            fields = self._find_fields(leaf)
            if fields is None:
                fields = self._walk_fields(leaf)
            found = [self._chunk(meta, rest) for meta, rest in fields]
            self._chunks[leaf] = found
        return found

    def _find_fields(self, leaf: int) -> list[tuple[Struct, Struct]] | None:
        """Look for the bytes of a chunk's path, and read on from there.

        They stand there once for each row group. That takes 10 us; walking a footer of 430
        columns takes 6 ms. Returns None where there are more or fewer: a name with dots of its
        own is not found, and statistics may hold what looks like a chunk.
        """
        names = self.paths[leaf].split(".")
        # Field 3 after field 2, a list; of so many; strings. With its first byte, no name in the
        # schema looks like it.
        sought = _list_of_names(names)
        found: list[tuple[Struct, Struct]] = []
        mistaken = 0
        place = self._content.find(sought)
        while place >= 0:
            place += len(sought)
            try:
                meta, end = read_struct(self._content, place, after_field=_META_PATH)
                # An encrypted column's key has a path too, and other fields after it.
                if all(isinstance(meta.get(field), int) for field in _NEEDED):
                    rest, end = read_struct(self._content, end, after_field=_CHUNK_META)
                    found.append((meta, rest))
            except ThriftError:
                mistaken += 1
                end = place
            if len(found) > self.num_row_groups or mistaken > MOST_MISTAKES:
                return None
            place = self._content.find(sought, end)
        return found if len(found) == self.num_row_groups else None

    def _walk_fields(self, leaf: int) -> list[tuple[Struct, Struct]]:
        if self._walked is None:
            if len(self._content) > WALKED_BYTES:
                raise FooterDamaged("the footer is not understood")
            try:
                footer, _ = read_struct(self._content)
                groups = footer.get(_FILE_ROW_GROUPS, [])
                self._walked = [group[_GROUP_COLUMNS] for group in groups]
            except (ThriftError, KeyError, TypeError, AttributeError) as error:
                raise FooterDamaged("the footer is not understood") from error
        try:
            chunks = [columns[leaf] for columns in self._walked]
            fields = [(chunk[_CHUNK_META], chunk) for chunk in chunks]
            if all(isinstance(meta[field], int) for meta, _ in fields for field in _NEEDED):
                return fields
        except (IndexError, KeyError, TypeError):
            pass
        raise FooterDamaged("the footer does not describe one of its columns")

    def _chunk(self, meta: Struct, rest: Struct) -> ChunkMetadata:
        dictionary = meta.get(_META_DICTIONARY)
        index = rest.get(_CHUNK_OFFSET_INDEX), rest.get(_CHUNK_OFFSET_INDEX_LENGTH)
        chunk = ChunkMetadata(
            codec=CODECS.get(meta[_META_CODEC]),
            num_values=meta[_META_VALUES],
            total_uncompressed_size=meta[_META_UNCOMPRESSED],
            total_compressed_size=meta[_META_COMPRESSED],
            data_page_offset=meta[_META_DATA_PAGE],
            dictionary_page_offset=dictionary if isinstance(dictionary, int) else None,
            offset_index=_range_below(self._pages_end, *index),
            is_encrypted=_CHUNK_CRYPTO in rest or _CHUNK_ENCRYPTED_META in rest,
        )
        end = chunk.start + chunk.total_compressed_size
        if not 0 <= chunk.start <= end <= self._pages_end or chunk.num_values < 0:
            raise FooterDamaged("a column lies outside of the file")
        return chunk


def _range_below(end: int, offset: Any, length: Any) -> tuple[int, int] | None:
    if not (isinstance(offset, int) and isinstance(length, int)):
        return None
    return (offset, length) if offset > 0 and 0 < length <= end - offset else None


def _list_of_names(names: list[str]) -> bytes:
    """Return ``path_in_schema`` as it stands in a chunk's metadata."""
    count = len(names)
    head = bytes([count << 4 | 8]) if count < 15 else b"\xf8" + write_varint(count)
    packed = (name.encode("utf-8", "surrogateescape") for name in names)
    return b"\x19" + head + b"".join(write_varint(len(name)) + name for name in packed)
