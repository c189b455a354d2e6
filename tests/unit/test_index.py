"""Indexes kept and loaded; what they find is in tests/property and tests/unit/test_reader.py."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cutout_api import index as index_module
from cutout_api import metrics
from cutout_api.index import (
    FileIndex,
    IndexCache,
    IndexStore,
    build_index,
    pack_index,
    unpack_index,
)
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import Archive, FileId

from ..samples import write, ztf_alert


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    write(tmp_path / "a.parquet", [ztf_alert(n) for n in range(40)])
    return Archive(Settings(archive=ArchiveSettings(uri=str(tmp_path))))


def test_a_stored_index_that_is_damaged_anywhere_is_as_if_it_were_not_there(
    archive: Archive,
) -> None:
    (file_id,) = archive.locate("a.parquet")
    with archive.open(file_id) as file:
        index = build_index(file)
        index.complete(file, blocks=True)
    packed = pack_index(index)
    assert unpack_index(packed) is not None
    for place in range(0, len(packed), 97):
        damaged = bytearray(packed)
        damaged[place] ^= 1
        assert unpack_index(bytes(damaged)) is None
    for length in range(0, len(packed), 97):
        assert unpack_index(packed[:length]) is None


@pytest.mark.parametrize("change", ["path", "size", "modified", "version"])
def test_an_index_of_another_version_is_refused(
    archive: Archive, tmp_path: Path, change: str
) -> None:
    (file_id,) = archive.locate("a.parquet")
    store = IndexStore(tmp_path / "kept", "here")
    with archive.open(file_id) as file:
        store.save(build_index(file))
    values = dict(vars(file_id))
    values[change] = values[change] + ("x" if isinstance(values[change], str) else 1)
    assert store.load(file_id) is not None
    assert store.load(FileId(**values)) is None


def test_a_folder_that_cannot_be_written_is_said_once_and_harms_nothing(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = IndexCache(1 << 20, IndexStore(tmp_path / "file", "here"))
    (file_id,) = archive.locate("a.parquet")
    with archive.open(file_id) as file:
        index = cache.get(file)
        cache.keep(index)
        cache.keep(index)
    assert len(caplog.records) == 1
    assert "cannot be stored" in caplog.text


def test_two_that_store_what_they_have_learnt_at_once_lose_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file_id,) = archive.locate("a.parquet")
    with archive.open(file_id) as file:
        nothing, pages, cells = (build_index(file) for _ in range(3))
        pages.complete(file, blocks=False)
        cells.complete(file, blocks=True)
    cells.tables.clear()
    store = IndexStore(tmp_path / "kept", "here")
    store.save(nothing)
    read, has_read, other_is_done = index_module._stored, threading.Event(), threading.Event()

    def read_and_wait(path: Path) -> FileIndex | None:
        content = read(path)
        if not has_read.is_set():
            has_read.set()
            other_is_done.wait(0.5)  # it cannot be, unless it did not wait for its turn
        return content

    monkeypatch.setattr(index_module, "_stored", read_and_wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.add, pages)
        assert has_read.wait(20)
        store.add(cells)
        other_is_done.set()
        first.result()
    stored = store.load(file_id)
    assert stored is not None
    assert (set(stored.tables), set(stored.cells)) == (set(pages.tables), set(cells.cells))


def test_a_stored_index_may_be_read_by_others_and_nothing_lies_beside_it(
    archive: Archive, tmp_path: Path
) -> None:
    (file_id,) = archive.locate("a.parquet")
    store = IndexStore(tmp_path / "kept", "here")
    before = os.umask(0o022)
    try:
        with archive.open(file_id) as file:
            index = build_index(file)
            store.save(index)
            (stored,) = (tmp_path / "kept").rglob("*.index")
            left = stored.with_name(f".{stored.name}.0.part")  # as of a process that was killed
            left.write_bytes(b"CUTOUTIX")
            os.utime(left, (0, 0))
            index.complete(file, blocks=False)
            IndexStore(tmp_path / "kept", "here").add(index)  # of a process that comes later
    finally:
        os.umask(before)
    assert stored.stat().st_mode & 0o777 == 0o644
    assert list(stored.parent.iterdir()) == [stored]


def test_after_a_build_that_failed_those_who_waited_build_one_at_a_time() -> None:
    cache = IndexCache(1 << 20, None)
    second_is_in, third_is_in, leave = (threading.Event() for _ in range(3))

    def enter(is_in: threading.Event) -> None:
        with cache._one_at_a_time("a"):
            is_in.set()
            leave.wait(20)

    with ThreadPoolExecutor(2) as pool:
        with suppress(KeyError), cache._one_at_a_time("a"):
            pool.submit(enter, second_is_in)
            assert not second_is_in.wait(0.2)
            raise KeyError
        try:
            assert second_is_in.wait(20)
            pool.submit(enter, third_is_in)
            assert not third_is_in.wait(0.2)
        finally:
            leave.set()
        assert third_is_in.wait(20)
    assert not cache._building


def test_look_ups_and_memory_are_counted_as_they_are(archive: Archive, tmp_path: Path) -> None:
    def counted(result: str) -> float:
        return float(metrics.CACHE.labels("stored indexes", result)._value.get())

    (file_id,) = archive.locate("a.parquet")
    hits, misses = counted("hit"), counted("miss")
    for _ in range(2):
        cache = IndexCache(1 << 20, IndexStore(tmp_path / "kept", "here"))
        with archive.open(file_id) as file:
            index = cache.get(file)
        assert metrics.INDEX_BYTES._value.get() == index.nbytes
    assert (counted("hit") - hits, counted("miss") - misses) == (1, 1)
    cache.forget(file_id.path)
    assert metrics.INDEX_BYTES._value.get() == 0


def test_archives_of_the_same_paths_do_not_share_an_index(archive: Archive, tmp_path: Path) -> None:
    (file_id,) = archive.locate("a.parquet")
    with archive.open(file_id) as file:
        IndexStore(tmp_path / "kept", "one").save(build_index(file))
    assert IndexStore(tmp_path / "kept", "one").load(file_id) is not None
    assert IndexStore(tmp_path / "kept", "other").load(file_id) is None


def test_an_index_is_small(archive: Archive, tmp_path: Path) -> None:
    rows = [ztf_alert(n, Science=b"s", Template=b"t", Difference=b"d") for n in range(2400)]
    write(tmp_path / "b.parquet", rows, row_group_size=2400, max_rows_per_page=100)
    (file_id,) = archive.locate("b.parquet")
    with archive.open(file_id) as file:
        index = build_index(file)
        assert index.nbytes < 125_000
        assert len(pack_index(index)) < 125_000
        index.complete(file, blocks=True)
        assert len(pack_index(index)) < 275_000  # 21 bytes a cell, 4 of them its CRC
