"""A name service of two NameNodes: the service outlives the one that is active."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from ..samples import stored_fits, write, ztf_alert
from ..service import ROOT, Service, die_with_parent, running_service
from .cluster import missing_pieces
from .conftest import refuse
from .ha_cluster import NAMENODES, VIEW, HaCluster

FIRST, SECOND = NAMENODES
FOLDER = "/archive/night"
ROWS = [ztf_alert(number) for number in range(8)]
CUTOUTS = "/api/v1/cutouts"
URIS = {
    "hdfs": "hdfs://ns1/archive",
    "viewfs": f"viewfs://{VIEW}/archive",
    "default": "hdfs:///archive",
}


@pytest.fixture(scope="module")
def cluster(
    hdfs_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HaCluster]:
    missing = missing_pieces()
    if missing:
        refuse(missing)
    with HaCluster() as cluster:
        file = write(tmp_path_factory.mktemp("ha") / "a.parquet", ROWS)
        for number in range(4):
            cluster.put(file, f"{FOLDER}/{number}.parquet")
        yield cluster


@pytest.fixture
def environment(
    cluster: HaCluster, driver: str, hdfs_environment: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    return hdfs_environment | {
        "HADOOP_CONF_DIR": str(cluster.conf),
        "CUTOUT_API_ARCHIVE_URI": URIS["hdfs"],
        "CUTOUT_API_ARCHIVE_USER": cluster.user,
        "CUTOUT_API_ARCHIVE_DRIVER": driver,
        # Each request asks the name node, and again.
        "CUTOUT_API_ARCHIVE_RECHECK_SECONDS": "0",
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
        "CUTOUT_API_LIMITS_DEADLINE_SECONDS": "8",
    }


def ask(service: Service, turn: int, path: str = "") -> requests.Response:
    return requests.get(
        service.address + CUTOUTS,
        {
            "hdfsPath": path or f"night/{turn % 4}.parquet",
            "candid": str(ROWS[turn % 8]["candid"]),
            "kind": "Science",
            "return_type": "FITS",
        },
        timeout=60,
    )


def assert_right(answer: requests.Response, turn: int) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.content == stored_fits(ROWS[turn % 8], "Science")


def assert_right_or_later(answer: requests.Response, turn: int) -> None:
    if answer.status_code == 200:
        assert_right(answer, turn)
        return
    assert answer.status_code in (503, 504), answer.text
    assert ("Retry-After" in answer.headers) == (answer.status_code == 503)
    assert "127.0.0.1" not in answer.text


class Load:
    """Clients that ask for one stamp after the other, until the end of the block."""

    def __init__(self, service: Service, clients: int = 4) -> None:
        self.answers: list[tuple[int, requests.Response]] = []
        self.failures: list[BaseException] = []
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def _ask(self, turn: int) -> None:
        while not self._over.is_set():
            try:
                self.answers.append((turn, ask(self._service, turn)))
            except requests.RequestException as error:
                self.failures.append(error)
                return
            turn += 5

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def await_right(self, many: int, seconds: float = 60) -> None:
        """Wait until the last ``many`` answers are all stamps."""
        end, begun = time.monotonic() + seconds, len(self.answers)
        while not self.failures:
            last = self.answers[begun:][-many:]
            if len(last) == many and all(answer.status_code == 200 for _, answer in last):
                return
            assert time.monotonic() < end, [answer.text for _, answer in last][-1:]
            time.sleep(0.05)


def workers_of(service: Service) -> set[str]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return set(children.read_text().split())


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"CUTOUT_API_CONFIG": os.devnull} | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


@contextmanager
def watching(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``cutout_api index --watch`` for as long as the block lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", "cutout_api", "index", "--watch", "0.5"],
        cwd=ROOT,
        env=os.environ | {"CUTOUT_API_CONFIG": os.devnull} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def await_known(service: Service, candid: int, seconds: float = 60) -> None:
    """Wait until the catalog leads to an alert without a path."""
    asked = {"candid": str(candid), "objectId": ztf_alert(0)["objectId"], "output-format": "FITS"}
    end = time.monotonic() + seconds
    while True:
        answer = requests.get(service.address + CUTOUTS, asked | {"kind": "Science"}, timeout=60)
        if answer.status_code == 200:
            return
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)


def test_the_service_and_the_indexer_go_on_when_the_active_name_node_dies_under_load(
    cluster: HaCluster, environment: dict[str, str], tmp_path: Path, driver: str
) -> None:
    cluster.arrange(active=FIRST)
    new = ztf_alert(100 + len(driver))  # another one for each driver
    with running_service(environment) as service, watching(environment) as indexer:
        workers = workers_of(service)
        await_known(service, ROWS[3]["candid"])
        with Load(service) as load:
            load.await_right(20)
            cluster.kill(FIRST)
            time.sleep(1)  # nobody is active: requests come meanwhile
            cluster.activate(SECOND)
            load.await_right(40)
        assert not load.failures
        for turn, answer in load.answers:
            assert_right_or_later(answer, turn)
        assert workers_of(service) == workers
        cluster.put(write(tmp_path / "b.parquet", [new]), f"{FOLDER}/{driver}.parquet")
        await_known(service, new["candid"])
        assert indexer.poll() is None


def test_what_starts_while_the_first_name_node_is_dead_asks_the_second(
    cluster: HaCluster, environment: dict[str, str]
) -> None:
    cluster.arrange(active=SECOND, other="dead")
    checked = run(environment, "-m", "cutout_api", "check")
    assert checked.returncode == 0, checked.stderr
    assert URIS["hdfs"] in checked.stdout
    indexed = run(environment, "-m", "cutout_api", "index")
    assert indexed.returncode == 0, indexed.stderr


NAMED = """
import json, sys
from cutout_api.settings import load_settings
from cutout_api.web import create_app

uris, paths = json.loads(sys.argv[1])
for uri in uris:
    environ = {"CUTOUT_API_ARCHIVE_URI": uri} | json.loads(sys.argv[2])
    app = create_app(load_settings(environ=environ))
    client = app.test_client()
    asked = {"candid": sys.argv[3], "kind": "Science", "return_type": "FITS"}
    for path in paths:
        print(client.get("/api/v1/cutouts", query_string={"hdfsPath": path} | asked).status_code)
    app.extensions["cutout_reader"].close()
"""


def test_each_way_to_name_the_archive_answers_while_the_first_is_in_standby(
    cluster: HaCluster, environment: dict[str, str]
) -> None:
    cluster.arrange(active=SECOND, other="standby")
    file = "/archive/night/0.parquet"
    everywhere = {"night/0.parquet": 200, file: 200, "/other/0.parquet": 403}
    by_service = {
        f"hdfs://ns1{file}": 200,
        f"hdfs:{'//'}{file}": 200,
        f"viewfs://{VIEW}{file}": 403,
    }
    by_view = {f"hdfs://ns1{file}": 403, f"hdfs:{'//'}{file}": 403, f"viewfs://{VIEW}{file}": 200}
    nowhere = dict.fromkeys(
        (f"hdfs://ns2{file}", f"hdfs://ns1:8020{file}", f"viewfs://ns1{file}", f"viewfs://{file}"),
        403,
    )
    ours = {name: value for name, value in environment.items() if name.startswith("CUTOUT_API_")}
    del ours["CUTOUT_API_ARCHIVE_URI"]
    for ways, expected in (
        (("hdfs", "default"), everywhere | by_service | nowhere),
        (("viewfs",), everywhere | by_view | nowhere),
    ):
        uris = [URIS[way] for way in ways]
        given = json.dumps([uris, list(expected)]), json.dumps(ours), str(ROWS[3]["candid"])
        ended = run(environment, "-c", NAMED, *given)
        found = ended.stdout.split()
        assert found == [str(status) for status in expected.values()] * len(uris), ended.stderr


def test_a_name_node_that_hangs_is_left_for_the_other(
    cluster: HaCluster, environment: dict[str, str]
) -> None:
    cluster.arrange(active=FIRST)
    with running_service(environment | {"CUTOUT_API_SERVER_WORKERS": "1"}) as service:
        with Load(service, clients=2) as load:
            load.await_right(10)
            cluster.pause(FIRST)
            cluster.activate(SECOND)
            load.await_right(20)
        assert not load.failures
        for turn, answer in load.answers:
            assert_right_or_later(answer, turn)
        cluster.resume(FIRST)
