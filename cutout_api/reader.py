"""A ``CutoutRequest`` -> its stamps: find the alert, read its cells, unpack them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from . import metrics
from .epochs import Entry
from .errors import (
    AlertNotFound,
    ArchiveFileNotFound,
    CutoutError,
    DeadlineExceeded,
    FileUnreadable,
    NotFound,
    Saturated,
    StampMissing,
    StorageUnavailable,
    StoredDataError,
    shorten,
)
from .facts import read_entries
from .index import NEVER, NO_ID, Epoch, FileIndex, IndexCache, IndexStore, Location
from .request import CutoutRequest
from .settings import Settings
from .stamp import Stamp, StampLimits, unpack
from .storage import Archive, FileChanged, FileId, OpenFile

T = TypeVar("T")


@dataclass(frozen=True)
class Alert:
    """The alert that answers a request, and the stamps that were asked for."""

    alert_id: int | None
    """None where the file has no ids of alerts."""
    stamps: tuple[Stamp, ...]
    entry: Entry | None = None
    """Its id and time, and all its facts where the request needs them."""


class Reader:
    """Reads the archive for all threads of one process, so many at a time, each so long."""

    def __init__(self, settings: Settings) -> None:
        self.archive = Archive(settings)
        self._limits = settings.limits
        self._stamp_limits = StampLimits(settings.limits.stamp_bytes, settings.limits.image_pixels)
        folder = settings.index.folder
        store = IndexStore(Path(folder), str(self.archive.address)) if folder else None
        self._indexes = IndexCache(settings.limits.index_bytes, store)
        self._slots = threading.BoundedSemaphore(settings.limits.concurrent_reads)
        # Threads that read through libhdfs never end before the process does: as they end, they
        # detach from the JVM, which can hang (see docs/decisions/0003-threads-and-the-jvm.md).
        self._pool = ThreadPoolExecutor(settings.limits.concurrent_reads, "reader")
        self._cells = ThreadPoolExecutor(2 * settings.limits.concurrent_reads, "cells")

    def read(self, request: CutoutRequest) -> Alert:
        """Return the alert and its stamps, one for each kind asked, in that order.

        Raises a CutoutError; what takes longer than the deadline goes on in the background,
        and keeps its place among the concurrent reads until it ends.
        """
        return self._within_limits(lambda: self._read(request))

    def index(self, path: str, *, blocks: bool) -> Iterator[tuple[FileId, CutoutError | None]]:
        """Learn ahead of time what there is to know of a file, or of each file of a folder.

        Yields each file as it is done, with the error of one that cannot be read. With
        ``blocks`` every stamp column is read once, to note where each stamp is in it.
        """
        for file_id in self.archive.locate(path):
            try:
                with self._opened(file_id) as file:
                    index = self._indexes.get(file)
                    index.complete(file, blocks=blocks)
                    self._indexes.keep(index)
            except CutoutError as error:
                yield file_id, error
            except FileChanged:
                yield file_id, StorageUnavailable("the file is being rewritten")
            else:
                yield file_id, None

    def check(self) -> None:
        """Raise a CutoutError unless the archive answers within the deadline."""
        self._within_limits(self.archive.check)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._cells.shutdown(wait=False, cancel_futures=True)
        self.archive.close()

    def _within_limits(self, work: Callable[[], T]) -> T:
        if not self._slots.acquire(timeout=self._limits.queue_seconds):
            raise Saturated("as many requests as this service reads at a time are being read")
        future: Future[T] = self._pool.submit(work)
        future.add_done_callback(lambda _: self._slots.release())
        try:
            return future.result(self._limits.deadline_seconds)
        except FutureTimeoutError:
            if future.done():  # the work itself ran into a time-out of the storage
                raise StorageUnavailable("the archive does not answer") from None
            future.cancel()
            raise DeadlineExceeded(
                f"the archive did not answer within {self._limits.deadline_seconds:g} s; "
                "try again in a moment"
            ) from None

    def _read(self, request: CutoutRequest) -> Alert:
        try:
            return self._read_once(request)
        except FileChanged:
            self.archive.forget(request.path)  # rewritten: find the alert in the new file
        except (NotFound, StoredDataError):
            self.archive.forget(request.path)  # whoever asks next shall not be told of old files
            raise
        try:
            return self._read_once(request)
        except FileChanged as error:
            raise StorageUnavailable(
                f"{shorten(request.path)} is being rewritten; try again in a moment"
            ) from error

    def read_stored(self, request: CutoutRequest) -> tuple[Location, dict[str, bytes]]:
        """Return where the alert is and its stamps as they are stored, by kind.

        This is the reading itself, done in the calling thread without limits. Raises
        FileChanged where a file is replaced meanwhile, and a CutoutError.
        """
        with metrics.stage("find"):
            location, index = self._find(request)
        with metrics.stage("read"):
            return location, self._read_cells(request, location, index)

    def _read_once(self, request: CutoutRequest) -> Alert:
        location, cells = self.read_stored(request)
        with metrics.stage("decode"):
            try:
                stamps = tuple(unpack(kind, cells[kind], self._stamp_limits) for kind in cells)
            except StoredDataError as error:
                error.where = error.where or f"{location.file.path}, row {location.row}"
                self.archive.check_unchanged(location.file)
                raise
        entry = self._read_entry(request, location)
        if self.archive.changes_in_place:
            self.archive.check_unchanged(location.file)
        return Alert(entry.alert_id, stamps, entry)

    def _read_entry(self, request: CutoutRequest, location: Location) -> Entry:
        """Return what is known of the alert; more than the index tells only where it is needed."""
        if request.needs_facts:
            with self._opened(location.file) as file:
                return read_entries(file, request.survey, [location.row])[0]
        time, alert_id = location.epoch.time, location.epoch.alert_id
        return Entry(
            location.file,
            location.row,
            None if alert_id == NO_ID else int(alert_id),
            None,
            math.nan if time == NEVER else float(time),
        )

    def _find(self, request: CutoutRequest) -> tuple[Location, FileIndex]:
        """Return where the newest matching alert of the file or folder is, and its file's index.

        An alert that several files repeat is taken from one that has the asked kinds, and
        of those from the one written last. A file that cannot be read might hold a newer
        alert, so its error is raised, unless the alert was asked for by its own id.
        """
        best: tuple[tuple[Epoch, bool, int, str], Location, FileIndex] | None = None
        damaged: FileUnreadable | None = None
        known = False
        for file_id in self.archive.locate(request.path):
            try:
                with self._opened(file_id) as file:
                    index = self._indexes.get(file)
            except FileUnreadable as error:
                damaged = error
                continue
            known = known or index.has_keys(request.survey, request.keys)
            found = index.find(request.survey, request.keys)
            if found is not None:
                kinds = (index.stamp_column(request.survey, kind) for kind in request.kinds)
                rank = (found.epoch, all(kinds), file_id.modified, file_id.path)
                if best is None or rank > best[0]:
                    best = rank, found, index
        if damaged is not None and not (best and request.names_one_alert):
            raise damaged
        if best is None:
            raise _not_found(request, known)
        return best[1:]

    def _read_cells(
        self, request: CutoutRequest, location: Location, index: FileIndex
    ) -> dict[str, bytes]:
        """Return the stored stamps by kind, read at the same time."""
        with self._opened(location.file) as file:
            known = len(index.tables)

            def read(kind: str) -> bytes | None:
                column = index.stamp_column(request.survey, kind)
                return index.read_stamp(file, column, location.row) if column else None

            others = [self._cells.submit(read, kind) for kind in request.kinds[1:]]
            found = [read(request.kinds[0]), *(future.result() for future in others)]
            if len(index.tables) > known:  # pages were looked for
                self._indexes.keep(index)
            cells = {kind: cell for kind, cell in zip(request.kinds, found, strict=True) if cell}
            missing = [kind for kind in request.kinds if kind not in cells]
            if missing:
                raise self._stamp_missing(request, location, index, missing, list(cells))
            return cells

    @contextmanager
    def _opened(self, file_id: FileId) -> Iterator[OpenFile]:
        """Lend a file, and say FileChanged of whatever comes of its being replaced meanwhile."""
        try:
            with self.archive.open(file_id) as file:
                yield file
        except ArchiveFileNotFound as error:
            raise FileChanged(file_id.path) from error
        except FileUnreadable:
            self.archive.check_unchanged(file_id)
            raise

    @staticmethod
    def _stamp_missing(
        request: CutoutRequest,
        location: Location,
        index: FileIndex,
        missing: list[str],
        there: list[str],
    ) -> StampMissing:
        absent = [kind for kind in missing if index.stamp_column(request.survey, kind) is None]
        why = (
            f"its file holds no column for {', '.join(absent)}"
            if absent
            else f"{', '.join(missing)} is null in the archive"
        )
        hint = f"; there is {', '.join(there)}" if there else ""
        return StampMissing(
            f"alert {location.epoch.alert_id} is there, but {why}{hint}", parameter="kind"
        )


def _not_found(request: CutoutRequest, known: bool) -> AlertNotFound:
    sought = " and ".join(f"{name} {value}" for name, value in request.keys.items())
    if known:
        return AlertNotFound(f"no alert with {sought} in {shorten(request.path)}")
    return AlertNotFound(
        f"{shorten(request.path)} has no column for {', '.join(request.keys)}: "
        f"it does not hold alerts of {request.survey.name.upper()}"
    )
