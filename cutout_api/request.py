"""An untrusted payload -> ``CutoutRequest``.

``PARAMETERS`` is the one table of what callers may send: it validates requests, describes the
route to ``GET`` without arguments, and becomes the OpenAPI document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import (
    ConflictingParameters,
    InvalidParameter,
    MissingParameter,
    UnknownParameter,
    shorten,
)
from .formatter import FORMATS
from .render import (
    DEFAULT_PMAX,
    DEFAULT_PMIN,
    KERNELS,
    STRETCHES,
    Rendering,
    colormap_names,
)
from .surveys import KINDS, SURVEYS, KeyValue, Survey

ALL = "All"
INTERNAL, PUBLIC = "internal", "public"


@dataclass(frozen=True)
class Parameter:
    """One argument of the route: how it is described, and how its value is read."""

    name: str
    description: str
    parse: Callable[[Any], Any]
    """Raises ValueError, whose message continues '<name> ...'."""
    example: Any = None
    choices: tuple[str, ...] | None = None
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    """JSON Schema of the value."""
    required: bool = False
    default: str | None = None


@dataclass(frozen=True)
class CutoutRequest:
    """What a caller asks for, checked: nothing in it can be malformed any more."""

    survey: Survey
    keys: Mapping[str, KeyValue]
    path: str
    kinds: tuple[str, ...]
    format: str
    dialect: str
    rendering: Rendering

    @property
    def kind(self) -> str:
        """The kind as the wire spells it."""
        return self.kinds[0] if len(self.kinds) == 1 else ALL

    @property
    def names_one_alert(self) -> bool:
        """Whether the answer can never change, because an alert's id was given."""
        return self.survey.alert_key.name in self.keys


def choice(names: Iterable[str]) -> Callable[[Any], str]:
    """Return a parser for one of ``names``, whatever its case."""
    by_lower = {name.lower(): name for name in names}

    def parse(value: Any) -> str:
        found = by_lower.get(value.strip().lower()) if isinstance(value, str) else None
        if found is None:
            raise ValueError("must be one of " + ", ".join(by_lower.values()))
        return found

    return parse


def parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def parse_colormap(value: Any) -> str:
    if not isinstance(value, str) or value not in _COLORMAPS:
        raise ValueError("must be the name of a matplotlib colormap, spelled as it is there")
    return value


def parse_percent(value: Any) -> float:
    """Return a number of percent, 0 to 100."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number")
    if isinstance(value, str) and not DECIMAL.fullmatch(value.strip()):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("must be a number") from None
    if not math.isfinite(number) or not 0 <= number <= 100:
        raise ValueError("must be a percentage, 0 to 100")
    return number


DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COLORMAPS = frozenset(colormap_names())
_STRETCHES = tuple(STRETCHES)
_KINDS = (*KINDS, ALL)
_FORMATS = tuple(FORMATS)
INT64_SCHEMA = {
    "oneOf": [
        {"type": "string", "pattern": "^-?[0-9]{1,19}$"},
        {"type": "integer", "format": "int64"},
    ]
}
KEY_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "objectId": {"type": "string", "pattern": "^ZTF[0-9]{2}[a-z]{7}$"}
}
_PERCENT_SCHEMA = {"type": "number", "minimum": 0, "maximum": 100}


def choice_parameter(name: str, names: tuple[str, ...], description: str, **more: Any) -> Parameter:
    return Parameter(
        name,
        description,
        choice(names),
        choices=names,
        schema={"type": "string", "enum": list(names)},
        **more,
    )


_TABLE = (
    Parameter(
        "hdfsPath",
        "The parquet file, or a folder of them, that holds the alert: relative to the archive "
        "(on HDFS, to the user's home), or absolute below a folder that is served.",
        parse_text,
        example="archive/science/year=2024/month=11/day=14",
        schema={"type": "string", "minLength": 1, "maxLength": 4096},
        required=True,
    ),
    *(
        Parameter(
            key.name,
            key.description,
            key.parse,
            example=key.example,
            schema=KEY_SCHEMAS.get(key.name, INT64_SCHEMA),
        )
        for survey in SURVEYS
        for key in survey.keys
    ),
    choice_parameter(
        "kind",
        _KINDS,
        "Which stamp; All is Science, Template, Difference, in that order.",
        example="Science",
        required=True,
    ),
    choice_parameter(
        "return_type",
        _FORMATS,
        "The format, as users of the internal service name it. Answers a list of 2-D lists.",
        example="array",
        default="array",
    ),
    choice_parameter(
        "output-format",
        _FORMATS,
        "The format, as users of the public service name it. Answers an object by column name.",
        example="PNG",
        default="PNG",
    ),
    choice_parameter(
        "stretch", _STRETCHES, "PNG: the stretch.", example="sigmoid", default="sigmoid"
    ),
    Parameter(
        "colormap",
        "PNG: a matplotlib colormap. Grayscale without it.",
        parse_colormap,
        example="viridis",
        choices=tuple(colormap_names()),
        schema={"type": "string", "enum": list(colormap_names())},
    ),
    Parameter(
        "pmin",
        "PNG: percentile of the pixels drawn darkest, 0.5 when only pmax is given. "
        "No effect on sigmoid.",
        parse_percent,
        example=0.5,
        schema=_PERCENT_SCHEMA,
    ),
    Parameter(
        "pmax",
        "PNG: percentile of the pixels drawn brightest, 99.5 when only pmin is given. "
        "No effect on sigmoid.",
        parse_percent,
        example=99.5,
        schema=_PERCENT_SCHEMA,
    ),
    choice_parameter(
        "convolution_kernel",
        tuple(KERNELS),
        "PNG: smooth the stretched image.",
        example="gauss",
    ),
)

PARAMETERS: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _TABLE}


def describe_parameters(
    parameters: Mapping[str, Parameter] = PARAMETERS,
) -> list[dict[str, Any]]:
    """Return what ``GET`` without arguments answers: one entry for each parameter."""
    entries = []
    for parameter in parameters.values():
        entry: dict[str, Any] = {
            "name": parameter.name,
            "required": parameter.required,
            "description": parameter.description,
        }
        if parameter.choices:
            entry["allowed"] = list(parameter.choices)
        if parameter.default is not None:
            entry["default"] = parameter.default
        if parameter.example is not None:
            entry["example"] = parameter.example
        entries.append(entry)
    return entries


def parse_request(payload: Mapping[str, Any]) -> CutoutRequest:
    """Check every member of an untrusted payload.

    A member that is null or empty counts as not given. Raises a BadRequest that names the
    parameter, what it takes, and the nearest right spelling.
    """
    payload, kind_of_name = _split_alert_ids(payload)
    values = parse_values(payload, PARAMETERS)
    survey, keys = _parse_keys(values)
    dialect, format_name = _parse_format(values)
    kind = values.get("kind", kind_of_name)
    if kind_of_name not in (None, kind):
        raise ConflictingParameters(
            "kind", f"the alert's id names the {kind_of_name} stamp, kind is {kind}"
        )
    if kind is None:
        raise MissingParameter("kind", f"kind is missing: give one of {', '.join(_KINDS)}")
    path = values.get("hdfsPath")
    if path is None:
        raise MissingParameter(
            "hdfsPath", "hdfsPath is missing: name the parquet file, or a folder, of the alert"
        )
    return CutoutRequest(
        survey=survey,
        keys=keys,
        path=path,
        kinds=KINDS if kind == ALL else (kind,),
        format=format_name,
        dialect=dialect,
        rendering=_parse_rendering(values),
    )


_STAMP_NAME = re.compile(rf"(-?[0-9]+)_cutout({'|'.join(KINDS)})", re.ASCII | re.IGNORECASE)


def _split_alert_ids(payload: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Take an alert's id that is written as its saved file is named: ``<id>_cutoutScience``.

    Returns the payload with the bare id, and the kind that stood behind it, if one did.
    """
    found, kind = dict(payload), None
    for survey in SURVEYS:
        name = survey.alert_key.name
        value = found.get(name)
        match = _STAMP_NAME.fullmatch(value.strip()) if isinstance(value, str) else None
        if match:
            found[name], kind = match[1], choice(KINDS)(match[2])
    return found, kind


def parse_values(payload: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the value of each parameter that was given; null and empty count as not given.

    Raises UnknownParameter, and InvalidParameter that says what the parameter takes.
    """
    values: dict[str, Any] = {}
    for name, value in payload.items():
        parameter = parameters.get(name)
        if parameter is None:
            raise UnknownParameter(name, parameters)
        if value is None or value == "":
            continue
        try:
            values[name] = parameter.parse(value)
        except ValueError as error:
            raise InvalidParameter(
                name, f"{name} {error}, not {shorten(value)}", allowed=parameter.choices, got=value
            ) from error
    return values


def _parse_keys(values: Mapping[str, Any]) -> tuple[Survey, dict[str, KeyValue]]:
    found = {
        survey.name: {key.name: values[key.name] for key in survey.keys if key.name in values}
        for survey in SURVEYS
    }
    named = [survey for survey in SURVEYS if found[survey.name]]
    if not named:
        names = [key.name for survey in SURVEYS for key in survey.keys]
        raise MissingParameter(names[0], f"which alert? Give one of {', '.join(names)}")
    if len(named) > 1:
        first, second = (next(iter(found[survey.name])) for survey in named)
        raise ConflictingParameters(
            second, f"{first} and {second} belong to different surveys; give one of them"
        )
    return named[0], found[named[0].name]


def _parse_format(values: Mapping[str, Any]) -> tuple[str, str]:
    if "return_type" in values and "output-format" in values:
        raise ConflictingParameters(
            "output-format", "return_type and output-format say the same; give one of them"
        )
    if "return_type" in values:
        return INTERNAL, values["return_type"]
    if "output-format" in values:
        return PUBLIC, values["output-format"]
    if "hdfsPath" in values:
        return INTERNAL, "array"
    return PUBLIC, "PNG"


def _parse_rendering(values: Mapping[str, Any]) -> Rendering:
    rendering = Rendering(
        **{
            name: values[name]
            for name in ("stretch", "colormap", "pmin", "pmax", "convolution_kernel")
            if name in values
        }
    )
    low = DEFAULT_PMIN if rendering.pmin is None else rendering.pmin
    high = DEFAULT_PMAX if rendering.pmax is None else rendering.pmax
    if low >= high:
        name = "pmin" if rendering.pmin is not None else "pmax"
        raise InvalidParameter(name, f"pmin must be below pmax; they are {low:g} and {high:g} here")
    return rendering
