"""Pictures by HTTP: every option on every odd stamp, and what they refuse."""

from __future__ import annotations

import io
import itertools
import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cutout_api.presets import PRESETS
from cutout_api.render import Rendering, render
from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..pictures import (
    DEC,
    LSST_MATRIX,
    LSST_ODD,
    OFF_CENTRE,
    RA,
    TURNED,
    ZTF_ODD,
    candid,
    make_pictures,
    source,
    star,
)
from ..samples import KINDS, REAL_DATA

ROUTE = "/api/v1/cutouts"
Payload = dict[str, Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    folder = make_pictures(tmp_path_factory.mktemp("pictures"))
    app = create_app(Settings(archive=Archive(uri=f"file://{folder}")))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def ztf(what: str = "ordinary", **payload: Any) -> Payload:
    return {"hdfsPath": "ztf.parquet", "candid": candid(what), "kind": "Science", **_wire(payload)}


def lsst(what: str = "ordinary", **payload: Any) -> Payload:
    asked = {"hdfsPath": "lsst.parquet", "diaSourceId": source(what), "kind": "Science"}
    return {**asked, **_wire(payload)}


def _wire(payload: Payload) -> Payload:
    """Name the format as the wire does; PNG where none is given."""
    return {"output-format": payload.pop("format", "PNG"), **payload}


def ask(client: FlaskClient, payload: Payload) -> TestResponse:
    return client.post(ROUTE, json=payload)


def measure(client: FlaskClient, payload: Payload) -> TestResponse:
    return client.get(f"{ROUTE}/info", query_string=payload)


def picture(response: TestResponse) -> Image.Image:
    assert response.status_code == 200, response.text
    image = Image.open(io.BytesIO(response.data))
    image.load()
    return image


def pixels(response: TestResponse) -> np.ndarray:
    return np.array(picture(response))


LOOKS: list[Payload] = [
    *({"preset": name} for name in PRESETS),
    {"interval": "percentile", "pmin": 1},
    {"interval": "minmax", "stretch": "log"},
    {"interval": "zscale", "stretch": "asinh", "a": 0.05},
    {"vmin": 100, "vmax": 300},
    {"vmin": 100},
    {"vmax": 1e300},
    {"stretch": "asinh", "a": 1e-6},
    {"invert": 1, "colormap": "viridis"},
    {"size": 7, "resample": "lanczos"},
    {"size": 200, "resample": "bicubic"},
    {"zoom": 0.001},
    {"labels": "all"},
    {"labels": "all", "size": 10},
    {"labels": "none", "zoom": 2},
    {"convolution_kernel": "gauss", "zoom": 2},
]
NORTH: list[Payload] = [
    {"orient": "north"},
    {"orient": "north", "resample": "nearest", "zoom": 3, "labels": "all"},
]


@pytest.mark.parametrize("look", [*LOOKS, *NORTH], ids=str)
@pytest.mark.parametrize("what", ZTF_ODD)
def test_every_look_draws_every_odd_stamp(pictures: FlaskClient, what: str, look: Payload) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture(ask(pictures, ztf(what, **look)))


@pytest.mark.parametrize("look", [*LOOKS, {"plane": "snr"}, {"plane": "psf"}], ids=str)
@pytest.mark.parametrize("what", [what for what in LSST_ODD if what != "no planes"])
def test_every_look_draws_stamps_with_bad_headers(
    pictures: FlaskClient, what: str, look: Payload
) -> None:
    picture(ask(pictures, lsst(what, **look)))


@pytest.mark.parametrize("choice", [{"which": "brightest"}, {"band": "g"}, {"date": 60412.0}])
def test_the_request_that_gives_it_again_leaves_nothing_to_choose(
    pictures: FlaskClient, choice: dict[str, Any]
) -> None:
    payload = ztf(format="PNG", **choice)
    del payload["candid"]
    answer = ask(pictures, {**payload, "objectId": "ZTF24aaaaaaa"})
    assert answer.status_code == 200
    again = pictures.get(_recipe(picture(answer))["request"])
    np.testing.assert_array_equal(pixels(again), pixels(answer))
    assert again.headers["X-Cutout-Id"] == answer.headers["X-Cutout-Id"]


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "GIF"])
@pytest.mark.parametrize("colormap", [None, "viridis"])
@pytest.mark.parametrize("kind", ["Science", "All"])
def test_each_format_of_pictures_opens(
    pictures: FlaskClient, name: str, colormap: str | None, kind: str
) -> None:
    for labels in (None, "all"):
        answer = ask(pictures, ztf(format=name, colormap=colormap, kind=kind, labels=labels))
        image = picture(answer)
        assert answer.mimetype == f"image/{name.lower()}"
        assert image.format == name.upper()
        expected = pixels(ask(pictures, ztf(colormap=colormap, kind=kind, labels=labels)))
        found = np.array(image.convert("RGB")).astype(int)
        expected = np.array(Image.fromarray(expected).convert("RGB")).astype(int)
        # JPEG loses a little, a GIF with labels has 256 colours, WebP and gray GIF lose nothing.
        exact = name in ("PNG", "WebP")
        assert abs(found - expected).mean() <= (0 if exact else 6)


def test_numpy_answers_hold_the_stored_pixels(pictures: FlaskClient) -> None:
    def load(**payload: Any) -> Any:
        return np.load(io.BytesIO(ask(pictures, ztf(**payload)).data))

    np.testing.assert_array_equal(load(format="NPY"), star())
    assert load(format="NPY", kind="All").shape == (3, 63, 63)
    narrow = np.load(io.BytesIO(ask(pictures, ztf("narrow", format="NPY", kind="All")).data))
    assert narrow.shape == (3, 63, 63)
    assert np.isnan(narrow[0, :, 62]).all()
    assert not np.isnan(narrow[1]).any()
    by_kind = load(format="NPZ", kind="All")
    assert list(by_kind) == list(KINDS)
    np.testing.assert_array_equal(by_kind["Template"], star())
    assert np.load(io.BytesIO(ask(pictures, ztf("integers", format="NPY")).data)).dtype == np.int16


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "GIF", "NPY", "NPZ", "FITS", "array"])
def test_asked_again_each_answer_is_the_same_to_the_byte(pictures: FlaskClient, name: str) -> None:
    payload = ztf(format=name, kind="All")
    assert ask(pictures, payload).data == ask(pictures, payload).data


def test_invert_turns_white_into_black(pictures: FlaskClient) -> None:
    plain = pixels(ask(pictures, ztf(interval="minmax"))).astype(int)
    inverted = pixels(ask(pictures, ztf(interval="minmax", invert="true"))).astype(int)
    assert abs(plain + inverted - 254.5).max() <= 0.5


def test_parameters_given_besides_a_preset_replace_its_own(pictures: FlaskClient) -> None:
    def same(one: Payload, other: Payload) -> bool:
        return np.array_equal(
            pixels(ask(pictures, ztf(**one))), pixels(ask(pictures, ztf(**other)))
        )

    assert same({"preset": "fink"}, {})
    assert same({"preset": "ds9-zscale"}, {"interval": "zscale"})
    assert same({"preset": "ds9-zscale", "invert": 1}, {"preset": "finding-chart"})
    assert same({"preset": "ztf-notebook", "interval": "minmax"}, {"interval": "minmax", "a": 0.1})
    assert same(
        {"preset": "faint", "stretch": "sqrt"}, {"pmin": 5, "pmax": 99.9, "stretch": "sqrt"}
    )
    assert same({"preset": "ds9", "vmin": 50, "vmax": 90}, {"vmin": 50, "vmax": 90})
    assert not same({"preset": "ds9"}, {})


# --- refusals ----------------------------------------------------------------------------------

NO_PLACE = ("no matrix", "singular", "matrix of zeros", "unknown projection", "beyond a pole")
REFUSED = [
    (ztf(interval="zscal"), 400, "invalid_parameter", "interval"),
    (ztf(interval="manual"), 400, "missing_parameter", "vmin"),
    (ztf(vmin=5, vmax=5), 400, "invalid_parameter", "vmin"),
    (ztf(vmin=9, vmax=5), 400, "invalid_parameter", "vmin"),
    (ztf(vmin="nan"), 400, "invalid_parameter", "vmin"),
    (ztf(vmax="1e999"), 400, "invalid_parameter", "vmax"),
    (ztf(vmin=1, interval="zscale"), 400, "conflicting_parameters", "vmin"),
    (ztf(pmin=1, interval="minmax"), 400, "conflicting_parameters", "pmin"),
    (ztf(pmin=1, vmin=1), 400, "conflicting_parameters", "pmin"),
    (ztf(interval="minmax", stretch="sigmoid"), 400, "conflicting_parameters", "interval"),
    (ztf(a=0.1, stretch="log"), 400, "conflicting_parameters", "a"),
    (ztf(a=0), 400, "invalid_parameter", "a"),
    (ztf(a=1e-320), 400, "invalid_parameter", "a"),
    (ztf(a=-1), 400, "invalid_parameter", "a"),
    (ztf(invert="maybe"), 400, "invalid_parameter", "invert"),
    (ztf(invert=2), 400, "invalid_parameter", "invert"),
    (ztf(size=0), 400, "invalid_parameter", "size"),
    (ztf(size=1.5), 400, "invalid_parameter", "size"),
    (ztf(size=10**9), 400, "invalid_parameter", "size"),
    (ztf(size=True), 400, "invalid_parameter", "size"),
    (ztf(zoom=0), 400, "invalid_parameter", "zoom"),
    (ztf(zoom="1e-9"), 400, "invalid_parameter", "zoom"),
    (ztf(zoom=65), 400, "invalid_parameter", "zoom"),
    (ztf(zoom=2, size=100), 400, "conflicting_parameters", "zoom"),
    (ztf(zoom=64), 413, "picture_too_large", None),
    (ztf(size=8192), 413, "picture_too_large", None),
    (ztf("one row", size=8192, zoom=None, kind="All"), 413, "picture_too_large", None),
    (ztf("one row", size=8192, kind="All", format="WebP"), 413, "picture_too_large", None),
    (
        ztf("one row", size=6000, format="WebP", kind="All", labels="all"),
        413,
        "picture_too_large",
        None,
    ),
    (ztf(resample="linear"), 400, "invalid_parameter", "resample"),
    (ztf(orient="up"), 400, "invalid_parameter", "orient"),
    (ztf(labels="date,colour"), 400, "invalid_parameter", "labels"),
    (ztf(labels="all,none"), 400, "invalid_parameter", "labels"),
    (ztf(labels=","), 400, "invalid_parameter", "labels"),
    (ztf(labels=5), 400, "invalid_parameter", "labels"),
    (ztf(preset="sdss"), 400, "invalid_parameter", "preset"),
    (ztf(plane="psf"), 400, "conflicting_parameters", "plane"),
    (ztf(plane="mask"), 400, "invalid_parameter", "plane"),
    (ztf(wcs="fix"), 400, "conflicting_parameters", "wcs"),
    (lsst(wcs="fix", plane="psf", format="FITS"), 400, "conflicting_parameters", "wcs"),
    (ztf(orient="north", format="FITS"), 400, "conflicting_parameters", "orient"),
    (ztf(labels="all", format="array"), 400, "conflicting_parameters", "labels"),
    (ztf(size=9, format="NPY"), 400, "conflicting_parameters", "size"),
    (ztf("no facts", wcs="fix", format="FITS"), 404, "fact_missing", None),
    (
        ztf("no facts", kind="Difference", diffsign="sci-ref", format="array"),
        404,
        "fact_missing",
        None,
    ),
    *(
        (lsst("no planes", plane=plane, format=name), 404, "plane_missing", "plane")
        for plane in ("variance", "psf", "snr")
        for name in ("PNG", "array", "NPY", "FITS")
    ),
    *((lsst(what, orient="north"), 404, "fact_missing", None) for what in NO_PLACE),
    *((lsst(what, wcs="fix", format="FITS"), 404, "fact_missing", None) for what in NO_PLACE),
]


@pytest.mark.parametrize(("payload", "status", "code", "parameter"), REFUSED)
def test_what_cannot_be_drawn_is_refused_by_name(
    pictures: FlaskClient, payload: Payload, status: int, code: str, parameter: str | None
) -> None:
    answer = ask(pictures, payload)
    problem = json.loads(answer.data)
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem.get("parameter") == parameter


def test_cards_that_wcslib_rejects_change_nothing(pictures: FlaskClient) -> None:
    """Handed to wcslib, as many of them end the process."""
    found = [
        measure(pictures, _ids(lsst(what))).json["stamps"][0]["wcs"]
        for what in ("ordinary", "many bad cards")
    ]
    assert found[0] == found[1]
    for option in ({"orient": "north"}, {"labels": "all"}, {"format": "FITS", "wcs": "fix"}):
        assert ask(pictures, lsst("many bad cards", **option)).status_code == 200


def test_a_header_with_a_wcs_is_believed_whatever_the_survey(pictures: FlaskClient) -> None:
    """CDELT and CROTA2 = 30 of ZTF: north is 150 degrees from up, and nothing is missing."""
    stamp = measure(pictures, _ids(ztf("a wcs of its own"))).json["stamps"][0]
    assert stamp["wcs"]["north_angle"] == pytest.approx(150, abs=1e-3)
    assert stamp["wcs"]["pixel_scale"] == pytest.approx(0.198)
    assert not stamp["wcs"]["approximate"]
    fixed = ask(pictures, ztf("a wcs of its own", format="FITS", wcs="fix"))
    with fits.open(io.BytesIO(fixed.data)) as hdus:
        kept = {name: hdus[0].header[name] for name in TURNED}
        assert (kept, "CD1_1" in hdus[0].header) == (TURNED, False)


def test_no_option_on_no_stamp_is_a_failure_of_the_service(pictures: FlaskClient) -> None:
    options = [
        {"orient": "north", "labels": "all"},
        {"plane": "snr", "format": "array"},
        {"plane": "variance", "format": "FITS", "wcs": "fix"},
        {"format": "FITS", "wcs": "fix", "kind": "All"},
        {"format": "FITS", "diffsign": "sci-ref", "kind": "All"},
        {"explain": 1, "labels": "all"},
        {"explain": 1, "format": "FITS"},
    ]
    asked = [ztf(what, **option) for what, option in itertools.product(ZTF_ODD, options)]
    asked += [lsst(what, **option) for what, option in itertools.product(LSST_ODD, options)]
    for payload in asked:
        assert ask(pictures, payload).status_code in (200, 400, 404), payload
    for what in ZTF_ODD:
        assert measure(pictures, _ids(ztf(what))).status_code == 200
    for what in LSST_ODD:
        assert measure(pictures, _ids(lsst(what))).status_code == 200


def _ids(payload: Payload) -> Payload:
    return {name: value for name, value in payload.items() if name not in ("kind", "output-format")}


def test_measuring_takes_ids_and_nothing_of_pictures(pictures: FlaskClient) -> None:
    answer = measure(pictures, _ids(ztf()) | {"labels": "all"})
    problem = json.loads(answer.data)
    assert (answer.status_code, problem["code"]) == (400, "unknown_parameter")
    found = measure(pictures, _ids(ztf())).json
    assert [stamp["kind"] for stamp in found["stamps"]] == list(KINDS)
    assert measure(pictures, _ids(ztf()) | {"kind": "Template"}).json["stamps"][0]["shape"] == [
        63,
        63,
    ]
    assert measure(pictures, _ids(ztf()) | {"kind": "Temple"}).status_code == 400


# --- planes and sign ---------------------------------------------------------------------------


def test_planes_are_those_of_the_file_in_every_format(pictures: FlaskClient) -> None:
    image = star((30, 30)).astype(np.float64)

    def array(plane: str) -> np.ndarray:
        rows = ask(pictures, lsst(plane=plane, format="array")).json["b:cutoutScience"]
        return np.array(rows, np.float64)

    np.testing.assert_allclose(array("variance")[1:], 4)
    assert array("psf").shape == (41, 41)
    snr = array("snr")
    assert np.isnan(snr[0, 0])  # its variance is negative
    np.testing.assert_allclose(snr.ravel()[1:], image.ravel()[1:] / 2, rtol=1e-6)
    for plane in ("variance", "psf", "snr"):
        with fits.open(io.BytesIO(ask(pictures, lsst(plane=plane, format="FITS")).data)) as hdus:
            hdus.verify("exception")
            assert len(hdus) == 1
            np.testing.assert_allclose(hdus[0].data, array(plane), rtol=1e-6)
            assert hdus[0].header["PLANE"] == plane
        npy = np.load(io.BytesIO(ask(pictures, lsst(plane=plane, format="NPY")).data))
        np.testing.assert_allclose(npy, array(plane), rtol=1e-6)


def test_the_sign_of_a_faded_source_is_turned_and_of_no_other(pictures: FlaskClient) -> None:
    def rows(payload: Payload) -> np.ndarray:
        return np.array(next(iter(ask(pictures, payload).json.values())), np.float32)

    turned = {"diffsign": "sci-ref", "format": "array"}
    same = np.testing.assert_array_equal
    same(rows(ztf("faded", kind="Difference", **turned)), -star())
    same(rows(ztf("faded", kind="Science", **turned)), star())
    same(rows(ztf("ordinary", kind="Difference", **turned)), star())
    same(rows(lsst(kind="Difference", **turned)), star((30, 30)))
    answer = ask(pictures, ztf("faded", kind="Difference", format="FITS", diffsign="sci-ref"))
    with fits.open(io.BytesIO(answer.data)) as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus[0].data, -star())
        assert "science - template" in str(hdus[0].header["HISTORY"])


# --- where it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "approximate"),
    [(ztf(format="FITS", wcs="fix"), True), (lsst(format="FITS", wcs="fix"), False)],
    ids=["ztf", "lsst"],
)
def test_a_fixed_wcs_puts_the_alert_where_its_source_is(
    pictures: FlaskClient, payload: Payload, approximate: bool
) -> None:
    answer = ask(pictures, payload)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(io.BytesIO(answer.data)) as hdus:
            hdus.verify("exception")
            header, image = hdus[0].header, hdus[0].data
            wcs = WCS(header)
    assert wcs.has_celestial
    assert [str(unit) for unit in wcs.world_axis_units] == ["deg", "deg"]
    x, y = wcs.world_to_pixel_values(RA, DEC)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert abs(x - column) < 1e-6
    assert abs(y - row) < 1e-6
    assert ("approximate" in str(header["HISTORY"])) == approximate
    plain = ask(pictures, {**payload, "wcs": "none"}).data
    assert plain == ask(pictures, {k: v for k, v in payload.items() if k != "wcs"}).data


def test_all_of_an_alert_has_a_wcs_in_each_image(pictures: FlaskClient) -> None:
    for payload in (
        ztf(format="FITS", wcs="fix", kind="All"),
        lsst(format="FITS", wcs="fix", kind="All"),
    ):
        with fits.open(io.BytesIO(ask(pictures, payload).data)) as hdus:
            for kind in KINDS:
                assert WCS(hdus[kind.upper()].header).has_celestial


def test_north_is_up_where_the_fixed_wcs_says(pictures: FlaskClient) -> None:
    """A star to the north of the centre is drawn above it, one to the east on the left."""
    explained = ask(pictures, lsst(orient="north", explain=1)).json
    assert explained["kinds"][0]["north_angle"] == 0
    as_is = ask(pictures, lsst(explain=1)).json["kinds"][0]["north_angle"]
    assert abs(as_is - -154.77) < 0.1
    assert ask(pictures, ztf(explain=1)).json["kinds"][0]["north_angle"] == 0
    scale = np.sqrt(abs(np.linalg.det(LSST_MATRIX)))
    east, north = LSST_MATRIX @ (np.array(OFF_CENTRE) - 14.5) / scale
    plain = {"orient": "north", "interval": "minmax"}
    for zoom, more in ((1, {}), (4, {"zoom": 4})):
        found = pixels(ask(pictures, lsst("off centre", **plain, **more)))
        star_y, star_x = np.unravel_index(found.argmax(), found.shape)
        centre_y, centre_x = (np.array(found.shape) - 1) / 2
        assert abs(star_x - (centre_x - east * zoom)) < 1.5 * zoom
        assert abs(star_y - (centre_y - north * zoom)) < 1.5 * zoom


# --- recipes -----------------------------------------------------------------------------------


def test_a_picture_tells_the_request_that_gives_it_again(pictures: FlaskClient) -> None:
    for name in ("PNG", "JPEG", "WebP", "GIF"):
        payload = ztf(format=name, kind="All", preset="faint", labels="id,date", invert=True)
        del payload["candid"]
        answer = ask(pictures, {**payload, "objectId": "ZTF24aaaaaaa"})
        recipe = _recipe(picture(answer))
        assert answer.headers["X-Cutout-Id"] in recipe["request"]
        assert recipe["software"].startswith("cutout_api")
        again = pictures.get(recipe["request"])
        np.testing.assert_array_equal(pixels(again), pixels(answer))
        assert pictures.get(_recipe(picture(again))["request"]).data == again.data


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "GIF"])
def test_an_endless_path_does_not_spoil_the_recipe(pictures: FlaskClient, name: str) -> None:
    payload = ztf(format=name)
    payload["hdfsPath"] = "./" * 30_000 + payload["hdfsPath"]
    answer = ask(pictures, payload)
    assert answer.status_code in (200, 400, 403, 404)
    if answer.status_code == 200:
        assert _recipe(picture(answer))["request"] == ""


def _recipe(image: Image.Image) -> Payload:
    stored = image.info.get("comment") or image.info.get("Description") or image.getexif()[0x010E]
    found: Payload = json.loads(stored)
    return found


def test_a_recipe_has_the_limits_that_were_used(pictures: FlaskClient) -> None:
    explained = ask(pictures, ztf(preset="ds9-zscale", explain=1)).json
    limits = explained["kinds"][0]
    manual = pixels(ask(pictures, ztf(vmin=limits["vmin"], vmax=limits["vmax"])))
    np.testing.assert_array_equal(manual, pixels(ask(pictures, ztf(preset="ds9-zscale"))))
    assert explained["alert"]["candid"] == candid("ordinary")
    assert explained["alert"]["date"] == "2024-04-10 00:00:00 UTC"
    sigmoid = ask(pictures, ztf(explain="true")).json["kinds"][0]
    assert abs(sigmoid["mean"] - star().mean()) < 0.01
    assert ask(pictures, ztf("infinite", explain=1)).status_code == 200


def test_without_a_new_option_pictures_are_those_of_the_older_services(
    pictures: FlaskClient,
) -> None:
    np.testing.assert_array_equal(pixels(ask(pictures, ztf())), render(star(), Rendering()))
    triptych = pixels(ask(pictures, ztf(kind="All")))
    np.testing.assert_array_equal(triptych[:, 63:126], render(star(), Rendering()))


# --- real alerts -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[FlaskClient]:
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real alerts, ../shared/data, is not here")
    app = create_app(Settings(archive=Archive(uri=f"file://{REAL_DATA.resolve()}")))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def _real_keys(limit: int = 50) -> Iterator[Payload]:
    if not REAL_DATA.is_dir():
        return
    for file in sorted(REAL_DATA.glob("*.parquet")):
        names = set(pq.read_schema(file).names)
        if "cutoutDifference" not in names or "empty" in file.name:
            continue
        columns = [name for name in ("candid", "diaSource") if name in names]
        for row in pq.read_table(file, columns=columns).to_pylist()[:limit]:
            key = (
                {"candid": str(row["candid"])}
                if "candid" in row
                else {"diaSourceId": str(row["diaSource"]["diaSourceId"])}
            )
            yield {"hdfsPath": file.name, **key}


def test_each_real_alert_lies_where_its_fixed_wcs_says(real: FlaskClient) -> None:
    offsets: dict[str, list[float]] = {"candid": [], "diaSourceId": []}
    for keys in _real_keys():
        facts = measure(real, {**keys, "kind": "Difference"}).json
        answer = ask(real, {**keys, "kind": "Difference", "return_type": "FITS", "wcs": "fix"})
        with fits.open(io.BytesIO(answer.data)) as hdus:
            hdus.verify("exception")
            wcs = WCS(hdus[0].header)
        x, y = wcs.world_to_pixel_values(facts["alert"]["ra"], facts["alert"]["dec"])
        stamp = facts["stamps"][0]
        assert 0 <= x < stamp["shape"][1]
        assert 0 <= y < stamp["shape"][0]
        if stamp["centroid_offset"] is not None:
            name = "candid" if "candid" in keys else "diaSourceId"
            offsets[name].append(stamp["centroid_offset"]["pixels"])
    assert all(len(found) >= 45 for found in offsets.values())
    for found in offsets.values():
        assert np.median(found) < 1
        assert np.percentile(found, 95) < 2


def test_every_real_alert_is_drawn_labelled_north_up(real: FlaskClient) -> None:
    drawn = 0
    for keys in _real_keys(10):
        payload = {
            **keys,
            "kind": "All",
            "output-format": "PNG",
            "labels": "all",
            "orient": "north",
        }
        assert picture(ask(real, payload)).mode == "RGB"
        drawn += 1
    assert drawn >= 30
