"""On a real HDFS, where page headers are read several at once, no hint is believed either."""

from __future__ import annotations

from pathlib import Path

import pytest

from cutout_api import metrics
from cutout_api.index import build_index
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import SMALL_READS, Archive
from cutout_api.surveys import ZTF

from ..samples import write, ztf_alert
from ..unit.test_hints import lie, pages_of, shift_from
from .cluster import HdfsCluster

ROWS, ROWS_EACH = 60, 3
CELLS = [b"%02d" % number * 40_000 for number in range(ROWS)]


@pytest.fixture(scope="module")
def path(hdfs_cluster: HdfsCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with more pages than are looked at at once, and an index that is one row off."""
    local = tmp_path_factory.mktemp("hints") / "off.parquet"
    rows = [ztf_alert(n, Science=cell, shape=(1, 1)) for n, cell in enumerate(CELLS)]
    layout = {"row_group_size": ROWS, "max_rows_per_page": ROWS_EACH, "write_page_index": True}
    honest = write(Path(local), rows, compression="none", **layout)
    assert len(pages_of(honest)) > 2 * SMALL_READS
    hdfs_cluster.put(honest, f"/user/{hdfs_cluster.user}/hints/honest.parquet")
    lie(honest, shift_from(pages_of(honest), 9, 1))
    hdfs_cluster.put(honest, f"/user/{hdfs_cluster.user}/hints/off.parquet")
    return f"/user/{hdfs_cluster.user}/hints"


@pytest.mark.parametrize("driver", ["libhdfs", "native"])
@pytest.mark.parametrize("name", ["honest", "off"])
def test_stamps_are_those_of_the_page_headers(
    hdfs_cluster: HdfsCluster, path: str, driver: str, name: str
) -> None:
    archive = Archive(
        Settings(
            archive=ArchiveSettings(uri=hdfs_cluster.uri, user=hdfs_cluster.user, driver=driver)
        )
    )
    (file_id,) = archive.locate(f"{path}/{name}.parquet")
    with archive.open(file_id) as file:
        for row in (0, 26, 27, 28, 41, 59):
            index = build_index(file)
            column = index.stamp_column(ZTF, "Science")
            assert column is not None
            before = metrics.READS._value.get()
            assert index.read_stamp(file, column, row) == CELLS[row]
            if name == "honest":  # the pages before it, its own header, and itself
                assert metrics.READS._value.get() - before == row // ROWS_EACH + 2
    archive.close()
