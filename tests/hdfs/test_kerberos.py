"""An HDFS that wants tickets of Kerberos: the service reads it with one, and says so without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..samples import stored_fits, write, ztf_alert
from ..service import ROOT, die_with_parent
from .cluster import missing_pieces
from .conftest import refuse
from .kerberos import REALM, SecureCluster, missing_programs

ROW = ztf_alert(1)

ASKING = """
import base64, json, sys
from cutout_api.settings import load_settings
from cutout_api.web import create_app

client = create_app(load_settings()).test_client()
asked = {"hdfsPath": "night/a.parquet", "kind": "Science", "return_type": "FITS"}
for line in sys.stdin:
    answer = client.get("/api/v1/cutouts", query_string=asked | {"candid": line.strip()})
    headers = dict(answer.headers)
    body = base64.b64encode(answer.data).decode()
    print(json.dumps([answer.status_code, headers, body]), flush=True)
"""


@pytest.fixture(scope="module")
def cluster(
    hdfs_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureCluster]:
    missing = missing_pieces() or missing_programs()
    if missing:
        refuse(missing)
    with SecureCluster() as cluster:
        file = write(tmp_path_factory.mktemp("kerberos") / "a.parquet", [ROW])
        cluster.put(file, "/archive/night/a.parquet")
        yield cluster


@pytest.fixture
def environment(
    cluster: SecureCluster, driver: str, hdfs_environment: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    return (
        hdfs_environment
        | cluster.environment
        | {
            "LIBHDFS_OPTS": f"{hdfs_environment['LIBHDFS_OPTS']} {cluster.java_option}",
            "CUTOUT_API_ARCHIVE_URI": f"{cluster.uri}/archive",
            "CUTOUT_API_ARCHIVE_ROOTS": "/archive",
            "CUTOUT_API_ARCHIVE_DRIVER": driver,
            "CUTOUT_API_ARCHIVE_RECHECK_SECONDS": "0",
            "CUTOUT_API_CONFIG": os.devnull,
            "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
            # Java takes seconds to begin with Kerberos where no name server answers.
            "CUTOUT_API_LIMITS_DEADLINE_SECONDS": "60",
        }
    )


class Asking:
    """A service in a process of its own, as libhdfs reads its environment once."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self) -> tuple[int, dict[str, str], bytes]:
        import base64

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{ROW['candid']}\n")
        self._process.stdin.flush()
        status, headers, body = json.loads(self._process.stdout.readline())
        return status, headers, base64.b64decode(body)


@contextmanager
def asking(environment: dict[str, str], folder: Path) -> Iterator[Asking]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("KRB5", "HADOOP_USER"))}
    log = folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", ASKING],
            cwd=ROOT,
            env=own | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=die_with_parent,
        ) as process,
    ):
        try:
            yield Asking(process, log)
        finally:
            process.kill()


def assert_right(answer: tuple[int, dict[str, str], bytes]) -> None:
    status, _, body = answer
    assert status == 200, body
    assert body == stored_fits(ROW, "Science")


def assert_unavailable(answer: tuple[int, dict[str, str], bytes]) -> None:
    status, headers, body = answer
    problem: dict[str, Any] = json.loads(body)
    assert (status, problem["code"]) == (503, "storage_unavailable")
    assert "Retry-After" in headers
    for secret in (REALM, "fink", "localhost", "127.0.0.1", "krb5", "java", "Traceback"):
        assert secret not in body.decode(), secret


def test_without_a_ticket_it_is_503_until_there_is_a_valid_one(
    cluster: SecureCluster, environment: dict[str, str], tmp_path: Path
) -> None:
    tickets = tmp_path / "tickets"
    with asking(environment | {"KRB5CCNAME": f"FILE:{tickets}"}, tmp_path) as service:
        assert_unavailable(service.ask())
        assert "ticket" in service.log or "credentials" in service.log
        cluster.kinit(tickets)
        assert_right(service.ask())
        cluster.kinit(tickets, "2s")
        cluster.await_expiry(tickets)
        cluster.stop_namenode()  # a connection that stands is not asked for a ticket again
        cluster.start_namenode()
        assert_unavailable(service.ask())
        cluster.kinit(tickets)
        assert_right(service.ask())


def test_a_keytab_is_enough(
    cluster: SecureCluster, environment: dict[str, str], tmp_path: Path
) -> None:
    # The first is for hdfs-native, the others for Java.
    keytab = {
        "KRB5_CLIENT_KTNAME": str(cluster.keytab),
        "KRB5CCNAME": f"FILE:{tmp_path / 'tickets'}",
        "KRB5KEYTAB": str(cluster.keytab),
        "KRB5PRINCIPAL": f"{cluster.user}@{REALM}",
    }
    with asking(environment | keytab, tmp_path) as service:
        assert_right(service.ask())
