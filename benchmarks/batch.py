"""Ten thousand stamps by one batch, and by as many single requests to the same service.

    python -m benchmarks.batch [--files 5] [--megabytes 100] [--stamps 10000] [--local]

The archive is on a real HDFS of this machine, read through both drivers, with what a worker knows
of a file after its first touch (its pages) and after ``cutout_api index --blocks``. Every stamp is
asked for once, by id alone, as FITS: one by one on one connection, by eight clients at the same
time, and as one zip, in the order of the archive and in no order. What is read of the bytes is
compared for a sample. The table goes between the marks in docs/benchmarks-batch.md.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .__main__ import CACHE
from .load import build_request, fetch, run_once
from .objects import place_of, write_epochs
from .places import ROOT, Place, children_of, describe_machine, resident_mb

DOCUMENT = ROOT / "docs" / "benchmarks-batch.md"
BEGIN, END = "<!-- make bench-batch: begin -->", "<!-- make bench-batch: end -->"
CUTOUTS = "/api/v1/cutouts"
CLIENTS = 8
SAMPLE = 20
PACKAGES: Sequence[dict[str, Any]] = (
    {"package": "tar"},
    {"package": "ndjson"},
    {"package": "arrow"},
    {"package": "npz"},
    {"package": "npz", "kind": "All"},
    {"package": "zip", "output-format": "PNG"},
)


@dataclass(frozen=True)
class Row:
    """What was measured of one driver and one kind of knowledge; seconds."""

    driver: str
    known: str
    alone: float
    clients: float
    ordered: float
    shuffled: float


def candids_of(paths: Sequence[Path], count: int) -> list[int]:
    """Return that many ids of the files' alerts, in the order in which they lie there."""
    found = [
        candid
        for path in paths
        for candid in pq.read_table(path, columns=["candid"])[0].to_pylist()
    ]
    if len(found) < count:
        raise SystemExit(f"the files hold {len(found)} alerts: more files, or fewer stamps")
    chosen = sorted(random.Random(5).sample(range(len(found)), count))
    return [found[place] for place in chosen]


def environment_of(place: Place, scratch: Path, driver: str) -> dict[str, str]:
    return {
        "CUTOUT_API_CONFIG": os.devnull,
        "CUTOUT_API_ARCHIVE_URI": place.uri,
        "CUTOUT_API_ARCHIVE_USER": place.user,
        "CUTOUT_API_ARCHIVE_DRIVER": driver if driver != "local" else "libhdfs",
        "CUTOUT_API_INDEX_FOLDER": str(scratch / "index"),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{scratch / 'catalog.sqlite'}",
        "CUTOUT_API_SERVER_LOG_LEVEL": "WARNING",
        "CUTOUT_API_LIMITS_INDEX_BYTES": str(64 << 20),
    }


def index(place: Place, environment: dict[str, str], *, blocks: bool) -> None:
    """Catalog the files, as an operator does."""
    subprocess.run(
        [sys.executable, "-m", "cutout_api", "index", place.folder, *["--blocks"][: int(blocks)]],
        cwd=ROOT,
        env=os.environ | environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def single(port: int, candid: int, **options: str) -> bytes:
    query = {"candid": str(candid), "kind": "Science", "output-format": "FITS", **options}
    return build_request(port, f"{CUTOUTS}?" + "&".join(f"{k}={v}" for k, v in query.items()))


def ask_singly(port: int, candids: Sequence[int], clients: int) -> float:
    """Ask for each stamp by itself; return how long all of them took."""
    load = run_once(port, [single(port, c) for c in candids], clients=clients, seconds=3600)
    if load.failed or load.answered != len(candids):
        raise AssertionError(f"{load.failed} of {len(candids)} failed")
    return load.seconds


def ask_at_once(
    port: int, candids: Sequence[int], options: dict[str, Any], check: Callable[[bytes], None]
) -> float:
    """Ask for all of them by one batch; return how long it took, to its last byte."""
    default = {"package": "zip"} if "package" not in options else {}
    body = {"candid": [str(c) for c in candids], "kind": "Science", **default, **options}
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{CUTOUTS}/batch", content, headers)
        response = connection.getresponse()
        parts = []
        while part := response.read(1 << 20):
            parts.append(part)
        taken = time.perf_counter() - start
    finally:
        connection.close()
    answer = b"".join(parts)
    assert response.status == 200, answer[:500]
    check(answer)
    return taken


def same_files(port: int, candids: Sequence[int]) -> Callable[[bytes], None]:
    """Return a check that a zip holds what single requests answer, in the order asked."""

    def check(answer: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(answer)) as package:
            assert package.namelist() == [f"{candid}_Science.fits" for candid in candids]
            for candid in random.Random(6).sample(candids, min(SAMPLE, len(candids))):
                _, content = fetch(port, single(port, candid))
                assert package.read(f"{candid}_Science.fits") == content

    return check


def accept(_answer: bytes) -> None:
    """Look no closer."""


def measure(port: int, candids: list[int], rounds: int, driver: str, known: str) -> Row:
    mixed = candids[:]
    random.Random(4).shuffle(mixed)
    ask_at_once(port, candids, {}, same_files(port, candids))  # files are open from here on
    ask_singly(port, mixed[:500], CLIENTS)
    return Row(
        driver,
        known,
        ask_singly(port, mixed, 1),
        ask_singly(port, mixed, CLIENTS),
        min(ask_at_once(port, candids, {}, accept) for _ in range(rounds)),
        min(ask_at_once(port, mixed, {}, same_files(port, mixed)) for _ in range(rounds)),
    )


def measure_packages(port: int, candids: list[int]) -> list[tuple[str, float]]:
    return [
        (" ".join(map(str, options.values())), ask_at_once(port, candids, options, accept))
        for options in PACKAGES
    ]


@contextmanager
def serving(place: Place, scratch: Path, driver: str) -> Iterator[Any]:
    from tests.service import running_service

    with running_service(environment_of(place, scratch, driver), seconds=60) as service:
        yield service


def describe(
    rows: Sequence[Row],
    packages: Sequence[tuple[str, float]],
    *,
    stamps: int,
    files: int,
    megabytes: int,
    memory: float,
) -> str:
    """Return what stands between the marks."""
    machine = describe_machine()
    lines = [
        f"| {row.driver} | {row.known} | {row.alone:.1f} | {row.clients:.1f} | {row.ordered:.2f} "
        f"| {row.shuffled:.2f} | {row.alone / row.ordered:.1f} / {row.alone / row.shuffled:.1f} "
        f"| {row.clients / row.ordered:.1f} / {row.clients / row.shuffled:.1f} |"
        for row in rows
    ]
    table, others = "\n".join(lines), "\n".join(f"| {name} | {s:.2f} |" for name, s in packages)
    last = rows[-1]
    return f"""\
{stamps:,} Science stamps of {files} ZTF files of {megabytes} MB, as FITS, by id alone; {machine["cores"]} cores of
{machine["cpu"]}, which service, name node, data node and clients share; 2 workers of 8 threads; seconds:

| driver | known | one by one | {CLIENTS} clients | one batch, in the archive's order | in no order | times faster than one by one | than {CLIENTS} clients |
|---|---|---|---|---|---|---|---|
{table}

The same list, in the archive's order, in other packages ({last.driver}, {last.known}):

| package | seconds |
|---|---|
{others}

The largest worker had {memory:.0f} MB at most in the end."""  # noqa: E501


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--files", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--stamps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--local", action="store_true", help="on local disk instead of HDFS")
    parser.add_argument("--drivers", nargs="+", default=["libhdfs", "native"])
    parser.add_argument("--known", nargs="+", default=["pages", "blocks"])
    parser.add_argument("--cache", type=Path, default=CACHE / "batch")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    asked = parser.parse_args(arguments)
    paths = write_epochs(asked.cache, asked.files, asked.files, asked.megabytes)
    candids = candids_of(paths, asked.stamps)
    rows: list[Row] = []
    packages: list[tuple[str, float]] = []
    memory = 0.0
    with place_of(paths, hdfs=not asked.local) as place:
        for driver in ["local"] if asked.local else asked.drivers:
            for known in asked.known:
                scratch = Path(tempfile.mkdtemp(prefix="bench-batch-"))
                try:
                    environment = environment_of(place, scratch, driver)
                    index(place, environment, blocks=known == "blocks")
                    with serving(place, scratch, driver) as service:
                        rows.append(measure(service.port, candids, asked.rounds, driver, known))
                        print(rows[-1], file=sys.stderr, flush=True)
                        packages = measure_packages(service.port, candids)
                        workers = children_of(service.process.pid)
                        memory = max(resident_mb(pid, "VmHWM") for pid in workers)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    text = describe(
        rows,
        packages,
        stamps=asked.stamps,
        files=asked.files,
        megabytes=asked.megabytes,
        memory=memory,
    )
    before, _, rest = asked.document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    asked.document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
