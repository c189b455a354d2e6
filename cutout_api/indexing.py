"""Filling the catalog: what is new, changed, damaged or gone in the archive.

Files are read by several threads, and written by one: one transaction each. Whatever is
interrupted is continued by running it again, since what was written is seen to be there.
"""

from __future__ import annotations

import json
import logging
import math
import os
import posixpath
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from .alert_columns import AlertColumns, read_alert_columns
from .catalog import (
    DAMAGED,
    GONE,
    HOW_TO_FILL,
    MOST_ROWS,
    OK,
    UNKNOWN_SCHEMA,
    Catalog,
    CatalogStatus,
)
from .errors import (
    ArchiveFileNotFound,
    CatalogUnavailable,
    CutoutError,
    FileChanging,
    PathForbidden,
    StorageUnavailable,
)
from .plain_text import LineFormatter, say
from .progress import show_progress
from .reader import Reader
from .settings import Settings
from .storage import SETTLING_SECONDS, FileChanged, FileId
from .surveys import list_titles

log = logging.getLogger("cutout_api")

CHANGING, UNAVAILABLE = "changing", "unavailable"
"""Of files that are to be looked at again; the catalog does not hold these states."""
MOST_FAILURES = 3
"""Files in a row that the storage does not give, until it is taken to be gone."""
FULL_WALK_SHARE = 0.02
"""How much of its time a watch may spend on listing everything."""
RECENT_NIGHTS = 2
NOTE_SECONDS = 30.0
"""How long the catalog may be called less fresh than it is, to spare it a write each round."""
_NIGHT = re.compile(r"(.*/)year=(\d{4})/month=(\d{1,2})/day=(\d{1,2})/")


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    path: str
    state: str
    alerts: int = 0
    message: str = ""

    @property
    def failed(self) -> bool:
        return self.state not in (OK, GONE)


@dataclass
class Plan:
    """What there is to do: files to read, and what the catalog holds that is gone."""

    listed: int = 0
    todo: list[FileId] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    late: list[FileId] = field(default_factory=list)
    """Written so recently that a rewrite might not show: looked at when that has passed."""

    @property
    def steps(self) -> int:
        return len(self.todo) + len(self.gone) + len(self.late)


class Indexer:
    """Brings the catalog up to what the archive holds.

    With ``pages``, where each page of stamps is goes to ``index.folder`` besides; with ``blocks``
    every file is read once to note where each stamp is in it.
    """

    def __init__(self, reader: Reader, *, blocks: bool, jobs: int, pages: bool = False) -> None:
        self._reader = reader
        self.archive = reader.archive
        self.catalog = reader.catalog
        self._blocks = blocks
        self._maps = blocks or pages
        self._jobs = jobs
        # Like those of the reader, threads that never end (see docs/decisions/0003).
        self._pool = ThreadPoolExecutor(jobs, "indexer")
        self._known: dict[str, tuple[FileId, str]] = {}
        """What the catalog holds: the version and the state of each file by path."""
        self._folders: dict[str, set[str]] = {}
        """The same paths by folder, of which there are far fewer."""
        self._outdated: set[str] = set()
        """Files that were compared with other surveys than there are now."""
        self._awaited: list[str] = []
        """Files that a watch found too young to read."""
        self._noted = -math.inf

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- finding what there is to do

    def plan(self, paths: Sequence[str] = (), *, retry: bool = True) -> Plan:
        """List folders or files, all that is served without ``paths``, and compare.

        With ``retry``, files that were damaged are read again even if they did not change.
        Raises ArchiveFileNotFound for a path where nothing is, nor was; StorageUnavailable.
        """
        self.catalog.prepare()
        self._known, self._folders = {}, {}
        for record in self.catalog.files():
            self._remember(record.id, record.state)
        self._outdated = self.catalog.outdated()
        return self._compare(paths or self.archive.roots, retry=retry, everything=not paths)

    def _compare(self, paths: Sequence[str], *, retry: bool, everything: bool) -> Plan:
        found: dict[str, FileId] = {}
        scopes: list[str] = []
        missing: list[CutoutError] = []
        for path in paths:
            try:
                files, folders = self._list(path)
            except ArchiveFileNotFound as error:
                missing.append(error)
                continue
            found |= {file_id.path: file_id for file_id in files}
            scopes += folders
        if missing and not found and not any(self._below(scopes)):
            raise missing[0]
        gone = sorted({path for path in self._below(scopes) if path not in found})
        if gone and not found:
            self.archive.check()
            if everything:
                raise StorageUnavailable(
                    f"the archive shows none of the {len(gone)} files that were there; "
                    "the catalog is left as it is"
                )
        plan = Plan(len(found), gone=gone)
        for file_id in found.values():
            known, state = self._known.get(file_id.path, (None, ""))
            is_known = known == file_id and file_id.path not in self._outdated
            if is_known and not self._maps and (state == OK or not retry):
                continue
            (plan.todo if file_id.is_settled else plan.late).append(file_id)
        return plan

    def _list(self, path: str) -> tuple[tuple[FileId, ...], list[str]]:
        """Return the files at a path, and the folders that were looked for."""
        folders: list[str] = []
        for folder in self.archive.candidates(path):
            self.archive.forget(folder)
            local = self.archive.address.host is None
            folders.append(os.path.realpath(folder) if local else folder)
            try:
                return self.archive.locate(folder), folders
            except ArchiveFileNotFound as error:
                absent = error
        if any(self._below(folders)):
            return (), folders
        raise absent

    def _below(self, folders: Sequence[str]) -> Iterator[str]:
        """Yield the files that the catalog knows in these folders."""
        yield from (folder for folder in dict.fromkeys(folders) if folder in self._known)
        above = tuple(folder.rstrip("/") + "/" for folder in folders)
        for folder, paths in self._folders.items():
            if f"{folder}/".startswith(above):
                yield from paths

    def _remember(self, file_id: FileId, state: str) -> None:
        self._known[file_id.path] = (file_id, state)
        self._folders.setdefault(posixpath.dirname(file_id.path), set()).add(file_id.path)

    def _drop(self, path: str) -> Outcome:
        self._reader.forget(path)
        if path in self._known:
            known, _ = self._known.pop(path)
            self.catalog.drop_file(known)
            self._folders[posixpath.dirname(path)].discard(path)
        return Outcome(path, GONE)

    # --- doing it

    def execute(self, plan: Plan, *, waits: bool = True) -> Iterator[Outcome]:
        """Do what is planned, and yield what came of each file as it is done.

        One that is being rewritten is tried once more, after some seconds, where it ``waits``.
        Raises StorageUnavailable when the storage is gone, CatalogUnavailable.
        """
        for path in plan.gone:
            yield self._drop(path)
        late = list(plan.late)
        for file_id, outcome in self._each(plan.todo):
            if waits and outcome.state == CHANGING:
                late.append(file_id)
            else:
                yield outcome
        if late:
            time.sleep(SETTLING_SECONDS + 0.1)
            again, outcomes = self._look_again(late)
            yield from outcomes
            yield from (outcome for _, outcome in self._each(again))

    def run(self, plan: Plan) -> list[Outcome]:
        """Do what is planned, to its end."""
        return list(self.execute(plan))

    def note_walk(self) -> None:
        """Note that the archive was looked through."""
        self.catalog.note_walk()
        self._noted = time.monotonic()

    def _look_again(self, late: Sequence[FileId]) -> tuple[list[FileId], list[Outcome]]:
        """Return the files that have settled, and what came of the others."""
        found: list[FileId] = []
        outcomes: list[Outcome] = []
        for file_id in late:
            self.archive.forget(file_id.path)
            try:
                present = self.archive.present(file_id.path)
            except ArchiveFileNotFound:
                outcomes.append(self._drop(file_id.path))
                continue
            if present.is_settled:
                found.append(present)
            else:
                changing = _state_after(FileChanged(present.path), present.path)
                outcomes.append(Outcome(present.path, *changing))
        return found, outcomes

    def _each(self, files: Sequence[FileId]) -> Iterator[tuple[FileId, Outcome]]:
        """Read files with all threads, a few ahead of what is written."""
        waiting = iter(files)
        running: dict[Future[tuple[Outcome, Sequence[AlertColumns]]], FileId] = {}
        failures = 0
        while True:
            for file_id in waiting:
                running[self._pool.submit(self._read, file_id)] = file_id
                if len(running) >= 2 * self._jobs:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                file_id = running.pop(future)
                outcome, columns = future.result()
                if outcome.state in (OK, DAMAGED, UNKNOWN_SCHEMA):
                    outcome = self._write(file_id, outcome, columns)
                failures = failures + 1 if outcome.state == UNAVAILABLE else 0
                if failures >= MOST_FAILURES:
                    for rest in running:
                        rest.cancel()
                    raise StorageUnavailable(outcome.message)
                yield file_id, outcome

    def _read(self, file_id: FileId) -> tuple[Outcome, Sequence[AlertColumns]]:
        """Read the catalog's columns of one file; whatever is wrong with it stops no other."""
        try:
            if self._maps:
                self._reader.learn(file_id, blocks=self._blocks)
            with self._reader.opened(file_id) as file:
                columns = read_alert_columns(file)
        except Exception as error:  # noqa: BLE001 - one bad file, and a night would not be indexed
            return Outcome(file_id.path, *_state_after(error, file_id.path)), ()
        rows = max((len(alerts) for alerts in columns), default=0)
        reason = ""
        if not columns:
            reason = f"it has no column for the ids of {list_titles(last='or')}"
        elif rows > MOST_ROWS:
            reason = f"it has {rows} rows, more than {MOST_ROWS}"
        if reason:
            return Outcome(file_id.path, UNKNOWN_SCHEMA, message=reason), ()
        warnings = dict.fromkeys(alerts.warning for alerts in columns if alerts.warning)
        return Outcome(file_id.path, OK, rows, "; ".join(warnings)), columns

    def _write(self, file_id: FileId, outcome: Outcome, columns: Sequence[AlertColumns]) -> Outcome:
        state, message = outcome.state, outcome.message
        check = self.archive.check_unchanged
        try:
            again = file_id.path in self._outdated
            self.catalog.put_file(
                file_id, columns, state=state, message=message, check=check, again=again
            )
        except FileChanged as error:
            return Outcome(file_id.path, *_state_after(error, file_id.path))
        self._outdated.discard(file_id.path)
        self._remember(file_id, state)
        return outcome

    # --- keeping up

    def watch(
        self, seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Outcome]:
        """Take in what appears, for ever; what goes wrong is logged, and tried again.

        Each round lists the folders of the last nights and of those to come; everything is
        listed as often as that takes a fiftieth of the time, in a small archive each round.
        """
        full_due = -math.inf
        failing = ""
        while True:
            start = time.monotonic()
            try:
                if start >= full_due:
                    self.archive.check()  # connecting takes time, but only once
                    begun = time.monotonic()
                    plan = self.plan(retry=False)
                    full_due = begun + (time.monotonic() - begun) / FULL_WALK_SHARE
                else:
                    paths = [*self._recent_folders(), *self._awaited]
                    plan = self._compare(paths, retry=False, everything=False)
                yield from self._round(plan)
                if failing:
                    log.info("the archive and the catalog answer again")
                failing = ""
            except ArchiveFileNotFound:
                log.debug("there is nothing yet in the folders of the last nights")
            except (StorageUnavailable, CatalogUnavailable, PathForbidden) as error:
                full_due = -math.inf
                if error.detail != failing:
                    failing = error.detail
                    log.warning("%s; trying again every %g s", failing, seconds)
            sleep(max(0.0, seconds - (time.monotonic() - start)))

    def _round(self, plan: Plan) -> Iterator[Outcome]:
        # A file that was written just now has its turn when it has settled.
        self._awaited = [file_id.path for file_id in plan.late]
        outcomes = self.execute(Plan(plan.listed, plan.todo, plan.gone), waits=False)
        changed = False
        for outcome in outcomes:
            if outcome.state == CHANGING:
                self._awaited.append(outcome.path)
                continue
            changed = True
            yield outcome
        if changed or time.monotonic() - self._noted > NOTE_SECONDS:
            self.note_walk()

    def _recent_folders(self) -> list[str]:
        return recent_folders(self._folders, datetime.now(UTC).date())


def _state_after(error: Exception, path: str) -> tuple[str, int, str]:
    """Return the state of a file that could not be read, no alerts, and the reason."""
    if isinstance(error, FileChanged | FileChanging):
        return CHANGING, 0, "it is being rewritten"
    if isinstance(error, StorageUnavailable):
        return UNAVAILABLE, 0, error.detail
    if isinstance(error, CutoutError):
        return DAMAGED, 0, error.detail
    log.error("%s cannot be indexed", path, exc_info=error)
    return DAMAGED, 0, f"it cannot be read: {type(error).__name__}"


def recent_folders(folders: Iterable[str], today: date) -> list[str]:
    """Return the folders where new files are to be expected.

    These are the last nights that there are, and the two after them, and those around
    ``today``, for each folder of nights, spelled as there (``month=1`` or ``month=01``).
    """
    nights: dict[str, set[date]] = {}
    width: dict[str, int] = {}
    for folder in folders:
        found = _NIGHT.match(folder + "/")
        if found:
            above, year, month, day = found.groups()
            try:
                night = date(int(year), int(month), int(day))
            except ValueError:
                continue
            nights.setdefault(above, set()).add(night)
            if night.month < 10 or night.day < 10:
                shortest = min(len(month), len(day))
                width[above] = min(width.get(above, 2), shortest)
    wanted = []
    for above, known in sorted(nights.items()):
        last = sorted(known)[-RECENT_NIGHTS:]
        one = timedelta(days=1)
        expected = {*last, last[-1] + one, last[-1] + 2 * one, today - one, today, today + one}
        for night in sorted(expected):
            digits = width.get(above, 2)
            wanted.append(
                f"{above}year={night.year}/month={night.month:0{digits}d}/day={night.day:0{digits}d}"
            )
    return wanted


# --- the command -------------------------------------------------------------------------------


@contextmanager
def open_indexer(
    settings: Settings, *, blocks: bool, jobs: int | None, pages: bool = False
) -> Iterator[Indexer]:
    """Lend an indexer with a reader of its own."""
    # The limits protect the service from its callers, not an operator from an archive.
    limits = replace(settings.limits, folder_files=sys.maxsize)
    reader = Reader(replace(settings, limits=limits))
    jobs = jobs or min(8, 2 * _cores())
    indexer = Indexer(reader, blocks=blocks, jobs=jobs, pages=pages)
    try:
        yield indexer
    finally:
        indexer.close()
        reader.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def index(indexer: Indexer, paths: Sequence[str]) -> int:
    """Index paths once, saying how far it is; return how many files could not be read."""
    _log_to_stderr()
    plan = indexer.plan(paths)
    failed = gone = alerts = 0
    with show_progress(plan.steps, "files", log.info, sum_up=True) as advance:
        for outcome in indexer.execute(plan):
            failed += outcome.failed
            gone += outcome.state == GONE
            if outcome.message:
                say(f"{outcome.path}: {outcome.message}", file=sys.stderr)
            alerts += outcome.alerts
            advance(f"{alerts:,} alerts")
    if not paths:
        indexer.note_walk()
    if gone:
        say(f"{gone} files are gone", file=sys.stderr)
    say(f"{plan.listed} files, {failed} of them could not be read")
    return failed


def watch(indexer: Indexer, seconds: float) -> int:
    """Take in what appears until interrupted, a line for each file."""
    _log_to_stderr()
    log.info("watching %s", indexer.archive)
    try:
        for outcome in indexer.watch(seconds):
            if outcome.message:
                log.warning("%s: %s: %s", outcome.path, outcome.state, outcome.message)
            elif outcome.state == GONE:
                log.info("%s: gone", outcome.path)
            else:
                log.info("%s: %d alerts", outcome.path, outcome.alerts)
    except KeyboardInterrupt:
        return 0
    return 0


def print_status(settings: Settings, *, as_json: bool) -> int:
    """Print what the catalog holds."""
    catalog = Catalog(settings.catalog, settings.archive.address)
    try:
        status = describe_status(catalog.status())
    finally:
        catalog.close()
    if as_json:
        print(json.dumps(status, indent=2))
        return 0
    say("files    ", ", ".join(f"{count:,} {state}" for state, count in status["files"].items()))
    alerts = ", ".join(f"{count:,} {survey}" for survey, count in status["alerts"].items())
    say("alerts   ", alerts or "none")
    say("newest   ", status["newest_night"] or "no night")
    say("freshness", status["freshness"] or f"never indexed: {HOW_TO_FILL}")
    for faulty in status["faulty"]:
        say(f"{faulty['state']}: {faulty['path']}: {faulty['message']}")
    return 0


def _log_to_stderr() -> None:
    if log.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)


def describe_status(status: CatalogStatus) -> dict[str, Any]:
    """Return what ``--status --json`` prints."""
    return {
        "files": dict(status.files),
        "alerts": dict(status.alerts),
        "newest_night": status.newest_night or None,
        "freshness": status.freshness.isoformat() if status.freshness else None,
        "faulty": [
            {"path": record.id.path, "state": record.state, "message": record.message}
            for record in status.faulty
        ],
    }
