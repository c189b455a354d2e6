"""A file of HDFS that is being rewritten in place, through both drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hdfs_native
import pytest

from cutout_api.settings import Archive, Catalog, Settings

# The same tests as on a local folder; this module's `place` is where the file is.
from ..contract.test_rewriting import *  # noqa: F403
from ..contract.test_rewriting import NAME
from .cluster import HdfsCluster

HOME = "/user/rewriting"


class OnHdfs:
    def __init__(self, cluster: HdfsCluster, driver: str, folder: Path) -> None:
        self._cluster = cluster
        self._path = f"{HOME}/{NAME}"
        self.settings = Settings(
            archive=Archive(
                uri=cluster.uri + HOME, user=cluster.user, driver=driver, roots=(HOME,)
            ),
            catalog=Catalog(f"sqlite:///{folder / 'catalog.sqlite'}"),
        )

    @contextmanager
    def rewriting(self) -> Iterator[Callable[[bytes], object]]:
        options = hdfs_native.WriteOptions(overwrite=True, create_parent=True)
        client = self._cluster.client
        with client.create(self._path, options) as file:
            yield file.write

    def make_old(self) -> None:
        self._cluster.make_old(self._path)


@pytest.fixture(params=["libhdfs", "native"])
def place(
    request: pytest.FixtureRequest, hdfs_cluster: HdfsCluster, tmp_path: Path
) -> Iterator[OnHdfs]:
    yield OnHdfs(hdfs_cluster, request.param, tmp_path)
    hdfs_cluster.client.delete(HOME, recursive=True)
