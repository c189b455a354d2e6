"""The OpenAPI 3.1 document, made of the tables that validate requests and answer errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import combinations
from typing import Any

from . import __version__
from .batch_formats import PACKAGES
from .batch_request import BATCH_PARAMETERS, FILE_PART
from .errors import CutoutError, error_classes
from .formatter import FORMATS
from .request import IDENTIFY_PARAMETERS, INFO_PARAMETERS, PARAMETERS, Parameter
from .surveys import KEYS, SURVEYS, TABLES
from .table_formats import TABLE_FORMATS
from .table_request import COLUMN_PARAMETERS, SCHEMA_PARAMETERS, TABLE_PARAMETERS

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
    "description": "Rows of pixels, row 0 first as FITS stores it. Where masked null, or, with "
    "nan=NaN and for callers that do not name application/json, NaN, which is not JSON",
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
        {
            "title": "explain=1",
            "type": "object",
            "required": ["software", "request", "survey", "kinds"],
            "properties": {"request": {"type": "string"}, "kinds": {"type": "array"}},
        },
    ]
}
_INFO = {
    "type": "object",
    "required": ["software", "survey", "alert", "stamps", "flags"],
    "properties": {
        "alert": {"type": "object"},
        "stamps": {"type": "array", "items": {"type": "object"}},
        "flags": {"type": "object"},
    },
}
_IDENTITY = {
    "type": "object",
    "required": ["id", "matches"],
    "properties": {
        "id": {"type": "string"},
        "matches": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["survey", "key", "value", "epochs"],
                "properties": {
                    "survey": {"type": "string", "enum": [survey.name for survey in SURVEYS]},
                    "key": {"type": "string"},
                    "value": {"type": "string"},
                    "epochs": {"type": "array", "items": {"type": "object"}},
                },
            },
        },
    },
}
_BINARY: dict[str, Any] = {}
_VIEWS = [view for views in TABLES.values() for view in views]
_PREFIXES = "^[{}]:".format("".join(sorted({prefix[0] for it in _VIEWS for prefix in it.prefixes})))
_PASSED_OVER = {
    "X-Unknown-Arguments": {
        "description": "The names of arguments that the route does not have, percent-encoded: "
        "they were passed over",
        "schema": {"type": "string"},
    }
}
_ROWS = {
    "type": "array",
    "description": "Rows by name of column, newest first. Integers are exact: ids exceed 2^53",
    "items": {"type": "object", "propertyNames": {"pattern": _PREFIXES}},
}
_COLUMN = {
    "type": "object",
    "required": ["type", "unit", "description"],
    "properties": {
        name: {"type": "string"}
        for name in ("survey", "table", "name", "type", "unit", "description")
    },
}
_COLUMNS = {
    "type": "object",
    "required": ["columns"],
    "properties": {"columns": {"type": "array", "items": _COLUMN}},
}
_SCHEMA = {
    "type": "object",
    "description": "Columns by title and name without prefix, and by survey, table and name",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["type", "doc"],
                    "properties": {"type": {"type": "string"}, "doc": {"type": "string"}},
                },
                {
                    "type": "object",
                    "description": "A table",
                    "not": {"required": ["type", "doc"]},
                    "additionalProperties": _COLUMN,
                },
            ]
        },
    },
}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


_SUMMARIES = {
    route: _sentence(", or ".join(view.title for view in views)) for route, views in TABLES.items()
}
_TIMES = ", ".join(
    f"{'JD' if survey.mjd_offset else 'MJD'} in {survey.time_scale.upper()} for {survey.title}"
    for survey in SURVEYS
)


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
            **{f"/api/v1/{route}": _table(route) for route in TABLE_PARAMETERS},
            "/api/v1/schema": {
                "get": _columns("getSchema", _SCHEMA, SCHEMA_PARAMETERS),
                "post": _posted_schema(),
            },
            "/api/v1/columns": {"get": _columns("getColumns", _COLUMNS, COLUMN_PARAMETERS)},
            "/api/v1/cutouts/info": {
                "get": {
                    "operationId": "getInfo",
                    "tags": ["cutouts"],
                    "summary": "What is measured in the stamps of one alert",
                    "parameters": [_query(PARAMETERS[name]) for name in INFO_PARAMETERS],
                    "responses": _info_responses(),
                }
            },
            "/api/v1/identify": {
                "get": {
                    "operationId": "identify",
                    "tags": ["tables"],
                    "summary": "What an id names, and the alerts of its object",
                    "description": "Without any argument: what the arguments are.",
                    "parameters": [_query(it) for it in IDENTIFY_PARAMETERS.values()],
                    "responses": {
                        "200": {
                            "description": "What the id names, alerts first",
                            "headers": _PASSED_OVER,
                            "content": {
                                "application/json": {"schema": {"oneOf": [_ARGS, _IDENTITY]}}
                            },
                        },
                        "304": _NOT_MODIFIED,
                        **_problems(),
                    },
                }
            },
            "/api/v1/cutouts/batch": {
                "get": _plain("getBatchArguments", "What the arguments are", "application/json"),
                "post": _batch(),
            },
            "/healthz": {"get": _plain("getHealth", "The process answers", "application/json")},
            "/readyz": {
                "get": _plain("getReadiness", "The archive answers", "application/json", (503, 504))
            },
            "/metrics": {"get": _plain("getMetrics", "Prometheus metrics", "text/plain")},
        },
        "components": {"schemas": {"Problem": PROBLEM_SCHEMA}},
    }


def describe_service_below(prefix: str) -> dict[str, Any]:
    """Return the document of a service below a path of whatever host it is asked from."""
    return {**describe_service(), "servers": [{"url": prefix or "/"}]}


def _batch() -> dict[str, Any]:
    options = {name: known for name, known in BATCH_PARAMETERS.items() if name not in KEYS}
    body = {
        "type": "object",
        "properties": {
            name: {**known.json_schema(), "description": known.description}
            for name, known in BATCH_PARAMETERS.items()
            if name != "ids"
        },
        "required": ["kind"],
        "oneOf": [{"required": [name]} for name in KEYS],
        "not": {"required": ["return_type", "output-format"]},
    }
    name = SURVEYS[0].alert_key.name
    example = {name: BATCH_PARAMETERS[name].example, "kind": "Science", "package": "zip"}
    form = {
        "type": "object",
        "properties": {FILE_PART: {"type": "string", "description": "One id a line, or csv"}},
        "required": [FILE_PART],
    }
    plan = {"type": "object", "required": ["ids", "known", "unknown", "reads", "bytes"]}
    content: dict[str, Any] = {known.media_type: {"schema": _BINARY} for known in PACKAGES.values()}
    content["application/json"] = {"schema": {"title": "dry_run=1", **plan}}
    return {
        "operationId": "postBatch",
        "tags": ["cutouts"],
        "summary": "The stamps of many alerts, in the order asked",
        "description": "An id that is wrong is an item with its error. With a file of ids, the "
        "other arguments stand in the query string or the form.",
        "parameters": [_query(known) for known in options.values()],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": body, "example": example},
                "multipart/form-data": {"schema": form},
                "text/plain": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        "responses": {
            "200": {"description": "The package", "headers": _PASSED_OVER, "content": content},
            **_problems(),
        },
    }


def _table(route: str) -> dict[str, Any]:
    parameters = TABLE_PARAMETERS[route].values()
    ids = [parameter.name for parameter in parameters if parameter.name in KEYS]
    body = {
        "type": "object",
        "properties": {
            parameter.name: {**parameter.json_schema(), "description": parameter.description}
            for parameter in parameters
        },
        "oneOf": [{"required": [name]} for name in ids],
    }
    example = {ids[0]: TABLE_PARAMETERS[route][ids[0]].example, "output-format": "json"}
    common = {"tags": ["tables"], "summary": _SUMMARIES[route]}
    name = route.title()
    return {
        "get": {
            "operationId": f"get{name}",
            **common,
            "description": "Without any argument: what the arguments are.",
            "parameters": [_query(parameter) for parameter in parameters],
            "responses": _table_responses({"oneOf": [_ARGS, _ROWS]}),
        },
        "post": {
            "operationId": f"post{name}",
            **common,
            "requestBody": _posted(body, example),
            "responses": _table_responses(_ROWS),
        },
    }


def _table_responses(json_schema: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        chosen.media_type: {"schema": _BINARY} for chosen in TABLE_FORMATS.values()
    }
    content["application/json"] = {"schema": json_schema}
    headers = {
        "X-Unknown-Columns": {
            "description": "The names in columns that do not exist",
            "schema": {"type": "string"},
        },
        "X-Unknown-Ids": {
            "description": "The ids that no alert has, percent-encoded",
            "schema": {"type": "string"},
        },
        "X-Hint": {
            "description": "What is wrong with the first of X-Unknown-Ids",
            "schema": {"type": "string"},
        },
        **_PASSED_OVER,
    }
    rows = {"description": "The rows", "headers": headers, "content": content}
    return {"200": rows, "206": _PART, "304": _NOT_MODIFIED, **_problems()}


def _columns(
    operation: str, schema: dict[str, Any], parameters: Mapping[str, Parameter]
) -> dict[str, Any]:
    return {
        "operationId": operation,
        "tags": ["tables"],
        "summary": "Every column of the tables: type, unit and what it is",
        "parameters": [_query(parameter) for parameter in parameters.values()],
        "responses": _column_responses(schema),
    }


def _column_responses(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {
            "description": "The columns",
            "headers": _PASSED_OVER,
            "content": {"application/json": {"schema": schema}},
        },
        "304": _NOT_MODIFIED,
        **_problems(),
    }


def _posted_schema() -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {
            known.name: {**known.json_schema(), "description": known.description}
            for known in SCHEMA_PARAMETERS.values()
        },
        "additionalProperties": False,
    }
    example = {"endpoint": SCHEMA_PARAMETERS["endpoint"].example}
    return {
        "operationId": "postSchema",
        "tags": ["tables"],
        "summary": "The columns of an endpoint by title",
        "requestBody": _posted(body, example),
        "responses": _column_responses(_SCHEMA),
    }


def _posted(body: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "application/json": {"schema": body, "example": example},
            "application/x-www-form-urlencoded": {"schema": body},
        },
    }


def _query(parameter: Parameter) -> dict[str, Any]:
    entry = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        # Never required here: without any argument the route describes itself.
        "required": False,
        "schema": parameter.json_schema(),
    }
    if parameter.example is not None:
        entry["example"] = parameter.example
    return entry


def _body() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            parameter.name: {**parameter.json_schema(), "description": parameter.description}
            for parameter in PARAMETERS.values()
        },
        "required": [parameter.name for parameter in PARAMETERS.values() if parameter.required],
        "allOf": [
            # The ids of one survey, and one dialect.
            {"anyOf": [{"required": [name]} for name in KEYS]},
            *({"not": {"required": list(names)}} for names in _strangers()),
            {"not": {"required": ["return_type", "output-format"]}},
        ],
    }


def _strangers() -> list[tuple[str, str]]:
    """Return the names of keys, two by two, that no survey has both of."""
    together = [{key.name for key in survey.keys} for survey in SURVEYS]
    return [
        two for two in combinations(KEYS, 2) if not any(known >= set(two) for known in together)
    ]


def _example() -> dict[str, Any]:
    names = ("hdfsPath", SURVEYS[0].object_key.name, "kind", "return_type")
    return {name: PARAMETERS[name].example for name in names}


def _responses(array_schema: dict[str, Any]) -> dict[str, Any]:
    headers = {
        "ETag": {"schema": {"type": "string"}},
        "Cache-Control": {"schema": {"type": "string"}},
        "X-Cutout-Id": {
            "description": "The alert that was chosen",
            "schema": {"type": "string"},
        },
        "X-Cutout-Survey": {
            "description": "The survey that it is of",
            "schema": {"type": "string", "enum": [survey.name for survey in SURVEYS]},
        },
        "X-Cutout-Time": {
            "description": f"Its time: {_TIMES}",
            "schema": {"type": "number"},
        },
        **_PASSED_OVER,
    }
    found = {
        "200": {
            "description": "The stamps",
            "headers": headers,
            "content": {
                "application/json": {"schema": array_schema},
                "application/fits": {"schema": _BINARY},
                **{
                    known.media_type: {"schema": _BINARY}
                    for known in FORMATS.values()
                    if known.media_type != "application/json"
                },
            },
        },
        "206": _PART,
        "304": _NOT_MODIFIED,
    }
    return found | _problems()


_NOT_MODIFIED = {"description": "The copy that If-None-Match names is still right"}
_PART = {
    "description": "The bytes that Range asks for, of any of the content types of 200",
    "headers": {"Content-Range": {"schema": {"type": "string"}}},
}


def _problems() -> dict[str, Any]:
    statuses = {cls.status for cls in error_classes()} - {405, 414}
    return {str(status): _problem(status) for status in sorted(statuses)}


def _info_responses() -> dict[str, Any]:
    found = _responses({})
    found["200"] = {
        "description": "Header, WCS, noise and flags of each stamp",
        "headers": _PASSED_OVER,
        "content": {"application/json": {"schema": _INFO}},
    }
    return found


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
