"""Stamps that are valid, or nearly, and not a plain 2-D primary HDU: asked for over HTTP."""

from __future__ import annotations

import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cutout_api.client import Cutout, ServiceError, _Found
from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..pictures import lsst_header, star
from ..samples import LSST_SCHEMA, ZTF_SCHEMA, lsst_alert, write, ztf_alert, ztf_fits

SHAPE = (31, 33)
IMAGE = star(SHAPE)
ROUTE = "/api/v1/cutouts"


def written(*hdus: Any) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(buffer)
    return buffer.getvalue()


def with_newline() -> bytes:
    header = lsst_header(ORIGIN="PIPELINE 4.7.0~")
    return written(fits.PrimaryHDU(IMAGE, header)).replace(b"4.7.0~", b"4.7.0\n")


# What the file is, and the number and name of the HDU that is its image.
ODD: dict[str, tuple[bytes, int, str | None]] = {
    "an extension": (
        written(
            fits.PrimaryHDU(),
            fits.ImageHDU(IMAGE, lsst_header(), name="IMAGE"),
            fits.ImageHDU(np.ones(SHAPE, np.int32), name="MASK"),
            fits.ImageHDU(np.full(SHAPE, 4, np.float32), name="VARIANCE"),
        ),
        1,
        "IMAGE",
    ),
    "after its mask": (
        written(
            fits.PrimaryHDU(),
            fits.ImageHDU(np.ones(SHAPE, np.int32), name="MASK"),
            fits.ImageHDU(np.full(SHAPE, 4, np.float32), name="VARIANCE"),
            fits.ImageHDU(IMAGE, lsst_header(), name="SCI"),
        ),
        3,
        "SCI",
    ),
    "compressed": (
        written(
            fits.PrimaryHDU(),
            fits.CompImageHDU(
                IMAGE, lsst_header(), name="IMAGE", compression_type="GZIP_1", quantize_level=0
            ),
            fits.ImageHDU(np.full(SHAPE, 4, np.float32), name="VARIANCE"),
        ),
        1,
        "IMAGE",
    ),
    "a plane of a cube": (
        written(
            fits.PrimaryHDU(IMAGE[None], lsst_header()),
            fits.ImageHDU(np.full(SHAPE, 4, np.float32)[None], name="VARIANCE"),
        ),
        0,
        None,
    ),
    "a newline in a card": (with_newline(), 0, None),
}
TABLE = written(
    fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])])
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    folder = tmp_path_factory.mktemp("odd")
    contents = [content for content, *_ in ODD.values()]
    rows = [
        lsst_alert(number, Science=content, Template=content, Difference=content)
        for number, content in enumerate([*contents, TABLE])
    ]
    write(folder / "lsst.parquet", rows, LSST_SCHEMA)
    stored = gzip.compress(ztf_fits(IMAGE), mtime=0)
    write(
        folder / "ztf.parquet",
        [ztf_alert(1, Science=stored + b"\r\n"), ztf_alert(2, Science=stored[:-9] + b"\r\n")],
        ZTF_SCHEMA,
    )
    app = create_app(Settings(archive=Archive(uri=f"file://{folder}")))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def ask(client: FlaskClient, what: str, route: str = ROUTE, **asked: Any) -> TestResponse:
    number = [*ODD, "table"].index(what)
    keys = {"hdfsPath": "lsst.parquet", "diaSourceId": str(3_068_429_599_923_765_000 + number)}
    return client.get(route, query_string={**keys, "kind": "Science", **asked})


def opened(content: bytes) -> fits.HDUList:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hdus = fits.open(io.BytesIO(content), checksum=True, lazy_load_hdus=False)
        hdus.verify("exception")
        return hdus


@pytest.mark.parametrize("what", ODD)
def test_it_answers_in_every_format(client: FlaskClient, what: str) -> None:
    content = ODD[what][0]
    assert ask(client, what, return_type="FITS").data == content
    np.testing.assert_array_equal(
        np.array(ask(client, what, return_type="array").json[0], np.float32), IMAGE
    )
    np.testing.assert_array_equal(
        np.load(io.BytesIO(ask(client, what, return_type="NPY").data)), IMAGE
    )
    npz = np.load(io.BytesIO(ask(client, what, return_type="NPZ", kind="All").data))
    np.testing.assert_array_equal(npz["Difference"], IMAGE)
    for name in ("PNG", "JPEG", "WebP", "GIF"):
        picture = Image.open(io.BytesIO(ask(client, what, return_type=name).data))
        assert picture.size == SHAPE[::-1]


@pytest.mark.parametrize("what", ODD)
def test_info_names_the_hdu_that_it_read(client: FlaskClient, what: str) -> None:
    answer = ask(client, what, f"{ROUTE}/info")
    assert answer.status_code == 200
    found = answer.json["stamps"][0]
    _, number, name = ODD[what]
    assert found["hdu"] == {"number": number, "name": name}
    assert found["shape"] == list(SHAPE)
    assert found["unit"] == "nJy"
    assert found["wcs"] is not None
    assert all(str(card["value"]).isprintable() for card in found["header"])


@pytest.mark.parametrize("what", ODD)
def test_all_three_and_the_fixed_wcs_are_valid_files(client: FlaskClient, what: str) -> None:
    for asked in ({"kind": "All"}, {"kind": "All", "wcs": "fix"}):
        hdus = opened(ask(client, what, return_type="FITS", **asked).data)
        for kind in ("SCIENCE", "TEMPLATE", "DIFFERENCE"):
            np.testing.assert_array_equal(hdus[kind].data.reshape(SHAPE), IMAGE)
            assert ("CTYPE1" in hdus[kind].header) == ("wcs" in asked)
    number = ODD[what][1]
    hdus = opened(ask(client, what, return_type="FITS", wcs="fix").data)
    np.testing.assert_array_equal(hdus[number].data.reshape(SHAPE), IMAGE)
    assert "CTYPE1" in hdus[number].header
    assert len(hdus) == len(fits.open(io.BytesIO(ODD[what][0])))


@pytest.mark.parametrize("what", [what for what in ODD if what != "a newline in a card"])
def test_its_planes_are_found(client: FlaskClient, what: str) -> None:
    for plane, wanted in (("variance", np.full(SHAPE, 4)), ("snr", IMAGE / 2)):
        answer = ask(client, what, return_type="array", plane=plane)
        np.testing.assert_allclose(np.array(answer.json[0]), wanted, rtol=1e-6)
        hdus = opened(ask(client, what, return_type="FITS", plane=plane).data)
        np.testing.assert_allclose(hdus[0].data, wanted, rtol=1e-6)


def test_it_answers_in_batches_and_tables(client: FlaskClient) -> None:
    ids = [str(3_068_429_599_923_765_000 + number) for number in range(len(ODD))]
    asked = {"hdfsPath": "lsst.parquet", "diaSourceId": ids, "kind": "Science"}
    batch = client.post(f"{ROUTE}/batch", json={**asked, "package": "npz", "side": 33})
    stamps = np.load(io.BytesIO(batch.data))
    assert stamps["status"].tolist() == [200] * len(ODD)
    for image in stamps["stamps"]:
        np.testing.assert_array_equal(image[1:32, :, 0], IMAGE)
    batch = client.post(f"{ROUTE}/batch", json={**asked, "package": "zip", "wcs": "fix"})
    with zipfile.ZipFile(io.BytesIO(batch.data)) as package:
        for name in package.namelist():
            opened(package.read(name))
        assert len(package.namelist()) == len(ODD)


def test_a_file_without_an_image_answers_as_fits(client: FlaskClient) -> None:
    assert ask(client, "table", return_type="FITS").data == TABLE
    merged = opened(ask(client, "table", return_type="FITS", kind="All").data)
    assert [hdu.name for hdu in merged][1:3] == ["SCIENCE", "SCIENCE_1"]
    for asked in ({"return_type": "array"}, {"return_type": "FITS", "wcs": "fix"}):
        answer = ask(client, "table", **asked)
        assert (answer.status_code, json.loads(answer.data)["code"]) == (502, "stamp_unreadable")


def test_bytes_after_the_gzip_are_no_harm_and_a_cut_gzip_says_so(client: FlaskClient) -> None:
    def science(number: int) -> TestResponse:
        asked = {"hdfsPath": "ztf.parquet", "candid": str(2_656_254_792_815_010_000 + number)}
        return client.get(ROUTE, query_string={**asked, "kind": "Science", "return_type": "FITS"})

    assert science(1).data == ztf_fits(IMAGE)
    assert science(2).status_code == 502
    assert "gzip" in json.loads(science(2).data)["detail"]


@pytest.mark.parametrize("what", ODD)
def test_the_client_finds_the_same_image(what: str) -> None:
    cutout = Cutout(_Found.__new__(_Found), "Science", ODD[what][0])
    np.testing.assert_array_equal(cutout.array, IMAGE)
    assert cutout.header["PC1_1"] == lsst_header()["PC1_1"]


def test_the_client_says_of_a_file_without_an_image_that_it_has_none() -> None:
    with pytest.raises(ServiceError, match="no 2-D image"):
        _ = Cutout(_Found.__new__(_Found), "Science", TABLE).array
