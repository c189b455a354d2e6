"""What callers of both existing services send, and what they get: ``/api/v1/cutouts``."""

from __future__ import annotations

import io
import itertools
import json
import warnings
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cutout_api.render import KERNELS, STRETCHES, Rendering, render

from ..archive import NEXT_NIGHT, NIGHT, SampleArchive, peculiar_candid
from ..samples import KINDS, REAL_DATA, image_of, lsst_alert, stored_fits, ztf_alert

ROUTE = "/api/v1/cutouts"
FIRST = f"{NIGHT}/part-00000.snappy.parquet"
Row = dict[str, Any]


def ask(client: FlaskClient, **payload: Any) -> TestResponse:
    """POST as JSON, as web components do; underscores stand for the dash in output-format."""
    if "output_format" in payload:
        payload["output-format"] = payload.pop("output_format")
    return client.post(ROUTE, json=payload)


def ztf_keys(row: Row) -> Row:
    return {"objectId": row["objectId"], "candid": str(row["candid"])}


def lsst_keys(row: Row) -> Row:
    return {"diaSourceId": str(row["diaSourceId"])}


def picture(response: TestResponse) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array(Image.open(io.BytesIO(response.data)))


def assert_problem(response: TestResponse, status: int, code: str) -> Row:
    problem: Row = json.loads(response.data)
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert response.mimetype == "application/problem+json"
    assert problem["status"] == status
    assert problem["text"] == problem["detail"]
    assert {"type", "title"} <= set(problem)
    assert "Traceback" not in response.text
    return problem


# --- every row of every file -------------------------------------------------------------------

FILES = {
    FIRST: ztf_keys,
    f"{NIGHT}/part-00001.snappy.parquet": ztf_keys,
    f"{NEXT_NIGHT}/part-0.parquet": ztf_keys,
    "lsst/nested.parquet": lsst_keys,
    "lsst/top_level.parquet": lsst_keys,
}


@pytest.mark.parametrize("name", FILES)
def test_fits_bytes_are_exactly_the_stored_ones(
    client: FlaskClient, archive: SampleArchive, name: str
) -> None:
    for row in archive.rows[name]:
        for kind in KINDS:
            keys = FILES[name](row)
            internal = ask(client, hdfsPath=name, kind=kind, return_type="FITS", **keys)
            public = ask(client, hdfsPath=name, kind=kind, output_format="FITS", **keys)
            assert internal.data == public.data == stored_fits(row, kind)


@pytest.mark.parametrize("name", FILES)
def test_array_values_are_exactly_the_stored_ones(
    client: FlaskClient, archive: SampleArchive, name: str
) -> None:
    for row in archive.rows[name]:
        keys = FILES[name](row)
        arrays = ask(client, hdfsPath=name, kind="All", **keys).json
        assert len(arrays) == 3
        for kind, values in zip(KINDS, arrays, strict=True):
            expected = image_of(stored_fits(row, kind))
            found = np.array(values, dtype=np.float32)
            assert found.shape == expected.shape
            np.testing.assert_array_equal(found, expected)


def test_every_real_alert_comes_back_as_stored_in_both_dialects(client: FlaskClient) -> None:
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real alerts, ../shared/data, is not here")
    stamps = 0
    for file in sorted(REAL_DATA.glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            if "candid" in row:
                keys, key = ztf_keys(row), "b:cutout{}_stampData"
            else:
                keys, key = {"diaSourceId": row["diaSource"]["diaSourceId"]}, "b:cutout{}"
            for kind in KINDS:
                if row.get(f"cutout{kind}") is None:
                    continue
                expected = stored_fits(row, kind)
                asked = {"hdfsPath": f"real/{file.name}", "kind": kind, **keys}
                for dialect in ("return_type", "output_format"):
                    assert ask(client, **asked, **{dialect: "FITS"}).data == expected
                internal = ask(client, **asked, return_type="array").json[0]
                public = ask(client, **asked, output_format="array").json[key.format(kind)]
                for values in (internal, public):
                    found = np.array(values, dtype=np.float32)
                    np.testing.assert_array_equal(found, image_of(expected))
                stamps += 1
    assert stamps == 604


# --- the two dialects --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "media_type"),
    [
        ({}, "application/json"),
        ({"return_type": "array"}, "application/json"),
        ({"return_type": "FITS"}, "application/octet-stream"),
        ({"return_type": "PNG"}, "image/png"),
        ({"output_format": "array"}, "application/json"),
        ({"output_format": "FITS"}, "application/octet-stream"),
        ({"output_format": "PNG"}, "image/png"),
    ],
)
def test_each_format_has_its_media_type(client: FlaskClient, asked: Row, media_type: str) -> None:
    response = ask(client, hdfsPath=FIRST, kind="Science", objectId="ZTF24aaaaaaa", **asked)
    assert response.status_code == 200
    assert response.mimetype == media_type


def test_internal_arrays_are_a_plain_list_and_public_ones_are_named(client: FlaskClient) -> None:
    ztf = {"hdfsPath": FIRST, "objectId": "ZTF24aaaaaaa"}
    lsst = {"hdfsPath": "lsst/nested.parquet", "diaSourceId": lsst_alert(0)["diaSourceId"]}
    plain = ask(client, kind="Science", return_type="array", **ztf).json
    assert np.shape(plain) == (1, 63, 63)
    named = ask(client, kind="Science", output_format="array", **ztf).json
    assert named == {"b:cutoutScience_stampData": plain[0]}
    assert list(ask(client, kind="All", output_format="array", **ztf).json) == [
        f"b:cutout{kind}_stampData" for kind in KINDS
    ]
    assert list(ask(client, kind="All", output_format="array", **lsst).json) == [
        f"b:cutout{kind}" for kind in KINDS
    ]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"objectId": "ZTF24aaaaaaa", "return_type": "FITS"}, "ZTF24aaaaaaa.fits"),
        ({"objectId": "ZTF24aaaaaaa", "output_format": "FITS"}, "ZTF24aaaaaaa_Science.fits"),
        ({"objectId": "ZTF24aaaaaaa", "output_format": "PNG"}, "ZTF24aaaaaaa_Science.png"),
        ({"candid": "2656254792815010000", "return_type": "FITS"}, "2656254792815010000.fits"),
    ],
)
def test_saved_files_are_named_as_each_dialect_names_them(
    client: FlaskClient, asked: Row, name: str
) -> None:
    response = ask(client, hdfsPath=FIRST, kind="Science", **asked)
    kind = "attachment" if name.endswith("fits") else "inline"
    assert response.headers["Content-Disposition"] == f"{kind}; filename={name}"


def test_lsst_files_are_named_after_the_source_that_was_chosen(client: FlaskClient) -> None:
    newest = lsst_alert(7)
    response = ask(
        client,
        hdfsPath="lsst/nested.parquet",
        diaObjectId=newest["diaSource"]["diaObjectId"],
        kind="Template",
        output_format="FITS",
    )
    name = f"{newest['diaSourceId']}_Template.fits"
    assert response.headers["Content-Disposition"] == f"attachment; filename={name}"
    assert response.headers["X-Cutout-Id"] == str(newest["diaSourceId"])


@pytest.mark.parametrize("accept", ["application/fits", "image/fits"])
def test_fits_media_type_is_negotiated(client: FlaskClient, accept: str) -> None:
    response = client.get(
        ROUTE,
        query_string={
            "hdfsPath": FIRST,
            "objectId": "ZTF24aaaaaaa",
            "kind": "Science",
            "return_type": "FITS",
        },
        headers={"Accept": accept},
    )
    assert response.mimetype == accept
    assert "Accept" in response.headers["Vary"]


# --- which alert -------------------------------------------------------------------------------


def test_omitted_candid_returns_the_newest_alert_not_the_first_row(
    client: FlaskClient, archive: SampleArchive
) -> None:
    rows = [row for row in archive.rows[FIRST] if row["objectId"] == "ZTF24aaaaaab"]
    newest = max(rows, key=lambda row: row["candidate"]["jd"])
    assert newest not in (rows[0], rows[-1])
    response = ask(
        client, hdfsPath=FIRST, objectId="ZTF24aaaaaab", kind="Science", return_type="FITS"
    )
    assert response.data == stored_fits(newest, "Science")
    assert response.headers["X-Cutout-Id"] == str(newest["candid"])


def test_the_newest_alert_is_the_newest_of_all_files_of_a_folder(
    client: FlaskClient, archive: SampleArchive
) -> None:
    rows = [
        row
        for name, rows in archive.rows.items()
        if name.startswith("archive/")
        for row in rows
        if row["objectId"] == "ZTF24aaaaaaa"
    ]
    newest = max(rows, key=lambda row: row["candidate"]["jd"])
    for folder in ("archive", "archive/science/year=2024/month=11", f"./{NEXT_NIGHT}/"):
        response = ask(
            client, hdfsPath=folder, objectId="ZTF24aaaaaaa", kind="Template", return_type="FITS"
        )
        assert response.data == stored_fits(newest, "Template")


def test_an_alert_is_found_in_any_file_of_a_folder(
    client: FlaskClient, archive: SampleArchive
) -> None:
    for name in (FIRST, f"{NIGHT}/part-00001.snappy.parquet", f"{NEXT_NIGHT}/part-0.parquet"):
        row = archive.rows[name][-1]
        response = ask(
            client, hdfsPath="archive", candid=row["candid"], kind="Science", return_type="FITS"
        )
        assert response.data == stored_fits(row, "Science")


def test_the_latest_source_of_an_lsst_object_is_found(
    client: FlaskClient, archive: SampleArchive
) -> None:
    rows = archive.rows["lsst/nested.parquet"]
    for object_id in {row["diaSource"]["diaObjectId"] for row in rows} - {None}:
        newest = max(
            (row for row in rows if row["diaSource"]["diaObjectId"] == object_id),
            key=lambda row: row["diaSource"]["midpointMjdTai"],
        )
        response = ask(
            client,
            hdfsPath="lsst/nested.parquet",
            diaObjectId=str(object_id),
            kind="Difference",
            return_type="FITS",
        )
        assert response.data == stored_fits(newest, "Difference")


def test_a_source_without_an_object_is_found_by_its_own_id(
    client: FlaskClient, archive: SampleArchive
) -> None:
    row = next(row for row in archive.rows["lsst/nested.parquet"] if row["diaObject"] is None)
    response = ask(
        client,
        hdfsPath="lsst/nested.parquet",
        diaSourceId=row["diaSourceId"],
        kind="Science",
        return_type="FITS",
    )
    assert response.data == stored_fits(row, "Science")


def test_ids_are_never_rounded_to_a_neighbour(client: FlaskClient) -> None:
    # As floats, this id and its neighbours are one number.
    row = ztf_alert(0)
    neighbours = [row["candid"] + 30, row["candid"] - 30, row["candid"] + 13]
    assert {float(candid) for candid in neighbours} == {float(row["candid"])}
    for candid in neighbours:
        response = ask(client, hdfsPath=FIRST, candid=candid, kind="Science")
        assert_problem(response, 404, "alert_not_found")
    for candid in (row["candid"], str(row["candid"])):
        response = ask(client, hdfsPath=FIRST, candid=candid, kind="Science")
        assert response.headers["X-Cutout-Id"] == str(row["candid"])


def test_an_alert_of_another_object_does_not_match(client: FlaskClient) -> None:
    row = ztf_alert(0)
    response = ask(
        client, hdfsPath=FIRST, objectId="ZTF24aaaaaab", candid=row["candid"], kind="Science"
    )
    assert_problem(response, 404, "alert_not_found")


@pytest.mark.parametrize(
    "asked",
    [
        {"hdfsPath": FIRST, "objectId": "ZTF99zzzzzzz"},
        {"hdfsPath": FIRST, "candid": 2**63 - 1},
        {"hdfsPath": FIRST, "candid": 1},
        {"hdfsPath": FIRST, "diaSourceId": "1"},
        {"hdfsPath": "archive", "objectId": "ZTF99zzzzzzz"},
        {"hdfsPath": "lsst/nested.parquet", "diaSourceId": "1"},
        {"hdfsPath": "lsst/nested.parquet", "objectId": "ZTF24aaaaaaa"},
        {"hdfsPath": "lsst/no_rows.parquet", "diaSourceId": "1"},
        {"hdfsPath": "ztf/no_rows.parquet", "objectId": "ZTF24aaaaaaa"},
    ],
)
def test_an_unknown_alert_is_404(client: FlaskClient, asked: Row) -> None:
    assert_problem(ask(client, kind="Science", **asked), 404, "alert_not_found")


# --- ways to ask -------------------------------------------------------------------------------

ASKED = {
    "hdfsPath": FIRST,
    "objectId": "ZTF24aaaaaaa",
    "kind": "Science",
    "return_type": "FITS",
}


def test_get_post_form_and_head_answer_the_same(client: FlaskClient) -> None:
    expected = client.post(ROUTE, json=ASKED)
    assert expected.status_code == 200
    for response in (
        client.get(ROUTE, query_string=ASKED),
        client.post(ROUTE, data=ASKED),
        client.post(ROUTE, query_string=ASKED),
        client.post(ROUTE, query_string={"kind": "Science"}, json=ASKED),
        client.post(f"{ROUTE}/", json=ASKED),
        client.post(ROUTE, data=ASKED, content_type="multipart/form-data"),
    ):
        assert response.status_code == 200, response.text
        assert response.data == expected.data
    head = client.head(ROUTE, query_string=ASKED)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(expected.data))
    assert head.headers["ETag"] == expected.headers["ETag"]


def test_get_without_arguments_describes_them(client: FlaskClient) -> None:
    entries = client.get(ROUTE).json["args"]
    assert {"hdfsPath", "objectId", "candid", "kind", "return_type", "output-format"} <= {
        entry["name"] for entry in entries
    }
    for entry in entries:
        assert entry["description"]
        assert isinstance(entry["required"], bool)


def test_kind_and_format_are_read_whatever_their_case(client: FlaskClient) -> None:
    asked = ASKED | {"kind": "sCIENCE", "return_type": "fits"}
    assert client.post(ROUTE, json=asked).data == client.post(ROUTE, json=ASKED).data


def test_null_and_empty_arguments_count_as_not_given(client: FlaskClient) -> None:
    asked = ASKED | {"candid": None, "colormap": "", "pmin": None}
    assert client.post(ROUTE, json=asked).data == client.post(ROUTE, json=ASKED).data


# --- several stamps ----------------------------------------------------------------------------


def test_fits_of_all_kinds_is_one_file_with_every_hdu(
    client: FlaskClient, archive: SampleArchive
) -> None:
    row = archive.rows["lsst/nested.parquet"][0]
    response = ask(
        client,
        hdfsPath="lsst/nested.parquet",
        diaSourceId=row["diaSourceId"],
        kind="All",
        return_type="FITS",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = fits.open(io.BytesIO(response.data))
        merged.verify("exception")
    assert [hdu.name for hdu in merged] == [
        "PRIMARY",
        *("SCIENCE", "SCIENCE_UNCERT", "SCIENCE_PSFIMAGE"),
        *("TEMPLATE", "TEMPLATE_UNCERT", "TEMPLATE_PSFIMAGE"),
        *("DIFFERENCE", "DIFFERENCE_UNCERT", "DIFFERENCE_PSFIMAGE"),
    ]
    assert merged[0].data is None
    for place, kind in enumerate(KINDS):
        stored = fits.open(io.BytesIO(stored_fits(row, kind)))
        for number, hdu in enumerate(stored):
            found = merged[1 + 3 * place + number]
            assert found.data.dtype == hdu.data.dtype
            assert found.data.tobytes() == hdu.data.tobytes()
            for keyword in ("BUNIT", "CRPIX1", "CRVAL1", "PC1_1"):
                assert found.header.get(keyword) == hdu.header.get(keyword)


def test_fits_of_all_kinds_works_for_ztf(client: FlaskClient, archive: SampleArchive) -> None:
    row = archive.rows[FIRST][2]
    response = ask(client, hdfsPath=FIRST, kind="All", return_type="FITS", **ztf_keys(row))
    merged = fits.open(io.BytesIO(response.data))
    assert [hdu.name for hdu in merged] == ["PRIMARY", "SCIENCE", "TEMPLATE", "DIFFERENCE"]
    for kind in KINDS:
        expected = image_of(stored_fits(row, kind))
        np.testing.assert_array_equal(merged[kind.upper()].data, expected)


def test_png_of_all_kinds_is_the_three_side_by_side(client: FlaskClient) -> None:
    asked = {"hdfsPath": FIRST, "objectId": "ZTF24aaaaaaa", "output_format": "PNG"}
    for colormap in (None, "viridis"):
        single = [picture(ask(client, kind=kind, colormap=colormap, **asked)) for kind in KINDS]
        triptych = picture(ask(client, kind="All", colormap=colormap, **asked))
        np.testing.assert_array_equal(triptych, np.concatenate(single, axis=1))


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_a_png_is_drawn_as_it_was_asked_for(
    client: FlaskClient, archive: SampleArchive, survey: str
) -> None:
    name, keys = {"ztf": (FIRST, ztf_keys), "lsst": ("lsst/nested.parquet", lsst_keys)}[survey]
    row = archive.rows[name][2]  # of ZTF, the one with masked pixels
    image = image_of(stored_fits(row, "Science"))
    for stretch, colormap, kernel, limits in itertools.product(
        STRETCHES, (None, "viridis"), (None, *KERNELS), ({}, {"pmin": 2}, {"pmin": 1, "pmax": 90.5})
    ):
        asked = {"stretch": stretch, "colormap": colormap, "convolution_kernel": kernel, **limits}
        response = ask(
            client, hdfsPath=name, kind="Science", output_format="PNG", **keys(row), **asked
        )
        np.testing.assert_array_equal(picture(response), render(image, Rendering(**asked)))


# --- peculiar stamps ---------------------------------------------------------------------------


def ask_peculiar(client: FlaskClient, what: str, **asked: Any) -> TestResponse:
    asked = {"kind": "Science"} | asked
    return ask(client, hdfsPath="ztf/peculiar.parquet", candid=peculiar_candid(what), **asked)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("null field", "Template"), ("null struct", "Science"), ("null struct", "All")],
)
@pytest.mark.parametrize("form", ["array", "FITS", "PNG"])
def test_a_null_stamp_is_404_with_a_code_of_its_own(
    client: FlaskClient, what: str, kind: str, form: str
) -> None:
    response = ask_peculiar(client, what, kind=kind, return_type=form)
    problem = assert_problem(response, 404, "stamp_missing")
    assert problem["parameter"] == "kind"


def test_the_other_stamps_of_an_alert_with_a_null_one_still_answer(client: FlaskClient) -> None:
    assert ask_peculiar(client, "null field", kind="Science").status_code == 200
    assert ask_peculiar(client, "null field", kind="Difference").status_code == 200
    problem = assert_problem(ask_peculiar(client, "null field", kind="All"), 404, "stamp_missing")
    assert "there is Science, Difference" in problem["detail"]


def test_a_file_with_one_kind_answers_for_it_and_says_what_it_lacks(client: FlaskClient) -> None:
    asked = {"hdfsPath": "ztf/science_only.parquet", "objectId": "ZTF24aaaaaaa"}
    response = ask(client, kind="Science", return_type="FITS", **asked)
    # Without a time column, the newest alert is that with the greatest id.
    assert response.data == stored_fits(ztf_alert(201), "Science")
    problem = assert_problem(ask(client, kind="Template", **asked), 404, "stamp_missing")
    assert "no column for Template" in problem["detail"]


@pytest.mark.parametrize("what", ["not gzip", "not fits", "cut short", "bad checksum", "no image"])
@pytest.mark.parametrize("form", ["array", "FITS", "PNG"])
def test_damaged_stamps_are_502_and_harm_no_other(
    client: FlaskClient, what: str, form: str
) -> None:
    assert_problem(ask_peculiar(client, what, return_type=form), 502, "stamp_unreadable")
    assert ask_peculiar(client, what, kind="Template", return_type=form).status_code == 200


def test_an_empty_stamp_counts_as_missing(client: FlaskClient) -> None:
    assert_problem(ask_peculiar(client, "empty"), 404, "stamp_missing")


@pytest.mark.parametrize(("what", "shape"), [("narrow", (63, 62)), ("tall", (63, 5))])
def test_stamps_of_other_shapes_answer_in_their_own_shape(
    client: FlaskClient, what: str, shape: tuple[int, int]
) -> None:
    assert np.shape(ask_peculiar(client, what).json[0]) == shape
    for stretch in ("sigmoid", "linear"):
        drawn = picture(ask_peculiar(client, what, return_type="PNG", stretch=stretch))
        assert drawn.shape == shape


def test_a_stamp_that_was_stored_without_gzip_answers_as_it_is(client: FlaskClient) -> None:
    response = ask_peculiar(client, "plain", return_type="FITS")
    assert response.data[:6] == b"SIMPLE"
    assert np.shape(ask_peculiar(client, "plain").json[0]) == (63, 63)


def test_integer_images_answer_with_their_values(
    client: FlaskClient, archive: SampleArchive
) -> None:
    row = next(
        row
        for row in archive.rows["ztf/peculiar.parquet"]
        if str(row["candid"]) == peculiar_candid("integers")
    )
    expected = image_of(row["cutoutScience"]["stampData"])
    np.testing.assert_array_equal(ask_peculiar(client, "integers").json[0], expected)


def test_masked_pixels_are_null_in_json_that_any_parser_reads(client: FlaskClient) -> None:
    asked = {"hdfsPath": FIRST, "candid": ztf_alert(2)["candid"], "kind": "Science"}

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = ask(client, **asked, nan="null").text
    values = json.loads(text, parse_constant=refuse)[0]
    assert [row[-3:] for row in values] == [[None] * 3] * 63


def test_an_alert_without_a_time_is_found(client: FlaskClient) -> None:
    response = ask(client, hdfsPath="ztf/peculiar.parquet", objectId="ZTF24bbbbbbl", kind="Science")
    assert response.headers["X-Cutout-Id"] == peculiar_candid("no time")


# --- damaged files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cut_short", "empty", "noise"])
def test_a_damaged_file_is_502(client: FlaskClient, name: str) -> None:
    response = ask(
        client, hdfsPath=f"damaged/{name}.parquet", objectId="ZTF24aaaaaaa", kind="Science"
    )
    assert_problem(response, 502, "file_unreadable")


def test_a_damaged_page_is_502_and_the_rest_of_the_file_answers(
    client: FlaskClient, archive: SampleArchive
) -> None:
    name = "damaged/bad_page.parquet"
    rows = archive.rows[name]
    bad, good = rows[0], rows[-1]
    response = ask(client, hdfsPath=name, kind="Science", **ztf_keys(bad))
    problem = json.loads(response.data)
    assert (response.status_code, problem["code"]) in (
        (502, "file_unreadable"),
        (502, "stamp_unreadable"),
    )
    for kind, row in (("Template", bad), ("Science", good)):
        response = ask(client, hdfsPath=name, kind=kind, return_type="FITS", **ztf_keys(row))
        assert response.data == stored_fits(row, kind)


def test_a_file_of_another_kind_is_the_callers_mistake(client: FlaskClient) -> None:
    response = ask(client, hdfsPath="damaged/notes.txt", objectId="ZTF24aaaaaaa", kind="Science")
    assert_problem(response, 400, "not_parquet")


def test_a_folder_with_a_damaged_file_does_not_call_an_alert_the_newest(
    client: FlaskClient,
) -> None:
    asked = {"hdfsPath": "damaged", "kind": "Template"}
    assert_problem(ask(client, objectId="ZTF24aaaaaaa", **asked), 502, "file_unreadable")
    # By its own id there is no doubt which alert is meant.
    row = ztf_alert(0)
    response = ask(client, candid=row["candid"], return_type="FITS", **asked)
    assert response.data == stored_fits(row, "Template")


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../archive",
        "archive/../../etc/passwd",
        "..",
        "archive/..",
        "%2e%2e/etc",
        "archive/%252e%252e/%252e%252e/etc",
        "..%2fetc",
        "/etc/passwd",
        "/",
        "//etc//passwd",
        "/proc/self/environ",
        "hdfs://elsewhere:8020/archive",
        "hdfs://127.0.0.1:1/archive",
        "hdfs://user@localhost/archive",
        "hdfs:///archive",
        "s3://bucket/key",
        "http://localhost/archive",
        "file://elsewhere/etc/passwd",
        "webhdfs://localhost/archive",
        "FILE:/etc/passwd",
    ],
)
def test_there_is_no_way_out_of_the_archive(client: FlaskClient, path: str) -> None:
    response = ask(client, hdfsPath=path, objectId="ZTF24aaaaaaa", kind="Science")
    problem = assert_problem(response, 403, "path_forbidden")
    assert problem["parameter"] == "hdfsPath"


@pytest.mark.parametrize(
    "path", ["a\x00b", "archive\x00/../..", "a\nb", "archive\\..\\..", "x" * 5000, "\ud800"]
)
def test_what_cannot_be_a_path_is_400(client: FlaskClient, path: str) -> None:
    response = ask(client, hdfsPath=path, objectId="ZTF24aaaaaaa", kind="Science")
    assert_problem(response, 400, "invalid_parameter")


@pytest.mark.parametrize(
    "path",
    [
        "nothing.parquet",
        "nothing",
        f"{NIGHT}/part-00009.parquet",
        f"{FIRST}/below",
        "a" * 256,
        "b/" * 1000,
        "archive/%20",
        "~",
        "archive/*",
    ],
)
def test_a_path_where_nothing_is_is_404(client: FlaskClient, path: str) -> None:
    response = ask(client, hdfsPath=path, objectId="ZTF24aaaaaaa", kind="Science")
    assert_problem(response, 404, "file_not_found")


# --- malformed requests ------------------------------------------------------------------------

GOOD = {"hdfsPath": FIRST, "objectId": "ZTF24aaaaaaa", "kind": "Science"}

BAD_ARGUMENTS: list[tuple[Row, str, str | None]] = [
    ({"kind": None}, "missing_parameter", "kind"),
    ({"objectId": None}, "missing_parameter", "objectId"),
    ({"kind": "Sciense"}, "invalid_parameter", "kind"),
    ({"kind": 1}, "invalid_parameter", "kind"),
    ({"kind": ["Science"]}, "invalid_parameter", "kind"),
    ({"kind": {"a": 1}}, "invalid_parameter", "kind"),
    ({"objectId": "ZTF24"}, "invalid_parameter", "objectId"),
    ({"objectId": "ztf24aaaaaa"}, "invalid_parameter", "objectId"),
    ({"objectId": "ZTF24aaaaaaa' OR 1=1"}, "invalid_parameter", "objectId"),
    ({"objectId": 0}, "invalid_parameter", "objectId"),
    ({"objectId": 24, "candid": 5}, "conflicting_parameters", "candid"),
    ({"objectId": "ZTF\uff12\uff14aaaaaaa"}, "invalid_parameter", "objectId"),
    ({"candid": "12a"}, "invalid_parameter", "candid"),
    ({"candid": 1.5e18}, "invalid_parameter", "candid"),
    ({"candid": True}, "invalid_parameter", "candid"),
    ({"candid": 2**63}, "invalid_parameter", "candid"),
    ({"candid": 10**400}, "invalid_parameter", "candid"),
    ({"candid": "9" * 400}, "invalid_parameter", "candid"),
    ({"candid": "1_000"}, "invalid_parameter", "candid"),
    ({"candid": "١٢٣"}, "invalid_parameter", "candid"),
    ({"candid": "0x10"}, "invalid_parameter", "candid"),
    ({"candid": []}, "invalid_parameter", "candid"),
    ({"return_type": "JPG"}, "invalid_parameter", "return_type"),
    ({"output-format": "tiff"}, "invalid_parameter", "output-format"),
    ({"return_type": "array", "output-format": "array"}, "conflicting_parameters", "output-format"),
    ({"diaSourceId": "1"}, "conflicting_parameters", "diaSourceId"),
    ({"stretch": "sqroot"}, "invalid_parameter", "stretch"),
    ({"colormap": "viridus"}, "invalid_parameter", "colormap"),
    ({"colormap": "__class__"}, "invalid_parameter", "colormap"),
    ({"convolution_kernel": "gaus"}, "invalid_parameter", "convolution_kernel"),
    ({"pmin": "low"}, "invalid_parameter", "pmin"),
    ({"pmin": -1}, "invalid_parameter", "pmin"),
    ({"pmax": 101}, "invalid_parameter", "pmax"),
    ({"pmax": "nan"}, "invalid_parameter", "pmax"),
    ({"pmax": True}, "invalid_parameter", "pmax"),
    ({"pmin": 99.9}, "invalid_parameter", "pmin"),
    ({"pmin": 50, "pmax": 50}, "invalid_parameter", "pmin"),
    ({"pmin": 10**400}, "invalid_parameter", "pmin"),
    ({"hdfsPath": 5}, "invalid_parameter", "hdfsPath"),
    ({"hdfspath": "x"}, "unknown_parameter", "hdfspath"),
    ({"colormapp": "Blues"}, "unknown_parameter", "colormapp"),
    ({"color": "red", "strict": 1}, "unknown_parameter", "color"),
    ({"\ud800": 1, "strict": 1}, "unknown_parameter", None),
    ({"x" * 10_000: 1, "strict": 1}, "unknown_parameter", None),
]


@pytest.mark.parametrize(("change", "code", "parameter"), BAD_ARGUMENTS)
def test_bad_arguments_are_400_and_named(
    client: FlaskClient, change: Row, code: str, parameter: str | None
) -> None:
    problem = assert_problem(client.post(ROUTE, json=GOOD | change), 400, code)
    if parameter:
        assert problem["parameter"] == parameter
    assert len(json.dumps(problem)) < 8_000


@pytest.mark.parametrize(
    ("change", "suggestion"),
    [
        ({"kind": "Sciense"}, "Science"),
        ({"colormap": "viridus"}, "viridis"),
        ({"colormap": "blues"}, "Blues"),
        ({"stretch": "sigmoyd"}, "sigmoid"),
        ({"hdfspath": "x"}, "hdfsPath"),
        ({"output_format": "x"}, "output-format"),
        ({"diasourceid": "1"}, "diaSourceId"),
    ],
)
def test_what_was_probably_meant_is_suggested(
    client: FlaskClient, change: Row, suggestion: str
) -> None:
    problem = client.post(ROUTE, json=GOOD | change).json
    assert problem["suggestion"] == suggestion
    assert suggestion in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"12",
        b'{"candid": NaN}',
        b'{"kind": "Science"} trailing',
        b"\xff\xfe\x00",
        b'{"kind": "\xff"}',
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b'{"candid": ' + b"9" * 5_000 + b"}",
        b"[[1, 2], [3, 4]]",
    ],
)
def test_a_body_that_is_no_json_object_is_400(client: FlaskClient, body: bytes) -> None:
    response = client.post(ROUTE, data=body, content_type="application/json")
    assert_problem(response, 400, "malformed_body")


def test_a_name_given_twice_with_two_values_is_refused(client: FlaskClient) -> None:
    body = b'{"hdfsPath": "x", "kind": "Science", "candid": 1, "candid": 2}'
    response = client.post(ROUTE, data=body, content_type="application/json")
    assert_problem(response, 400, "conflicting_parameters")
    response = client.get(f"{ROUTE}?kind=Science&kind=Template")
    assert_problem(response, 400, "conflicting_parameters")
    response = client.post(f"{ROUTE}?kind=Template", json=GOOD)
    assert_problem(response, 400, "conflicting_parameters")


def test_other_media_types_are_415(client: FlaskClient) -> None:
    for media_type in ("text/plain", "application/xml", ""):
        response = client.post(ROUTE, data=b'{"kind": "Science"}', content_type=media_type)
        problem = assert_problem(response, 415, "unsupported_media_type")
        assert "application/json" in problem["allowed"]


def test_json_sent_as_a_form_is_told_how_to_send_it(client: FlaskClient) -> None:
    # What curl does with -d and no header.
    response = client.post(
        ROUTE,
        data=json.dumps(GOOD),
        content_type="application/x-www-form-urlencoded",
    )
    problem = assert_problem(response, 400, "malformed_body")
    assert "Content-Type: application/json" in problem["detail"]


def test_nested_values_are_refused_however_deep(client: FlaskClient) -> None:
    for depth in (1, 700, 900):
        body = '{"kind":' + '{"a":' * depth + "1" + "}" * depth + "}"
        response = client.post(ROUTE, data=body, content_type="application/json")
        problem = assert_problem(response, 400, "invalid_parameter")
        assert problem["parameter"] == "kind"


def test_the_same_value_as_text_and_as_a_number_is_no_contradiction(client: FlaskClient) -> None:
    candid = ztf_alert(0)["candid"]
    response = client.post(f"{ROUTE}?candid={candid}", json=GOOD | {"candid": candid})
    assert response.status_code == 200


def test_what_is_meant_for_writers_changes_nothing(client: FlaskClient) -> None:
    for headers in (
        {"If-Match": '"x"'},
        {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ):
        response = client.get(ROUTE, query_string=ASKED, headers=headers)
        assert response.status_code == 200
        assert response.data == client.get(ROUTE, query_string=ASKED).data


def test_no_answer_tells_where_the_archive_is_on_the_server(
    client: FlaskClient, archive: SampleArchive
) -> None:
    for path in ("damaged/cut_short.parquet", "damaged/notes.txt", "nothing", "damaged"):
        response = ask(client, hdfsPath=path, objectId="ZTF24aaaaaaa", kind="Science")
        assert response.status_code >= 400
        assert str(archive.folder) not in response.text
        assert "/user/" not in response.text


def test_a_body_that_is_too_large_is_413(client: FlaskClient) -> None:
    body = json.dumps(GOOD | {"hdfsPath": "x" * 70_000})
    response = client.post(ROUTE, data=body, content_type="application/json")
    problem = assert_problem(response, 413, "body_too_large")
    assert "65536" in problem["detail"]
    response = client.post(ROUTE, data={"hdfsPath": "x" * 70_000})
    assert_problem(response, 413, "body_too_large")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_405_and_told_which_are_allowed(client: FlaskClient, method: str) -> None:
    response = client.open(ROUTE, method=method)
    assert_problem(response, 405, "method_not_allowed")
    assert {"GET", "HEAD", "POST"} <= set(response.headers["Allow"].split(", "))


def test_other_addresses_are_404(client: FlaskClient) -> None:
    for address in (
        "/api/v1/cutout",
        "/api/v2/cutouts",
        "/docs/assets/nothing",
        "/%00",
        "/static/../app.py",
    ):
        assert_problem(client.get(address), 404, "route_not_found")


# --- ids written as files are named ------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, {"kind": "Science"}, {"kind": "science"}])
def test_an_alert_id_may_be_written_as_its_file_is_named(
    client: FlaskClient, archive: SampleArchive, kind: dict[str, str]
) -> None:
    source = archive.rows["lsst/nested.parquet"][0]["diaSourceId"]
    query = {"hdfsPath": "lsst/nested.parquet", "return_type": "FITS"}
    plain = client.get(
        "/api/v1/cutouts", query_string=query | {"diaSourceId": source, "kind": "Science"}
    )
    for name in (f"{source}_cutoutScience", f" {source}_cutoutscience"):
        named = client.get("/api/v1/cutouts", query_string=query | {"diaSourceId": name} | kind)
        assert (named.status_code, named.data) == (200, plain.data)
        assert named.headers["Content-Disposition"] == plain.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("12_cutoutScience", "Template", "conflicting_parameters"),
        ("12_cutoutScience", "All", "conflicting_parameters"),
        ("12_cutoutSciense", "Science", "invalid_parameter"),
        ("_cutoutScience", "Science", "invalid_parameter"),
        ("12_cutoutScience_cutoutScience", "Science", "invalid_parameter"),
    ],
)
def test_a_name_that_contradicts_the_kind_is_refused(
    client: FlaskClient, name: str, kind: str, code: str
) -> None:
    answer = client.get(
        f"/api/v1/cutouts?hdfsPath=lsst/nested.parquet&diaSourceId={name}&kind={kind}"
    )
    assert (answer.status_code, answer.json["code"]) == (400, code)
