"""The Spark job, reading from HDFS: the same rows as ``cutout_api index`` writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cutout_api.catalog import Catalog
from cutout_api.settings import Catalog as CatalogSettings
from cutout_api.settings import parse_address

from ..archive import SampleArchive
from ..service import ROOT
from ..unit.test_indexing import dump
from .cluster import HdfsCluster, find_java

HOME = "/user/spark-test"


@pytest.fixture
def environment(
    hdfs_cluster: HdfsCluster, sample_archive: SampleArchive, catalog_url: str
) -> dict[str, str]:
    for file in sorted(sample_archive.folder.rglob("*.parquet")):
        name = file.relative_to(sample_archive.folder)
        hdfs_cluster.put(file, f"{HOME}/{name}")
        hdfs_cluster.make_old(f"{HOME}/{name}")
    java = find_java()
    assert java
    return os.environ | {
        "JAVA_HOME": str(Path(java).parents[1]),
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "CUTOUT_API_CONFIG": os.devnull,
        "CUTOUT_API_ARCHIVE_URI": f"{hdfs_cluster.uri}{HOME}",
        "CUTOUT_API_ARCHIVE_USER": hdfs_cluster.user,
        "CUTOUT_API_ARCHIVE_DRIVER": "native",
        "CUTOUT_API_ARCHIVE_ROOTS": HOME,
        "CUTOUT_API_CATALOG_URL": catalog_url,
    }


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.timeout(400)
def test_the_spark_job_writes_the_rows_that_the_command_writes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    whole = f"sqlite:///{tmp_path / 'whole.sqlite'}"
    other = environment | {"CUTOUT_API_CATALOG_URL": whole}
    ended = run(other, "-m", "cutout_api", "index")
    assert ended.returncode == 1, ended.stderr  # some files are damaged
    job = ("install/spark_index.py", "--files-per-task", "3")
    ended = run(environment, *job)
    assert ended.returncode == 1, ended.stderr
    url = environment["CUTOUT_API_CATALOG_URL"]
    assert dump(url) == dump(whole)
    address = parse_address(environment["CUTOUT_API_ARCHIVE_URI"])
    status = Catalog(CatalogSettings(url), address).status()
    assert status.files["damaged"] == 3
    assert status.freshness is not None
    assert ", 3 unread" in ended.stdout
    assert "cut_short.parquet: the footer of" in ended.stderr
    again = run(environment, *job, "archive")
    assert again.returncode == 0, again.stderr
    assert ", 0 of them new" in again.stdout
