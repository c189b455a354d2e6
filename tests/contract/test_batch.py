"""Many stamps by one request: each is what a single request answers, in the order asked."""

from __future__ import annotations

import gc
import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cutout_api import batch as batch_module
from cutout_api import metrics
from cutout_api.batch import Batches
from cutout_api.batch_request import parse_batch_request
from cutout_api.errors import ClientLeft, DeadlineExceeded
from cutout_api.reader import Reader
from cutout_api.settings import Archive, Limits, Server, Settings
from cutout_api.storage import OpenFile
from cutout_api.web import create_app
from cutout_api.work import has_left

from ..archive import NEXT_NIGHT, NIGHT, SampleArchive, peculiar_candid
from ..catalogue import catalogued
from ..samples import (
    KINDS,
    LSST_SCHEMA,
    REAL_DATA,
    ZTF_SCHEMA,
    image_of,
    lsst_alert,
    stored_fits,
    write,
    ztf_alert,
)
from ..service import ROOT, Service, running_service

ROUTE = "/api/v1/cutouts/batch"
SINGLE = "/api/v1/cutouts"
FIRST, SECOND = f"{NIGHT}/part-00000.snappy.parquet", f"{NIGHT}/part-00001.snappy.parquet"
LATER = f"{NEXT_NIGHT}/part-0.parquet"


@pytest.fixture(scope="module")
def client(local_settings: Settings) -> Iterator[FlaskClient]:
    """The service on the sample archive, which has a catalog here."""
    app = create_app(catalogued(local_settings, "archive", "lsst", "ztf"))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def ask(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post(ROUTE, json={"kind": "Science"} | body)


def lines(response: TestResponse) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text[:500]
    assert response.mimetype == "application/x-ndjson"
    return [json.loads(line) for line in response.data.splitlines()]


def files_of(response: TestResponse) -> dict[str, bytes]:
    """Return the files of a zip or tar in their order."""
    assert response.status_code == 200, response.text[:500]
    if response.mimetype == "application/zip":
        with zipfile.ZipFile(io.BytesIO(response.data)) as package:
            assert package.testzip() is None
            return {name: package.read(name) for name in package.namelist()}
    with tarfile.open(fileobj=io.BytesIO(response.data)) as package:
        found = {}
        for member in package:
            content = package.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
        return found


def candids(archive: SampleArchive, *names: str) -> list[str]:
    return [str(row["candid"]) for name in names for row in archive.rows[name]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every read of a file while the test runs: its path, offset and length."""
    found: list[tuple[str, int, int]] = []
    plain = OpenFile.read_at

    def noted(self: OpenFile, length: int, offset: int) -> bytes:
        found.append((self.id.path, offset, length))
        return plain(self, length, offset)

    monkeypatch.setattr(OpenFile, "read_at", noted)
    return found


# --- what each id is answered


@pytest.mark.parametrize("package", ["zip", "tar"])
@pytest.mark.parametrize("options", [{}, {"hdfsPath": "archive"}], ids=str)
def test_files_are_byte_for_byte_those_of_single_requests_in_the_order_asked(
    client: FlaskClient, archive: SampleArchive, package: str, options: dict[str, str]
) -> None:
    ids = candids(archive, FIRST, SECOND, LATER)
    random.Random(1).shuffle(ids)
    found = files_of(ask(client, candid=ids, package=package, kind="Template", **options))
    assert list(found) == [f"{candid}_Template.fits" for candid in ids]
    rows = {
        str(row["candid"]): row for name in (FIRST, SECOND, LATER) for row in archive.rows[name]
    }
    assert all(
        content == stored_fits(rows[name.partition("_")[0]], "Template")
        for name, content in found.items()
    )


SAME_AS_SINGLE: list[dict[str, Any]] = [
    {"output-format": "PNG", "stretch": "asinh", "a": 0.1},
    {"output-format": "PNG", "kind": "All", "labels": "all", "colormap": "viridis"},
    {"output-format": "FITS", "kind": "All"},
    {"output-format": "FITS", "wcs": "fix"},
    {"output-format": "JPEG", "orient": "north", "size": 100},
    {"output-format": "NPY", "kind": "All"},
]


@pytest.mark.parametrize("options", SAME_AS_SINGLE, ids=str)
def test_every_option_does_what_it_does_for_one(
    client: FlaskClient, archive: SampleArchive, options: dict[str, Any]
) -> None:
    ids = candids(archive, FIRST)[:5]
    for path in ({}, {"hdfsPath": NIGHT}):
        found = ask(client, candid=ids, package="ndjson", **path, **options)
        singles = [
            client.post(SINGLE, json={"candid": id_, "kind": "Science"} | path | options)
            for id_ in ids
        ]
        for line, single in zip(lines(found), singles, strict=True):
            if single.status_code == 200:
                assert line["media_type"] == single.mimetype
                assert base64(line["base64"]) == single.data
            else:
                assert line["error"] == single.json


def base64(text: str) -> bytes:
    import base64 as module

    return module.b64decode(text)


@pytest.mark.parametrize("dialect", [{}, {"output-format": "array"}, {"return_type": "array"}])
def test_arrays_are_those_of_single_requests(
    client: FlaskClient, archive: SampleArchive, dialect: dict[str, str]
) -> None:
    ids = candids(archive, SECOND)
    single = {"output-format": "array"} | ({} if "return_type" in dialect else dialect)
    single = dialect or single
    for id_, line in zip(ids, lines(ask(client, candid=ids, kind="All", **dialect)), strict=True):
        assert (line["id"], line["candid"], line["status"]) == (id_, id_, 200)
        answer = client.post(SINGLE, json={"candid": id_, "kind": "All", **single})
        assert line["cutouts"] == answer.json
        assert line["jd"] == float(answer.headers["X-Cutout-Time"])


def test_objects_give_the_alert_that_is_chosen(client: FlaskClient) -> None:
    objects = ["ZTF24aaaaaab", "ZTF99zzzzzzz", "ZTF24aaaaaaa", "not a name", "ZTF24aaaaaab"]
    for options in ({}, {"which": "first"}, {"band": "r"}, {"date": 60415}):
        for path in ({}, {"hdfsPath": NIGHT}):
            found = lines(ask(client, objectId=objects, **options, **path))
            assert [line["id"] for line in found] == objects
            for name, line in zip(objects, found, strict=True):
                asked = {"objectId": name, "kind": "Science", **options, **path}
                single = client.post(SINGLE, json=asked | {"output-format": "array"})
                assert line["status"] == single.status_code
                if single.status_code == 200:
                    assert line["candid"] == single.headers["X-Cutout-Id"]
                    assert line["cutouts"] == single.json
                else:
                    assert line["error"] == single.json


def test_both_surveys_and_both_keys_of_each(client: FlaskClient) -> None:
    rows = [lsst_alert(n, n % 2) for n in range(6)]
    ids = [row["diaSourceId"] for row in rows]
    found = files_of(ask(client, diaSourceId=ids, package="zip"))
    assert list(found.values()) == [stored_fits(row, "Science") for row in rows]
    objects = [str(row["diaSource"]["diaObjectId"]) for row in rows[:2]]
    found = files_of(ask(client, diaObjectId=objects, **{"output-format": "FITS"}))
    assert list(found) == [f"{object_id}_Science.fits" for object_id in objects]
    newest = [lsst_alert(n, n % 2) for n in (4, 5)]
    assert next(iter(found.values())) == stored_fits(newest[0], "Science")


def test_what_is_wrong_with_an_id_is_told_where_it_stands(
    client: FlaskClient, archive: SampleArchive
) -> None:
    good = candids(archive, FIRST)[0]
    bad = [
        *[peculiar_candid(what) for what in ("null struct", "not gzip", "not fits", "cut short")],
        *[peculiar_candid(what) for what in ("bad checksum", "no image", "empty")],
        "5",
        str(lsst_alert(1)["diaSourceId"]),
        "abc",
        "ZTF24aaaaaaa",
        str(2**63),
        "../../etc/passwd",
        "9" * 5000,
    ]
    ids = [item for id_ in bad for item in (id_, good)]
    found = lines(ask(client, candid=ids))
    assert [line["status"] for line in found[1::2]] == [200] * len(bad)
    for id_, line in zip(bad, found[::2], strict=True):
        single = client.post(SINGLE, json={"candid": id_, "kind": "Science"})
        assert line["status"] == single.status_code >= 400
        assert line["error"] == single.json
        assert len(line["id"]) <= 64
    # JSON has more that is no id.
    odd: list[Any] = [1.5, 2.656254792815010e18, None, True, [good], {"candid": good}, "", good]
    found = lines(ask(client, candid=odd))
    codes = [line.get("error", {}).get("code") for line in found]
    assert codes == ["invalid_parameter"] * 7 + [None]
    assert found[5]["id"] == str({"candid": good})


@pytest.mark.parametrize("route", [ROUTE, "/api/v1/cutouts", "/api/v1/objects"])
@pytest.mark.parametrize("nest", [('{"a":', "}"), ("[", "]"), ('[{"a":', "}]")], ids=str)
def test_a_body_however_deep_is_refused_in_words(
    client: FlaskClient, route: str, nest: tuple[str, str]
) -> None:
    opening, closing = nest
    for depth in (40, 330, 480, 600, 960, 5000):
        nested = opening * depth + "1" + closing * depth
        for value in (nested, f"[{nested}]"):
            body = f'{{"objectId": {value}, "kind": "Science"}}'
            response = client.post(route, data=body, content_type="application/json")
            assert response.status_code == 400, (depth, response.text[:200])
            assert response.json["code"] in ("invalid_parameter", "malformed_body")


def test_errors_are_files_too_and_no_name_leads_out_of_the_package(client: FlaskClient) -> None:
    ids = ["../../x", "5", "5", "C:\\x", "é" * 70, " "]
    for package in ("zip", "tar"):
        found = files_of(ask(client, candid=ids, package=package))
        assert len(found) == len(ids)
        assert list(found)[:3] == [
            "______x_Science.error.json",
            "5_Science.error.json",
            "5_Science-2.error.json",
        ]
        assert all("/" not in name and "\\" not in name and len(name) < 100 for name in found)
        assert json.loads(found["5_Science.error.json"])["code"] == "alert_not_found"


def test_an_id_that_is_asked_twice_is_answered_twice(
    client: FlaskClient, archive: SampleArchive
) -> None:
    one, other = candids(archive, SECOND)[:2]
    found = files_of(ask(client, candid=[one, other, one, one], package="zip"))
    assert list(found) == [
        f"{one}_Science.fits",
        f"{other}_Science.fits",
        f"{one}_Science-2.fits",
        f"{one}_Science-3.fits",
    ]
    assert len(set(found.values())) == 2


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the folder of real alerts is not here")
def test_real_alerts_are_those_of_single_requests(client: FlaskClient) -> None:
    for file, key, column in (
        ("ztf_spark_1.10", "candid", "candidate"),
        ("ztf_pyarrow_dict", "candid", "candidate"),
        ("lsst_spark_1.12_offsetindex", "diaSourceId", "diaSource"),
    ):
        path = f"real/{file}.parquet"
        rows = pq.read_table(REAL_DATA / f"{file}.parquet", columns=[column])[0].to_pylist()
        ids = [row[key] for row in rows]
        random.Random(2).shuffle(ids)
        found = files_of(ask(client, **{key: ids}, hdfsPath=path, package="tar"))
        for id_, content in zip(ids[:15], found.values(), strict=False):
            asked = {key: str(id_), "kind": "Science", "output-format": "FITS", "hdfsPath": path}
            assert content == client.get(SINGLE, query_string=asked).data
        assert len(found) == len(ids)


# --- packages


def test_columns_of_arrow_and_parquet(client: FlaskClient, archive: SampleArchive) -> None:
    ids = [*candids(archive, FIRST), "5", peculiar_candid("narrow"), "x"]
    stream = ask(client, candid=ids, kind="All", package="arrow")
    table = pa.ipc.open_stream(io.BytesIO(stream.data)).read_all()
    assert table.equals(
        pq.read_table(io.BytesIO(ask(client, candid=ids, kind="All", package="parquet").data))
    )
    assert table["id"].to_pylist() == ids
    assert table["candid"].to_pylist() == [*map(int, ids[:12]), None, int(ids[13]), None]
    assert table["status"].to_pylist() == [200] * 12 + [404, 200, 400]
    assert table["code"].to_pylist()[-3:] == ["alert_not_found", None, "invalid_parameter"]
    for row, images in zip(
        archive.rows[FIRST], table["cutoutDifference"].to_pylist(), strict=False
    ):
        expected = image_of(stored_fits(row, "Difference"))
        np.testing.assert_array_equal(np.array(images, np.float32), expected)
    assert np.shape(table["cutoutScience"][13].as_py()) == (63, 62)
    stream = ask(client, candid=ids, package="arrow", **{"output-format": "FITS"})
    table = pa.ipc.open_stream(io.BytesIO(stream.data)).read_all()
    assert table["file"][0].as_py() == stored_fits(archive.rows[FIRST][0], "Science")
    assert table.schema.metadata[b"kind"] == b"Science"


def tensor(response: TestResponse) -> dict[str, np.ndarray]:
    assert response.status_code == 200, response.text[:500]
    with np.load(io.BytesIO(response.data)) as package:
        return dict(package)


def test_a_tensor_for_classifiers(client: FlaskClient, archive: SampleArchive) -> None:
    ids = [*candids(archive, FIRST), "5", peculiar_candid("narrow"), peculiar_candid("null field")]
    found = tensor(ask(client, candid=ids, kind="All", package="npz"))
    assert found["stamps"].shape == (15, 63, 63, 3)
    assert (found["stamps"].dtype, found["ids"].dtype) == (np.dtype("f4"), np.dtype("i8"))
    assert found["kinds"].tolist() == list(KINDS)
    assert found["ids"].tolist() == [*map(int, ids[:12]), -1, int(ids[13]), -1]
    assert found["status"].tolist() == [200] * 12 + [404, 200, 404]
    assert found["errors"].tolist()[12:] == ["alert_not_found", "", "stamp_missing"]
    for row, image in zip(archive.rows[FIRST], found["stamps"], strict=False):
        for place, kind in enumerate(KINDS):
            np.testing.assert_array_equal(image[:, :, place], image_of(stored_fits(row, kind)))
    assert np.isnan(found["stamps"][[12, 14]]).all()
    assert np.isnan(found["stamps"][13, :, 62]).all()
    assert np.isfinite(found["stamps"][13, :, :62]).all()


def test_stamps_of_other_sizes_are_centred_and_padded_or_cut(client: FlaskClient) -> None:
    ids = [lsst_alert(n)["diaSourceId"] for n in (0, 7)]  # 30 x 30 and 45 x 46
    images = [image_of(lsst_alert(0)["cutoutScience"])]
    images.append(image_of(lsst_alert(7, 1, shape=(45, 46))["cutoutScience"]))
    for side in (63, 31, 1):
        stamps = tensor(ask(client, diaSourceId=ids, package="npz", side=side))["stamps"]
        assert stamps.shape == (2, side, side, 1)
        for image, stamp in zip(images, stamps[..., 0], strict=True):
            ny, nx = image.shape
            assert stamp[side // 2, side // 2] == image[ny // 2, nx // 2]
            inside = min(ny, side) * min(nx, side)
            assert np.isfinite(stamp).sum() == inside


def test_normalised_stamps(client: FlaskClient, archive: SampleArchive) -> None:
    ids = candids(archive, FIRST)  # the alert at place 2 has masked columns
    plain = tensor(ask(client, candid=ids, package="npz"))["stamps"].astype(float)
    expected: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "minmax": lambda x: (x - np.nanmin(x)) / (np.nanmax(x) - np.nanmin(x)),
        "zscore": lambda x: (x - np.nanmean(x)) / np.nanstd(x),
        "l2": lambda x: x / np.sqrt(np.nansum(x**2)),
        "none": lambda x: x,
    }
    for name, function in expected.items():
        found = tensor(ask(client, candid=ids, package="npz", normalise=name))["stamps"]
        for stamp, image in zip(found, plain, strict=True):
            np.testing.assert_allclose(stamp, function(image), rtol=1e-5, atol=1e-6)


# --- what cannot be answered at all

BAD_BATCHES: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({}, 400, "missing_parameter", "objectId"),
    ({"candid": []}, 400, "missing_parameter", "candid"),
    ({"candid": " , "}, 400, "missing_parameter", "candid"),
    ({"candid": {"a": 1}}, 400, "invalid_parameter", "candid"),
    ({"candid": True}, 400, "invalid_parameter", "candid"),
    ({"candid": 1.5}, 400, "invalid_parameter", "candid"),
    ({"candid": ["1"] * 31}, 413, "batch_too_large", "candid"),
    ({"candid": ["1"], "diaSourceId": ["1"]}, 400, "conflicting_parameters", "diaSourceId"),
    ({"candid": ["1"], "objectId": ["ZTF24aaaaaaa"]}, 400, "conflicting_parameters", "candid"),
    ({"candid": ["1"], "kind": None}, 400, "missing_parameter", "kind"),
    ({"candid": ["1"], "kind": "Sciense"}, 400, "invalid_parameter", "kind"),
    ({"candid": ["1"], "colourmap": "red"}, 400, "unknown_parameter", "colourmap"),
    ({"candid": ["1"], "epochs": "all"}, 400, "unknown_parameter", "epochs"),
    ({"candid": ["1"], "explain": 1}, 400, "unknown_parameter", "explain"),
    ({"candid": ["1"], "which": "first"}, 400, "conflicting_parameters", "which"),
    ({"candid": ["1"], "package": "rar"}, 400, "invalid_parameter", "package"),
    ({"candid": ["1"], "package": "zip", "output-format": "array"}, 400, "invalid_parameter", None),
    ({"candid": ["1"], "package": "npz", "output-format": "PNG"}, 400, "invalid_parameter", None),
    ({"candid": ["1"], "package": "zip", "side": 63}, 400, "conflicting_parameters", "side"),
    ({"candid": ["1"], "package": "npz", "side": 0}, 400, "invalid_parameter", "side"),
    ({"candid": ["1"], "package": "npz", "side": 10**9}, 400, "invalid_parameter", "side"),
    ({"candid": ["1"], "normalise": "l2"}, 400, "conflicting_parameters", "normalise"),
    ({"candid": ["1"], "ids": "candid"}, 400, "conflicting_parameters", "ids"),
    ({"candid": ["1"], "plane": "psf"}, 400, "conflicting_parameters", "plane"),
    ({"candid": ["1"], "kind": ["All"]}, 400, "invalid_parameter", "kind"),
    ({"candid": ["1"], "hdfsPath": "../x"}, 403, "path_forbidden", "hdfsPath"),
    ({"candid": ["1"], "hdfsPath": "nowhere"}, 404, "file_not_found", None),
]


@pytest.mark.parametrize(("body", "status", "code", "parameter"), BAD_BATCHES, ids=str)
def test_what_is_wrong_with_the_whole_request_is_an_error_of_its_own(
    local_settings: Settings, body: dict[str, Any], status: int, code: str, parameter: str | None
) -> None:
    app = create_app(replace(local_settings, limits=Limits(batch_items=30, batches=1)))
    for _ in range(2):  # an error gives the place back
        response = app.test_client().post(ROUTE, json={"kind": "Science"} | body)
        assert (response.status_code, response.json["code"]) == (status, code), response.text
        assert response.mimetype == "application/problem+json"
        assert parameter in (None, response.json.get("parameter"))
    app.extensions["cutout_reader"].close()


def test_a_body_may_be_as_large_as_a_batch_needs_and_no_larger(
    client: FlaskClient, local_settings: Settings
) -> None:
    ids = ["5"] * 50_000  # beyond limits.body_bytes
    response = client.post(ROUTE, json={"candid": ids, "kind": "Science", "dry_run": 1})
    assert response.json["unknown"] == 50_000
    small = create_app(replace(local_settings, limits=Limits(batch_bytes=1000))).test_client()
    for body in (
        {"json": {"candid": ids[:500], "kind": "Science"}},
        {"data": "candid\n" + "5\n" * 900, "content_type": "text/csv"},
        {"data": {"file": (io.BytesIO(b"candid\n" + b"5\n" * 900), "x")}},
    ):
        response = small.post(f"{ROUTE}?kind=Science", **body)
        assert (response.status_code, response.json["code"]) == (413, "body_too_large")


# --- files of ids


def test_ids_come_as_a_file_too(client: FlaskClient, archive: SampleArchive) -> None:
    ids = candids(archive, SECOND)
    expected = ask(client, candid=ids, package="tar").data
    plain, named = "\n".join(ids), "\ufeffcandid\r\n" + "\r\n".join(ids) + "\r\n\r\n"
    table = "n,candid,x\n" + "\n".join(f'{n},"{id_}",' for n, id_ in enumerate(ids))
    address = f"{ROUTE}?kind=Science&package=tar"
    for content, more in ((plain, "&ids=candid"), (named, ""), (table, ""), (table, "&ids=candid")):
        for media_type in ("text/plain", "text/csv; charset=utf-8"):
            sent = client.post(address + more, data=content.encode(), content_type=media_type)
            assert sent.data == expected
        form = {"file": (io.BytesIO(content.encode()), "ids.csv"), "kind": "Science"}
        sent = client.post(f"{ROUTE}?package=tar{more}", data=form)
        assert sent.data == expected


@pytest.mark.parametrize(
    ("content", "more", "code"),
    [
        (b"", "&ids=candid", "missing_parameter"),
        (b"", "", "missing_parameter"),
        (b"\n \n", "&ids=candid", "missing_parameter"),
        (b"candid\n", "", "missing_parameter"),
        (b"1\n2\n", "", "missing_parameter"),
        (b"\xff\xfe1", "&ids=candid", "malformed_body"),
        (b'candid\n"' + b"1" * 200_000, "", "malformed_body"),
        (b"1", "&ids=name", "invalid_parameter"),
        (b"1", "&ids=candid&candid=1", "conflicting_parameters"),
    ],
)
def test_files_that_hold_no_ids(client: FlaskClient, content: bytes, more: str, code: str) -> None:
    response = client.post(f"{ROUTE}?kind=Science{more}", data=content, content_type="text/plain")
    assert (response.status_code, response.json["code"]) == (400, code)


def test_a_form_holds_one_file(client: FlaskClient) -> None:
    for parts in (
        {"other": (io.BytesIO(b"1"), "x")},
        {"file": [(io.BytesIO(b"1"), "x"), (io.BytesIO(b"1"), "y")]},
    ):
        response = client.post(f"{ROUTE}?kind=Science&ids=candid", data=parts)
        assert (response.status_code, response.json["code"]) == (400, "malformed_body")
    response = client.post(ROUTE, data="<ids/>", content_type="application/xml")
    assert (response.status_code, response.json["code"]) == (415, "unsupported_media_type")


def test_the_route_describes_itself(client: FlaskClient) -> None:
    names = [entry["name"] for entry in client.get(ROUTE).json["args"]]
    assert {"candid", "package", "kind", "dry_run", "normalise"} <= set(names)
    assert not {"epochs", "explain"} & set(names)
    assert client.get(f"{ROUTE}?candid=1").status_code == 400


# --- how it is read


def test_each_page_is_read_once(
    client: FlaskClient, archive: SampleArchive, reads: list[tuple[str, int, int]]
) -> None:
    ids = candids(archive, FIRST, SECOND, LATER)
    random.Random(3).shuffle(ids)
    ask(client, candid=ids, package="tar")  # files are open, pages known
    reads.clear()
    found = files_of(ask(client, candid=ids * 2, package="tar"))
    assert len(found) == 2 * len(ids)
    assert max(Counter(reads).values()) == 1
    # Row groups of 4 rows, a page each; the last file has a dictionary besides.
    assert len(reads) == 3 + 1 + 2 * 2


def test_a_dry_run_says_what_is_read_and_reads_no_stamp(
    client: FlaskClient, archive: SampleArchive, reads: list[tuple[str, int, int]]
) -> None:
    ids = [*candids(archive, FIRST, SECOND), "5", "x", "5"]
    ask(client, candid=ids, kind="All")
    reads.clear()
    plan = ask(client, candid=ids, kind="All", dry_run=1).json
    assert not reads
    assert (plan["ids"], plan["known"], plan["unknown"], plan["files"]) == (19, 16, 3, 2)
    assert plan["errors"] == {"alert_not_found": 2, "invalid_parameter": 1}
    assert (plan["stamps"], plan["pages"], plan["blocks"]) == (48, 12, 0)
    ask(client, candid=ids, kind="All")
    assert len(reads) == plan["reads"]
    assert sum(length for _, _, length in reads) == plan["bytes"]
    assert 0 < plan["stamp_bytes"] <= plan["bytes"]


def test_where_blocks_are_known_near_ones_are_read_together(
    tmp_path: Path, reads: list[tuple[str, int, int]]
) -> None:
    rows = [lsst_alert(n) for n in range(60)]
    write(tmp_path / "a.parquet", rows, LSST_SCHEMA, row_group_size=60)
    app = create_app(Settings(archive=Archive(uri=str(tmp_path))))
    reader = app.extensions["cutout_reader"]
    (file_id,) = reader.archive.locate("a.parquet")
    reader.learn(file_id, blocks=True)
    client = app.test_client()
    ids = [row["diaSourceId"] for row in rows]
    asked = {"hdfsPath": "a.parquet", "package": "tar"}
    for chosen in (ids, ids[::-1], ids[10:13], [ids[0], ids[59]], ids[5:6]):
        reads.clear()
        found = files_of(ask(client, diaSourceId=chosen, **asked))
        assert list(found.values()) == [
            stored_fits(rows[ids.index(id_)], "Science") for id_ in chosen
        ]
        assert len(reads) <= 2
        taken = list(reads)
        plan = ask(client, diaSourceId=chosen, hdfsPath="a.parquet", dry_run=1).json
        assert (plan["reads"], plan["pages"]) == (len(taken), 0)
        assert plan["bytes"] == sum(length for _, _, length in taken)
        assert plan["blocks"] > 0
    reader.close()


def test_a_damaged_page_costs_its_own_alerts_only(
    client: FlaskClient, archive: SampleArchive, reads: list[tuple[str, int, int]]
) -> None:
    path = "damaged/bad_page.parquet"
    ids = candids(archive, FIRST)
    found = lines(ask(client, candid=ids, hdfsPath=path))
    asked = {"kind": "Science", "hdfsPath": path, "output-format": "array"}
    singles = [client.post(SINGLE, json={"candid": id_, **asked}) for id_ in ids]
    assert [line["status"] for line in found] == [single.status_code for single in singles]
    assert {line["status"] for line in found} == {200, 502}
    for line, single in zip(found, singles, strict=True):
        assert line.get("error") == (None if single.status_code == 200 else single.json)
    reads.clear()
    ask(client, candid=ids, hdfsPath=path)
    assert len(reads) < len(ids)


@pytest.mark.parametrize("package", ["ndjson", "tar", "arrow", "npz"])
def test_ids_are_counted_by_what_they_are_answered(tmp_path: Path, package: str) -> None:
    image_alone = io.BytesIO()
    fits.PrimaryHDU(np.eye(30, dtype=np.float32)).writeto(image_alone)
    rows = [lsst_alert(0), lsst_alert(1, Science=image_alone.getvalue())]
    write(tmp_path / "a.parquet", rows, LSST_SCHEMA)
    client = create_app(Settings(archive=Archive(uri=str(tmp_path)))).test_client()

    def counted() -> list[float]:
        return [metrics.ITEMS.labels(status)._value.get() for status in ("200", "404")]

    before = counted()
    ids = [str(lsst_alert(n)["diaSourceId"]) for n in range(3)]
    form = "PNG" if package == "tar" else "array"
    asked = {"hdfsPath": "a.parquet", "plane": "variance", "output-format": form}
    assert ask(client, diaSourceId=ids, package=package, **asked).status_code == 200
    assert [after - first for after, first in zip(counted(), before, strict=True)] == [1, 2]


def test_an_alert_whose_file_is_gone_is_read_from_its_copy(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(8)]
    write(tmp_path / "a/one.parquet", rows[:4])
    write(tmp_path / "a/two.parquet", rows)
    settings = catalogued(Settings(archive=Archive(uri=str(tmp_path))))
    client = create_app(settings).test_client()
    (tmp_path / "a/two.parquet").unlink()
    found = lines(ask(client, candid=[str(row["candid"]) for row in rows]))
    assert [line["status"] for line in found] == [200] * 4 + [404] * 4
    assert found[5]["error"]["code"] == "alert_not_found"
    assert "which is gone" in found[5]["error"]["detail"]
    shutil.copy(tmp_path / "a/one.parquet", tmp_path / "a/two.parquet")
    found = lines(ask(client, candid=[str(row["candid"]) for row in rows]))
    assert [line["status"] for line in found] == [200] * 4 + [404] * 4


def test_a_copy_waits_longer_for_its_turn_than_a_request_does(tmp_path: Path) -> None:
    rows = [ztf_alert(n) for n in range(40)]
    write(tmp_path / "a/one.parquet", rows)
    write(tmp_path / "a/two.parquet", rows)
    limits = Limits(concurrent_reads=1, queue_seconds=2)
    app = create_app(catalogued(Settings(archive=Archive(uri=str(tmp_path)), limits=limits)))
    (tmp_path / "a/two.parquet").unlink()
    body = {"candid": [str(row["candid"]) for row in rows], "kind": "Science"}
    response = app.test_client().post(ROUTE, json=body, buffered=False)
    places = app.extensions["cutout_reader"]._slots
    assert places.acquire(timeout=20)  # somebody else reads
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lines, response)
        try:
            wait([found], timeout=2.5)
        finally:
            places.release()
        assert [line["status"] for line in found.result()] == [200] * 40


def test_a_file_replaced_between_two_windows_is_read_as_it_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "FIRST_WINDOW", 2)
    monkeypatch.setattr(batch_module, "GROWTH", 1)
    rows = [ztf_alert(n) for n in range(6)]
    file = write(tmp_path / "a.parquet", rows)
    client = create_app(Settings(archive=Archive(uri=str(tmp_path)))).test_client()
    ids = [str(row["candid"]) for row in rows]
    body = {"candid": ids, "kind": "Science", "hdfsPath": "a.parquet"}
    response = client.post(ROUTE, json=body, buffered=False)
    write(
        file,
        [ztf_alert(n, Science=ztf_alert(n + 50)["cutoutScience"]["stampData"]) for n in range(6)][
            ::-1
        ],
    )
    found = lines(response)
    assert [line["status"] for line in found] == [200] * 6
    images = [line["cutouts"]["b:cutoutScience_stampData"] for line in found]
    for number in (0, 1):
        expected = image_of(stored_fits(rows[number], "Science"))
        np.testing.assert_array_equal(np.array(images[number], np.float32), expected)
    # Those between may have been on their way when the file was replaced.
    for number in (4, 5):
        expected = image_of(stored_fits(ztf_alert(number + 50), "Science"))
        np.testing.assert_array_equal(np.array(images[number], np.float32), expected)


# --- how much it holds at a time


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What reference counts do not free stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("lost", [False, True])
def test_no_more_stamps_are_at_hand_than_a_window_may_hold(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ztf_alert(n) for n in range(40)]
    write(tmp_path / "a.parquet", rows[:30], ZTF_SCHEMA, row_group_size=40)
    write(tmp_path / "b.parquet", rows[30:], ZTF_SCHEMA, row_group_size=40)
    size = len(rows[0]["cutoutScience"]["stampData"])
    limits = Limits(batch_memory=65_536)
    settings = Settings(archive=Archive(uri=str(tmp_path)), limits=limits)
    app = create_app(catalogued(settings))
    if lost:  # its error keeps alive what it came through
        (tmp_path / "b.parquet").unlink()
    ids = [str(rows[n % 40]["candid"]) for n in range(200)]
    most = 0
    plain = batch_module.Batch._finish
    earlier = [it for it in gc.get_objects() if type(it) is batch_module._Read]

    def watched(self: Any, read: Any) -> Any:
        nonlocal most
        if read.number % 5:  # every object there is takes a while to look at
            return plain(self, read)
        alive = [it for it in gc.get_objects() if type(it) is batch_module._Read]
        alive = [it for it in alive if not any(it is other for other in earlier)]
        distinct = {id(cell): len(cell) for it in alive for cell in it.cells.values()}
        most = max(most, sum(distinct.values()))
        return plain(self, read)

    monkeypatch.setattr(batch_module.Batch, "_finish", watched)
    response = app.test_client().post(ROUTE, json={"candid": ids, "kind": "Science"})
    assert Counter(line["status"] for line in lines(response)) == (
        {200: 150, 404: 50} if lost else {200: 200}
    )
    assert size < most <= 65_536 * batch_module.OVERRUN


MEMORY = """
import re, sys
from pathlib import Path
from cutout_api.settings import Archive, Limits, Settings
from cutout_api.web import create_app

folder, count, package = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = create_app(Settings(archive=Archive(uri=folder))).test_client()
ids = [str(2_656_254_792_815_010_000 + n % 300) for n in range(count)]
body = {"candid": ids, "kind": "Science", "hdfsPath": "a.parquet", "package": package}
response = client.post("/api/v1/cutouts/batch", json=body, buffered=False)
assert response.status_code == 200
sent = sum(len(part) for part in response.iter_encoded())
# Of this process alone: what getrusage tells begins with its parent's.
most = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(sent, int(most[1]) * 1024)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("package", ["tar", "zip", "npz"])
def test_memory_stays_flat_however_long_the_list_is(tmp_path: Path, package: str) -> None:
    rows = [ztf_alert(n, shape=(9, 9)) for n in range(300)]
    write(tmp_path / "a.parquet", rows, ZTF_SCHEMA, row_group_size=300)

    def measure(count: int) -> tuple[int, int]:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path), str(count), package],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        sent, memory = map(int, done.stdout.split())
        return sent, memory

    (few_sent, few), (many_sent, many) = measure(2_000), measure(30_000)
    assert many_sent > 14 * few_sent > 0
    # Of each id its text, and in a zip its line in the table of contents.
    assert many - few < 30_000 * 1_500 < many_sent


def test_a_window_that_is_given_up_reads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[tuple[str, int, int]]
) -> None:
    rows = [ztf_alert(n) for n in range(40)]
    write(tmp_path / "a.parquet", rows, row_group_size=1, write_page_index=True)
    limits = Limits(deadline_seconds=1, concurrent_reads=8)
    app = create_app(Settings(archive=Archive(uri=str(tmp_path)), limits=limits))
    client, ids = app.test_client(), [str(row["candid"]) for row in rows]
    assert ask(client, candid=ids[:1], hdfsPath="a.parquet").status_code == 200
    goes_on, noted = threading.Event(), OpenFile.read_at

    def hang(self: OpenFile, length: int, offset: int) -> bytes:
        goes_on.wait(60)
        return noted(self, length, offset)

    monkeypatch.setattr(OpenFile, "read_at", hang)
    reads.clear()
    assert ask(client, candid=ids, hdfsPath="a.parquet").status_code == 504
    goes_on.set()
    places = app.extensions["cutout_reader"]._slots
    for _ in range(limits.concurrent_reads):  # each window has ended
        assert places.acquire(timeout=30)
    assert len(reads) <= batch_module.SLOWEST
    app.extensions["cutout_reader"].close()


# --- clients that go, and others that wait


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, list[str]]:
    rows = [ztf_alert(n) for n in range(400)]
    write(tmp_path / "a.parquet", rows, ZTF_SCHEMA, row_group_size=20)
    return tmp_path, [str(row["candid"]) for row in rows]


def metric(port: int, name: str) -> float:
    import requests

    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    values = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name}")]
    return sum(map(float, values))


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_that_takes_no_more_stops_the_work(
    large: tuple[Path, list[str]], leaves: bool
) -> None:
    import requests

    folder, ids = large
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_LIMITS_BATCH_MEMORY": "1000000",
        "CUTOUT_API_LIMITS_BATCHES": "1",
        "CUTOUT_API_LIMITS_QUEUE_SECONDS": "0",
        # One that stays and takes nothing is given up after this; one that leaves, at once.
        "CUTOUT_API_LIMITS_CLIENT_SECONDS": "60" if leaves else "5",
    }
    body = {"candid": ids * 50, "kind": "Science", "hdfsPath": "a.parquet"}
    content = json.dumps(body).encode()
    head = (
        f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with running_service(environment) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            connection.sendall(head.encode() + content)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            # A small one, which is looked through at once.
            again = body | {"candid": ids[:3]}
            busy = requests.post(f"{service.address}{ROUTE}", json=again, timeout=20)
            assert (busy.status_code, busy.json()["code"]) == (503, "saturated")
            assert busy.headers["Retry-After"] == "1"
            # Others are answered meanwhile.
            asked = {"candid": ids[0], "kind": "Science", "hdfsPath": "a.parquet"}
            assert requests.get(f"{service.address}{SINGLE}", asked, timeout=20).ok
            if not leaves:
                wait_until_free(service, again)
        wait_until_free(service, again)
        before = metric(service.port, "cutout_storage_reads_total")
        time.sleep(1)
        assert metric(service.port, "cutout_storage_reads_total") == before
        assert metric(service.port, "cutout_batch_items_total") < len(body["candid"]) / 2


def wait_until_free(service: Service, body: dict[str, Any]) -> None:
    """Wait until there is a place for another batch."""
    import requests

    end = time.monotonic() + 60
    while not requests.post(f"{service.address}{ROUTE}", json=body, timeout=20).ok:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_archive_that_fails_in_the_middle_breaks_the_answer_off(
    large: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ids = large
    monkeypatch.setattr(batch_module, "GROWTH", 1)
    app = create_app(Settings(archive=Archive(uri=str(folder)), limits=Limits(batches=1)))
    body = {"candid": ids, "kind": "Science", "hdfsPath": "a.parquet", "package": "zip"}
    response = app.test_client().post(ROUTE, json=body, buffered=False)
    parts = response.iter_encoded()
    next(parts)
    folder.joinpath("a.parquet").write_bytes(b"gone")
    monkeypatch.setattr(OpenFile, "read_at", unreachable)
    from cutout_api.errors import CutoutError

    with pytest.raises(CutoutError):
        for _ in parts:
            pass
    response.close()
    monkeypatch.undo()
    assert app.test_client().post(ROUTE, json=body).status_code != 503


def unreachable(*_arguments: Any) -> bytes:
    from cutout_api.errors import StorageUnavailable

    raise StorageUnavailable("the archive does not answer")


def test_threads_share_the_places_for_batches(large: tuple[Path, list[str]]) -> None:
    folder, ids = large
    settings = Settings(
        server=Server(threads=9),  # of which a batch, or one that waits, may have four
        archive=Archive(uri=str(folder)),
        limits=Limits(batches=2, queue_seconds=60),
    )
    app = create_app(settings)
    body = {"candid": ids, "kind": "Science", "hdfsPath": "a.parquet", "package": "tar"}
    found: list[bytes] = []

    def work() -> None:
        found.append(app.test_client().post(ROUTE, json=body).data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4


# --- work that nobody waits for


@pytest.fixture
def nights(tmp_path: Path) -> tuple[Settings, list[str]]:
    """Return an archive of twenty files in a folder, with an object of its own in each."""
    names = [f"ZTF24aaaaa{first}{second}" for first in "ab" for second in "abcdefghij"]
    for number, name in enumerate(names):
        rows = [ztf_alert(10 * number + n, name) for n in range(3)]
        write(tmp_path / f"many/{number:02}.parquet", rows, ZTF_SCHEMA)
    return Settings(archive=Archive(uri=str(tmp_path))), names


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each file whose index is looked at."""
    paths: list[str] = []
    plain = Reader.index_of

    def noting(self: Reader, file: OpenFile) -> Any:
        paths.append(file.id.path)
        return plain(self, file)

    monkeypatch.setattr(Reader, "index_of", noting)
    return paths


def test_a_folder_is_looked_through_once_for_all_ids(
    nights: tuple[Settings, list[str]], looked_at: list[str]
) -> None:
    settings, names = nights
    client = create_app(settings).test_client()
    found = ask(client, objectId=names[:1] * 20_000, hdfsPath="many", dry_run=1).json
    assert (found["known"], found["files"], found["bytes"] > 0) == (20_000, 1, True)
    assert len(looked_at) < 20 + 10  # once each, and of the one file, once in each window
    looked_at.clear()
    answer = lines(ask(client, objectId=[*names, *names[::-1], "ZTF99zzzzzzz"], hdfsPath="many"))
    assert [line["candid"] for line in answer[:20]] == [
        str(ztf_alert(10 * number + 2)["candid"]) for number in range(20)
    ]
    assert [line["candid"] for line in answer[20:40]] == [line["candid"] for line in answer[19::-1]]
    assert answer[40]["error"]["code"] == "alert_not_found"
    assert len(looked_at) == 20 + 20


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_batch_that_has_sent_nothing_ends_with_its_client(
    nights: tuple[Settings, list[str]],
    looked_at: list[str],
    monkeypatch: pytest.MonkeyPatch,
    dry_run: bool,
) -> None:
    settings, names = nights
    monkeypatch.setattr(batch_module, "SHARE_OF_DEADLINE", 0.0)  # one file at a time
    reader = Reader(settings)
    payload = {"objectId": names, "kind": "Science", "hdfsPath": "many", "dry_run": dry_run}
    asked = parse_batch_request(payload, None, 100)
    before = has_left.set(lambda: len(looked_at) >= 3)
    with pytest.raises(ClientLeft):
        Batches(reader, Limits()).open(asked)
    has_left.reset(before)
    assert len(looked_at) == 3
    with pytest.raises(DeadlineExceeded):
        Batches(reader, Limits(batch_seconds=0.0)).open(asked)
    assert len(looked_at) == 3
    reader.close()


def test_a_plan_ends_when_its_client_hangs_up(nights: tuple[Settings, list[str]]) -> None:
    import requests

    settings, names = nights
    folder = Path(settings.archive.uri)
    for number in range(20, 1200):  # more than are looked through in a moment
        shutil.copy(folder / "many/00.parquet", folder / f"many/{number}.parquet")
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(folder),
        "CUTOUT_API_SERVER_WORKERS": "1",
        "CUTOUT_API_LIMITS_INDEX_BYTES": "1",  # each look is a new one
        "CUTOUT_API_LIMITS_DEADLINE_SECONDS": "2.5",
        "CUTOUT_API_LIMITS_BATCHES": "1",
    }
    body = {"objectId": names, "kind": "Science", "hdfsPath": "many", "dry_run": 1}
    with running_service(environment) as service:
        with pytest.raises(requests.Timeout):
            requests.post(f"{service.address}{ROUTE}", json=body, timeout=0.3)
        again = {"candid": ["5"], "kind": "Science", "hdfsPath": "many/00.parquet", "dry_run": 1}
        wait_until_free(service, again)
        assert f"POST {ROUTE} 499" in service.log


# --- what is held at a time


@pytest.mark.parametrize("package", ["arrow", "parquet"])
@pytest.mark.parametrize(("form", "rows"), [("array", 3), ("FITS", 2)])
def test_large_stamps_make_more_and_smaller_parts_of_the_same_rows(
    archive: SampleArchive, monkeypatch: pytest.MonkeyPatch, package: str, form: str, rows: int
) -> None:
    client = create_app(Settings(archive=Archive(uri=str(archive.folder)))).test_client()
    ids = candids(archive, FIRST)
    body = {"candid": ids, "hdfsPath": FIRST, "package": package, "output-format": form}
    whole = ask(client, **body).data
    monkeypatch.setattr("cutout_api.batch_formats.BYTES_AT_ONCE", 40_000)
    parted = ask(client, **body).data
    if package == "arrow":
        one, many = (pa.ipc.open_stream(content) for content in (whole, parted))
        assert (sum(1 for _ in one), sum(1 for _ in many)) == (1, len(ids) // rows)
        one, many = (pa.ipc.open_stream(content) for content in (whole, parted))
        assert one.read_all().equals(many.read_all())
    else:
        one, many = (pq.ParquetFile(io.BytesIO(content)) for content in (whole, parted))
        assert (one.num_row_groups, many.num_row_groups) == (1, len(ids) // rows)
        assert one.read().equals(many.read())
