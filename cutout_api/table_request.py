"""An untrusted payload -> ``TableRequest``: what is asked of the tables of alert data.

``TABLE_PARAMETERS`` has one table for each route, as ``request.PARAMETERS`` is for stamps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import (
    ConflictingParameters,
    InvalidParameter,
    MissingParameter,
    RouteNotFound,
    nearest,
    shorten,
)
from .request import (
    ALL,
    LONGEST_TEXT,
    PARAMETERS,
    STRICT,
    Parameter,
    choice_parameter,
    parse_number,
    parse_text,
    parse_value,
    parse_values,
    refuse_value,
)
from .surveys import (
    KINDS,
    SURVEYS,
    TABLES,
    Key,
    KeyValue,
    Survey,
    View,
    list_titles,
    parse_int64,
)
from .table_formats import TABLE_FORMATS

MAX_NAME = 200
EVERY = "*"
_YES, _NO = ("true", "1"), ("false", "0")
_BOOLEAN_SCHEMA = {"oneOf": [{"type": "boolean"}, {"enum": ["True", "true", "1", "False", "0"]}]}


@dataclass(frozen=True)
class TableRequest:
    """What a caller asks for, checked."""

    view: View
    object_ids: tuple[KeyValue, ...]
    malformed: tuple[str, ...]
    """Of what was sent as ids, what cannot be any."""
    hint: str
    """What is wrong with the first of these, as other routes refuse it."""
    columns: tuple[str, ...] | None
    """None: those that the table shows unasked."""
    kinds: tuple[str, ...]
    """Of the stamps to show; empty: none."""
    history: bool
    format: str
    mjd: float | None
    """Only the alerts of this time."""


def parse_ids(value: Any) -> tuple[int | str, ...]:
    """Return one id, several behind commas, or those of a JSON list, as they were sent.

    Whether they are well-formed is seen later: one that is not has no rows.
    """
    items = value if isinstance(value, list) else [value]
    if isinstance(value, str):
        items = [part.strip() for part in value.split(",") if part.strip()]
    if not items:
        raise ValueError("names nothing")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise ValueError("must be one id, several with commas between them, or a list of ids")
        if isinstance(item, str) and len(item) > LONGEST_TEXT:
            raise ValueError(f"holds an id of more than {LONGEST_TEXT} letters")
    return tuple(items)


def parse_boolean(value: Any) -> bool:
    """Return a truth value however callers spell it: ``True``, ``true``, ``1``, JSON's own."""
    text = str(value).strip().lower() if isinstance(value, bool | int | str) else ""
    if text not in _YES + _NO:
        raise ValueError("must be True or False")
    return text in _YES


def parse_columns(value: Any) -> tuple[str, ...] | None:
    """Return the names of columns, each once, in the order given; None for ``*``."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be names of columns with commas between them")
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if any(len(name) > MAX_NAME for name in names):
        raise ValueError(f"has a name longer than {MAX_NAME} letters")
    if not names:
        raise ValueError("names nothing")
    return None if EVERY in names else names


def parse_version(value: Any) -> int:
    """Return a whole number, 0 or above."""
    number = parse_int64(value)
    if number < 0:
        raise ValueError("must be 0 or above")
    return number


_ONE_ID: tuple[dict[str, Any], ...] = ({"type": "string"}, {"type": "integer"})
"""Any: what is no id has no rows."""


def _id_parameter(name: str, surveys: Sequence[Survey], *, required: bool) -> Parameter:
    key = surveys[0].object_key
    alias = "" if name == key.name else f" A {key.name}, as some clients name it."
    titles = list_titles(surveys, "or")
    return Parameter(
        name,
        f"{titles} object: one id, or several with commas between them.{alias}",
        parse_ids,
        example=key.example,
        schema={"anyOf": [*_ONE_ID, {"type": "array", "items": {"anyOf": list(_ONE_ID)}}]},
        required=required,
        longest=None,
    )


_COMMON = (
    Parameter(
        "columns",
        "Names of the columns to read and answer, with commas between them; see "
        "/api/v1/columns. Names that do not exist are ignored and listed in X-Unknown-Columns.",
        parse_columns,
        example="i:jd,i:magpsf,i:sigmapsf",
        longest=None,
    ),
    Parameter(
        "withcutouts",
        "True: the stamps too, as 2-D arrays. In json and parquet.",
        parse_boolean,
        example=True,
        schema=_BOOLEAN_SCHEMA,
        default="False",
    ),
    choice_parameter("cutout-kind", (*KINDS, ALL), "Which stamps.", example="Science", default=ALL),
    choice_parameter(
        "output-format", tuple(TABLE_FORMATS), "The format.", example="json", default="json"
    ),
    STRICT,
)
_HISTORY = Parameter(
    "withupperlim",
    "True: what the alerts' histories hold besides, upper limits, detections and forced "
    "photometry, told apart by a column: "
    + "; ".join(
        f"{view.history.tag} for {view.survey.title}"
        for views in TABLES.values()
        for view in views
        if view.history and view.shows_alerts
    )
    + ".",
    parse_boolean,
    example=True,
    schema=_BOOLEAN_SCHEMA,
    default="False",
)
_TIME = Parameter(
    "midpointMjdTai",
    "Only the source observed at this time, to the second.",
    parse_number,
    example=60924.3322219485,
    schema={"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[0-9.eE+-]+$"}]},
)
_STAMPS = ("withcutouts", "cutout-kind")
_MORE: Mapping[str, tuple[Parameter, ...]] = {
    "objects": (_HISTORY,),
    "sources": (_HISTORY, _TIME),
    "fp": (),
}


def _parameters(route: str) -> dict[str, Parameter]:
    views = TABLES[route]
    named: dict[str, list[Survey]] = {}
    for view in views:
        named.setdefault(view.survey.object_key.name, []).append(view.survey)
    for view in views:
        for name in view.survey.object_key.aliases:
            named.setdefault(name, [view.survey])
    ids = [_id_parameter(name, some, required=len(named) == 1) for name, some in named.items()]
    common = [
        parameter
        for parameter in _COMMON
        if parameter.name not in _STAMPS or any(view.shows_alerts for view in views)
    ]
    return {parameter.name: parameter for parameter in (*ids, *common, *_MORE[route])}


TABLE_PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    route: _parameters(route) for route in TABLES
}
_NAMES = {name for it in SURVEYS for name in (it.object_key.name, *it.object_key.aliases)}
_SURVEY_NAMES = tuple(survey.name for survey in SURVEYS)
COLUMN_PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        choice_parameter(
            "survey", _SURVEY_NAMES, "Only this survey's columns.", example=_SURVEY_NAMES[0]
        ),
        STRICT,
    )
}
CUTOUTS_ENDPOINT = "/api/v1/cutouts"
ENDPOINTS: Mapping[str, tuple[View, ...]] = {
    **{f"/api/v1/{route}": views for route, views in TABLES.items()},
    CUTOUTS_ENDPOINT: tuple(
        {
            view.survey.name: view
            for views in TABLES.values()
            for view in views
            if view.shows_alerts
        }.values()
    ),
}
"""What has columns, and the tables whose columns these are."""
_VERSION_SCHEMA = {
    "oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,18}$"}]
}
_VERSION = "LSST's schema version. Understood and not used: the columns are those of the archive."
SCHEMA_PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        *COLUMN_PARAMETERS.values(),
        Parameter(
            "endpoint",
            "The address whose columns are asked for, by their titles: "
            f"{', '.join(ENDPOINTS)}. Without it: those of ZTF by title, and all by survey.",
            parse_text,
            example="/api/v1/sources",
        ),
        *(
            Parameter(name, _VERSION, parse_version, example=example, schema=_VERSION_SCHEMA)
            for name, example in (("major_version", 10), ("minor_version", 0))
        ),
    )
}


@dataclass(frozen=True)
class SchemaRequest:
    """Which columns are asked for, checked."""

    surveys: tuple[Survey, ...]
    endpoint: str | None
    """One of ``ENDPOINTS``; None: all of them."""
    is_one_survey: bool
    """Whether a survey is named."""


def parse_table_request(payload: Mapping[str, Any], route: str, most_ids: int) -> TableRequest:
    """Check every member of an untrusted payload. Raises a BadRequest that names the parameter."""
    values = parse_values(payload, TABLE_PARAMETERS[route])
    name, given = _take_ids(values, route)
    if len(given) > most_ids:
        raise InvalidParameter(
            name, f"{name} holds {len(given)} ids; ask for at most {most_ids} at once"
        )
    view = _choose_view(route, name, given)
    ids, malformed, hint = _read_ids(view.survey.object_key, given)
    history = values.get(_HISTORY.name, not view.shows_alerts)
    if history and view.history is None:
        raise ConflictingParameters(_HISTORY.name, _without_history(view, route))
    format_name = values.get("output-format", "json")
    wants_stamps = values.get("withcutouts", False)
    if wants_stamps and not TABLE_FORMATS[format_name].holds_stamps:
        able = [name for name, format_ in TABLE_FORMATS.items() if format_.holds_stamps]
        raise ConflictingParameters(
            "output-format", f"{format_name} cannot hold stamps; ask for {' or '.join(able)}"
        )
    kind = values.get("cutout-kind", ALL)
    kinds = KINDS if kind == ALL else (kind,)
    return TableRequest(
        view=view,
        object_ids=ids,
        malformed=malformed,
        hint=hint,
        columns=values.get("columns"),
        kinds=kinds if wants_stamps else (),
        history=history,
        format=format_name,
        mjd=values.get(_TIME.name),
    )


def _without_history(view: View, route: str) -> str:
    """Say that a table has no histories, and which of the survey has."""
    have = [
        f"/api/v1/{other}"
        for other, views in TABLES.items()
        for it in views
        if it.survey is view.survey and it.history and it.shows_alerts
    ]
    hint = f"; ask {' or '.join(have)}" if have else ""
    return f"/api/v1/{route} has no histories of {view.survey.title}{hint}"


def _take_ids(values: Mapping[str, Any], route: str) -> tuple[str, tuple[int | str, ...]]:
    """Return the name of the ids that are given, and the ids as they were sent."""
    names = [name for name in TABLE_PARAMETERS[route] if name in _NAMES]
    named = [name for name in names if name in values]
    if not named:
        raise MissingParameter(names[0], f"which object? Give {' or '.join(names)}")
    if len(named) > 1:
        raise ConflictingParameters(
            named[1], f"{' and '.join(named)} name objects twice; give one of them"
        )
    return named[0], values[named[0]]


def _choose_view(route: str, name: str, given: Sequence[object]) -> View:
    """Return the table of the first id that is a value of a key of this name.

    Where none is, that of the first which is a value of a key with this name as an alias. Raises
    ConflictingParameters for ids of surveys whose keys have the same name.
    """
    own = [view for view in TABLES[route] if view.survey.object_key.name == name]
    others = [view for view in TABLES[route] if name in view.survey.object_key.aliases]
    found = [view for item in given for view in own if view.survey.object_key.takes(item)]
    if len(set(map(id, found))) > 1:
        raise ConflictingParameters(
            name, f"{name} names objects of different surveys; ask for those of one at a time"
        )
    found = found or [
        view for item in given for view in others if view.survey.object_key.takes(item)
    ]
    return (found or [*own, *others])[0]


def _read_ids(
    key: Key, given: Iterable[int | str]
) -> tuple[tuple[KeyValue, ...], tuple[str, ...], str]:
    """Return the ids, each once; what cannot be one; and what is wrong with the first of these."""
    ids: dict[KeyValue, None] = {}
    malformed: dict[str, None] = {}
    hint = ""
    for item in given:
        try:
            ids[key.parse(item)] = None
        except ValueError as reason:
            malformed[str(item)] = None
            hint = hint or _say_what_is_wrong(key.name, item, reason)
    return tuple(ids), tuple(malformed), hint


def _say_what_is_wrong(name: str, item: int | str, reason: ValueError) -> str:
    """Return the sentence with which the other routes refuse an id: of any survey's key."""
    parameter = PARAMETERS[name]
    try:
        parse_value(parameter, item)
    except InvalidParameter as refused:
        return refused.detail
    return refuse_value(parameter, item, reason).detail


def parse_survey(payload: Mapping[str, Any]) -> tuple[Survey, ...]:
    """Return the surveys whose columns are asked for: one, or all."""
    return _surveys(parse_values(payload, COLUMN_PARAMETERS))


def _surveys(values: Mapping[str, Any]) -> tuple[Survey, ...]:
    wanted = values.get("survey")
    return tuple(survey for survey in SURVEYS if wanted in (None, survey.name))


def parse_schema_request(payload: Mapping[str, Any]) -> SchemaRequest:
    """Return what is asked of ``/api/v1/schema``.

    Raises a BadRequest that names the parameter, RouteNotFound for an endpoint that is none.
    """
    values = parse_values(payload, SCHEMA_PARAMETERS)
    endpoint = values.get("endpoint")
    if endpoint is not None:
        given, endpoint = endpoint, f"/{endpoint.strip().strip('/')}"
        if endpoint not in ENDPOINTS:
            near = nearest(endpoint, ENDPOINTS)
            hint = f"; did you mean {near}?" if near else ""
            raise RouteNotFound(
                f"{shorten(given)} is no endpoint that has columns{hint}",
                parameter="endpoint",
                allowed=list(ENDPOINTS),
                suggestion=near,
            )
    return SchemaRequest(_surveys(values), endpoint, "survey" in values)
