"""An untrusted payload -> ``CutoutRequest``.

``PARAMETERS`` is the one table of what callers may send: it validates requests, describes the
route to ``GET`` without arguments, and becomes the OpenAPI document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import erfa

from .epochs import LATEST, PLAIN, WHICH, Choice
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
    path: str | None
    """None: the catalog knows where the alert is."""
    choice: Choice
    kinds: tuple[str, ...]
    format: str
    dialect: str
    rendering: Rendering

    @property
    def kind(self) -> str:
        """The kind as the wire spells it."""
        return self.kinds[0] if len(self.kinds) == 1 else ALL

    @property
    def is_direct(self) -> bool:
        """Whether the index of the named files answers alone."""
        return self.path is not None and self.choice == PLAIN

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


def parse_date(value: Any) -> float:
    """Return an ISO 8601 date or time, a JD or an MJD, all UTC, as MJD."""
    wrong = "must be a date such as 2024-11-14T05:30:00, a JD or an MJD, from 1900 to 2100, in UTC"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(wrong)
    text = str(value).strip()
    if DECIMAL.fullmatch(text):
        number = float(text)
        for mjd in (number, number - _MJD_0):
            if _MJD_1900 <= mjd <= _MJD_2100:
                return mjd
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(wrong) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    mjd = _MJD_1970 + (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() / 86400
    if not _MJD_1900 <= mjd <= _MJD_2100:
        raise ValueError(wrong)
    return mjd


def _utc_to_tai(mjd: float) -> float:
    # What astropy.time calls; that looks for newer leap seconds first, on the network if need be.
    _, tai = erfa.utctai(_MJD_0, mjd)
    return float(tai)


FROM_UTC: Mapping[str, Callable[[float], float]] = {"utc": float, "tai": _utc_to_tai}
"""MJD in UTC -> MJD in the scale of a survey's times."""
_MJD_0, _MJD_1900, _MJD_1970, _MJD_2100 = 2400000.5, 15020.0, 40587.0, 88069.0
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COLORMAPS = frozenset(colormap_names())
_RENDERING = ("stretch", "colormap", "pmin", "pmax", "convolution_kernel")
_PLAIN = Rendering()
_STRETCHES = tuple(STRETCHES)
_KINDS = (*KINDS, ALL)
_FORMATS = tuple(FORMATS)
_BANDS = tuple(dict.fromkeys(band for survey in SURVEYS[::-1] for band in survey.bands.values()))
ONE, EVERY = "one", "all"
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
        "(on HDFS, to the user's home), or absolute below a folder that is served. Without it, "
        "the catalog of the archive knows where the alert is.",
        parse_text,
        example="archive/science/year=2024/month=11/day=14",
        schema={"type": "string", "minLength": 1, "maxLength": 4096},
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
        "which", WHICH, "Which alert of the object.", example="brightest", default=LATEST
    ),
    choice_parameter("band", _BANDS, "Only alerts in this band.", example="r"),
    Parameter(
        "date",
        "The alert of the object nearest to this time: ISO 8601, JD or MJD, in UTC.",
        parse_date,
        example="2024-11-14T05:30:00",
        schema={"oneOf": [{"type": "string"}, {"type": "number"}]},
    ),
    choice_parameter(
        "epochs",
        (ONE, EVERY),
        "One alert of the object, or all of them, oldest first, in "
        + " or ".join(name for name, chosen in FORMATS.items() if chosen.write_epochs)
        + ".",
        example=EVERY,
        default=ONE,
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
    choice_made = _parse_choice(survey, keys, values)
    if choice_made.every and FORMATS[format_name].write_epochs is None:
        able = [name for name, chosen in FORMATS.items() if chosen.write_epochs]
        raise InvalidParameter(
            "epochs", f"epochs: a {format_name} holds one alert; {' and '.join(able)} hold many"
        )
    return CutoutRequest(
        survey=survey,
        keys=keys,
        path=values.get("hdfsPath"),
        choice=choice_made,
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


def _parse_choice(
    survey: Survey, keys: Mapping[str, KeyValue], values: Mapping[str, Any]
) -> Choice:
    """Return which alerts of an object are asked for; the defaults say nothing."""
    band, mjd = values.get("band"), values.get("date")
    which, every = values.get("which", LATEST), values.get("epochs") == EVERY
    told = {"epochs": every, "date": mjd is not None, "which": which != LATEST}
    chosen = [name for name, said in told.items() if said]
    if survey.alert_key.name in keys and (chosen or band):
        at_fault = (*chosen, "band")[0]
        raise ConflictingParameters(
            at_fault,
            f"{at_fault} chooses among the alerts of an object; {survey.alert_key.name} names one",
        )
    if len(chosen) > 1:
        raise ConflictingParameters(
            chosen[1], f"{chosen[0]} and {chosen[1]} choose differently; give one of them"
        )
    if band is not None and band not in survey.bands.values():
        bands = list(survey.bands.values())
        raise InvalidParameter(
            "band", f"band: {survey.name.upper()} has {', '.join(bands)}, not {band}", allowed=bands
        )
    if mjd is not None:
        mjd = FROM_UTC[survey.time_scale](mjd)
    return Choice(which, band, mjd, every)


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
    given = {name: values[name] for name in _RENDERING if name in values}
    if not given:
        return _PLAIN
    rendering = Rendering(**given)
    low = DEFAULT_PMIN if rendering.pmin is None else rendering.pmin
    high = DEFAULT_PMAX if rendering.pmax is None else rendering.pmax
    if low >= high:
        name = "pmin" if rendering.pmin is not None else "pmax"
        raise InvalidParameter(name, f"pmin must be below pmax; they are {low:g} and {high:g} here")
    return rendering
