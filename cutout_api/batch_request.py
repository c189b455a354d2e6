"""An untrusted payload -> ``BatchRequest``: a list of ids, and options as for one stamp.

``BATCH_PARAMETERS`` is made of ``request.PARAMETERS``, so the options are the same ones, checked
by the same code. A malformed id is found when its turn comes: it is an item with its error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from .batch_formats import FILES, NORMALISATIONS, NUMBERS, PACKAGES, PIXELS
from .errors import (
    BatchTooLarge,
    ConflictingParameters,
    InvalidParameter,
    MalformedBody,
    MissingParameter,
    shorten,
)
from .request import (
    PARAMETERS,
    CutoutRequest,
    Parameter,
    as_of,
    choice_parameter,
    number_between,
    other_kind,
    parse_flag,
    parse_request,
    parse_value,
    parse_values,
    split_stamp_name,
)
from .surveys import ALIASES, KEYS, SURVEYS, Key, KeyValue, Survey, list_titles

FILE_PART = "file"
"""Of a multipart form, where the ids are."""
LONGEST_ROW = 65_536
"""Letters of a row of a file of ids."""
SIDE, MOST_SIDE = 63, 512
_NOT_FOR_BATCHES = ("epochs", "explain")
_FORMAT_NAMES = ("return_type", "output-format")


@dataclass(frozen=True)
class BatchRequest:
    """What a caller asks for, checked but for the ids, of which there is at least one."""

    template: CutoutRequest
    """With an id that stands for the others."""
    key: Key
    ids: Sequence[object]
    package: str
    normalise: str
    side: int
    """Pixels of a side of the tensor."""
    dry_run: bool

    def text(self, number: int) -> str:
        """Return an id as it was asked for, or as much of it as an answer repeats."""
        given = self.ids[number]
        plain = isinstance(given, str | int) and not isinstance(given, bool)
        return shorten(given if plain else repr(given), 64, quote=False)

    def request(self, number: int) -> CutoutRequest:
        """Return the request for one of the ids. Raises InvalidParameter for what is none."""
        template, name = self.template, self.key.name
        given, kind = self._bare(self.ids[number])
        value = parse_value(PARAMETERS[name], given)
        if not self.key.takes(value):
            title = template.survey.title
            raise InvalidParameter(name, f"{name} {value} is not of {title}, as others here are")
        if kind is not None and kind != template.kind:
            raise other_kind(kind, template.kind)
        return replace(template, keys={name: value}, given={**template.given, name: value})

    def key_of(self, survey: Survey) -> Key:
        """Return a survey's key of the same name."""
        return next(key for key in survey.keys if key.name == self.key.name)

    def of(self, survey: Survey) -> BatchRequest:
        """Return the same as a request for alerts of another survey. Raises a BadRequest."""
        return replace(self, template=as_of(self.template, survey), key=self.key_of(survey))

    def values(self) -> list[KeyValue]:
        """Return the ids that are well-formed, each once."""
        found: dict[KeyValue, None] = {}
        for given in self.ids:
            with suppress(ValueError):
                found[self.key.parse(self._bare(given)[0])] = None
        return list(found)

    def _bare(self, given: object) -> tuple[object, str | None]:
        """Return an id without the kind that an alert's may have behind it, and the kind."""
        is_alert = self.key is self.template.survey.alert_key
        return split_stamp_name(given) if is_alert else (given, None)


def parse_id_list(value: Any) -> str | Sequence[object]:
    """Return the ids of a JSON list, or a text with commas or blanks between them as it is.

    That is taken apart where it is known how many ids there may be.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise ValueError("must be a list of ids")
    return value if isinstance(value, list) else [value]


def parse_side(value: Any) -> int:
    """Return a whole number of pixels."""
    number = number_between(1, MOST_SIDE)(value)
    if number != int(number):
        raise ValueError(f"must be a whole number of pixels, 1 to {MOST_SIDE}")
    return int(number)


def _ids_parameter(name: str, surveys: Sequence[Survey]) -> Parameter:
    one = PARAMETERS[name]
    return Parameter(
        name,
        f"{list_titles(surveys, 'or')}: a list of ids, answered in this order. As an argument of "
        "a query or a form with commas between them.",
        parse_id_list,
        example=[one.example],
        schema={"type": "array", "items": one.json_schema(), "minItems": 1},
        longest=None,
    )


_FLAG_SCHEMA = {"oneOf": [{"type": "boolean"}, {"enum": [0, 1, "0", "1", "true", "false"]}]}
_OWN = (
    choice_parameter(
        "package",
        tuple(PACKAGES),
        "What the answers come in. Without it ndjson for arrays, zip for files.",
        example="zip",
    ),
    choice_parameter(
        "ids",
        tuple(KEYS),
        "What the ids of a file are, if its first line does not say so.",
        example=SURVEYS[0].alert_key.name,
    ),
    Parameter(
        "side",
        "npz: pixels of a side of the tensor. Smaller stamps are padded with NaN around their "
        "centre, larger ones cut.",
        parse_side,
        example=SIDE,
        schema={"type": "integer", "minimum": 1, "maximum": MOST_SIDE},
        default=str(SIDE),
    ),
    choice_parameter(
        "normalise",
        tuple(NORMALISATIONS),
        "npz: of each stamp by itself, NaN left as it is.",
        example="minmax",
        default="none",
    ),
    Parameter(
        "dry_run",
        "Answer how much would be read, as JSON, and read no stamp.",
        parse_flag,
        example=1,
        schema=_FLAG_SCHEMA,
    ),
)


def _parameters() -> dict[str, Parameter]:
    options = (
        parameter
        for name, parameter in PARAMETERS.items()
        if name not in KEYS and name not in _NOT_FOR_BATCHES
    )
    ids = (_ids_parameter(name, [survey for survey, _ in meant]) for name, meant in KEYS.items())
    return {parameter.name: parameter for parameter in (*ids, *options, *_OWN)}


BATCH_PARAMETERS: Mapping[str, Parameter] = _parameters()


def parse_batch_request(
    payload: Mapping[str, Any], file: bytes | None, most_ids: int
) -> BatchRequest:
    """Check every member of an untrusted payload, and the file of ids that came with it.

    Raises a BadRequest that names the parameter, BatchTooLarge.
    """
    values = parse_values(payload, BATCH_PARAMETERS)
    key, ids = _parse_ids(values, file, most_ids)
    if not ids:
        raise MissingParameter(key.name, f"{key.name} names nothing: give at least one id")
    if len(ids) > most_ids:
        raise too_many_ids(most_ids, key.name)
    package = _parse_package(values)
    options = {name: value for name, value in payload.items() if name in PARAMETERS}
    options = {name: value for name, value in options.items() if name not in KEYS}
    if not any(name in values for name in _FORMAT_NAMES):
        options["output-format"] = "FITS" if PACKAGES[package].holds == FILES else "array"
    template = parse_request({**options, key.name: key.example})
    _check_format(package, template.format)
    for name in ("side", "normalise"):
        if name in values and PACKAGES[package].holds != NUMBERS:
            raise ConflictingParameters(name, f"{name} is for npz, and the package is {package}")
    return BatchRequest(
        template,
        key,
        ids,
        package,
        values.get("normalise", "none"),
        values.get("side", SIDE),
        values.get("dry_run", False),
    )


def too_many_ids(most: int, parameter: str | None = None) -> BatchTooLarge:
    """Return the error for a list, of which no more was read than it took to tell."""
    return BatchTooLarge(
        f"the list holds more than {most} ids, the most of a batch: send it in parts",
        parameter=parameter,
    )


def _parse_ids(
    values: Mapping[str, Any], file: bytes | None, most: int
) -> tuple[Key, Sequence[object]]:
    named = [name for name in KEYS if name in values]
    if len(named) > 1:
        raise ConflictingParameters(
            named[1], f"{' and '.join(named)} are lists of different ids; send one of them"
        )
    if file is not None and named:
        raise ConflictingParameters(named[0], f"{named[0]} and a file: send the ids once")
    if file is not None:
        return _parse_file(file, values.get("ids"), most)
    if "ids" in values:
        raise ConflictingParameters("ids", "ids says what a file holds, and no file was sent")
    if not named:
        names = list(KEYS)
        raise MissingParameter(
            names[0], f"which alerts? Give a list of {', '.join(names)}, or a file of ids"
        )
    given = values[named[0]]
    # One more than there may be, and the rest in one piece.
    ids = given.replace(",", " ").split(None, most + 1) if isinstance(given, str) else given
    return _key_of(named[0], ids), ids


def _key_of(name: str, ids: Sequence[object]) -> Key:
    """Return the key that takes the first id that any takes: one of this name, if there is such.

    Else one that has the name as an alias; else the first of this name.
    """
    own = [key for _, key in KEYS[name]]
    others = [key for _, key in ALIASES.get(name, ())]
    if len(own) > 1 or others:
        for keys in (own, others):
            for given in ids:
                for key in keys:
                    if key.takes(given):
                        return key
    return own[0]


def _parse_file(content: bytes, named: str | None, most: int) -> tuple[Key, list[object]]:
    """Return the ids of a text with one a line, or of a csv file with a line of names.

    They are those of the column that is named like an id, or of the first.
    """
    rows = _read_rows(content, most)
    first = next(rows, [])
    names = [cell.strip() for cell in first]
    found = [name for name in names if name in KEYS and named in (None, name)]
    if not found and named is None:
        raise MissingParameter(
            "ids", f"what are the ids of the file? Name them in its first line: {', '.join(KEYS)}"
        )
    column = names.index(found[0]) if found else 0
    ids: list[object] = []
    for row in rows if found or not first else chain([first], rows):
        if len(ids) == most:
            raise too_many_ids(most)
        ids.append(row[column].strip() if column < len(row) else "")
    return _key_of(found[0] if found else str(named), ids), ids


def _read_rows(content: bytes, most: int) -> Iterator[list[str]]:
    """Yield the rows of a csv file that are not empty, a row at a time.

    Raises MalformedBody, and BatchTooLarge for a file whose lines are too many for ``most`` ids.
    """
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    length = 0  # of the row so far

    def lines() -> Iterator[str]:
        nonlocal length
        # Every second line may be empty, as some programs leave them.
        for _ in range(2 * most + 2):
            line = text.readline(LONGEST_ROW + 1)
            length += len(line)
            if length > LONGEST_ROW:
                raise MalformedBody(f"a row of the file of ids has more than {LONGEST_ROW} letters")
            if not line:
                return
            yield line
        raise too_many_ids(most)

    try:
        for row in csv.reader(lines()):
            length = 0
            if any(cell.strip() for cell in row):
                yield row
    except (ValueError, csv.Error) as error:
        raise MalformedBody("the file of ids cannot be read: it is not text, or not csv") from error


def _parse_package(values: Mapping[str, Any]) -> str:
    given = [values[name] for name in _FORMAT_NAMES if name in values]
    default = "zip" if given and given[0] != "array" else "ndjson"
    package: str = values.get("package", default)
    return package


def _check_format(package: str, format_name: str) -> None:
    holds = PACKAGES[package].holds
    if (holds == FILES and format_name == "array") or (holds == NUMBERS and format_name != "array"):
        able = [name for name, known in PACKAGES.items() if known.holds == PIXELS]
        raise InvalidParameter(
            "package", f"package: {package} does not hold {format_name}; {', '.join(able)} does"
        )
