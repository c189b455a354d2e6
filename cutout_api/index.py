"""One file: id -> row, row -> page; built from the file, stored, loaded.

An index is a few arrays: the alert ids in order and their rows, the objects in the order of
time and their rows, and for each stamp column where its pages are, or even its cells. It is
built from the end of the file, the key columns, and what the pages say of themselves; some
100 kB for a file of 100 MB. It belongs to one version of a file: (path, size, time).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from . import metrics
from .errors import FileUnreadable, StampTooLarge, StoredDataError
from .layouts import (
    NUMBERS,
    Leaves,
    exact_integers,
    floats_of,
    is_bytes,
    plain_values,
    recognise,
)
from .pages import (
    MISTAKEN,
    CellMap,
    Chunk,
    Footer,
    PageTable,
    Plan,
    compare_with_pyarrow,
    confirm_pages,
    describe_chunk,
    first_rows_of,
    locate_pages,
    map_cells,
    parquet_errors,
    plan_cells,
    plan_mapped_cells,
    read_cell,
    read_cell_by_row_group,
    read_cells,
    read_cells_by_row_group,
    read_columns,
    read_footer,
    read_mapped_cell,
    read_mapped_cells,
)
from .storage import FileId, OpenFile, file_name
from .surveys import KINDS, SURVEYS, Key, KeyValue, Survey, fingerprint
from .whole_files import remove_abandoned, write_whole

log = logging.getLogger("cutout_api")

NEVER = -np.inf
NO_ID = np.int64(-(2**63))
"""Stands for an alert id that is null or not in the file."""
MAX_NAME_BYTES = 64
OVERHEAD_BYTES = 6_000
"""Of an index without rows, measured."""
FORMAT = 3
"""Of stored indexes; one of another format is built anew."""
MADE_FOR = fingerprint()
"""The surveys that indexes are made for; what was stored of a file for others is made anew."""
_MAGIC = b"CUTOUTIX"

Arrays = dict[str, NDArray[Any]]
Cell = bytes | StoredDataError | None
"""The stored bytes of a stamp, None where it is null, or why they cannot be read."""


class Epoch(NamedTuple):
    """What orders the alerts of an object: the time in days, then the alert id."""

    time: float
    alert_id: int
    """``NO_ID`` where the file has none."""


class Location(NamedTuple):
    """Where an alert is: a row of the whole file."""

    file: FileId
    row: int
    epoch: Epoch


@dataclass(frozen=True)
class StampColumn:
    """Where the stamps of one kind are: a column, and its chunk in each row group."""

    name: str
    chunks: tuple[Chunk | None, ...]
    """None where pyarrow has to read it."""


class FileIndex:
    """What is known of one version of one file; shared by threads, it only ever grows."""

    def __init__(
        self,
        file_id: FileId,
        rows: NDArray[np.int64],
        surveys: Mapping[str, SurveyKeys],
        stamps: Mapping[tuple[str, str], StampColumn],
        doubts: Mapping[str, str] | None = None,
        *,
        made_for: str = MADE_FOR,
    ) -> None:
        self.file_id = file_id
        self.made_for = made_for
        self.row_groups = rows
        """First row of each row group, and one more: the number of rows."""
        self.surveys = surveys
        self.stamps = stamps
        self.doubts = doubts or {}
        """Name of a key, or ``survey/kind`` of stamps -> why its column cannot be used."""
        self.tables: dict[tuple[str, int], PageTable] = {}
        self.cells: dict[tuple[str, int], CellMap] = {}
        self.growth = 0
        """How many times it has learnt what is worth storing: cells, or every page of a chunk."""
        self._locks: dict[tuple[str, int], threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Return how much memory the index takes: its arrays, and what Python adds to them."""
        parts: list[Any] = [*self.surveys.values(), *self.tables.values(), *self.cells.values()]
        arrays = [value for part in parts for value in vars(part).values()]
        return OVERHEAD_BYTES + sum(
            array.nbytes for array in arrays if isinstance(array, np.ndarray)
        )

    def find(self, survey: Survey, keys: Mapping[str, KeyValue]) -> Location | None:
        """Return where the newest alert that matches every key is, or None.

        The newest has the greatest time; rows without a time come last, and the greater
        alert id wins a tie; of equal rows the last.
        """
        known = self.surveys.get(survey.name)
        found = known and known.find(
            keys.get(survey.alert_key.name), keys.get(survey.object_key.name)
        )
        return None if not found else Location(self.file_id, *found)

    def find_many(
        self, survey: Survey, key: Key, values: Sequence[KeyValue]
    ) -> Iterator[tuple[int, Location]]:
        """Yield the place in ``values`` of each that is there, and what ``find`` says of it."""
        known = self.surveys.get(survey.name)
        if known is None:
            return
        column = known.alert_ids if key is survey.alert_key else known.objects
        for place in _known_places(column, values):
            found = self.find(survey, {key.name: values[place]})
            if found is not None:
                yield place, found

    def lacks_keys(self, survey: Survey, keys: Mapping[str, KeyValue]) -> str | None:
        """Return why alerts cannot be looked up by these keys; None where the file has them all."""
        known = self.surveys.get(survey.name)
        for key, there in zip(
            survey.keys,
            (known and known.has_objects, known and known.has_alerts),
            strict=True,
        ):
            if key.name in keys and not there:
                return self.doubts.get(key.name, "")
        return None

    def stamp_column(self, survey: Survey, kind: str) -> StampColumn | None:
        """Return the column that holds the stamps of ``kind``, if the file has one."""
        return self.stamps.get((survey.name, kind))

    def stamp_doubt(self, survey: Survey, kind: str) -> str | None:
        """Return why a column that is named like that of ``kind`` holds no stamps."""
        return self.doubts.get(f"{survey.name}/{kind}")

    def read_stamp(self, file: OpenFile, column: StampColumn, row: int) -> bytes | None:
        """Return the stored bytes of one stamp, None where it is null, reading as few as known how.

        Where the file was mapped ahead of time, only the bytes that were there then are returned.
        Raises FileUnreadable for a damaged page, StampTooLarge.
        """
        row_group = int(self.row_groups.searchsorted(row, "right")) - 1
        within = row - self.row_groups.item(row_group)
        chunk = column.chunks[row_group]
        cells = self.cells.get((column.name, row_group))
        if chunk is not None and cells is not None:
            try:
                value = read_mapped_cell(file, chunk.codec, cells, within)
            except MISTAKEN:
                log.debug("%s: the block map of %s is mistaken", file.id.path, column.name)
            else:
                if cells.is_right(within, value):
                    metrics.count_stamp("block")
                    return value
        table = self.table(file, column, row_group, within)
        if chunk is not None and table is not None:
            found = read_cell(file, chunk, table, within)
            if found is not None and (cells is None or cells.is_right(within, found[0])):
                metrics.count_stamp("page")
                return found[0]
        value = read_cell_by_row_group(file, row_group, column.name, within)
        if cells is not None and not cells.is_right(within, value):
            raise not_as_mapped(file)
        metrics.count_stamp("row group")
        return value

    def read_stamps(
        self, file: OpenFile, column: StampColumn, rows: Iterable[int]
    ) -> Iterator[tuple[int, Cell]]:
        """Yield each of some rows of the file once, with the stored bytes of its stamp.

        Each page, or block, is read once, however many of the rows lie in it.
        """
        for row_group, first, mine in self._by_row_group(rows):
            for row, cell in self._read_group(file, column, row_group, mine):
                yield first + row, cell

    def _by_row_group(self, rows: Iterable[int]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Yield each row group with its first row, and the different rows in it, within it."""
        wanted = np.unique(np.fromiter(rows, np.int64))
        groups = self.row_groups.searchsorted(wanted, "right") - 1
        for row_group in np.unique(groups).tolist():
            first = self.row_groups.item(row_group)
            yield row_group, first, wanted[groups == row_group] - first

    def _read_group(
        self, file: OpenFile, column: StampColumn, row_group: int, rows: NDArray[np.int64]
    ) -> Iterator[tuple[int, Cell]]:
        """Yield the cells of some rows of a row group: by blocks, the others by pages, the rest
        by pyarrow. Of a mapped file only those pass that are what was mapped."""
        chunk, cells = column.chunks[row_group], self.cells.get((column.name, row_group))
        left = set(rows.tolist())

        def passing(found: Iterable[tuple[int, Cell]], way: str) -> Iterator[tuple[int, Cell]]:
            before = len(left)
            for row, cell in found:
                if cells is None or isinstance(cell, StoredDataError) or cells.is_right(row, cell):
                    left.discard(row)
                    yield row, cell
            metrics.count_stamp(way, before - len(left))

        if chunk is not None and cells is not None:
            yield from passing(read_mapped_cells(file, chunk.codec, cells, rows), "block")
        try:
            table = self.table(file, column, row_group, max(left)) if left else None
            if chunk is not None and table is not None:
                some = np.array(sorted(left), np.int64)
                yield from passing(read_cells(file, chunk, table, some), "page")
            if left:
                ordered = sorted(left)
                values = read_cells_by_row_group(file, row_group, column.name, ordered)
                yield from passing(zip(ordered, values, strict=True), "row group")
        except (FileUnreadable, StampTooLarge) as error:
            yield from ((row, error) for row in sorted(left))
        else:
            yield from ((row, not_as_mapped(file)) for row in sorted(left))

    def plan_stamps(self, file: OpenFile, column: StampColumn, rows: Iterable[int]) -> Plan:
        """Return what ``read_stamps`` would read."""
        plan = Plan()
        for row_group, _, mine in self._by_row_group(rows):
            chunk, cells = column.chunks[row_group], self.cells.get((column.name, row_group))
            table = None if cells is not None else self.table(file, column, row_group)
            if cells is not None:
                plan += plan_mapped_cells(cells, mine)
            elif table is not None and chunk is not None:
                plan += plan_cells(chunk, table, mine)
            else:
                size = 0 if chunk is None else chunk.length
                plan += Plan(len(mine), 1, row_groups=1, bytes=size, stamp_bytes=size)
        return plan

    def table(
        self, file: OpenFile, column: StampColumn, row_group: int, row: int | None = None
    ) -> PageTable | None:
        """Return where the pages of a chunk are, as far as is known.

        It is confirmed up to the page of ``row``, counted within the row group, where one is given.
        """
        place = (column.name, row_group)
        table = self.tables.get(place)
        chunk = column.chunks[row_group]
        rows = self.row_groups.item(row_group + 1) - self.row_groups.item(row_group)
        if chunk is None or chunk.rows != rows:
            return None
        if table is not None and (row is None or table.page_of(row) is not None):
            return table
        with self._locks.setdefault(place, threading.Lock()):
            table = self.tables.get(place) or locate_pages(file, chunk)
            if table is not None and row is not None:
                table = confirm_pages(file, chunk, table, row)
            return self._note(place, table)

    def _note(self, place: tuple[str, int], table: PageTable | None) -> PageTable | None:
        known = self.tables.get(place)
        if table is None:  # an offset index that the pages contradict, and they are no better
            self.tables.pop(place, None)
        elif known is None or table.confirmed > known.confirmed:
            self.tables[place] = table
            # The first stamp of a file confirms the pages before it, which need not be written.
            self.growth += table.confirmed == len(table.offsets)
        return table

    def learn(self, other: FileIndex) -> bool:
        """Add what another index knows of this version; return whether anything was new."""
        before = self.growth
        for place, table in list(other.tables.items()):
            self._note(place, table)
        for place, cells in list(other.cells.items()):
            if place not in self.cells:
                self.cells[place] = cells
                self.growth += 1
        return self.growth > before

    def complete(self, file: OpenFile, *, blocks: bool) -> None:
        """Look for every page, and with ``blocks`` for every cell: what is done ahead of time.

        Raises FileUnreadable where pyarrow reads other cells than were mapped, StampTooLarge.
        """
        for column in self.stamps.values():
            for row_group, chunk in enumerate(column.chunks):
                last = self.row_groups.item(row_group + 1) - self.row_groups.item(row_group) - 1
                table = self.table(file, column, row_group, last)
                if not blocks or chunk is None or table is None:
                    continue
                if (column.name, row_group) not in self.cells:
                    cells = map_cells(file, chunk, table)
                    if cells is not None:
                        compare_with_pyarrow(file, row_group, column.name, cells)
                        self.cells[column.name, row_group] = cells
                        self.growth += 1


def not_as_mapped(file: OpenFile) -> FileUnreadable:
    """Return the error for a stamp whose bytes are others than when its file was mapped."""
    path = file.id.path
    return FileUnreadable(f"a stamp of {file_name(path)} is not the one that was indexed", path)


@dataclass(frozen=True)
class SurveyKeys:
    """The ids of a file as one survey names them; empty arrays where it has no such column."""

    alert_ids: NDArray[np.int64]
    """In order, without nulls."""
    alert_rows: NDArray[np.int32]
    objects: NDArray[Any]
    """In order; int64, or bytes for names."""
    object_rows: NDArray[np.int32]
    """Of each object in the order of epochs."""
    row_times: NDArray[np.float64]
    row_alerts: NDArray[np.int64]
    has_alerts: bool
    has_objects: bool

    def find(
        self, alert_id: KeyValue | None, object_id: KeyValue | None
    ) -> tuple[int, Epoch] | None:
        """Return the newest row with these ids, and its epoch."""
        rows: list[int] = []
        if alert_id is not None:
            rows = _rows_of(self.alert_ids, self.alert_rows, alert_id)
        if object_id is not None:
            of_object = _rows_of(self.objects, self.object_rows, object_id)
            wanted = set(rows)
            rows = of_object if alert_id is None else [row for row in of_object if row in wanted]
        if not rows:
            return None
        row = rows[-1]
        return row, Epoch(self.row_times.item(row), self.row_alerts.item(row))


def _rows_of(values: NDArray[Any], rows: NDArray[np.int32], value: KeyValue) -> list[int]:
    """Return the rows of a value, itself compared as the column holds it: exactly."""
    wanted: Any = str(value).encode() if values.dtype.kind == "S" else value
    if isinstance(wanted, str):  # a name, and the column holds numbers
        return []
    low = values.searchsorted(wanted, "left")
    if low == len(values) or values[low] != wanted:
        return []
    found: list[int] = rows[low : values.searchsorted(wanted, "right")].tolist()
    return found


def _known_places(column: NDArray[Any], values: Sequence[KeyValue]) -> list[int]:
    """Return the places of the values that an ordered column holds."""
    if not len(column) or not values:
        return []
    wanted: NDArray[Any]
    if column.dtype.kind == "S":
        wanted = np.array([str(value).encode() for value in values], np.bytes_)
    elif any(isinstance(value, str) for value in values):  # names, and the column holds numbers
        return []
    else:
        wanted = np.array(values, np.int64)
    at = np.minimum(column.searchsorted(wanted), len(column) - 1)
    found: list[int] = np.flatnonzero(column[at] == wanted).tolist()
    return found


# --- building ----------------------------------------------------------------------------------


def build_index(file: OpenFile) -> FileIndex:
    """Read what an index is made of: the end of the file, its key columns, its page index.

    Raises FileUnreadable, NotParquet.
    """
    footer = read_footer(file)
    first_rows = first_rows_of(footer)
    with parquet_errors(file.id.path, None, "the schema"):
        leaves = Leaves(footer.metadata)
    doubts: dict[str, str] = {}
    keys = _read_keys(footer, leaves, doubts)
    stamps: dict[tuple[str, str], StampColumn] = {}
    columns: dict[str, StampColumn] = {}
    for survey, kind in itertools.product(SURVEYS, KINDS):
        if survey.name not in keys:
            continue
        names = survey.stamp_column_names(kind)
        found = leaves.find_stamps(names)
        if found is None:
            reason = leaves.doubt(names)
            if reason:
                doubts[f"{survey.name}/{kind}"] = reason
            continue
        name, leaf = found
        if name not in columns:
            groups = range(footer.metadata.num_row_groups)
            chunks = tuple(describe_chunk(footer, row_group, leaf) for row_group in groups)
            columns[name] = StampColumn(name, chunks)
        stamps[survey.name, kind] = columns[name]
    index = FileIndex(file.id, first_rows, keys, stamps, doubts)
    for column in columns.values():
        for row_group, chunk in enumerate(column.chunks):
            # Of the others the headers are walked when one of their stamps is asked for.
            if chunk is not None and chunk.offset_index is not None:
                table = locate_pages(footer.window, chunk)
                if table is not None:
                    index.tables[column.name, row_group] = table
    return index


def _read_keys(footer: Footer, leaves: Leaves, doubts: dict[str, str]) -> dict[str, SurveyKeys]:
    """Read ids and times of every survey whose columns the file has; add to ``doubts``."""
    ids = recognise(leaves)
    named = {
        survey.name: (*ids[survey.name], leaves.find(survey.time_columns, *NUMBERS))
        for survey in SURVEYS
        if survey.name in ids
    }
    for survey in SURVEYS:
        alert, object_, _ = named.get(survey.name, (None,) * 3)
        if named and not (alert or object_):
            continue  # the file is of another survey
        for key, column in ((survey.alert_key, alert), (survey.object_key, object_)):
            reason = None if column else leaves.doubt(key.columns)
            if reason:
                doubts.setdefault(key.name, reason)
    wanted = sorted({name for names in named.values() for name in names if name})
    arrays = dict(zip(wanted, read_columns(footer, wanted), strict=True))
    with parquet_errors(footer.window.id.path, None, "a key column"):
        return {
            survey.name: _order_keys(
                survey,
                footer.metadata.num_rows,
                *(arrays.get(name or "") for name in named[survey.name]),
            )
            for survey in SURVEYS
            if survey.name in named
        }


def _order_keys(
    survey: Survey,
    rows: int,
    alerts: pa.Array | None,
    objects: pa.Array | None,
    times: pa.Array | None,
) -> SurveyKeys:
    numbers = np.arange(rows, dtype=np.int32)
    row_times = np.full(rows, NEVER)
    if times is not None:
        found, valid = numbers_of(floats_of(times))
        row_times = np.where(valid & np.isfinite(found), found, NEVER)
    row_alerts = np.full(rows, NO_ID)
    alert_rows = numbers[:0]
    if alerts is not None:
        found, valid = _ids_of(alerts, survey.alert_key)
        row_alerts = np.where(valid, found, NO_ID)
        rows_with = numbers[valid]
        alert_rows = rows_with[np.lexsort((rows_with, row_times[rows_with], row_alerts[rows_with]))]
    object_values: NDArray[Any] = np.zeros(0, np.int64)
    object_rows = numbers[:0]
    if objects is not None:
        values, rows_with = _comparable(objects, survey.object_key)
        order = np.lexsort((rows_with, row_alerts[rows_with], row_times[rows_with], values))
        object_values, object_rows = values[order], rows_with[order]
    return SurveyKeys(
        alert_ids=row_alerts[alert_rows],
        alert_rows=alert_rows,
        objects=object_values,
        object_rows=object_rows,
        row_times=row_times,
        row_alerts=row_alerts,
        has_alerts=alerts is not None,
        has_objects=objects is not None,
    )


def _ids_of(values: pa.Array, key: Key) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return ids as int64, and which of them name something."""
    found, valid = numbers_of(exact_integers(values))
    return found, valid & (found >= key.least)


def _comparable(values: pa.Array, key: Key) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the ids that name something, as int64 or as bytes, and their rows."""
    values = plain_values(values)
    if key.is_number:
        converted, valid = _ids_of(values, key)
    elif is_bytes(values.type):
        converted, valid = _as_bytes(values)
    else:
        converted, valid = np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    return converted[valid], np.flatnonzero(valid).astype(np.int32)


def _as_bytes(texts: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return bytes as an array of numpy, and which of them are there."""
    valid = _validity_of(texts)
    large = pa.types.is_large_binary(texts.type)
    _, offsets, content = texts.buffers()
    if not valid.any() or content is None:
        return np.zeros(len(texts), "S1"), valid & False
    starts = np.frombuffer(offsets, np.int64 if large else np.int32)
    starts = starts[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(starts)
    # One absurdly long name would make every name that long.
    valid = valid & (lengths <= MAX_NAME_BYTES)
    if valid.all() and lengths[0] and (lengths == lengths[0]).all():  # names are of one length
        return np.frombuffer(content, f"S{lengths[0]}", len(texts), int(starts[0])), valid
    view = memoryview(content)
    ends = zip(starts[:-1].tolist(), starts[1:].tolist(), valid.tolist(), strict=True)
    return np.array([bytes(view[a:b]) if there else b"" for a, b, there in ends], np.bytes_), valid


def numbers_of(values: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return an array of numbers, and which of them are there.

    Not by ``to_numpy``, which loads pandas where that is installed: 0.2 s and 45 MB for nothing.
    """
    kind = values.type.to_pandas_dtype()
    if len(values) == values.null_count:
        return np.zeros(len(values), kind), np.zeros(len(values), bool)
    found = np.frombuffer(values.buffers()[1], kind)
    return found[values.offset : values.offset + len(values)], _validity_of(values)


def _validity_of(values: pa.Array) -> NDArray[np.bool_]:
    bits = values.buffers()[0]
    if bits is None:
        return np.full(len(values), values.null_count == 0)
    unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return unpacked[values.offset : values.offset + len(values)].astype(bool)


# --- keeping -----------------------------------------------------------------------------------


class IndexCache:
    """The file indexes of one process, bounded in bytes, those used longest ago forgotten first.

    What is not at hand is loaded from the store, else built from the file and stored.
    """

    def __init__(self, most_bytes: int, store: IndexStore | None) -> None:
        self._most_bytes = most_bytes
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[FileIndex, int]] = OrderedDict()
        self._bytes = 0
        self._building: dict[str, tuple[threading.Lock, int]] = {}
        """Of each path, its lock and how many hold it or wait for it."""

    def get(self, file: OpenFile) -> FileIndex:
        """Return the index of this version of the file.

        Raises FileUnreadable, NotParquet.
        """
        if not file.id.is_settled:
            return build_index(file)
        index = self._at_hand(file.id)
        if index is not None:
            metrics.count_cache("indexes", hit=True)
            return index
        metrics.count_cache("indexes", hit=False)
        with self._one_at_a_time(file.id.path):
            index = self._at_hand(file.id)
            if index is None:
                index = self._store.load(file.id) if self._store else None
                if index is None:
                    index = build_index(file)
                    if self._store:
                        index = self._store.save(index)
                self._remember(index)
        return index

    def keep(self, index: FileIndex) -> None:
        """Remember and store an index that has learnt something since ``get`` gave it.

        Another version of the file that was met meanwhile is newer, and stays.
        """
        if not index.file_id.is_settled:
            return
        self._remember(self._store.add(index) if self._store else index, replaces=False)

    def forget(self, path: str) -> None:
        """Forget a file that is gone, here and in the store."""
        with self._lock:
            _, size = self._kept.pop(path, (None, 0))
            self._bytes -= size
            metrics.INDEX_BYTES.set(self._bytes)
        if self._store:
            self._store.remove(path)

    def _at_hand(self, file_id: FileId) -> FileIndex | None:
        with self._lock:
            index, _ = self._kept.get(file_id.path, (None, 0))
            if index is None or index.file_id != file_id:
                return None
            self._kept.move_to_end(file_id.path)
            return index

    def _remember(self, index: FileIndex, *, replaces: bool = True) -> None:
        """Have an index at hand, unless another version is and it ``replaces`` none."""
        with self._lock:
            path, size = index.file_id.path, index.nbytes
            other, before = self._kept.get(path, (index, 0))
            if other.file_id == index.file_id:
                index.learn(other)
                size = index.nbytes
            elif not replaces:
                return
            self._kept[path] = (index, size)
            self._kept.move_to_end(path)
            self._bytes += size - before
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                _, (_, gone) = self._kept.popitem(last=False)
                self._bytes -= gone
            metrics.INDEX_BYTES.set(self._bytes)

    @contextlib.contextmanager
    def _one_at_a_time(self, path: str) -> Iterator[None]:
        """Let one thread build what several ask for at once."""
        with self._lock:
            lock, users = self._building.get(path, (threading.Lock(), 0))
            self._building[path] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                _, users = self._building.pop(path)
                if users > 1:
                    self._building[path] = (lock, users - 1)


class IndexStore:
    """A folder of stored indexes, one file for each file of an archive, shared by processes.

    What cannot be read, or was made for another version of the file, is as if it were not there.
    """

    def __init__(self, folder: Path, place: str) -> None:
        self._folder = folder
        self._place = place
        """Tells the archives of one folder apart."""
        self._complained = False
        self._swept: set[Path] = set()

    def load(self, file_id: FileId) -> FileIndex | None:
        """Return the stored index of this version of the file."""
        index = _stored(self._path(file_id.path))
        found = index is not None and index.file_id == file_id and index.made_for == MADE_FOR
        metrics.count_cache("stored indexes", hit=found)
        return index if found else None

    def save(self, index: FileIndex) -> FileIndex:
        """Store an index in place of any other version's; return it as ``add`` does."""
        return self._save(index, replaces=True)

    def add(self, index: FileIndex) -> FileIndex:
        """Store what an index has learnt, unless another version has been stored meanwhile.

        Returns it with what others have stored of the same version.
        """
        return self._save(index, replaces=False)

    def _save(self, index: FileIndex, *, replaces: bool) -> FileIndex:
        """Store an index whole or not at all; a folder that cannot be written is logged once."""
        path = self._path(index.file_id.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.parent):
                stored = _stored(path)
                if stored is None or stored.file_id != index.file_id:
                    is_new = stored is None or replaces
                elif stored.made_for == index.made_for:
                    is_new = stored.learn(index)
                    index = stored
                else:  # its pages and blocks are where they were
                    index.learn(stored)
                    is_new = True
                if is_new:
                    write_whole(path, pack_index(index))
                if path.parent not in self._swept:  # once: of a large archive each holds thousands
                    self._swept.add(path.parent)
                    remove_abandoned(path.parent)
        except OSError as error:
            if not self._complained:
                log.warning("indexes cannot be stored in %s: %s", self._folder, error)
                self._complained = True
        return index

    def remove(self, path: str) -> None:
        """Remove the stored index of a file that is gone, if there is one."""
        with contextlib.suppress(OSError):
            self._path(path).unlink(missing_ok=True)

    def _path(self, path: str) -> Path:
        name = hashlib.blake2b(f"{self._place}\n{path}".encode(), digest_size=16).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.index"


def _stored(path: Path) -> FileIndex | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return unpack_index(content)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let nobody else, in any process, add to the indexes of a folder meanwhile."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not lock folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def pack_index(index: FileIndex) -> bytes:
    """Return an index as bytes: magic, checksum, a JSON header, and the arrays it describes."""
    arrays: Arrays = {"row_groups": index.row_groups}
    header: dict[str, Any] = {
        "format": FORMAT,
        "made_for": index.made_for,
        "file": list(asdict(index.file_id).values()),
        "surveys": {},
        "stamps": [],
        "doubts": dict(index.doubts),
        "tables": [],
        "cells": [],
    }
    for name, keys in index.surveys.items():
        header["surveys"][name] = [keys.has_alerts, keys.has_objects]
        arrays |= _arrays_of(keys, f"keys/{name}")
    for (survey, kind), column in index.stamps.items():
        chunks = [chunk and asdict(chunk) for chunk in column.chunks]
        header["stamps"].append([survey, kind, column.name, chunks])
    for number, ((name, row_group), table) in enumerate(list(index.tables.items())):
        header["tables"].append([name, row_group, table.dictionary, table.confirmed])
        arrays |= _arrays_of(table, f"tables/{number}")
    for number, ((name, row_group), cells) in enumerate(list(index.cells.items())):
        header["cells"].append([name, row_group])
        arrays |= _arrays_of(cells, f"cells/{number}")
    header["arrays"] = [[name, array.dtype.str, len(array)] for name, array in arrays.items()]
    described = orjson.dumps(header)
    described += b" " * (-len(described) % 8)
    body = len(described).to_bytes(8, "little") + described
    body += b"".join(_padded(array.tobytes()) for array in arrays.values())
    return _MAGIC + _checksum(body) + body


def unpack_index(content: bytes) -> FileIndex | None:
    """Return the index in ``content``, of whatever version of its file, if it is whole."""
    start = len(_MAGIC) + 16
    if content[: len(_MAGIC)] != _MAGIC or _checksum(content[start:]) != content[8:start]:
        return None
    length = int.from_bytes(content[start : start + 8], "little")
    place = start + 8 + length
    header = orjson.loads(content[start + 8 : place])
    if header["format"] != FORMAT:
        return None
    arrays: Arrays = {}
    for name, kind, count in header["arrays"]:
        arrays[name] = np.frombuffer(content, kind, count, place)
        place += -(-arrays[name].nbytes // 8) * 8
    surveys = {
        name: SurveyKeys(**_named(arrays, f"keys/{name}"), has_alerts=alerts, has_objects=objects)
        for name, (alerts, objects) in header["surveys"].items()
    }
    stamps = {
        (survey, kind): StampColumn(name, tuple(chunk and _chunk(chunk) for chunk in chunks))
        for survey, kind, name, chunks in header["stamps"]
    }
    index = FileIndex(
        FileId(*header["file"]),
        arrays["row_groups"],
        surveys,
        stamps,
        header.get("doubts"),
        made_for=header.get("made_for", ""),
    )
    for number, (name, row_group, dictionary, confirmed) in enumerate(header["tables"]):
        table = _named(arrays, f"tables/{number}")
        index.tables[name, row_group] = PageTable(
            **table, dictionary=dictionary and tuple(dictionary), confirmed=confirmed
        )
    for number, (name, row_group) in enumerate(header["cells"]):
        index.cells[name, row_group] = CellMap(**_named(arrays, f"cells/{number}"))
    return index


def _arrays_of(part: SurveyKeys | PageTable | CellMap, prefix: str) -> Arrays:
    return {
        f"{prefix}/{field.name}": value
        for field in fields(part)
        if isinstance(value := getattr(part, field.name), np.ndarray)
    }


def _named(arrays: Arrays, prefix: str) -> dict[str, Any]:
    start = len(prefix) + 1
    return {name[start:]: array for name, array in arrays.items() if name.startswith(prefix + "/")}


def _chunk(described: dict[str, Any]) -> Chunk:
    place = described.pop("offset_index")
    return Chunk(**described, offset_index=place and tuple(place))


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 8)


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
