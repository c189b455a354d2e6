"""What one request may cost at most, measured on the running service, in its worker.

``ROWS`` has the worst request of each kind that is known: what is found to cost more becomes a row,
with a file of its own in ``folder`` where it needs one. The bounds are those of
docs/operations.md. Processor time is counted, not the clock's: a busy machine changes little.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from astropy.io import fits

from cutout_api.settings import Limits

from ..samples import KINDS, pixels, write, ztf_alert, ztf_fits
from ..service import Service, running_service

CPU_SECONDS, MEGABYTES = 2.0, 200
"""Of one request, besides what it takes to make what the caller receives."""
CPU_OF_ANSWER, MEMORY_OF_ANSWER = 0.1, 4
"""Seconds for each megabyte that is received, and megabytes held meanwhile."""
ATTEMPTS = 3
"""On a machine that is shared, the same work takes up to three times the processor time."""
SINGLE, BATCH = "/api/v1/cutouts", "/api/v1/cutouts/batch"
OBJECT = "ZTF24aaaaaaa"
FILES = 400
EPOCHS = 24
SIDE = 2048
LIMITS = Limits()


@dataclass
class Row:
    """A request that was, or could be, dear; ``make`` returns what ``requests.request`` takes."""

    name: str
    make: Callable[[], dict[str, Any]]
    statuses: tuple[int, ...]
    seconds: float = CPU_SECONDS
    megabytes: float = MEGABYTES


def get(path: str, **arguments: Any) -> Callable[[], dict[str, Any]]:
    named = {name.replace("_format", "-format"): value for name, value in arguments.items()}
    return lambda: {"method": "GET", "url": path, "params": named}


def post(path: str, **members: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"method": "POST", "url": path, "json": members}


def send(path: str, make: Callable[[], bytes], media_type: str) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "method": "POST",
        "url": path,
        "data": make(),
        "headers": {"Content-Type": media_type},
    }


def stamp(**more: Any) -> dict[str, Any]:
    return {"hdfsPath": "small.parquet", "objectId": OBJECT, "kind": "Science"} | more


def flat(**more: Any) -> dict[str, Any]:
    return {"hdfsPath": "flat.parquet", "objectId": OBJECT, "kind": "All"} | more


def noisy(**more: Any) -> dict[str, Any]:
    return {"hdfsPath": "noisy.parquet", "objectId": OBJECT, "kind": "All"} | more


def epochs(**more: Any) -> dict[str, Any]:
    return {
        "hdfsPath": "epochs.parquet",
        "objectId": OBJECT,
        "kind": "Science",
        "epochs": "all",
    } | more


def whole_list(item: str) -> bytes:
    """Return a JSON body of ``limits.batch_bytes`` with one item over and over."""
    count = LARGE // (len(item) + 1)
    return ('{"kind": "Science", "candid": [' + ",".join([item] * count) + "]}").encode()


def whole_file(line: str) -> bytes:
    return line.encode() * (LARGE // len(line.encode()))


LARGE = LIMITS.batch_bytes - 200
DIGITS = "1" * 60_000 + "x"
IDS = "?kind=Science&ids=candid"
JSON, CSV, FORM = "application/json", "text/csv", "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xx"


def part(content: bytes, name: str = 'name="file"; filename="x"') -> bytes:
    head = f"--xx\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode()
    return head + content + b"\r\n--xx--\r\n"


ROWS: tuple[Row, ...] = (
    # --- text of any length
    *(
        Row(f"{name} of 60,000 digits", post(SINGLE, **stamp(**{name: DIGITS})), (400,), 0.2, 50)
        for name in ("pmin", "vmax", "a", "size", "zoom", "date", "labels", "candid", "colormap")
    ),
    Row(
        "side of 8 MiB",
        post(BATCH, candid=["1"], kind="Science", side="1" * LARGE),
        (400,),
    ),
    Row(
        "midpointMjdTai of 60,000 digits",
        post("/api/v1/sources", diaObjectId="1", midpointMjdTai=DIGITS),
        (400,),
        0.2,
        50,
    ),
    Row(
        "a number of 7,900 digits in an address",
        get(SINGLE, pmin="1" * 7900 + "x"),
        (400,),
        0.2,
        50,
    ),
    Row("1,500 arguments", get(SINGLE, **{f"{n:x}": "" for n in range(1500)}), (400,), 0.2, 50),
    Row(
        "a form of many fields",
        send(SINGLE, lambda: b"a=&" * 21_000, FORM),
        (400,),
        0.3,
        50,
    ),
    Row(
        "a body of empty objects",
        send(SINGLE, lambda: b'{"candid": [' + b"{}," * 21_000 + b"{}]}", JSON),
        (400,),
        0.5,
        50,
    ),
    Row(
        "many columns",
        post("/api/v1/objects", objectId=OBJECT, columns=[f"a{n}" for n in range(7000)]),
        (200, 400),
    ),
    # --- long lists
    *(
        Row(f"a list of {item}", send(BATCH, partial(whole_list, item), JSON), (400, 413))
        for item in ("{}", "[]", "1", '"a"', '{"a":1}', "null", "[[[[[[[[]]]]]]]]", "1e999")
    ),
    Row("lists in lists", send(BATCH, lambda: b"[" * LARGE, JSON), (400, 413)),
    Row("one long text", post(BATCH, kind="Science", candid=["1" * LARGE]), (200,)),
    Row("ids in one text", post(BATCH, kind="Science", candid="1 " * (LARGE // 2)), (413,)),
    *(
        Row(
            f"a file of lines {line!r}",
            send(BATCH + IDS, partial(whole_file, line), CSV),
            (400, 413),
        )
        for line in ("\n", "a\n", ",", ",\n", '"\n","', '"', "\r", " ", "aé\n", "\U0001f600,", '""')
    ),
    Row(
        "a form of escapes",
        send(BATCH, lambda: b"kind=Science&candid=" + b"%31" * (LARGE // 3), FORM),
        (400, 413),
    ),
    Row(
        "a form of blanks",
        send(BATCH, lambda: b"kind=Science&candid=" + b"1+" * (LARGE // 2), FORM),
        (413,),
    ),
    Row(
        "a form of bad escapes",
        send(BATCH, lambda: b"kind=Science&candid=" + b"%" * LARGE, FORM),
        (400, 413),
    ),
    *(
        Row(
            f"a part of {some!r}",
            send(BATCH + IDS, lambda some=some: part(some * (LARGE // len(some))), MULTIPART),
            (400, 413),
        )
        for some in (b"\n", b"\r\n", b"\r\n--x", b"\r", b"1\r\n")
    ),
    Row(
        "a part of many heads",
        send(BATCH + IDS, lambda: b"--xx\r\n" + b"a: b\r\n" * (LARGE // 6), MULTIPART),
        (400, 413),
    ),
    Row(
        "a field of a form",
        send(BATCH, lambda: part(b"1," * (LARGE // 2), 'name="candid"'), MULTIPART),
        (400, 413),
    ),
    # --- folders
    Row("a folder", get(SINGLE, **stamp(hdfsPath="many")), (200,), 2),
    Row(
        "a plan of one id over and over, in a folder",
        post(BATCH, objectId=[OBJECT] * 20_000, kind="All", hdfsPath="many", dry_run=1),
        (200,),
    ),
    # --- large stamps
    *(
        Row(
            f"all epochs of large stamps, {name}",
            get(SINGLE, **flat(epochs="all", return_type=name)),
            (413,),
        )
        for name in ("array", "FITS", "PNG", "GIF", "WebP")
    ),
    *(
        Row(f"three large stamps, {name}", get(SINGLE, **flat(return_type=name)), (200, 413))
        for name in ("array", "FITS", "PNG", "JPEG", "WebP", "GIF", "NPY", "NPZ")
    ),
    *(
        Row(
            f"200 epochs, {name} {more}",
            get(SINGLE, **epochs(return_type=name, **more)),
            (200, 413),
        )
        for name in ("array", "FITS", "PNG", "GIF", "WebP", "JPEG")
        for more in ({}, {"colormap": "viridis"}, {"size": "200", "orient": "asis"})
        if not more or name not in ("array", "FITS")
    ),
    *(
        Row(
            f"a noisy stamp, {name} {more}",
            get(SINGLE, **noisy(return_type=name, kind="Science") | more),
            (200, 413),
        )
        for name in ("PNG", "JPEG", "WebP", "GIF")
        for more in (
            {"kind": "All"},
            {},
            {"colormap": "viridis"},
            {"convolution_kernel": "gauss"},
            {"interval": "zscale"},
            {"stretch": "asinh"},
            {"interval": "percentile", "colormap": "viridis", "invert": 1},
        )
    ),
    *(
        Row(f"three noisy stamps, {name}", get(SINGLE, **noisy(return_type=name)), (200, 413))
        for name in ("array", "FITS", "NPY", "NPZ")
    ),
    *(
        Row(
            f"three masked stamps, array, {name}, nan={nan}",
            get(
                SINGLE,
                hdfsPath=f"{name}.parquet",
                objectId=OBJECT,
                kind="All",
                return_type="array",
                nan=nan,
            ),
            (200,),
        )
        for name in ("masked", "infinite")
        for nan in ("NaN", "null")
    ),
    *(
        Row(
            f"a noisy stamp, {more}",
            get(SINGLE, **noisy(return_type="PNG", kind="Science") | more),
            (200, 413),
        )
        for more in (
            {"size": 1024, "orient": "north", "resample": "lanczos"},
            {"labels": "all"},
            {"size": 1000, "labels": "all", "orient": "north"},
            {"zoom": 0.49, "resample": "lanczos"},
            {"explain": 1},
        )
    ),
    Row(
        "info of noisy stamps",
        get(SINGLE + "/info", hdfsPath="noisy.parquet", objectId=OBJECT),
        (200,),
        2,
        250,
    ),
    *(
        Row(
            f"epochs as large as may be, {name} {more}",
            get(
                SINGLE,
                **flat(
                    epochs="all",
                    kind="Science",
                    date="2024-04-10/2024-04-12T12:00:00",
                    return_type=name,
                    **more,
                ),
            ),
            (200, 413),
        )
        for name in ("array", "FITS", "PNG", "GIF", "WebP")
        for more in ({}, {"colormap": "viridis"})
        if not more or name not in ("array", "FITS")
    ),
    Row(
        "info of large stamps",
        get(SINGLE + "/info", hdfsPath="flat.parquet", objectId=OBJECT),
        (200,),
    ),
    *(
        Row(
            f"a batch of large stamps, {name}",
            post(
                BATCH, objectId=[OBJECT] * 3, package=name, kind="Science", hdfsPath="flat.parquet"
            ),
            (200,),
        )
        for name in ("ndjson", "zip", "arrow", "parquet", "npz")
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    write(folder / "small.parquet", [ztf_alert(n, OBJECT) for n in range(4)])
    for number in range(FILES):
        write(folder / f"many/part-{number:04}.parquet", [ztf_alert(1000 + number, OBJECT)])
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.full((SIDE, SIDE), 7, np.float32)).writeto(buffer)
    stored = gzip.compress(buffer.getvalue(), 6, mtime=0)
    kinds = dict.fromkeys(("Science", "Template", "Difference"), stored)
    write(folder / "flat.parquet", [ztf_alert(n, OBJECT, **kinds) for n in range(EPOCHS)])
    write(folder / "epochs.parquet", [ztf_alert(n, OBJECT) for n in range(200)])
    kinds = {kind: ztf_fits(pixels(n, (SIDE, SIDE))) for n, kind in enumerate(KINDS)}
    write(folder / "noisy.parquet", [ztf_alert(1, OBJECT, **kinds)])
    chance = np.random.default_rng(1)
    for name, values in (("masked", [np.nan]), ("infinite", [np.nan, np.inf, -np.inf, 1])):
        image = chance.choice(np.array(values, np.float32), (SIDE, SIDE))
        stored = gzip.compress(ztf_fits(image), 1, mtime=0)
        write(folder / f"{name}.parquet", [ztf_alert(1, OBJECT, **dict.fromkeys(KINDS, stored))])
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{folder}/catalog.sqlite",
    }
    with running_service(environment) as service:
        yield service


@dataclass
class Worker:
    pid: int

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
        raise AssertionError(name)

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def worker(service: Service) -> Worker:
    for name in ("PNG", "FITS", "array", "WebP", "GIF", "JPEG", "NPZ"):
        ask(service, get(SINGLE, **stamp(return_type=name))())
    ask(service, get(SINGLE + "/info", hdfsPath="small.parquet", objectId=OBJECT)())
    ask(service, post(BATCH, objectId=[OBJECT], kind="Science", package="parquet")())
    found = subprocess.run(
        ["ps", "--ppid", str(service.process.pid), "-o", "pid="], capture_output=True, text=True
    )
    (pid,) = found.stdout.split()
    return Worker(int(pid))


def ask(service: Service, request: dict[str, Any]) -> tuple[int, int]:
    """Return the status, and how many bytes were received."""
    request = request | {"url": service.address + request["url"]}
    with requests.request(**request, timeout=60, stream=True) as response:
        size = sum(map(len, response.iter_content(1 << 16)))
        return response.status_code, size


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_request_costs_more_than_is_written_down(
    service: Service, worker: Worker, row: Row
) -> None:
    request = row.make()
    for _ in range(ATTEMPTS):
        worker.forget_peak()
        cpu, memory = worker.cpu(), worker.memory("VmRSS")
        status, size = ask(service, request)
        cpu, memory = worker.cpu() - cpu, worker.memory("VmHWM") - memory
        print(f"COST {row.name}: {status}, {size / 1e6:.1f} MB sent, {cpu:.2f} s, {memory:.0f} MB")
        assert status in row.statuses
        most = (
            row.seconds + CPU_OF_ANSWER * size / 1e6,
            row.megabytes + MEMORY_OF_ANSWER * size / 1e6,
        )
        if cpu <= most[0] and memory <= most[1]:
            return
    raise AssertionError(f"{cpu:.2f} s, {memory:.0f} MB; at most {most[0]:.2f} s, {most[1]:.0f} MB")
