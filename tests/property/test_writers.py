"""Files as Spark and DuckDB write them: every stamp comes back as it went in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from cutout_api import metrics
from cutout_api.index import build_index
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Settings
from cutout_api.storage import Archive
from cutout_api.surveys import LSST, ZTF, Survey

from ..samples import KINDS, LSST_SCHEMA, lsst_alert, write, ztf_alert

# Runs in a process of its own: one JVM for Spark, none in the tests'.
SPARK = """
import sys
from pyspark.sql import SparkSession
source, target = sys.argv[1:3]
spark = (
    SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.memory", "512m").getOrCreate()
)
for survey in ("ztf", "lsst"):
    frame = spark.read.parquet(f"{source}/{survey}.parquet").coalesce(1)
    for name, options in {
        "snappy": {"compression": "snappy"},
        "zstd": {"compression": "zstd"},
        "gzip": {"compression": "gzip"},
        "lz4": {"compression": "lz4"},
        "lz4_raw": {"compression": "lz4_raw"},
        "none": {"compression": "uncompressed"},
        "v2": {"compression": "snappy", "parquet.writer.version": "v2"},
        "row_groups": {"compression": "snappy", "parquet.block.size": "300000"},
        "pages": {"compression": "snappy", "parquet.page.size": "30000",
                  "parquet.page.row.count.limit": "7"},
        "plain": {"compression": "snappy", "parquet.enable.dictionary": "false"},
        "checksums": {"compression": "snappy", "parquet.page.write-checksum.enabled": "true"},
    }.items():
        frame.write.options(**options).parquet(f"{target}/{survey}-{name}")
spark.stop()
"""

DUCKDB = {
    "snappy": "CODEC 'snappy'",
    "zstd": "CODEC 'zstd'",
    "gzip": "CODEC 'gzip'",
    "lz4_raw": "CODEC 'lz4_raw'",
    "uncompressed": "CODEC 'uncompressed'",
    "row_groups": "CODEC 'snappy', ROW_GROUP_SIZE 2048",
    "v2": "CODEC 'snappy', PARQUET_VERSION v2",
}

# What the page reader leaves to pyarrow: DELTA_BYTE_ARRAY and its relatives, and the framing of
# LZ4 before Hadoop's. Everything else must not cost a row group.
LEFT_TO_PYARROW = {"v2"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same alerts that each writer copies: nulls, repeated stamps, some longer than a page."""
    folder = tmp_path_factory.mktemp("sources")
    long = b"SIMPLE" + bytes(range(256)) * 400
    ztf = [ztf_alert(n, Science=None if n % 5 == 3 else b"same" * 9) for n in range(60)]
    ztf += [ztf_alert(60 + n, null_struct=KINDS if n % 4 == 1 else ()) for n in range(60)]
    ztf += [ztf_alert(120 + n, Template=long) for n in range(5)]
    lsst = [lsst_alert(n, n % 3 or None, Science=None if n % 7 == 2 else long) for n in range(40)]
    write(folder / "ztf.parquet", ztf)
    write(folder / "lsst.parquet", lsst, LSST_SCHEMA)
    return folder


@pytest.fixture(scope="module")
def spark_files(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    target = tmp_path_factory.mktemp("spark")
    environment = {k: v for k, v in os.environ.items() if k not in ("CLASSPATH", "SPARK_HOME")}
    ended = subprocess.run(
        [sys.executable, "-c", SPARK, sources, target],
        env=environment | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return {folder.name: next(folder.glob("*.parquet")) for folder in sorted(target.iterdir())}


@pytest.fixture(scope="module")
def duckdb_files(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    target = tmp_path_factory.mktemp("duckdb")
    files = {}
    for survey in ("ztf", "lsst"):
        for name, options in DUCKDB.items():
            path = files[f"{survey}-{name}"] = target / f"{survey}-{name}.parquet"
            duckdb.sql(
                f"COPY (SELECT * FROM '{sources}/{survey}.parquet') TO '{path}' "
                f"(FORMAT parquet, {options})"
            )
    return files


def stamp_of(row: dict[str, Any], kind: str) -> bytes | None:
    value = row[f"cutout{kind}"]
    return value["stampData"] if isinstance(value, dict) else value


def assert_read_as_it_was_written(
    path: Path, rows: list[dict[str, Any]], survey: Survey, left_to_pyarrow: bool
) -> None:
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(path.parent))))
    (file_id,) = archive.locate(path.name)
    slow = metrics.READ_BY.labels("row group")
    with archive.open(file_id) as file:
        built, mapped = build_index(file), build_index(file)
        mapped.complete(file, blocks=True)
        for index in (built, mapped):
            before = slow._value.get()
            for number, row in enumerate(rows):
                alert_id = row.get("candid") or row["diaSource"]["diaSourceId"]
                found = index.find(survey, {survey.alert_key.name: alert_id})
                assert found is not None
                assert found.row == number
                for kind in KINDS:
                    column = index.stamp_column(survey, kind)
                    assert column is not None
                    assert index.read_stamp(file, column, number) == stamp_of(row, kind)
            if not left_to_pyarrow:
                assert slow._value.get() == before
    archive.close()


def assert_all_read_as_they_were_written(files: dict[str, Path], sources: Path) -> None:
    surveys = {"ztf": ZTF, "lsst": LSST}
    for name, path in files.items():
        survey, _, layout = name.partition("-")
        # pyarrow cannot read Spark's LZ4 itself, so what was written is what is right.
        rows = pq.read_table(sources / f"{survey}.parquet").to_pylist()
        assert_read_as_it_was_written(path, rows, surveys[survey], layout in LEFT_TO_PYARROW)


@pytest.mark.timeout(180)
def test_files_that_spark_wrote(spark_files: dict[str, Path], sources: Path) -> None:
    assert len(spark_files) == 22
    assert_all_read_as_they_were_written(spark_files, sources)


def test_files_that_duckdb_wrote(duckdb_files: dict[str, Path], sources: Path) -> None:
    assert len(duckdb_files) == 14
    assert_all_read_as_they_were_written(duckdb_files, sources)
