"""Requests without a path, and choices among the alerts of an object."""

from __future__ import annotations

import io
import json
import math
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time, TimeDelta
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cutout_api import reader as reader_module
from cutout_api.catalog import Catalog
from cutout_api.indexing import open_indexer
from cutout_api.settings import Archive, Limits, Settings
from cutout_api.settings import Catalog as CatalogSettings
from cutout_api.stamp import Stamp
from cutout_api.surveys import ZTF
from cutout_api.web import create_app

from ..archive import NIGHT, SampleArchive
from ..catalogue import catalogued
from ..postgres import PostgresServer
from ..samples import (
    LSST_SCHEMA,
    ZTF_SCHEMA,
    image_of,
    lsst_alert,
    stored_fits,
    write,
    ztf_alert,
)

ROUTE = "/api/v1/cutouts"
OBJECT = "ZTF24ccccccc"
BRIGHTNESS = (18.0, None, 21.5, 16.25, math.nan, 19.0)
FIDS = (1, 2, 1, 2, 3, 1)


@dataclass
class World:
    """An archive of its own, its catalog, and the service on both."""

    folder: Path
    settings: Settings
    client: FlaskClient
    rows: list[dict[str, Any]]

    def index(self) -> None:
        with open_indexer(self.settings, blocks=False, jobs=2) as indexer:
            indexer.run(indexer.plan())
            indexer.note_walk()

    def ask(self, **arguments: Any) -> TestResponse:
        defaults = {"kind": "Science", "output-format": "FITS"}
        return self.client.post(ROUTE, json=defaults | arguments)

    def chosen(self, **arguments: Any) -> str | None:
        response = self.ask(**({"objectId": OBJECT} | arguments))
        assert response.status_code == 200, response.text
        return response.headers.get("X-Cutout-Id")


SCHEMA = ZTF_SCHEMA.set(
    2,
    ZTF_SCHEMA.field("candidate").with_type(
        __import__("pyarrow").struct([("jd", "float64"), ("fid", "int32"), ("magpsf", "float32")])
    ),
)


def epoch(number: int, **more: Any) -> dict[str, Any]:
    """Return the alert of an epoch; they are ten days apart."""
    candidate = {
        "jd": 2_460_600.5 + 10 * number,
        "fid": FIDS[number],
        "magpsf": BRIGHTNESS[number],
    }
    return ztf_alert(1000 + number, OBJECT, candidate=candidate, **more)


@pytest.fixture
def world(tmp_path: Path, catalog_url: str) -> Iterator[World]:
    folder = tmp_path / "archive"
    rows = [epoch(number) for number in range(6)]
    nights = (("04", rows[4:]), ("02", [rows[3], ztf_alert(5), rows[2]]), ("01", rows[:2]))
    for night, alerts in nights:
        write(folder / f"year=2024/month=11/day={night}/part-0.parquet", alerts, SCHEMA)
    write(folder / "lsst/part-0.parquet", [lsst_alert(n, n % 2) for n in range(6)], LSST_SCHEMA)
    settings = Settings(
        archive=Archive(uri=str(folder)),
        catalog=CatalogSettings(catalog_url),
        limits=Limits(epochs=6),
    )
    app = create_app(settings)
    made = World(folder, settings, app.test_client(), rows)
    made.index()
    yield made
    app.extensions["cutout_reader"].close()


def test_an_alert_is_answered_by_its_id_alone(world: World) -> None:
    row = world.rows[3]
    response = world.ask(candid=str(row["candid"]))
    assert response.data == stored_fits(row, "Science")
    assert response.headers["X-Cutout-Id"] == str(row["candid"])
    assert response.headers["X-Cutout-Time"] == "2460630.5"
    assert "immutable" in response.headers["Cache-Control"]
    lsst = lsst_alert(4, 0)
    response = world.ask(diaSourceId=lsst["diaSourceId"], kind="Template")
    assert response.data == stored_fits(lsst, "Template")
    assert response.headers["X-Cutout-Time"] == "60904.25"


def test_without_a_path_or_a_format_the_answer_is_a_picture(world: World) -> None:
    response = world.client.get(ROUTE, query_string={"objectId": OBJECT, "kind": "All"})
    assert response.mimetype == "image/png"
    assert Image.open(io.BytesIO(response.data)).size == (189, 63)
    response = world.client.get(
        ROUTE, query_string={"objectId": OBJECT, "kind": "Science", "return_type": "array"}
    )
    assert np.shape(response.json) == (1, 63, 63)


# What is asked -> the number of the epoch.
CHOICES: list[tuple[dict[str, Any], int]] = [
    ({}, 5),
    ({"which": "latest"}, 5),
    ({"which": "FIRST"}, 0),
    ({"which": "brightest"}, 3),
    ({"which": "faintest"}, 2),
    ({"band": "r"}, 3),
    ({"band": "g", "which": "first"}, 0),
    ({"band": "g", "which": "brightest"}, 0),
    ({"band": "i", "date": 60000}, 4),
    ({"date": "2024-10-27"}, 1),
    ({"date": "2024-10-25T23:59:00+00:00"}, 1),
    ({"date": 60618.4}, 2),
    ({"date": "2460618.9"}, 2),
    ({"date": "1999-01-01"}, 0),
    ({"date": "2090-01-01T00:00:00Z"}, 5),
    ({"epochs": "one"}, 5),
]


@pytest.mark.parametrize(("asked", "number"), CHOICES, ids=str)
def test_an_objects_alert_is_chosen_as_asked(
    world: World, asked: dict[str, Any], number: int
) -> None:
    expected = str(world.rows[number]["candid"])
    assert world.chosen(**asked) == expected
    # With a path, the columns of the files say the same.
    assert world.chosen(**asked, hdfsPath=".") == expected


def test_a_date_is_in_utc_whatever_the_survey_counts_in(tmp_path: Path, world: World) -> None:
    middle = (60_900.25 + 60_902.25) / 2  # TAI, between two alerts of an object
    ids = [str(lsst_alert(n, 0)["diaSourceId"]) for n in (0, 2)]
    object_id = lsst_alert(0, 0)["diaSource"]["diaObjectId"]
    for seconds, expected in ((-2, ids[0]), (2, ids[1])):
        utc = Time(middle + seconds / 86400, format="mjd", scale="tai").utc
        for date in (utc.isot, float(utc.mjd), str(utc.jd)):
            response = world.ask(diaObjectId=str(object_id), date=date)
            assert response.headers["X-Cutout-Id"] == expected


def test_all_epochs_as_arrays(world: World) -> None:
    response = world.ask(objectId=OBJECT, epochs="all", **{"output-format": "array"})
    assert "X-Cutout-Id" not in response.headers
    answer = response.json
    assert [entry["candid"] for entry in answer] == [str(row["candid"]) for row in world.rows]
    assert [entry["jd"] for entry in answer] == [row["candidate"]["jd"] for row in world.rows]
    for entry, row in zip(answer, world.rows, strict=True):
        expected = image_of(stored_fits(row, "Science"))
        np.testing.assert_array_equal(
            np.array(entry["b:cutoutScience_stampData"], np.float32), expected
        )
    body = {"objectId": OBJECT, "kind": "All", "epochs": "all", "return_type": "array", "band": "g"}
    answer = world.client.post(ROUTE, json=body).json
    assert [len(entry["stamps"]) for entry in answer] == [3, 3, 3]
    assert world.client.post(ROUTE, json=body | {"hdfsPath": "year=2024"}).json == answer


def test_all_epochs_as_fits(world: World) -> None:
    response = world.ask(objectId=OBJECT, epochs="all", kind="All")
    assert response.headers["Content-Disposition"].endswith(f"filename={OBJECT}_All.fits")
    with fits.open(io.BytesIO(response.data), ignore_missing_simple=True) as hdus:
        assert len(hdus) == 1 + 3 * 6
        for version, row in enumerate(world.rows, 1):
            hdu = hdus["TEMPLATE", version]
            np.testing.assert_array_equal(hdu.data, image_of(stored_fits(row, "Template")))
            assert hdu.header["ALERTID"] == str(row["candid"])
            assert hdu.header["ALERTMJD"] == row["candidate"]["jd"] - 2_400_000.5
            assert hdu.header["TIMESYS"] == "UTC"
    object_id = str(lsst_alert(0, 0)["diaSource"]["diaObjectId"])
    response = world.ask(diaObjectId=object_id, epochs="all")
    with fits.open(io.BytesIO(response.data)) as hdus:
        assert [(hdu.name, hdu.ver) for hdu in hdus[1:4]] == [
            ("SCIENCE", 1),
            ("SCIENCE_UNCERT", 1),
            ("SCIENCE_PSFIMAGE", 1),
        ]
        assert (hdus[4].ver, hdus[4].header["TIMESYS"]) == (2, "TAI")
        assert hdus[4].header["ALERTMJD"] == 60_902.25


# A time -> the numbers of the epochs in it; they are at MJD 60600, 60610, ... 60650.
INTERVALS: list[tuple[str, list[int]]] = [
    ("60610/60630", [1, 2, 3]),
    ("60610.001/60629.999", [2]),
    ("2460610.5/2460630.5", [1, 2, 3]),
    ("2024-10-27/2024-11-16T00:00:00Z", [1, 2, 3]),
    ("2024-11-15T22:00:00-02:00/", [3, 4, 5]),
    ("/60600", [0]),
    ("60600/", [0, 1, 2, 3, 4, 5]),
    ("60620/60620", [2]),
]


@pytest.mark.parametrize(("date", "numbers"), INTERVALS)
def test_all_epochs_may_be_those_between_two_dates(
    world: World, date: str, numbers: list[int]
) -> None:
    expected = [str(world.rows[number]["candid"]) for number in numbers]
    for path in ({}, {"hdfsPath": "."}):
        asked = {"objectId": OBJECT, "epochs": "all", "date": date, "output-format": "array"}
        answer = world.ask(**asked, **path).json
        assert [entry["candid"] for entry in answer] == expected


def test_an_interval_is_in_utc_goes_with_a_band_and_may_hold_nothing(world: World) -> None:
    asked = {"objectId": OBJECT, "epochs": "all", "output-format": "array"}
    answer = world.ask(**asked, date="60605/60645", band="r").json
    assert [entry["candid"] for entry in answer] == [str(world.rows[n]["candid"]) for n in (1, 3)]
    response = world.ask(**asked, date="/50000")
    assert (response.status_code, response.json["code"]) == (404, "alert_not_found")
    assert "between these dates" in response.json["detail"]
    lsst = {"diaObjectId": str(lsst_alert(0, 0)["diaSource"]["diaObjectId"])}
    tai = Time(60_902.25, format="mjd", scale="tai")
    for seconds, found in ((-1, 2), (1, 1)):  # TAI is 37 s ahead
        since = (tai.utc + TimeDelta(seconds, format="sec")).isot
        answer = world.ask(**lsst, epochs="all", date=f"{since}/", **{"output-format": "array"})
        assert len(answer.json) == found


def test_the_picture_of_an_interval_tells_the_request_that_gives_it_again(world: World) -> None:
    asked = {"objectId": OBJECT, "epochs": "all", "date": "60605/", "output-format": "PNG"}
    recipe = world.ask(**asked, explain=1).json
    again = world.client.get(recipe["request"])
    assert again.data == world.ask(**asked).data
    assert "date=60605.0/&" in recipe["request"]


def test_an_epoch_without_the_stamp_is_null_among_the_others(world: World) -> None:
    write(
        world.folder / "year=2024/month=11/day=04/part-0.parquet",
        [epoch(4, Science=None), epoch(5, Template=None)],
        SCHEMA,
    )
    world.index()
    answer = world.ask(objectId=OBJECT, epochs="all", kind="All", **{"output-format": "array"}).json
    missing = {
        (entry["candid"], name) for entry in answer for name, value in entry.items() if not value
    }
    assert missing == {
        (str(epoch(4)["candid"]), "b:cutoutScience_stampData"),
        (str(epoch(5)["candid"]), "b:cutoutTemplate_stampData"),
    }
    response = world.ask(objectId=OBJECT, epochs="all", band="i")
    assert (response.status_code, response.json["code"]) == (404, "stamp_missing")
    asked = {"objectId": OBJECT, "epochs": "all", "kind": "All", "output-format": "PNG"}
    drawn = {alert["candid"] for alert in world.ask(**asked, explain=1).json["alerts"]}
    assert drawn.isdisjoint({candid for candid, _ in missing})
    response = world.ask(**(asked | {"band": "i"}))
    assert (response.status_code, response.json["code"]) == (404, "stamp_missing")


def test_an_array_file_holds_one_alert(world: World) -> None:
    response = world.ask(objectId=OBJECT, epochs="all", **{"output-format": "NPY"})
    assert (response.status_code, response.json["parameter"]) == (400, "epochs")
    assert "GIF hold many" in response.json["detail"]


def test_pictures_of_all_epochs_are_a_sheet_or_move(world: World) -> None:
    asked = {"objectId": OBJECT, "epochs": "all", "band": "g", "kind": "Science"}
    one = Image.open(io.BytesIO(world.ask(**asked, **{"output-format": "PNG"}).data))
    assert one.width > 63 or one.height > 63
    moving = Image.open(io.BytesIO(world.ask(**asked, **{"output-format": "GIF"}).data))
    recipe = world.ask(**asked, explain=1, **{"output-format": "PNG"}).json
    alerts = world.ask(**asked, **{"output-format": "array"}).json
    assert getattr(moving, "n_frames", 1) == len(alerts) > 1
    assert len(recipe["alerts"]) == len(alerts)


def test_more_epochs_than_the_limit_are_refused(world: World) -> None:
    write(world.folder / "more.parquet", [ztf_alert(1100, OBJECT)], ZTF_SCHEMA)
    world.index()
    response = world.ask(objectId=OBJECT, epochs="all")
    assert (response.status_code, response.json["parameter"]) == (400, "epochs")
    assert "7 alerts" in response.json["detail"]
    assert world.ask(objectId=OBJECT, epochs="all", band="g").status_code == 200


BAD_CHOICES: list[tuple[dict[str, Any], str, str]] = [
    ({"which": "newest"}, "invalid_parameter", "which"),
    ({"band": "z"}, "invalid_parameter", "band"),
    ({"band": "V"}, "invalid_parameter", "band"),
    ({"date": "yesterday"}, "invalid_parameter", "date"),
    ({"date": "2024-13-01"}, "invalid_parameter", "date"),
    ({"date": 5}, "invalid_parameter", "date"),
    ({"date": True}, "invalid_parameter", "date"),
    ({"date": "1e400"}, "invalid_parameter", "date"),
    ({"date": 10**400}, "invalid_parameter", "date"),
    ({"date": "nan"}, "invalid_parameter", "date"),
    ({"date": "9999-12-31T23:59:59-23:59"}, "invalid_parameter", "date"),
    ({"date": "0001-01-01T00:00:00+23:59"}, "invalid_parameter", "date"),
    ({"epochs": "two"}, "invalid_parameter", "epochs"),
    ({"epochs": "all", "which": "first"}, "conflicting_parameters", "which"),
    ({"epochs": "all", "date": "2024-11-14"}, "conflicting_parameters", "date"),
    ({"epochs": "all", "date": "2024-11-15/2024-11-14"}, "invalid_parameter", "date"),
    ({"epochs": "all", "date": "/"}, "invalid_parameter", "date"),
    ({"epochs": "all", "date": "2024-11-14/P1D"}, "invalid_parameter", "date"),
    ({"epochs": "all", "date": "2024-11-14/x/2024-11-15"}, "invalid_parameter", "date"),
    ({"date": "2024-11-14/2024-11-15"}, "conflicting_parameters", "date"),
    ({"epochs": "all", "date": "60000/", "which": "first"}, "conflicting_parameters", "which"),
    ({"candid": "1", "date": "60000/"}, "conflicting_parameters", "date"),
    ({"date": "2024-11-14", "which": "first"}, "conflicting_parameters", "which"),
    ({"candid": "1", "which": "first"}, "conflicting_parameters", "which"),
    ({"candid": "1", "band": "g"}, "conflicting_parameters", "band"),
    ({"candid": "1", "epochs": "all"}, "conflicting_parameters", "epochs"),
]


@pytest.mark.parametrize(("asked", "code", "parameter"), BAD_CHOICES, ids=str)
def test_choices_that_make_no_sense_are_400_and_named(
    client: FlaskClient, asked: dict[str, Any], code: str, parameter: str
) -> None:
    good = {"objectId": OBJECT, "kind": "Science", "output-format": "FITS"}
    for path in ({}, {"hdfsPath": NIGHT}):
        response = client.post(ROUTE, json=good | path | asked)
        assert (response.status_code, response.json["code"]) == (400, code)
        assert response.json["parameter"] == parameter


def test_an_unknown_id_is_404_and_says_how_fresh_the_catalog_is(world: World) -> None:
    for asked in (
        {"candid": "5"},
        {"candid": str(2**63 - 1)},
        {"objectId": "ZTF19zzzzzzz"},
        {"diaObjectId": "1"},
        {"objectId": "ZTF19zzzzzzz", "epochs": "all"},
        {"objectId": "ZTF24aaaaaaa", "candid": str(world.rows[0]["candid"])},
    ):
        response = world.ask(**asked)
        assert (response.status_code, response.json["code"]) == (404, "alert_not_found")
        assert "the catalog was brought up to date at 20" in response.json["detail"]
        assert response.json["freshness"] in response.json["detail"]
        assert response.headers["Cache-Control"] == "no-store"


def test_an_object_without_a_fitting_alert_is_404(world: World) -> None:
    lsst = str(lsst_alert(0, 0)["diaSource"]["diaObjectId"])
    response = world.ask(diaObjectId=lsst, which="brightest")
    assert (response.status_code, response.json["code"]) == (404, "alert_not_found")
    assert "no alert of known brightness" in response.json["detail"]
    response = world.ask(diaObjectId=lsst, band="u", hdfsPath="lsst")
    assert "no alert in band u" in response.json["detail"]


def test_before_anything_is_indexed_the_answer_names_the_command(
    sample_archive: SampleArchive, catalog_url: str
) -> None:
    settings = Settings(
        archive=Archive(uri=str(sample_archive.folder)), catalog=CatalogSettings(catalog_url)
    )
    app = create_app(settings)
    response = app.test_client().get(ROUTE, query_string={"candid": "1", "kind": "Science"})
    assert response.status_code == 404
    assert "nothing is indexed yet, `cutout_api index` fills it" in response.json["detail"]
    app.extensions["cutout_reader"].close()


def test_an_alert_that_moved_to_another_row_is_still_the_right_one(world: World) -> None:
    file = world.folder / "year=2024/month=11/day=02/part-0.parquet"
    before = world.ask(candid=world.rows[2]["candid"]).data
    others = [ztf_alert(2000 + n, "ZTF24ddddddd") for n in range(3)]
    write(file, [world.rows[2], *others], SCHEMA)
    assert world.ask(candid=world.rows[2]["candid"]).data == before
    # The brightest of them is no longer in that file, and nothing else is answered in its place.
    response = world.ask(objectId=OBJECT, which="brightest")
    assert (response.status_code, response.json["code"]) == (404, "alert_not_found")
    assert "rewritten without it; the catalog was brought up to date" in response.json["detail"]
    world.index()
    assert world.chosen(which="brightest") == str(world.rows[0]["candid"])


def test_an_alert_whose_file_is_gone_is_read_from_its_copy(world: World) -> None:
    file = world.folder / "year=2024/month=11/day=02/part-0.parquet"
    expected = world.ask(candid=world.rows[2]["candid"]).data
    shutil.copy(file, world.folder / "copy.parquet")
    world.index()
    (world.folder / "copy.parquet").unlink()
    assert world.ask(candid=world.rows[2]["candid"]).data == expected
    file.unlink()
    response = world.ask(candid=world.rows[2]["candid"])
    assert (response.status_code, response.json["code"]) == (404, "alert_not_found")
    world.index()
    assert world.chosen(which="brightest") == str(world.rows[0]["candid"])


def test_a_kind_that_the_last_copy_lacks_is_read_from_another(world: World) -> None:
    import pyarrow as pa

    row = world.rows[2]
    fields = [SCHEMA.field(name) for name in ("objectId", "candid", "candidate", "cutoutScience")]
    write(world.folder / "science.parquet", [row], pa.schema(fields))
    world.index()
    response = world.ask(candid=row["candid"], kind="Template")
    assert response.data == stored_fits(row, "Template")


def test_what_is_said_of_an_alert_is_said_by_the_file_that_its_stamps_are_from(
    tmp_path: Path,
) -> None:
    old, new = ztf_alert(1), ztf_alert(1)
    new["candidate"] = {"jd": old["candidate"]["jd"] + 0.25, "fid": 1}
    assert new["candidate"]["fid"] != old["candidate"]["fid"]
    file = write(tmp_path / "a.parquet", [old])
    app = create_app(catalogued(Settings(archive=Archive(uri=str(tmp_path)))))
    write(file, [new])  # and the catalog has not heard of it
    client, asked = app.test_client(), {"candid": str(old["candid"]), "kind": "Science"}
    answer = client.get(ROUTE, query_string=asked | {"output-format": "FITS"})
    assert answer.headers["X-Cutout-Time"] == str(new["candidate"]["jd"])
    told = client.get(f"{ROUTE}/info", query_string=asked).json["alert"]
    assert (told["jd"], told["band"]) == (new["candidate"]["jd"], ZTF.bands[1])
    batch = {"candid": [asked["candid"]], "kind": "Science"}
    (line,) = client.post(f"{ROUTE}/batch", json=batch).data.splitlines()
    assert json.loads(line)["jd"] == new["candidate"]["jd"]
    labelled = {"output-format": "PNG", "labels": "all"}
    (picture,) = _pictures(client.post(f"{ROUTE}/batch", json=batch | labelled))
    single = client.get(ROUTE, query_string=asked | labelled | {"hdfsPath": "a.parquet"})
    np.testing.assert_array_equal(picture, np.asarray(Image.open(io.BytesIO(single.data))))
    app.extensions["cutout_reader"].close()


def _pictures(batch: TestResponse) -> list[np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(batch.data)) as package:
        contents = [package.read(name) for name in package.namelist() if name.endswith(".png")]
    return [np.asarray(Image.open(io.BytesIO(content))) for content in contents]


def test_a_catalogued_file_outside_the_served_folders_is_not_read(world: World) -> None:
    settings = Settings(
        archive=Archive(uri=str(world.folder), roots=(str(world.folder / "lsst"),)),
        catalog=world.settings.catalog,
    )
    app = create_app(settings)
    body = {"candid": str(world.rows[0]["candid"]), "kind": "Science"}
    response = app.test_client().post(ROUTE, json=body)
    assert (response.status_code, response.json["code"]) == (404, "alert_not_found")
    app.extensions["cutout_reader"].close()


def test_a_damaged_file_is_502_by_the_catalog_too(world: World) -> None:
    file = world.folder / "year=2024/month=11/day=01/part-0.parquet"
    file.write_bytes(file.read_bytes()[:5000])
    response = world.ask(candid=world.rows[0]["candid"])
    assert (response.status_code, response.json["code"]) == (502, "file_unreadable")


def test_rows_without_an_alert_id_are_read_by_their_object(world: World) -> None:
    rows = [epoch(1) | {"candid": None, "objectId": "ZTF24eeeeeee"} for _ in range(2)]
    rows[0]["candidate"] = rows[0]["candidate"] | {"jd": 2_460_000.5}
    file = world.folder / "nameless.parquet"
    write(file, rows, SCHEMA)
    world.index()
    response = world.ask(objectId="ZTF24eeeeeee", which="first")
    assert response.headers["X-Cutout-Time"] == "2460000.5"
    assert "X-Cutout-Id" not in response.headers
    answer = world.ask(objectId="ZTF24eeeeeee", epochs="all", **{"output-format": "array"}).json
    assert [entry["candid"] for entry in answer] == [None, None]
    write(file, rows[::-1], SCHEMA)
    assert world.ask(objectId="ZTF24eeeeeee", which="first").status_code == 404


def test_a_catalog_that_is_away_is_503_and_paths_still_answer(
    sample_archive: SampleArchive, postgres: PostgresServer
) -> None:
    settings = Settings(
        archive=Archive(uri=str(sample_archive.folder)),
        catalog=CatalogSettings(postgres.new_database()),
    )
    app = create_app(settings)
    client = app.test_client()
    body = {"objectId": "ZTF24aaaaaaa", "kind": "Science"}
    assert client.post(ROUTE, json=body).status_code == 404
    postgres.stop()
    try:
        response = client.post(ROUTE, json=body)
        assert (response.status_code, response.json["code"]) == (503, "catalog_unavailable")
        assert response.headers["Retry-After"]
        assert client.post(ROUTE, json=body | {"hdfsPath": NIGHT}).status_code == 200
    finally:
        postgres.start()
    assert client.post(ROUTE, json=body).status_code == 404
    app.extensions["cutout_reader"].close()


def test_every_real_alert_is_found_by_its_id(real_data: Path, tmp_path: Path) -> None:
    settings = Settings(
        archive=Archive(uri=str(real_data)),
        catalog=CatalogSettings(f"sqlite:///{tmp_path / 'catalog.sqlite'}"),
    )
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        assert not [outcome for outcome in indexer.run(indexer.plan()) if outcome.failed]
    app = create_app(settings)
    client = app.test_client()
    import pyarrow.parquet as pq

    for file in ("ztf_spark_1.10.parquet", "lsst_spark_1.12_offsetindex.parquet"):
        name = "candid" if file.startswith("ztf") else "diaSourceId"
        column = "candid" if file.startswith("ztf") else "diaSource"
        for row in pq.read_table(real_data / file, columns=[column])[column].to_pylist()[::7]:
            number = row if isinstance(row, int) else row["diaSourceId"]
            asked = {name: str(number), "kind": "Science", "return_type": "FITS"}
            by_id = client.get(ROUTE, query_string=asked)
            by_path = client.get(ROUTE, query_string=asked | {"hdfsPath": file})
            assert by_id.status_code == 200
            assert by_id.data == by_path.data
            assert by_id.headers["X-Cutout-Time"] == by_path.headers["X-Cutout-Time"]
    app.extensions["cutout_reader"].close()
    catalog = Catalog(settings.catalog, settings.archive.address)
    assert catalog.status().alerts == {"ztf": 154, "lsst": 50}
    assert json.dumps(catalog.find_alert(ZTF, 5)) == "null"


def test_epochs_whose_stamps_are_too_large_together_are_413_and_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ztf_alert(n, OBJECT) for n in range(60)]
    for number, row in enumerate(rows):  # a file of its own for each
        write(tmp_path / f"many/{number}.parquet", [row], ZTF_SCHEMA)
    size = len(stored_fits(rows[0], "Science"))
    asked = {"objectId": OBJECT, "epochs": "all", "hdfsPath": "many", "output-format": "FITS"}
    inflated = []
    plain = reader_module.unpack

    def noting(kind: str, *more: Any) -> Stamp:
        inflated.append(kind)
        return plain(kind, *more)

    monkeypatch.setattr(reader_module, "unpack", noting)
    for most, kind, status in (
        (60 * size, "Science", 200),
        (60 * size - 1, "Science", 413),
        (60 * size, "All", 413),
        (5 * size, "All", 413),
        (3 * size - 1, "All", 413),
    ):
        inflated.clear()
        limits = Limits(answer_bytes=most)
        app = create_app(Settings(archive=Archive(uri=str(tmp_path)), limits=limits))
        response = app.test_client().post(ROUTE, json=asked | {"kind": kind})
        assert response.status_code == status
        assert len(inflated) <= most / size + limits.concurrent_reads
        if status == 200:
            found = [image_of(stored_fits(row, "Science")) for row in rows]
            with fits.open(io.BytesIO(response.data)) as hdus:
                assert all((a.data == b).all() for a, b in zip(hdus[1:], found, strict=True))
        else:
            assert response.json["code"] == "answer_too_large"
            assert str(most) in response.json["detail"]
        # One alert by itself has no such limit.
        single = {"objectId": OBJECT, "hdfsPath": "many", "kind": "All", "output-format": "FITS"}
        assert app.test_client().post(ROUTE, json=single).status_code == 200
        app.extensions["cutout_reader"].close()
