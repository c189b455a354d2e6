"""Plan the parts, run those that have no result yet, write the report.

What a part measured is kept in ``.cache/bench``, so that a run which was interrupted goes on where
it was. A result counts as long as the code and what was asked stay the same.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from . import report
from .datasets import (
    DISTINCT,
    LAYOUTS,
    SURVEYS,
    WARM_UP,
    File,
    small_name,
    write_files,
    write_warm_up,
)
from .parts import middle_size, prepare_small_files
from .places import ROOT, ChildFailed, Place, as_argument, call_in_child, describe_machine

CACHE = ROOT / ".cache" / "bench"
SAMPLES = 200
HDFS_FOLDER = "/bench"
SPACE_NEEDED = 4 << 30
STORAGES = ("local", "hdfs")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    name: str
    sizes: tuple[int, ...]
    rounds: int
    stamp_seconds: float
    """How long the rounds of one survey may take, five of them at least."""
    load_seconds: float
    """Of one load on one service, in each pass."""
    passes: int
    files: tuple[int, ...]
    rows: tuple[int, ...]
    clients: tuple[int, ...] = (1, 8, 32)
    formats: tuple[str, ...] = ("array", "FITS", "PNG")


FULL = Scale(
    "full",
    sizes=(25, 100, 400),
    rounds=60,
    stamp_seconds=170,
    load_seconds=2.5,
    passes=2,
    files=(1, 10, 100, 1000, 2000, 5000, 10_000),
    rows=(1000, 10_000, 100_000, 1_000_000),
)
QUICK = Scale(
    "quick",
    sizes=(25,),
    rounds=12,
    stamp_seconds=15,
    load_seconds=0.5,
    passes=1,
    files=(1, 10, 100, 300),
    rows=(1000, 10_000),
)


@dataclass(frozen=True)
class Part:
    """One thing to measure: a function of ``parts``, and what it needs."""

    name: str
    storage: str
    function: str
    arguments: dict[str, Any]
    seconds: float
    """About how long it takes."""
    files: tuple[File, ...] = ()
    small_files: int = 0

    def key(self, code: str) -> str:
        """Return what a result of this part must have been measured with."""
        asked = json.dumps([self.function, self.arguments, self.small_files], sort_keys=True)
        return hashlib.sha256(f"{code} {asked}".encode()).hexdigest()[:16]


def plan_parts(storage: str, scale: Scale) -> list[Part]:
    """Return the parts of a run. How things grow is measured on local disk in any case."""
    parts = []
    middle = middle_size(scale.sizes)
    layouts = list(LAYOUTS)
    services = 6 if storage == "hdfs" else 3
    for survey in SURVEYS:
        files = tuple(File(survey, size, layout) for size in scale.sizes for layout in layouts)
        parts.append(
            Part(
                f"stamps-{survey}",
                storage,
                "parts:measure_stamps",
                {
                    "survey": survey,
                    "sizes": list(scale.sizes),
                    "layouts": layouts,
                    "rounds": scale.rounds,
                    "seconds": scale.stamp_seconds,
                },
                scale.stamp_seconds + 20,
                files,
            )
        )
        formats = list(scale.formats if survey == "ztf" else scale.formats[:1])
        loads = len(formats) * len(scale.clients)
        parts.append(
            Part(
                f"http-{survey}",
                storage,
                "parts:measure_http",
                {
                    "survey": survey,
                    "size": middle,
                    "layout": layouts[-1],
                    "formats": formats,
                    "clients": list(scale.clients),
                    "seconds": scale.load_seconds,
                    "passes": scale.passes,
                },
                scale.passes * services * (5 + loads * (scale.load_seconds + 0.5)),
                (File(survey, middle, layouts[-1]),),
            )
        )
    drivers = [*(["libhdfs", "native"] if storage == "hdfs" else []), "local", "today"]
    for driver in drivers:
        counts = [n for n in scale.files if driver != "today" or n <= 1000]
        parts.append(
            Part(
                f"files-{driver}",
                "hdfs" if driver in ("libhdfs", "native") else "local",
                "parts:measure_files",
                {"counts": counts, "driver": driver, "seconds": 240},
                10 + counts[-1] * 0.01,
                small_files=scale.files[-1],
            )
        )
    # The same alerts whatever the layout.
    samples = tuple(File(survey, middle, layouts[-1]) for survey in SURVEYS)
    formats_asked = {"size": middle, "rounds": 10 * scale.rounds}
    parts.append(Part("formats", "local", "parts:measure_formats", formats_asked, 15, samples))
    rows_asked = {"counts": list(scale.rows), "rounds": 20}
    parts.append(Part("rows", "local", "parts:measure_rows", rows_asked, 12 * len(scale.rows)))
    return parts


def fingerprint() -> str:
    """Return what tells one version of the measured and measuring code from another."""
    digest = hashlib.sha256()
    for folder in ("cutout_api", "benchmarks"):
        for file in sorted((ROOT / folder).glob("*.py")):
            if file.name not in ("report.py", "plots.py"):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# --- Where the files go -----------------------------------------------------------------------


@dataclass
class Stage:
    """Brings the files of a part to where it measures them, and takes away what nobody needs."""

    storage: str
    place: Place
    keep: bool = False
    """Whether generated files stay on local disk."""
    cluster: Any = None
    environment: dict[str, str] = field(default_factory=dict)
    put: set[str] = field(default_factory=set)

    def bring(self, part: Part) -> dict[str, Any]:
        """Return further arguments that the part takes."""
        local = Path(self.place.local)
        write_files(local, part.files, SAMPLES)
        names = [file.name for file in part.files]
        for survey in {file.survey for file in part.files}:
            names.append(WARM_UP.format(survey=survey))
            if not (local / names[-1]).exists():
                write_warm_up(local, survey)
        self._put({name: local / name for name in names})
        if not part.small_files:
            return {}
        source = local / "small-files"
        named = prepare_small_files(self.place, part.small_files)
        self._put(
            {small_name(n): source / f"{n % DISTINCT}.parquet" for n in range(part.small_files)}
        )
        return {"names": named}

    def _put(self, files: dict[str, Path]) -> None:
        missing = [name for name in files if name not in self.put]
        if self.cluster is None or not missing:
            return
        total = sum(files[name].stat().st_size for name in missing)
        say(f"  {len(missing)} files, {total / 1e6:.0f} MB, into HDFS")
        from hdfs_native import WriteOptions

        client, options = self.cluster.client, WriteOptions(overwrite=True, create_parent=True)

        def put(name: str) -> None:
            with (
                client.create(f"{HDFS_FOLDER}/{name}", options) as target,
                files[name].open("rb") as source,
            ):
                while block := source.read(8 << 20):
                    target.write(block)

        # Closing a file waits most of a second for the servers to agree: many small ones at a time.
        with ThreadPoolExecutor(64 if len(missing) > 100 else 1) as pool:
            for number, _ in enumerate(pool.map(put, missing), 1):
                if number % 1000 == 0:
                    say(f"  {number} files of {len(missing)}")
        self.put.update(missing)

    def tidy(self, remaining: Sequence[Part]) -> None:
        """Delete the files that none of the remaining parts reads."""
        needed = {file.name for part in remaining for file in part.files}
        needed |= {WARM_UP.format(survey=survey) for survey in SURVEYS}
        for name in [name for name in self.put if name not in needed and "/" not in name]:
            self.cluster.delete(f"{HDFS_FOLDER}/{name}")
            self.put.remove(name)
        for file in Path(self.place.local).glob("*.parquet"):
            if file.name not in needed and not self.keep:
                file.unlink()


@contextmanager
def staged(storage: str, *, keep: bool) -> Iterator[Stage]:
    """Give a place for the files; on HDFS, servers that are there for as long as this lasts."""
    data, scratch = CACHE / "data", CACHE / "scratch" / storage
    shutil.rmtree(scratch, ignore_errors=True)
    for folder in (data, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    place = Place(data.as_uri(), str(data), str(data), str(scratch))
    try:
        if storage == "local":
            yield Stage(storage, place, keep)
            return
        from tests.hdfs.cluster import CLIENT_FOLDER, HdfsCluster, missing_pieces, read_env

        env = CLIENT_FOLDER / "env"
        if (missing := missing_pieces()) or not env.exists():
            raise SystemExit(
                f"{missing or 'no HDFS client in .cache/hdfs'}: `make hdfs` installs "
                "what a real HDFS needs; `make bench` measures on local disk without"
            )
        say("starting a NameNode and a DataNode")
        with HdfsCluster() as cluster:
            there = replace(place, uri=cluster.uri + HDFS_FOLDER, folder=HDFS_FOLDER)
            yield Stage(storage, there, keep, cluster, read_env(env))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# --- The run ----------------------------------------------------------------------------------


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def result_file(scale: Scale, part: Part) -> Path:
    return CACHE / "results" / scale.name / part.storage / f"{part.name}.json"


def is_done(scale: Scale, part: Part, code: str) -> bool:
    try:
        kept = json.loads(result_file(scale, part).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(kept["key"] == part.key(code))


def run_parts(parts: Sequence[Part], scale: Scale, code: str, *, keep: bool) -> list[str]:
    """Measure the parts one after the other; return the names of those that failed."""
    failed: list[str] = []
    remaining = list(parts)
    slower = 1.0
    with ExitStack() as stack:
        stages: dict[str, Stage] = {}
        for number, part in enumerate(parts, 1):
            left = slower * sum(other.seconds for other in remaining)
            say(
                f"[{number}/{len(parts)}] {part.name} on {part.storage}: about "
                f"{minutes(slower * part.seconds)}; all of it {minutes(left)}"
            )
            start = time.monotonic()
            if part.storage not in stages:
                stages[part.storage] = stack.enter_context(staged(part.storage, keep=keep))
            stage = stages[part.storage]
            try:
                arguments = part.arguments | stage.bring(part)
                result = call_in_child(
                    part.function,
                    {"place": as_argument(stage.place), **arguments},
                    environment=stage.environment,
                    seconds=300 + 6 * part.seconds,
                )
            except ChildFailed as error:
                say(f"  {part.name} failed: {error}")
                failed.append(part.name)
            else:
                store_result(scale, part, code, result)
            remaining.pop(0)
            stage.tidy(remaining)
            spent = time.monotonic() - start
            slower = min(4.0, max(0.5, 0.5 * slower + 0.5 * spent / part.seconds))
    return failed


def store_result(scale: Scale, part: Part, code: str, result: Any) -> None:
    """Keep what a part measured, whole or not at all."""
    file = result_file(scale, part)
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "version": report.VERSION,
        "key": part.key(code),
        "part": part.name,
        "scale": scale.name,
        "storage": part.storage,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "code": code,
        "machine": describe_machine(),
        "result": result,
    }
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(kept), "utf-8")
    unfinished.replace(file)


def main() -> int:
    options = parse_options()
    scale = QUICK if options.quick else FULL
    if options.sizes:
        scale = replace(scale, sizes=tuple(sorted(options.sizes)))
    code = fingerprint()
    parts = [
        part
        for part in plan_parts(options.storage, scale)
        if any(fnmatch(part.name, pattern) for pattern in options.parts.split(","))
    ]
    if not parts:
        say(f"no part is called {options.parts}")
        return 2
    if options.report:
        report.write(CACHE / "results", scale.name)
        return 0
    # Being asked to end is answered like Ctrl-C: servers stop, generated files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another benchmark runs in this checkout")
            return 1
        wanted = [part for part in parts if options.fresh or not is_done(scale, part, code)]
        if len(wanted) < len(parts):
            say(f"{len(parts) - len(wanted)} of {len(parts)} parts are there; --fresh repeats them")
        if wanted and shutil.disk_usage(CACHE).free < SPACE_NEEDED:
            say(f"{SPACE_NEEDED >> 30} GB of disk are needed")
            return 1
        failed: list[str] = []
        try:
            failed = run_parts(wanted, scale, code, keep=options.keep)
        except KeyboardInterrupt:
            say("interrupted; the same command goes on where this stopped")
            return 130
        finally:
            if not options.keep:
                shutil.rmtree(CACHE / "data", ignore_errors=True)
        written = report.write(CACHE / "results", scale.name)
        say(f"wrote {os.path.relpath(written)}")
        if failed:
            say(f"without {', '.join(failed)}: the same command tries again")
        return 1 if failed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this service against today's algorithm and other readers; "
        "write docs/benchmarks.md.",
    )
    parser.add_argument("--storage", choices=STORAGES, default="local", help="default: local disk")
    parser.add_argument("--quick", action="store_true", help="25 MB files, a few minutes")
    parser.add_argument("--fresh", action="store_true", help="repeat parts that have a result")
    parser.add_argument("--parts", default="*", help="only these, e.g. 'stamps-*,rows'")
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        help="sizes of files in MB, e.g. 25,100",
    )
    parser.add_argument("--keep", action="store_true", help="keep the files that were generated")
    parser.add_argument("--report", action="store_true", help="only write the report anew")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
