"""One file: id -> row group and row.

Row groups whose statistics exclude the id are not read; of the others the key columns are
read once and kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from . import metrics
from .pages import read_columns, read_footer
from .storage import FileId, OpenFile
from .surveys import Key, KeyValue, Survey

NEVER = -np.inf


@dataclass(frozen=True, order=True)
class Epoch:
    """What orders the alerts of an object: the time in days, then the alert id."""

    time: float
    alert_id: int


@dataclass(frozen=True)
class Location:
    """Where an alert is."""

    file: FileId
    row_group: int
    row: int
    epoch: Epoch


class FileIndex:
    """The footer of one version of one file, and the key columns that were asked for so far."""

    def __init__(self, file: OpenFile) -> None:
        self.file_id = file.id
        self.footer = read_footer(file)
        self.leaves = _leaf_numbers(self.footer)
        self._columns: dict[tuple[int, str], pa.Array] = {}

    def column_of(self, names: tuple[str, ...], types: tuple[str, ...]) -> str | None:
        """Return the first of several dotted names that this file has with such a parquet type."""
        schema = self.footer.schema
        for name in names:
            if name in self.leaves and schema.column(self.leaves[name]).physical_type in types:
                return name
        return None

    def stamp_column(self, survey: Survey, kind: str) -> str | None:
        """Return the column that holds the stamps of ``kind``, if the file has one."""
        return self.column_of(survey.stamp_column_names(kind), ("BYTE_ARRAY",))

    def find(self, file: OpenFile, survey: Survey, keys: Mapping[str, KeyValue]) -> Location | None:
        """Return where the newest alert that matches every key is, or None.

        The newest has the greatest time; rows without a time come last, and the greater
        alert id wins a tie. Raises FileUnreadable.
        """
        wanted: list[tuple[str, KeyValue]] = []
        for key in survey.keys:
            if key.name in keys:
                column = self._key_column(key)
                if column is None:
                    return None
                wanted.append((column, keys[key.name]))
        best: Location | None = None
        for row_group in range(self.footer.num_row_groups):
            if not all(self._may_hold(row_group, column, value) for column, value in wanted):
                continue
            rows = self._matching_rows(file, row_group, wanted)
            if len(rows) == 0:
                continue
            row, epoch = self._newest(file, survey, row_group, rows)
            if best is None or epoch > best.epoch:
                best = Location(self.file_id, row_group, row, epoch)
        return best

    def has_keys(self, survey: Survey, keys: Mapping[str, KeyValue]) -> bool:
        """Tell whether the file has a column for each of the keys."""
        return all(self._key_column(key) is not None for key in survey.keys if key.name in keys)

    def _key_column(self, key: Key) -> str | None:
        """Return the column of a key, unless it is of a type that cannot hold an id exactly."""
        return self.column_of(key.columns, ("INT32", "INT64", "BYTE_ARRAY"))

    def _may_hold(self, row_group: int, column: str, value: KeyValue) -> bool:
        chunk = self.footer.row_group(row_group).column(self.leaves[column])
        statistics = chunk.statistics
        if statistics is None or not statistics.has_min_max:
            return True
        try:
            low, high = statistics.min, statistics.max
        except (pa.ArrowException, ValueError):  # damaged; the column itself will tell
            return True
        if isinstance(value, int):
            return not isinstance(low, int) or bool(low <= value <= high)
        return not isinstance(low, str) or bool(low <= value <= high)

    def _matching_rows(
        self, file: OpenFile, row_group: int, wanted: list[tuple[str, KeyValue]]
    ) -> NDArray[np.int64]:
        mask = np.ones(self.footer.row_group(row_group).num_rows, bool)
        for column, value in wanted:
            mask &= _equal(self._column(file, row_group, column), value)
            if not mask.any():
                break
        return np.flatnonzero(mask)

    def _newest(
        self, file: OpenFile, survey: Survey, row_group: int, rows: NDArray[np.int64]
    ) -> tuple[int, Epoch]:
        times = np.full(len(rows), NEVER)
        if column := self.column_of(survey.time_columns, ("DOUBLE", "FLOAT")):
            values = self._column(file, row_group, column).take(pa.array(rows))
            found = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            times = np.where(np.isfinite(found), found, NEVER)
        ids = np.zeros(len(rows), np.int64)
        if column := self._key_column(survey.alert_key):
            values = self._column(file, row_group, column).take(pa.array(rows))
            ids = values.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        # The last of equal rows: a repeated alert is the one that was written later.
        best = np.lexsort((rows, ids, times))[-1]
        return int(rows[best]), Epoch(float(times[best]), int(ids[best]))

    def _column(self, file: OpenFile, row_group: int, column: str) -> pa.Array:
        cached = self._columns.get((row_group, column))
        if cached is None:
            (cached,) = read_columns(file, self.footer, row_group, [column])
            self._columns[row_group, column] = cached
        return cached


class IndexCache:
    """The file indexes of one process, those used longest ago forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, FileIndex] = OrderedDict()

    def get(self, file: OpenFile) -> FileIndex:
        """Return the index of this version of the file, built when it is not at hand.

        Raises FileUnreadable.
        """
        path = file.id.path
        with self._lock:
            index = self._kept.get(path)
            if index is not None and index.file_id == file.id:
                self._kept.move_to_end(path)
                metrics.count_cache("indexes", hit=True)
                return index
        metrics.count_cache("indexes", hit=False)
        index = FileIndex(file)
        with self._lock:
            self._kept[path] = index
            self._kept.move_to_end(path)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return index


def _leaf_numbers(footer: pq.FileMetaData) -> dict[str, int]:
    """Return the dotted names of the leaf columns that hold one value a row, and their places."""
    schema = footer.schema
    return {
        column.path: number
        for number, column in enumerate(schema.column(i) for i in range(len(schema)))
        if column.max_repetition_level == 0
    }


def _equal(values: pa.Array, value: KeyValue) -> NDArray[np.bool_]:
    """Compare exactly, with no float in between; ids stored as text are compared as text."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not pa.types.is_integer(values.type):
        value = str(value)
    try:
        wanted = pa.scalar(value, values.type)
    except (pa.ArrowException, OverflowError, TypeError):  # no such value fits this column
        return np.zeros(len(values), bool)
    matches: NDArray[np.bool_] = pc.equal(values, wanted).fill_null(False).to_numpy(False)
    return matches
