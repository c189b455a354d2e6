"""The history that an object's alerts repeat -> rows of their own, and what each is worth.

Source: fink-broker, ``archive_index.py`` (tables ``upper`` and ``uppervalid``): a measurement is
good with rb of at least 0.55 and no bad pixel; without a magnitude it is an upper limit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .derived import to_numbers
from .joining import Columns, convert, join, without_nan
from .layouts import exact_integers, spellings
from .surveys import History

VALID, UPPER_LIMIT, BAD_QUALITY = "valid", "upperlim", "badquality"
NO_ALERT = -1
"""The id of a measurement that has no alert, as the existing service writes it. A null would make
pandas read the whole column as floats, and every id in it another one."""
SAME_TIME = 1e-6
"""Days: a tenth of a second. Times that a file repeats differ in their last digit."""


def add_history(
    history: History, time_name: str, columns: Columns
) -> tuple[Columns, NDArray[np.int64]]:
    """Return the alerts and what their histories hold besides, newest first, with ``d:tag``.

    Also returns for each row that of the alert it was before, or -1. The measurements that are
    alerts of the table already, by id or by time and band, are not repeated.
    """
    packets = columns.pop(history.column, None)
    rows = len(next(iter(columns.values()))) if columns else 0
    alerts = {**columns, history.tag: pa.array([VALID] * rows, pa.string())}
    if packets is None or not rows:
        return alerts, np.arange(rows, dtype=np.int64)
    past = _measurements(history, columns, packets)
    kept = _new_ones(history, columns, past)
    past = {name: values.take(pa.array(kept)) for name, values in past.items()}
    past[history.tag] = _tags(history, past)
    past[history.alert_name] = _exact_ids(past.get(history.alert_name), len(kept))
    # A history has fields of its own that the table does not show.
    past = {name: values for name, values in past.items() if name in alerts}
    joined = join([alerts, past], [rows, len(kept)])
    order = _newest_first(to_numbers(joined[time_name]), joined[history.alert_name])
    places = np.concatenate([np.arange(rows), np.full(len(kept), -1)])[order]
    return {name: values.take(pa.array(order)) for name, values in joined.items()}, places


def _measurements(history: History, columns: Columns, packets: pa.Array) -> Columns:
    """Return every measurement of every packet, one a row, under the names of the table."""
    structs = packets.flatten()
    parents = pc.list_parent_indices(packets)
    there = structs.is_valid()
    structs, parents = structs.filter(there), parents.filter(there)
    found: Columns = {}
    prefix = history.rule.prefix or ""
    shown = spellings(columns)
    fields = spellings(field.name for field in structs.type)
    for field, values in zip(structs.type, structs.flatten(), strict=True):
        name = prefix + field.name
        if field.name.lower() in fields:
            name = shown.get(name.lower(), name)
        found[name] = without_nan(values)
    if history.alert_name in found:
        found[history.alert_name] = exact_integers(found[history.alert_name])
    found[history.object_name] = columns[history.object_name].take(parents)
    return found


def _new_ones(history: History, columns: Columns, past: Columns) -> NDArray[np.int64]:
    """Return the rows of the measurements that the table has not, each once."""
    names = (history.object_name, history.time_name, history.band_name)
    known = {id_ for id_ in columns[history.alert_name].to_pylist() if id_ is not None}
    seen = {key for key in _keys(columns, names) if key is not None}
    ids = past[history.alert_name].to_pylist() if history.alert_name in past else []
    kept = []
    for row, key in enumerate(_keys(past, names)):
        if key is None or key in seen or (ids and ids[row] in known):
            continue
        # The neighbours too, since a time may lie at the border of two.
        seen |= {key, (key[0], key[1] - 1, key[2]), (key[0], key[1] + 1, key[2])}
        kept.append(row)
    return np.array(kept, np.int64)


def _keys(columns: Columns, names: tuple[str, str, str]) -> list[tuple[Any, int, Any] | None]:
    """Return what tells measurements apart: object, time in steps of SAME_TIME, band."""
    objects, times, bands = (columns[name].to_pylist() if name in columns else [] for name in names)
    return [
        None if time is None else (object_, round(time / SAME_TIME), band and int(band))
        for object_, time, band in zip(objects, times, bands, strict=True)
    ]


def _tags(history: History, past: Columns) -> pa.Array:
    rows = len(past[history.object_name])

    def numbers(name: str) -> NDArray[np.float64]:
        return to_numbers(past[name]) if name in past else np.full(rows, np.nan)

    name, least = history.least
    good = (numbers(name) >= least) & (numbers(history.zero) == 0)
    tags = np.where(good, VALID, BAD_QUALITY).astype(object)
    tags[np.isnan(numbers(history.value_name))] = UPPER_LIMIT
    return pa.array(tags, pa.string())


def _exact_ids(ids: pa.Array | None, rows: int) -> pa.Array:
    if ids is None:
        return pa.array(np.full(rows, NO_ALERT), pa.int64())
    return ids.fill_null(NO_ALERT)


def _newest_first(times: NDArray[np.float64], ids: pa.Array) -> NDArray[np.int64]:
    known = np.where(np.isnan(times), -np.inf, times)
    numbers = convert(ids, pa.int64()).fill_null(NO_ALERT).to_numpy(zero_copy_only=False)
    # Stable from the end, so that equal rows stay as they are.
    order: NDArray[np.int64] = np.lexsort((np.arange(len(known)), -numbers, -known))
    return order
