"""What is read for a request, what happens when the storage is slow, and when files change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cutout_api import metrics
from cutout_api.errors import AlertNotFound, CutoutError, DeadlineExceeded, Saturated
from cutout_api.reader import Alert, Reader
from cutout_api.request import parse_request
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Limits, Settings

from ..samples import stored_fits, write, ztf_alert


@contextmanager
def open_reader(folder: Path, **limits: float) -> Iterator[Reader]:
    reader = Reader(
        Settings(archive=ArchiveSettings(uri=str(folder)), limits=Limits(**limits))  # type: ignore[arg-type]
    )
    yield reader
    reader.close()


def ask(reader: Reader, path: str, **asked: Any) -> Alert:
    asked = {"objectId": "ZTF24aaaaaaa", "kind": "Science"} | asked
    return reader.read(parse_request({"hdfsPath": path, **asked}))


def test_one_stamp_reads_its_column_of_its_row_group_and_nothing_else(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(400)]
    path = write(tmp_path / "a.parquet", rows, row_group_size=100)
    footer = pq.read_metadata(path)
    chunks = [footer.row_group(2).column(i) for i in range(footer.num_columns)]
    sizes = {chunk.path_in_schema: chunk.total_compressed_size for chunk in chunks}
    with open_reader(tmp_path) as reader:
        ask(reader, "a.parquet", candid=rows[10]["candid"])  # footer and ids are known now
        ask(reader, "a.parquet", candid=rows[250]["candid"])
        before = metrics.BYTES_READ._value.get()
        alert = ask(reader, "a.parquet", candid=rows[260]["candid"])
        read = metrics.BYTES_READ._value.get() - before
    assert alert.stamps[0].fits == stored_fits(rows[260], "Science")
    assert read <= 1.05 * sizes["cutoutScience.stampData"]


def test_row_groups_that_statistics_exclude_are_not_read(tmp_path: Path) -> None:
    rows = [ztf_alert(n, f"ZTF24aaaaaa{chr(ord('a') + n // 20)}") for n in range(400)]
    write(tmp_path / "pruned.parquet", rows, row_group_size=20)
    write(tmp_path / "blind.parquet", rows, row_group_size=20, write_statistics=False)
    counts = {}
    for name in ("pruned.parquet", "blind.parquet"):
        with open_reader(tmp_path) as reader:
            before = metrics.READS._value.get()
            alert = ask(reader, name, objectId="ZTF24aaaaaac")
            counts[name] = metrics.READS._value.get() - before
        assert alert.alert_id == rows[59]["candid"]
    # 19 of 20 row groups are left out by their statistics.
    assert counts["pruned.parquet"] <= counts["blind.parquet"] - 19


def test_footer_and_ids_are_read_once(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(8)]
    write(tmp_path / "a.parquet", rows)
    counts = []
    with open_reader(tmp_path) as reader:
        for _ in range(3):
            before = metrics.READS._value.get()
            ask(reader, "a.parquet")
            counts.append(metrics.READS._value.get() - before)
    assert counts[0] > counts[1] == counts[2]


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


def test_files_replaced_all_the_time_never_give_a_wrong_stamp(tmp_path: Path) -> None:
    versions = [[ztf_alert(100 * v + n) for n in range(9)] for v in range(4)]
    expected = {row["candid"]: stored_fits(row, "Science") for rows in versions for row in rows}
    for number, rows in enumerate(versions):
        write(tmp_path / f"{number}.new", rows[number:] + rows[:number], row_group_size=2 + number)
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
            end = time.monotonic() + 5
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


class Slow:
    """The driver of a reader, each read of which takes its time."""

    def __init__(self, driver: Any, wait: Callable[[], object]) -> None:
        self._driver, self._wait = driver, wait
        self.status, self.files_below = driver.status, driver.files_below

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
        assert reader._slots._value == 2


def test_a_read_that_is_given_up_keeps_its_place_until_it_ends(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [ztf_alert(0)])
    released = threading.Event()
    with open_reader(
        tmp_path, concurrent_reads=1, queue_seconds=0.05, deadline_seconds=0.1
    ) as reader:
        slow_down(reader, lambda: released.wait(30))
        with pytest.raises(DeadlineExceeded):
            ask(reader, "a.parquet")
        with pytest.raises(Saturated):
            ask(reader, "a.parquet")
        released.set()
        assert ask_until(reader).alert_id == ztf_alert(0)["candid"]


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
