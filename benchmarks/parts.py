"""What is measured, part by part: each runs in a process of its own and returns plain data."""

from __future__ import annotations

import io
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask
from PIL import Image
from requests import Timeout

from cutout_api.epochs import Alert as OurAlert
from cutout_api.formatter import format_stamps
from cutout_api.panels import Layout
from cutout_api.render import Rendering
from cutout_api.stamp import StampLimits, unpack
from cutout_api.surveys import KINDS, Survey
from cutout_api.surveys import SURVEYS as SURVEY_TABLE
from tests.service import Service, running_service

from . import today
from .datasets import (
    SURVEYS,
    Alert,
    File,
    inflate,
    link_small_files,
    read_samples,
    small_name,
    write_rows,
    write_small_files,
)
from .load import Load, build_request, fetch, run_load, run_once
from .methods import OURS, Method, Way, index_folder, list_methods, our_environment, store_indexes
from .places import Place, as_argument, call_in_child, children_of, resident_mb

Data = dict[str, Any]
SERVE_TODAY = (sys.executable, "-m", "gunicorn", "--config", "python:benchmarks.today_server")
ROUTE = "/api/v1/cutouts"


class WrongAnswer(Exception):
    """A method answered with other bytes than were written."""


class Progress:
    """Lines on stderr: how far a part is, and how long it will take."""

    def __init__(self, part: str) -> None:
        self._part, self._start, self._last = part, time.monotonic(), 0.0

    def tell(self, done: float, what: str) -> None:
        """Say what is being done, every few seconds; ``done`` is a share of one."""
        now = time.monotonic()
        if now - self._last < 5 and done < 1:
            return
        self._last = now
        spent = now - self._start
        left = f", {spent / done * (1 - done):.0f} s left" if 0.02 < done < 1 else ""
        print(f"  {self._part}: {100 * done:3.0f} %{left}  {what}", file=sys.stderr, flush=True)


# --- One stamp --------------------------------------------------------------------------------


def measure_stamps(
    place: Place,
    *,
    survey: str,
    sizes: list[int],
    layouts: list[str],
    rounds: int,
    seconds: float,
) -> Data:
    """Measure every method on random alerts: in each round all of them, in another order."""
    files = [File(survey, size, layout) for size in sizes for layout in layouts]
    alerts = {file: read_samples(Path(place.local), file) for file in files}
    stored = store_ours(place, files)
    methods = list_methods(place)
    skipped = [method.title for method in methods if method.missing]
    methods = [method for method in methods if not method.missing]
    ways: dict[str, Way] = {method.name: method.make() for method in methods}
    cases = [
        (method, file, kinds)
        for method in methods
        for file in files
        for kinds in (("Science",), KINDS)
        if _applies(method, file, kinds, files)
    ]
    times: list[list[float]] = [[] for _ in cases]
    chance = random.Random(1)
    try:
        start, progress = time.monotonic(), Progress(f"stamps {survey}")
        for turn in range(-1, rounds):  # the first is not counted: libraries load, pools start
            order = list(range(len(cases)))
            chance.shuffle(order)
            for number in order:
                method, file, kinds = cases[number]
                for again in range(method.times if turn >= 0 else 1):
                    sample = alerts[file]
                    alert = sample[(turn * 3 + again) % len(sample)]
                    spent = _time_one(ways[method.name], method, file, alert, kinds)
                    if turn >= 0:
                        times[number].append(round(1000 * spent, 4))
            if turn < 0:
                start, progress = time.monotonic(), Progress(f"stamps {survey}")
                continue
            spent_all = time.monotonic() - start
            share = max((turn + 1) / rounds, spent_all / seconds)
            progress.tell(min(1.0, share), f"round {turn + 1} of {rounds}")
            if spent_all > seconds and turn >= 4:
                break
    finally:
        for way in ways.values():
            way.close()
    return {
        "cases": [
            {**_describe(method), **asdict(file), "kinds": len(kinds), "ms": ms}
            for (method, file, kinds), ms in zip(cases, times, strict=True)
        ],
        "skipped": skipped,
        "stored": stored,
        "bytes": {file.name: (Path(place.local) / file.name).stat().st_size for file in files},
    }


def _time_one(way: Way, method: Method, file: File, alert: Alert, kinds: Sequence[str]) -> float:
    way.prepare(file)
    start = time.perf_counter()
    answer = way.read(file, alert, kinds)
    spent = time.perf_counter() - start
    if method.checked:
        expected = [inflate(alert.cells[kind]) for kind in kinds]
        if [inflate(cell) for cell in answer] != expected:
            raise WrongAnswer(f"{method.title}, {file.name}, {alert.keys}")
    return spent


def _applies(method: Method, file: File, kinds: Sequence[str], files: Sequence[File]) -> bool:
    middle = file.megabytes == middle_size(sorted({f.megabytes for f in files}))
    if len(kinds) > 1:
        return method.all_kinds and middle and file.layout == files[-1].layout
    return method.every_file or middle


def middle_size(sizes: Sequence[int]) -> int:
    """Return the size at which everything is measured: 100 of 25, 100 and 400."""
    return sizes[len(sizes) // 2]


def _describe(method: Method) -> Data:
    return {
        "method": method.name,
        "title": method.title,
        "group": method.group,
        "driver": method.driver,
        "times": method.times,
    }


def store_ours(place: Place, files: Sequence[File]) -> Data:
    """Fill the index folders that variants of ours start from."""
    levels = sorted({variant.stored for variant in OURS if variant.stored})
    return {
        f"{level}@{driver}": store_indexes(place, driver, files, level)
        for driver in place.drivers
        for level in levels
    }


# --- Formats ----------------------------------------------------------------------------------


def measure_formats(place: Place, size: int, rounds: int) -> Data:
    """Measure what is left once a stamp is read: from the stored bytes to the answer's."""
    found = []
    flask = Flask(__name__)
    for survey in (it for it in SURVEY_TABLE if it.name in SURVEYS):
        alerts = read_samples(Path(place.local), File(survey.name, size, ""))
        asked: dict[tuple[str, str], Callable[[bytes], object]] = {}
        with flask.test_request_context():
            for name in ("array", "FITS", "PNG"):
                asked["ours", name] = partial(_write_ours, name=name, survey=survey)
                asked["today", name] = today.WRITERS[name]
            times: dict[tuple[str, str], list[float]] = {key: [] for key in asked}
            for turn in range(-1, rounds):
                cell = alerts[turn % len(alerts)].cells["Science"]
                for key, write in asked.items():
                    start = time.perf_counter()
                    write(cell)
                    if turn >= 0:
                        times[key].append(1000 * (time.perf_counter() - start))
        found += [
            {"survey": survey.name, "who": who, "format": name, "ms": statistics.median(ms)}
            for (who, name), ms in times.items()
        ]
    return {"formats": found}


def _write_ours(cell: bytes, *, name: str, survey: Survey) -> bytes:
    stamp = unpack("Science", cell, StampLimits(2**25, 2**22))
    layout = Layout(survey, by_name=False, rendering=Rendering(), image_pixels=2**22)
    return format_stamps(OurAlert([stamp]), name, layout)[0]


# --- HTTP -------------------------------------------------------------------------------------


def list_services(place: Place) -> list[Data]:
    """Return the services that are measured over HTTP: how they are started, what they are."""
    base = {"BENCH_URI": place.uri, "BENCH_USER": place.user}
    services = [{"name": "today", "title": "today's algorithm", "environment": base}]
    if place.on_hdfs:
        services.append(
            {
                "name": "today-kept",
                "title": "today's algorithm, connection kept",
                "environment": base | {"BENCH_KEEP": "1"},
            }
        )
    for driver in place.drivers:
        for variant in OURS:
            if variant.cold:
                continue
            folder = index_folder(place, driver, variant.stored)
            services.append(
                {
                    "name": f"{variant.name}@{driver}",
                    "title": variant.title + ("" if driver == "local" else f", {driver}"),
                    "environment": our_environment(place, driver, folder),
                }
            )
    return services


@contextmanager
def serve(service: Data, **more: str) -> Iterator[Service]:
    """Run one of the services, two workers of eight threads unless ``more`` says otherwise."""
    own = {"CUTOUT_API_SERVER_WORKERS": "2", "CUTOUT_API_SERVER_THREADS": "8"}
    environment = service["environment"] | own | more
    arguments = [environment]
    if service["name"].startswith("today"):
        arguments.append(SERVE_TODAY)
    with ExitStack() as stack:
        try:
            running = stack.enter_context(running_service(*arguments, seconds=60))
        except Timeout:  # while the JVM starts, a busy machine keeps it waiting
            running = stack.enter_context(running_service(*arguments, seconds=60))
        yield running


def build_body(place: Place, path: str, keys: Mapping[str, Any], form: str) -> Data:
    asked = {name: str(value) for name, value in keys.items()}
    return {"hdfsPath": path, **asked, "kind": "Science", "return_type": form}


def measure_http(
    place: Place,
    *,
    survey: str,
    size: int,
    layout: str,
    formats: list[str],
    clients: list[int],
    seconds: float,
    passes: int,
) -> Data:
    """Measure rates and latencies of each service; in each further pass in reversed order."""
    progress = Progress(f"http {survey}")
    file = File(survey, size, layout)
    alerts = read_samples(Path(place.local), file)
    store_ours(place, [file])
    services = list_services(place)
    loads: dict[tuple[str, str, int], list[Load]] = {}
    about: dict[str, Data] = {
        service["name"]: {"title": service["title"], "resident_mb": 0.0, "peak_mb": 0.0}
        for service in services
    }
    order = [service for turn in range(passes) for service in services[:: 1 - 2 * (turn % 2)]]
    for number, service in enumerate(order):
        name, cells = service["name"], [(form, n) for form in formats for n in clients]
        with serve(service) as running:
            bodies = {
                form: [
                    build_request(
                        running.port, ROUTE, build_body(place, place.path(file), a.keys, form)
                    )
                    for a in alerts
                ]
                for form in formats
            }
            began = time.perf_counter()
            fetch(running.port, bodies[formats[0]][-1])
            about[name].setdefault("first_ms", 1000 * (time.perf_counter() - began))
            _check_answers(running, bodies, alerts)
            run_load(running.port, bodies[formats[0]], clients=8, seconds=min(2, seconds))
            for place_in, (form, n) in enumerate(cells):
                progress.tell(
                    (number + place_in / len(cells)) / len(order),
                    f"{service['title']}, {form}, {n} clients",
                )
                load = run_load(running.port, bodies[form], clients=n, seconds=seconds)
                loads.setdefault((name, form, n), []).append(load)
            if not name.startswith("today") and "constant" not in about[name]:
                constant = build_request(running.port, "/healthz")
                load = run_load(running.port, [constant], clients=8, seconds=min(2, seconds))
                about[name]["constant"] = summarise([load])
            for pid in children_of(running.process.pid):
                for key, field in (("resident_mb", "VmRSS"), ("peak_mb", "VmHWM")):
                    about[name][key] = max(about[name][key], resident_mb(pid, field))
    progress.tell(1, "")
    return {
        "survey": survey,
        "file": asdict(file),
        "services": about,
        "cells": [
            {"service": name, "format": form, "clients": n, **summarise(runs)}
            for (name, form, n), runs in loads.items()
        ],
    }


def summarise(loads: Sequence[Load]) -> Data:
    """Return rate and percentiles over several runs of the same load."""
    latencies = np.array([latency for load in loads for latency in load.latencies]) * 1000
    seconds = sum(load.seconds for load in loads)
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) if len(latencies) else (0, 0, 0)
    return {
        "rate": sum(load.answered for load in loads) / seconds,
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "answers": len(latencies),
        "failed": sum(load.failed for load in loads),
        "bytes": sum(load.received for load in loads) / max(1, len(latencies)),
        "client_cpu": sum(load.cpu for load in loads) / seconds,
    }


def _check_answers(
    service: Service, bodies: Mapping[str, Sequence[bytes]], alerts: Sequence[Alert]
) -> None:
    """Compare some answers of a service with what was written."""
    for form, requests in bodies.items():
        for request, alert in list(zip(requests, alerts, strict=True))[:4]:
            ok, body = fetch(service.port, request)
            if not ok:
                raise WrongAnswer(f"{request!r}: {body[:500]!r}\n{service.log[-3000:]}")
            cell = alert.cells["Science"]
            if form == "array":
                got = np.array(json.loads(body)[0], dtype=np.float32)
                same = np.array_equal(got, np.array(today.to_list(cell), "f4"), equal_nan=True)
            elif form == "FITS":
                same = np.array_equal(
                    today.to_list(body), np.array(today.to_list(cell)), equal_nan=True
                )
            else:
                drawn = Image.open(io.BytesIO(body)).convert("L")
                same = drawn.tobytes() == Image.open(today.to_png(cell)).tobytes()
            if not same:
                raise WrongAnswer(f"{form} of {alert.keys} differs from what was written")


# --- Many files -------------------------------------------------------------------------------


def measure_files(
    place: Place, names: list[Data], counts: list[int], driver: str, seconds: float
) -> Data:
    """Ask one worker for a stamp of each of many files; watch its memory and its latency.

    ``names`` says how the alert of each file is called; file ``n`` has that of ``n % len``.
    """
    progress = Progress(f"files {driver}")
    folder = f"{place.scratch}/index-files-{driver}"
    Path(folder).mkdir(parents=True, exist_ok=True)
    if driver == "today":
        service = list_services(place)[0]
    else:
        environment = our_environment(place, driver, folder)
        service = {"name": driver, "environment": environment}
    steps: list[Data] = []
    limit = time.monotonic() + seconds
    with serve(service, CUTOUT_API_SERVER_WORKERS="1") as running:
        (worker,) = children_of(running.process.pid)
        requests = [
            build_request(
                running.port,
                ROUTE,
                build_body(place, place.path(small_name(n)), names[n % len(names)], "FITS"),
            )
            for n in range(counts[-1])
        ]
        started = resident_mb(worker)
        before = 0
        for count in counts:
            first = run_once(running.port, requests[before:count], clients=4, seconds=seconds)
            if first.failed:
                raise WrongAnswer(f"{first.failed} requests failed\n{running.log[-3000:]}")
            seen = random.Random(count).choices(requests[:count], k=200)
            again = run_once(running.port, seen, clients=1, seconds=30)
            steps.append(
                {
                    "files": count,
                    "first_ms": 1000 * statistics.median(first.latencies),
                    "again_ms": 1000 * statistics.median(again.latencies),
                    "resident_mb": resident_mb(worker),
                }
            )
            progress.tell(count / counts[-1], f"{count} files, {steps[-1]['resident_mb']:.0f} MB")
            before = count
            if time.monotonic() > limit:
                break
        peak = resident_mb(worker, "VmHWM")
    return {"driver": driver, "started_mb": started, "peak_mb": peak, "steps": steps}


def prepare_small_files(place: Place, number: int) -> list[Data]:
    """Write the small files, and give them all their names on local disk."""
    source = Path(place.local) / "small-files"
    marker = source / "names.json"
    if not marker.exists():
        names = write_small_files(source)
        marker.write_text(json.dumps(names))
    if not place.on_hdfs:
        link_small_files(source, Path(place.local), number)
    names_read: list[Data] = json.loads(marker.read_text())
    return names_read


# --- Many rows --------------------------------------------------------------------------------


def measure_rows(place: Place, counts: list[int], rounds: int) -> Data:
    """Measure files of more and more rows with tiny stamps, each in a process of its own."""
    progress = Progress("rows")
    steps = []
    for number, count in enumerate(counts):
        progress.tell(number / len(counts), f"{count} rows")
        for who in ("today", "ours"):
            steps.append(
                call_in_child(
                    "parts:measure_one_row_count",
                    {"place": as_argument(place), "rows": count, "who": who, "rounds": rounds},
                    environment={},
                    seconds=300,
                )
            )
    progress.tell(1, "")
    return {"steps": steps}


def measure_one_row_count(place: Place, rows: int, who: str, rounds: int) -> Data:
    """Measure one file in this process; its memory is this process's."""
    with tempfile.TemporaryDirectory(dir=place.local) as folder:
        file = File("ztf", 0, f"{rows}-rows")
        alerts = call_in_child(
            "parts:write_row_file",
            {"path": f"{folder}/{file.name}", "rows": rows},
            environment={},
            seconds=300,
        )
        there = Place(f"file://{folder}", folder, folder, folder, place.user)
        method = next(m for m in list_methods(there) if m.group == who)
        way = method.make()
        before = resident_mb()
        times = []
        limit = time.monotonic() + 20
        for keys, packed in alerts[: rounds + 1]:
            stamp = bytes.fromhex(packed)
            start = time.perf_counter()
            answer = way.read(file, Alert(0, keys, {}), ("Science",))
            times.append(1000 * (time.perf_counter() - start))
            if [inflate(cell) for cell in answer] != [inflate(stamp)]:
                raise WrongAnswer(f"{who}, {rows} rows, {keys}")
            if time.monotonic() > limit:
                break
        way.close()
    return {
        "who": who,
        "rows": rows,
        "first_ms": times[0],
        "again_ms": statistics.median(times[1:] or times),
        "grown_mb": resident_mb(field="VmRSS") - before,
        "peak_mb": resident_mb(field="VmHWM") - before,
    }


def write_row_file(path: str, rows: int) -> list[Any]:
    """Write the file of many rows; return how some of its alerts are called, and their stamps."""
    return [(alert.keys, alert.cells["Science"].hex()) for alert in write_rows(Path(path), rows)]
