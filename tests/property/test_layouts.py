"""However the same alerts are stored, the reader gives the same ids, times and stamps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutout_api.alert_columns import read_alert_columns
from cutout_api.index import pack_index, unpack_index
from cutout_api.surveys import LSST, ZTF, Survey

from ..layouts import (
    NAMES,
    NUMBERS,
    SPELLINGS,
    STAMP_BYTES,
    STAMPS,
    Layout,
    as_bytes,
    lsst_table,
    write_layout,
    ztf_table,
)
from ..samples import KINDS
from .test_reader import open_index

NOT_BY_DUCKDB = ("text", "fixed list")
"""It refuses text that is not UTF-8, and writes fixed lists with nulls as pyarrow reads none."""


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    layout = Layout(
        stamps=draw(st.sampled_from(sorted(STAMPS))),
        in_struct=draw(st.booleans()),
        spelling=draw(st.sampled_from(sorted(SPELLINGS))),
        numbers=draw(st.sampled_from(sorted(NUMBERS))),
        names=draw(st.sampled_from(sorted(NAMES))),
        writer=draw(st.sampled_from(["pyarrow", "plain", "duckdb"])),
    )
    if layout.writer == "duckdb" and layout.stamps in NOT_BY_DUCKDB:
        return Layout(**{**vars(layout), "writer": "plain"})
    return layout


STAMP = st.none() | st.binary(min_size=STAMP_BYTES, max_size=STAMP_BYTES)
# Neighbours that a float cannot tell apart.
ID = st.none() | st.integers(2**60, 2**60 + 9) | st.integers(1, 9) | st.just(2**63 - 1)
TIME = st.none() | st.floats(2_458_000, 2_462_000)
KIND_STAMPS = dict.fromkeys(KINDS, STAMP)
ZTF_ALERTS = st.lists(
    st.fixed_dictionaries(
        {
            "objectId": st.none() | st.sampled_from(["ZTF24aaaaaaa", "ZTF24aaaaaab", ""]),
            "candid": ID,
            "jd": TIME,
            "fid": st.none() | st.integers(1, 3),
            **KIND_STAMPS,
        }
    ),
    max_size=12,
)
LSST_ALERTS = st.lists(
    st.fixed_dictionaries(
        {
            "diaSourceId": ID,
            "diaObjectId": ID | st.just(0),
            "midpointMjdTai": TIME,
            **KIND_STAMPS,
        }
    ),
    max_size=12,
)


def check(path: Path, survey: Survey, alerts: list[dict[str, Any]], time_name: str) -> None:
    """Compare what the index and the catalog's reader give with the rows, and pyarrow with them."""
    alert_name, object_name = survey.alert_key.name, survey.object_key.name
    read = {}
    if not _has_odd_text(path):
        table = pq.read_table(path)
        read = {name.lower(): table[name].to_pylist() for name in table.column_names}
    archive, file, index = open_index(path)
    loaded = unpack_index(pack_index(index))
    assert loaded is not None
    (columns,) = [it for it in read_alert_columns(file) if it.survey is survey]
    key = survey.object_key
    objects = [_packed(key.pack, alert[object_name]) for alert in alerts]
    assert columns.alert_ids == [alert[alert_name] for alert in alerts]
    assert columns.object_ids == objects
    assert columns.times == [alert[time_name] for alert in alerts]
    for known in (index, loaded):
        for name in (alert_name, object_name):
            for value in {alert[name] for alert in alerts} - {None, "", 0}:
                same = [n for n, alert in enumerate(alerts) if alert[name] == value]
                newest = max(same, key=lambda n: _order(alerts[n], time_name, alert_name, n))
                found = known.find(survey, {name: value})
                assert found is not None
                assert found.row == newest
                time = alerts[newest][time_name]
                assert found.epoch.time == (-math.inf if time is None else time)
        for kind in KINDS:
            column = known.stamp_column(survey, kind)
            assert column is not None
            stored = [alert[kind] for alert in alerts]
            if read:
                assert [as_bytes(it) for it in read[f"cutout{kind}".lower()]] == stored
            assert [known.read_stamp(file, column, row) for row in range(len(alerts))] == stored
            assert dict(known.read_stamps(file, column, range(len(alerts)))) == dict(
                enumerate(stored)
            )
    if key.is_number:
        assert index.find(survey, {object_name: 0}) is None
    archive.close()


def _packed(pack: Any, value: Any) -> int | None:
    return pack(value) if value else None


def _order(alert: dict[str, Any], time_name: str, alert_name: str, n: int) -> tuple[Any, ...]:
    time, number = alert[time_name], alert[alert_name]
    return (-math.inf if time is None else time, -1 if number is None else number, n)


def _has_odd_text(path: Path) -> bool:
    """Whether the stamps are text, of which pyarrow makes no Python string."""
    columns = pq.ParquetFile(path).schema
    return any(
        str(columns.column(n).logical_type) == "String"
        and columns.column(n).path.lower().startswith("cutout")
        and not columns.column(n).path.lower().endswith("filename")
        for n in range(len(columns))
    )


@given(alerts=ZTF_ALERTS, layout=layouts(), rows=st.integers(1, 12))
@settings(max_examples=80)
def test_ztf_alerts_are_the_same_in_every_layout(
    tmp_path_factory: pytest.TempPathFactory,
    alerts: list[dict[str, Any]],
    layout: Layout,
    rows: int,
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.parquet"
    write_layout(path, ztf_table(alerts, layout), layout, row_group_size=rows)
    check(path, ZTF, alerts, "jd")


@given(alerts=LSST_ALERTS, layout=layouts(), rows=st.integers(1, 12))
@settings(max_examples=80)
def test_lsst_alerts_are_the_same_in_every_layout(
    tmp_path_factory: pytest.TempPathFactory,
    alerts: list[dict[str, Any]],
    layout: Layout,
    rows: int,
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.parquet"
    write_layout(path, lsst_table(alerts, layout), layout, row_group_size=rows)
    check(path, LSST, alerts, "midpointMjdTai")
