"""Batches from a real HDFS, through both drivers, are those from a local folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..samples import LSST_SCHEMA, lsst_alert, write, ztf_alert
from .cluster import HdfsCluster

ROUTE = "/api/v1/cutouts/batch"
ZTF_ROWS = [ztf_alert(n) for n in range(24)]
LSST_ROWS = [lsst_alert(n) for n in range(12)]
CANDIDS = [str(row["candid"]) for row in ZTF_ROWS]
SOURCES = [str(row["diaSourceId"]) for row in LSST_ROWS]
BODIES = [
    {"candid": [*CANDIDS[::-1], "5", "x"], "kind": "All", "package": "tar"},
    {"candid": CANDIDS, "kind": "Science", "package": "npz", "normalise": "zscore"},
    {"diaSourceId": SOURCES, "kind": "Template", "package": "ndjson"},
    {"diaSourceId": SOURCES, "kind": "All", "package": "arrow", "hdfsPath": "b.parquet"},
]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("batch")
    write(folder / "a.parquet", ZTF_ROWS)
    write(folder / "b.parquet", LSST_ROWS, LSST_SCHEMA)
    return catalogued(Settings(archive=Archive(uri=str(folder))))


@pytest.fixture(scope="module", params=["libhdfs", "native"])
def client(
    request: pytest.FixtureRequest, hdfs_cluster: HdfsCluster, local: Settings
) -> Iterator[FlaskClient]:
    folder = f"/user/{hdfs_cluster.user}/batch-{request.param}"
    for name in ("a.parquet", "b.parquet"):
        hdfs_cluster.put(f"{local.archive.uri}/{name}", f"{folder}/{name}")
    archive = Archive(
        uri=f"{hdfs_cluster.uri}{folder}",
        user=hdfs_cluster.user,
        driver=request.param,
        roots=(folder,),
    )
    app = create_app(catalogued(Settings(archive=archive)))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_hdfs_answers_as_a_local_folder_does(
    client: FlaskClient, local: Settings, body: dict[str, object]
) -> None:
    if "hdfsPath" in body:
        folder = client.application.extensions["cutout_reader"].archive.address.folder
        asked = {**body, "hdfsPath": f"{folder}/{body['hdfsPath']}"}
    else:
        asked = body
    here = create_app(local).test_client().post(ROUTE, json=body)
    there = client.post(ROUTE, json=asked)
    assert (there.status_code, here.status_code) == (200, 200)
    assert len(here.data) > 10_000
    assert not any(word in there.data for word in (b"storage_unavailable", b"file_unreadable"))
    if body["package"] != "tar":  # an error in it says when the catalog was brought up to date
        assert there.data == here.data
    else:
        assert len(there.data) == len(here.data)
