"""Facts of alerts, from files with and without the columns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cutout_api.epochs import Entry
from cutout_api.facts import read_entries
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import Archive
from cutout_api.surveys import LSST, ZTF, Survey

from ..pictures import CANDID, OBJECT, RA, SOURCE, ZTF_ODD, make_pictures
from ..samples import write, ztf_alert


def entries_of(folder: Path, name: str, survey: Survey, rows: list[int] | None) -> list[Entry]:
    archive = Archive(Settings(archive=ArchiveSettings(uri=f"file://{folder}")))
    try:
        (file_id,) = archive.locate(name)
        with archive.open(file_id) as file:
            return read_entries(file, survey, rows)
    finally:
        archive.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("facts"))


def test_every_fact_of_a_ztf_row_is_read(folder: Path) -> None:
    faded = entries_of(folder, "ztf.parquet", ZTF, [1])[0]
    assert (faded.alert_id, faded.object_id, faded.row) == (CANDID + 1, OBJECT, 1)
    assert (faded.time, faded.band, faded.brightness) == (2_460_411.5, "r", 19.5)
    assert (faded.ra, faded.positive) == (RA, False)


def test_every_fact_of_an_lsst_row_is_read(folder: Path) -> None:
    first = entries_of(folder, "lsst.parquet", LSST, [0])[0]
    assert (first.alert_id, first.object_id) == (SOURCE, SOURCE + 7)
    assert (first.band, first.positive) == ("i", True)


def test_without_rows_every_row_is_read(folder: Path) -> None:
    found = entries_of(folder, "ztf.parquet", ZTF, None)
    assert [entry.row for entry in found] == list(range(len(ZTF_ODD)))


def test_nulls_are_not_known(folder: Path) -> None:
    bare = entries_of(folder, "ztf.parquet", ZTF, [list(ZTF_ODD).index("no facts")])[0]
    assert bare.alert_id is not None
    assert (bare.band, bare.positive) == (None, None)
    assert all(math.isnan(number) for number in (bare.time, bare.brightness, bare.ra, bare.dec))


def test_columns_that_are_not_there_are_not_known(tmp_path: Path) -> None:
    write(tmp_path / "few.parquet", [ztf_alert(1)])
    found = entries_of(tmp_path, "few.parquet", ZTF, None)[0]
    assert found.band == "r"
    assert math.isnan(found.ra)
    assert entries_of(tmp_path, "few.parquet", LSST, None)[0].alert_id is None
