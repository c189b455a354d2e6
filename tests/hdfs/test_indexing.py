"""``cutout_api index`` on a real HDFS, through both drivers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cutout_api.catalog import OK
from cutout_api.errors import StorageUnavailable
from cutout_api.indexing import CHANGING, Indexer, open_indexer
from cutout_api.settings import Archive, Catalog, Settings
from cutout_api.storage import SETTLING_SECONDS
from cutout_api.surveys import ZTF

from ..archive import SampleArchive
from ..samples import write, ztf_alert
from ..service import ROOT
from ..unit.test_indexing import dump, found, wait_for, watching
from ..unit.test_storage import after_listing
from .cluster import HdfsCluster

HOME = "/user/index-test"


@pytest.fixture(params=["libhdfs", "native"])
def settings(request: pytest.FixtureRequest, hdfs_cluster: HdfsCluster, tmp_path: Path) -> Settings:
    return Settings(
        archive=Archive(
            uri=f"{hdfs_cluster.uri}{HOME}",
            user=hdfs_cluster.user,
            driver=request.param,
            roots=(HOME,),
        ),
        catalog=Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}"),
    )


@pytest.fixture
def night(hdfs_cluster: HdfsCluster) -> Iterator[str]:
    folder = f"{HOME}/science/year=2024/month=11/day=14"
    yield folder
    hdfs_cluster.client.delete(HOME, recursive=True)


def put(cluster: HdfsCluster, folder: Path, place: str, *numbers: int) -> None:
    rows = [ztf_alert(number) for number in numbers]
    cluster.put(write(folder / f"{numbers[0]}.parquet", rows), place)


def test_the_command_ends_and_writes_what_it_writes_on_disk(
    settings: Settings,
    hdfs_cluster: HdfsCluster,
    sample_archive: SampleArchive,
    tmp_path: Path,
    night: str,
) -> None:
    for file in sorted(sample_archive.folder.rglob("*.parquet")):
        place = f"{HOME}/{file.relative_to(sample_archive.folder)}"
        hdfs_cluster.put(file, place)
        hdfs_cluster.make_old(place)
    on_disk = f"sqlite:///{tmp_path / 'disk.sqlite'}"
    names = ("URI", "USER", "DRIVER", "ROOTS")
    values = (settings.archive.uri, hdfs_cluster.user, settings.archive.driver, HOME)
    hdfs = {f"CUTOUT_API_ARCHIVE_{n}": v for n, v in zip(names, values, strict=True)}
    dumps = []
    for archive, url in (
        (hdfs, settings.catalog.url),
        ({"CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder)}, on_disk),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "cutout_api", "index"],
            cwd=ROOT,
            env=os.environ
            | {"CUTOUT_API_CONFIG": os.devnull, "CUTOUT_API_CATALOG_URL": url}
            | archive,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert ended.returncode == 1, ended.stderr
        files, alerts = dump(url)
        home = HOME if archive is hdfs else str(sample_archive.folder)
        dumps.append(
            (
                {(path.removeprefix(home), *rest) for path, *rest in files},
                [(path.removeprefix(home), *rest) for path, *rest in alerts],
            )
        )
    assert dumps[0] == dumps[1]


def test_a_watch_picks_up_what_is_written_and_what_is_rewritten(
    settings: Settings, hdfs_cluster: HdfsCluster, night: str, tmp_path: Path
) -> None:
    put(hdfs_cluster, tmp_path, f"{night}/part-0.parquet", 1, 2)
    with watching(settings, 0.2) as (indexer, _):
        wait_for(lambda: found(indexer, 1))
        put(hdfs_cluster, tmp_path, f"{night}/part-1.parquet", 3, 4)
        wait_for(lambda: found(indexer, 3))
        put(hdfs_cluster, tmp_path, f"{night}/part-1.parquet", 5, 6, 7)
        wait_for(lambda: found(indexer, 7) and not found(indexer, 3))
        assert indexer.catalog.status().alerts == {"ztf": 5}


def test_a_watch_goes_on_when_hdfs_is_back(
    settings: Settings, hdfs_cluster: HdfsCluster, night: str, tmp_path: Path
) -> None:
    put(hdfs_cluster, tmp_path, f"{night}/part-0.parquet", 1)
    with watching(settings, 0.2) as (indexer, outcomes):
        wait_for(lambda: found(indexer, 1))
        hdfs_cluster.stop_datanode()
        try:
            time.sleep(2)
        finally:
            hdfs_cluster.start_datanode()
        put(hdfs_cluster, tmp_path, f"{night}/part-1.parquet", 2)
        wait_for(lambda: found(indexer, 2))
        assert [outcome.state for outcome in outcomes if outcome.state == "gone"] == []
        assert indexer.catalog.find_alert(ZTF, ztf_alert(1)["candid"]) is not None


@pytest.fixture
def walked(
    settings: Settings, hdfs_cluster: HdfsCluster, night: str, tmp_path: Path
) -> Iterator[Indexer]:
    """An indexer that knows a file of the night, and one in a folder of it."""
    put(hdfs_cluster, tmp_path, f"{night}/part-0.parquet", 1)
    put(hdfs_cluster, tmp_path, f"{night}/later/part-1.parquet", 2)
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        indexer.run(indexer.plan())
        yield indexer


def test_a_folder_that_vanishes_during_a_walk_takes_no_other_file_along(
    walked: Indexer, hdfs_cluster: HdfsCluster, night: str
) -> None:
    after_listing(walked.archive, night, lambda: hdfs_cluster.delete(f"{night}/later"))
    assert walked.plan([night]).gone == [f"{night}/later/part-1.parquet"]


@pytest.mark.parametrize("settings", ["libhdfs"], indirect=True)
def test_a_file_that_is_rewritten_while_it_should_settle_is_not_taken_in(
    settings: Settings,
    hdfs_cluster: HdfsCluster,
    night: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleep = time.sleep

    def sleep_and_rewrite(seconds: float) -> None:
        sleep(seconds)
        put(hdfs_cluster, tmp_path, f"{night}/part-0.parquet", 2)

    put(hdfs_cluster, tmp_path, f"{night}/part-0.parquet", 1)
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        plan = indexer.plan()
        with monkeypatch.context() as patched:
            patched.setattr("cutout_api.indexing.time.sleep", sleep_and_rewrite)
            (outcome,) = indexer.run(plan)
        assert (outcome.state, outcome.failed) == (CHANGING, True)
        assert indexer.catalog.files() == []
        sleep(SETTLING_SECONDS + 1.1)
        assert [outcome.state for outcome in indexer.run(indexer.plan())] == [OK]
        assert found(indexer, 2)


def test_a_name_node_that_dies_during_a_walk_takes_no_file_along(
    walked: Indexer, hdfs_cluster: HdfsCluster, night: str
) -> None:
    after_listing(walked.archive, night, hdfs_cluster.stop_namenode)
    try:
        with pytest.raises(StorageUnavailable):
            walked.plan([night])
    finally:
        hdfs_cluster.start_namenode()
