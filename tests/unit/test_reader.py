"""What is read for a request, what happens when the storage is slow, and when files change."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutout_api import metrics
from cutout_api.errors import (
    AlertNotFound,
    CutoutError,
    DeadlineExceeded,
    FileUnreadable,
    Saturated,
)
from cutout_api.reader import Alert, Reader
from cutout_api.request import parse_request
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Index, Limits, Settings

from ..samples import KINDS, ZTF_SCHEMA, pixels, stored_fits, write, ztf_alert, ztf_fits


@contextmanager
def open_reader(archive: Path, folder: str = "", **limits: float) -> Iterator[Reader]:
    reader = Reader(
        Settings(
            archive=ArchiveSettings(uri=str(archive)),
            index=Index(folder=folder),
            limits=Limits(**limits),  # type: ignore[arg-type]
        )
    )
    yield reader
    reader.close()


def ask(reader: Reader, path: str, **asked: Any) -> Alert:
    asked = {"objectId": "ZTF24aaaaaaa", "kind": "Science"} | asked
    return reader.read(parse_request({"hdfsPath": path, **asked}))


@dataclass
class Count:
    """What was read while a test looked."""

    reads: int = 0
    bytes: int = 0


@contextmanager
def counted() -> Iterator[Count]:
    count = Count()
    reads, read = metrics.READS._value.get(), metrics.BYTES_READ._value.get()
    yield count
    count.reads = int(metrics.READS._value.get() - reads)
    count.bytes = int(metrics.BYTES_READ._value.get() - read)


def write_large(path: Path, **layout: Any) -> list[dict[str, Any]]:
    """Write 400 alerts in pages of 100, as Spark does: some 1.4 MB a page."""
    rows = [ztf_alert(n) for n in range(400)]
    options = {"row_group_size": 400, "max_rows_per_page": 100} | layout
    write(path, rows, **options)
    return rows


def index_ahead(reader: Reader, path: str) -> None:
    (file_id,) = reader.archive.locate(path)
    reader.learn(file_id, blocks=True)


PAGE_BYTES = 1_500_000


@pytest.mark.parametrize("page_index", [True, False])
def test_a_warm_stamp_is_one_read_of_one_page(tmp_path: Path, page_index: bool) -> None:
    rows = write_large(tmp_path / "a.parquet", write_page_index=page_index)
    with open_reader(tmp_path) as reader:
        ask(reader, "a.parquet", candid=rows[399]["candid"])
        for number in (0, 99, 100, 250, 399):
            with counted() as count:
                alert = ask(reader, "a.parquet", candid=rows[number]["candid"])
            assert alert.stamps[0].fits == stored_fits(rows[number], "Science")
            assert count.reads == 1
            assert count.bytes < PAGE_BYTES


def test_all_three_stamps_are_three_reads(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    with open_reader(tmp_path) as reader:
        ask(reader, "a.parquet", kind="All")
        with counted() as count:
            alert = ask(reader, "a.parquet", kind="All", candid=rows[150]["candid"])
        assert [stamp.fits for stamp in alert.stamps] == [
            stored_fits(rows[150], kind) for kind in KINDS
        ]
        assert count.reads == 3


def test_with_the_blocks_known_a_stamp_is_one_read_of_a_few_blocks(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    with open_reader(tmp_path) as reader:
        index_ahead(reader, "a.parquet")
        for number in range(0, 400, 7):
            with counted() as count:
                alert = ask(reader, "a.parquet", candid=rows[number]["candid"])
            assert alert.stamps[0].fits == stored_fits(rows[number], "Science")
            assert count.reads == 1
            assert count.bytes <= 2 * 70_000


def test_uncompressed_stamps_with_their_cells_known_are_read_to_the_byte(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet", compression="none")
    with open_reader(tmp_path) as reader:
        index_ahead(reader, "a.parquet")
        with counted() as count:
            ask(reader, "a.parquet", candid=rows[3]["candid"])
        assert count.bytes == len(rows[3]["cutoutScience"]["stampData"])


def test_a_dictionary_with_its_cells_known_costs_no_more(tmp_path: Path) -> None:
    rows = write_large(
        tmp_path / "a.parquet", use_dictionary=True, dictionary_pagesize_limit=1 << 30
    )
    with open_reader(tmp_path) as reader:
        index_ahead(reader, "a.parquet")
        with counted() as count:
            alert = ask(reader, "a.parquet", candid=rows[250]["candid"])
        assert alert.stamps[0].fits == stored_fits(rows[250], "Science")
        assert (count.reads, count.bytes <= 2 * 70_000) == (1, True)


def test_a_file_never_seen_costs_its_end_its_keys_and_a_page(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "indexed.parquet", write_page_index=True)
    write_large(tmp_path / "plain.parquet")
    for name, walked in (("indexed.parquet", 0), ("plain.parquet", 4)):
        with open_reader(tmp_path) as reader, counted() as count:
            ask(reader, name, candid=rows[150]["candid"])
        # The end of the file, three key columns, a header for each page, and the page.
        assert count.reads <= 1 + 3 + walked + 1
        assert count.bytes < 262_144 + 100_000 + PAGE_BYTES


def test_a_stored_index_saves_all_but_the_stamp(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    kept = str(tmp_path / "kept")
    with open_reader(tmp_path, folder=kept) as reader:
        ask(reader, "a.parquet", candid=rows[150]["candid"])
    with open_reader(tmp_path, folder=kept) as reader:  # as another process
        with counted() as count:
            alert = ask(reader, "a.parquet", candid=rows[250]["candid"])
        assert alert.stamps[0].fits == stored_fits(rows[250], "Science")
        assert count.reads == 1


def test_a_stored_index_of_another_version_is_not_used(tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    for turn in range(3):
        rows = [ztf_alert(10 * turn + n) for n in range(4 + turn)]
        write(tmp_path / "a.parquet", rows)
        with open_reader(tmp_path, folder=kept) as reader:
            alert = ask(reader, "a.parquet")
        assert alert.alert_id == rows[-1]["candid"]
        assert alert.stamps[0].fits == stored_fits(rows[-1], "Science")


def test_what_is_indexed_ahead_is_kept_and_used_by_those_who_know_the_file(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    kept = str(tmp_path / "kept")
    with open_reader(tmp_path, folder=kept) as worker:
        ask(worker, "a.parquet")
        with open_reader(tmp_path, folder=kept) as indexer:  # as another process
            index_ahead(indexer, "a.parquet")
        ask(worker, "a.parquet", kind="Template")  # whose pages the worker has to look for
        with open_reader(tmp_path, folder=kept) as later:
            for reader in (worker, later):
                for kind in KINDS:
                    with counted() as count:
                        ask(reader, "a.parquet", kind=kind, candid=rows[250]["candid"])
                    assert (count.reads, count.bytes <= 2 * 70_000) == (1, True)


def test_workers_keep_what_each_other_has_learnt(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    kept = str(tmp_path / "kept")
    with (
        open_reader(tmp_path, folder=kept) as one,
        open_reader(tmp_path, folder=kept) as other,
    ):
        for reader in (one, other):
            ask(reader, "a.parquet", kind="Science")
        ask(one, "a.parquet", kind="Template")
        ask(other, "a.parquet", kind="Difference")
    with open_reader(tmp_path, folder=kept) as third, counted() as count:
        ask(third, "a.parquet", kind="All", candid=rows[250]["candid"])
    assert count.reads == 3


def test_what_was_learnt_of_an_old_version_does_not_replace_the_new(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [ztf_alert(n) for n in range(8)])
    kept = str(tmp_path / "kept")
    with open_reader(tmp_path, folder=kept) as late, open_reader(tmp_path, folder=kept) as reader:
        ask(late, "a.parquet")
        (old,) = late.archive.locate("a.parquet")
        with late.opened(old) as file:
            index = late.index_of(file)
            index.complete(file, blocks=False)
        write(tmp_path / "b.parquet", [ztf_alert(n) for n in range(20, 28)])
        (tmp_path / "b.parquet").rename(path)
        ask(reader, "a.parquet", kind="All")
        late.keep(index)  # its own is at hand still, the new one is stored
        ask(late, "a.parquet", kind="All")
        late.keep(index)  # the new one is at hand too
        (new,) = late.archive.locate("a.parquet")
        with late.opened(new) as file:
            before = late.index_of(file)
            late.keep(index)
            assert late.index_of(file) is before
    with open_reader(tmp_path, folder=kept) as third, counted() as count:
        ask(third, "a.parquet", kind="All")
    assert count.reads == 3


def test_nothing_is_stored_again_unless_there_is_something_new(tmp_path: Path) -> None:
    write_large(tmp_path / "a.parquet")
    kept = tmp_path / "kept"
    with open_reader(tmp_path, folder=str(kept)) as worker:
        ask(worker, "a.parquet")
        with open_reader(tmp_path, folder=str(kept)) as indexer:
            index_ahead(indexer, "a.parquet")
        (stored,) = kept.rglob("*.index")
        inode = stored.stat().st_ino
        ask(worker, "a.parquet", kind="All")
        assert stored.stat().st_ino == inode


def test_many_threads_that_meet_a_new_file_build_its_index_once(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    with (
        open_reader(tmp_path, concurrent_reads=32, queue_seconds=30) as reader,
        ThreadPoolExecutor(32) as pool,
        counted() as count,
    ):
        numbers = [11 * n % 400 for n in range(32)]
        alerts = list(
            pool.map(lambda n: ask(reader, "a.parquet", candid=rows[n]["candid"]), numbers)
        )
    for number, alert in zip(numbers, alerts, strict=True):
        assert alert.stamps[0].fits == stored_fits(rows[number], "Science")
    assert count.reads <= 1 + 3 + 4 + 32


def test_what_is_known_of_files_is_bounded_in_bytes(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"{number}.parquet", [ztf_alert(10 * number + n) for n in range(8)])
    with open_reader(tmp_path, index_bytes=70_000, open_files=8) as reader:
        for _ in range(2):
            for number in range(40):
                expected = ztf_alert(10 * number + 7)["candid"]
                assert ask(reader, f"{number}.parquet").alert_id == expected
                assert metrics.INDEX_BYTES._value.get() <= 70_000
        assert metrics.INDEX_BYTES._value.get() > 30_000


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    old, new = [ztf_alert(n) for n in range(8)], [ztf_alert(n) for n in range(20, 28)]
    path = write(tmp_path / "a.parquet", old)
    with open_reader(tmp_path) as reader:
        assert ask(reader, "a.parquet").alert_id == old[-1]["candid"]
        write(tmp_path / "b.parquet", new)
        (tmp_path / "b.parquet").rename(path)
        assert ask(reader, "a.parquet").alert_id == new[-1]["candid"]
        with pytest.raises(AlertNotFound):
            ask(reader, "a.parquet", candid=old[0]["candid"])
        path.unlink()
        with pytest.raises(CutoutError, match=r"there is no 'a\.parquet'"):
            ask(reader, "a.parquet")


@pytest.mark.parametrize("alike", [False, True], ids=["layouts differ", "same layout and size"])
def test_files_replaced_all_the_time_never_give_a_wrong_stamp(tmp_path: Path, alike: bool) -> None:
    versions = [[small_alert(100 * v + n) for n in range(9)] for v in range(4)]
    expected = {row["candid"]: stored_fits(row, "Science") for rows in versions for row in rows}
    for number, rows in enumerate(versions):
        turned = rows if alike else rows[number:] + rows[:number]
        size = 3 if alike else 2 + number
        write(tmp_path / f"{number}.new", turned, row_group_size=size, compression="none")
    contents = [(tmp_path / f"{number}.new").read_bytes() for number in range(4)]
    path = tmp_path / "a.parquet"
    path.write_bytes(contents[0])
    stop = threading.Event()

    def rewrite() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            if turn % 2:  # as HDFS and careful writers do
                (tmp_path / "moved").write_bytes(contents[turn % 4])
                (tmp_path / "moved").rename(path)
            else:  # as careless ones do
                path.write_bytes(contents[turn % 4])
            time.sleep(0.002)

    writer = threading.Thread(target=rewrite)
    writer.start()
    answers = refused = 0
    try:
        with open_reader(tmp_path) as reader:
            end = time.monotonic() + 60
            while time.monotonic() < end and answers < 400:
                try:
                    alert = ask(reader, "a.parquet")
                except CutoutError as error:
                    assert error.status in (502, 503, 404), error
                    refused += 1
                else:
                    assert alert.stamps[0].fits == expected[alert.alert_id]
                    answers += 1
    finally:
        stop.set()
        writer.join()
    assert answers > 20, (answers, refused)


def small_alert(number: int) -> dict[str, Any]:
    """Return an alert whose Science stamp has the same size as all others'."""
    return ztf_alert(number, Science=ztf_fits(pixels(number, (9, 9))))


def test_a_file_replaced_between_finding_and_reading_is_found_anew(tmp_path: Path) -> None:
    old, new = [small_alert(n) for n in range(4)], [small_alert(40 + n) for n in range(4)]
    write(tmp_path / "b.parquet", new, compression="none")
    path = write(tmp_path / "a.parquet", old, compression="none")
    with open_reader(tmp_path, open_files=1) as reader:
        find = reader._find

        def find_then_replace(request: Any) -> Any:
            found = find(request)
            if (tmp_path / "b.parquet").exists():
                (tmp_path / "b.parquet").rename(path)
                reader.archive._forget(str(path))  # the handle is gone, as when many files are open
            return found

        reader._find = find_then_replace  # type: ignore[method-assign]
        alert = ask(reader, "a.parquet")
    assert alert.alert_id == new[-1]["candid"]
    assert alert.stamps[0].fits == stored_fits(new[-1], "Science")


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with open_reader(tmp_path) as reader:
        for turn in range(3):
            row = small_alert(turn)
            write(tmp_path / "new", [row], compression="none")
            if turn % 2:
                path.write_bytes((tmp_path / "new").read_bytes())
            else:
                (tmp_path / "new").rename(path)
            os.utime(path, ns=(10**18, 10**18))
            alert = ask(reader, "a.parquet")
            assert alert.alert_id == row["candid"]
            assert alert.stamps[0].fits == stored_fits(row, "Science")


def test_a_file_of_a_folder_that_goes_away_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path / "n" / "a.parquet", [ztf_alert(1)])
    gone = write(tmp_path / "n" / "b.parquet", [ztf_alert(2)])
    with open_reader(tmp_path) as reader:
        locate = reader.archive.locate

        def locate_then_delete(path: str) -> Any:
            found = locate(path)
            gone.unlink(missing_ok=True)
            return found

        reader.archive.locate = locate_then_delete  # type: ignore[method-assign]
        assert ask(reader, "n").alert_id == ztf_alert(1)["candid"]


def test_of_a_repeated_alert_the_one_written_last_is_taken(tmp_path: Path) -> None:
    repeated = [ztf_alert(1, Science=ztf_fits(pixels(n))) for n in range(4)]
    write(tmp_path / "one.parquet", repeated)
    write(tmp_path / "three.parquet", repeated, row_group_size=1)
    for number in range(3):
        name = f"{'cab'[number]}.parquet"
        write(tmp_path / "n" / name, [repeated[number]])
        os.utime(tmp_path / "n" / name, ns=(number, number))
    with open_reader(tmp_path) as reader:
        for keys in ({}, {"candid": repeated[0]["candid"]}):
            for path, expected in (("one.parquet", 3), ("three.parquet", 3), ("n", 2)):
                alert = ask(reader, path, **keys)
                assert alert.stamps[0].fits == stored_fits(repeated[expected], "Science")


def test_of_a_repeated_alert_the_file_with_the_asked_kind_is_taken(tmp_path: Path) -> None:
    row = ztf_alert(1)
    write(tmp_path / "a.parquet", [row])
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    schema = pa.schema([f for f in ZTF_SCHEMA if f.name != "cutoutTemplate"])
    write(tmp_path / "b.parquet", [row], schema)
    with open_reader(tmp_path) as reader:
        for keys in ({}, {"candid": row["candid"]}):
            alert = ask(reader, ".", kind="Template", **keys)
            assert alert.stamps[0].fits == stored_fits(row, "Template")


TEXTS = (pa.string_view(), pa.binary_view())


@pytest.mark.parametrize(
    "column_type", [*TEXTS, pa.decimal128(20, 0), pa.date32(), pa.timestamp("us")], ids=str
)
def test_odd_types_of_ids_are_answered_in_words(tmp_path: Path, column_type: pa.DataType) -> None:
    row = ztf_alert(1)
    texts = pa.array(["7", None, "x"])
    ids = texts.cast(column_type) if column_type in TEXTS else pa.nulls(3, column_type)
    names = pa.array([row["objectId"]] * 3)
    stamps = pa.array([row["cutoutScience"]] * 3, ZTF_SCHEMA.field("cutoutScience").type)
    table = pa.table({"candid": ids, "objectId": names, "cutoutScience": stamps})
    pq.write_table(table, tmp_path / "a.parquet")
    with open_reader(tmp_path) as reader:
        if column_type in TEXTS:
            asked = {"objectId": None, "candid": 7}
            assert ask(reader, "a.parquet", **asked).alert_id == 7
        else:
            with pytest.raises(AlertNotFound):
                ask(reader, "a.parquet", candid=7)
        assert ask(reader, "a.parquet").stamps[0].fits == stored_fits(row, "Science")


def test_a_file_without_ids_of_alerts_names_none(tmp_path: Path) -> None:
    schema = pa.schema([f for f in ZTF_SCHEMA if f.name != "candid"])
    write(tmp_path / "a.parquet", [ztf_alert(1)], schema)
    with open_reader(tmp_path) as reader:
        assert ask(reader, "a.parquet").alert_id is None


def test_names_with_dots_of_their_own_are_read(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(5)]
    table = pa.Table.from_pylist(rows, ZTF_SCHEMA).flatten()
    assert "cutoutScience.stampData" in table.column_names
    pq.write_table(table, tmp_path / "a.parquet")
    with open_reader(tmp_path) as reader:
        alert = ask(reader, "a.parquet")
        assert alert.alert_id == rows[-1]["candid"]
        assert alert.stamps[0].fits == stored_fits(rows[-1], "Science")


class Slow:
    """The driver of a reader, each read of which takes its time."""

    def __init__(self, driver: Any, wait: Callable[[], object]) -> None:
        self._driver, self._wait = driver, wait
        self.status, self.list_folder = driver.status, driver.list_folder

    def open(self, path: str) -> Any:
        raw, wait = self._driver.open(path), self._wait

        class File:
            def read_at(self, length: int, offset: int) -> bytes:
                wait()
                return bytes(raw.read_at(length, offset))

            def close(self) -> None:
                raw.close()

        return File()


def slow_down(reader: Reader, wait: Callable[[], object]) -> None:
    reader.archive._driver = Slow(reader.archive.driver, wait)


def test_the_three_stamps_are_read_at_the_same_time(tmp_path: Path) -> None:
    rows = write_large(tmp_path / "a.parquet")
    with open_reader(tmp_path) as reader:
        ask(reader, "a.parquet", kind="All")  # what is known of the file is known
        together = threading.Barrier(3, timeout=20)  # breaks unless three reads meet in it
        slow_down(reader, together.wait)
        reader.archive._open.clear()  # so that the file is opened through the slow driver
        alert = ask(reader, "a.parquet", kind="All", candid=rows[7]["candid"])
    assert [stamp.fits for stamp in alert.stamps] == [stored_fits(rows[7], kind) for kind in KINDS]


def test_a_file_is_not_given_back_while_a_stamp_of_it_is_still_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [ztf_alert(0)], write_page_index=True)
    content = bytearray(path.read_bytes())
    columns = pq.read_metadata(path).row_group(0)
    places = [columns.column(n) for n in range(columns.num_columns)]
    page = next(it for it in places if it.path_in_schema == "cutoutScience.stampData")
    content[page.data_page_offset : page.data_page_offset + 60] = bytes(60)
    path.write_bytes(content)
    released = threading.Event()
    with open_reader(tmp_path) as reader, ThreadPoolExecutor(1) as pool:
        # The other two stamps are read by threads of their own.
        slow_down(reader, lambda: "cells" in threading.current_thread().name and released.wait(30))
        asked = pool.submit(ask, reader, "a.parquet", kind="All")
        try:
            assert not wait([asked], timeout=0.5).done
            (file,) = reader.archive._open.values()
            assert file.users == 1
        finally:
            released.set()
        with pytest.raises(FileUnreadable):
            asked.result()


def test_a_read_past_the_deadline_is_told_so_in_time(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(0)])
    released = threading.Event()
    with open_reader(tmp_path, deadline_seconds=0.2) as reader:
        slow_down(reader, lambda: released.wait(30))
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            ask(reader, "a.parquet")
        assert time.monotonic() - start < 10
        released.set()
        assert ask_until(reader).alert_id == ztf_alert(0)["candid"]


def ask_until(reader: Reader) -> Alert:
    for _ in range(50):
        try:
            return ask(reader, "a.parquet")
        except CutoutError:
            time.sleep(0.1)
    raise AssertionError("the reader did not recover")


def test_reads_beyond_the_limit_are_refused_and_the_places_come_back(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(0)])
    released = threading.Event()
    with open_reader(tmp_path, concurrent_reads=2, queue_seconds=0.05) as reader:
        slow_down(reader, lambda: released.wait(30))
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(ask, reader, "a.parquet") for _ in range(2)]
            while reader._slots._value:
                time.sleep(0.01)
            with pytest.raises(Saturated):
                ask(reader, "a.parquet")
            released.set()
            for future in running:
                assert future.result().alert_id == ztf_alert(0)["candid"]
        assert ask_until(reader).alert_id == ztf_alert(0)["candid"]
        end = time.monotonic() + 10  # an answer is there a moment before its place is free
        while reader._slots._value < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert reader._slots._value == 2


def test_a_read_that_is_given_up_keeps_its_place_until_it_ends(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(0)])
    begun, released = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        released.wait(30)

    with open_reader(
        tmp_path, concurrent_reads=1, queue_seconds=0.05, deadline_seconds=1
    ) as reader:
        slow_down(reader, wait)
        with pytest.raises(DeadlineExceeded):
            ask(reader, "a.parquet")
        assert begun.is_set()  # what has not begun is taken back, and keeps no place
        with pytest.raises(Saturated):
            ask(reader, "a.parquet")
        released.set()
        assert ask_until(reader).alert_id == ztf_alert(0)["candid"]


def test_a_thread_that_cannot_be_started_costs_no_place(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(0)])
    with open_reader(tmp_path, concurrent_reads=1, queue_seconds=3) as reader:
        before = threading.stack_size(1 << 47)  # more than there are addresses
        try:
            with pytest.raises(RuntimeError, match="start new thread"):
                ask(reader, "a.parquet")
        finally:
            threading.stack_size(before)
        for _ in range(3):  # what was refused is done too, in a thread of a later one
            assert ask(reader, "a.parquet").alert_id == ztf_alert(0)["candid"]
        assert reader._slots.acquire(timeout=20)  # the one place, and there is no other
        assert not reader._slots.acquire(blocking=False)


def test_work_that_ends_as_its_deadline_passes_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    done = Future.done

    def end_and_look(future: Future[str]) -> bool:
        given_up.set()
        wait([future])
        return done(future)

    monkeypatch.setattr(Future, "done", end_and_look)
    with open_reader(tmp_path, deadline_seconds=0.05) as reader:
        assert reader.run(lambda: str(given_up.wait(20))) == "True"


def test_many_threads_get_the_stamps_they_asked_for(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(64)]
    for number in range(4):
        write(tmp_path / f"{number}.parquet", rows[16 * number : 16 * number + 16])
    with open_reader(tmp_path, open_files=2, concurrent_reads=32, queue_seconds=30) as reader:

        def read(turn: int) -> None:
            number = (7 * turn) % 64
            alert = ask(reader, f"{number // 16}.parquet", candid=rows[number]["candid"])
            assert alert.stamps[0].fits == stored_fits(rows[number], "Science")

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(read, range(640)))
