"""An object with many epochs, answered in one pass, against one request per stamp of today's way.

    python -m benchmarks.objects [--files 10] [--epochs 100] [--megabytes 100] [--hdfs] [--blocks]

Today: for each epoch and kind a request to the minimal service of ``today``, in this process, its
connection kept. Ours: one request to ``/api/v1/objects`` with ``withcutouts``. Both are asked
through their WSGI applications and give JSON. What an object's alerts are, the catalog says.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from flask.testing import FlaskClient

from cutout_api.demo import simulate_ztf, write_file
from cutout_api.epochs import Entry
from cutout_api.settings import Archive, Index, Settings
from cutout_api.surveys import KINDS, ZTF, KeyValue
from cutout_api.web import create_app
from tests.catalogue import catalogued

from .__main__ import CACHE, HDFS_FOLDER
from .datasets import ROWS_PER_MEGABYTE
from .places import Place

OBJECT = "ZTF24aabench"
FIRST_CANDID = 2_900_000_000_000_000_000
COLUMNS = "i:jd,i:fid,i:magpsf,i:sigmapsf"


def write_epochs(folder: Path, files: int, epochs: int, megabytes: int) -> list[Path]:
    """Write files of a night each, with their share of the epochs of one object in them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        folder / f"{megabytes}-{files}-{epochs}-{number:03d}.parquet" for number in range(files)
    ]
    if all(path.exists() for path in paths):
        return paths
    night = simulate_ztf(rows=megabytes * ROWS_PER_MEGABYTE)
    rng = np.random.default_rng(3)
    for number, path in enumerate(paths):
        share = epochs // files + (number < epochs % files)
        mine = set(rng.choice(night.num_rows, share, replace=False).tolist())
        write_file(path, _renamed(night, number, mine), "spark-indexed")
    return paths


def _renamed(night: pa.Table, number: int, mine: set[int]) -> pa.Table:
    """Return a night under ids of its own, some of its rows alerts of the object."""
    names = night["objectId"].to_pylist()
    names = [OBJECT if row in mine else name for row, name in enumerate(names)]
    candids = FIRST_CANDID + number * 1_000_000 + np.arange(night.num_rows)
    candidate = night["candidate"].combine_chunks()
    fields = [
        _later(candidate.field(place), float(number))
        if field.name == "jd"
        else candidate.field(place)
        for place, field in enumerate(candidate.type)
    ]
    renamed = {
        "objectId": pa.array(names, night.schema.field("objectId").type),
        "candid": pa.array(candids, night.schema.field("candid").type),
        "candidate": pa.StructArray.from_arrays(fields, fields=list(candidate.type)),
    }
    for name, values in renamed.items():
        night = night.set_column(
            night.schema.get_field_index(name), night.schema.field(name), values
        )
    return night


def _later(values: pa.Array, number: float) -> pa.Array:
    return pc.add(values, number)


def seconds(ask: Callable[[], bytes], check: Callable[[bytes], None]) -> float:
    """Return how long an answer takes; that it is right is not part of it."""
    start = time.perf_counter()
    answer = ask()
    taken = time.perf_counter() - start
    check(answer)
    return taken


def time_today(client: FlaskClient, entries: list[Entry]) -> list[float]:
    """Ask for each stamp of each epoch, one request each; return how long each took."""

    def ask(entry: Entry, kind: str) -> bytes:
        keys: dict[str, KeyValue | None] = {"objectId": OBJECT, "candid": entry.alert_id}
        path = entry.file.path
        return client.post("/api/v1/cutouts", json={"hdfsPath": path, "kind": kind, **keys}).data

    def check(answer: bytes) -> None:
        assert len(orjson.loads(answer.replace(b"NaN", b"null"))[0]) > 60

    return [seconds(lambda e=e, k=k: ask(e, k), check) for e in entries for k in KINDS]  # type: ignore[misc]


def time_ours(clients: list[FlaskClient], epochs: int, **more: str) -> float:
    """Ask once for all, by each of some clients; return the median time."""

    def check(answer: bytes) -> None:
        rows = orjson.loads(answer)
        assert len(rows) == epochs
        assert all(len(row[f"b:cutout{kind}_stampData"]) > 60 for row in rows for kind in KINDS)

    query = {"objectId": OBJECT, "withcutouts": "True", **more}
    return statistics.median(
        seconds(lambda c=c: c.get("/api/v1/objects", query_string=query).data, check)  # type: ignore[misc]
        for c in clients
    )


@contextmanager
def place_of(paths: list[Path], *, hdfs: bool) -> Iterator[Place]:
    """Give the place of the files: their folder, or a cluster that they are put on."""
    folder = paths[0].parent
    here = Place(f"file://{folder}", str(folder), str(folder), str(folder))
    if not hdfs:
        yield here
        return
    from tests.hdfs.cluster import CLIENT_FOLDER, HdfsCluster, read_env

    with HdfsCluster() as cluster:
        os.environ.update(read_env(CLIENT_FOLDER / "env"))
        for path in paths:
            cluster.put(path, f"{HDFS_FOLDER}/{path.name}")
        yield replace(here, uri=cluster.uri + HDFS_FOLDER, folder=HDFS_FOLDER)


def measure(
    paths: list[Path], place: Place, epochs: int, rounds: int, *, blocks: bool
) -> dict[str, float]:
    """Return medians in seconds: of today's requests in all, and of ours."""
    index = paths[0].parent / ("index-blocks" if blocks else "index")
    settings = catalogued(
        Settings(archive=Archive(uri=place.uri, user=place.user), index=Index(folder=str(index))),
        *(place.path(path.name) for path in paths),
    )
    apps = [create_app(settings)]
    reader = apps[0].extensions["cutout_reader"]
    for path in paths if blocks else ():
        for file_id in reader.archive.locate(place.path(path.name)):
            reader.learn(file_id, blocks=True)
    entries = reader.catalog.alerts_of(ZTF, [OBJECT])
    assert len(entries) == epochs
    os.environ |= {"BENCH_URI": place.uri, "BENCH_USER": place.user, "BENCH_KEEP": "1"}
    from .today import create_app as create_todays

    todays = create_todays().test_client()
    time_today(todays, entries[:1])
    times = time_today(todays, entries)
    found = {"today, a request per stamp": sum(times), "today, one stamp": statistics.median(times)}

    def client() -> FlaskClient:
        apps.append(create_app(settings))
        return apps[-1].test_client()

    warm = client()
    time_ours([warm], epochs)  # what is learnt of the files is stored from here on
    found["ours, files not open yet"] = time_ours([client() for _ in range(rounds)], epochs)
    found["ours, again"] = time_ours([warm] * rounds, epochs)
    found["ours, four columns"] = time_ours([warm] * rounds, epochs, columns=COLUMNS)
    for app in apps:
        app.extensions["cutout_reader"].close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objects", description=__doc__)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hdfs", action="store_true", help="on a cluster of this machine")
    parser.add_argument("--blocks", action="store_true", help="after `cutout_api index --blocks`")
    asked = parser.parse_args()
    paths = write_epochs(CACHE / "objects", asked.files, asked.epochs, asked.megabytes)
    with ExitStack() as stack:
        place = stack.enter_context(place_of(paths, hdfs=asked.hdfs))
        found = measure(paths, place, asked.epochs, asked.rounds, blocks=asked.blocks)
        base = found["today, a request per stamp"]
        where = "HDFS" if asked.hdfs else "local disk"
        print(
            f"{asked.epochs} epochs x {len(KINDS)} stamps in {asked.files} files of "
            f"{asked.megabytes} MB, {where}; {ZTF.name}, JSON"
        )
        for name, value in found.items():
            ratio = f"{base / value:8.1f} x" if name.startswith("ours") else ""
            print(f"  {name:32}{value * 1e3:10.1f} ms{ratio}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
