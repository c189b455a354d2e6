"""The file system: allowed paths, open files, byte ranges.

Three drivers stand behind one small seam: the status of a path, what is in a folder,
and an open file with a size and ``read_at``. Everything above works with ``FileId`` (path,
size, modification time), so that a file which was rewritten is another file.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import math
import os
import posixpath
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import unquote

from pyarrow import fs

from . import metrics
from .errors import (
    ArchiveFileNotFound,
    CutoutError,
    FileChanging,
    FileUnreadable,
    InvalidParameter,
    NotParquet,
    PathForbidden,
    StampTooLarge,
    StampUnreadable,
    StorageUnavailable,
    StoredDataError,
    shorten,
)
from .hadoop_conf import conf_folder, needs_kerberos, read_hadoop_conf, ticket_cache
from .name_service import PatientClient, client_conf
from .settings import Settings, parse_address, parse_root
from .work import settle

T = TypeVar("T")
R = TypeVar("R")

MAX_PATH_LENGTH = 4096
GAP_BYTES = 65_536
"""What is skipped between two ranges costs less to read than another read."""
RUN_BYTES = 4 << 20
"""What lies near each other is read together, so many bytes at a time."""
SMALL_READS = 8
"""Done at once where a read waits for the network. Of 24 page headers on HDFS, one after the other
took 6 to 25 ms, eight at once 3 to 6."""
PARQUET_SUFFIXES = (".parquet", ".parq")
"""Of file names, whatever their case."""
SETTLING_SECONDS = 3
"""One for the clock of whole seconds, the rest for clocks that differ."""
FRESH_SECONDS = 60
"""A file that was modified longer ago is not being written, however the clocks differ."""
STEADY_SECONDS = 10
"""Nor is one that is seen unchanged for so long."""
LEASE_SECONDS = 3600
"""How long HDFS lets a writer be silent before it closes the file for him."""
BLOCK_UNIT = 1 << 20
"""Of a file that is being written, HDFS counts whole blocks alone, which are of whole MiB."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PLACE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


def is_parquet_name(path: str) -> bool:
    """Tell whether a file is named as parquet files are."""
    return path.lower().endswith(PARQUET_SUFFIXES)


class FileChanged(Exception):
    """The file at this path is no longer the one that was looked at."""


@dataclass(frozen=True)
class FileId:
    """One version of one file; a rewritten file has another size or time."""

    path: str
    size: int
    modified: int
    """Nanoseconds since 1970; whole seconds through libhdfs, milliseconds through hdfs-native."""
    version: str = ""
    """What else tells versions apart: on this machine, a changed file may have its old time."""

    @property
    def is_settled(self) -> bool:
        """Whether a rewrite from now on would show in the modification time.

        Through libhdfs that has whole seconds: of a file written in this very second, another
        version of the same size may look the same, so nothing is kept of such a file.
        """
        whole_seconds = not self.version and self.modified % 10**9 == 0
        return not whole_seconds or time.time_ns() - self.modified > SETTLING_SECONDS * 10**9


@dataclass(frozen=True)
class Status:
    path: str
    is_folder: bool
    size: int
    modified: int
    version: str = ""

    @property
    def file_id(self) -> FileId:
        return FileId(self.path, self.size, self.modified, self.version)


class RawFile(Protocol):
    """An open file as a driver gives it; ``read_at`` may be called by several threads at once."""

    def read_at(self, length: int, offset: int) -> bytes: ...
    def close(self) -> None: ...


class Driver(Protocol):
    """A file system; each method raises OSError, FileNotFoundError where nothing is there."""

    def status(self, path: str) -> Status: ...
    def list_folder(self, folder: str) -> list[Status]: ...
    def open(self, path: str) -> RawFile: ...


class ArrowDriver:
    """A file system of pyarrow: HDFS through libhdfs."""

    def __init__(self, filesystem: fs.FileSystem) -> None:
        self._fs = filesystem

    def status(self, path: str) -> Status:
        info = self._fs.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            # libhdfs says so of everything that went wrong; a listing tells what it was.
            self._fs.get_file_info(fs.FileSelector(path))
            raise FileNotFoundError(path)
        return self._status(info)

    def list_folder(self, folder: str) -> list[Status]:
        return [self._status(info) for info in self._fs.get_file_info(fs.FileSelector(folder))]

    def open(self, path: str) -> RawFile:
        file: RawFile = self._fs.open_input_file(path)
        return file

    @staticmethod
    def _status(info: fs.FileInfo) -> Status:
        is_folder = info.type == fs.FileType.Directory
        return Status(info.path, is_folder, info.size or 0, info.mtime_ns or 0)


class TicketedDriver:
    """libhdfs by a Kerberos ticket: connected anew once that was renewed.

    Java keeps the ticket that it found when it connected, or that it found none. A connection
    that was left is kept, since its files may still be read.
    """

    def __init__(self, tickets: Path, connect: Callable[[], Driver]) -> None:
        self._tickets, self._connect = tickets, connect
        self._lock = threading.Lock()
        self._made: list[tuple[int, Driver]] = []

    def status(self, path: str) -> Status:
        return self._driver().status(path)

    def list_folder(self, folder: str) -> list[Status]:
        return self._driver().list_folder(folder)

    def open(self, path: str) -> RawFile:
        return self._driver().open(path)

    def _driver(self) -> Driver:
        """Raises OSError where there is no ticket yet, or one that has expired."""
        version = self._tickets.stat().st_mtime_ns if self._tickets.exists() else None
        with self._lock:
            if version is None and not self._made:
                raise OSError(f"no Kerberos ticket in {self._tickets}")
            if version is not None and (not self._made or self._made[-1][0] != version):
                self._made.append((version, self._connect()))
            return self._made[-1][1]


class LeadsOutside(PermissionError):
    """What a path of this machine names lies outside the folders that are served."""


class LocalFile:
    """A regular file of this machine."""

    def __init__(self, descriptor: int, version: str) -> None:
        self.version = version
        self._descriptor = descriptor

    def read_at(self, length: int, offset: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


class LocalDriver:
    """This machine's file system, below some folders.

    Links are followed. A path may lead elsewhere from one moment to the next, so it is opened
    once, and then the kernel says where that lies which was opened.
    """

    def __init__(self, is_inside: Callable[[str], bool]) -> None:
        self._is_inside = is_inside

    def status(self, path: str) -> Status:
        return self._status(path, os.stat(path))  # noqa: PTH116

    def resolve(self, path: str) -> Status:
        """Return the status of what a path leads to, by its real path. Raises LeadsOutside."""
        return self._status(*self._look(path))

    def list_folder(self, folder: str) -> list[Status]:
        """Return the files and folders in it, without links that lead outside or nowhere."""
        found = []
        flags = os.O_RDONLY | os.O_DIRECTORY
        with self._opened(folder, flags) as (descriptor, _), os.scandir(descriptor) as entries:
            for entry in entries:
                path = posixpath.join(folder, entry.name)
                try:
                    if entry.is_symlink():
                        info = self._look(path)[1]
                    else:
                        info = os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False)
                except LeadsOutside:
                    continue
                except OSError as error:  # gone meanwhile, or a link that leads nowhere
                    if not _says_nothing_is_there(error):
                        raise
                    continue
                if stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode):
                    found.append(self._status(path, info))
        return found

    def _look(self, path: str) -> tuple[str, os.stat_result]:
        with self._opened(path, _O_PATH) as (descriptor, real):
            return real, os.fstat(descriptor)

    def open(self, path: str) -> LocalFile:
        # Not to wait for the other end of what is a pipe.
        with self._opened(path, os.O_RDONLY | os.O_NONBLOCK) as (descriptor, real):
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise FileNotFoundError(path)
            return LocalFile(os.dup(descriptor), self._status(real, info).version)

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[tuple[int, str]]:
        """Lend a descriptor of what a path leads to, and its real path."""
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            real = _place_of(descriptor)
            if not self._is_inside(real):
                raise LeadsOutside(path)
            yield descriptor, real
        finally:
            os.close(descriptor)

    @staticmethod
    def _status(path: str, info: os.stat_result) -> Status:
        version = f"{info.st_ino}-{info.st_ctime_ns}"
        is_folder = stat.S_ISDIR(info.st_mode)
        return Status(path, is_folder, info.st_size, info.st_mtime_ns, version)


_O_PATH = getattr(os, "O_PATH", os.O_RDONLY)  # Linux alone has it: to look without reading


def _place_of(descriptor: int) -> str:
    """Return the path of what is open, as the kernel knows it.

    Raises FileNotFoundError for what was removed.
    """
    if os.fstat(descriptor).st_nlink == 0:
        raise FileNotFoundError(errno.ENOENT, "it was removed")
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115


def _real_path(path: str) -> str | None:
    try:
        descriptor = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _place_of(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


@contextmanager
def _native_errors() -> Iterator[None]:
    """Raise what hdfs-native raises as the OSError that it would be elsewhere."""
    try:
        yield
    except RuntimeError as error:
        if "AccessControlException" in str(error):
            raise PermissionError(str(error).splitlines()[0]) from error
        raise OSError(str(error).splitlines()[0]) from error
    except Exception:
        raise
    except BaseException as error:
        # It panics on a read past the end, as of a file that shrank.
        if type(error).__name__ != "PanicException":
            raise
        raise OSError("hdfs-native panicked") from error


class NativeFile:
    """A file of hdfs-native."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read_at(self, length: int, offset: int) -> bytes:
        with _native_errors():
            data: bytes = self._reader.read_range(offset, length)
        return data

    def close(self) -> None:
        """Do nothing: hdfs-native keeps no connection between reads."""


class NativeDriver:
    """HDFS through hdfs-native: no Java."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def status(self, path: str) -> Status:
        with _native_errors():
            return self._status(self._client.get_file_info(path))

    def list_folder(self, folder: str) -> list[Status]:
        with _native_errors():
            return [self._status(info) for info in self._client.list_status(folder)]

    def open(self, path: str) -> RawFile:
        with _native_errors():
            return NativeFile(self._client.read(path))

    @staticmethod
    def _status(info: Any) -> Status:
        return Status(info.path, info.isdir, info.length, info.modification_time * 1_000_000)


def _connect_local(archive: Archive) -> Driver:
    return LocalDriver(archive.is_inside)


def _connect_libhdfs(archive: Archive) -> Driver:
    address = archive.address
    # Read once, when the JVM starts. Without -Xrs it takes the signals that stop a worker.
    os.environ.setdefault("LIBHDFS_OPTS", "-Xrs -Dslf4j.internal.verbosity=ERROR")
    # Java looks for the configuration among its classes, and nowhere else.
    folder, places = conf_folder(os.environ), os.environ.get("CLASSPATH", "")
    if folder is not None and str(folder) not in places.split(os.pathsep):
        os.environ["CLASSPATH"] = f"{folder}{os.pathsep}{places}"
    host = address.place if address.is_view else address.host

    def connect(user: str | None, tickets: Path | None = None) -> Driver:
        return ArrowDriver(
            fs.HadoopFileSystem(
                host, address.port, user=user, kerb_ticket=tickets, extra_conf=LIBHDFS_CLIENT
            )
        )

    if not needs_kerberos(read_hadoop_conf()):
        return connect(archive.user)
    # A user who is named is one without a ticket.
    tickets = ticket_cache(os.environ)
    if tickets is None:
        return connect(None)
    return TicketedDriver(tickets, lambda: connect(None, tickets))


def _connect_native(archive: Archive) -> Driver:
    from hdfs_native import Client

    address, conf = archive.address, read_hadoop_conf()
    # It takes the user from the environment alone, and again at each reconnection.
    os.environ["HADOOP_USER_NAME"] = archive.user

    def connect(turn: int) -> Any:
        return Client(address.place, client_conf(conf, turn) | NATIVE_CLIENT)

    return NativeDriver(connect(0) if address.port else PatientClient(connect))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES, _ARENAS = 8 << 20, 2


def _keep_freed_memory() -> None:
    """Have glibc keep the memory that pages are read into, for the next page.

    By default it asks the kernel for each buffer of more than 128 kB and gives it back, which
    for a page of 1.3 MB took twice as long as reading it. Few arenas, or each thread would
    keep as much.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


DRIVERS: dict[str, Callable[[Archive], Driver]] = {
    "local": _connect_local,
    "libhdfs": _connect_libhdfs,
    "native": _connect_native,
}

# Hadoop's own defaults keep a caller waiting for minutes when a node is gone. Measured: a name
# node that hangs is given up after 4 s instead of 120, a data node that hangs after 9 instead
# of 300, one that was killed at once instead of after 15.
LIBHDFS_CLIENT = {
    "ipc.client.connect.timeout": "3000",
    "ipc.client.rpc-timeout.ms": "4000",
    "dfs.client.socket-timeout": "3000",
    "dfs.client.retry.window.base": "200",
    "dfs.client.max.block.acquire.failures": "1",
    # Of a name service: both name nodes are asked twice, in less than 3 s.
    "dfs.client.failover.max.attempts": "4",
    "dfs.client.failover.sleep.base.millis": "200",
    "dfs.client.failover.sleep.max.millis": "1000",
}
# Here a name node that is gone costs a second instead of three minutes. One that hangs is
# waited for without end: that is what the deadline of a request is for.
NATIVE_CLIENT = {
    "dfs.client.socket-timeout": "3000",
    "dfs.client.failover.max.attempts": "3",
    "dfs.client.failover.sleep.base.millis": "100",
    "dfs.client.failover.sleep.max.millis": "500",
}


class _Handle:
    """A file as a driver opened it; it is closed when it is let go of, by the last of its readers.

    libhdfs frees what a thread reads through where another one closes it. Left to the collector, it
    would be closed after its file system, of which Java complains.
    """

    def __init__(self, raw: RawFile) -> None:
        self.raw = raw
        self._lock = threading.Lock()
        self._readers = 0
        self._is_left = False

    def read_at(self, length: int, offset: int) -> bytes:
        """Raises what the driver raises, and OSError once it was let go of."""
        with self._lock:
            if self._is_left:
                raise OSError("the file was closed")
            self._readers += 1
        try:
            return self.raw.read_at(length, offset)
        finally:
            with self._lock:
                self._readers -= 1
                is_over = self._is_left and not self._readers
            if is_over:
                close_quietly(self.raw)

    def let_go(self) -> None:
        with self._lock:
            is_over = not self._is_left and not self._readers
            self._is_left = True
        if is_over:
            close_quietly(self.raw)


class OpenFile:
    """One version of a file, kept open; safe to share between threads. A context, once lent."""

    def __init__(self, archive: Archive, file_id: FileId) -> None:
        self.id = file_id
        self.size = file_id.size
        self.page_bytes = archive.page_bytes
        """Largest page that may be read from it: ``limits.page_bytes``."""
        self.users = 0
        self._archive = archive
        self._lock = threading.Lock()
        self._handle: _Handle | None = None

    def read_at(self, length: int, offset: int) -> bytes:
        """Return the bytes at ``offset``: ``length`` of them, fewer only at the end of the file.

        A read that fails is tried once more on a file opened anew.
        Raises FileChanged where the file is no longer this version, StorageUnavailable, and
        FileUnreadable for a place that no file has: it can only come from the file itself.
        """
        if offset < 0 or length < 0:
            raise FileUnreadable(
                f"{file_name(self.id.path)} is damaged: it points to bytes outside itself",
                self.id.path,
            )
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        handle = self._handle
        if handle is None:
            handle = self._reopened(None)
        try:
            data = handle.read_at(length, offset)
        except DRIVER_ERRORS:
            handle = self._reopened(handle)
            with storage_errors(self.id.path):
                data = handle.read_at(length, offset)
        metrics.READS.inc()
        metrics.BYTES_READ.inc(len(data))
        if len(data) != length:
            raise FileChanged(self.id.path)
        return data

    def read_parts(self, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several places, each an offset and a length, in that order.

        They are in order, and do not overlap; near ones are read as one. Raises as ``read_at``.
        """

        def read(run: tuple[int, int, list[tuple[int, int]]]) -> list[bytes]:
            start, end, mine = run
            data = self.read_at(end - start, start)
            return [data[offset - start : offset - start + size] for offset, size in mine]

        found = self._archive.at_once(read, list(near_ones(parts, lambda part: part)))
        return [data for run in found for data in run]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._archive.give_back(self)

    def close(self) -> None:
        """Let go of the handle; those who still read through it read to their end."""
        # Without the lock: it is held while the file is opened, which may hang.
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.let_go()

    def _reopened(self, broken: _Handle | None) -> _Handle:
        """Return another handle than the one that failed, opened by this thread or by another."""
        with self._lock:
            if self._handle is not None and self._handle is not broken:
                return self._handle
            self.close()
            with storage_errors(self.id.path):
                raw = self._archive.driver.open(self.id.path)
            try:
                # Only now: what was opened may be another file than the one looked at before.
                if isinstance(raw, LocalFile) and raw.version != self.id.version:
                    raise FileChanged(self.id.path)
                self._archive.check_unchanged(self.id)
            except BaseException:
                close_quietly(raw)
                raise
            self._handle = handle = _Handle(raw)
            return handle


def near_ones(
    items: Iterable[T], place: Callable[[T], tuple[int, int]]
) -> Iterator[tuple[int, int, list[T]]]:
    """Yield where to read, start and end, and the items that it gives: near ones as one.

    ``place`` returns the offset and the length of an item; they come in the order of offsets.
    """
    run: list[T] = []
    start = end = 0
    for item in items:
        begins, length = place(item)
        ends = begins + length
        if run and (begins - end > GAP_BYTES or max(ends, end) - start > RUN_BYTES):
            yield start, end, run
            run = []
        start = start if run else begins
        end = max(end, ends) if run else ends
        run.append(item)
    if run:
        yield start, end, run


class LentFile:
    """A file of another process, read there: what ``OpenFile`` is here."""

    def __init__(
        self, file_id: FileId, page_bytes: int, read_at: Callable[[int, int], bytes]
    ) -> None:
        self.id = file_id
        self.size = file_id.size
        self.page_bytes = page_bytes
        self.read_at = read_at


class Readable(Protocol):
    """A file, or some of its bytes, with positioned reads."""

    id: FileId
    size: int
    page_bytes: int

    def read_at(self, length: int, offset: int) -> bytes: ...


class Source(io.RawIOBase):
    """A readable, seekable view of an open file, for pyarrow.

    libhdfs allows several threads ``read_at`` on one handle, but not ``seek`` and ``read``,
    so each reader has a view of its own. ``failure`` keeps what a read raised, since pyarrow
    may wrap it on its way out.
    """

    def __init__(self, file: Readable) -> None:
        super().__init__()
        self._file = file
        self._position = 0
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self._file.size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        length = self._file.size - self._position if size < 0 else size
        try:
            data = self._file.read_at(length, self._position)
        except BaseException as error:
            self.failure = error
            raise
        self._position += len(data)
        return data


NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
# pyarrow raises ValueError for a closed handle; everything else is an OSError.
DRIVER_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError)


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turn what a driver raises into what a caller is told; host names stay in the log."""
    try:
        yield
    except LeadsOutside as error:
        raise PathForbidden(f"{file_name(path)} leads outside the archive") from error
    except PermissionError as error:
        raise PathForbidden(f"the service may not read {file_name(path)}") from error
    except DRIVER_ERRORS as error:
        if _says_nothing_is_there(error):
            raise ArchiveFileNotFound(f"there is no {file_name(path)} in the archive") from error
        raise StorageUnavailable("the archive does not answer; try again in a moment") from error


def _says_nothing_is_there(error: Exception) -> bool:
    # hdfs-native gives the class, but no number.
    return isinstance(error, FileNotFoundError) or getattr(error, "errno", 0) in NOTHING_THERE


def file_name(path: str) -> str:
    """Return a file's name as a caller may be told it: without the folders of the server."""
    return shorten(posixpath.basename(path.rstrip("/")), 300)


def being_rewritten(path: str) -> FileChanging:
    """Return the error for a file that changes while it is read."""
    return FileChanging(f"{file_name(path)} is being rewritten; try again in a moment")


def close_quietly(raw: RawFile) -> None:
    """Close a handle that may already be broken."""
    with suppress(*DRIVER_ERRORS):
        raw.close()


class Archive:
    """The archive of one process: connects on first use, after the server has forked."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.archive.address
        self.user = settings.archive.login
        self.driver_name = "local" if self.address.host is None else settings.archive.driver
        home = () if self.address.host is None else (f"/user/{self.user}",)
        given = (self.address.folder,) if self.address.folder != "/" or not home else ()
        self.bases = tuple(dict.fromkeys(home + given))
        """Folders that a relative path is looked for in, in order."""
        roots = tuple(parse_root(root, self.address) for root in settings.archive.roots)
        self.roots = roots or self.bases
        self.page_bytes = settings.limits.page_bytes
        self._folder_files = settings.limits.folder_files
        self._most_open = settings.limits.open_files
        self._lock = threading.RLock()
        self._driver: Driver | None = None
        self._closed = False
        self._process = 0
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        # A file of HDFS is never written in place: an old handle reads the old file or fails. A
        # local one may change under its handle, and looking at it costs microseconds.
        self.changes_in_place = self.address.host is None
        self._recheck_seconds = 0.0 if self.changes_in_place else settings.archive.recheck_seconds
        self._suspects: OrderedDict[str, tuple[FileId, float]] = OrderedDict()
        """Files that could not be read, and when that was first seen of this version."""
        self._looked_at: OrderedDict[str, tuple[float, tuple[FileId, ...]]] = OrderedDict()
        # It has no threads before it is used, and those of before a fork would be gone.
        self._small_reads = ThreadPoolExecutor(SMALL_READS, "small reads")

    def __str__(self) -> str:
        how = "" if self.driver_name == "local" else f" through {self.driver_name} as {self.user}"
        return f"{self.address}{how}, hdfsPath below {', '.join(self.roots)}"

    @property
    def driver(self) -> Driver:
        """The connection of this process, made when first asked for.

        A JVM does not survive a fork, so a connection inherited from a parent is not used.
        Raises StorageUnavailable once the archive is closed, for reads that were given up.
        """
        if self._driver is None or self._process != os.getpid():
            with self._lock:
                if self._closed:
                    raise StorageUnavailable("the archive is closed")
                if self._driver is None or self._process != os.getpid():
                    self._open = OrderedDict()
                    _keep_freed_memory()
                    self._driver = DRIVERS[self.driver_name](self)
                    self._process = os.getpid()
        return self._driver

    def check(self) -> None:
        """Raise StorageUnavailable unless the archive answers and one of its folders is there."""
        folders = tuple(dict.fromkeys((self.address.folder, *self.bases)))
        for folder in folders:
            try:
                if self._status(folder).is_folder:
                    return
            except (ArchiveFileNotFound, PathForbidden):
                continue
        raise StorageUnavailable(f"the archive has no folder {' or '.join(folders)} to read")

    def locate(self, hdfs_path: str) -> tuple[FileId, ...]:
        """Return the file that a caller's path names, or the parquet files of the folder.

        What was found on HDFS is taken to be there for ``archive.recheck_seconds``: asking the
        name node costs half as much as reading a stamp.
        Raises PathForbidden, ArchiveFileNotFound, InvalidParameter, StorageUnavailable.
        """
        now = time.monotonic()
        seen, files = self._looked_at.get(hdfs_path, (-math.inf, ()))
        if now - seen < self._recheck_seconds:
            return files
        files = self._look_at(hdfs_path)
        self._note_look(hdfs_path, now, files)
        return files

    def _note_look(self, path: str, now: float, files: tuple[FileId, ...]) -> None:
        if self._recheck_seconds == 0:  # nobody would ask what was found
            return
        with self._lock:
            self._looked_at[path] = (now, files)
            self._looked_at.move_to_end(path)
            while len(self._looked_at) > self._most_open:
                self._looked_at.popitem(last=False)

    def present(self, path: str) -> FileId:
        """Return the present version of a file that was found before, by its absolute path.

        Raises ArchiveFileNotFound, PathForbidden where it is not served, StorageUnavailable.
        """
        now = time.monotonic()
        seen, files = self._looked_at.get(path, (-math.inf, ()))
        if now - seen < self._recheck_seconds and len(files) == 1:
            return files[0]
        # Of a local file the path is the real one, which may not look to be below a root.
        if self.address.host is not None and not self._is_below(path, self.roots):
            raise PathForbidden(f"{file_name(path)} is outside the folders that this service reads")
        found = replace(self._resolve(path), path=path).file_id
        self._note_look(path, now, (found,))
        return found

    def forget(self, hdfs_path: str) -> None:
        """Look at a path anew when it is asked for next: what it named has changed."""
        self._looked_at.pop(hdfs_path, None)

    def _look_at(self, hdfs_path: str) -> tuple[FileId, ...]:
        candidates = self.candidates(hdfs_path)
        for path in candidates:
            try:
                status = self._resolve(path)
            except ArchiveFileNotFound:
                continue
            if not status.is_folder:
                return (status.file_id,)
            return self._files_below(status.path, hdfs_path)
        raise ArchiveFileNotFound(
            f"there is no {shorten(hdfs_path)} in the archive; "
            "a relative path begins at the archive's folder"
        )

    def candidates(self, hdfs_path: str) -> tuple[str, ...]:
        """Return the absolute paths that a caller's path may stand for, all below a root.

        Raises PathForbidden for a way out: ``..``, also encoded, another scheme or host, a
        folder that is not served; InvalidParameter for what cannot be a path.
        """
        if len(hdfs_path) > MAX_PATH_LENGTH or _CONTROL.search(hdfs_path):
            raise InvalidParameter("hdfsPath", "hdfsPath is not a path")
        path = self._without_address(hdfs_path)
        if _leads_up(path):
            raise PathForbidden("hdfsPath must not contain '..'")
        if path.startswith("/"):
            wanted = ["/" + posixpath.normpath(path).lstrip("/")]
        else:
            wanted = [posixpath.normpath(posixpath.join(base, path)) for base in self.bases]
        allowed = tuple(path for path in wanted if self._is_served(path))
        if not allowed:
            raise PathForbidden(
                f"{shorten(hdfs_path)} is outside the folders that this service reads; "
                "give a path relative to the archive"
            )
        return allowed

    def open(self, file_id: FileId) -> OpenFile:
        """Lend this version of a file, open; the handle is kept for the next one who asks.

        To be used as a context: what is lent is given back at its end.
        """
        _ = self.driver  # a forked child drops its parent's handles here
        if not file_id.is_settled:
            return OpenFile(self, file_id)
        with self._lock:
            file = self._open.get(file_id.path)
            if file is None or file.id != file_id:
                self._forget(file_id.path)
                file = self._open[file_id.path] = OpenFile(self, file_id)
                metrics.count_cache("files", hit=False)
            else:
                metrics.count_cache("files", hit=True)
            self._open.move_to_end(file_id.path)
            file.users += 1
            self._close_oldest()
        return file

    def give_back(self, file: OpenFile) -> None:
        """Take back what ``open`` lent, and close it unless it is kept."""
        with self._lock:
            file.users -= 1
            unused = file.users <= 0 and self._open.get(file.id.path) is not file
        if unused:
            file.close()

    def at_once(self, read: Callable[[T], R], todo: Sequence[T]) -> list[R]:
        """Return what ``read`` returns for each, several at a time where that is faster."""
        if self.address.host is None or len(todo) < 2:
            return [read(one) for one in todo]
        others = [self._small_reads.submit(read, one) for one in todo[1:]]
        try:
            return [read(todo[0]), *(other.result() for other in others)]
        finally:
            settle(others)

    def check_unchanged(self, file_id: FileId) -> None:
        """Raise FileChanged unless the file at this path is still this version."""
        try:
            unchanged = self._status(file_id.path).file_id == file_id
        except ArchiveFileNotFound:
            unchanged = False
        if not unchanged:
            raise FileChanged(file_id.path)

    def check_blame(self, file_id: FileId, error: CutoutError) -> None:
        """Raise what is to be said instead of an error that may come of a file's being rewritten.

        That is FileChanged where the file is no longer this version, and FileChanging where it
        may still be being written. Any other error, and one of a whole file, stands.
        """
        if not isinstance(error, StoredDataError | NotParquet):
            return
        self.check_unchanged(file_id)
        is_whole = isinstance(error, FileUnreadable) and error.is_whole
        # On HDFS a file that has its footer, without which no stamp is found, is complete.
        is_whole |= not self.changes_in_place and isinstance(error, StampUnreadable | StampTooLarge)
        # Of another kind of file it is known from its first bytes on what it is.
        is_other = isinstance(error, NotParquet) and file_id.size > 0
        changing = None if is_whole or is_other else self.still_changing(file_id)
        if changing is not None:
            raise changing from error

    def still_changing(self, file_id: FileId) -> FileChanging | None:
        """Return the error for a damaged file that may still be being written; None: it is not.

        Clocks differ: the time of a file is that of another machine. So a file is believed to be
        as it will stay when it is old by either: its own time, or ours since it was first seen
        so. On HDFS a file has the time of its beginning and the size of its whole blocks, none at
        first, until it is closed.
        """
        parts = self.address.host is not None and file_id.size % BLOCK_UNIT == 0
        fresh, steady = (LEASE_SECONDS,) * 2 if parts else (FRESH_SECONDS, STEADY_SECONDS)
        if time.time() - file_id.modified / 1e9 >= fresh:
            return None
        now = time.monotonic()
        with self._lock:
            known, since = self._suspects.get(file_id.path, (None, now))
            if known != file_id:
                since = now
            self._suspects[file_id.path] = (file_id, since)
            self._suspects.move_to_end(file_id.path)
            while len(self._suspects) > self._most_open:
                self._suspects.popitem(last=False)
        return None if now - since >= steady else being_rewritten(file_id.path)

    def close(self) -> None:
        """Close every file, and then forget the connection: libhdfs complains otherwise."""
        self._small_reads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            files, self._open = list(self._open.values()), OrderedDict()
            if self._process == os.getpid():
                for file in files:
                    file.close()
            self._driver, self._closed = None, True

    def _status(self, path: str) -> Status:
        with storage_errors(path):
            return self.driver.status(path)

    def _resolve(self, path: str) -> Status:
        """Return the status of what a path leads to, by its real path: HDFS has no links."""
        driver = self.driver
        with storage_errors(path):
            return driver.resolve(path) if isinstance(driver, LocalDriver) else driver.status(path)

    def _files_below(self, folder: str, hdfs_path: str) -> tuple[FileId, ...]:
        found = []
        with storage_errors(folder):
            for status in self._walk(folder):
                found.append(status)
                if len(found) > self._folder_files:
                    raise InvalidParameter(
                        "hdfsPath",
                        f"{shorten(hdfs_path)} holds more than {self._folder_files} files; "
                        "name a folder further down, or the file",
                    )
        if not found:
            raise ArchiveFileNotFound(f"there is no parquet file in {shorten(hdfs_path)}")
        return tuple(status.file_id for status in sorted(found, key=lambda s: s.path))

    def _walk(self, folder: str) -> Iterator[Status]:
        """Yield the parquet files below a folder, without Spark's bookkeeping.

        A folder below that vanishes meanwhile has no files; ``folder`` itself is to be there. A
        symbolic link is not followed out of the roots, nor back to where it was come from.
        """
        folders: list[tuple[str, tuple[str, ...]]] = [(folder, ())]
        while folders:
            here, above = folders.pop()
            # By the kernel: realpath() fails where a link is exchanged for a folder meanwhile.
            real = here if self.address.host is not None else _real_path(here) or here
            if real in above:
                continue
            try:
                listed = self.driver.list_folder(here)
            except DRIVER_ERRORS as error:
                is_out = isinstance(error, LeadsOutside)
                if here == folder or not (is_out or _says_nothing_is_there(error)):
                    raise
                continue
            for status in listed:
                name = posixpath.basename(status.path)
                if name.startswith(("_", ".")):  # _temporary, _SUCCESS, .crc
                    continue
                if status.is_folder:
                    folders.append((status.path, (*above, real)))
                elif is_parquet_name(name):
                    yield status

    def is_inside(self, real: str) -> bool:
        """Tell whether a real path of this machine is below a root."""
        return self._is_below(real, self._real_roots())

    def _is_served(self, path: str) -> bool:
        """Tell whether a path is spelled as one below a root, or as ``FileId`` spells those.

        A root may be a symbolic link, and the path of a file that was found is the real one.
        """
        if self._is_below(path, self.roots):
            return True
        return self.address.host is None and self._is_below(path, self._real_roots())

    def _real_roots(self) -> tuple[str, ...]:
        return tuple(real for root in self.roots if (real := _real_path(root)) is not None)

    @staticmethod
    def _is_below(path: str, roots: tuple[str, ...]) -> bool:
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)

    def _without_address(self, hdfs_path: str) -> str:
        """Return the path of a URI that names this very archive, and any other path as it is."""
        if not _SCHEME.match(hdfs_path):
            return hdfs_path
        place = _PLACE.match(hdfs_path)
        try:
            address = parse_address(place.group() + "/") if place else None
        except ValueError:
            address = None
        if place is None or address is None or not address.same_place(self.address):
            raise PathForbidden(
                "hdfsPath names another file system; give a path relative to the archive"
            )
        return hdfs_path[place.end() :] or "/"

    def _forget(self, path: str) -> None:
        file = self._open.pop(path, None)
        if file is not None and file.users == 0:
            file.close()

    def _close_oldest(self) -> None:
        while len(self._open) > self._most_open:
            self._forget(next(iter(self._open)))


def _leads_up(path: str) -> bool:
    """Tell whether a path has ``..`` in it, as it is or percent-encoded any number of times."""
    while True:
        if ".." in re.split(r"[/\\]", path) or "\x00" in path:
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
