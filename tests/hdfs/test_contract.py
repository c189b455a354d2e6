"""The whole contract, asked of a real HDFS through both drivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..archive import SampleArchive

# The same tests as on a local folder; this module's `client` is what they ask.
from ..contract.test_cutouts import *  # noqa: F403
from .cluster import HdfsCluster


@pytest.fixture(scope="module", params=["libhdfs", "native"])
def client(
    request: pytest.FixtureRequest, hdfs_cluster: HdfsCluster, archive: SampleArchive
) -> Iterator[FlaskClient]:
    settings = Settings(
        archive=Archive(uri=hdfs_cluster.uri, user=hdfs_cluster.user, driver=request.param)
    )
    app = create_app(settings)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.fixture(scope="module")
def archive(hdfs_cluster: HdfsCluster, sample_archive: SampleArchive) -> SampleArchive:
    """The same archive, copied into the user's home on HDFS."""
    for file in sorted(sample_archive.folder.rglob("*")):
        name = file.relative_to(sample_archive.folder)
        if file.is_file():
            hdfs_cluster.put(file, f"/user/{hdfs_cluster.user}/{name}")
    return sample_archive
