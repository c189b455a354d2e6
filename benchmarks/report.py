"""Results -> ``docs/benchmarks.md`` and its plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import plots
from .datasets import LAYOUTS, SURVEYS
from .parts import middle_size
from .places import ROOT

DOCUMENT = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "benchmarks"
INDEXED, PLAIN = "spark-indexed", "spark"
VERSION = 1
"""Of what parts return; results of another are passed over."""
BAR_MEGABYTES = 100
NAMES = {"ztf": "ZTF", "lsst": "LSST"}
DRIVERS = ("libhdfs", "native")
Data = dict[str, Any]


class Results:
    """What was measured, by storage and part; of the scale asked for where there is a choice."""

    def __init__(self, folder: Path, scale: str) -> None:
        self.parts: dict[tuple[str, str], Data] = {}
        scales = sorted((f.name for f in folder.iterdir()), key=lambda name: name != scale)
        for name in scales:
            for file in sorted((folder / name).glob("*/*.json")):
                found = json.loads(file.read_text("utf-8"))
                if found.get("version") == VERSION:
                    self.parts.setdefault((file.parent.name, file.stem), found)

    def get(self, storage: str, part: str) -> Data | None:
        found = self.parts.get((storage, part))
        return found and found["result"]

    def times(
        self,
        storage: str,
        survey: str,
        method: str,
        *,
        size: int | None = None,
        layouts: Iterable[str] = (PLAIN, INDEXED),
        kinds: int = 1,
        after_pause: bool = False,
    ) -> list[float]:
        """Return the milliseconds of a method, of the middle size unless told; may be empty.

        Of what is asked several times in a row, the first stands apart: ``after_pause``.
        """
        part = self.get(storage, f"stamps-{survey}")
        if part is None:
            return []
        sizes = sorted({case["megabytes"] for case in part["cases"]})
        size = size or middle_size(sizes)
        return [
            ms
            for case in part["cases"]
            if (case["method"], case["megabytes"], case["kinds"]) == (method, size, kinds)
            and case["layout"] in layouts
            for number, ms in enumerate(case["ms"])
            if case["times"] == 1 or (number % case["times"] == 0) == after_pause
        ]

    def median(self, *arguments: Any, **more: Any) -> float | None:
        found = self.times(*arguments, **more)
        return float(np.median(found)) if found else None

    def cases(self, storage: str, survey: str) -> list[Data]:
        part = self.get(storage, f"stamps-{survey}")
        return part["cases"] if part else []

    def sizes(self, storage: str) -> list[int]:
        return sorted({c["megabytes"] for survey in SURVEYS for c in self.cases(storage, survey)})

    def load(self, storage: str, survey: str, service: str, form: str, clients: int) -> Data | None:
        part = self.get(storage, f"http-{survey}") or {"cells": []}
        for cell in part["cells"]:
            if (cell["service"], cell["format"], cell["clients"]) == (service, form, clients):
                found: Data = cell
                return found
        return None


# --- Bars -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """Something that must be reached, as a ratio within one run."""

    what: str
    must: str
    measure: Callable[[Results, str, str], float | None]
    """Of a survey and a driver."""
    reached: Callable[[float, str, str], bool]
    surveys: tuple[str, ...] = SURVEYS
    unit: str = "x"


def _faster(ours: str, theirs: str, **more: Any) -> Callable[[Results, str, str], float | None]:
    def measure(results: Results, survey: str, driver: str) -> float | None:
        mine = results.median("hdfs", survey, f"{ours}@{driver}", **more)
        other = results.median("hdfs", survey, theirs, **more)
        return other / mine if mine and other else None

    return measure


def _above_floor(results: Results, survey: str, driver: str) -> float | None:
    mine = results.median("hdfs", survey, f"block@{driver}")
    floor = results.median("hdfs", survey, "floor-block@libhdfs")
    return mine / floor if mine and floor else None


def _grows(method: str) -> Callable[[Results, str, str], float | None]:
    def measure(results: Results, survey: str, driver: str) -> float | None:
        sizes = results.sizes("hdfs")
        if not {25, 400} <= set(sizes):
            return None
        small, large = (
            results.median("hdfs", survey, f"{method}@{driver}", size=size) for size in (25, 400)
        )
        return large / small if large and small else None

    return measure


def _http(ours: str, quantity: str) -> Callable[[Results, str, str], float | None]:
    def measure(results: Results, survey: str, driver: str) -> float | None:
        mine = results.load("hdfs", survey, f"{ours}@{driver}", "array", 8)
        today = results.load("hdfs", survey, "today", "array", 8)
        if mine is None or today is None:
            return None
        if quantity == "rate":
            return float(mine["rate"] / today["rate"])
        return float(mine["p99"] / today["p50"])

    return measure


def _memory(results: Results, _survey: str, driver: str) -> float | None:
    part = results.get("hdfs", f"files-{driver}")
    return part["peak_mb"] if part else None


def _flatness(results: Results, _survey: str, driver: str) -> float | None:
    """Return the memory at the end as a share of that after half of the files."""
    part = results.get("hdfs", f"files-{driver}")
    if not part:
        return None
    steps = part["steps"]
    half = next(s for s in steps if s["files"] >= steps[-1]["files"] / 2)
    return float(steps[-1]["resident_mb"] / half["resident_mb"]) if half is not steps[-1] else None


def at_least(**least: float) -> Callable[[float, str, str], bool]:
    return lambda got, survey, _driver: got >= least[survey]


def at_most(most: float) -> Callable[[float, str, str], bool]:
    return lambda got, _survey, _driver: got <= most


BARS = (
    Bar(
        "one stamp, raw bytes, warm, page: faster than today's with its connection kept",
        "15 times",
        _faster("page", "today-kept"),
        at_least(ztf=15, lsst=15),
    ),
    Bar(
        "the same with the block map",
        "ZTF 35 times, LSST 80 times",
        _faster("block", "today-kept"),
        at_least(ztf=35, lsst=80),
    ),
    Bar(
        "the same, as a multiple of a bare libhdfs read of 64 kB",
        "at most 1.5",
        _above_floor,
        at_most(1.5),
    ),
    Bar(
        "first stamp of a file never seen, page index in the file: faster than today's",
        "4 times",
        _faster("cold", "today", layouts=(INDEXED,)),
        at_least(ztf=4, lsst=4),
    ),
    Bar(
        "the same, no page index in the file",
        "2.5 times",
        _faster("cold", "today", layouts=(PLAIN,)),
        at_least(ztf=2.5, lsst=2.5),
    ),
    Bar(
        "the same, our index stored",
        "8 times",
        _faster("stored", "today"),
        at_least(ztf=8, lsst=8),
    ),
    Bar(
        "arrays over HTTP, 8 clients, page: requests per second of today's",
        "20 times",
        _http("page", "rate"),
        at_least(ztf=20, lsst=20),
    ),
    Bar(
        "the same, block map",
        "40 times",
        _http("block", "rate"),
        at_least(ztf=40, lsst=40),
    ),
    Bar(
        "the same, page: p99 as a share of today's p50", "below 1", _http("page", "p99"), at_most(1)
    ),
    Bar(
        "the same, block map: p99 as a share of today's p50",
        "below 1",
        _http("block", "p99"),
        at_most(1),
    ),
    Bar("400 MB against 25 MB file, warm, page", "at most 1.3", _grows("page"), at_most(1.3)),
    Bar("400 MB against 25 MB file, warm, block map", "at most 1.3", _grows("block"), at_most(1.3)),
    Bar(
        "most memory of a worker that read {files} files",
        "native 250 MB, libhdfs 500 MB",
        _memory,
        lambda got, _survey, driver: got < {"native": 250, "libhdfs": 500}[driver],
        surveys=("ztf",),
        unit=" MB",
    ),
    Bar(
        "the same: memory at the end against half-way",
        "flat: at most 1.05",
        _flatness,
        at_most(1.05),
        surveys=("ztf",),
    ),
)


def write_bars(results: Results) -> list[str]:
    part = results.get("hdfs", "files-native") or results.get("hdfs", "files-libhdfs")
    files = f"{part['steps'][-1]['files']:,}" if part else "10,000"
    columns = [(survey, driver) for survey in SURVEYS for driver in DRIVERS]
    rows = []
    for bar in BARS:
        cells, failed = [], []
        for survey, driver in columns:
            got = bar.measure(results, survey, driver) if survey in bar.surveys else None
            cells.append("" if got is None else f"{got:.3g}{bar.unit}")
            if got is not None and not bar.reached(got, survey, driver):
                failed.append(f"{NAMES[survey]} {driver}")
        verdict = "yes" if not failed else "no: " + ", ".join(failed)
        rows.append(
            [
                bar.what.format(files=files),
                bar.must,
                *cells,
                verdict if any(cells) else "not measured",
            ]
        )
    heads = [f"{NAMES[survey]} {driver}" for survey, driver in columns]
    return table(["what", "must reach", *heads, "met"], rows)


# --- Tables -----------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]


def number(value: float | None) -> str:
    """Return three digits, or nothing."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def titles(results: Results, storage: str) -> dict[str, Data]:
    """Return the methods of a storage by name, in the order of the table of methods."""
    return {case["method"]: case for survey in SURVEYS for case in results.cases(storage, survey)}


def baseline(storage: str) -> str:
    return "today-kept" if storage == "hdfs" else "today"


def write_stamps(results: Results, storage: str) -> list[str]:
    """One stamp on files of the middle size: median, p95, and how much faster than today's."""
    rows = []
    for method, case in titles(results, storage).items():
        if method.partition("@")[0] in ("cold", "stored", "stored-block"):
            continue
        row = [case["title"]]
        for survey in SURVEYS:
            ms = results.times(storage, survey, method)
            base = results.median(storage, survey, baseline(storage))
            paused = results.median(storage, survey, method, after_pause=True)
            row += (
                [
                    number(np.median(ms)),
                    number(np.percentile(ms, 95)),
                    number(paused),
                    ratio(base, np.median(ms)),
                ]
                if ms
                else ["", "", "", ""]
            )
        rows.append(row)
    heads = ["method"]
    for survey in SURVEYS:
        heads += [f"{NAMES[survey]}, ms", "p95", "after a pause", "faster"]
    return table(heads, rows)


def ratio(theirs: float | None, ours: float | None) -> str:
    return f"{theirs / ours:.3g}x" if theirs and ours else ""


def write_cold(results: Results, storage: str) -> list[str]:
    rows = []
    for method, case in titles(results, storage).items():
        if method.partition("@")[0] not in (
            "cold",
            "stored",
            "stored-block",
            "today",
            "today-kept",
        ):
            continue
        row = [case["title"]]
        for survey in SURVEYS:
            for layout in LAYOUTS:
                ours = results.median(storage, survey, method, layouts=(layout,))
                base = results.median(storage, survey, "today", layouts=(layout,))
                row.append(f"{number(ours)} ({ratio(base, ours)})" if ours else "")
        rows.append(row)
    short = {PLAIN: "no page index", INDEXED: "page index"}
    heads = [f"{NAMES[survey]}, {short[layout]}" for survey in SURVEYS for layout in LAYOUTS]
    return table(["first stamp, ms", *heads], rows)


def write_all_kinds(results: Results, storage: str) -> list[str]:
    rows = []
    for method, case in titles(results, storage).items():
        one, three = (
            [results.median(storage, s, method, kinds=n, layouts=(INDEXED,)) for s in SURVEYS]
            for n in (1, 3)
        )
        if any(three):
            cells = [number(value) for pair in zip(one, three, strict=True) for value in pair]
            rows.append([case["title"], *cells])
    heads = [f"{NAMES[s]}, {what}" for s in SURVEYS for what in ("one, ms", "All, ms")]
    return table(["method", *heads], rows)


def write_sizes(results: Results, storage: str) -> list[str]:
    sizes = results.sizes(storage)
    rows = []
    for method, case in titles(results, storage).items():
        cells = [
            results.median(storage, survey, method, size=size)
            for survey in SURVEYS
            for size in sizes
        ]
        # Those that were measured on one size only say nothing here.
        if all(cells[: len(sizes)]) or all(cells[-len(sizes) :]):
            rows.append([case["title"], *map(number, cells)])
    heads = [f"{NAMES[survey]}, {size} MB" for survey in SURVEYS for size in sizes]
    return table(["median, ms", *heads], rows)


def write_http(results: Results, storage: str) -> list[str]:
    lines: list[str] = []
    for survey in SURVEYS:
        part = results.get(storage, f"http-{survey}")
        if part is None:
            continue
        rows = []
        for cell in part["cells"]:
            today = results.load(storage, survey, "today", cell["format"], cell["clients"])
            rows.append(
                [
                    part["services"][cell["service"]]["title"],
                    cell["format"],
                    cell["clients"],
                    number(cell["rate"]),
                    f"{cell['rate'] / today['rate']:.3g}x" if today and today["rate"] else "",
                    *(number(cell[p]) for p in ("p50", "p95", "p99")),
                    cell["failed"],
                ]
            )
        order = {"array": 0, "FITS": 1, "PNG": 2}
        rows.sort(key=lambda row: (order[str(row[1])], row[2]))
        lines += [f"{NAMES[survey]}, a {part['file']['megabytes']} MB file:", ""]
        lines += table(
            [
                "service",
                "format",
                "clients",
                "requests/s",
                "of today's",
                "p50, ms",
                "p95",
                "p99",
                "failed",
            ],
            rows,
        )
        rows = [
            [
                about["title"],
                number(about["first_ms"]),
                number(about["resident_mb"]),
                number(about["peak_mb"]),
            ]
            for about in part["services"].values()
        ]
        lines += table(
            [
                "service",
                "first request after the start, ms",
                "memory of a worker, MB",
                "at most, MB",
            ],
            rows,
        )
        constants = [a["constant"] for a in part["services"].values() if "constant" in a]
        busiest = max(cell["client_cpu"] for cell in part["cells"])
        if constants:
            best = max(constants, key=lambda constant: constant["rate"])
            told = (
                f"The clients themselves took at most {100 * busiest:.0f} % of one core; "
                f"a constant answer (`/healthz`) they got {best['rate']:.0f} times a second, "
                f"for {100 * best['client_cpu']:.0f} %."
            )
            lines += [told, ""]
    return lines


def write_files(results: Results) -> list[str]:
    rows = []
    for driver in ("local", "libhdfs", "native", "today"):
        part = results.get("hdfs", f"files-{driver}") or results.get("local", f"files-{driver}")
        if part is None:
            continue
        title = {"today": "today's algorithm, local disk", "local": "ours, local disk"}.get(
            driver, f"ours, {driver}"
        )
        for step in part["steps"]:
            rows.append(
                [
                    title,
                    f"{step['files']:,}",
                    number(step["resident_mb"]),
                    number(step["first_ms"]),
                    number(step["again_ms"]),
                ]
            )
    heads = ["service, one worker", "files read", "memory, MB", "first touch, ms", "again, ms"]
    return table(heads, rows) if rows else []


def write_rows(results: Results) -> list[str]:
    part = results.get("local", "rows")
    if part is None:
        return []
    rows = [
        [
            {"today": "today's algorithm", "ours": "ours"}[step["who"]],
            f"{step['rows']:,}",
            number(step["first_ms"]),
            number(step["again_ms"]),
            number(step["grown_mb"]),
            number(step["peak_mb"]),
        ]
        for step in part["steps"]
    ]
    heads = ["method", "rows", "first, ms", "again, ms", "memory grown by, MB", "at most, MB"]
    return table(heads, sorted(rows, key=lambda row: str(row[0])))


def write_formats(results: Results) -> list[str]:
    part = results.get("local", "formats")
    if part is None:
        return []
    found = {(f["survey"], f["format"], f["who"]): f["ms"] for f in part["formats"]}
    rows = []
    for survey, form in dict.fromkeys((survey, form) for survey, form, _ in found):
        today, ours = found[survey, form, "today"], found[survey, form, "ours"]
        rows.append([NAMES[survey], form, number(today), number(ours), ratio(today, ours)])
    return table(["survey", "format", "today's, ms", "ours, ms", "faster"], rows)


# --- The document -----------------------------------------------------------------------------


def write_conditions(results: Results) -> list[str]:
    """Say what was measured when, and on what."""
    newest = max(results.parts.values(), key=lambda part: part["date"])
    machine = newest["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    told = (
        f"Measured on {newest['date'][:10]} on {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; {versions}. "
        "Servers, service and clients share the machine; what is read is in its page cache."
    )
    lines = [told, ""]
    quick = [
        f"{name} ({storage})"
        for (storage, name), part in sorted(results.parts.items())
        if part["scale"] == "quick"
    ]
    if quick:
        which = "" if len(quick) == len(results.parts) else f": {', '.join(quick)}"
        told = (
            f"**From a quick run{which}.** 25 MB files, few rounds: it shows what is measured, "
            "and its figures are not to be relied on."
        )
        lines += [told, ""]
    if len({part["code"] for part in results.parts.values()}) > 1:
        lines += ["Parts of it were measured with different versions of the code.", ""]
    return lines


def write(folder: Path, scale: str, document: Path = DOCUMENT, pictures: Path = PICTURES) -> Path:
    """Write the document and its plots from all results that are there."""
    results = Results(folder, scale)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` (files on local disk) and `make bench-hdfs` (a real HDFS).",
        "",
        *write_conditions(results),
    ]
    if any(storage == "hdfs" for storage, _ in results.parts):
        lines += ["## What must be reached, on HDFS", "", *write_bars(results)]
        sizes = results.sizes("hdfs")
        if sizes and middle_size(sizes) != BAR_MEGABYTES:
            told = (
                f"The bars are set for files of {BAR_MEGABYTES} MB, whose columns cost more; "
                f"these are of {middle_size(sizes)} MB."
            )
            lines += [told, ""]
    drawn = plots.draw(results, pictures)

    def picture(name: str, alt: str) -> list[str]:
        if name not in drawn:
            return []
        return [f"![{alt}]({pictures.name}/{name}.png)", ""]

    for storage, title in (("hdfs", "HDFS"), ("local", "local disk")):
        sizes = results.sizes(storage)
        if sizes:
            middle = middle_size(sizes)
            lines += [
                f"## One stamp of a {middle} MB file on {title}",
                "",
                "Raw bytes on random ids; *faster* is against today's algorithm"
                + (", its connection kept." if storage == "hdfs" else ".")
                + " What is fast is asked three times in a row: the first, *after a pause* in "
                "which the other methods have emptied the processor's caches"
                + (
                    " and the name node has to be asked again whether the file is the same"
                    if storage == "hdfs"
                    else ""
                )
                + ", stands in a column of its own.",
                "",
                *write_stamps(results, storage),
                *picture(f"stamps-{storage}", "Latency by method"),
                "A file never seen, in brackets against today's algorithm"
                + (" with a new connection:" if storage == "hdfs" else ":"),
                "",
                *write_cold(results, storage),
                "The three stamps of an alert:",
                "",
                *write_all_kinds(results, storage),
            ]
        if len(sizes) > 1:
            lines += [
                f"### File size, {title}",
                "",
                *write_sizes(results, storage),
                *picture(f"sizes-{storage}", "Latency by file size"),
            ]
        http = write_http(results, storage)
        if http:
            lines += [
                f"## Over HTTP, {title}",
                "",
                *http,
                *picture(f"http-{storage}", "Requests per second by clients"),
            ]
    lines += ["## Many files", "", *write_files(results), *picture("files", "Memory by files read")]
    lines += ["## Many rows", "", *write_rows(results)]
    lines += ["## From stored bytes to the answer", "", *write_formats(results)]
    lines += HOW.splitlines()
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    return document


HOW = """\
## How it is measured

- **Files**: alerts simulated in the real schemas, written as Spark writes them, with and without
  page index; both count where no layout is named. Each answer is compared with the stamp that was
  written, after the clock has stopped.
- **One stamp**: one process, one thread. In each round every method reads a random alert of every
  file, in another order each time, so that what else the machine does falls on all alike. Each
  method keeps what it can keep (connection, dataset, metadata cache) unless it says otherwise.
- **Ours** is `Reader.read_stored`, what a request does to have the stored bytes. *File never
  seen*: a new reader on a connection that has read another file. *Index stored*: the same,
  `cutout_api index` having been run.
- **Today's algorithm**: `pq.read_table(path, columns, filters)`; over HTTP also gunzip, `fits.open`
  and `jsonify`, as a minimal Flask service under the same gunicorn settings as ours.
- **DuckDB, Polars, DataFusion** read the file from local disk in any case: not all of them can
  read HDFS.
- **The floor** is a bare read of as many bytes by the same driver, file open, place known.
- **Over HTTP** two workers of eight threads; each client asks again as soon as it is answered.
  A service that is slow is asked longer, until each client has had four answers.
- **Many files**: a service of one worker is asked once for an alert of each file, by four clients
  (*first touch*), then 200 times for files among them, by one (*again*). The files hold one alert
  each, in the real schema; there are 200 different ones, under so many names.
- **Many rows**: files with tiny stamps, each in a process of its own, on local disk.

Run it: `make bench`, `make bench-hdfs`; `.venv/bin/python -m benchmarks --help` tells of a quick
version, of parts and sizes. A run that was interrupted goes on where it was; what was measured is
kept in `.cache/bench`.
"""
