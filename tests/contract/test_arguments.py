"""Arguments that no route has: clients of today send them, and nobody may misspell one of ours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from flask.testing import FlaskClient

from cutout_api.openapi import describe_service
from cutout_api.settings import Archive, Settings
from cutout_api.web import create_app

from ..archive import NIGHT
from ..catalogue import catalogued
from ..samples import REAL_DATA, lsst_alert

Payload = dict[str, Any]

HEADER = "X-Unknown-Arguments"
CUTOUTS = "/api/v1/cutouts"
OBJECT = "ZTF24aaaaaaa"
SOURCE = str(lsst_alert(0)["diaSourceId"])
LSST_OBJECT = str(lsst_alert(0)["diaSource"]["diaObjectId"])

# Each reading route, asked for something that is there: method, route, arguments.
GOOD: list[tuple[str, str, Payload]] = [
    ("GET", CUTOUTS, {"objectId": OBJECT, "kind": "Science"}),
    ("POST", CUTOUTS, {"diaSourceId": SOURCE, "kind": "Science", "output-format": "array"}),
    (
        "POST",
        CUTOUTS,
        {"hdfsPath": f"{NIGHT}/part-00000.snappy.parquet", "objectId": OBJECT, "kind": "All"},
    ),
    ("GET", f"{CUTOUTS}/info", {"objectId": OBJECT}),
    ("POST", f"{CUTOUTS}/batch", {"objectId": [OBJECT], "kind": "Science"}),
    ("GET", "/api/v1/identify", {"id": OBJECT}),
    ("GET", "/api/v1/objects", {"objectId": OBJECT, "columns": "i:jd"}),
    ("POST", "/api/v1/objects", {"objectId": OBJECT, "columns": "i:jd"}),
    ("POST", "/api/v1/objects", {"diaObjectId": LSST_OBJECT}),
    ("GET", "/api/v1/sources", {"diaObjectId": LSST_OBJECT}),
    ("POST", "/api/v1/sources", {"diaObjectId": LSST_OBJECT}),
    ("POST", "/api/v1/fp", {"diaObjectId": LSST_OBJECT}),
    ("GET", "/api/v1/schema", {"survey": "ztf"}),
    ("POST", "/api/v1/schema", {"endpoint": "/api/v1/sources"}),
    ("GET", "/api/v1/columns", {"survey": "lsst"}),
]
# Which of the arguments below mean something to a route.
MEANT = {
    CUTOUTS: {"date"},
    f"{CUTOUTS}/batch": {"date"},
    "/api/v1/identify": {"id"},
    "/api/v1/schema": {"endpoint", "major_version", "minor_version"},
}

# What clients of today send to one route or another, and no route here has.
OF_TODAY = """
startdate stopdate cols unused window n class trend color start_date stop_date withEphem
withResiduals n_or_d ra dec radius date id tag version schema name name_or_id resolver reverse
nmax file event_name credible_level n_day_before n_day_after ssoCandId maxnumber sso_name
sso_number flavor major_version minor_version endpoint internal_name comments username
withCutouts
""".split()  # noqa: SIM905
# What they send that is understood somewhere here, and elsewhere today passed over.
SHARED = """
output-format columns withcutouts withupperlim cutout-kind kind candid stretch colormap pmin pmax
convolution_kernel midpointMjdTai return_type
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def everything(local_settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(catalogued(local_settings, "archive", "lsst"))
    yield app.test_client()
    app.extensions["cutout_reader"].close()


def ask(client: FlaskClient, method: str, route: str, payload: Payload) -> Any:
    if method == "POST":
        return client.post(route, json=payload)
    return client.open(route, method=method, query_string=payload)


def passed_over(answer: Any) -> list[str]:
    return [unquote(name) for name in answer.headers.get(HEADER, "").split(",") if name]


def assert_same_as_without(client: FlaskClient, call: Any, more: Payload) -> None:
    method, route, payload = call
    plain, given = ask(client, *call), ask(client, method, route, payload | more)
    assert plain.status_code == 200, plain.text
    assert given.status_code == 200, given.text
    assert (given.data, given.mimetype) == (plain.data, plain.mimetype)
    assert sorted(passed_over(given)) == sorted(more)
    assert HEADER not in plain.headers


@pytest.mark.parametrize("call", GOOD, ids=[f"{call[0]} {call[1]}" for call in GOOD])
def test_what_clients_of_today_send_is_passed_over_and_named(
    everything: FlaskClient, call: Any
) -> None:
    more = {name: "1" for name in OF_TODAY if name not in MEANT.get(call[1], ())}
    assert_same_as_without(everything, call, more)


@pytest.mark.parametrize("call", GOOD, ids=[f"{call[0]} {call[1]}" for call in GOOD])
@pytest.mark.parametrize("name", SHARED)
def test_an_older_argument_of_another_route_is_never_unknown_in_vain(
    everything: FlaskClient, call: Any, name: str
) -> None:
    method, route, payload = call
    if name in payload:
        return
    answer = ask(everything, method, route, payload | {name: "Science"})
    if answer.status_code == 200:
        assert passed_over(answer) in ([name], [])  # or it is understood
    else:
        assert answer.json["code"] != "unknown_parameter", answer.text


@pytest.mark.parametrize("call", GOOD, ids=[f"{call[0]} {call[1]}" for call in GOOD])
def test_strict_refuses_every_name(everything: FlaskClient, call: Any) -> None:
    method, route, payload = call
    for value in (1, "1", "true", "YES"):
        answer = ask(everything, method, route, payload | {"cols": "x", "strict": value})
        assert (answer.status_code, answer.json["code"]) == (400, "unknown_parameter")
        assert (answer.json["parameter"], passed_over(answer)) == ("cols", ["cols"])
    assert ask(everything, method, route, payload | {"strict": 1}).status_code == 200
    assert ask(everything, method, route, payload | {"cols": "", "strict": "0"}).status_code == 200
    answer = ask(everything, method, route, payload | {"strict": "perhaps"})
    assert (answer.status_code, answer.json["parameter"]) == (400, "strict")


SLIPS = [
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "colormapp", "colormap"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "output_format", "output-format"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "ouput-format", "output-format"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "outputFormat", "output-format"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "format", "output-format"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "kernel", "convolution_kernel"),
    ({"objectId": OBJECT}, "objects", "Format", "output-format"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "Kind", "kind"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "kinds", "kind"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "strech", "stretch"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "bnad", "band"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "strickt", "strict"),
    ({"objectId": OBJECT, "kind": "Science"}, "cutouts", "hdfspath", "hdfsPath"),
    ({"objectId": OBJECT}, "cutouts/info", "Kind", "kind"),
    ({"objectId": OBJECT}, "objects", "colunms", "columns"),
    ({"objectId": OBJECT}, "objects", "with_cutouts", "withcutouts"),
    ({"objectId": OBJECT}, "objects", "withuperlim", "withupperlim"),
    ({"diaObjectId": LSST_OBJECT}, "sources", "midpointMjdTAI", "midpointMjdTai"),
    ({"diaObjectId": LSST_OBJECT}, "sources", "outptu-format", "output-format"),
    ({"id": OBJECT}, "identify", "ID", "id"),
    ({}, "schema", "surveys", "survey"),
    ({}, "columns", "Survey", "survey"),
]


@pytest.mark.parametrize(("payload", "route", "slip", "meant"), SLIPS)
def test_a_slip_for_an_argument_of_ours_is_refused(
    everything: FlaskClient, payload: Payload, route: str, slip: str, meant: str
) -> None:
    answer = everything.get(f"/api/v1/{route}", query_string=payload | {"unused": "1", slip: "x"})
    problem = answer.json
    assert (answer.status_code, problem["code"]) == (400, "unknown_parameter")
    assert (problem["parameter"], problem["suggestion"]) == (slip, meant)
    assert passed_over(answer) == ["unused", slip]


@pytest.mark.parametrize(
    ("method", "route", "payload"),
    [
        ("GET", f"{CUTOUTS}/info", {"objectId": OBJECT, "labels": "all"}),
        ("POST", f"{CUTOUTS}/batch", {"objectId": [OBJECT], "kind": "Science", "epochs": "all"}),
        ("GET", "/api/v1/objects", {"objectId": OBJECT, "band": "r"}),
        ("GET", "/api/v1/columns", {"survey": "ztf", "preset": "ds9"}),
    ],
)
def test_what_only_this_service_has_is_refused_where_it_means_nothing(
    everything: FlaskClient, method: str, route: str, payload: Payload
) -> None:
    answer = ask(everything, method, route, payload)
    assert (answer.status_code, answer.json["code"]) == (400, "unknown_parameter")
    assert answer.json["parameter"] == list(payload)[-1]


def test_a_known_argument_that_means_nothing_to_a_format_stays_as_it_is(
    everything: FlaskClient,
) -> None:
    asked = {"objectId": OBJECT, "kind": "Science", "output-format": "FITS"}
    plain = everything.get(CUTOUTS, query_string=asked)
    given = everything.get(CUTOUTS, query_string=asked | {"stretch": "log"})
    assert given.data == plain.data
    assert HEADER not in given.headers


def test_the_value_of_an_unknown_argument_may_be_anything(everything: FlaskClient) -> None:
    asked = {"objectId": OBJECT, "kind": "Science"}
    expected = everything.post(CUTOUTS, json=asked).data
    values: list[Any] = [None, "", [], [[1]], {"a": {"b": 1}}, 1e300, True, "x" * 30_000, "\ud800"]
    for value in values:
        answer = everything.post(CUTOUTS, json=asked | {"unused": value})
        assert (answer.status_code, answer.data) == (200, expected)
        assert passed_over(answer) == ["unused"]
    answer = everything.get(f"{CUTOUTS}?objectId={OBJECT}&kind=Science&n=1&n=2")
    assert (answer.status_code, passed_over(answer)) == (200, ["n"])


def test_they_are_passed_over_however_they_come(everything: FlaskClient) -> None:
    asked = {"objectId": OBJECT, "kind": "Science"}
    expected = everything.post(CUTOUTS, json=asked).data
    for answer in (
        everything.post(CUTOUTS, data=asked | {"cols": "b:x", "unused": "1"}),
        everything.post(f"{CUTOUTS}?cols=b:x&unused=1", json=asked),
        everything.post(f"{CUTOUTS}?cols=b:x", json=asked | {"unused": 1}),
        everything.post(
            CUTOUTS, data=asked | {"cols": "", "unused": "1"}, content_type="multipart/form-data"
        ),
    ):
        assert (answer.status_code, answer.data) == (200, expected)
        assert passed_over(answer) == ["cols", "unused"]
    head = everything.head(CUTOUTS, query_string=asked | {"cols": "x"})
    assert (head.status_code, head.data, passed_over(head)) == (200, b"", ["cols"])
    address = f"{CUTOUTS}/batch?kind=Science&unused=1&ids=objectId"
    for answer in (
        everything.post(address, data=OBJECT, content_type="text/plain"),
        everything.post(
            address, data={"file": (io.BytesIO(OBJECT.encode()), "ids.txt"), "cols": "x"}
        ),
    ):
        assert answer.status_code == 200
        assert passed_over(answer)[0] == "unused"


def test_an_answer_that_holds_still_says_what_was_passed_over(everything: FlaskClient) -> None:
    address = f"{CUTOUTS}?objectId={OBJECT}&kind=Science&cols=1"
    tag = everything.get(address).headers["ETag"]
    again = everything.get(address, headers={"If-None-Match": tag})
    assert (again.status_code, passed_over(again)) == (304, ["cols"])


def test_errors_say_it_too(everything: FlaskClient) -> None:
    for query, status in (
        ("cols=1&unused=2", 400),
        ("cols=1&unused=2&objectId=ZTF24zzzzzzz&kind=Science", 404),
        (f"cols=1&unused=2&objectId={OBJECT}&kind=Sciense", 400),
    ):
        answer = everything.get(f"{CUTOUTS}?{query}")
        assert (answer.status_code, passed_over(answer)) == (status, ["cols", "unused"])
        assert answer.json.get("parameter") not in ("cols", "unused")


def test_a_header_made_of_names_is_harmless_and_bounded(everything: FlaskClient) -> None:
    asked = {"objectId": OBJECT, "kind": "Science"}
    odd = ["a b", "a,b", "a\r\nSet-Cookie: x=1", "\x00", "ü", "\u202e", "\ud800", "%41", "é" * 9]
    answer = everything.post(CUTOUTS, json=asked | dict.fromkeys(odd, 1))
    assert answer.status_code == 200
    assert answer.headers[HEADER].isascii()
    assert "Set-Cookie" not in answer.headers
    assert set(passed_over(answer)) == {name.replace("\ud800", "\ufffd") for name in odd}
    for names in (["x" * 30_000], [f"x{n}" for n in range(3_000)], ["é" * 200, "ü" * 200]):
        answer = everything.post(CUTOUTS, json=asked | dict.fromkeys(names, 1))
        assert answer.status_code == 200
        assert 0 < len(answer.headers[HEADER]) < 2_100
    answer = everything.post(CUTOUTS, json=asked | {"": 1})
    assert answer.status_code == 200


def test_the_batch_asked_by_get_describes_itself_and_takes_no_ids(everything: FlaskClient) -> None:
    answer = everything.get(f"{CUTOUTS}/batch?unused=1")
    assert "args" in answer.json
    assert passed_over(answer) == ["unused"]
    answer = everything.get(f"{CUTOUTS}/batch?candid=1&kind=Science")
    assert (answer.status_code, answer.json["code"]) == (400, "unknown_parameter")


def test_browsers_may_read_the_header_and_the_document_has_it(everything: FlaskClient) -> None:
    answer = everything.get(
        f"{CUTOUTS}?objectId={OBJECT}&kind=Science&n=1", headers={"Origin": "https://a.example"}
    )
    assert HEADER in answer.headers["Access-Control-Expose-Headers"]
    paths = describe_service()["paths"]
    for method, route, _ in GOOD:
        answers = paths[route][method.lower()]["responses"]
        assert HEADER in answers["200"]["headers"], route
    body = paths[CUTOUTS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body.get("additionalProperties", True)
    args = {arg["name"] for arg in everything.get(CUTOUTS).json["args"]}
    assert "strict" in args


# --- the calls of the notebooks, on real alerts


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the folder of real alerts is not here")
def test_the_calls_of_notebooks_answer_on_real_alerts() -> None:
    settings = Settings(archive=Archive(uri=f"file://{REAL_DATA}"))
    client = create_app(catalogued(settings)).test_client()
    path = "ztf_spark_1.10.parquet"
    asked = {"objectId": "ZTF18aaqfhlj", "withupperlim": "True"}
    dates = {"startdate": "2021-03-01", "stopdate": "2021-03-05"}
    expected = client.post("/api/v1/objects", json=asked)
    answer = client.post("/api/v1/objects", json=asked | dates)
    assert answer.status_code == 200
    assert len(answer.json) > 0
    assert (answer.data, passed_over(answer)) == (expected.data, ["startdate", "stopdate"])
    cols = {"withcutouts": "True", "cols": "b:cutoutScience_stampData"}
    answer = client.post("/api/v1/objects", json={"objectId": "ZTF18aaqfhlj"} | cols)
    assert "b:cutoutScience_stampData" in answer.json[0]
    stamp = {"hdfsPath": path, "objectId": "ZTF18aaqfhlj", "kind": "Science", "unused": 1}
    answer = client.post(CUTOUTS, json=stamp)
    assert (answer.status_code, passed_over(answer)) == (200, ["unused"])
    assert len(answer.json[0]) == 63
    client.application.extensions["cutout_reader"].close()
