"""What a file says of itself is checked against what it points to: never a neighbour's stamp."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cutout_api import metrics
from cutout_api.errors import FileUnreadable
from cutout_api.index import FileIndex, StampColumn, build_index, pack_index, unpack_index
from cutout_api.pages import Chunk
from cutout_api.surveys import ZTF
from cutout_api.thrift import read_struct

from ..archive import opened
from ..samples import write, ztf_alert

Page = tuple[int, int, int]
"""Offset, size and first row, as an offset index tells them."""
PAGES, ROWS_EACH = 6, 20
ROWS = PAGES * ROWS_EACH
CELLS = [b"%03d" % number * (50 + number % 7) for number in range(ROWS)]


def write_file(path: Path, **layout: Any) -> Path:
    rows = [ztf_alert(n, Science=cell, shape=(1, 1)) for n, cell in enumerate(CELLS)]
    options = {"row_group_size": ROWS, "max_rows_per_page": ROWS_EACH, "write_page_index": True}
    return write(path, rows, **(options | layout))


def science(index: FileIndex) -> StampColumn:
    column = index.stamp_column(ZTF, "Science")
    assert column is not None
    return column


def chunk_of(path: Path) -> Chunk:
    with opened(path) as file:
        chunk = science(build_index(file)).chunks[0]
    assert chunk is not None
    return chunk


def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def integer(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def encode(pages: list[Page]) -> bytes:
    """Return an OffsetIndex in Thrift's compact protocol."""
    places = b"".join(
        b"\x16" + integer(offset) + b"\x15" + integer(size) + b"\x16" + integer(row) + b"\x00"
        for offset, size, row in pages
    )
    count = bytes([len(pages) << 4 | 12]) if len(pages) < 15 else b"\xfc" + varint(len(pages))
    return b"\x19" + count + places + b"\x00"


def pages_of(path: Path) -> list[Page]:
    offset, length = chunk_of(path).offset_index or (0, 0)
    index, _ = read_struct(path.read_bytes()[offset : offset + length])
    pages = [(page[1], page[2], page[3]) for page in index[1]]
    assert read_struct(encode(pages))[0][1] == [dict(zip((1, 2, 3), p, strict=True)) for p in pages]
    return pages


def lie(path: Path, pages: list[Page]) -> None:
    """Have the offset index of the Science stamps say other pages, in the bytes it has."""
    offset, length = chunk_of(path).offset_index or (0, 0)
    told = encode(pages)
    assert len(told) <= length
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = told.ljust(length, b"\0")
    path.write_bytes(content)


def stamps_of(path: Path) -> list[bytes | None]:
    """Return the stamps as pyarrow reads them: the independent path."""
    column = pq.read_table(path, columns=["cutoutScience"])["cutoutScience"].to_pylist()
    return [value and value["stampData"] for value in column]


def shift_one(pages: list[Page], number: int, by: int) -> list[Page]:
    return [(o, s, r + by if n == number else r) for n, (o, s, r) in enumerate(pages)]


def shift_from(pages: list[Page], number: int, by: int) -> list[Page]:
    return [(o, s, r + by if n >= number else r) for n, (o, s, r) in enumerate(pages)]


def resize(pages: list[Page], number: int, by: int) -> list[Page]:
    return [(o, s + by if n == number else s, r) for n, (o, s, r) in enumerate(pages)]


def move_border(pages: list[Page], number: int, by: int) -> list[Page]:
    """Have a page end, and the next one begin, elsewhere: the sizes still add up."""
    moved = resize(pages, number, by)
    if number + 1 < len(moved):
        offset, size, row = moved[number + 1]
        moved[number + 1] = (offset + by, size - by, row)
    return moved


def join(pages: list[Page], number: int, _by: int) -> list[Page]:
    """Tell two pages as one."""
    if number + 1 == len(pages):
        return pages
    (offset, size, row), (_, more, _) = pages[number : number + 2]
    return [*pages[:number], (offset, size + more, row), *pages[number + 2 :]]


def swap(pages: list[Page], number: int, _by: int) -> list[Page]:
    """Tell the places of two pages each as the other's."""
    other = (number + 1) % len(pages)
    told = list(pages)
    told[number] = (*pages[other][:2], pages[number][2])
    told[other] = (*pages[number][:2], pages[other][2])
    return told


def leave_out(pages: list[Page], number: int, _by: int) -> list[Page]:
    return [page for n, page in enumerate(pages) if n != number]


LIES: tuple[Callable[[list[Page], int, int], list[Page]], ...] = (
    shift_one,
    shift_from,
    resize,
    move_border,
    join,
    swap,
    leave_out,
)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_offset_index_that_is_one_row_off_gives_no_neighbours_stamp(
    tmp_path: Path, version: str
) -> None:
    path = write_file(tmp_path / "a.parquet", data_page_version=version)
    lie(path, shift_from(pages_of(path), 2, 1))
    assert stamps_of(path) == CELLS
    with opened(path) as file:
        for asked in range(0, ROWS, 7):
            index = build_index(file)
            assert index.read_stamp(file, science(index), asked) == CELLS[asked]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    folder = tmp_path_factory.mktemp("honest")
    return {
        (version, dictionary): write_file(
            folder / f"{version}-{dictionary}.parquet",
            data_page_version=version,
            use_dictionary=dictionary,
        )
        for version in ("1.0", "2.0")
        for dictionary in (False, True)
    }


@given(data=st.data())
@settings(max_examples=150)
def test_whatever_an_offset_index_says_the_stamps_are_pyarrows(
    tmp_path_factory: pytest.TempPathFactory,
    honest: dict[tuple[str, bool], Path],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.parquet"
    shutil.copyfile(honest[data.draw(st.sampled_from(sorted(honest)))], path)
    pages = pages_of(path)
    for _ in range(data.draw(st.integers(1, 3))):
        told = data.draw(st.sampled_from(LIES))
        assume(pages)
        number = data.draw(st.integers(0, len(pages) - 1))
        by = data.draw(st.sampled_from([-ROWS_EACH, -2, -1, 1, 2, ROWS_EACH]))
        pages = told(pages, number, by)
    assume(pages and len(encode(pages)) <= (chunk_of(path).offset_index or (0, 0))[1])
    lie(path, pages)
    rows = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4))
    with opened(path) as file:
        index = build_index(file)
        for row in rows:
            assert index.read_stamp(file, science(index), row) == CELLS[row]
        index = build_index(file)
        assert dict(index.read_stamps(file, science(index), rows)) == {
            row: CELLS[row] for row in rows
        }
        index.complete(file, blocks=True)
        assert index.cells
        for row in rows:
            assert index.read_stamp(file, science(index), row) == CELLS[row]


@pytest.mark.parametrize(
    ("changes", "page_index"),
    [
        *((changes, True) for changes in ({2: 1}, {2: -1}, {2: 1, 3: -1}, {1: -1, 4: 1})),
        *((changes, False) for changes in ({2: 1}, {2: -1})),
    ],
)
def test_headers_that_count_otherwise_than_their_pages_cost_an_error_not_a_neighbours_stamp(
    tmp_path: Path, changes: dict[int, int], page_index: bool
) -> None:
    path = write_file(tmp_path / "a.parquet", write_page_index=True)
    pages, chunk = pages_of(path), chunk_of(path)
    content = bytearray(path.read_bytes())
    for number, by in changes.items():
        place = content.index(b"\x2c\x15" + integer(ROWS_EACH), pages[number][0]) + 2
        content[place : place + 1] = integer(ROWS_EACH + by)
        header, _ = read_struct(bytes(content), pages[number][0])
        assert header[5][1] == ROWS_EACH + by
    path.write_bytes(content)
    right = 0
    with opened(path) as file:
        for row in range(ROWS):
            index = build_index(file)
            column = science(index)
            if not page_index:
                index.tables.clear()
                column = replace(column, chunks=(replace(chunk, offset_index=None),))
            with suppress(FileUnreadable):
                assert index.read_stamp(file, column, row) == CELLS[row]
                right += 1
    assert right < ROWS


@pytest.mark.parametrize(
    "place",
    [(-5, 100), (-(2**62), 2**62), (2**70, 10), (0, 0), (4, -1), (4, 2**40), (10**9, 100)],
)
def test_a_place_outside_the_file_is_a_hint_that_is_not_followed(
    tmp_path: Path, place: tuple[int, int]
) -> None:
    path = write_file(tmp_path / "a.parquet")
    chunk = replace(chunk_of(path), offset_index=place)
    with opened(path) as file:
        index = build_index(file)
        index.tables.clear()
        column = replace(science(index), chunks=(chunk,))
        for row in (0, 50, 119):
            assert index.read_stamp(file, column, row) == CELLS[row]


@pytest.mark.parametrize("start", [-5, -(2**62), 2**61])
@pytest.mark.parametrize("length", [-1, 0, 500, 2**62])
def test_a_column_outside_the_file_is_read_by_pyarrow_or_not_at_all(
    tmp_path: Path, start: int, length: int
) -> None:
    path = write_file(tmp_path / "a.parquet")
    chunk = replace(chunk_of(path), offset_index=None, start=start, length=length)
    with opened(path) as file:
        index = build_index(file)
        index.tables.clear()
        column = replace(science(index), chunks=(chunk,))
        assert index.read_stamp(file, column, 7) == CELLS[7]


@pytest.mark.parametrize("length", [-1, 0, 5])
def test_a_read_before_the_file_never_reaches_the_storage(tmp_path: Path, length: int) -> None:
    with opened(write_file(tmp_path / "a.parquet")) as file:
        reads = metrics.READS._value.get()
        with pytest.raises(FileUnreadable):
            file.read_at(length, -5)
        with pytest.raises(FileUnreadable):
            file.read_at(-1, 5)
        assert file.read_at(5, 10**12) == b""
        assert metrics.READS._value.get() == reads


# --- end to end: the CRC of each cell --------------------------------------------------------


def mapped(path: Path) -> FileIndex:
    with opened(path) as file:
        index = build_index(file)
        index.complete(file, blocks=True)
    loaded = unpack_index(pack_index(index))
    assert loaded is not None
    assert loaded.cells
    return loaded


def rewrite(path: Path, content: bytes) -> None:
    """Change a file so that its size and time do not tell."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_bytes_that_changed_after_the_file_was_mapped_are_an_error(
    tmp_path: Path, compression: str, dictionary: bool
) -> None:
    layout = {"compression": compression, "use_dictionary": dictionary}
    path = write_file(tmp_path / "a.parquet", **layout)
    index = mapped(path)
    # The same file of other stamps: every place fits, every page is whole.
    others = [ztf_alert(n, Science=CELLS[n][::-1], shape=(1, 1)) for n in range(ROWS)]
    other = write(
        tmp_path / "b.parquet",
        others,
        row_group_size=ROWS,
        max_rows_per_page=ROWS_EACH,
        write_page_index=True,
        **layout,
    )
    rewrite(path, other.read_bytes())
    palindromes = {row for row in range(ROWS) if CELLS[row] == CELLS[row][::-1]}
    with opened(path) as file:
        for row in range(ROWS):
            if row in palindromes:
                assert index.read_stamp(file, science(index), row) == CELLS[row]
            else:
                with pytest.raises(FileUnreadable, match="indexed"):
                    index.read_stamp(file, science(index), row)
        for row, cell in index.read_stamps(file, science(index), range(ROWS)):
            assert (cell == CELLS[row]) if row in palindromes else isinstance(cell, FileUnreadable)


def test_a_bit_that_fell_over_after_the_file_was_mapped_is_an_error(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.parquet", compression="none")
    index = mapped(path)
    cells = index.cells["cutoutScience.stampData", 0]
    content = bytearray(path.read_bytes())
    content[cells.body_offsets.item(1) + cells.cell_starts.item(25) + 3] ^= 4
    rewrite(path, bytes(content))
    with opened(path) as file:
        for row in range(ROWS):
            if row == 25:
                with pytest.raises(FileUnreadable):
                    index.read_stamp(file, science(index), row)
            else:
                assert index.read_stamp(file, science(index), row) == CELLS[row]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_map_that_took_one_row_for_another_is_not_believed(
    tmp_path: Path, compression: str
) -> None:
    path = write_file(tmp_path / "a.parquet", compression=compression)
    index = mapped(path)
    cells = index.cells["cutoutScience.stampData", 0]
    arrays = {
        name: array
        for name, array in vars(cells).items()
        if name.startswith("cell_") and name != "cell_checks"
    }
    for name, array in arrays.items():
        arrays[name] = changed = array.copy()
        changed[[25, 95]] = array[[95, 25]]
    index.cells["cutoutScience.stampData", 0] = replace(cells, **arrays)
    by_block = metrics.READ_BY.labels("block")
    with opened(path) as file:
        before = by_block._value.get()
        for row in (25, 95):
            with suppress(FileUnreadable):
                assert index.read_stamp(file, science(index), row) == CELLS[row]
        assert by_block._value.get() == before
        found = dict(index.read_stamps(file, science(index), [25, 26, 95]))
        assert found[26] == CELLS[26]
        assert all(
            found[row] in (CELLS[row], None) or isinstance(found[row], FileUnreadable)
            for row in (25, 95)
        )


def test_a_map_whose_blocks_are_elsewhere_is_made_good_by_the_page(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.parquet")
    index = mapped(path)
    cells = index.cells["cutoutScience.stampData", 0]
    wrong = replace(
        cells, cell_starts=np.roll(cells.cell_starts, 1), cell_offsets=cells.cell_offsets * 0 - 1
    )
    index.cells["cutoutScience.stampData", 0] = wrong
    with opened(path) as file:
        for row in range(ROWS):
            assert index.read_stamp(file, science(index), row) == CELLS[row]
        assert dict(index.read_stamps(file, science(index), range(ROWS))) == dict(enumerate(CELLS))


def test_pages_that_pyarrow_reads_otherwise_are_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a.parquet")
    real = FileIndex.complete.__globals__["map_cells"]

    def mistaken(*given: Any) -> Any:
        cells = real(*given)
        return replace(cells, cell_checks=np.roll(cells.cell_checks, 1))

    monkeypatch.setattr("cutout_api.index.map_cells", mistaken)
    with opened(path) as file:
        index = build_index(file)
        with pytest.raises(FileUnreadable, match="contradict"):
            index.complete(file, blocks=True)
    assert not index.cells
