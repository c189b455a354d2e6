"""A small file that inflates to a large one is refused before anything of that size is made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutout_api.errors import FileUnreadable, StampTooLarge
from cutout_api.index import FileIndex, StampColumn, build_index
from cutout_api.pages import MISTAKEN, inflate
from cutout_api.surveys import ZTF
from cutout_api.thrift import read_struct

from ..archive import opened
from ..samples import ZTF_SCHEMA, ztf_alert

CODECS = ("zstd", "gzip", "brotli", "snappy", "lz4")
MEGABYTE = 1 << 20
BOMB = 200 * MEGABYTE
GROWTH = 60 * MEGABYTE
STAMP = "cutoutScience.stampData"

# In a process of its own, whose memory has not been large before.
READ = """
import sys
from cutout_api.errors import StoredDataError
from cutout_api.index import build_index
from cutout_api.settings import Archive as ArchiveSettings, Settings
from cutout_api.storage import Archive
from cutout_api.surveys import ZTF
from pathlib import Path
import json

def peak():
    (line,) = [l for l in open("/proc/self/status") if l.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

def ways(file):
    index = build_index(file)
    column = index.stamp_column(ZTF, "Science")
    yield "one", lambda: index.read_stamp(file, column, 1)
    yield "many", lambda: dict(index.read_stamps(file, column, [0, 1]))[1]
    yield "ahead", lambda: index.complete(file, blocks=True)

folder = Path(sys.argv[1])
archive = Archive(Settings(archive=ArchiveSettings(uri=str(folder))))
found, before = {}, 0
for path in sorted(folder.iterdir()):
    (file_id,) = archive.locate(path.name)
    with archive.open(file_id) as file:
        try:
            todo = list(ways(file))
        except StoredDataError as error:
            todo, found[path.name] = [], error.code
        before = before or peak()
        for name, read in todo:
            try:
                given = read()
            except StoredDataError as error:
                given = error
            code = given.code if isinstance(given, StoredDataError) else str(type(given))
            found[path.name + " " + name] = code
print(json.dumps([found, peak() - before]))
"""


def write_bomb(path: Path, size: int, **layout: Any) -> Path:
    rows = [ztf_alert(0, shape=(1, 1)), ztf_alert(1, Science=bytes(size), shape=(1, 1))]
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA)
    pq.write_table(table, path, **({"use_dictionary": False, "compression": "zstd"} | layout))
    return path


def science(index: FileIndex) -> StampColumn:
    column = index.stamp_column(ZTF, "Science")
    assert column is not None
    return column


LAYOUTS: dict[str, dict[str, Any]] = {
    **{codec: {"compression": codec} for codec in CODECS},
    "v2": {"data_page_version": "2.0"},
    "dictionary": {"use_dictionary": [STAMP], "dictionary_pagesize_limit": 1 << 30},
    "delta": {"column_encoding": {STAMP: "DELTA_BYTE_ARRAY"}},
    "delta lengths": {"column_encoding": {STAMP: "DELTA_LENGTH_BYTE_ARRAY"}},
}


def test_a_page_that_inflates_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    for name, layout in LAYOUTS.items():
        write_bomb(tmp_path / f"{name}.parquet", BOMB, **layout)
    names = pa.table({"objectId": ["a", "b" * BOMB], "candid": [1, 2], "cutoutScience": [b"", b""]})
    pq.write_table(names, tmp_path / "names.parquet", compression="zstd", use_dictionary=False)
    ended = subprocess.run(
        [sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    found, growth = json.loads(ended.stdout)
    assert found.pop("names.parquet") == "file_unreadable"
    assert set(found.values()) == {"stamp_too_large"}
    assert len(found) == 3 * len(LAYOUTS)
    assert growth < GROWTH


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_just_within_the_limit_is_read(tmp_path: Path, name: str) -> None:
    path = write_bomb(tmp_path / "a.parquet", MEGABYTE, **LAYOUTS[name])
    for page_bytes, is_read in ((MEGABYTE, False), (3 * MEGABYTE, True)):
        with opened(path, page_bytes=page_bytes) as file:
            index = build_index(file)
            if is_read:
                assert index.read_stamp(file, science(index), 1) == bytes(MEGABYTE)
                index.complete(file, blocks=True)
                assert index.read_stamp(file, science(index), 1) == bytes(MEGABYTE)
            else:
                with pytest.raises(StampTooLarge):
                    index.read_stamp(file, science(index), 1)


def test_large_stamps_beside_each_other_are_read_where_each_page_is_small(tmp_path: Path) -> None:
    """Together they are more than the limit: it is of a page, not of a column."""
    cells = [bytes([n]) * 300_000 for n in range(12)]
    rows = [ztf_alert(n, Science=cell, shape=(1, 1)) for n, cell in enumerate(cells)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows, ZTF_SCHEMA),
        path,
        column_encoding={STAMP: "DELTA_BYTE_ARRAY"},
        use_dictionary=False,
        max_rows_per_page=2,
    )
    with opened(path, page_bytes=MEGABYTE) as file:
        index = build_index(file)
        for row, cell in enumerate(cells):
            assert index.read_stamp(file, science(index), row) == cell
        assert dict(index.read_stamps(file, science(index), range(12))) == dict(enumerate(cells))


@pytest.mark.parametrize("codec", CODECS)
def test_a_page_that_inflates_to_more_than_it_says_is_an_error(tmp_path: Path, codec: str) -> None:
    path = write_bomb(tmp_path / "a.parquet", 5 * MEGABYTE, compression=codec)
    column = pq.read_metadata(path).row_group(0)
    (leaf,) = [n for n in range(column.num_columns) if column.column(n).path_in_schema == STAMP]
    start = column.column(leaf).data_page_offset
    content = bytearray(path.read_bytes())
    header, _ = read_struct(bytes(content), start)
    # Field 2, after field 1 of one byte: an inflated size of as many bytes, and far less.
    assert content[start + 2] == 0x15
    place = start + 3
    while content[place] >= 128:
        content[place] = 0x80
        place += 1
    content[place] = 1
    said, _ = read_struct(bytes(content), start)
    assert said[2] < header[2] / 4
    assert said[3] == header[3]
    path.write_bytes(content)
    with opened(path, page_bytes=4 * MEGABYTE) as file:
        index = build_index(file)
        with pytest.raises(FileUnreadable):
            index.read_stamp(file, science(index), 1)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "brotli", "snappy", "lz4_raw"])
def test_nothing_inflates_to_another_size_than_was_asked(codec: str) -> None:
    stored = pa.compress(bytes(MEGABYTE), codec=codec, asbytes=True)
    for size in (0, 1, 1000, MEGABYTE - 1, MEGABYTE + 1):
        with pytest.raises(MISTAKEN):
            inflate(stored, codec, size)
    assert bytes(inflate(stored, codec, MEGABYTE)) == bytes(MEGABYTE)


@pytest.mark.parametrize("rows", [1 << 22, (1 << 22) + 1])
def test_a_file_of_more_rows_than_an_index_can_hold_is_refused(tmp_path: Path, rows: int) -> None:
    """A run of one value takes a few bytes, however many rows it is of."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"ra": pa.nulls(rows, pa.float64())}), path)
    assert path.stat().st_size < 10_000
    with opened(path, page_bytes=1 << 30) as file:
        if rows > 1 << 22:
            with pytest.raises(FileUnreadable, match="rows"):
                build_index(file)
        else:
            assert build_index(file).row_groups[-1] == rows
