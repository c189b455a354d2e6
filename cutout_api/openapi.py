"""The OpenAPI 3.1 document, made of the tables that validate requests and answer errors."""

from __future__ import annotations

from functools import cache
from typing import Any

from . import __version__
from .errors import CutoutError, error_classes
from .request import PARAMETERS, Parameter
from .surveys import SURVEYS

PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "text"],
    "properties": {
        "type": {"type": "string", "description": "Address of the page that explains the code"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was sought, where, and the remedy"},
        "code": {"type": "string", "enum": sorted(cls.code for cls in error_classes())},
        "parameter": {"type": "string", "description": "The parameter at fault"},
        "allowed": {"type": "array", "items": {"type": "string"}},
        "suggestion": {"type": "string", "description": "The nearest right spelling"},
        "freshness": {
            "type": "string",
            "format": "date-time",
            "description": "When the catalog was last brought up to date",
        },
        "text": {"type": "string", "description": "As detail; older clients read it here"},
    },
}

_PIXELS = {
    "type": "array",
    "description": "Rows of pixels, row 0 first as FITS stores it; null where masked",
    "items": {"type": "array", "items": {"type": ["number", "null"]}},
}
_ARGS = {
    "type": "object",
    "description": "Without any argument: what the arguments are",
    "required": ["args"],
    "properties": {"args": {"type": "array", "items": {"type": "object"}}},
}
_ARRAYS = {
    "oneOf": [
        {"title": "return_type=array", "type": "array", "items": _PIXELS},
        {
            "title": "epochs=all",
            "type": "array",
            "items": {
                "type": "object",
                "description": "An alert: its id, its time, and its stamps, null where missing",
                "patternProperties": {"^b:cutout": {"oneOf": [_PIXELS, {"type": "null"}]}},
            },
        },
        {
            "title": "output-format=array",
            "type": "object",
            "patternProperties": {"^b:cutout": _PIXELS},
            "additionalProperties": False,
            "minProperties": 1,
        },
    ]
}
_BINARY: dict[str, Any] = {}


@cache
def describe_service() -> dict[str, Any]:
    """Return the whole document, ready for JSON."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cutout API",
            "version": __version__,
            "description": "Hands out the stamps of astronomical alerts: Science, Template, "
            "Difference, as an array, the FITS file, or a picture.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/api/v1/cutouts": {
                "get": {
                    "operationId": "getCutouts",
                    "tags": ["cutouts"],
                    "summary": "The stamps of one alert",
                    "description": "Without any argument: what the arguments are.",
                    "parameters": [_query(parameter) for parameter in PARAMETERS.values()],
                    "responses": _responses({"oneOf": [_ARGS, *_ARRAYS["oneOf"]]}),
                },
                "post": {
                    "operationId": "postCutouts",
                    "tags": ["cutouts"],
                    "summary": "The stamps of one alert",
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {"schema": _body(), "example": _example()},
                            "application/x-www-form-urlencoded": {"schema": _body()},
                        },
                    },
                    "responses": _responses(_ARRAYS),
                },
            },
            "/healthz": {"get": _plain("getHealth", "The process answers", "application/json")},
            "/readyz": {
                "get": _plain("getReadiness", "The archive answers", "application/json", (503, 504))
            },
            "/metrics": {"get": _plain("getMetrics", "Prometheus metrics", "text/plain")},
        },
        "components": {"schemas": {"Problem": PROBLEM_SCHEMA}},
    }


def _query(parameter: Parameter) -> dict[str, Any]:
    entry = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        # Never required here: without any argument the route describes itself.
        "required": False,
        "schema": _schema(parameter),
    }
    if parameter.example is not None:
        entry["example"] = parameter.example
    return entry


def _schema(parameter: Parameter) -> dict[str, Any]:
    schema = dict(parameter.schema)
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def _body() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            parameter.name: {**_schema(parameter), "description": parameter.description}
            for parameter in PARAMETERS.values()
        },
        "required": [parameter.name for parameter in PARAMETERS.values() if parameter.required],
        "additionalProperties": False,
        "allOf": [
            # The ids of one survey, and one dialect.
            {
                "oneOf": [
                    {"anyOf": [{"required": [key.name]} for key in survey.keys]}
                    for survey in SURVEYS
                ]
            },
            {"not": {"required": ["return_type", "output-format"]}},
        ],
    }


def _example() -> dict[str, Any]:
    names = ("hdfsPath", "objectId", "kind", "return_type")
    return {name: PARAMETERS[name].example for name in names}


def _responses(array_schema: dict[str, Any]) -> dict[str, Any]:
    headers = {
        "ETag": {"schema": {"type": "string"}},
        "Cache-Control": {"schema": {"type": "string"}},
        "X-Cutout-Id": {
            "description": "The alert that was chosen",
            "schema": {"type": "string"},
        },
        "X-Cutout-Time": {
            "description": "Its time: JD in UTC for ZTF, MJD in TAI for LSST",
            "schema": {"type": "number"},
        },
    }
    found = {
        "200": {
            "description": "The stamps",
            "headers": headers,
            "content": {
                "application/json": {"schema": array_schema},
                "application/octet-stream": {"schema": _BINARY},
                "application/fits": {"schema": _BINARY},
                "image/png": {"schema": _BINARY},
            },
        },
        "304": {"description": "The copy that If-None-Match names is still right"},
    }
    statuses = {cls.status for cls in error_classes()} - {405, 414}
    return found | {str(status): _problem(status) for status in sorted(statuses)}


def _problem(status: int) -> dict[str, Any]:
    def line(cls: type[CutoutError]) -> str:
        return f"`{cls.code}`: {cls.title}"

    lines = [line(cls) for cls in error_classes() if cls.status == status]
    return {
        "description": "; ".join(lines),
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }


def _plain(
    operation: str, summary: str, media_type: str, errors: tuple[int, ...] = ()
) -> dict[str, Any]:
    return {
        "operationId": operation,
        "tags": ["operations"],
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": {media_type: {}}},
            **{str(status): _problem(status) for status in (400, *errors)},
        },
    }
