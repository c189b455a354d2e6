"""An untrusted payload -> ``CutoutRequest``.

``PARAMETERS`` is the one table of what callers may send: it validates requests, describes the
route to ``GET`` without arguments, and becomes the OpenAPI document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

import erfa

from .arrays import NAN, NULL
from .epochs import LATEST, PLAIN, WHICH, Choice
from .errors import (
    BadRequest,
    ConflictingParameters,
    InvalidParameter,
    MissingParameter,
    UnknownParameter,
    shorten,
)
from .formatter import FORMATS
from .geometry import RESAMPLINGS
from .labels import LABELS
from .panels import ORIENTATIONS, Frame
from .presets import PRESETS, apply_preset
from .render import (
    ASINH,
    DEFAULT_PMAX,
    DEFAULT_PMIN,
    INTERVALS,
    KERNELS,
    MANUAL,
    PERCENTILE,
    SIGMOID,
    STRETCHES,
    Rendering,
    colormap_names,
)
from .surveys import (
    ALIASES,
    INT64_SCHEMA,
    KEYS,
    KINDS,
    SURVEYS,
    Key,
    KeyValue,
    OutOfRange,
    Survey,
    key_meant,
    key_of_form,
    list_titles,
)
from .views import (
    AS_DELIVERED,
    AS_STORED,
    FIX_WCS,
    NO_WCS,
    PLANES,
    PSF,
    SIGNS,
    View,
    has_plane,
)

ALL = "All"
INTERNAL, PUBLIC = "internal", "public"
CHOOSING = ("which", "band", "date")
"""Parameters that choose one alert of an object."""
LONGEST_TEXT, LONGEST_PATH = 200, 4096


@dataclass(frozen=True)
class Parameter:
    """One argument of the route: how it is described, and how its value is read."""

    name: str
    description: str
    parse: Callable[[Any], Any]
    """Raises ValueError, whose message continues '<name> ...'."""
    example: Any = None
    choices: tuple[str, ...] | Callable[[], Iterable[str]] | None = None
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    """JSON Schema of the value."""
    required: bool = False
    default: str | None = None
    longest: int | None = LONGEST_TEXT
    """Letters of a text that is parsed at all; None: where the parser itself is for long lists."""

    @property
    def allowed(self) -> list[str] | None:
        """The values it takes, where they can be counted."""
        if self.choices is None:
            return None
        return list(self.choices() if callable(self.choices) else self.choices)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the value."""
        schema = dict(self.schema)
        if self.allowed is not None:
            schema["enum"] = self.allowed
        if self.default is not None:
            is_number = schema.get("type") == "integer"
            schema["default"] = int(self.default) if is_number else self.default
        return schema


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
    view: View = AS_STORED
    frame: Frame = field(default_factory=Frame)
    explain: bool = False
    nan: str | None = None
    """How a masked pixel is written in an array; None: the request does not say."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What was sent, checked, in the order of ``PARAMETERS``."""
    others: tuple[Survey, ...] = ()
    """Surveys whose alert it may be as well: their keys have the same names, and take the ids."""

    @property
    def needs_facts(self) -> bool:
        """Whether more of the alert's row is to be read than its id and time."""
        return bool(
            self.explain
            or self.frame.labels
            or self.view.wcs == FIX_WCS
            or self.view.diffsign != AS_DELIVERED
        )

    def query(self, alert_id: int | None) -> str:
        """Return the query string that gives this answer again, of this very alert."""
        given = {name: value for name, value in self.given.items() if name != "explain"}
        if alert_id is not None:
            # The alert's own id leaves nothing to choose, and refuses what would choose.
            given = {name: value for name, value in given.items() if name not in CHOOSING}
            given[self.survey.alert_key.name] = alert_id
        return urlencode({name: _spell(value) for name, value in given.items()}, safe="/=,")

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
    """Return a parser for one of ``names``, whatever its case; the exact spelling comes first."""
    every = tuple(names)
    spelled = {name.lower(): name for name in reversed(every)} | {name: name for name in every}

    def parse(value: Any) -> str:
        text = value.strip() if isinstance(value, str) else ""
        found = spelled.get(text) or spelled.get(text.lower())
        if found is None:
            raise ValueError("must be one of " + ", ".join(every))
        return found

    return parse


def _spell(value: object) -> str:
    """Return a checked value as it is sent."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(value) or NONE
    return str(value)


def parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def parse_colormap(value: Any) -> str:
    if not isinstance(value, str) or value not in colormap_names():
        raise ValueError("must be the name of a matplotlib colormap, spelled as it is there")
    return value


def parse_number(value: Any) -> float:
    """Return a finite number, sent as a JSON number or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number")
    if isinstance(value, str) and not DECIMAL.fullmatch(value.strip()):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def parse_percent(value: Any) -> float:
    """Return a number of percent, 0 to 100."""
    number = parse_number(value)
    if not 0 <= number <= 100:
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


@dataclass(frozen=True)
class Interval:
    """From one date to another, both counted in; MJD in UTC. None: without end."""

    since: float | None
    until: float | None

    def __str__(self) -> str:
        return "/".join("" if end is None else str(end) for end in (self.since, self.until))


def parse_dates(value: Any) -> float | Interval:
    """Return a date as ``parse_date`` does, or two with a slash between them, one may be empty."""
    if not isinstance(value, str) or "/" not in value:
        return parse_date(value)
    ends = [part.strip() for part in value.split("/")]
    if len(ends) != 2 or not any(ends):
        raise ValueError("must be one date, or two with a slash between them: from/to")
    since, until = (parse_date(end) if end else None for end in ends)
    if since is not None and until is not None and since > until:
        raise ValueError("must not end before it begins: from/to")
    return Interval(since, until)


def _utc_to_tai(mjd: float) -> float:
    # What astropy.time calls; that looks for newer leap seconds first, on the network if need be.
    _, tai = erfa.utctai(_MJD_0, mjd)
    return float(tai)


FROM_UTC: Mapping[str, Callable[[float], float]] = {"utc": float, "tai": _utc_to_tai}
"""MJD in UTC -> MJD in the scale of a survey's times."""
_MJD_0, _MJD_1900, _MJD_1970, _MJD_2100 = 2400000.5, 15020.0, 40587.0, 88069.0


def number_between(least: float, most: float) -> Callable[[Any], float]:
    """Return a parser for numbers from ``least`` to ``most``."""

    def parse(value: Any) -> float:
        number = parse_number(value)
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return number

    return parse


def parse_size(value: Any) -> int:
    """Return a whole number of pixels."""
    number = parse_number(value)
    if not 1 <= number <= MOST_SIZE or number != int(number):
        raise ValueError(f"must be a whole number of pixels, 1 to {MOST_SIZE}")
    return int(number)


def parse_flag(value: Any) -> bool:
    """Return what 1, true, yes, 0, false or no says."""
    found = _FLAGS.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None
    if found is None:
        raise ValueError("must be 1 or 0, true or false")
    return found


def parse_labels(value: Any) -> tuple[str, ...]:
    """Return the labels of a list with commas, each once, in the order of ``LABELS``."""
    names = [name.strip().lower() for name in value.split(",")] if isinstance(value, str) else [""]
    if names in ([ALL.lower()], [NONE]):
        return LABELS if names == [ALL.lower()] else ()
    unknown = [name for name in names if name not in LABELS]
    if unknown:
        known = ", ".join(LABELS)
        raise ValueError(f"must be all, none, or a list with commas of {known}")
    return tuple(name for name in LABELS if name in names)


NONE = "none"
_STAMP_NAME = re.compile(rf"([A-Z-]*[0-9]+)_cutout({'|'.join(KINDS)})", re.ASCII | re.IGNORECASE)
MOST_SIZE = 8192
LEAST_ZOOM, MOST_ZOOM = 0.001, 64.0
LEAST_A, MOST_A = 1e-6, 1000.0
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
# No two of its parts take the same digits, so that a mismatch is found in linear time.
DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_RENDERING = tuple(Rendering.__dataclass_fields__)
_FRAME = ("size", "zoom", "resample", "orient", "labels")
_VIEW = tuple(View.__dataclass_fields__)
# Most requests name none of these, and a frozen dataclass costs more to make than to keep.
_DRAWING = frozenset((*_RENDERING, *_FRAME, "preset"))
_CHOOSING = frozenset((*CHOOSING, "epochs"))
_PLAIN_DRAWING = (Rendering(), Frame())
_STRETCHES = tuple(STRETCHES)
_KINDS = (*KINDS, ALL)
_FORMATS = tuple(FORMATS)
_BANDS = tuple(dict.fromkeys(band for survey in SURVEYS[::-1] for band in survey.bands.values()))
ONE, EVERY = "one", "all"
_FLAG_SCHEMA = {"oneOf": [{"type": "boolean"}, {"enum": [0, 1, "0", "1", "true", "false"]}]}
_PERCENT_SCHEMA = {"type": "number", "minimum": 0, "maximum": 100}


def parse_key(keys: Sequence[Key], value: Any) -> KeyValue:
    """Return a value as the first of some keys that takes it."""
    refusals: list[str] = []
    for key in keys:
        try:
            return key.parse(value)
        except ValueError as error:
            refusals.append(str(error))
    raise ValueError(", or ".join(dict.fromkeys(refusals)))


def key_schemas(keys: Iterable[Key]) -> list[Mapping[str, Any]]:
    """Return the JSON Schemas of the values of keys, of which each value fits one."""
    patterns = dict.fromkeys(key.pattern for key in keys if not key.is_number)
    found: list[Mapping[str, Any]] = []
    if patterns:
        found.append({"type": "string", "pattern": f"^({'|'.join(patterns)})$"})
    if any(key.is_number for key in keys):
        found += INT64_SCHEMA["oneOf"]
    return found


def _key_parameter(name: str) -> Parameter:
    keys = [key for _, key in KEYS[name]]
    schemas = key_schemas(keys)
    return Parameter(
        name,
        " Or: ".join(dict.fromkeys(key.description for key in keys)),
        keys[0].parse if len(keys) == 1 else partial(parse_key, keys),
        example=keys[0].example,
        schema=schemas[0] if len(schemas) == 1 else {"oneOf": schemas},
    )


def choice_parameter(name: str, names: tuple[str, ...], description: str, **more: Any) -> Parameter:
    return Parameter(
        name,
        description,
        choice(names),
        choices=names,
        **more,
    )


STRICT = Parameter(
    "strict",
    "Refuse every argument that this route does not have. Without it, those are passed over that "
    "are no slip for one of its own, and X-Unknown-Arguments names them.",
    parse_flag,
    example=1,
    schema=_FLAG_SCHEMA,
)
_TABLE = (
    Parameter(
        "hdfsPath",
        "The parquet file, or a folder of them, that holds the alert: relative to the archive "
        "(on HDFS, to the user's home), or absolute below a folder that is served. Without it, "
        "the catalog of the archive knows where the alert is.",
        parse_text,
        example="archive/science/year=2024/month=11/day=14",
        schema={"type": "string", "minLength": 1, "maxLength": LONGEST_PATH},
        longest=LONGEST_PATH,
    ),
    *map(_key_parameter, KEYS),
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
        "The alert of the object nearest to this time: ISO 8601, JD or MJD, in UTC. With "
        "epochs=all two of them, from/to, of which one may be empty: only alerts in between.",
        parse_dates,
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
        "stretch",
        _STRETCHES,
        "Pictures: the stretch. Without it sigmoid; linear with an interval, asinh with a.",
        example="sigmoid",
    ),
    Parameter(
        "colormap",
        "Pictures: a matplotlib colormap. Grayscale without it.",
        parse_colormap,
        example="viridis",
        choices=colormap_names,
    ),
    Parameter(
        "pmin",
        "Pictures: percentile of the pixels drawn darkest, 0.5 when only pmax is given. "
        "No effect on sigmoid.",
        parse_percent,
        example=0.5,
        schema=_PERCENT_SCHEMA,
    ),
    Parameter(
        "pmax",
        "Pictures: percentile of the pixels drawn brightest, 99.5 when only pmin is given. "
        "No effect on sigmoid.",
        parse_percent,
        example=99.5,
        schema=_PERCENT_SCHEMA,
    ),
    choice_parameter(
        "convolution_kernel",
        tuple(KERNELS),
        "Pictures: smooth the stretched image.",
        example="gauss",
    ),
    choice_parameter(
        "preset",
        tuple(PRESETS),
        "Pictures: a look people know; parameters given besides it replace its own. "
        + "; ".join(f"{name}: {preset.description}" for name, preset in PRESETS.items())
        + ".",
        example="ds9-zscale",
    ),
    choice_parameter(
        "interval",
        INTERVALS,
        "Pictures: which pixel values are drawn darkest and brightest: percentiles (pmin, pmax), "
        "the extremes, IRAF's zscale, or vmin and vmax. The stretch is then linear unless given.",
        example="zscale",
    ),
    *(
        Parameter(
            name,
            f"Pictures: the pixel value drawn {drawn} with interval=manual, in the stamp's units; "
            f"the {extreme} pixel when only the other is given.",
            parse_number,
            example=example,
            schema={"type": "number"},
        )
        for name, drawn, extreme, example in (
            ("vmin", "darkest", "faintest", 100),
            ("vmax", "brightest", "brightest", 900),
        )
    ),
    Parameter(
        "a",
        "Pictures: astropy's AsinhStretch with this a: linear below, logarithmic above this part "
        "of the interval. Without it, stretch=asinh is the public Fink API's, nearly linear.",
        number_between(LEAST_A, MOST_A),
        example=0.1,
        schema={"type": "number", "minimum": LEAST_A, "maximum": MOST_A},
    ),
    Parameter(
        "invert",
        "Pictures: bright is dark.",
        parse_flag,
        example=1,
        schema=_FLAG_SCHEMA,
    ),
    Parameter(
        "size",
        "Pictures: pixels of the longer side of a stamp.",
        parse_size,
        example=252,
        schema={"type": "integer", "minimum": 1, "maximum": MOST_SIZE},
    ),
    Parameter(
        "zoom",
        "Pictures: how many times larger than the stamp.",
        number_between(LEAST_ZOOM, MOST_ZOOM),
        example=4,
        schema={"type": "number", "minimum": LEAST_ZOOM, "maximum": MOST_ZOOM},
    ),
    choice_parameter(
        "resample",
        tuple(RESAMPLINGS),
        "Pictures: how pixels in between are found where it is resized or turned. Without it "
        "nearest, and bicubic where orient turns the picture.",
        example="bicubic",
    ),
    choice_parameter(
        "orient",
        ORIENTATIONS,
        "Pictures: north turns them so that north is up and east left; asis, as without it, "
        "leaves row 0 on top.",
        example="north",
    ),
    Parameter(
        "labels",
        "Pictures: what is written and drawn on them: all, none, or a list with commas of "
        + ", ".join(LABELS)
        + ". Labelled pictures are enlarged until they can be read, unless size or zoom is given.",
        parse_labels,
        example="all",
    ),
    choice_parameter(
        "plane",
        PLANES,
        "Which plane of the stamp, in every format: image without it, the others only for "
        f"{list_titles(survey for survey in SURVEYS if survey.planes)}. "
        "snr is image / sqrt(variance).",
        example="variance",
    ),
    choice_parameter(
        "diffsign",
        SIGNS,
        "The sign of Difference stamps: sci-ref is science - template; as-delivered, as without "
        "it, is what the survey sent: for "
        f"{list_titles(survey for survey in SURVEYS if survey.difference_follows_sign)} "
        "template - science where the source has faded.",
        example="sci-ref",
    ),
    choice_parameter(
        "wcs",
        (FIX_WCS, NO_WCS),
        "FITS: fix adds the cards that the header lacks to be a WCS of the sky (for "
        f"{list_titles(survey for survey in SURVEYS if survey.sky_matrix)} an approximate one, "
        "from the alert's position), and says so in HISTORY.",
        example="fix",
    ),
    choice_parameter(
        "nan",
        (NULL, NAN),
        "array: how masked pixels are written. Without it null where Accept names "
        "application/json or a page in a browser asks, else NaN, which is not JSON but which "
        "Python's json reads as a float.",
        example=NULL,
    ),
    STRICT,
    Parameter(
        "explain",
        "Answer how the picture is drawn, as JSON, instead of the picture: the limits used, the "
        "stretch, where north is, the ids, and the request that gives it again.",
        parse_flag,
        example=1,
        schema=_FLAG_SCHEMA,
    ),
)

PARAMETERS: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _TABLE}
_PLACES = {name: place for place, name in enumerate(PARAMETERS)}


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
        if parameter.allowed:
            entry["allowed"] = parameter.allowed
        if parameter.default is not None:
            entry["default"] = parameter.default
        if parameter.example is not None:
            entry["example"] = parameter.example
        entries.append(entry)
    return entries


@dataclass(frozen=True)
class Meaning:
    """What an id may be: the value of one key of one survey."""

    survey: Survey
    key: Key
    value: KeyValue


@dataclass(frozen=True)
class IdentifyRequest:
    """An id whose kind is not said, and where to look for it."""

    text: str
    meanings: tuple[Meaning, ...]
    """By its form: a name is an object of one survey, digits an alert or an object of any."""
    path: str | None


def parse_any_id(value: Any) -> tuple[str, tuple[Meaning, ...]]:
    """Return an id and all that it may be by its form; an alert's may end in ``_cutoutScience``."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    match = _STAMP_NAME.fullmatch(text)
    text = match[1] if match else text
    meanings: list[Meaning] = []
    refused = None
    for survey in SURVEYS:
        # Of digits, an alert is meant more often than an object.
        for key in (survey.alert_key, survey.object_key):
            try:
                meanings.append(Meaning(survey, key, key.parse(text)))
            except OutOfRange as error:
                refused = refused or error
            except ValueError:
                pass
    if refused and not meanings:
        raise refused
    if not meanings:
        raise ValueError(_ANY_ID)
    return str(meanings[0].value), tuple(meanings)


def _words_of_ids() -> str:
    keys = [key for survey in SURVEYS for key in (survey.alert_key, survey.object_key)]
    names = dict.fromkeys(key.words for key in keys if not key.is_number)
    *numbers, last = dict.fromkeys(key.name for key in keys if key.is_number)
    return f"must be {', '.join(names)} or the digits of a {', '.join(numbers)} or {last}"


_ANY_ID = _words_of_ids()
IDENTIFY_PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "id",
            "An alert's or an object's id, of any survey.",
            parse_any_id,
            example=SURVEYS[0].object_key.example,
            schema={
                "type": "string",
                "pattern": "^({})$".format(
                    "|".join(dict.fromkeys(key.pattern for it in SURVEYS for key in it.keys))
                ),
            },
            required=True,
        ),
        PARAMETERS["hdfsPath"],
        STRICT,
    )
}


def parse_identify_request(payload: Mapping[str, Any]) -> IdentifyRequest:
    """Check the payload of the route that tells what an id names."""
    values = parse_values(payload, IDENTIFY_PARAMETERS)
    if "id" not in values:
        raise MissingParameter("id", "id is missing: give an alert's or an object's")
    text, meanings = values["id"]
    return IdentifyRequest(text, meanings, values.get("hdfsPath"))


INFO_PARAMETERS = (
    "hdfsPath",
    *KEYS,
    "kind",
    STRICT.name,
)


def parse_info_request(payload: Mapping[str, Any]) -> CutoutRequest:
    """Check the payload of the route that measures stamps: ids, path, and kind, All without it."""
    for name in payload:
        if name not in INFO_PARAMETERS:
            raise UnknownParameter(name, INFO_PARAMETERS)
    kind = payload.get("kind") or ALL
    return parse_request({**payload, "kind": kind, "explain": True, "return_type": "array"})


def parse_request(payload: Mapping[str, Any]) -> CutoutRequest:
    """Check every member of an untrusted payload.

    A member that is null or empty counts as not given. Raises a BadRequest that names the
    parameter, what it takes, and the nearest right spelling.
    """
    payload, kind_of_name = _split_alert_ids(_settle_aliases(payload))
    values = parse_values(payload, PARAMETERS)
    values.pop(STRICT.name, None)  # it changes no answer
    surveys = _parse_surveys(values)
    while len(surveys) > 1:
        try:
            return _make_request(surveys, values, kind_of_name)
        except BadRequest:  # it may be right for the next
            surveys = surveys[1:]
    return _make_request(surveys, values, kind_of_name)


def as_of(request: CutoutRequest, survey: Survey) -> CutoutRequest:
    """Return the request as one for an alert of another survey. Raises a BadRequest."""
    made = _make_request((survey,), request.given, request.kind)
    return replace(made, nan=request.nan)  # which may have been settled by who asks


def _make_request(
    surveys: Sequence[Survey], values: Mapping[str, Any], kind_of_name: str | None
) -> CutoutRequest:
    """Return the request as one for an alert of the first of some surveys."""
    survey = surveys[0]
    keys = {key.name: values[key.name] for key in survey.keys if key.name in values}
    dialect, format_name = _parse_format(values)
    kind = values.get("kind", kind_of_name)
    if kind_of_name is not None and kind_of_name != kind:
        raise other_kind(kind_of_name, str(kind))
    if kind is None:
        raise MissingParameter("kind", f"kind is missing: give one of {', '.join(_KINDS)}")
    choice_made = _parse_choice(survey, keys, values)
    if choice_made.every and FORMATS[format_name].write_epochs is None:
        able = [name for name, chosen in FORMATS.items() if chosen.write_epochs]
        raise InvalidParameter(
            "epochs", f"epochs: a {format_name} holds one alert; {' and '.join(able)} hold many"
        )
    rendering, frame = _parse_drawing(values, format_name)
    return CutoutRequest(
        survey=survey,
        keys=keys,
        path=values.get("hdfsPath"),
        choice=choice_made,
        kinds=KINDS if kind == ALL else (kind,),
        format=format_name,
        dialect=dialect,
        rendering=rendering,
        view=_parse_view(values, survey, format_name),
        frame=frame,
        explain=values.get("explain", False),
        nan=values.get("nan"),
        given={name: values[name] for name in sorted(values, key=_PLACES.__getitem__)},
        others=tuple(surveys[1:]),
    )


_ALERT_KEYS = tuple(dict.fromkeys(survey.alert_key.name for survey in SURVEYS))


def other_kind(named: str, asked: str) -> ConflictingParameters:
    """Return the error for an alert's id that names another stamp than is asked for."""
    return ConflictingParameters("kind", f"the alert's id names the {named} stamp, kind is {asked}")


def _settle_aliases(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the payload with ids under the names of the keys that they are of.

    Raises ConflictingParameters where another survey is named besides.
    """
    for name in ALIASES:
        value = payload.get(name)
        meant = name if value is None else key_meant(name, value)
        if meant == name:
            continue
        survey, key = next((of, it) for of, it in ALIASES[name] if it.name == meant)
        given = [other for other in payload if other != name and payload[other] not in (None, "")]
        own = {it.name for it in survey.keys}
        for other in given:
            if other in KEYS and other not in own:
                raise ConflictingParameters(
                    other,
                    f"{name} {shorten(value, quote=False)} is a {meant} of {survey.title}, "
                    f"and {other} belongs to another survey; give one of them",
                )
        there = payload[meant] if meant in given else value
        if there != value and not (key.takes(there) and key.parse(there) == key.parse(value)):
            raise ConflictingParameters(meant, f"{name} and {meant} name different objects")
        payload = {other: it for other, it in payload.items() if other != name} | {meant: value}
    return payload


def split_stamp_name(value: Any) -> tuple[Any, str | None]:
    """Return an alert's id without the kind behind it, and the kind: ``<id>_cutoutScience``."""
    match = _STAMP_NAME.fullmatch(value.strip()) if isinstance(value, str) else None
    return (match[1], choice(KINDS)(match[2])) if match else (value, None)


def _split_alert_ids(payload: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Take an alert's id that is written as its saved file is named: ``<id>_cutoutScience``.

    Returns the payload with the bare id, and the kind that stood behind it, if one did.
    """
    found, kind = dict(payload), None
    for name in _ALERT_KEYS:
        if name in found:
            found[name], named = split_stamp_name(found[name])
            kind = named or kind
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
        values[name] = parse_value(parameter, value)
    return values


def parse_value(parameter: Parameter, value: Any) -> Any:
    """Return a value as its parameter reads it. Raises InvalidParameter.

    The length of a text is checked first, whatever the parser would make of it.
    """
    name = parameter.name
    if isinstance(value, list | dict) and parameter.longest:
        raise not_one_value(name)
    if isinstance(value, str) and parameter.longest and len(value) > parameter.longest:
        raise InvalidParameter(
            name,
            f"{name} has {len(value)} letters, more than {parameter.longest}",
            allowed=parameter.allowed,
        )
    try:
        return parameter.parse(value)
    except ValueError as error:
        raise refuse_value(parameter, value, error) from error


def refuse_value(parameter: Parameter, value: object, reason: ValueError) -> InvalidParameter:
    """Return the error for a value that a parameter does not take."""
    name = parameter.name
    return InvalidParameter(
        name,
        f"{name} {reason}, not {shorten(value)}",
        allowed=parameter.allowed,
        got=value,
        suggestion=key_of_form(value) if name in KEYS else None,
    )


def not_one_value(name: str) -> InvalidParameter:
    """Return the error for a list or an object where one value belongs."""
    return InvalidParameter(name, f"{name} must be one value, not a list or an object")


_ALIKE = {
    name
    for name, meant in KEYS.items()
    if len({(key.read, key.least, key.prefixes) for _, key in meant}) == 1
}
"""Names of keys whose values, once parsed, may be of any survey that has the name."""


def _parse_surveys(values: Mapping[str, Any]) -> tuple[Survey, ...]:
    """Return the surveys that have all the keys that are given: more than one where they share
    their names, and the form of the ids does not tell."""
    given = [name for name in KEYS if name in values]
    if not given:
        names = list(KEYS)
        raise MissingParameter(names[0], f"which alert? Give one of {', '.join(names)}")
    left = SURVEYS
    for name in given:
        fitting = {it.name for it, key in KEYS[name] if name in _ALIKE or key.takes(values[name])}
        stay = tuple(survey for survey in left if survey.name in fitting)
        if not stay:
            raise ConflictingParameters(
                name, f"{given[0]} and {name} belong to different surveys; give one of them"
            )
        left = stay
    return left


def _parse_choice(
    survey: Survey, keys: Mapping[str, KeyValue], values: Mapping[str, Any]
) -> Choice:
    """Return which alerts of an object are asked for; the defaults say nothing."""
    if _CHOOSING.isdisjoint(values):
        return PLAIN
    band, date = values.get("band"), values.get("date")
    which, every = values.get("which", LATEST), values.get("epochs") == EVERY
    bounded = isinstance(date, Interval)
    told = {"epochs": every, "date": date is not None, "which": which != LATEST}
    if every and bounded:
        del told["date"]
    chosen = [name for name, said in told.items() if said]
    if survey.alert_key.name in keys and (chosen or band):
        at_fault = (*chosen, "band")[0]
        raise ConflictingParameters(
            at_fault,
            f"{at_fault} chooses among the alerts of an object; {survey.alert_key.name} names one",
        )
    if bounded and not every:
        raise ConflictingParameters("date", "date: from/to goes with epochs=all; give one date")
    if len(chosen) > 1:
        hint = ", or date=from/to" if every and chosen[1] == "date" else ""
        raise ConflictingParameters(
            chosen[1], f"{chosen[0]} and {chosen[1]} choose differently; give one of them{hint}"
        )
    if band is not None and band not in survey.bands.values():
        # Another survey may have a band that differs only in case.
        bands = list(survey.bands.values())
        spelled = {name.lower(): name for name in bands}
        if band.lower() not in spelled:
            raise InvalidParameter(
                "band", f"band: {survey.title} has {', '.join(bands)}, not {band}", allowed=bands
            )
        band = spelled[band.lower()]
    scaled = FROM_UTC[survey.time_scale]
    if isinstance(date, Interval):
        since, until = (None if end is None else scaled(end) for end in (date.since, date.until))
        return Choice(which, band, None, every, since, until)
    return Choice(which, band, None if date is None else scaled(date), every)


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


# What a picture is drawn by that the older services do not know: they ignore such of their own
# arguments as do not fit the format, and so does this service; of these it says so.
_PICTURE_ONLY = (
    "preset",
    "interval",
    "vmin",
    "vmax",
    "a",
    "invert",
    *_FRAME,
)


def _parse_drawing(values: Mapping[str, Any], format_name: str) -> tuple[Rendering, Frame]:
    if _DRAWING.isdisjoint(values):
        return _PLAIN_DRAWING
    drawing = _complete_drawing(values, format_name)
    return _parse_rendering(drawing), _parse_frame(drawing)


def _complete_drawing(values: Mapping[str, Any], format_name: str) -> Mapping[str, Any]:
    """Return the values with those of the preset, and what is implied; refuse what excludes."""
    for name in _PICTURE_ONLY:
        if name in values and not FORMATS[format_name].is_picture:
            pictures = ", ".join(known for known in FORMATS if FORMATS[known].is_picture)
            raise ConflictingParameters(
                name, f"{name} is for pictures ({pictures}), and the format is {format_name}"
            )
    drawing = apply_preset(values)
    if "interval" not in drawing and {"vmin", "vmax"} & set(drawing):
        drawing["interval"] = MANUAL
    interval = drawing.get("interval")
    if "stretch" not in drawing and "a" in drawing:
        drawing["stretch"] = ASINH
    elif "stretch" not in drawing and interval is not None:
        drawing["stretch"] = "linear"
    _refuse(drawing, ("vmin", "vmax"), interval != MANUAL, f"interval={interval}")
    _refuse(drawing, ("pmin", "pmax"), interval not in (None, PERCENTILE), f"interval={interval}")
    _refuse(drawing, ("a",), drawing.get("stretch") != ASINH, f"stretch={drawing.get('stretch')}")
    _refuse(
        drawing,
        ("interval",),
        drawing.get("stretch", SIGMOID) == SIGMOID,
        "stretch=sigmoid, which takes the mean and the deviation of the pixels instead",
    )
    return drawing


def _refuse(values: Mapping[str, Any], names: Iterable[str], excluded: bool, by: str) -> None:
    for name in names:
        if excluded and name in values:
            raise ConflictingParameters(name, f"{name} has no effect with {by}; leave one out")


def _parse_rendering(values: Mapping[str, Any]) -> Rendering:
    rendering = Rendering(**{name: values[name] for name in _RENDERING if name in values})
    low = DEFAULT_PMIN if rendering.pmin is None else rendering.pmin
    high = DEFAULT_PMAX if rendering.pmax is None else rendering.pmax
    if low >= high:
        name = "pmin" if rendering.pmin is not None else "pmax"
        raise InvalidParameter(name, f"pmin must be below pmax; they are {low:g} and {high:g} here")
    if rendering.interval == MANUAL and rendering.vmin is None and rendering.vmax is None:
        raise MissingParameter("vmin", "interval=manual needs vmin, vmax or both")
    if rendering.vmin is not None and rendering.vmax is not None:
        low, high = rendering.vmin, rendering.vmax
        if low >= high:
            raise InvalidParameter(
                "vmin", f"vmin must be below vmax; they are {low:g} and {high:g} here"
            )
    return rendering


def _parse_frame(values: Mapping[str, Any]) -> Frame:
    if "size" in values and "zoom" in values:
        raise ConflictingParameters("zoom", "size and zoom say the same; give one of them")
    return Frame(**{name: values[name] for name in _FRAME if name in values})


def _parse_view(values: Mapping[str, Any], survey: Survey, format_name: str) -> View:
    given = {name: values[name] for name in _VIEW if name in values}
    view = View(**given) if given else AS_STORED
    if not has_plane(survey, view.plane):
        raise ConflictingParameters(
            "plane", f"{survey.title} stamps have no {view.plane}: they hold the image only"
        )
    if view.wcs == FIX_WCS and format_name != "FITS":
        raise ConflictingParameters("wcs", f"wcs is for FITS, and the format is {format_name}")
    if view.wcs == FIX_WCS and view.plane == PSF:
        raise ConflictingParameters("wcs", "the PSF image has no place on the sky")
    return view
