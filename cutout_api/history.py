"""The measurements that an object's alerts repeat -> rows of their own, and what each is worth.

A packet has lists of them beside its alert: earlier detections, limits, forced photometry. Which,
and what they are called, says the survey (``surveys.History``).

Source: fink-broker, ``archive_index.py`` (tables ``upper`` and ``uppervalid``): a measurement of
ZTF is good with rb of at least 0.55 and no bad pixel; without a magnitude it is an upper limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .columns import columns_of, usual_names
from .derived import to_numbers
from .joining import Columns, convert, join, without_nan
from .layouts import exact_integers, is_text, spellings
from .surveys import History, Past, Quality, Survey, View

VALID, UPPER_LIMIT, BAD_QUALITY = "valid", "upperlim", "badquality"
NO_ALERT = -1
"""The id of a measurement that has no alert, as the existing service writes it. A null would make
pandas read the whole column as floats, and every id in it another one."""
SAME_TIME = 1e-6
"""Days: a tenth of a second. Times that a file repeats differ in their last digit."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PastColumn:
    """One of a survey's lists of measurements as a file has it."""

    past: Past
    path: str
    """The column of the file."""
    fields: Mapping[str, pa.Field]
    """Those of its structs that hold one value, by their names in the table."""

    def leaves(self, paths: Iterable[str], names: Collection[str] | None) -> list[str]:
        """Return those of a file's leaf columns that hold the fields named; None: all."""
        wanted = {f.name for name, f in self.fields.items() if names is None or name in names}
        start = f"{self.path}."
        return [it for it in paths if it.startswith(start) and it.rpartition(".")[2] in wanted]


@dataclass(frozen=True)
class Measurements:
    """What some packets hold in one list: a row for each, under the names of the table."""

    columns: Columns
    parents: Rows
    """The row of the alert in whose packet each was."""


def find_lists(view: View, schema: pa.Schema) -> list[PastColumn]:
    """Return the lists of measurements of a file that a table can show."""
    history = view.history
    if history is None:
        return []
    usual = spellings(columns_of(view, schema)) | usual_names(view)
    usual |= {name.lower(): name for name in _own_names(history)}
    columns = spellings(schema.names)
    found = []
    for past in history.lists:
        path = columns.get(past.column.lower())
        if path is None:
            continue
        kind = schema.field(path).type
        if not _is_list(kind) or not pa.types.is_struct(kind.value_type):
            continue
        unique = spellings(field.name for field in kind.value_type)
        fields = {}
        for field in kind.value_type:
            name = history.prefix + field.name
            if field.name.lower() in unique:
                name = usual.get(name.lower(), name)
            if not pa.types.is_nested(field.type):
                fields[name] = field
        found.append(PastColumn(past, path, fields))
    return found


def _is_list(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in checks)


def _own_names(history: History) -> set[str]:
    names = {history.object_name, history.alert_name, history.time_name, history.band_name}
    return names.union(*(_names_needed(past) for past in history.lists))


def _names_needed(past: Past) -> set[str]:
    names = set() if past.id_name is None else {past.id_name}
    quality = past.quality
    return (
        names if quality is None else {*names, quality.value_name, quality.least[0], quality.zero}
    )


def columns_needed(view: View) -> set[str]:
    """Return the columns that a history is made by, whichever are asked for."""
    return set() if view.history is None else _own_names(view.history)


def take_apart(column: PastColumn, survey: Survey, packets: pa.Array) -> Measurements:
    """Return every measurement of every packet, one a row."""
    if pa.types.is_fixed_size_list(packets.type):
        packets = packets.cast(pa.list_(packets.type.value_type))
    structs, parents = packets.flatten(), pc.list_parent_indices(packets)
    there = structs.is_valid()
    structs, parents = structs.filter(there), parents.filter(there)
    values = dict(zip((f.name for f in structs.type), structs.flatten(), strict=True))
    ids = set(map(str.lower, survey.id_names))
    found: Columns = {}
    for name, field in column.fields.items():
        if field.name not in values:
            continue
        found[name] = without_nan(values[field.name])
        loose = not pa.types.is_integer(field.type) and not is_text(field.type)
        if name == column.past.id_name or (loose and field.name.lower() in ids):
            found[name] = exact_integers(found[name])
    return Measurements(found, np.asarray(parents, np.int64))


def join_measurements(parts: Sequence[Measurements], places: Sequence[Rows]) -> Measurements:
    """Return the measurements of several files, those of the newest alert first.

    ``places`` has, for each part, the row of the table that each alert of the part has.
    """
    columns = join([part.columns for part in parts], [len(part.parents) for part in parts])
    parents = np.concatenate([row[part.parents] for part, row in zip(parts, places, strict=True)])
    order = np.argsort(parents, kind="stable")
    taken = pa.array(order, pa.int64())
    return Measurements({name: it.take(taken) for name, it in columns.items()}, parents[order])


def add_history(
    view: View, columns: Columns, found: Sequence[tuple[Past, Measurements]]
) -> tuple[Columns, Rows]:
    """Return the alerts and what their packets hold besides, newest first, with a tag each.

    Also returns for each row that of the alert it was before, or -1. Of a measurement that several
    packets repeat there is the newest packet's; those that are alerts of the table already, by id
    or by time and band, are left out.
    """
    history = view.history
    if history is None:
        raise ValueError("this table shows no history")
    rows = len(next(iter(columns.values()))) if columns else 0
    # A file may keep one of them where this table does not look.
    missing = {history.alert_name, history.time_name} - columns.keys()
    columns = columns | {name: pa.nulls(rows) for name in missing}
    parts = [{**columns, history.tag: pa.array([VALID] * rows, pa.string())}]
    sizes = [rows]
    for past, measured in found:
        part = dict(measured.columns)
        if history.object_name in columns and len(measured.parents):
            parents = pa.array(measured.parents, pa.int64())
            part[history.object_name] = columns[history.object_name].take(parents)
        kept = _new_ones(history, past, columns, part)
        part = {name: values.take(pa.array(kept)) for name, values in part.items()}
        part[history.tag] = _tags(past, part, len(kept))
        parts.append(part)
        sizes.append(len(kept))
    joined = join(parts, sizes)
    is_alert = np.arange(sum(sizes)) < rows
    for name in {history.alert_name, *(past.id_name for past, _ in found)}:
        if name in joined:
            keep = is_alert if name == history.alert_name else np.zeros(len(is_alert), bool)
            joined[name] = _with_no_alert(joined[name], keep)
    order = _newest_first(to_numbers(joined[history.time_name]), joined[history.alert_name])
    if not view.shows_alerts:
        order = order[~is_alert[order]]
    taken = pa.array(order, pa.int64())
    places = np.where(is_alert, np.arange(len(is_alert)), -1)[order]
    return {name: values.take(taken) for name, values in joined.items()}, places


def _new_ones(history: History, past: Past, alerts: Columns, found: Columns) -> Rows:
    """Return the rows of the measurements that the table has not, each once."""
    names = (history.object_name, history.time_name, history.band_name)
    known: set[int] = set()
    seen: set[tuple[Any, int, Any]] = set()
    if past.are_alerts:
        known = {id_ for id_ in alerts[history.alert_name].to_pylist() if id_ is not None}
        seen = {key for key in _keys(alerts, names) if key is not None}
    keys = _keys(found, names)
    ids = found[past.id_name].to_pylist() if past.id_name in found else [None] * len(keys)
    kept = []
    for row, (id_, key) in enumerate(zip(ids, keys, strict=True)):
        has_id = id_ is not None and id_ > 0
        if has_id and id_ in known:
            continue
        if (past.once_a_visit or not has_id) and (key is None or key in seen):
            continue
        if has_id:
            known.add(id_)
        if key is not None:
            # The neighbours too, since a time may lie at the border of two.
            seen |= {key, (key[0], key[1] - 1, key[2]), (key[0], key[1] + 1, key[2])}
        kept.append(row)
    return np.array(kept, np.int64)


def _keys(columns: Columns, names: tuple[str, str, str]) -> list[tuple[Any, int, Any] | None]:
    """Return what tells measurements apart: object, time in steps of SAME_TIME, band."""
    object_name, time_name, band_name = names
    if object_name not in columns or time_name not in columns:
        return [None] * len(next(iter(columns.values()), ()))
    times = to_numbers(columns[time_name])
    bands = columns[band_name].to_pylist() if band_name in columns else [None] * len(times)
    return [
        None if np.isnan(time) else (object_, round(time / SAME_TIME), _band(band))
        for object_, time, band in zip(columns[object_name].to_pylist(), times, bands, strict=True)
    ]


def _band(value: Any) -> Any:
    """Return a band as files of different types share it: 1 and 1.0 are one, and "g" is text."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tags(past: Past, found: Columns, rows: int) -> pa.Array:
    if past.quality is None:
        return pa.array([past.tag] * rows, pa.string())
    quality: Quality = past.quality

    def numbers(name: str) -> NDArray[np.float64]:
        return to_numbers(found[name]) if name in found else np.full(rows, np.nan)

    name, least = quality.least
    good = (numbers(name) >= least) & (numbers(quality.zero) == 0)
    tags = np.where(good, past.tag, BAD_QUALITY).astype(object)
    tags[np.isnan(numbers(quality.value_name))] = UPPER_LIMIT
    return pa.array(tags, pa.string())


def _with_no_alert(ids: pa.Array, keep: NDArray[np.bool_]) -> pa.Array:
    """Return ids with NO_ALERT in the place of null, but where ``keep`` says so."""
    ids = convert(ids, pa.int64()) if pa.types.is_null(ids.type) else ids
    if not pa.types.is_integer(ids.type):
        return ids
    missing = pc.and_(ids.is_null(), pa.array(~keep))
    return pc.if_else(missing, pa.scalar(NO_ALERT, ids.type), ids)


def _newest_first(times: NDArray[np.float64], ids: pa.Array) -> Rows:
    known = np.where(np.isnan(times), -np.inf, times)
    numbers = convert(ids, pa.int64()).fill_null(NO_ALERT).to_numpy(zero_copy_only=False)
    # Stable from the end, so that equal rows stay as they are.
    order: Rows = np.lexsort((np.arange(len(known)), -numbers, -known))
    return order
