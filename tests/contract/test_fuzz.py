"""A running worker is fed damaged files by the thousand, answers each, and stays the same."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from ..archive import make_old
from ..damage import (
    add_cards,
    card,
    damage_fits,
    damage_parquet,
    damage_sky,
    many_bad_sky_cards,
    unique,
)
from ..samples import (
    KINDS,
    LSST_SCHEMA,
    ZTF_SCHEMA,
    lsst_alert,
    lsst_fits,
    pixels,
    write,
    ztf_alert,
    ztf_fits,
)
from ..service import Service, running_service
from .test_index_command import run_index

SEED = 20_240_917
FILES, HEADERS, HOSTILE_HEADERS = 1400, 800, 200
FIRST_NAME, FIRST_CANDID = "ZTF24aaaaaaa", ztf_alert(0)["candid"]
MOST_GROWTH = 400 << 20
"""Of a worker, in bytes, its indexes and warm libraries included."""


@dataclass
class Answers:
    """What the worker answered: how many of each status, and whatever was no good answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    log: str = ""

    def report(self) -> str:
        return "\n".join([f"{len(self.wrong)} wrong", *self.wrong[:20], self.log[-5000:]])

    def add(self, what: str, answer: requests.Response) -> None:
        self.statuses[answer.status_code] += 1
        try:
            _check(answer)
        except Exception as error:
            self.wrong.append(f"{what}: {answer.status_code} {answer.content[:300]!r} ({error!r})")


def _check(answer: requests.Response) -> None:
    media_type = answer.headers["Content-Type"].split(";")[0]
    if answer.status_code != 200:
        assert media_type == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert 400 <= answer.status_code < 500 or answer.status_code == 502
        assert "Traceback" not in answer.text
    elif media_type == "application/json":
        json.loads(answer.content)
    elif media_type == "image/png":
        Image.open(io.BytesIO(answer.content)).load()
    else:
        assert media_type in ("application/fits", "application/octet-stream")
        assert answer.content


@contextmanager
def one_worker(environment: dict[str, str]) -> Iterator[tuple[Service, psutil.Process]]:
    """Run the service with one worker; in the end that is the same process, and not much larger."""
    with running_service(environment | {"CUTOUT_API_SERVER_WORKERS": "1"}) as service:
        requests.get(f"{service.address}/api/v1/cutouts", timeout=20)
        master = psutil.Process(service.process.pid)
        (worker,) = master.children()
        before = worker.memory_info().rss
        yield service, worker
        assert [child.pid for child in master.children()] == [worker.pid], service.log[-3000:]
        assert worker.memory_info().rss - before < MOST_GROWTH


def ask_all(
    service: Service, requested: list[tuple[str, str, dict[str, str]]], answers: Answers
) -> None:
    """Ask for each: what it is, the route, the query; four at a time."""

    def ask(some: list[tuple[str, str, dict[str, str]]]) -> None:
        with requests.Session() as session:
            for what, route, query in some:
                address = f"{service.address}/api/v1/{route}"
                try:
                    answer = session.get(address, params=query, timeout=60)
                except requests.RequestException as error:
                    answers.wrong.append(f"{what}: {error!r}")
                else:
                    answers.add(what, answer)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, (requested[n::4] for n in range(4))))
    answers.log = service.log


# --- parquet ------------------------------------------------------------------------------------

# Ids stand in the file as they are, so that each copy can have its own.
_PLAIN = {
    name: "none" if name in ("objectId", "candid") else "snappy"
    for name in (
        "objectId",
        "candid",
        "candidate.jd",
        "candidate.fid",
        *(f"cutout{kind}.{leaf}" for kind in KINDS for leaf in ("fileName", "stampData")),
    )
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "spark": {},
    "page index": {"write_page_index": True},
    "version 2": {"data_page_version": "2.0"},
    "dictionary": {
        "use_dictionary": [f"cutout{kind}.stampData" for kind in KINDS],
        "compression": {
            name: "zstd" if codec == "snappy" else codec for name, codec in _PLAIN.items()
        },
    },
    "delta": {"column_encoding": {"cutoutScience.stampData": "DELTA_LENGTH_BYTE_ARRAY"}},
    "checksums": {"write_page_checksum": True, "store_schema": False, "data_page_size": 500},
}


def write_damaged_files(folder: Path) -> list[tuple[str, str, int]]:
    """Write damaged copies of small files; return the name, object and candid of each."""
    folder.mkdir(parents=True)
    source = random.Random(SEED)
    seeds = []
    for options in LAYOUTS.values():
        rows = [ztf_alert(n, FIRST_NAME, shape=(9, 9)) for n in range(3)]
        path = write(folder / "seed.parquet", rows, ZTF_SCHEMA, **{"compression": _PLAIN} | options)
        seeds.append(path.read_bytes())
        path.unlink()
    found = []
    for number in range(FILES):
        name = f"ZTF24{''.join(chr(97 + number // 26**n % 26) for n in range(7))}"
        candid = 3 * 10**18 + 1000 * number
        content = unique(
            source.choice(seeds),
            {FIRST_NAME.encode(): name.encode()}
            | {
                struct.pack("<q", FIRST_CANDID + n): struct.pack("<q", candid + n) for n in range(3)
            },
        )
        file = f"{number}.parquet"
        (folder / file).write_bytes(damage_parquet(source, content))
        make_old(folder / file)
        found.append((file, name, candid))
    return found


def test_no_damaged_parquet_file_ends_a_worker(tmp_path: Path) -> None:
    damaged = write_damaged_files(tmp_path / "archive/damaged")
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(tmp_path / "archive"),
        "CUTOUT_API_INDEX_FOLDER": str(tmp_path / "index"),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
        "CUTOUT_API_SERVER_LOG_LEVEL": "WARNING",
    }
    ended = run_index(environment, "--blocks")
    assert ended.returncode == 1
    assert ended.stdout.startswith(f"{FILES} files, ")
    assert "Traceback" not in ended.stderr
    shutil.rmtree(tmp_path / "index")  # which would spare the worker what it is to be fed
    requested = []
    for number, (file, name, candid) in enumerate(damaged):
        query = {"hdfsPath": f"damaged/{file}", "candid": str(candid + number % 3)}
        query["kind"] = (*KINDS, "All")[number % 4]
        query["output-format"] = ("array", "FITS", "PNG")[number % 3]
        requested.append((file, "cutouts", query))
        if number % 3 == 0:
            requested.append((file, "objects", {"objectId": name, "withcutouts": "True"}))
        if number % 5 == 0:
            query = {"hdfsPath": f"damaged/{file}", "objectId": name, "which": "latest"}
            requested.append((file, "cutouts", query | {"kind": "Science"}))
    answers = Answers()
    with one_worker(environment) as (service, _):
        ask_all(service, requested, answers)
    assert not answers.wrong, answers.report()
    # Both happened often: damage that was met, and damage elsewhere.
    assert min(answers.statuses[200], answers.statuses[502]) > len(requested) // 10


# --- FITS ---------------------------------------------------------------------------------------


# What the sample's header has not of its place on the sky.
POSITION = [
    card(name, value)
    for name, value in (
        ("CRPIX2", "6.0"),
        ("CRVAL2", "2.5"),
        ("PC2_2", "4.98E-05"),
        ("PC1_2", "0.0"),
        ("PC2_1", "0.0"),
        ("CTYPE1", "'RA---TAN'"),
        ("CTYPE2", "'DEC--TAN'"),
    )
]


def ask_for_stamps(
    folder: Path, damage: Callable[[random.Random, bytes], bytes], count: int
) -> Answers:
    """Ask one worker for damaged stamps of both surveys, in every format, and on the sky."""
    source = random.Random(SEED)
    image = pixels(1, (12, 11))
    ztf, lsst = ztf_fits(image), add_cards(lsst_fits(image), POSITION)
    half = count // 2
    rows = [ztf_alert(n, Science=gzip.compress(damage(source, ztf), 1)) for n in range(half)]
    write(folder / "ztf.parquet", rows, row_group_size=64)
    rows = [lsst_alert(n, Science=damage(source, lsst)) for n in range(half)]
    write(folder / "lsst.parquet", rows, LSST_SCHEMA, row_group_size=64)
    for file in folder.iterdir():
        make_old(file)
    requested = []
    for number in range(count):
        if number % 2:
            query = {"hdfsPath": "ztf.parquet", "candid": str(ztf_alert(number // 2)["candid"])}
        else:
            source_id = lsst_alert(number // 2)["diaSource"]["diaSourceId"]
            query = {"hdfsPath": "lsst.parquet", "diaSourceId": str(source_id)}
        query["kind"] = "Science"
        what = f"{number}"
        requested.append((what, "cutouts", query | {"output-format": "array"}))
        requested.append((what, "cutouts", query | {"output-format": "PNG", "orient": "north"}))
        if number % 3 == 0:
            requested.append((what, "cutouts", query | {"output-format": "FITS", "wcs": "fix"}))
        else:
            requested.append((what, "cutouts/info", query))
    answers = Answers()
    environment = {"CUTOUT_API_ARCHIVE_URI": str(folder), "CUTOUT_API_SERVER_LOG_LEVEL": "WARNING"}
    with one_worker(environment) as (service, _):
        ask_all(service, requested, answers)
    return answers


@pytest.mark.parametrize(
    ("damage", "count"),
    [(damage_fits, HEADERS), (damage_sky, HOSTILE_HEADERS), (many_bad_sky_cards, HOSTILE_HEADERS)],
    ids=["any cards", "cards of the sky", "many bad cards of the sky"],
)
def test_no_damaged_stamp_ends_a_worker(
    tmp_path: Path, damage: Callable[[random.Random, bytes], bytes], count: int
) -> None:
    answers = ask_for_stamps(tmp_path, damage, count)
    assert not answers.wrong, answers.report()
    assert answers.statuses[200] > count // 10
