"""A ``CutoutRequest`` -> its stamps: find the alert, read its cells, unpack them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import metrics
from .alert_columns import read_entry
from .catalog import Catalog
from .epochs import Alert, Entry
from .errors import (
    AlertNotFound,
    AmbiguousId,
    AnswerTooLarge,
    ArchiveFileNotFound,
    ClientLeft,
    CutoutError,
    DeadlineExceeded,
    FileChanging,
    FileUnreadable,
    InvalidParameter,
    NotFound,
    NotParquet,
    PathForbidden,
    Saturated,
    StampMissing,
    StampTooLarge,
    StorageUnavailable,
    StoredDataError,
    shorten,
)
from .index import NEVER, NO_ID, Epoch, FileIndex, IndexCache, IndexStore, Location
from .lookup import Lookup
from .request import CutoutRequest, IdentifyRequest, Meaning, as_of
from .settings import Settings
from .stamp import Stamp, StampLimits, unpack
from .storage import Archive, FileChanged, FileId, OpenFile, being_rewritten
from .surveys import Survey, list_titles
from .work import Stopped, Work, going_on, has_left, settle

T = TypeVar("T")
NOTICE_SECONDS = 1.0
"""After so long, and again, a request that is waited for is asked whether its client is there."""
NOBODY_WAITS = "the client left before there was an answer"
PATIENCE = 10
"""Of what is a part of a larger answer, which would break off if there were no place for it."""


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
        self._epochs = ThreadPoolExecutor(settings.limits.concurrent_reads, "epochs")
        self.catalog = Catalog(settings.catalog, self.archive.address)
        self._lookup = Lookup(self.catalog, self.archive, self.opened)
        self._running: set[Work] = set()

    def read(self, request: CutoutRequest, patience: int = 1) -> Alert:
        """Return the alert and its stamps, one for each kind asked, in that order.

        Raises a CutoutError; what takes longer than the deadline ends at its next step, and
        keeps its place among the concurrent reads until then.
        """
        return self.run(lambda: self._read_alert(request), patience)

    def _read_alert(self, request: CutoutRequest) -> Alert:
        return self._read(request) if request.is_direct else self._read_chosen(request)[0]

    def read_epochs(self, request: CutoutRequest) -> Sequence[Alert]:
        """Return every alert that the request's choice leaves, oldest first.

        A stamp that an alert does not have is left out. Raises as ``read`` does, and
        AnswerTooLarge.
        """
        return self.run(lambda: self._read_chosen(request), room=self._limits.answer_bytes)

    def read_settled(self, request: CutoutRequest) -> tuple[CutoutRequest, Alert]:
        """Return what ``settle`` does, and ``read``, as one of the concurrent reads."""
        if not request.others:
            return request, self.read(request)

        def read() -> tuple[CutoutRequest, Alert]:
            if request.is_direct:
                # Most are of the first; looking for the others costs next to nothing then.
                path = request.path or ""
                try:
                    return request, self.twice(path, lambda: self._read_once(request))
                except AlertNotFound:
                    pass
                except (NotFound, StoredDataError):
                    self.archive.forget(path)
                    raise
            settled = self._settle(request)
            return settled, self._read_alert(settled)

        return self.run(read)

    def settle(self, request: CutoutRequest) -> CutoutRequest:
        """Return the request as one of the survey that has its alert, where several may.

        The file says which, or the catalog. Raises AmbiguousId, and as ``read`` does.
        """
        return self.run(lambda: self._settle(request)) if request.others else request

    def _settle(self, request: CutoutRequest) -> CutoutRequest:
        if request.path is None and not any(
            self._lookup.knows(it, request.keys) for it in request.others
        ):
            return request  # if nobody has it, reading says so
        surveys = (request.survey, *request.others)
        found = self.twice(request.path or "", lambda: self._find_surveys(request, surveys))
        if len(found) > 1:
            raise ambiguous(request, found)
        if not found or found[0] is request.survey:
            return request
        return as_of(request, found[0])

    def _find_surveys(
        self, request: CutoutRequest, surveys: Sequence[Survey]
    ) -> tuple[Survey, ...]:
        """Return those of some surveys that have an alert of these keys, else the first whose
        alerts the files of the path hold."""
        if request.path is None:
            return tuple(it for it in surveys if self._lookup.knows(it, request.keys))
        there: list[Survey] = []
        found: list[Survey] = []
        for index in self.indexes_at(request.path):
            if isinstance(index, FileUnreadable | FileChanging):
                continue
            mine = [survey for survey in surveys if survey.name in index.surveys]
            there += mine
            found += (it for it in mine if it not in found and index.find(it, request.keys))
        return tuple(found) or tuple(there[:1])

    def identify(self, request: IdentifyRequest) -> list[tuple[Meaning, Sequence[Entry]]]:
        """Return what an id may name, each with the alerts of its object. Raises as ``read``."""
        path = request.path or ""
        return self.run(lambda: self.twice(path, lambda: self._lookup.identify(request)))

    def learn(self, file_id: FileId, *, blocks: bool) -> None:
        """Learn ahead of time what there is to know of one file.

        With ``blocks`` every stamp column is read once, to note where each stamp is in it.
        Raises FileChanged where the file is replaced meanwhile, and a CutoutError.
        """
        with self.opened(file_id) as file:
            index = self._indexes.get(file)
            index.complete(file, blocks=blocks)
            self._indexes.keep(index)

    def forget(self, path: str) -> None:
        """Forget what is known of a file that is gone."""
        self._indexes.forget(path)

    def check(self) -> None:
        """Raise a CutoutError unless the archive answers within the deadline."""
        self.run(self.archive.check)

    def close(self) -> None:
        for work in tuple(self._running):
            work.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._cells.shutdown(wait=False, cancel_futures=True)
        self._epochs.shutdown(wait=False, cancel_futures=True)
        self.catalog.close()
        self.archive.close()

    def run(self, call: Callable[[], T], patience: int = 1, room: int | None = None) -> T:
        """Return what ``call`` returns, done as one of the concurrent reads, within its deadline.

        It waits ``patience`` times ``limits.queue_seconds`` for its turn, and may hold ``room``
        bytes of stamps.
        Raises Saturated, DeadlineExceeded, AnswerTooLarge, and whatever the call raises.
        """
        if not self._slots.acquire(timeout=patience * self._limits.queue_seconds):
            raise Saturated("as many requests as this service reads at a time are being read")
        work = Work(self._limits.deadline_seconds, room)
        self._running.add(work)
        try:
            future: Future[T] = self._pool.submit(work.run, call)
        except BaseException:  # no thread could be started, and nobody tells of the end
            self._end(work)
            raise
        future.add_done_callback(lambda _: self._end(work))
        try:
            return self._await(future, work)
        except Stopped:
            raise self._too_slow() from None

    def _await(self, future: Future[T], work: Work) -> T:
        """Wait for work until its deadline, or until its client is seen to have left."""
        left = self._limits.deadline_seconds
        while True:
            try:
                return future.result(min(left, NOTICE_SECONDS))
            except FutureTimeoutError:
                if future.done():  # in this very moment, or it ran into a time-out of the storage
                    with suppress(FutureTimeoutError):
                        return future.result()
                    raise StorageUnavailable("the archive does not answer") from None
            left = work.until - time.monotonic()
            is_left_alone = has_left.get()()
            if left <= 0 or is_left_alone:
                work.stop()
                future.cancel()
                raise ClientLeft(NOBODY_WAITS) if is_left_alone else self._too_slow()

    def _end(self, work: Work) -> None:
        self._running.discard(work)
        self._slots.release()

    def _too_slow(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the archive did not answer within {self._limits.deadline_seconds:g} s; "
            "try again in a moment"
        )

    def _read(self, request: CutoutRequest) -> Alert:
        path = request.path or ""
        try:
            return self.twice(path, lambda: self._read_once(request))
        except (NotFound, StoredDataError, FileChanging):
            self.archive.forget(path)  # whoever asks next shall not be told of old files
            raise

    def twice(self, path: str, work: Callable[[], T]) -> T:
        """Return what ``work`` does, once more with the new file where one was replaced meanwhile.

        Raises FileChanging where that is replaced too.
        """
        try:
            return work()
        except FileChanged:
            self.archive.forget(path)
        try:
            return work()
        except FileChanged as error:
            self.archive.forget(path)
            raise being_rewritten(path) from error

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
        return self._decode(request, location, cells)

    def _decode(
        self,
        request: CutoutRequest,
        location: Location,
        cells: dict[str, bytes],
        entry: Entry | None = None,
    ) -> Alert:
        """Return the alert unpacked, with ``entry`` where that is of this version of the file."""
        with metrics.stage("decode"):
            try:
                stamps = tuple(self.unpack(kind, cells[kind]) for kind in cells)
            except StoredDataError as error:
                error.where = error.where or f"{location.file.path}, row {location.row}"
                self.archive.check_blame(location.file, error)
                raise
        known = entry is not None and entry.file == location.file
        facts = entry if known else self._facts_of(request, location)
        if self.archive.changes_in_place:
            self.archive.check_unchanged(location.file)
        return Alert(stamps, facts)

    def _facts_of(self, request: CutoutRequest, location: Location) -> Entry:
        """Return what is known of the alert; more than the index tells only where it is needed."""
        if request.needs_facts:
            with self.opened(location.file) as file:
                return read_entry(file, request.survey, location.row)
        return entry_of(location)

    # --- alerts that the catalog, or the columns of a file, have named

    def _read_chosen(self, request: CutoutRequest) -> Sequence[Alert]:
        with metrics.stage("look up"):
            entries = self.twice(request.path or "", lambda: self._lookup.choose(request))
        if len(entries) == 1 and not request.choice.every:
            return [self._read_entry(request, entries[0])]
        most = self._limits.epochs
        if len(entries) > most:
            raise InvalidParameter(
                "epochs", f"epochs: there are {len(entries)} alerts, and an answer holds {most}"
            )
        alerts = self._read_all(request, entries)
        if not any(alert.stamps for alert in alerts):
            raise StampMissing(
                f"none of the {len(alerts)} alerts has such a stamp", parameter="kind"
            )
        return alerts

    def _read_all(self, request: CutoutRequest, entries: Sequence[Entry]) -> list[Alert]:
        """Return many alerts; the first says how many of the others fit into memory at a time."""
        work = going_on()
        alerts = [self._read_epoch(request, entries[0])]
        held = sum(len(stamp.fits) for stamp in alerts[0].stamps)
        at_once = self._limits.answer_bytes // max(2 * held, 1)
        at_once = max(1, min(at_once, self._limits.concurrent_reads))
        calls = [partial(self._read_epoch, request, entry) for entry in entries[1:]]
        try:
            return alerts + self.together(calls, at_once, self._epochs)
        except BaseException:
            work.stop()  # those being read end too
            raise

    def _read_epoch(self, request: CutoutRequest, entry: Entry) -> Alert:
        """Return one of many alerts, with those of its stamps that there are."""
        try:
            return self._read_entry(request, entry)
        except StampMissing as error:
            kinds = tuple(kind for kind in request.kinds if kind in error.there)
            if kinds:
                return self._read_entry(replace(request, kinds=kinds), entry)
            return Alert((), entry)

    def _read_entry(self, request: CutoutRequest, entry: Entry) -> Alert:
        """Read an alert where it was said to be, or where else the catalog knows it."""
        try:
            return self._read_copy(request, entry)
        except (NotFound, PathForbidden, StoredDataError, FileChanging) as error:
            for copy in self._lookup.other_copies(request, entry):
                with suppress(NotFound, PathForbidden, StoredDataError, FileChanging):
                    return self._read_copy(request, copy)
            if isinstance(error, StampMissing | StoredDataError | FileChanging):
                raise
            raise self._lookup.stale(entry) from error

    def _read_copy(self, request: CutoutRequest, entry: Entry) -> Alert:
        def read() -> Alert:
            location, index = self._find_entry(request, entry)
            with metrics.stage("read"):
                cells = self._read_cells(request, location, index)
            return self._decode(request, location, cells, entry)

        return self.twice(entry.file.path, read)

    def _find_entry(self, request: CutoutRequest, entry: Entry) -> tuple[Location, FileIndex]:
        """Return where an alert is in its file as that is now, and the file's index.

        Raises AlertNotFound where the file was rewritten without it.
        """
        file_id = self.archive.present(entry.file.path)
        with self.opened(file_id) as file:
            index = self._indexes.get(file)
        found = find_again(request.survey, entry, index)
        if found is None:
            raise self._lookup.stale(entry)
        return found, index

    def _find(self, request: CutoutRequest) -> tuple[Location, FileIndex]:
        """Return where the newest matching alert of the file or folder is, and its file's index.

        An alert that several files repeat is taken from one that has the asked kinds, and
        of those from the one written last. A file that cannot be read might hold a newer
        alert, so its error is raised, unless the alert was asked for by its own id.
        """
        candidates: list[tuple[Location, FileIndex]] = []
        damaged: FileUnreadable | FileChanging | None = None
        seen: list[FileId] = []
        lacking: str | None = ""
        rivals: list[Survey] = []
        for index in self.indexes_at(request.path or ""):
            if isinstance(index, FileUnreadable | FileChanging):
                # Of two, that which is worth another try.
                damaged = damaged if isinstance(damaged, FileChanging) else index
                continue
            seen.append(index.file_id)
            lacking = still_lacking(lacking, index, request)
            found = index.find(request.survey, request.keys)
            if found is not None:
                candidates.append((found, index))
            rivals += (it for it in request.others if index.find(it, request.keys))
        if damaged is not None and not (candidates and request.names_one_alert):
            raise damaged
        if not candidates:
            if self.archive.changes_in_place:  # what was half written may have lacked it
                for file_id in seen:
                    self.archive.check_unchanged(file_id)
            raise not_found(request, lacking)
        if rivals:
            raise ambiguous(request, (request.survey, *rivals[:1]))
        if len(candidates) == 1:
            return candidates[0]
        return max(candidates, key=lambda candidate: rank_copy(request, *candidate))

    def _read_cells(
        self, request: CutoutRequest, location: Location, index: FileIndex
    ) -> dict[str, bytes]:
        """Return the stored stamps by kind, read at the same time."""
        with self.opened(location.file) as file:
            known = index.growth

            def read(kind: str) -> bytes | None:
                column = index.stamp_column(request.survey, kind)
                return index.read_stamp(file, column, location.row) if column else None

            others: list[Future[bytes | None]] = []
            try:
                others += (self._cells.submit(read, kind) for kind in request.kinds[1:])
                found = [read(request.kinds[0]), *(other.result() for other in others)]
            finally:
                settle(others)
            if index.growth > known:  # pages were looked for
                self._indexes.keep(index)
            cells = {kind: cell for kind, cell in zip(request.kinds, found, strict=True) if cell}
            missing = [kind for kind in request.kinds if kind not in cells]
            if missing:
                raise stamp_missing(request, location, index, missing, list(cells))
            return cells

    def opened(self, file_id: FileId) -> _Opened:
        """Lend a file, and say FileChanged of whatever comes of its being replaced meanwhile."""
        return _Opened(self.archive, file_id)

    # --- for those who read many alerts at once ---

    def indexes_at(self, path: str) -> Iterator[FileIndex | FileUnreadable | FileChanging]:
        """Yield the index of each file that a path names, or why the file cannot be read.

        Among others a summary of them is left out: it holds no alerts itself.
        """
        files = self.archive.locate(path)
        for file_id in files:
            try:
                with self.opened(file_id) as file:
                    index = self.index_of(file)
            except (FileUnreadable, FileChanging) as error:
                yield error
            except NotParquet:
                if len(files) == 1:
                    raise
            else:
                yield index

    def index_of(self, file: OpenFile) -> FileIndex:
        return self._indexes.get(file)

    def keep(self, index: FileIndex) -> None:
        """Remember and store what an index has learnt."""
        self._indexes.keep(index)

    def unpack(self, kind: str, cell: bytes) -> Stamp:
        """Return a stored stamp, and count it where the work has a limit of bytes.

        Raises StoredDataError for what is none, or too large, and AnswerTooLarge.
        """
        work, limits = going_on(), self._stamp_limits
        if work.room is None:
            return unpack(kind, cell, limits)
        with work.lock:  # no two inflate into the same room
            most = min(work.room, limits.stamp_bytes)
            try:
                stamp = unpack(kind, cell, replace(limits, stamp_bytes=most))
            except StampTooLarge as error:
                if most == limits.stamp_bytes:
                    raise
                raise AnswerTooLarge(
                    f"the stamps are more than {self._limits.answer_bytes} bytes together: ask for "
                    "one kind, or for fewer epochs with date=from/to"
                ) from error
            work.room -= len(stamp.fits)
        return stamp

    def together(
        self,
        calls: Sequence[Callable[[], T]],
        at_once: int = 4,
        pool: ThreadPoolExecutor | None = None,
    ) -> list[T]:
        """Return what each call returns, ``at_once`` of them at the same time.

        Calls that themselves read with several threads need a ``pool`` of their own.
        """
        mine, pool = going_on(), pool or self._cells
        found: dict[int, T] = {}
        todo = iter(list(enumerate(calls)))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number, call = next(todo, (-1, None))
                if call is None:
                    return
                try:
                    mine.check()
                    found[number] = call()
                except BaseException:
                    with lock:
                        for _ in todo:  # nobody waits for the others any more
                            pass
                    raise

        others = [pool.submit(mine.run, work) for _ in range(min(at_once, len(calls)) - 1)]
        work()
        for other in others:
            if not other.cancel():  # one that has not begun has nothing left to do
                other.result()
        return [found[number] for number in range(len(calls))]


class _Opened:
    """Lends a file, and says FileChanged of whatever comes of its being replaced meanwhile."""

    __slots__ = ("_archive", "_file", "_id")

    def __init__(self, archive: Archive, file_id: FileId) -> None:
        self._archive, self._id = archive, file_id

    def __enter__(self) -> OpenFile:
        going_on()
        self._file = self._archive.open(self._id)
        return self._file

    def __exit__(self, _cls: object, error: BaseException | None, _trace: object) -> None:
        self._archive.give_back(self._file)
        if isinstance(error, ArchiveFileNotFound):
            raise FileChanged(self._id.path) from error
        if isinstance(error, CutoutError):
            self._archive.check_blame(self._id, error)


def entry_of(found: Location) -> Entry:
    """Return what a file's index knows of an alert."""
    time, alert_id = found.epoch.time, found.epoch.alert_id
    return Entry(
        found.file,
        found.row,
        None if alert_id == NO_ID else alert_id,
        None,
        math.nan if time == NEVER else time,
    )


def find_again(survey: Survey, entry: Entry, index: FileIndex) -> Location | None:
    """Return where an alert is in its file as that is now: its own index has the last word."""
    if entry.alert_id is not None:
        return index.find(survey, {survey.alert_key.name: entry.alert_id})
    if entry.file != index.file_id:
        return None
    epoch = Epoch(NEVER if math.isnan(entry.time) else entry.time, int(NO_ID))
    return Location(entry.file, entry.row, epoch)


def rank_copy(
    request: CutoutRequest, found: Location, index: FileIndex
) -> tuple[Epoch, bool, int, str]:
    """Return what is greatest of the alert to take where several files have one that matches."""
    kinds = (index.stamp_column(request.survey, kind) for kind in request.kinds)
    return found.epoch, all(kinds), found.file.modified, found.file.path


def stamp_missing(
    request: CutoutRequest,
    location: Location,
    index: FileIndex,
    missing: list[str],
    there: list[str],
) -> StampMissing:
    """Return the error for an alert that lacks some of the stamps asked for."""
    absent = [kind for kind in missing if index.stamp_column(request.survey, kind) is None]
    doubts = (index.stamp_doubt(request.survey, kind) for kind in absent)
    why = f"{', '.join(missing)} is null in the archive"
    if absent:
        reason = "".join(f": {doubt}" for doubt in doubts if doubt)
        why = f"its file holds no column for {', '.join(absent)}{reason}"
    hint = f"; there is {', '.join(there)}" if there else ""
    error = StampMissing(
        f"alert {location.epoch.alert_id} is there, but {why}{hint}", parameter="kind"
    )
    error.there = tuple(there)
    return error


def still_lacking(lacking: str | None, index: FileIndex, request: CutoutRequest) -> str | None:
    """Return why neither the files before nor this one have the ids asked for; None: one has."""
    if lacking is None:
        return None
    reason = index.lacks_keys(request.survey, request.keys)
    return None if reason is None else lacking or reason


def ambiguous(request: CutoutRequest, surveys: Sequence[Survey]) -> AmbiguousId:
    """Return the error for an id that names alerts of several surveys."""
    (name, value), *_ = request.keys.items()
    titles = list_titles(surveys)
    return AmbiguousId(
        name, f"{name} {value} is an alert of {titles}: name its object or its file too"
    )


def not_found(request: CutoutRequest, lacking: str | None) -> AlertNotFound:
    """Return the error for an alert that no file of a path has.

    ``lacking`` says why no file has such ids at all, empty where nothing is known of it; None: one
    has them.
    """
    sought = " and ".join(f"{name} {value}" for name, value in request.keys.items())
    if lacking is None:
        return AlertNotFound(f"no alert with {sought} in {shorten(request.path)}")
    return AlertNotFound(
        f"{shorten(request.path)} has no column for {', '.join(request.keys)}: "
        + (lacking or f"it does not hold alerts of {request.survey.name.upper()}")
    )
