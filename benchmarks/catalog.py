"""Measure the catalog as it grows: ``python -m benchmarks.catalog``, or ``make bench-catalog``.

One catalog is filled with simulated alerts, and measured whenever it has reached the next size:
the rate of writing since the last, bytes on disk for each alert, look-ups by id and by object.
Then the real thing: files of 100 MB are catalogued and read whole, and ``cutout_api index
--watch`` is timed on files that appear. The table goes between the marks in docs/operations.md.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import sqlalchemy as sa

from cutout_api.alert_columns import AlertColumns, read_alert_columns
from cutout_api.catalog import Catalog, database_url
from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Catalog as CatalogSettings
from cutout_api.settings import Settings, parse_address
from cutout_api.storage import Archive, FileId
from cutout_api.surveys import ZTF

from .datasets import SURVEYS, File, write_files
from .places import ROOT, describe_machine

DOCUMENT = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- make bench-catalog: begin -->", "<!-- make bench-catalog: end -->"
SIZES = (100_000, 1_000_000, 10_000_000, 50_000_000)
FILE_ROWS = 2_500
"""Of a ZTF file of 100 MB."""
FILES_A_NIGHT = 80
EPOCHS = 30
"""Alerts of an object, on average."""
LOOKUPS = 20_000
PICK_UPS = 10
ADDRESS = parse_address("/simulated")


@dataclass(frozen=True)
class Row:
    """What was measured at one size; times in ms."""

    alerts: int
    rate: float
    bytes_each: float
    by_id: tuple[float, float]
    by_object: tuple[float, float]
    batch: float
    """For each of 1,000 ids looked up together."""


def simulate(number: int, objects: int) -> tuple[FileId, AlertColumns]:
    """Return one file of a night: ids rise with time, objects come at random."""
    rng = np.random.default_rng(number)
    night = number // FILES_A_NIGHT
    first = 1_000 * 10**15 + night * 10**15 + number % FILES_A_NIGHT * 10**13
    ids = first + np.sort(rng.integers(0, 10**10, FILE_ROWS)) * 1000 + np.arange(FILE_ROWS) % 1000
    names = rng.integers(0, objects, FILE_ROWS) * 7_919_317 % 800_000_000_000
    columns = AlertColumns(
        ZTF,
        ids.tolist(),
        names.tolist(),
        (2_459_000.5 + night + np.sort(rng.random(FILE_ROWS)) / 3).tolist(),
        [("g", "r")[n] for n in rng.integers(0, 2, FILE_ROWS)],
        rng.uniform(14, 21, FILE_ROWS).astype(np.float32).astype(float).tolist(),
        rng.uniform(0, 360, FILE_ROWS).tolist(),
        rng.uniform(-30, 90, FILE_ROWS).tolist(),
        (rng.random(FILE_ROWS) < 0.5).tolist(),
    )
    folder = f"/simulated/year={2018 + night // 360}/month={night // 30 % 12 + 1}/day={night % 30}"
    return FileId(f"{folder}/part-{number:06d}.parquet", 10**8, number + 1, "v"), columns


def measure_growth(url: str, sizes: Sequence[int], say: Callable[[str], None]) -> Iterator[Row]:
    """Fill a catalog, and yield what it is like at each size."""
    catalog = Catalog(CatalogSettings(url), ADDRESS)
    objects = max(sizes) // EPOCHS
    written, number = 0, 0
    for size in sizes:
        spent, before = 0.0, written
        while written < size:
            file_id, columns = simulate(number, objects)
            start = time.perf_counter()
            catalog.put_file(file_id, [columns])
            spent += time.perf_counter() - start
            number, written = number + 1, written + FILE_ROWS
            if number % 400 == 0:
                say(f"{written:,} alerts, {(written - before) / spent:,.0f}/s")
        yield Row(
            written,
            (written - before) / spent,
            size_on_disk(url) / written,
            *measure_lookups(catalog, number, objects),
        )
    catalog.close()


def measure_lookups(
    catalog: Catalog, files: int, objects: int
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Time look-ups of alerts and objects chosen at random, after as many to warm up."""
    chosen = random.Random(1)
    ids: list[tuple[int, int]] = []
    for number in chosen.sample(range(files), min(files, 400)):
        _, columns = simulate(number, objects)
        rows = chosen.sample(range(FILE_ROWS), LOOKUPS // 400)
        ids += [(int(columns.alert_ids[row] or 0), row) for row in rows]
    chosen.shuffle(ids)
    names = [
        ZTF.object_key.unpack(chosen.randrange(objects) * 7_919_317 % 800_000_000_000)
        for _ in range(LOOKUPS // 10)
    ]

    def find(asked: tuple[int, int]) -> None:
        found = catalog.find_alert(ZTF, asked[0])
        if found is None or found.row != asked[1]:
            raise AssertionError(f"alert {asked[0]} was not found where it is")

    by_id = percentiles(find, ids)
    by_object = percentiles(lambda name: catalog.alerts_of(ZTF, [name]), names)
    start = time.perf_counter()
    found = catalog.find_alerts(ZTF, [number for number, _ in ids[:1000]])
    return by_id, by_object, (time.perf_counter() - start) * 1e3 / len(found)


def percentiles(work: Callable[[Any], object], values: Sequence[Any]) -> tuple[float, float]:
    """Return the 50th and 99th percentile of the time for each value, in ms."""
    half = len(values) // 2
    for value in values[:half]:
        work(value)
    times = []
    for value in values[half:]:
        start = time.perf_counter()
        work(value)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))


def size_on_disk(url: str) -> int:
    """Return the bytes of the database."""
    made = database_url(url)
    size = {
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        "postgresql": "SELECT pg_database_size(current_database())",
    }
    with sa.create_engine(made).connect() as connection:
        return int(connection.scalar(sa.text(size[made.get_backend_name()])) or 0)


def measure_files(folder: Path, megabytes: int) -> Iterator[tuple[str, float, float]]:
    """Yield survey, seconds to read what the catalog keeps of a file, and to read it whole."""
    files = [File(survey, megabytes, "spark") for survey in SURVEYS]
    write_files(folder, files, 1)
    archive = Archive(Settings(archive=ArchiveSettings(uri=str(folder))))
    for file in files:
        ours, whole = [], []
        for _ in range(5):
            (file_id,) = archive.locate(file.name)
            start = time.perf_counter()
            with archive.open(file_id) as opened:
                read_alert_columns(opened)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            pq.read_table(folder / file.name, use_threads=False)
            whole.append(time.perf_counter() - start)
        yield file.survey, statistics.median(ours), statistics.median(whole)
    archive.close()


@contextmanager
def watching(folder: Path, url: str, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``cutout_api index --watch`` for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cutout_api", "index", "--watch", str(seconds)],
        env=os.environ
        | {
            "CUTOUT_API_CONFIG": os.devnull,
            "CUTOUT_API_ARCHIVE_URI": str(folder),
            "CUTOUT_API_CATALOG_URL": url,
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def measure_watch(folder: Path, source: Path, seconds: float) -> tuple[list[float], float]:
    """Return the seconds from a file's appearing to its being found, and the idle load.

    The idle load is the share of one core that the watch takes while nothing changes.
    """
    url = f"sqlite:///{folder.parent / 'watched.sqlite'}"
    night = folder / "year=2024/month=11/day=14"
    night.mkdir(parents=True)
    catalog = Catalog(CatalogSettings(url), parse_address(str(folder)))
    os.link(source, night / "part-0.parquet")
    times = []
    with watching(folder, url, seconds) as process:
        await_files(catalog, 1)
        for number in range(1, PICK_UPS + 1):
            time.sleep(random.uniform(0, seconds))
            start = time.monotonic()
            os.link(source, night / f"part-{number}.parquet")
            await_files(catalog, number + 1)
            times.append(time.monotonic() - start)
        before = processor_seconds(process.pid)
        time.sleep(4 * seconds)
        idle = (processor_seconds(process.pid) - before) / (4 * seconds)
    return times, idle


def await_files(catalog: Catalog, count: int) -> None:
    end = time.monotonic() + 60
    while catalog.status().files["ok"] < count:
        if time.monotonic() > end:
            raise AssertionError("the watch does not take in what is there")
        time.sleep(0.01)


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe(
    *,
    rows: Sequence[Row],
    files: Sequence[tuple[str, float, float]],
    megabytes: int,
    watch: tuple[list[float], float],
    seconds: float,
    database: str,
) -> str:
    """Return what stands between the marks."""
    machine = describe_machine()
    cores, memory = machine["cores"], machine["memory_gb"]
    grown = [
        f"| {row.alerts:,} | {row.rate:,.0f} | {FILE_ROWS / row.rate * 1e3:.0f} "
        f"| {row.bytes_each:.0f} "
        f"| {row.by_id[0]:.3f} / {row.by_id[1]:.3f} "
        f"| {row.by_object[0]:.2f} / {row.by_object[1]:.2f} | {row.batch:.4f} |"
        for row in rows
    ]
    read = [f"| {survey} | {ours * 1e3:.0f} | {whole * 1e3:.0f} |" for survey, ours, whole in files]
    grown_lines, read_lines = "\n".join(grown), "\n".join(read)
    return f"""\
Measured with {database} on {cores} cores of {machine["cpu"]}, {memory} GB; simulated alerts, some
{EPOCHS} of an object in the largest catalog; times in ms:

| alerts | written a second | a file of {FILE_ROWS:,} | bytes an alert | by id p50 / p99 | by object p50 / p99 | one of 1,000 ids |
|---|---|---|---|---|---|---|
{grown_lines}

| file of {megabytes} MB | reading what the catalog keeps | reading it whole |
|---|---|---|
{read_lines}

With `--watch {seconds:g}` a new file is found {statistics.median(watch[0]):.1f} s after it appeared (median;
at most {max(watch[0]):.1f}); while nothing changes, that takes {watch[1]:.1%} of one core."""  # noqa: E501


def write_between_marks(document: Path, text: str) -> None:
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__)
    parser.add_argument("--alerts", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--url", help="an empty database; default: a new SQLite file")
    parser.add_argument("--megabytes", type=int, default=100, help="of the files that are read")
    parser.add_argument("--watch", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--scratch", type=Path, help="a folder with room; default: the system's")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        url = options.url or f"sqlite:///{scratch / 'catalog.sqlite'}"
        rows = []
        for row in measure_growth(url, sorted(options.alerts), say):
            rows.append(row)
            say(str(row))
        files = list(measure_files(scratch / "files", options.megabytes))
        say(str(files))
        (source,) = (scratch / "files").glob("ztf*.parquet")
        watch = measure_watch(scratch / "archive", source, options.watch)
        say(str(watch))
    database = database_url(url).get_backend_name().replace("sqlite", "SQLite")
    text = describe(
        rows=rows,
        files=files,
        megabytes=options.megabytes,
        watch=watch,
        seconds=options.watch,
        database=database.replace("post", "Post"),
    )
    write_between_marks(options.document, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
