"""Pages taken apart; what all kinds of files come to is in tests/property."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutout_api import metrics
from cutout_api.errors import FileUnreadable
from cutout_api.index import FileIndex, build_index
from cutout_api.pages import (
    MISTAKEN,
    SNAPPY_BLOCK,
    PageTable,
    confirm_pages,
    inflate,
    locate_pages,
    map_cells,
    open_page,
    read_cell,
    read_hybrid,
    split_snappy,
)
from cutout_api.storage import OpenFile
from cutout_api.surveys import ZTF
from cutout_api.thrift import ThriftError, ThriftShort, read_struct

from ..archive import opened
from ..samples import stored_fits, write, ztf_alert

ROWS = [ztf_alert(n) for n in range(60)]
STORED = [row["cutoutScience"]["stampData"] for row in ROWS]


def write_pages(path: Path, **layout: Any) -> Path:
    options = {"row_group_size": 60, "max_rows_per_page": 10} | layout
    return write(path, ROWS, **options)


def science(index: FileIndex) -> Any:
    column = index.stamp_column(ZTF, "Science")
    assert column is not None
    return column


def located(file: OpenFile, chunk: Any) -> PageTable:
    """Return where the pages are, all of them confirmed by their headers."""
    table = locate_pages(file, chunk)
    assert table is not None
    table = confirm_pages(file, chunk, table)
    assert table is not None
    return table


def test_walking_headers_finds_what_the_offset_index_says(tmp_path: Path) -> None:
    with opened(write_pages(tmp_path / "a.parquet", write_page_index=True)) as file:
        chunk = science(build_index(file)).chunks[0]
        indexed = locate_pages(file, chunk)
        walked = locate_pages(file, replace(chunk, offset_index=None))
    assert indexed is not None
    assert walked is not None
    assert len(indexed.offsets) == 6
    for one, other in (
        (indexed.offsets, walked.offsets),
        (indexed.sizes, walked.sizes),
        (indexed.first_rows, walked.first_rows),
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("place", ["elsewhere", "nowhere", "another column's"])
def test_an_offset_index_that_is_wrong_is_not_believed(tmp_path: Path, place: str) -> None:
    with opened(write_pages(tmp_path / "a.parquet", write_page_index=True)) as file:
        index = build_index(file)
        other = index.stamp_column(ZTF, "Template")
        assert other is not None
        wrong = {
            "elsewhere": (4, 200),
            "nowhere": (file.size - 3, 100),
            "another column's": other.chunks[0].offset_index,
        }[place]
        chunk = replace(science(index).chunks[0], offset_index=wrong)
        table = located(file, chunk)
        for number in range(60):
            assert read_cell(file, chunk, table, number) == (STORED[number],)


def test_a_damaged_page_costs_its_rows_alone(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.parquet", write_page_checksum=True)
    with opened(path) as file:
        table = located(file, science(build_index(file)).chunks[0])
    content = bytearray(path.read_bytes())
    content[int(table.offsets[2]) + 5_000] ^= 1
    path.write_bytes(content)
    with opened(path) as file:
        index = build_index(file)
        column = science(index)
        for number in range(60):
            if number // 10 == 2:
                with pytest.raises(FileUnreadable):
                    index.read_stamp(file, column, number)
            else:
                assert index.read_stamp(file, column, number) == STORED[number]


def test_a_header_that_cannot_be_read_leaves_the_pages_before_it(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.parquet")
    with opened(path) as file:
        table = located(file, science(build_index(file)).chunks[0])
    content = bytearray(path.read_bytes())
    start = int(table.offsets[4])
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    with opened(path) as file:
        index = build_index(file)
        column = science(index)
        for number in range(40):
            assert index.read_stamp(file, column, number) == STORED[number]
        with pytest.raises(FileUnreadable):
            index.read_stamp(file, column, 45)


def test_bytes_that_are_no_longer_those_mapped_are_noticed(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.parquet")
    with opened(path) as file:
        index = build_index(file)
        index.complete(file, blocks=True)
        cells = index.cells["cutoutScience.stampData", 0]
    content = bytearray(path.read_bytes())
    place = int(cells.body_offsets[0]) + int(cells.blocks[0])
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    with opened(path) as file, pytest.raises(FileUnreadable):
        index.read_stamp(file, science(index), 0)


def test_a_page_is_cut_anywhere_without_a_wrong_answer(tmp_path: Path) -> None:
    with opened(write_pages(tmp_path / "a.parquet")) as file:
        chunk = science(build_index(file)).chunks[0]
        table = located(file, chunk)
        stored = file.read_at(int(table.sizes[0]), int(table.offsets[0]))
    for length in [*range(0, 60), *range(60, len(stored), 997)]:
        with pytest.raises(MISTAKEN):
            open_page(stored[:length], chunk, 10, 1 << 30)


def test_a_map_agrees_with_the_cells_and_knows_every_block(tmp_path: Path) -> None:
    with opened(write_pages(tmp_path / "a.parquet")) as file:
        chunk = science(build_index(file)).chunks[0]
        table = located(file, chunk)
        cells = map_cells(file, chunk, table)
    assert cells is not None
    assert list(cells.cell_lengths) == [len(stored) for stored in STORED]
    blocks = np.diff(cells.first_blocks)
    assert list(blocks) == [-(-int(size) // SNAPPY_BLOCK) for size in cells.body_inflated]


# --- snappy ------------------------------------------------------------------------------------


def test_what_does_not_compress_is_read_byte_for_byte(tmp_path: Path) -> None:
    """A gzipped stamp stands in a snappy page as it is: in one piece, or in one a block."""
    cells = [np.random.default_rng(n).bytes(13_000 + n) for n in range(40)]
    path = write(
        tmp_path / "a.parquet",
        [{**ztf_alert(n), "cutoutScience": {"stampData": cell}} for n, cell in enumerate(cells)],
        row_group_size=40,
    )
    with opened(path) as file:
        index = build_index(file)
        index.complete(file, blocks=True)
        column = science(index)
        for row, cell in enumerate(cells):
            reads, size = metrics.READS._value.get(), metrics.BYTES_READ._value.get()
            assert index.read_stamp(file, column, row) == cell
            assert metrics.READS._value.get() == reads + 1
            assert metrics.BYTES_READ._value.get() - size <= len(cell) + 5
        (cells_map,) = (found for key, found in index.cells.items() if key[0] == column.name)
        assert (cells_map.cell_offsets >= 0).all()
        assert (cells_map.cell_gaps > 0).sum() == 40 * 13_000 // SNAPPY_BLOCK


def literal(content: bytes) -> bytes:
    length = len(content) - 1
    return bytes([61 << 2]) + length.to_bytes(2, "little") + content


def copy(length: int, back: int) -> bytes:
    return bytes([(length - 1) << 2 | 2]) + back.to_bytes(2, "little")


def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def test_blocks_of_the_common_library_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    for content in (
        rng.bytes(200_000),
        bytes(200_000),
        (b"a few words, " * 20_000)[:200_000],
        rng.integers(0, 4, 200_000, np.uint8).tobytes(),
    ):
        stored = pa.compress(content, codec="snappy", asbytes=True)
        starts = split_snappy(memoryview(stored), memoryview(content))
        assert starts is not None
        assert len(starts) == 4
        for number, start in enumerate(starts):
            end = [*starts, len(stored)][number + 1]
            block = content[number * SNAPPY_BLOCK : (number + 1) * SNAPPY_BLOCK]
            alone = varint(len(block)) + stored[start:end]
            assert bytes(inflate(alone, "snappy", len(block))) == block


def test_blocks_of_another_writer_are_proved_by_their_tags() -> None:
    first, second = b"a" * SNAPPY_BLOCK, b"b" * 1_000
    tags = literal(first[:100]) + b"".join(copy(60, 100) for _ in range((SNAPPY_BLOCK - 100) // 60))
    tags += literal(b"a" * ((SNAPPY_BLOCK - 100) % 60))
    stored = varint(len(first + second)) + tags + literal(second)
    assert pa.decompress(stored, len(first + second), codec="snappy").to_pybytes() == first + second
    starts = split_snappy(memoryview(stored), memoryview(first + second))
    assert starts == [3, 3 + len(tags)]


@pytest.mark.parametrize("how", ["copies from before it", "a tag across the border"])
def test_blocks_that_lean_on_each_other_are_not_split(how: str) -> None:
    first = np.random.default_rng(2).bytes(SNAPPY_BLOCK)
    second = first[-1_000:-940]
    if how == "copies from before it":
        tags = literal(first[:60_000]) + literal(first[60_000:]) + copy(60, 1_000)
    else:
        tags = literal(first[:60_000]) + literal(first[60_000:] + second)
    stored = varint(len(first + second)) + tags
    assert pa.decompress(stored, len(first + second), codec="snappy").to_pybytes() == first + second
    assert split_snappy(memoryview(stored), memoryview(first + second)) is None


def test_a_page_whose_blocks_cannot_be_told_apart_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(write_pages(tmp_path / "a.parquet")) as file:
        index = build_index(file)
        with monkeypatch.context() as patch:
            patch.setattr("cutout_api.pages.split_snappy", lambda *_: None)
            index.complete(file, blocks=True)
        before = metrics.READ_BY.labels("block")._value.get()
        for number, row in enumerate(ROWS):
            assert index.read_stamp(file, science(index), number) == STORED[number]
            assert stored_fits(row, "Science")
        assert metrics.READ_BY.labels("block")._value.get() == before + 60


@given(st.binary(max_size=300), st.integers(0, 400_000))
def test_noise_is_never_inflated_to_something(noise: bytes, size: int) -> None:
    for codec in ("snappy", "zstd", "gzip", "lz4", "lz4_raw"):
        with suppress(*MISTAKEN):
            assert len(inflate(noise, codec, size)) == size


# --- encodings ---------------------------------------------------------------------------------


@given(st.data())
def test_hybrid_runs_decode_to_what_was_encoded(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 20))
    numbers: list[int] = []
    encoded = b""
    for _ in range(data.draw(st.integers(1, 5))):
        value = st.integers(0, 2**width - 1)
        if data.draw(st.booleans()):
            count, one = data.draw(st.integers(1, 300)), data.draw(value)
            encoded += varint(count << 1) + one.to_bytes((width + 7) // 8, "little")
            numbers += [one] * count
        else:
            run = data.draw(st.lists(value, min_size=8, max_size=8))
            bits = sum(number << place * width for place, number in enumerate(run))
            encoded += varint(1 << 1 | 1) + bits.to_bytes(width, "little")
            numbers += run
    found = read_hybrid(memoryview(encoded), width, len(numbers))
    assert list(found) == numbers


@given(st.binary(max_size=200))
def test_noise_is_never_taken_for_a_struct_without_end(noise: bytes) -> None:
    try:
        _, end = read_struct(noise)
    except ThriftError:
        return
    assert end <= len(noise)


def test_a_struct_that_is_cut_short_says_so() -> None:
    whole = bytes([0x15, 0x02, 0x19, 0x25, 0x04, 0x06, 0x18, 0x03]) + b"abc" + bytes([0x00])
    fields, end = read_struct(whole)
    assert fields == {1: 1, 2: [2, 3], 3: b"abc"}
    assert end == len(whole)
    for length in range(len(whole)):
        with pytest.raises(ThriftShort):
            read_struct(whole[:length])
