"""Paths, open files, byte ranges. HDFS has its own tests below tests/hdfs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cutout_api import metrics, storage
from cutout_api.errors import (
    ArchiveFileNotFound,
    CutoutError,
    InvalidParameter,
    PathForbidden,
    StorageUnavailable,
)
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Limits, Settings
from cutout_api.storage import Archive, FileChanged, FileId, LocalDriver, Status


def open_archive(folder: Path, **limits: int) -> Archive:
    return Archive(Settings(archive=ArchiveSettings(uri=str(folder)), limits=Limits(**limits)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "archive"
    (inside / "night").mkdir(parents=True)
    (inside / "night" / "a.parquet").write_bytes(bytes(range(100)))
    (tmp_path / "secret.parquet").write_bytes(b"secret")
    return inside


def locate_one(archive: Archive, path: str) -> FileId:
    (file_id,) = archive.locate(path)
    return file_id


def test_a_file_is_found_by_every_allowed_spelling(folder: Path) -> None:
    archive = open_archive(folder)
    for path in (
        "night/a.parquet",
        "./night//a.parquet",
        "night/",
        "night",
        str(folder / "night" / "a.parquet"),
        f"file://{folder}/night/a.parquet",
        f"file://localhost{folder}/night/a.parquet",
    ):
        file_id = locate_one(archive, path)
        assert file_id.path == str(folder / "night" / "a.parquet")
        assert file_id.size == 100


def test_symbolic_links_do_not_lead_out(folder: Path) -> None:
    (folder / "out.parquet").symlink_to(folder.parent / "secret.parquet")
    (folder / "up").symlink_to(folder.parent)
    (folder / "in.parquet").symlink_to(folder / "night" / "a.parquet")
    archive = open_archive(folder)
    for path in ("out.parquet", "up/secret.parquet", "up", "up/archive/out.parquet"):
        with pytest.raises(PathForbidden):
            archive.locate(path)
    assert locate_one(archive, "in.parquet").path == str(folder / "night" / "a.parquet")
    listed = {file_id.path for file_id in archive.locate(".")}
    assert not any("secret" in path or "out.parquet" in path for path in listed)


def test_an_archive_that_is_itself_a_link_is_served(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    archive = open_archive(tmp_path / "link")
    assert locate_one(archive, "night/a.parquet").size == 100
    found = locate_one(archive, str(tmp_path / "link" / "night" / "a.parquet"))
    assert locate_one(archive, found.path) == archive.present(found.path) == found
    assert locate_one(archive, str(folder / "night")) == found
    (folder / "out").symlink_to(tmp_path)
    for path in (
        tmp_path,
        tmp_path / "secret.parquet",
        folder / "out",
        folder / "out/secret.parquet",
    ):
        with pytest.raises(PathForbidden):
            archive.locate(str(path))


def test_roots_open_other_folders_and_close_the_rest(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.parquet").write_bytes(b"b")
    settings = Settings(
        archive=ArchiveSettings(uri=str(folder), roots=(str(other), str(folder / "night")))
    )
    archive = Archive(settings)
    assert locate_one(archive, str(other / "b.parquet")).size == 1
    assert locate_one(archive, "night/a.parquet").size == 100
    (folder / "c.parquet").write_bytes(b"c")
    with pytest.raises(PathForbidden):
        archive.locate("c.parquet")
    (tmp_path / "other-folder").mkdir()
    with pytest.raises(PathForbidden):  # a name that merely begins like a root
        archive.locate(str(tmp_path / "other-folder"))


def test_a_folder_leaves_out_what_spark_keeps_for_itself(folder: Path) -> None:
    night = folder / "night"
    for name in ("_SUCCESS", "_metadata.parquet", ".a.parquet.crc", "notes.txt", ".b.parquet"):
        (night / name).write_bytes(b"x")
    (night / "_temporary" / "0").mkdir(parents=True)
    (night / "_temporary" / "0" / "c.parquet").write_bytes(b"x")
    os.mkfifo(night / "pipe.parquet")
    (night / "nowhere.parquet").symlink_to("nothing")
    (night / "itself.parquet").symlink_to("itself.parquet")
    names = [Path(file_id.path).name for file_id in open_archive(folder).locate("night")]
    assert names == ["a.parquet"]


def test_a_folder_of_too_many_files_is_refused(folder: Path) -> None:
    for number in range(5):
        (folder / "night" / f"{number}.parquet").write_bytes(b"x")
    assert len(open_archive(folder, folder_files=6).locate("night")) == 6
    with pytest.raises(InvalidParameter, match="more than 5 files"):
        open_archive(folder, folder_files=5).locate("night")


def after_listing(archive: Archive, folder: str, act: Callable[[], object]) -> None:
    """Have something happen right after a folder was listed, before those in it are."""
    list_folder = archive.driver.list_folder

    def listed(path: str) -> list[Status]:
        found = list_folder(path)
        if path == folder:
            act()
        return found

    archive.driver.list_folder = listed  # type: ignore[method-assign]


def test_a_folder_that_vanishes_while_its_parent_is_listed_hides_no_other(folder: Path) -> None:
    night = folder / "night"
    (night / "later").mkdir()
    (night / "later" / "b.parquet").write_bytes(b"x")
    archive = open_archive(folder)
    after_listing(archive, str(night), lambda: shutil.rmtree(night / "later"))
    assert [Path(file_id.path).name for file_id in archive.locate("night")] == ["a.parquet"]
    after_listing(archive, str(folder), lambda: shutil.rmtree(night))
    with pytest.raises(ArchiveFileNotFound):
        archive.locate(".")


def test_what_spark_is_writing_is_not_even_listed(folder: Path) -> None:
    (folder / "night" / "_temporary" / "0").mkdir(parents=True)
    archive = open_archive(folder)
    listed: list[str] = []
    list_folder = archive.driver.list_folder
    archive.driver.list_folder = (  # type: ignore[method-assign]
        lambda path: listed.append(path) or list_folder(path)
    )
    archive.locate(".")
    assert listed == [str(folder), str(folder / "night")]


def test_an_empty_folder_is_not_found(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ArchiveFileNotFound):
        open_archive(folder).locate("empty")


def test_of_what_was_looked_at_the_least_recent_is_forgotten_first(folder: Path) -> None:
    for name in ("b.parquet", "c.parquet"):
        (folder / name).write_bytes(b"x")
    archive = open_archive(folder, open_files=2)
    archive._recheck_seconds = 1e-9  # as on HDFS, when each look is too old for the next
    for name in ("night/a.parquet", "b.parquet", "night/a.parquet", "c.parquet"):
        locate_one(archive, name)
    archive._recheck_seconds = 60
    for file in ("night/a.parquet", "b.parquet", "c.parquet"):
        (folder / file).unlink()
    assert locate_one(archive, "night/a.parquet").size == 100
    with pytest.raises(ArchiveFileNotFound):
        archive.locate("b.parquet")


def test_nothing_is_kept_of_a_look_on_local_disk(folder: Path) -> None:
    archive = open_archive(folder)
    archive.present(locate_one(archive, "night").path)
    assert archive._looked_at == {}


def test_reads_return_the_bytes_asked_and_stop_at_the_end(folder: Path) -> None:
    archive = open_archive(folder)
    with archive.open(locate_one(archive, "night/a.parquet")) as file:
        assert file.read_at(10, 5) == bytes(range(5, 15))
        assert file.read_at(50, 90) == bytes(range(90, 100))
        assert file.read_at(10, 100) == b""
        assert file.read_at(10, 1000) == b""
        assert file.read_at(0, 0) == b""


def test_reads_and_bytes_are_counted(folder: Path) -> None:
    archive = open_archive(folder)
    reads, read = metrics.READS._value.get(), metrics.BYTES_READ._value.get()
    with archive.open(locate_one(archive, "night/a.parquet")) as file:
        file.read_at(10, 0)
        file.read_at(90, 50)
    assert metrics.READS._value.get() - reads == 2
    assert metrics.BYTES_READ._value.get() - read == 60


def test_a_file_stays_open_between_readers_and_the_number_of_open_ones_is_bounded(
    folder: Path,
) -> None:
    for number in range(20):
        (folder / f"{number}.parquet").write_bytes(bytes([number]) * 8)
    archive = open_archive(folder, open_files=4)
    for _ in range(2):
        for number in range(20):
            with archive.open(locate_one(archive, f"{number}.parquet")) as file:
                assert file.read_at(8, 0) == bytes([number]) * 8
    assert 0 < open_below(folder) <= 4
    archive.close()
    assert open_below(folder) == 0


def test_a_read_that_was_given_up_does_not_connect_again_once_the_archive_is_closed(
    folder: Path,
) -> None:
    (folder / "a.parquet").write_bytes(b"12345678")
    archive = open_archive(folder)
    with archive.open(locate_one(archive, "a.parquet")) as file:
        assert file.read_at(1, 0) == b"1"
        archive.close()
        with pytest.raises(StorageUnavailable):
            file.read_at(1, 0)
    assert open_below(folder) == 0


def open_below(folder: Path) -> int:
    """Return how many files below a folder this process has open."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them is gone by now
            targets.append(os.readlink(descriptor))
    return sum(target.startswith(str(folder)) for target in targets)


def test_a_file_in_use_is_not_closed_when_it_is_evicted(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.parquet").write_bytes(bytes([number]) * 8)
    archive = open_archive(folder, open_files=1)
    with archive.open(locate_one(archive, "0.parquet")) as first:
        assert first.read_at(1, 0) == b"\0"
        for number in (1, 2):
            with archive.open(locate_one(archive, f"{number}.parquet")) as file:
                file.read_at(1, 0)
        assert first.read_at(8, 0) == bytes(8)


def test_a_replaced_file_is_another_file(folder: Path) -> None:
    archive = open_archive(folder)
    path = folder / "night" / "a.parquet"
    old = locate_one(archive, "night/a.parquet")
    with archive.open(old) as file:
        assert file.read_at(4, 0) == b"\0\1\2\3"
    (folder / "new").write_bytes(b"new content")
    (folder / "new").rename(path)
    new = locate_one(archive, "night/a.parquet")
    assert new != old
    with archive.open(new) as file:
        assert file.read_at(100, 0) == b"new content"


def test_a_file_that_shrank_under_a_reader_is_noticed(folder: Path) -> None:
    archive = open_archive(folder)
    file_id = locate_one(archive, "night/a.parquet")
    with archive.open(file_id) as file:
        file.read_at(1, 0)
        (folder / "night" / "a.parquet").write_bytes(b"short")
        with pytest.raises(FileChanged):
            file.read_at(100, 0)


def test_a_failed_read_is_tried_once_more_on_a_file_opened_anew(folder: Path) -> None:
    archive = open_archive(folder)
    file_id = locate_one(archive, "night/a.parquet")
    with archive.open(file_id) as file:
        file.read_at(1, 0)
        file._handle.raw.close()  # as a connection that broke
        assert file.read_at(4, 0) == b"\0\1\2\3"
        file._handle.raw.close()
        (folder / "night" / "a.parquet").write_bytes(b"another file")
        with pytest.raises(FileChanged):
            file.read_at(4, 0)
        (folder / "night" / "a.parquet").unlink()
        with pytest.raises(ArchiveFileNotFound):
            file.read_at(4, 0)


def test_a_handle_that_fails_one_reader_is_not_closed_under_another(folder: Path) -> None:
    archive = open_archive(folder)
    file_id = locate_one(archive, "night/a.parquet")
    open_file = archive.driver.open
    reading, go_on = threading.Event(), threading.Event()
    opened: list[str] = []
    failures: list[Exception] = []

    class Handle:
        def __init__(self, path: str) -> None:
            self._raw, self._first = open_file(path), not opened
            self.close = self._raw.close
            opened.append(path)

        def read_at(self, length: int, offset: int) -> bytes:
            if self._first and offset == 0:
                raise OSError("the connection broke")
            if self._first:
                reading.set()
                go_on.wait(20)
            try:
                return bytes(self._raw.read_at(length, offset))
            except Exception as error:
                failures.append(error)
                raise

    archive.driver.open = Handle  # type: ignore[method-assign]
    with archive.open(file_id) as file, ThreadPoolExecutor(1) as pool:
        other = pool.submit(file.read_at, 2, 1)
        assert reading.wait(20)
        assert file.read_at(1, 0) == b"\0"
        assert open_below(folder) == 2
        go_on.set()
        assert other.result() == b"\1\2"
        assert (len(opened), failures) == (2, [])
        assert open_below(folder) == 1  # the old one closed as it was let go of


def test_what_the_service_may_not_read_is_forbidden_not_a_failure() -> None:
    # Root may read everything, so a child without its rights tries.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "a.parquet").write_bytes(b"x")
        (folder / "a.parquet").chmod(0)

        archive = open_archive(folder)
        file_id = locate_one(archive, "a.parquet")

        def try_to_read() -> bool:
            if os.geteuid() == 0:
                os.seteuid(65534)
            try:
                with archive.open(file_id) as file:
                    file.read_at(1, 0)
            except PathForbidden:
                return True
            return False

        assert in_a_child(try_to_read)


def in_a_child(work: Callable[[], bool]) -> bool:
    """Run ``work`` in a forked process; tell whether it returned True."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # a lock that another thread held at the fork is held for ever
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_links_that_lead_back_or_out_are_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "night" / "back").symlink_to(folder)
    (folder / "night" / "again").symlink_to("..")
    (folder / "other").mkdir()
    (folder / "other" / "across").symlink_to(folder / "night")
    (folder / "night" / "across").symlink_to(folder / "other")
    (folder / "out").symlink_to("/")
    listed: list[str] = []
    real = LocalDriver.list_folder

    def list_folder(driver: LocalDriver, path: str) -> list[Status]:
        listed.append(path)
        return real(driver, path)

    monkeypatch.setattr(LocalDriver, "list_folder", list_folder)
    archive = open_archive(folder)
    found = {Path(file.path).relative_to(folder).as_posix() for file in archive.locate(str(folder))}
    assert found >= {"night/a.parquet", "other/across/a.parquet"}
    assert all(Path(path).resolve().is_relative_to(folder.resolve()) for path in listed)
    assert len(listed) < 20


def test_many_threads_read_the_right_bytes(folder: Path) -> None:
    for number in range(8):
        (folder / f"{number}.parquet").write_bytes(bytes([number]) * 4096)
    archive = open_archive(folder, open_files=3)
    ids = [locate_one(archive, f"{number}.parquet") for number in range(8)]
    barrier = threading.Barrier(32)

    def read(thread: int) -> None:
        barrier.wait()
        for turn in range(60):
            number = (thread + turn) % 8
            with archive.open(ids[number]) as file:
                assert file.read_at(100, turn) == bytes([number]) * 100

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(read, range(32)))


def test_a_forked_child_connects_anew(folder: Path) -> None:
    archive = open_archive(folder)
    parents = archive.driver
    file_id = locate_one(archive, "night/a.parquet")
    with archive.open(file_id) as file:
        file.read_at(1, 0)

    def read_anew() -> bool:
        with archive.open(file_id) as file:
            return archive.driver is not parents and file.read_at(2, 0) == b"\0\1"

    assert in_a_child(read_anew)
    assert archive.driver is parents


def test_a_name_node_that_is_not_there_is_unavailable() -> None:
    settings = Settings(archive=ArchiveSettings(uri="hdfs://127.0.0.1:1/", driver="native"))
    with pytest.raises(StorageUnavailable) as caught:
        Archive(settings).locate("x")
    assert "127.0.0.1" not in caught.value.detail


def test_check_wants_the_folder(folder: Path, tmp_path: Path) -> None:
    open_archive(folder).check()
    for wrong in (tmp_path / "none", tmp_path / "secret.parquet"):
        with pytest.raises(CutoutError):
            open_archive(wrong).check()


def swap_for_a_link(folder: Path, outside: Path) -> Callable[[], None]:
    """Return what makes of a folder a link to another one, and the folder again."""
    aside, link = folder.parent / "aside", folder.parent / "link"

    def swap() -> None:
        link.symlink_to(outside)
        folder.rename(aside)
        link.rename(folder)
        folder.unlink()
        aside.rename(folder)

    return swap


@pytest.mark.parametrize("asked", ["night/a.parquet", "night", "."])
def test_a_folder_exchanged_for_a_link_never_gives_what_is_outside(
    folder: Path, tmp_path: Path, asked: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.parquet").write_bytes(b"secret" * 20)
    (outside / "b.parquet").write_bytes(b"secret" * 20)
    swap, over = swap_for_a_link(folder / "night", outside), threading.Event()

    def keep_swapping() -> None:
        while not over.wait(0.0002):
            swap()

    archive, read, refused = open_archive(folder, open_files=1), 0, 0
    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(keep_swapping)
        try:
            for _ in range(5_000):
                try:
                    for file_id in archive.locate(asked):
                        with archive.open(file_id) as file:
                            assert file.read_at(100, 0) == bytes(range(100))
                            file.close()  # so that each is opened anew
                        assert not file_id.path.endswith("b.parquet")
                        read += 1
                except (ArchiveFileNotFound, PathForbidden, FileChanged):
                    refused += 1
        finally:
            over.set()
            swapping.result()
    assert read
    assert refused


def test_one_file_put_for_another_and_back_while_it_is_opened_is_noticed(folder: Path) -> None:
    path, other = folder / "night" / "a.parquet", folder / "night" / "b.parquet"
    other.write_bytes(b"b" * 100)
    archive = open_archive(folder)
    file_id = locate_one(archive, "night/a.parquet")
    really_open = archive.driver.open

    def open_other(_path: str) -> object:
        return really_open(str(other))

    archive.driver.open = open_other  # type: ignore[assignment,method-assign]
    with archive.open(file_id) as file, pytest.raises(FileChanged):
        file.read_at(100, 0)
    assert path.stat().st_size == 100


def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.parquet")
    (folder / "to-pipe.parquet").symlink_to(folder / "pipe.parquet")
    archive = open_archive(folder)
    listed = {Path(file_id.path).name for file_id in archive.locate(".")}
    assert listed == {"a.parquet"}
    for name in ("pipe.parquet", "to-pipe.parquet"):
        with pytest.raises(FileNotFoundError):
            archive.driver.open(str(folder / name))


def test_descriptors_are_closed_with_their_files(folder: Path) -> None:
    archive = open_archive(folder, open_files=1)
    for number in range(50):
        (folder / f"{number}.parquet").write_bytes(b"x")
        with archive.open(locate_one(archive, f"{number}.parquet")) as file:
            assert file.read_at(1, 0) == b"x"
    archive.locate(".")
    archive.close()
    opened = (fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
    assert not [path for path in opened if path.is_relative_to(folder)]


def test_parts_that_lie_near_each_other_are_read_as_one(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "a.parquet").write_bytes(content)
    archive = open_archive(tmp_path)
    with archive.open(locate_one(archive, "a.parquet")) as file:
        file.read_at(1, 0)
        for parts, reads in (
            ([], 0),
            ([(5, 10)], 1),
            ([(5, 10), (15, 1), (60_000, 100)], 1),
            ([(5, 10), (100_000, 10), (300_001, 7)], 3),
            ([(5, 10), (len(content) - 3, 3)], 2),
        ):
            before = metrics.READS._value.get()
            assert file.read_parts(parts) == [content[at : at + size] for at, size in parts]
            assert metrics.READS._value.get() - before == reads


@pytest.mark.usefixtures("new_files")
@pytest.mark.parametrize(("age", "size", "changing"), [(1, 7, True), (59, 7, True), (61, 7, False)])
def test_a_damaged_file_may_be_being_written_for_a_minute(
    folder: Path, age: float, size: int, changing: bool
) -> None:
    archive = open_archive(folder)
    file_id = FileId("/a", size, time.time_ns() - int(age * 1e9))
    assert (archive.still_changing(file_id) is not None) is changing


@pytest.mark.usefixtures("new_files")
def test_a_clock_that_is_ahead_makes_nothing_new_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = open_archive(folder)
    tomorrow = FileId("/a", 7, time.time_ns() + 86_400 * 10**9)
    assert archive.still_changing(tomorrow) is not None
    later = time.monotonic() + storage.STEADY_SECONDS
    monkeypatch.setattr("cutout_api.storage.time.monotonic", lambda: later)
    assert archive.still_changing(tomorrow) is None
    assert archive.still_changing(replace(tomorrow, size=8)) is not None  # written to meanwhile


@pytest.mark.usefixtures("new_files")
@pytest.mark.parametrize(("size", "changing"), [(0, True), (128 << 20, True), (1000, False)])
def test_a_file_of_hdfs_without_its_last_block_may_be_being_written_for_an_hour(
    size: int, changing: bool
) -> None:
    archive = Archive(Settings(archive=ArchiveSettings(uri="hdfs://127.0.0.1:1/a", user="fink")))
    file_id = FileId("/a/b", size, time.time_ns() - 3000 * 10**9)
    assert (archive.still_changing(file_id) is not None) is changing
