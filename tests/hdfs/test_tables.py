"""Tables of alert data from a real HDFS, through both drivers, are those from a local folder."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient

from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..epochs_archive import (
    DOCUMENTED_OBJECT,
    NEXT_NIGHT,
    EpochsArchive,
    make_epochs_archive,
)
from ..samples import write
from .cluster import HdfsCluster

QUERIES = [
    "objects?objectId=ZTF21aaxtctv,ZTF21abfmbix&withupperlim=True",
    "objects?objectId=ZTF21aaxtctv&withcutouts=True&columns=i:jd,v:constellation",
    "objects?objectId=ZTF21aaxtctv&output-format=csv",
    "objects?objectId=ZTF99zzzzzzz&output-format=votable",
    f"sources?diaObjectId={DOCUMENTED_OBJECT}&withcutouts=True",
    f"objects?diaObjectId={DOCUMENTED_OBJECT}",
    "schema",
]


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> EpochsArchive:
    return make_epochs_archive(tmp_path_factory.mktemp("epochs"))


@pytest.fixture(scope="module")
def folder(hdfs_cluster: HdfsCluster, epochs: EpochsArchive) -> str:
    """The archive, copied below the user's home on HDFS."""
    folder = f"/user/{hdfs_cluster.user}/epochs"
    for name in epochs.rows:
        hdfs_cluster.put(epochs.folder / name, f"{folder}/{name}")
    return folder


@pytest.fixture(scope="module")
def local(epochs: EpochsArchive) -> FlaskClient:
    settings = Settings(archive=Archive(uri=f"file://{epochs.folder}"))
    return create_app(catalogued(settings)).test_client()


@pytest.fixture(scope="module", params=["libhdfs", "native"])
def client(
    request: pytest.FixtureRequest, hdfs_cluster: HdfsCluster, folder: str
) -> Iterator[FlaskClient]:
    settings = Settings(
        archive=Archive(uri=hdfs_cluster.uri, user=hdfs_cluster.user, driver=request.param)
    )
    app = create_app(catalogued(settings, folder))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.mark.parametrize("query", QUERIES)
def test_hdfs_answers_as_a_local_folder_does(
    client: FlaskClient, local: FlaskClient, query: str
) -> None:
    answer = client.get(f"/api/v1/{query}")
    expected = local.get(f"/api/v1/{query}")
    assert (answer.status_code, answer.mimetype) == (200, expected.mimetype)
    if query != "schema":  # which file is the latest depends on when it was written
        assert answer.data == expected.data


def test_rows_of_a_file_written_anew_are_found_again(
    client: FlaskClient, hdfs_cluster: HdfsCluster, epochs: EpochsArchive, folder: str
) -> None:
    query = "/api/v1/objects?objectId=ZTF21aaxtctv&withcutouts=True"
    before = client.get(query).data
    again = write(
        epochs.folder.parent / "again.parquet",
        epochs.rows[NEXT_NIGHT][::-1],
        pq.read_schema(epochs.folder / NEXT_NIGHT),
        row_group_size=3,
    )
    try:
        hdfs_cluster.delete(f"{folder}/{NEXT_NIGHT}")
        hdfs_cluster.put(again, f"{folder}/{NEXT_NIGHT}")
        assert client.get(query).data == before
    finally:
        hdfs_cluster.delete(f"{folder}/{NEXT_NIGHT}")
        hdfs_cluster.put(epochs.folder / NEXT_NIGHT, f"{folder}/{NEXT_NIGHT}")
