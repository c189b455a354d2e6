"""The OpenAPI document is true: Schemathesis asks what it allows, and more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from cutout_api.openapi import describe_service
from cutout_api.request import PARAMETERS, Parameter
from cutout_api.settings import Settings
from cutout_api.surveys import SURVEYS
from cutout_api.table_request import TABLE_PARAMETERS
from cutout_api.web import create_app

from ..archive import NIGHT
from ..catalogue import catalogued
from ..samples import lsst_alert


@pytest.fixture(scope="module")
def app(local_settings: Settings) -> Flask:
    return create_app(catalogued(local_settings, "archive", "lsst"))


OPERATIONS = [
    (path, method) for path, methods in describe_service()["paths"].items() for method in methods
]


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_the_document_allows_and_what_it_forbids_never_fails(
    app: Flask, path: str, method: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    operation = schema[path][method.upper()]
    if mode is GenerationMode.NEGATIVE and "parameters" not in operation.definition.raw:
        mode = GenerationMode.POSITIVE

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=120, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case) -> None:
        # 5xx, undocumented statuses and media types, answers against their schema. JSON Schema
        # cannot say that pmin is below pmax, or what is a path, so not all it allows is accepted.
        # And an empty value counts as none given, a name's case does not matter: where nothing else
        # is missing, more is accepted than the schema says.
        lenient = [] if path == "/api/v1/cutouts" else [negative_data_rejection]
        case.call_and_validate(
            headers={"Accept-Encoding": "identity"},
            excluded_checks=[positive_data_acceptance, *lenient],
        )

    ask()


VALUES = {
    "hdfsPath": st.sampled_from(
        [f"{NIGHT}/part-00000.snappy.parquet", "archive", "lsst/nested.parquet", "ztf"]
    ),
    "objectId": st.sampled_from(["ZTF24aaaaaaa", "ZTF24aaaaaac"]),
    "candid": st.sampled_from(["2656254792815010000", 2656254792815010002]),
    "diaSourceId": st.sampled_from([lsst_alert(n)["diaSourceId"] for n in range(8)]),
    "labels": st.sampled_from(["all", "none", "date,compass"]),
    "explain": st.sampled_from([0, "1"]),
    "size": st.sampled_from([20, "300"]),
    "zoom": st.sampled_from([0.5, "3"]),
    "diaObjectId": st.just(str(lsst_alert(0)["diaSource"]["diaObjectId"])),
}


IDS = {key.name for survey in SURVEYS for key in survey.keys}


@st.composite
def payloads(
    draw: st.DrawFn, parameters: Mapping[str, Parameter] = PARAMETERS, values: Any = VALUES
) -> dict[str, Any]:
    """Payloads made of good values, and of anything JSON can hold."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    )
    payload = {}
    for name, parameter in parameters.items():
        # An alert's ids in half of the cases; of the many options a few at a time, for most of
        # them exclude one another.
        wanted = draw(st.booleans()) if name in IDS else draw(st.integers(0, 9)) == 9
        if not wanted and not parameter.required:
            continue
        good = values.get(name, st.sampled_from(parameter.allowed or (1, "99.5", 50.0)))
        payload[name] = draw(good if draw(st.integers(0, 9)) else anything)
    return payload


def test_any_payload_is_answered_or_refused_in_words(app: Flask) -> None:
    client = app.test_client()
    statuses = set()

    @given(payloads())
    @settings(max_examples=400)
    def ask(payload: dict[str, Any]) -> None:
        for send in (
            lambda: client.post("/api/v1/cutouts", json=payload),
            lambda: client.get(
                "/api/v1/cutouts", query_string={k: str(v) for k, v in payload.items()}
            ),
        ):
            response = send()
            statuses.add(response.status_code)
            assert response.status_code < 500, response.text
            assert response.data
            if response.status_code >= 400:
                assert response.mimetype == "application/problem+json"

    ask()
    assert {200, 400} <= statuses


TABLE_VALUES = {
    "objectId": st.sampled_from(["ZTF24aaaaaaa", "ZTF24aaaaaac,ZTF24aaaaaab", ["ZTF24aaaaaaa"]]),
    "diaObjectId": st.just(str(lsst_alert(0)["diaSource"]["diaObjectId"])),
    "columns": st.sampled_from(["i:jd", "r:midpointMjdTai,i:jd", "v:lastdate,i:nothing", "*"]),
    "withcutouts": st.sampled_from([True, "True", "0", False]),
    "withupperlim": st.sampled_from([True, "1", "false"]),
    "midpointMjdTai": st.sampled_from([60_900.25, "60901.25"]),
}


@pytest.mark.parametrize("route", TABLE_PARAMETERS)
def test_any_payload_for_a_table_is_answered_or_refused_in_words(app: Flask, route: str) -> None:
    client = app.test_client()
    statuses = set()

    @given(payloads(TABLE_PARAMETERS[route], TABLE_VALUES))
    @settings(max_examples=300)
    def ask(payload: dict[str, Any]) -> None:
        for send in (
            lambda: client.post(f"/api/v1/{route}", json=payload),
            lambda: client.get(
                f"/api/v1/{route}", query_string={k: str(v) for k, v in payload.items()}
            ),
        ):
            response = send()
            statuses.add(response.status_code)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.mimetype == "application/problem+json"

    ask()
    assert {200, 400} <= statuses


def test_the_document_has_every_parameter_and_code() -> None:
    document = describe_service()
    assert document["openapi"].startswith("3.1")
    operations = document["paths"]["/api/v1/cutouts"]
    assert [entry["name"] for entry in operations["get"]["parameters"]] == list(PARAMETERS)
    body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(body["properties"]) == list(PARAMETERS)


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(describe_service()).validate()
