"""What callers are told when HDFS fails, and that the service comes back by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cutout_api import storage
from cutout_api.errors import CutoutError
from cutout_api.settings import Archive, Limits, Settings
from cutout_api.web import create_app

from ..samples import pixels, stored_fits, write, ztf_alert, ztf_fits
from ..service import ROOT, running_service
from .cluster import HdfsCluster

ROWS = [ztf_alert(n) for n in range(8)]
ROUTE = "/api/v1/cutouts"


@pytest.fixture
def cluster(hdfs_cluster: HdfsCluster, tmp_path: Any) -> HdfsCluster:
    put(hdfs_cluster, tmp_path, ROWS)
    return hdfs_cluster


@pytest.fixture
def client(cluster: HdfsCluster, driver: str) -> Iterator[FlaskClient]:
    app = create_connected(cluster, driver)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.fixture
def service_environment(
    cluster: HdfsCluster, driver: str, hdfs_environment: dict[str, str]
) -> dict[str, str]:
    """The settings of a service of its own, by which it reads the cluster."""
    return hdfs_environment | {
        "CUTOUT_API_ARCHIVE_URI": cluster.uri,
        "CUTOUT_API_ARCHIVE_USER": cluster.user,
        "CUTOUT_API_ARCHIVE_DRIVER": driver,
    }


def create_connected(cluster: HdfsCluster, driver: str, recheck_seconds: float = 0) -> Flask:
    """Return a service whose connection, and JVM, are there before its deadlines count."""
    app = create_app(settings_of(cluster, driver, recheck_seconds))
    app.extensions["cutout_reader"].archive.check()
    return app


def settings_of(cluster: HdfsCluster, driver: str, recheck_seconds: float = 0) -> Settings:
    limits = Limits(deadline_seconds=8, queue_seconds=0.2)
    archive = Archive(
        uri=cluster.uri, user=cluster.user, driver=driver, recheck_seconds=recheck_seconds
    )
    return Settings(archive=archive, limits=limits)


def put(cluster: HdfsCluster, tmp_path: Any, rows: list[dict[str, Any]]) -> None:
    write(tmp_path / "a.parquet", rows)
    cluster.put(tmp_path / "a.parquet", f"/user/{cluster.user}/faults/a.parquet")


def ask(client: FlaskClient, **changes: Any) -> TestResponse:
    asked = {
        "hdfsPath": "faults/a.parquet",
        "objectId": "ZTF24aaaaaaa",
        "kind": "Science",
        "return_type": "FITS",
    }
    return client.post(ROUTE, json=asked | changes)


def assert_unavailable(response: TestResponse) -> None:
    problem = json.loads(response.data)
    assert response.status_code in (503, 504), problem
    assert response.mimetype == "application/problem+json"
    assert ("Retry-After" in response.headers) == (response.status_code == 503)
    assert "127.0.0.1" not in response.text
    assert "java" not in response.text.lower()


def assert_answers_again(client: FlaskClient, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        response = ask(client)
        if response.status_code == 200:
            assert response.data == stored_fits(ROWS[-1], "Science")
            return
        time.sleep(0.3)
    raise AssertionError(f"the service did not come back: {response.text}")


def test_a_data_node_that_dies_is_told_and_comes_back(
    client: FlaskClient, cluster: HdfsCluster
) -> None:
    assert ask(client).status_code == 200
    cluster.stop_datanode()
    try:
        start = time.monotonic()
        assert_unavailable(ask(client, kind="Template"))
        assert time.monotonic() - start < 30
        assert client.get("/healthz").status_code == 200
    finally:
        cluster.start_datanode()
    assert_answers_again(client)


def test_a_name_node_that_dies_is_told_and_comes_back(
    client: FlaskClient, cluster: HdfsCluster
) -> None:
    assert ask(client).status_code == 200
    cluster.stop_namenode()
    try:
        start = time.monotonic()
        assert_unavailable(ask(client))
        assert_unavailable(client.get("/readyz"))
        assert time.monotonic() - start < 45
        assert client.get("/healthz").status_code == 200
    finally:
        cluster.start_namenode()
    assert_answers_again(client)


def test_a_data_node_that_hangs_meets_the_deadline(
    client: FlaskClient, cluster: HdfsCluster
) -> None:
    assert ask(client).status_code == 200
    cluster.pause_datanode()
    try:
        start = time.monotonic()
        assert_unavailable(ask(client, kind="Template"))
        assert time.monotonic() - start < 30
    finally:
        cluster.resume_datanode()
    assert_answers_again(client)


def test_a_name_node_that_hangs_meets_the_deadline(
    client: FlaskClient, cluster: HdfsCluster
) -> None:
    assert ask(client).status_code == 200
    cluster.pause_namenode()
    try:
        start = time.monotonic()
        assert_unavailable(ask(client))
        assert time.monotonic() - start < 30
    finally:
        cluster.resume_namenode()
    assert_answers_again(client)


def test_closing_does_not_wait_for_a_file_that_is_being_opened(cluster: HdfsCluster) -> None:
    archive = storage.Archive(settings_of(cluster, "native"))
    (file_id,) = archive.locate("faults/a.parquet")
    file = archive.open(file_id)

    def read() -> None:
        with suppress(CutoutError):  # the archive is closed by then
            file.read_at(4, 0)

    reading = threading.Thread(target=read)
    closing = threading.Thread(target=archive.close)
    cluster.pause_namenode()
    try:
        reading.start()
        while not file._lock.locked():
            pass
        closing.start()
        closing.join(10)
        waits = closing.is_alive()
    finally:
        cluster.resume_namenode()
    reading.join()
    closing.join()
    assert not waits


def test_a_name_node_that_is_not_there_at_the_start_is_waited_for(
    cluster: HdfsCluster, driver: str
) -> None:
    cluster.stop_namenode()
    try:
        app = create_app(settings_of(cluster, driver))
        client = app.test_client()
        assert_unavailable(ask(client))
        assert_unavailable(client.get("/readyz"))
    finally:
        cluster.start_namenode()
    assert_answers_again(client)
    assert client.get("/readyz").status_code == 200
    app.extensions["cutout_reader"].close()


def test_a_name_node_that_hangs_at_the_start_does_not_keep_the_service_from_answering(
    cluster: HdfsCluster, service_environment: dict[str, str]
) -> None:
    environment = service_environment | {
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_LIMITS_DEADLINE_SECONDS": "8",
    }
    cluster.pause_namenode()
    try:
        with running_service(environment) as service:
            asked = {"objectId": "ZTF24aaaaaaa", "kind": "Science", "return_type": "FITS"}
            asked |= {"hdfsPath": "faults/a.parquet"}
            address = f"{service.address}{ROUTE}"
            assert "the archive cannot be served yet" in service.log
            assert requests.get(address, asked, timeout=30).status_code in (503, 504)
            cluster.resume_namenode()
            end = time.monotonic() + 100
            while (answer := requests.get(address, asked, timeout=30)).status_code != 200:
                assert time.monotonic() < end, answer.text
            assert answer.content == stored_fits(ROWS[-1], "Science")
            cluster.pause_namenode()
            assert requests.get(f"{service.address}/readyz", timeout=30).status_code in (503, 504)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 0  # though a thread still waits for the name node
    finally:
        cluster.resume_namenode()


def test_a_rewritten_file_is_never_mixed_with_the_old_one(
    client: FlaskClient, cluster: HdfsCluster, tmp_path: Any
) -> None:
    for turn in range(1, 4):
        assert ask(client).status_code == 200  # the handle is open, the index kept
        rows = [ztf_alert(100 * turn + n) for n in range(6 + turn)]
        put(cluster, tmp_path, rows)
        response = ask(client)
        assert response.headers["X-Cutout-Id"] == str(rows[-1]["candid"])
        assert response.data == stored_fits(rows[-1], "Science")
    cluster.delete(f"/user/{cluster.user}/faults/a.parquet")
    response = ask(client)
    assert (response.status_code, response.json["code"]) == (404, "file_not_found")


def test_files_rewritten_within_a_second_to_the_same_size_are_not_confused(
    client: FlaskClient, cluster: HdfsCluster, tmp_path: Any
) -> None:
    # Through libhdfs, size and modification time of all of these are the same.
    stamps = [ztf_fits(pixels(number, (9, 9))) for number in range(8)]
    path, sizes = f"/user/{cluster.user}/faults/same.parquet", set()
    for number, stamp in enumerate(stamps):
        row = ztf_alert(number, Science=stamp, Template=b"t", Difference=b"d")
        write(tmp_path / "a.parquet", [row], compression="none")
        sizes.add((tmp_path / "a.parquet").stat().st_size)
        cluster.put(tmp_path / "a.parquet", path)
        response = ask(client, hdfsPath="faults/same.parquet")
        assert response.status_code == 200, response.text
        assert response.data == stamp
        assert response.headers["X-Cutout-Id"] == str(ztf_alert(number)["candid"])
    assert len(sizes) == 1
    time.sleep(4)  # now it is known for good
    for _ in range(2):
        assert ask(client, hdfsPath="faults/same.parquet").data == stamps[-1]


def test_a_rewritten_file_is_served_as_soon_as_it_is_looked_at(
    cluster: HdfsCluster, driver: str, tmp_path: Any
) -> None:
    app = create_app(settings_of(cluster, driver, recheck_seconds=1))
    client = app.test_client()
    assert ask(client).headers["X-Cutout-Id"] == str(ROWS[-1]["candid"])
    rows = [ztf_alert(900 + n) for n in range(7)]
    put(cluster, tmp_path, rows)
    expected = {str(row["candid"]): stored_fits(row, "Science") for row in (ROWS[-1], rows[-1])}
    end = time.monotonic() + 10
    while True:
        response = ask(client)
        assert response.status_code == 200
        found = response.headers["X-Cutout-Id"]
        assert response.data == expected[found]  # the old stamp or the new one, never a mixture
        if found == str(rows[-1]["candid"]):
            break
        assert time.monotonic() < end
    app.extensions["cutout_reader"].close()


def test_what_is_open_is_answered_while_the_name_node_is_away(
    cluster: HdfsCluster, driver: str
) -> None:
    app = create_connected(cluster, driver, recheck_seconds=60)
    client = app.test_client()
    time.sleep(4)  # nothing is kept of a file written this very second
    assert ask(client).status_code == 200
    cluster.stop_namenode()
    try:
        response = ask(client, candid=ROWS[3]["candid"])
        assert response.data == stored_fits(ROWS[3], "Science")
    finally:
        cluster.start_namenode()
    app.extensions["cutout_reader"].close()


def test_a_file_that_the_user_may_not_read_is_forbidden(
    cluster: HdfsCluster, driver: str, tmp_path: Any
) -> None:
    # Only the superuser may read it, and the service is somebody else.
    cluster.client.set_permission(f"/user/{cluster.user}/faults/a.parquet", 0o600)
    archive = Archive(uri=f"{cluster.uri}/user/{cluster.user}", user="somebody", driver=driver)
    before = os.environ.get("HADOOP_USER_NAME")
    app = create_app(Settings(archive=archive))
    try:
        response = ask(app.test_client())
        assert (response.status_code, response.json["code"]) == (403, "path_forbidden")
    finally:
        app.extensions["cutout_reader"].close()
        os.environ.pop("HADOOP_USER_NAME", None)
        if before is not None:
            os.environ["HADOOP_USER_NAME"] = before


def test_paths_resolve_at_home_then_at_the_folder_and_by_uri(
    cluster: HdfsCluster, driver: str, tmp_path: Any
) -> None:
    home = f"/user/{cluster.user}"
    elsewhere = [ztf_alert(500)]
    write(tmp_path / "b.parquet", elsewhere)
    for place in ("/data/archive/only_here.parquet", "/data/archive/faults/a.parquet"):
        cluster.put(tmp_path / "b.parquet", place)
    archive = Archive(uri=f"{cluster.uri}/data/archive", user=cluster.user, driver=driver)
    app = create_app(Settings(archive=archive))
    client = app.test_client()
    expected = {
        "faults/a.parquet": ROWS[-1],  # at home, where the same path of the folder is hidden
        "only_here.parquet": elsewhere[0],
        "/data/archive/faults/a.parquet": elsewhere[0],
        f"{home}/faults/a.parquet": ROWS[-1],
        f"{cluster.uri}{home}/faults/a.parquet": ROWS[-1],
        f"{cluster.uri}/data/archive/only_here.parquet": elsewhere[0],
    }
    for path, row in expected.items():
        response = ask(client, hdfsPath=path)
        assert response.headers.get("X-Cutout-Id") == str(row["candid"]), (path, response.text)
    for path in ("/data/other.parquet", "/data", f"{cluster.uri}/data", "hdfs://127.0.0.1:1/data"):
        assert ask(client, hdfsPath=path).status_code == 403
    app.extensions["cutout_reader"].close()


@pytest.mark.parametrize(
    "name", ["with space", "100%", "p%20q", "a+b", "a#b?c", "é", "x=1;y", "[a]*{b}"]
)
def test_names_are_taken_literally(
    client: FlaskClient, cluster: HdfsCluster, tmp_path: Any, name: str
) -> None:
    row = ztf_alert(700)
    write(tmp_path / "c.parquet", [row])
    cluster.put(tmp_path / "c.parquet", f"/user/{cluster.user}/names/{name}/c.parquet")
    for path in (f"names/{name}/c.parquet", f"names/{name}"):
        response = ask(client, hdfsPath=path)
        assert response.data == stored_fits(row, "Science"), response.text


def test_the_service_reads_hdfs_from_several_processes_and_stops_in_peace(
    cluster: HdfsCluster, driver: str, service_environment: dict[str, str]
) -> None:
    with running_service(service_environment, seconds=60) as service:
        for turn in range(40):
            answer = requests.get(
                f"{service.address}{ROUTE}",
                params={
                    "hdfsPath": "faults/a.parquet",
                    "candid": str(ROWS[turn % 8]["candid"]),
                    "kind": "Science",
                    "return_type": "FITS",
                },
                timeout=30,
            )
            assert answer.content == stored_fits(ROWS[turn % 8], "Science")
        assert requests.get(f"{service.address}/readyz", timeout=30).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        assert f"through {driver} as {cluster.user}" in service.log
        assert "Exception" not in service.log
        assert "Traceback" not in service.log


ASKED_AND_CLOSED = """
import gc, sys
from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

uri, user, driver = sys.argv[1:]
app = create_app(Settings(archive=Archive(uri=uri, user=user, driver=driver)))
asked = {"hdfsPath": "faults/a.parquet", "objectId": "ZTF24aaaaaaa", "kind": "Science"}
print(app.test_client().post("/api/v1/cutouts", json=asked).status_code)
app.extensions["cutout_reader"].close()
del app
gc.collect()
"""


def test_handles_are_closed_before_their_file_system(cluster: HdfsCluster, driver: str) -> None:
    # In a process of its own: a read that another test gave up may end, and complain, at any time.
    ended = subprocess.run(
        [sys.executable, "-c", ASKED_AND_CLOSED, cluster.uri, cluster.user, driver],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "200\n"), ended.stderr
    assert "Exception" not in ended.stderr
