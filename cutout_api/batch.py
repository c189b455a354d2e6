"""Many ids -> their stamps: found together, read file by file, answered in the order asked.

The list is worked off in windows, from its beginning. Of a window the alerts are looked up
together and grouped by file, and of each file every page, or run of blocks, is read once; then
its answers are taken one by one. A window is as large as ``limits.batch_memory`` has room for,
and small enough to be read well within a request's deadline: it counts as one of the concurrent
reads, so that single requests get their turn between two of them. Nothing is read ahead of what
is taken; a batch whose client is gone ends where it is.
"""

from __future__ import annotations

import itertools
import math
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from . import metrics
from .alert_columns import read_alert_columns
from .batch_request import BatchRequest
from .epochs import Alert, Entry
from .errors import (
    ClientLeft,
    CutoutError,
    DeadlineExceeded,
    FileChanging,
    FileUnreadable,
    NotFound,
    PathForbidden,
    StorageUnavailable,
    StoredDataError,
)
from .index import FileIndex, Location
from .lookup import Lookup
from .pages import Plan
from .reader import (
    NOBODY_WAITS,
    PATIENCE,
    Reader,
    entry_of,
    find_again,
    not_found,
    rank_copy,
    stamp_missing,
    still_lacking,
)
from .request import CutoutRequest
from .settings import Limits
from .storage import FileChanged, FileId, OpenFile, being_rewritten
from .surveys import KeyValue
from .work import going_on, has_left

T = TypeVar("T")
FIRST_WINDOW = 64
"""Ids; what they take tells how many may be next."""
LARGEST_WINDOW = 8192
GROWTH = 8
SHARE_OF_DEADLINE = 0.2
"""Of the time that a request may take, what a window should."""
OVERRUN = 2
"""Times its memory that a window may take before it is cut."""
SLOWEST = 3
"""Windows in a row that may run into the deadline, each smaller than the one before."""


class _TooMuch(Exception):
    """The stamps of a window do not fit the memory that it has."""


@dataclass(frozen=True)
class Result:
    """What one id gave."""

    number: int
    """Of the id in the list."""
    request: CutoutRequest
    alert: Alert | None
    error: CutoutError | None


@dataclass
class _Read:
    """One id of a window: what has been found and read of it so far."""

    number: int
    request: CutoutRequest
    entry: Entry | None = None
    location: Location | None = None
    cells: dict[str, bytes] = field(default_factory=dict)
    error: CutoutError | None = None
    has_copies: bool = False
    """The catalog knows another place, which is looked at when its turn comes."""


class _Budget:
    """Counts the bytes of a window, for several threads."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._lock = threading.Lock()
        self.used = 0

    def add(self, size: int) -> None:
        going_on()
        with self._lock:
            self.used += size
        if self.used > self._most:
            raise _TooMuch


class Search:
    """Looks for the ids of a batch in the files of its path, each file once, some at a time."""

    def __init__(self, reader: Reader, asked: BatchRequest, values: Sequence[KeyValue]) -> None:
        self._asked, self._values = asked, values
        self._best: dict[KeyValue, tuple[Any, Location]] = {}
        self._damaged: FileUnreadable | FileChanging | None = None
        self._lacking: str | None = ""
        self._indexes = reader.indexes_at(asked.template.path or "")

    def look(self, seconds: float) -> bool:
        """Look through files for so long; return whether there may be more of them."""
        template, key = self._asked.template, self._asked.key
        end = clock.monotonic() + seconds
        for index in self._indexes:
            if isinstance(index, FileUnreadable | FileChanging):
                if not isinstance(self._damaged, FileChanging):
                    self._damaged = index
            else:
                self._lacking = still_lacking(self._lacking, index, template)
                for place, found in index.find_many(template.survey, key, self._values):
                    value = self._values[place]
                    candidate = (rank_copy(template, found, index), found)
                    if value not in self._best or self._best[value][0] < candidate[0]:
                        self._best[value] = candidate
            if clock.monotonic() > end:
                return True
        return False

    def found(self, request: CutoutRequest) -> Entry | CutoutError:
        """Return where the newest matching alert is, as ``Reader`` chooses, or why there is none.

        To be called once all files were looked through.
        """
        best = self._best.get(request.keys[self._asked.key.name])
        if self._damaged is not None and not (best and self._asked.template.names_one_alert):
            return self._damaged
        return not_found(request, self._lacking) if best is None else entry_of(best[1])


class Batches:
    """Answers batches for all threads of one process."""

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self.reader = reader
        self.limits = limits
        self.lookup = Lookup(reader.catalog, reader.archive, reader.opened)

    def settle(self, asked: BatchRequest) -> BatchRequest:
        """Return the batch as one of the survey that has most of its first ids, where several may.

        Raises as ``Reader.read`` does.
        """
        surveys = (asked.template.survey, *asked.template.others)
        if len(surveys) == 1:
            return asked
        path = asked.template.path
        some = asked.values()[:FIRST_WINDOW]

        def count() -> list[int]:
            counts = [0] * len(surveys)
            if path is None:
                ids = [int(value) for value in some]
                return [len(self.reader.catalog.find_alerts(it, ids)) for it in surveys]
            for index in self.reader.indexes_at(path):
                if isinstance(index, FileUnreadable | FileChanging):
                    continue
                for number, survey in enumerate(surveys):
                    found = index.find_many(survey, asked.key_of(survey), some)
                    counts[number] += sum(1 for _ in found)
                if any(counts):
                    break
            return counts

        counts = self.reader.run(lambda: self.reader.twice(path or "", count), PATIENCE)
        best = surveys[counts.index(max(counts))]
        return asked if best is asked.template.survey else asked.of(best)

    def open(self, asked: BatchRequest) -> Batch:
        """Return a batch with its first window read; it is to be closed. Raises a CutoutError."""
        batch = Batch(self, asked)
        try:
            batch.begin()
        except BaseException:
            batch.close()
            raise
        return batch


class Batch:
    """One batch: an iterator of results in the order asked, to be taken once, and closed."""

    def __init__(self, batches: Batches, asked: BatchRequest) -> None:
        self._reader, self._lookup = batches.reader, batches.lookup
        self._limits, self._asked = batches.limits, asked
        self._until = clock.monotonic() + self._limits.batch_seconds
        self._search: Search | None = None
        self._results = self._work()
        self._first: deque[Result] = deque()

    def begin(self) -> None:
        """Read the first window, so that what is wrong with all of it is an error of its own."""
        if self._asked.template.is_direct:
            path = self._asked.template.path or ""
            self._search = self._reader.twice(path, self._look_through_files)
        if not self._asked.dry_run:
            self._first.append(next(self._results))
            self._until = math.inf  # from here on, sending shows whether there is a client

    def _look_through_files(self) -> Search:
        search = Search(self._reader, self._asked, self._asked.values())
        seconds = self._limits.deadline_seconds * SHARE_OF_DEADLINE
        left = True
        while left:
            self._check_is_awaited()
            left = self._reader.run(partial(search.look, seconds), PATIENCE)
        return search

    def _check_is_awaited(self) -> None:
        """Raise ClientLeft, or DeadlineExceeded, where a batch that has sent nothing is to end."""
        if self._until == math.inf:
            return
        if has_left.get()():
            raise ClientLeft(NOBODY_WAITS)
        if clock.monotonic() > self._until:
            raise DeadlineExceeded(
                f"finding these ids took longer than {self._limits.batch_seconds:g} s: "
                "send fewer at once, or name fewer files"
            )

    def __iter__(self) -> Iterator[Result]:
        try:
            while self._first:
                yield self._first.popleft()
            yield from self._results
        finally:
            self.close()

    def close(self) -> None:
        """End the work, wherever it is."""
        self._results.close()

    def _work(self) -> Generator[Result, None, None]:
        for window in self._windows(self._read_window):
            while window:
                yield self._finish(window.popleft())

    # --- windows

    def _windows(self, work: Callable[[Sequence[int], _Budget], T]) -> Iterator[T]:
        """Yield what ``work`` makes of each window: it takes numbers of ids and a budget."""
        start, size, failed = 0, FIRST_WINDOW, 0
        count = len(self._asked.ids)
        while start < count:
            self._check_is_awaited()
            numbers = range(start, min(start + size, count))
            room = self._limits.batch_memory * OVERRUN if size > 1 else math.inf
            budget = _Budget(room)
            begun = clock.monotonic()
            try:
                made = self._reader.run(partial(work, numbers, budget), PATIENCE)
            except _TooMuch:
                size = max(1, len(numbers) // 4)
                continue
            except DeadlineExceeded:
                failed += 1
                if failed == SLOWEST:
                    raise
                size = max(1, len(numbers) // 8)
                continue
            failed = 0
            start = numbers.stop
            size = self._next_size(len(numbers), budget.used, clock.monotonic() - begun)
            yield made

    def _next_size(self, ids: int, size: int, seconds: float) -> int:
        """Return how many ids fit a window, if they are like those of the last one."""
        by_memory = self._limits.batch_memory * ids / max(size, 1)
        by_time = self._limits.deadline_seconds * SHARE_OF_DEADLINE * ids / max(seconds, 1e-6)
        return max(1, int(min(by_memory, by_time, LARGEST_WINDOW, ids * GROWTH)))

    def _read_window(self, numbers: Sequence[int], budget: _Budget) -> deque[_Read]:
        reads = self._find(numbers)
        files = self._by_file(reads)
        with metrics.stage("read"):
            try:
                self._reader.together([partial(self._read_file, *it, budget) for it in files])
            except _TooMuch:
                for read in reads:  # an exception keeps alive what it came through
                    read.cells = {}
                raise
            self._look_for_copies(reads)
        unavailable = [r.error for r in reads if isinstance(r.error, StorageUnavailable)]
        if len(unavailable) == len(reads):  # the archive is gone, not a file of it
            raise unavailable[0]
        return deque(reads)

    @staticmethod
    def _by_file(reads: Sequence[_Read]) -> list[tuple[str, list[_Read]]]:
        files: dict[str, list[_Read]] = {}
        for read in reads:
            if read.entry is not None:
                files.setdefault(read.entry.file.path, []).append(read)
        return list(files.items())

    # --- finding

    def _find(self, numbers: Sequence[int]) -> list[_Read]:
        """Return the ids with where they are known to be."""
        reads, good = [], []
        for number in numbers:
            try:
                read = _Read(number, self._asked.request(number))
                good.append(read)
            except CutoutError as error:
                read = _Read(number, self._asked.template, error=error)
            reads.append(read)
        if not good:
            return reads
        key = self._asked.key.name
        # Equal ids are looked for once.
        requests = {read.request.keys[key]: read.request for read in good}
        with metrics.stage("find"):
            entries = self._find_good(list(requests.values()))
        found = dict(zip(requests, entries, strict=True))
        for read in good:
            entry = found[read.request.keys[key]]
            if isinstance(entry, CutoutError):
                read.error = entry
            else:
                read.entry = entry
        return reads

    def _find_good(self, requests: Sequence[CutoutRequest]) -> list[Entry | CutoutError]:
        if self._search is not None:
            return [self._search.found(request) for request in requests]

        def find() -> list[Entry | CutoutError]:
            return list(self._lookup.choose_many(requests))

        return self._reader.twice(self._asked.template.path or "", find)

    # --- reading

    def _read_file(self, path: str, reads: Sequence[_Read], budget: _Budget) -> None:
        """Read the stamps of one file into ``reads``, or note the error."""
        try:
            self._reader.twice(path, lambda: self._read_version(path, reads, budget))
        except CutoutError as error:
            for read in reads:
                read.cells, read.error = {}, error

    def _read_version(self, path: str, reads: Sequence[_Read], budget: _Budget) -> None:
        archive = self._reader.archive
        file_id = archive.present(path)
        with self._reader.opened(file_id) as file:
            index = self._reader.index_of(file)
            known = index.growth
            rows = self._rows(index, reads)
            self._renew_facts(file, rows)
            intact = [self._read_kind(kind, file, index, rows, budget) for kind in self._kinds]
            if index.growth > known:
                self._reader.keep(index)
        if archive.changes_in_place or not all(intact):
            archive.check_unchanged(file_id)
        if not all(intact):
            self._doubt_damage(file_id, rows)
        for some in rows.values():
            for read in some:
                self._check_stamps(read, index)

    def _doubt_damage(self, file_id: FileId, rows: dict[int, list[_Read]]) -> None:
        """Say of what cannot be read that the file may still be being written, where it may."""
        for read in itertools.chain.from_iterable(rows.values()):
            if isinstance(read.error, StoredDataError):
                try:
                    self._reader.archive.check_blame(file_id, read.error)
                except FileChanging as changing:
                    read.error = changing

    @property
    def _kinds(self) -> tuple[str, ...]:
        return self._asked.template.kinds

    def _rows(self, index: FileIndex, reads: Sequence[_Read]) -> dict[int, list[_Read]]:
        """Return the reads by their row in the file as that is now."""
        survey = self._asked.template.survey
        rows: dict[int, list[_Read]] = {}
        for read in reads:
            entry = read.entry
            if entry is None:
                continue
            read.cells, read.error = {}, None
            read.location = found = find_again(survey, entry, index)
            if found is None:
                read.error = self._lookup.stale(entry)
            else:
                rows.setdefault(found.row, []).append(read)
        return rows

    def _renew_facts(self, file: OpenFile, rows: dict[int, list[_Read]]) -> None:
        """Note what the file itself says of alerts whose facts are of another version, or none."""
        template = self._asked.template
        old = [read for some in rows.values() for read in some if _is_of_another(read, file.id)]
        for read in old:
            if read.location is not None:
                read.entry = entry_of(read.location)
        if not template.needs_facts or not (old or template.is_direct):
            return
        for alerts in read_alert_columns(file):
            if alerts.survey is template.survey:
                for entry in alerts.entries(file.id):
                    for read in rows.get(entry.row, ()):
                        read.entry = entry

    def _read_kind(
        self,
        kind: str,
        file: OpenFile,
        index: FileIndex,
        rows: dict[int, list[_Read]],
        budget: _Budget,
    ) -> bool:
        """Read the stamps of one kind; return whether all of them could be read."""
        intact = True
        column = index.stamp_column(self._asked.template.survey, kind)
        if column is None or not rows:
            return intact
        for row, cell in index.read_stamps(file, column, rows):
            if isinstance(cell, StoredDataError):
                intact = False
                for read in rows[row]:
                    read.error = cell
            elif cell:
                budget.add(len(cell))
                for read in rows[row]:
                    read.cells[kind] = cell
        return intact

    def _check_stamps(self, read: _Read, index: FileIndex) -> None:
        missing = [kind for kind in self._kinds if kind not in read.cells]
        if read.error is None and missing and read.location is not None:
            there = list(read.cells)
            read.error = stamp_missing(read.request, read.location, index, missing, there)

    def _look_for_copies(self, reads: Sequence[_Read]) -> None:
        """Note of what failed in one file whether the catalog knows it in another."""
        for read in reads:
            entry, error = read.entry, read.error
            if entry is None or not isinstance(error, _MAY_BE_ELSEWHERE):
                continue
            read.has_copies = bool(self._lookup.other_copies(read.request, entry))
            if not read.has_copies and not _is_final(error):
                read.error = self._lookup.stale(entry)

    # --- answering

    def _finish(self, read: _Read) -> Result:
        """Unpack what was read. What cannot be used is read again, as a single request is."""
        request = read.request
        # An error of another id of its window may keep the read alive, by its traceback.
        cells, read.cells = read.cells, {}
        try:
            if read.has_copies:
                return Result(read.number, request, self._reader.read(request, PATIENCE), None)
            if read.error is not None:
                return Result(read.number, request, None, read.error)
            try:
                with metrics.stage("decode"):
                    stamps = tuple(self._reader.unpack(kind, cells[kind]) for kind in self._kinds)
            except StoredDataError:
                return Result(read.number, request, self._reader.read(request, PATIENCE), None)
        except CutoutError as error:
            return Result(read.number, request, None, error)
        return Result(read.number, request, Alert(stamps, read.entry), None)

    # --- how much it would be

    def plan(self) -> dict[str, Any]:
        """Return how much would be read, for JSON, reading no stamp. Raises a CutoutError."""
        plan, files, known = Plan(), set[str](), 0
        errors: dict[str, int] = {}
        for part, paths, failed in self._windows(self._plan_window):
            plan += part
            files |= paths
            for error in failed:
                errors[error.code] = errors.get(error.code, 0) + 1
        known = len(self._asked.ids) - sum(errors.values())
        return {
            "ids": len(self._asked.ids),
            "known": known,
            "unknown": sum(errors.values()),
            "errors": errors,
            "files": len(files),
            "stamps": known * len(self._kinds),
            "reads": plan.reads,
            "pages": plan.pages,
            "blocks": plan.blocks,
            "row_groups": plan.row_groups,
            "bytes": plan.bytes,
            "stamp_bytes": plan.stamp_bytes,
        }

    def _plan_window(
        self, numbers: Sequence[int], budget: _Budget
    ) -> tuple[Plan, set[str], list[CutoutError]]:
        reads = self._find(numbers)
        files = self._by_file(reads)
        plans = self._reader.together([partial(self._plan_file, *of_file) for of_file in files])
        total = Plan()
        for plan in plans:
            total += plan
        budget.used = total.stamp_bytes
        return total, {path for path, _ in files}, [r.error for r in reads if r.error is not None]

    def _plan_file(self, path: str, reads: Sequence[_Read]) -> Plan:
        plan = Plan()
        try:
            file_id = self._reader.archive.present(path)
            with self._reader.opened(file_id) as file:
                index = self._reader.index_of(file)
                rows = self._rows(index, reads)
                for kind in self._kinds:
                    column = index.stamp_column(self._asked.template.survey, kind)
                    if column is not None and rows:
                        plan += index.plan_stamps(file, column, rows)
        except (CutoutError, FileChanged) as caught:
            error = caught if isinstance(caught, CutoutError) else None
            for read in reads:
                read.error = error or being_rewritten(path)
        return plan


def _is_of_another(read: _Read, file_id: FileId) -> bool:
    return read.entry is not None and read.entry.file != file_id


_MAY_BE_ELSEWHERE = (NotFound, PathForbidden, StoredDataError, FileChanging)


def _is_final(error: CutoutError) -> bool:
    """Whether an error is told as it is; others mean that the catalog knows an old place."""
    final = StoredDataError | FileChanging
    return isinstance(error, final) or error.code in ("stamp_missing", "alert_not_found")
