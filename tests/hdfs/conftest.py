"""What the tests on HDFS share: a real cluster for the session, the environment of libhdfs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.hdfs.cluster import CLIENT_FOLDER, HdfsCluster, missing_pieces, read_env


def refuse(missing: str) -> NoReturn:
    """Fail in CI, where a skip would hide that HDFS is untested; skip on somebody's machine."""
    sentence = f"{missing}: `make hdfs` installs what the tests on HDFS need"
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


@pytest.fixture(params=["libhdfs", "native"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each way of reading HDFS."""
    return str(request.param)


@pytest.fixture(scope="session")
def hdfs_environment() -> dict[str, str]:
    """The environment of libhdfs, also set in this process, before any JVM starts in it.

    Returns what a subprocess needs on top of `os.environ`.
    """
    file = CLIENT_FOLDER / "env"
    if not file.exists():
        refuse("no HDFS client in .cache/hdfs")
    environment = read_env(file)
    # libhdfs reads these when the first file system connects. LD_LIBRARY_PATH is read at exec
    # only, and not needed here: pyarrow finds libjvm by JAVA_HOME.
    os.environ.update(environment)
    return environment


@pytest.fixture(scope="session")
def hdfs_cluster(hdfs_environment: dict[str, str]) -> Iterator[HdfsCluster]:
    """A NameNode and a DataNode for the session; a test that stops one starts it again."""
    missing = missing_pieces()
    if missing:
        refuse(missing)
    with HdfsCluster() as cluster:
        yield cluster
