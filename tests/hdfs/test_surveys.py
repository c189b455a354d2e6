"""A survey whose ids are called like another's, from a real HDFS, through both drivers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..catalogue import catalogued
from ..samples import (
    KINDS,
    WINTER_SCHEMA,
    image_of,
    stored_fits,
    winter_alert,
    write,
    ztf_alert,
)
from .cluster import HdfsCluster

ROUTE = "/api/v1/cutouts"
ROWS = [winter_alert(n) for n in range(5)]
ZTF_ROWS = [ztf_alert(n) for n in range(3)]


@pytest.fixture(scope="module", params=["libhdfs", "native"])
def client(
    request: pytest.FixtureRequest,
    hdfs_cluster: HdfsCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FlaskClient]:
    local: Path = tmp_path_factory.mktemp("surveys")
    folder = f"/user/{hdfs_cluster.user}/surveys-{request.param}"
    write(local / "winter.parquet", ROWS, WINTER_SCHEMA)
    write(local / "ztf.parquet", ZTF_ROWS)
    for name in ("winter.parquet", "ztf.parquet"):
        hdfs_cluster.put(str(local / name), f"{folder}/{name}")
    archive = Archive(
        uri=f"{hdfs_cluster.uri}{folder}",
        user=hdfs_cluster.user,
        driver=request.param,
        roots=(folder,),
    )
    app = create_app(catalogued(Settings(archive=archive)))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.mark.parametrize("path", [{}, {"hdfsPath": "winter.parquet"}, {"hdfsPath": "."}], ids=str)
@pytest.mark.parametrize("row", [*ROWS[1:3], ZTF_ROWS[1]], ids=lambda row: str(row["candid"]))
def test_the_file_or_the_catalog_says_whose_an_id_is(
    client: FlaskClient, row: dict[str, object], path: dict[str, str]
) -> None:
    is_winter = "objectid" in row
    if path and not is_winter:
        path = {"hdfsPath": path["hdfsPath"].replace("winter", "ztf")}
    for kind in KINDS:
        asked = {"candid": row["candid"], "kind": kind, "return_type": "FITS", **path}
        response = client.get(ROUTE, query_string=asked)
        assert response.status_code == 200, response.text
        assert response.data == stored_fits(row, kind)
        assert response.headers["X-Cutout-Survey"] == ("winter" if is_winter else "ztf")


def test_a_table_holds_its_stamps(client: FlaskClient) -> None:
    asked = {"objectId": "WNTR24aaaaa", "withcutouts": "True", "columns": "i:candid"}
    response = client.get("/api/v1/objects", query_string=asked)
    assert response.status_code == 200, response.text
    rows = response.json
    assert [row["i:candid"] for row in rows] == [row["candid"] for row in ROWS[::-1]]
    for row, alert in zip(rows, ROWS[::-1], strict=True):
        found = np.array(row["b:cutout_difference"], float)
        np.testing.assert_array_equal(found, image_of(stored_fits(alert, "Difference")))
