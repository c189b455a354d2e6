"""Ids -> rows of alert data: find the alerts, read their rows from the archive's files, join them.

Each file is opened once, and of it the row groups, columns and rows are read that are asked
for. Stamps follow a chunk of rows at a time, while the answer is sent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from . import metrics
from .columns import Column, columns_of, derived_of, describe, maps_of, public_types
from .epochs import Entry
from .errors import (
    AnswerTooLarge,
    InvalidParameter,
    NotFound,
    PathForbidden,
    StorageUnavailable,
    StoredDataError,
    TooManyRows,
    nearest,
)
from .history import (
    Measurements,
    PastColumn,
    add_history,
    columns_needed,
    find_lists,
    join_measurements,
    take_apart,
)
from .joining import Columns, join, take_map_apart, without_nan
from .layouts import Leaves, clean_text, exact_integers
from .pages import Footer, first_rows_of, read_footer, read_rows
from .reader import PATIENCE, Reader, find_again
from .settings import Limits
from .stamp import read_pixels
from .storage import FileChanged, FileId, OpenFile, file_name
from .surveys import Past, Survey, View
from .table_formats import Chunk, Head, Images
from .table_request import TableRequest
from .work import going_on

log = logging.getLogger("cutout_api")

T = TypeVar("T")
CHUNK_ROWS = 500
CHUNK_STAMPS = 96
CHUNK_BYTES = 8 << 20
"""Of one chunk: rows or stamps, and bytes of stamps; read and held in memory at a time."""
HISTORY_ROWS = 10
"""What an alert counts for whose history is asked for too: all of it is in memory at once."""
SECOND = 1 / 86400


@dataclass(frozen=True)
class Answer:
    """The rows that answer a request, newest first."""

    head: Head
    rows: int
    unknown: tuple[str, ...]
    """Names of columns that were asked for and that nothing has."""
    unknown_ids: tuple[str, ...]
    """Of the ids that were asked for, those that no alert has; those that can be none come last."""
    hint: str
    """What is wrong with the first of the latter, else with the first of the others."""
    chunks: Generator[Chunk, None, None]
    """To be taken once, or closed; each reads its stamps as it is taken."""
    is_whole: bool = False
    """Whether there is no more than one chunk, which is read already."""


@dataclass(frozen=True)
class _Part:
    """The rows read from one file, with the entries as they turned out to be."""

    entries: Sequence[Entry]
    columns: Columns
    known: frozenset[str]
    """The names of all columns that the file could have given."""
    past: Mapping[Past, Measurements]
    """What the packets hold besides, where it is asked for."""


class Tables:
    """Reads tables of alert data for all threads of one process."""

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self._reader = reader
        self._limits = limits

    def read(self, asked: TableRequest) -> Answer:
        """Return the rows asked for. Raises a CutoutError.

        Their plain columns and the stamps of the first chunk are read now, and the other stamps
        by and by. Each of these reads has a deadline of its own.
        """
        answer = self._reader.run(lambda: self._read(asked), room=self._limits.answer_bytes)
        first = next(answer.chunks, None)
        if first is None or first.rows == answer.rows:
            chunks = (chunk for chunk in (first,) if chunk is not None)
            return replace(answer, chunks=chunks, is_whole=True)
        return replace(answer, chunks=_with_first(first, answer.chunks))

    def columns(self, view: View) -> dict[str, Column]:
        """Return the columns of a table by name, from a recent file; empty without one.

        Raises a CutoutError.
        """
        return self._reader.run(lambda: self._known_columns(view))

    # --- finding ---

    def _read(self, asked: TableRequest) -> Answer:
        with metrics.stage("find"):
            there = self._reader.catalog.alerts_of(asked.view.survey, asked.object_ids)
            entries = self._choose(asked, there)
        with metrics.stage("read"):
            parts = self._read_files(asked, entries)
        known = frozenset[str]().union(*(part.known for part in parts))
        if not parts:
            known = frozenset(self._known_columns(asked.view))
        public = _public_types(asked)
        unknown = _unknown_columns(asked, known | frozenset(public)) if known else ()
        entries, columns, ranks = _newest_first(parts)
        columns = self._complete(asked, entries, columns)
        places: list[Entry | None] = list(entries)
        if asked.history and parts:
            columns, order = add_history(asked.view, columns, _join_past(parts, ranks))
            places = [None if row < 0 else entries[row] for row in order.tolist()]
            self._check_rows(len(places))
        table = _shown(asked, columns, known, public, len(places))
        if not parts:
            table = self._empty(asked)
        head = Head(
            table.schema,
            tuple(asked.view.stamp_name(kind) for kind in asked.kinds),
            lambda name: describe(asked.view, name),
            asked.view.survey.time_scale,
            asked.view.survey.mjd_offset,
        )
        size = max(1, CHUNK_STAMPS // len(asked.kinds)) if asked.kinds else CHUNK_ROWS
        known_ids = {entry.object_id for entry in there}
        unknown_ids = tuple(str(it) for it in asked.object_ids if it not in known_ids)
        return Answer(
            head,
            len(places),
            unknown,
            unknown_ids + asked.malformed,
            asked.hint or (self._no_rows(asked, unknown_ids[0]) if unknown_ids else ""),
            self._chunks(asked, table, places, size),
        )

    def _no_rows(self, asked: TableRequest, object_id: str) -> str:
        fresh = self._reader.catalog.freshness()
        told = f"brought up to date at {fresh:%Y-%m-%dT%H:%M:%SZ}" if fresh else "never filled"
        key = asked.view.survey.object_key.name
        return f"no object with {key} {object_id} is in the catalog, which was {told}"

    def _choose(self, asked: TableRequest, there: Sequence[Entry]) -> list[Entry]:
        """Return the alerts asked for, of those of the objects, newest first, each once."""
        survey = asked.view.survey
        found: dict[object, Entry] = {}
        for entry in there:
            if asked.mjd is not None and not (
                abs(entry.time - survey.mjd_offset - asked.mjd) <= SECOND
            ):
                continue
            key: object = entry.alert_id
            if key is None:
                key = (entry.file.path, entry.row)
            other = found.get(key)
            # An alert that several files repeat is taken from the one written last.
            if other is None or _written(entry) > _written(other):
                found[key] = entry
        self._check_rows(len(found) * (HISTORY_ROWS if asked.history else 1))
        ordered = sorted(found.values(), key=_age)
        if asked.view.one_per_object:
            latest: dict[object, Entry] = {}
            for entry in ordered:
                latest.setdefault(entry.object_id, entry)
            ordered = list(latest.values())
        return ordered

    def _check_rows(self, rows: int) -> None:
        most = self._limits.table_rows
        if rows > most:
            raise TooManyRows(
                f"these objects have {rows} rows, histories counted; "
                f"ask for fewer objects, with at most {most} rows"
            )

    def _known_columns(self, view: View) -> dict[str, Column]:
        file_id = self._reader.catalog.latest_file(view.survey)
        if file_id is None:
            return {}
        path = file_id.path

        def read() -> pa.Schema:
            with self._reader.opened(self._reader.archive.present(path)) as file:
                return read_footer(file).metadata.schema.to_arrow_schema()

        try:
            schema = self._reader.twice(path, read)
        except (NotFound, PathForbidden):  # the catalog has yet to hear of it
            return {}
        columns = dict(columns_of(view, schema))
        public = public_types(view)
        for name in _always(view, columns):
            columns.setdefault(name, Column("", public[name], asked=False))
        for derived in derived_of(view):
            if all(name in columns for name in derived.needs):
                columns[derived.name] = Column("", derived.type, asked=False)
        past = {
            name: Column("", field.type, asked=view.shows_alerts)
            for found in find_lists(view, schema)
            for name, field in found.fields.items()
        }
        if not view.shows_alerts:
            return past
        for name, column in past.items():
            columns.setdefault(name, column)
        if view.history is not None:
            columns[view.history.tag] = Column("", pa.string(), asked=True)
        return columns

    # --- reading plain columns ---

    def _read_files(self, asked: TableRequest, entries: Sequence[Entry]) -> list[_Part]:
        work = partial(_read_part, self._reader, asked)
        return self._reader.together(
            [partial(self._with_file, asked.view, group, work) for group in _by_file(entries)]
        )

    def _with_file(
        self,
        view: View,
        entries: Sequence[Entry],
        work: Callable[[OpenFile, Sequence[Entry]], T],
    ) -> T:
        """Return what ``work`` makes of entries of one file, found again where it was replaced."""
        file_id = entries[0].file
        try:
            return self._with_version(entries, work)
        except FileChanged:
            pass
        try:
            again = self._find_again(view, file_id, entries)
            return self._with_version(again, work)
        except (FileChanged, NotFound, PathForbidden) as error:
            raise _being_rewritten(file_id) from error

    def _with_version(
        self, entries: Sequence[Entry], work: Callable[[OpenFile, Sequence[Entry]], T]
    ) -> T:
        file_id = entries[0].file
        with self._reader.opened(file_id) as file:
            result = work(file, entries)
        if self._reader.archive.changes_in_place:
            self._reader.archive.check_unchanged(file_id)
        return result

    def _find_again(self, view: View, file_id: FileId, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries as they are in the file that is at this path now."""
        self._reader.archive.forget(file_id.path)
        current = self._reader.archive.present(file_id.path)
        with self._reader.opened(current) as file:
            index = self._reader.index_of(file)
        found = []
        for entry in entries:
            location = find_again(view.survey, entry, index)
            if location is None:
                raise FileChanged(file_id.path)
            found.append(replace(entry, file=current, row=location.row))
        return found

    # --- what no file has ---

    def _complete(self, asked: TableRequest, entries: Sequence[Entry], columns: Columns) -> Columns:
        """Add the derived columns that are asked for, and those that a whole answer always has."""
        public = public_types(asked.view)
        for name in _always(asked.view, columns) if asked.columns is None else ():
            columns.setdefault(name, pa.nulls(len(entries), public[name]))
        made: dict[Any, Any] = {}
        for derived in derived_of(asked.view) if entries else ():
            if asked.columns is not None and derived.name not in asked.columns:
                continue
            values = derived.values(columns, made)
            if values is not None:
                columns[derived.name] = values
        return columns

    def _empty(self, asked: TableRequest) -> pa.Table:
        """Return a table without rows, with the columns that it would have."""
        public = _public_types(asked)
        known = self._known_columns(asked.view)
        if not known:
            known = {
                name: Column("", pa.type_for_alias(kind), asked=False)
                for name, kind in asked.view.least
            }
            public = {name: public.get(name, pa.string()) for name in asked.columns or ()}
        known = {name: Column("", kind, asked=True) for name, kind in public.items()} | known
        if asked.columns is not None:
            names = [name for name in asked.columns if name in known]
        else:
            # Without a path, those that are asked for are of the history.
            names = [
                name
                for name, column in known.items()
                if not column.asked or (asked.history and not column.path)
            ]
        history = asked.view.history
        if asked.history and history is not None and history.tag in known:
            names = [*(name for name in names if name != history.tag), history.tag]
        return pa.schema([pa.field(name, known[name].type) for name in names]).empty_table()

    # --- reading stamps ---

    def _chunks(
        self, asked: TableRequest, table: pa.Table, places: Sequence[Entry | None], size: int
    ) -> Generator[Chunk, None, None]:
        start = 0
        while start < len(places):
            some = places[start : start + size]
            stamps: dict[str, Images] = {}
            if asked.kinds:
                room = CHUNK_BYTES if len(some) > 1 else None
                try:
                    stamps = self._reader.run(partial(self._stamps, asked, some), PATIENCE, room)
                except AnswerTooLarge:
                    size = max(1, len(some) // 4)
                    continue
            yield Chunk(len(some), table.slice(start, len(some)), stamps)
            start += len(some)

    def _stamps(self, asked: TableRequest, places: Sequence[Entry | None]) -> dict[str, Images]:
        """Return the images of some rows, by the name of their column."""
        entries = [entry for entry in places if entry is not None]
        images: dict[tuple[str, object], NDArray[np.generic]] = {}
        calls = [
            partial(
                self._with_file,
                asked.view,
                group,
                partial(_read_stamps, self._reader, asked.view.survey, kind),
            )
            for group in _by_file(entries)
            for kind in asked.kinds
        ]
        for found in self._reader.together(calls):
            images |= found
        return {
            asked.view.stamp_name(kind): [
                None if entry is None else images.get((kind, _identity(entry))) for entry in places
            ]
            for kind in asked.kinds
        }


def _with_first(first: Chunk, others: Generator[Chunk, None, None]) -> Generator[Chunk, None, None]:
    with closing(others):
        yield first
        yield from others


def _being_rewritten(file_id: FileId) -> StorageUnavailable:
    return StorageUnavailable(
        f"{file_name(file_id.path)} is being rewritten; try again in a moment"
    )


def _written(entry: Entry) -> tuple[int, str]:
    return entry.file.modified, entry.file.path


def _age(entry: Entry) -> tuple[float, int, int]:
    """Order alerts from the newest to the oldest; those without a time come last."""
    time = -math.inf if math.isnan(entry.time) else entry.time
    return -time, -(entry.alert_id or 0), -entry.row


def _identity(entry: Entry) -> object:
    """Return what stays the same of an alert that is found again in a file written anew."""
    return (entry.file.path, entry.row) if entry.alert_id is None else entry.alert_id


def _by_file(entries: Iterable[Entry]) -> list[list[Entry]]:
    files: dict[FileId, list[Entry]] = {}
    for entry in entries:
        files.setdefault(entry.file, []).append(entry)
    return list(files.values())


def _unknown_columns(asked: TableRequest, known: frozenset[str]) -> tuple[str, ...]:
    """Return the names asked for that nothing has. Raises InvalidParameter if none has any."""
    names = asked.columns or ()
    there = known | {asked.view.stamp_name(kind) for kind in asked.kinds}
    unknown = tuple(name for name in names if name not in there)
    if names and len(unknown) == len(names):
        near = nearest(names[0], there)
        hint = f"; did you mean {near!r}?" if near else ""
        raise InvalidParameter(
            "columns", f"none of these columns exists; /api/v1/columns lists them{hint}"
        )
    return unknown


def _newest_first(parts: Sequence[_Part]) -> tuple[list[Entry], Columns, NDArray[np.int64]]:
    """Return the rows of several files as one table, newest first, and the place of each in it."""
    entries = [entry for part in parts for entry in part.entries]
    order = sorted(range(len(entries)), key=lambda row: _age(entries[row]))
    columns = join([part.columns for part in parts], [len(part.entries) for part in parts])
    taken = pa.array(order, pa.int64())
    return (
        [entries[row] for row in order],
        {name: without_nan(values.take(taken)) for name, values in columns.items()},
        np.argsort(np.array(order, np.int64)),
    )


def _join_past(parts: Sequence[_Part], ranks: NDArray[np.int64]) -> list[tuple[Past, Measurements]]:
    """Return what the packets of several files hold, list by list."""
    ends = np.cumsum([len(part.entries) for part in parts])
    places = np.split(ranks, ends[:-1])
    found = []
    for past in dict.fromkeys(past for part in parts for past in part.past):
        mine = [
            (part.past[past], rows)
            for part, rows in zip(parts, places, strict=True)
            if past in part.past
        ]
        found.append((past, join_measurements([it for it, _ in mine], [rows for _, rows in mine])))
    return found


def _always(view: View, columns: Iterable[str]) -> tuple[str, ...]:
    """Return what a whole answer has besides these columns: nothing where none is the broker's."""
    return view.always if any(name.startswith(view.rest) for name in columns) else ()


def _public_types(asked: TableRequest) -> Mapping[str, pa.DataType]:
    """Return what the public schema has for a request: the tag only beside a history."""
    history = asked.view.history
    hidden = history.tag if history is not None and not asked.history else None
    return {name: kind for name, kind in public_types(asked.view).items() if name != hidden}


def _shown(
    asked: TableRequest,
    columns: Columns,
    known: frozenset[str],
    public: Mapping[str, pa.DataType],
    rows: int,
) -> pa.Table:
    """Return the columns asked for, in the order asked; null what no file of these rows has."""
    view, history = asked.view, asked.view.history
    if asked.columns is None:
        names = [name for name in columns if view.shows_alerts or name in known]
        return pa.table({name: columns[name] for name in names})
    names = [*dict.fromkeys(asked.columns)]
    tagged = asked.history and view.shows_alerts
    if tagged and history is not None and history.tag not in names:
        names.append(history.tag)
    fields = {}
    for name in names:
        if name in columns and (view.shows_alerts or name in known):
            fields[name] = columns[name]
        elif name in public:
            fields[name] = pa.nulls(rows, public[name])
    return pa.table(fields)


# --- one file ----------------------------------------------------------------------------------


def _read_part(
    reader: Reader, asked: TableRequest, file: OpenFile, entries: Sequence[Entry]
) -> _Part:
    """Read the rows of some alerts from their file.

    Raises FileChanged where a row does not hold the alert that it should.
    """
    footer = read_footer(file)
    schema = footer.metadata.schema.to_arrow_schema()
    columns = columns_of(asked.view, schema)
    chosen = _chosen(asked, columns)
    paths = {name: column.path for name, column in chosen.items()}
    lists = find_lists(asked.view, schema) if asked.history else []
    parts = {found.path: _leaves(asked, found, footer) for found in lists}
    maps = {
        start: path
        for start, path in maps_of(asked.view, schema).items()
        if asked.columns is None or any(name.startswith(start) for name in asked.columns)
    }
    key = Leaves(footer.metadata).find_key(asked.view.survey.alert_key)
    packets = (path for path, leaves in parts.items() if leaves)
    wanted = dict.fromkeys((*paths.values(), *maps.values(), *packets, *filter(None, (key,))))
    read = _read_paths(footer, entries, list(wanted), parts)
    if key is not None:
        _check_ids(file, read[key], entries)
    found = {}
    for name, path in paths.items():
        convert = chosen[name].convert
        found[name] = read[path] if convert is None else convert(read[path])
    for start, path in maps.items():
        for name, values in take_map_apart(read[path]).items():
            found.setdefault(start + name, values)
    past = {it.past: _measurements(asked, it, read[it.path]) for it in lists if it.path in read}
    known = {name for it in lists for name in it.fields}
    if asked.view.shows_alerts:
        known |= {*columns, *found, *asked.view.derived}
        if asked.history and asked.view.history is not None:
            known.add(asked.view.history.tag)
    return _Part(entries, found, frozenset(known), past)


def _leaves(asked: TableRequest, found: PastColumn, footer: Footer) -> list[str]:
    """Return the leaves of a list of measurements that the answer is made of."""
    names = None if asked.columns is None else {*asked.columns, *columns_needed(asked.view)}
    return found.leaves(footer.metadata.paths, names)


def _measurements(asked: TableRequest, found: PastColumn, packets: pa.Array) -> Measurements:
    """Take packets apart, within the room that the answer has. Raises AnswerTooLarge."""
    work = going_on()
    measured = take_apart(found, asked.view.survey, packets)
    size = sum(values.nbytes for values in measured.columns.values())
    if work.room is not None:
        with work.lock:
            work.room -= size
            if work.room < 0:
                raise AnswerTooLarge(
                    "the histories of these alerts are too large together: name the columns to "
                    "answer, or ask for fewer objects"
                )
    return measured


def _chosen(asked: TableRequest, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return the columns to read: those asked for, and what else the answer is made of."""
    needed = columns_needed(asked.view) if asked.history else set()
    if not asked.view.shows_alerts:
        return {name: column for name, column in columns.items() if name in needed}
    if asked.columns is None:
        return {
            name: column for name, column in columns.items() if name in needed or not column.asked
        }
    wanted = {*asked.columns, *needed}
    for derived in derived_of(asked.view):
        if derived.name in wanted:
            wanted |= {*derived.needs, *derived.may_need}
    return {name: column for name, column in columns.items() if name in wanted}


def _read_paths(
    footer: Footer, entries: Sequence[Entry], paths: list[str], parts: Mapping[str, list[str]]
) -> dict[str, pa.Array]:
    """Return the cells of some rows, by the path of their column, in the order of ``entries``.

    ``parts`` has the leaves of those columns that are not read whole.
    """
    first_rows = first_rows_of(footer)
    rows = np.array([entry.row for entry in entries], np.int64)
    if (rows < 0).any() or (rows >= first_rows[-1]).any():
        raise FileChanged(footer.window.id.path)
    groups = np.searchsorted(first_rows, rows, "right") - 1
    pieces: dict[str, list[pa.Array]] = {path: [] for path in paths}
    places: list[NDArray[np.int64]] = []
    for group in np.unique(groups).tolist():
        mine = np.flatnonzero(groups == group)
        places.append(mine)
        arrays = read_rows(footer, group, rows[mine] - first_rows[group], paths, parts)
        for path, values in zip(paths, arrays, strict=True):
            pieces[path].append(clean_text(values))
    if len(places) == 1:
        return {path: values[0] for path, values in pieces.items()}
    back = pa.array(np.argsort(np.concatenate(places)))
    return {path: pa.concat_arrays(values).take(back) for path, values in pieces.items()}


def _check_ids(file: OpenFile, values: pa.Array, entries: Sequence[Entry]) -> None:
    """Raise FileChanged unless each row holds the alert that the catalog says."""
    for held, entry in zip(exact_integers(values).to_pylist(), entries, strict=True):
        if entry.alert_id is not None and held != entry.alert_id:
            raise FileChanged(file.id.path)


def _read_stamps(
    reader: Reader, survey: Survey, kind: str, file: OpenFile, entries: Sequence[Entry]
) -> dict[tuple[str, object], NDArray[np.generic]]:
    """Return the images of one kind of some alerts of a file.

    One that is missing, or that cannot be used, is left out: the other rows still answer.
    """
    index = reader.index_of(file)
    column = index.stamp_column(survey, kind)
    if column is None:
        return {}
    known = index.growth
    images = {}
    by_row = {entry.row: entry for entry in entries}
    if max(by_row) >= index.row_groups[-1]:
        raise FileChanged(file.id.path)
    for row, cell in index.read_stamps(file, column, by_row):
        entry = by_row[row]
        try:
            if isinstance(cell, StoredDataError):
                raise cell
            if cell:
                images[kind, _identity(entry)] = read_pixels(reader.unpack(kind, cell))
        except StoredDataError as error:
            reader.archive.check_unchanged(file.id)
            log.warning("%s of alert %s: %s", kind, entry.alert_id, error.detail)
    if index.growth > known:
        reader.keep(index)
    return images
