"""A third survey, WINTER, on every route, in one archive with ZTF, whose ids are called the same.

Its real alerts are asked for where ../shared/packets is there; the sample is always.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits, votable
from astropy.wcs import WCS
from flask.testing import FlaskClient
from PIL import Image

from cutout_api.indexing import open_indexer
from cutout_api.settings import Archive, Settings
from cutout_api.settings import Catalog as CatalogSettings
from cutout_api.web import create_app

from ..samples import (
    KINDS,
    LSST_SCHEMA,
    REAL_DATA,
    WINTER_SCHEMA,
    ZTF_SCHEMA,
    image_of,
    lsst_alert,
    stored_fits,
    winter_alert,
    write,
    ztf_alert,
)

CUTOUTS = "/api/v1/cutouts"
PACKETS = REAL_DATA.parent / "packets"
OBJECT = "WNTR24aaaaa"
BOTH = 3_608_777
"""An id that alerts of both surveys have."""
ROWS = [
    winter_alert(0),
    winter_alert(1),
    winter_alert(2, positive=False, past=(-9, -6, 0, 1)),
    winter_alert(3, "WNTR24aaaab"),
    winter_alert(BOTH - 3_608_000, "WNTR24aaaac"),
]
ZTF_ROWS = [ztf_alert(n) for n in range(4)] + [ztf_alert(9, "ZTF24zzzzzzz", candid=BOTH)]


@dataclass
class World:
    client: FlaskClient
    folder: Path
    settings: Settings

    def get(self, path: str = CUTOUTS, **arguments: Any) -> Any:
        response = self.client.get(path, query_string=arguments)
        assert response.status_code == 200, response.text
        return response


def read_packets() -> list[dict[str, Any]]:
    rows = []
    for path in sorted(PACKETS.glob("winter_*.avro")):
        with path.open("rb") as file:
            rows += fastavro.reader(file)
    return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("winter")
    night = "archive/science/year=2024/month=03/day=12"
    write(folder / night / "winter.parquet", ROWS, WINTER_SCHEMA)
    write(folder / night / "ztf.parquet", ZTF_ROWS, ZTF_SCHEMA)
    write(folder / night / "lsst.parquet", [lsst_alert(n) for n in range(3)], LSST_SCHEMA)
    if PACKETS.is_dir():
        pq.write_table(pa.Table.from_pylist(read_packets()), folder / night / "packets.parquet")
    settings = Settings(
        archive=Archive(uri=str(folder)),
        catalog=CatalogSettings(f"sqlite:///{folder / 'catalog.sqlite'}"),
    )
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        outcomes = indexer.run(indexer.plan())
        indexer.note_walk()
    assert {outcome.state for outcome in outcomes} == {"ok"}
    app = create_app(settings)
    yield World(app.test_client(), folder / night, settings)
    app.extensions["cutout_reader"].close()


WAYS = [
    {"objectId": OBJECT},
    {"objectId": OBJECT, "candid": 3_608_002},
    {"candid": 3_608_002},
    {"candid": "3608002", "hdfsPath": "archive/science/year=2024/month=03/day=12/winter.parquet"},
    {"candid": "3608002", "hdfsPath": "archive/science/year=2024/month=03/day=12"},
    {"objectId": OBJECT, "hdfsPath": "archive/science/year=2024/month=03/day=12"},
    {"objectId": OBJECT, "which": "latest", "band": "hs"},
]


@pytest.mark.parametrize("way", WAYS, ids="+".join)
def test_an_alert_is_found_by_each_of_its_keys(world: World, way: dict[str, Any]) -> None:
    for kind in KINDS:
        response = world.get(**way, kind=kind, return_type="FITS")
        assert response.data == stored_fits(ROWS[2], kind)
        assert response.headers["X-Cutout-Survey"] == "winter"
        assert response.headers["X-Cutout-Id"] == "3608002"
        assert float(response.headers["X-Cutout-Time"]) == ROWS[2]["candidate"]["jd"]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_file_to_the_last_bit(world: World, kind: str) -> None:
    expected = image_of(stored_fits(ROWS[1], kind))
    public = world.get(candid=3_608_001, kind=kind, **{"output-format": "array"}).json
    assert list(public) == [f"b:cutout_{kind.lower()}"]
    (internal,) = world.get(candid=3_608_001, kind=kind, return_type="array").json
    for rows in (internal, *public.values()):
        found = np.array(rows, expected.dtype.newbyteorder("="))
        np.testing.assert_array_equal(found, expected)
    npy = np.load(io.BytesIO(world.get(candid=3_608_001, kind=kind, return_type="NPY").data))
    np.testing.assert_array_equal(npy, expected)
    assert npy.dtype == expected.dtype.newbyteorder("=")


@pytest.mark.parametrize("batch", [False, True], ids=["stamp", "batch"])
@pytest.mark.parametrize(
    ("accept", "word"),
    [("application/json", "null"), ("application/json, */*", "null"), ("", "NaN")],
)
def test_masked_pixels_are_written_for_who_asks_by_a_key_of_two_surveys(
    world: World, accept: str, word: str, batch: bool
) -> None:
    masked = int(np.isnan(image_of(stored_fits(ROWS[1], "Science"))).sum())
    assert masked
    asked = {"candid": ["3608001"] if batch else "3608001", "kind": "Science"}
    asked |= {"output-format": "array"} | ({"package": "ndjson"} if batch else {})
    address = f"{CUTOUTS}/batch" if batch else CUTOUTS
    answer = world.client.post(address, json=asked, headers={"Accept": accept} if accept else {})
    assert answer.text.count(word) == masked


def test_three_stamps_come_in_one_answer(world: World) -> None:
    public = world.get(objectId=OBJECT, kind="All", **{"output-format": "array"}).json
    assert list(public) == [f"b:cutout_{kind.lower()}" for kind in KINDS]
    content = world.get(objectId=OBJECT, kind="All", return_type="FITS").data
    with fits.open(io.BytesIO(content)) as hdus:
        for kind in KINDS:
            assert hdus[kind.upper()].data.dtype.itemsize == (8 if kind == "Difference" else 4)
            np.testing.assert_array_equal(
                hdus[kind.upper()].data, image_of(stored_fits(ROWS[2], kind))
            )
    picture = Image.open(
        io.BytesIO(world.get(objectId=OBJECT, kind="All", labels="all", orient="north").data)
    )
    assert picture.format == "PNG"


def test_where_north_is_comes_from_the_position(world: World) -> None:
    content = world.get(objectId=OBJECT, kind="Science", wcs="fix", return_type="FITS").data
    wcs = WCS(fits.getheader(io.BytesIO(content)))
    place, candidate = wcs.pixel_to_world(40, 40), ROWS[2]["candidate"]
    assert place.ra.deg == pytest.approx(candidate["ra"], abs=1e-6)
    assert place.dec.deg == pytest.approx(candidate["dec"], abs=1e-6)
    assert wcs.pixel_to_world(40, 41).dec > place.dec  # upwards is north
    assert wcs.pixel_to_world(41, 40).ra < place.ra  # to the right is west
    explained = world.get(objectId=OBJECT, kind="Science", explain=1, labels="all").json
    assert explained["survey"] == "winter"


def test_a_difference_of_what_faded_can_be_turned(world: World) -> None:
    turned = world.get(
        candid=3_608_002, kind="Difference", diffsign="sci-ref", return_type="NPY"
    ).data
    expected = image_of(stored_fits(ROWS[2], "Difference"))
    np.testing.assert_array_equal(np.load(io.BytesIO(turned)), -expected)


def test_epochs_are_in_the_order_of_time(world: World) -> None:
    found = world.get(objectId=OBJECT, kind="Science", epochs="all", return_type="array").json
    assert [entry["candid"] for entry in found] == ["3608000", "3608001", "3608002"]
    assert [entry["jd"] for entry in found] == [row["candidate"]["jd"] for row in ROWS[:3]]
    for which, number in (("first", 0), ("brightest", 0), ("faintest", 2)):
        response = world.get(objectId=OBJECT, kind="Science", which=which)
        assert response.headers["X-Cutout-Id"] == str(3_608_000 + number)


@pytest.mark.parametrize(
    ("given", "expected"), [("Y", "3608000"), ("J", "3608001"), ("y", "3608000"), ("HS", "3608002")]
)
def test_bands_have_their_names(world: World, given: str, expected: str) -> None:
    response = world.get(objectId=OBJECT, kind="Science", band=given)
    assert response.headers["X-Cutout-Id"] == expected


def test_a_band_of_another_survey_is_refused(world: World) -> None:
    response = world.client.get(
        CUTOUTS, query_string={"objectId": OBJECT, "kind": "Science", "band": "g"}
    )
    assert response.status_code == 400
    assert response.json["allowed"] == ["Y", "J", "Hs", "K"]


def test_what_is_measured_is_told(world: World) -> None:
    found = world.get(f"{CUTOUTS}/info", candid=3_608_001).json
    assert found["survey"] == "winter"
    assert found["alert"]["objectId"] == OBJECT
    assert found["alert"]["band"] == "J"
    assert found["alert"]["brightness_unit"] == "mag"
    assert len(found["stamps"]) == 3


def test_the_table_has_a_row_for_each_alert(world: World) -> None:
    rows = world.get("/api/v1/objects", objectId=OBJECT).json
    assert [row["i:candid"] for row in rows] == [3_608_002, 3_608_001, 3_608_000]
    assert {row["i:objectid"] for row in rows} == {OBJECT}
    for row, alert in zip(rows, ROWS[2::-1], strict=True):
        for name in ("jd", "fid", "ra", "dec", "isdiffpos", "progname"):
            assert row[f"i:{name}"] == alert["candidate"][name]
    stamps = world.get("/api/v1/objects", objectId=OBJECT, withcutouts="True").json
    found = np.array(stamps[0]["b:cutout_difference"], float)
    np.testing.assert_array_equal(found, image_of(stored_fits(ROWS[2], "Difference")))
    answer = world.get("/api/v1/objects", objectId=OBJECT, **{"output-format": "votable"})
    table = votable.parse_single_table(io.BytesIO(answer.data)).to_table()
    assert list(table["i_candid"]) == [3_608_002, 3_608_001, 3_608_000]
    parquet = pq.read_table(
        io.BytesIO(
            world.get("/api/v1/objects", objectId=OBJECT, **{"output-format": "parquet"}).data
        )
    )
    assert parquet["i:jd"].to_pylist() == [row["i:jd"] for row in rows]


def test_the_history_of_an_alert_is_shown_once(world: World) -> None:
    rows = world.get("/api/v1/objects", objectId=OBJECT, withupperlim="True").json
    assert [row["i:candid"] - 3_608_000 for row in rows] == [2, 1, 0, -6, -9]
    assert {row["d:tag"] for row in rows} == {"valid"}
    assert [row["i:magpsf"] for row in rows[-2:]] == [14.0, 13.25]
    assert {row["i:objectid"] for row in rows} == {OBJECT}


def test_columns_are_described(world: World) -> None:
    entries = world.get("/api/v1/columns", survey="winter").json["columns"]
    assert {entry["survey"] for entry in entries} == {"winter"}
    assert [it["name"] for it in entries if not it["description"]] == []


def test_objects_of_two_surveys_are_not_of_one_table(world: World) -> None:
    response = world.client.get(
        "/api/v1/objects", query_string={"objectId": f"{OBJECT},ZTF24aaaaaaa"}
    )
    assert response.status_code == 400
    assert response.json["code"] == "conflicting_parameters"


def test_a_batch_takes_names_and_numbers(world: World) -> None:
    numbers = [3_608_000, 3_608_003, 5]
    for key, ids in (("candid", numbers), ("objectId", [OBJECT, "WNTR24aaaab", "ZTF24aaaaaaa"])):
        response = world.client.post(
            f"{CUTOUTS}/batch", json={key: ids, "kind": "All", "package": "ndjson"}
        )
        assert response.status_code == 200, response.text
        first, second, third = map(json.loads, response.text.splitlines())
        assert list(first["cutouts"]) == [f"b:cutout_{kind.lower()}" for kind in KINDS]
        assert first["candid"] == ("3608000" if key == "candid" else "3608002")
        assert second["candid"] == "3608003"
        assert third["status"] in (400, 404)
    packed = world.client.post(
        f"{CUTOUTS}/batch",
        json={
            "candid": numbers[:2],
            "kind": "Difference",
            "package": "zip",
            "hdfsPath": "archive/science/year=2024/month=03/day=12",
        },
    )
    with zipfile.ZipFile(io.BytesIO(packed.data)) as files:
        held = [files.read(name) for name in files.namelist() if name.endswith(".fits")]
    assert held == [stored_fits(ROWS[n], "Difference") for n in (0, 3)]


def test_an_id_is_found_to_be_of_either_survey(world: World) -> None:
    (match,) = world.get("/api/v1/identify", id=OBJECT).json["matches"]
    assert (match["survey"], match["key"], len(match["epochs"])) == ("winter", "objectId", 3)
    both = world.get("/api/v1/identify", id=BOTH).json["matches"]
    assert [match["survey"] for match in both] == ["ztf", "winter"]
    assert {match["key"] for match in both} == {"candid"}


def test_an_id_of_two_surveys_is_not_guessed(world: World) -> None:
    response = world.client.get(CUTOUTS, query_string={"candid": BOTH, "kind": "Science"})
    assert response.status_code == 400
    assert response.json["code"] == "ambiguous_id"
    folder = "archive/science/year=2024/month=03/day=12"
    response = world.client.get(
        CUTOUTS, query_string={"candid": BOTH, "kind": "Science", "hdfsPath": folder}
    )
    assert response.status_code == 400
    assert response.json["code"] == "ambiguous_id"
    for name, survey in (("WNTR24aaaac", "winter"), ("ZTF24zzzzzzz", "ztf")):
        found = world.get(candid=BOTH, objectId=name, kind="Science")
        assert found.headers["X-Cutout-Survey"] == survey
    for survey in ("winter", "ztf"):
        path = f"archive/science/year=2024/month=03/day=12/{survey}.parquet"
        found = world.get(candid=BOTH, hdfsPath=path, kind="Science", return_type="PNG")
        assert found.headers["X-Cutout-Survey"] == survey


@pytest.mark.parametrize(
    "given",
    [
        {"objectId": OBJECT, "candid": 1, "diaSourceId": 2},
        {"objectId": "ZTF24aaaaaaa", "diaObjectId": 1, "diaSourceId": 2},
        {"candid": 1, "diaObjectId": 2},
    ],
    ids=str,
)
def test_keys_of_several_surveys_contradict_each_other(world: World, given: dict[str, Any]) -> None:
    response = world.client.get(CUTOUTS, query_string={**given, "kind": "Science"})
    assert response.status_code == 400
    assert response.json["code"] == "conflicting_parameters"


def test_ztf_is_still_ztf(world: World) -> None:
    candid = ZTF_ROWS[0]["candid"]
    for way in ({"candid": candid}, {"objectId": "ZTF24aaaaaaa", "candid": candid}):
        response = world.get(**way, kind="Template", return_type="FITS")
        assert response.headers["X-Cutout-Survey"] == "ztf"
        assert response.data == stored_fits(ZTF_ROWS[0], "Template")


@pytest.mark.parametrize("page", ["/", "/try", "/gallery", "/docs", "/plain?id=WNTR24aaaaa"])
def test_the_pages_know_it(world: World, page: str) -> None:
    response = world.client.get(page)
    assert response.status_code == 200
    if page in ("/", "/try"):
        assert "WINTER" in response.text


def test_every_link_of_the_page_works(world: World) -> None:
    from cutout_api.explorer import Example, list_abilities

    abilities = list_abilities([Example("winter", "objectId", OBJECT)])
    links = {link for part in abilities.values() for it in part for _, link in it["links"]}
    assert len([link for link in links if OBJECT in link]) > 30
    refused = {link: world.client.get(link).status_code for link in links}
    assert {link: it for link, it in refused.items() if it != 200} == {}


@pytest.fixture(scope="module")
def packets(world: World) -> list[dict[str, Any]]:
    if not PACKETS.is_dir():
        pytest.skip("the folder of real packets, ../shared/packets, is not here")
    return read_packets()


def test_real_alerts_answer_as_fastavro_reads_them(
    world: World, packets: list[dict[str, Any]]
) -> None:
    assert len(packets) == 3
    for packet in packets:
        keys = {"objectId": packet["objectid"], "candid": packet["candid"]}
        for kind in KINDS:
            stored = gzip.decompress(packet[f"cutout_{kind.lower()}"])
            assert world.get(candid=packet["candid"], kind=kind, return_type="FITS").data == stored
            array = world.get(**keys, kind=kind, return_type="array").json[0]
            expected = image_of(stored)
            kept = expected.dtype.newbyteorder("=")
            np.testing.assert_array_equal(np.array(array, kept), expected)
            picture = world.get(**keys, kind=kind, **{"output-format": "PNG"}).data
            assert Image.open(io.BytesIO(picture)).size == (81, 81)
        (row,) = world.get("/api/v1/objects", objectId=packet["objectid"]).json
        for name, value in packet["candidate"].items():
            shown = row[f"i:{name}"]
            is_number = isinstance(value, float)
            assert shown == (pytest.approx(value, rel=1e-6) if is_number else value), name
        history = world.get(
            "/api/v1/objects", objectId=packet["objectid"], withupperlim="True"
        ).json
        past = [it["candid"] for it in packet["prv_candidates"]]
        assert sorted(it["i:candid"] for it in history) == sorted([*past, packet["candid"]])
        info = world.get(f"{CUTOUTS}/info", **keys).json
        assert info["alert"]["band"] == "Hs"
        (match,) = world.get("/api/v1/identify", id=packet["candid"]).json["matches"]
        assert match["survey"] == "winter"


# In 2MASS, by the packets themselves: hours and degrees of the neighbour, as its name spells them.
def test_neighbours_are_where_the_matrix_puts_them(
    world: World, packets: list[dict[str, Any]]
) -> None:
    from astropy.coordinates import SkyCoord

    seen = 0
    for packet in packets:
        template = world.get(
            candid=packet["candid"], kind="Template", wcs="fix", return_type="FITS"
        ).data
        image, wcs = image_of(template), WCS(fits.getheader(io.BytesIO(template)))
        for number in (1, 2, 3):
            name = packet["candidate"][f"tmobjectid{number}"].strip()
            magnitude = packet["candidate"][f"tmjmag{number}"]
            if magnitude is None or magnitude > 14.6:
                continue  # too faint to stand out
            hours = f"{name[:2]}h{name[2:4]}m{name[4:6]}.{name[6:8]}s"
            degrees = f"{name[8:11]}d{name[11:13]}m{name[13:15]}.{name[15:]}s"
            x, y = wcs.world_to_pixel(SkyCoord(hours, degrees))
            around = image[round(float(y)) - 4 : round(float(y)) + 5]
            around = around[:, round(float(x)) - 4 : round(float(x)) + 5]
            assert np.nanmax(around) > np.nanpercentile(image, 99), (packet["objectid"], name)
            seen += 1
    assert seen >= 2
