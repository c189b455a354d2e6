"""An untrusted payload -> ``TableRequest``: what is asked of the tables of alert data.

``TABLE_PARAMETERS`` has one table for each route, as ``request.PARAMETERS`` is for stamps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ConflictingParameters, InvalidParameter, MissingParameter
from .request import (
    ALL,
    LONGEST_TEXT,
    PARAMETERS,
    STRICT,
    Parameter,
    choice_parameter,
    parse_number,
    parse_values,
    refuse_value,
)
from .surveys import KINDS, SURVEYS, TABLES, Key, KeyValue, Survey, View
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


_ONE_ID: tuple[dict[str, Any], ...] = ({"type": "string"}, {"type": "integer"})
"""Any: what is no id has no rows."""


def _id_parameter(name: str, survey: Survey, *, required: bool) -> Parameter:
    key = survey.object_key
    alias = "" if name == key.name else f" A {key.name}, as some clients name it."
    return Parameter(
        name,
        f"{survey.name.upper()} object: one id, or several with commas between them.{alias}",
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
    "True: the upper limits and measurements that the alerts' histories hold besides, told apart "
    "by the column d:tag. ZTF only.",
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
_MORE: Mapping[str, tuple[Parameter, ...]] = {"objects": (_HISTORY,), "sources": (_TIME,)}


def _parameters(route: str) -> dict[str, Parameter]:
    keys = [(view.survey.object_key, view.survey) for view in TABLES[route]]
    named = {key.name: survey for key, survey in keys}
    for key, survey in keys:
        for name in key.aliases:
            named.setdefault(name, survey)
    ids = [_id_parameter(name, survey, required=len(named) == 1) for name, survey in named.items()]
    return {parameter.name: parameter for parameter in (*ids, *_COMMON, *_MORE[route])}


TABLE_PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    route: _parameters(route) for route in TABLES
}
_NAMES = {name for it in SURVEYS for name in (it.object_key.name, *it.object_key.aliases)}
_SURVEY_NAMES = tuple(survey.name for survey in SURVEYS)
SCHEMA_PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        choice_parameter(
            "survey", _SURVEY_NAMES, "Only this survey's columns.", example=_SURVEY_NAMES[0]
        ),
        STRICT,
    )
}


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
    history = values.get(_HISTORY.name, False)
    if history and view.history is None:
        raise ConflictingParameters(
            _HISTORY.name, f"{view.survey.name.upper()} alerts have no {_HISTORY.name}"
        )
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

    Where none is, that of the first which is a value of a key with this name as an alias.
    """
    own = [view for view in TABLES[route] if view.survey.object_key.name == name]
    others = [view for view in TABLES[route] if name in view.survey.object_key.aliases]
    for views in (own, others):
        for item in given:
            for view in views:
                if view.survey.object_key.takes(item):
                    return view
    return (*own, *others)[0]


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
            hint = hint or refuse_value(PARAMETERS[key.name], item, reason).detail
    return tuple(ids), tuple(malformed), hint


def parse_survey(payload: Mapping[str, Any]) -> tuple[Survey, ...]:
    """Return the surveys whose columns are asked for: one, or all."""
    wanted = parse_values(payload, SCHEMA_PARAMETERS).get("survey")
    return tuple(survey for survey in SURVEYS if wanted in (None, survey.name))
