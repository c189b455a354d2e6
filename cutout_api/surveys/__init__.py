"""The surveys as data, one file each: what callers name, and where the parquet files keep it.

A column may have moved between versions of a schema, so each thing is looked for under
several dotted names and the first that a file has is taken. A further survey is one more file,
which is found by being in this folder.
"""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.resources import files
from typing import Any

from .lsst import LSST
from .model import (
    INT64_SCHEMA,
    KINDS,
    Curve,
    History,
    Key,
    KeyValue,
    Listing,
    OutOfRange,
    Past,
    Quality,
    Rule,
    Survey,
    View,
    parse_int64,
)
from .ztf import ZTF, pack_ztf_name, parse_ztf_name, unpack_ztf_name

__all__ = (
    "ALIASES",
    "CURVES",
    "INT64_SCHEMA",
    "KEYS",
    "KINDS",
    "LSST",
    "SURVEYS",
    "TABLES",
    "ZTF",
    "Curve",
    "History",
    "Key",
    "KeyValue",
    "Listing",
    "OutOfRange",
    "Past",
    "Quality",
    "Rule",
    "Survey",
    "View",
    "fingerprint",
    "key_meant",
    "key_of_form",
    "list_titles",
    "pack_ztf_name",
    "parse_int64",
    "parse_ztf_name",
    "read_descriptions",
    "rivals",
    "unpack_ztf_name",
)

_FILES: list[Any] = sorted(
    (
        import_module(f".{found.name}", __name__)
        for found in pkgutil.iter_modules(__path__)
        if found.name != "model"
    ),
    key=lambda file: file.SURVEY.since,
)
SURVEYS: tuple[Survey, ...] = tuple(file.SURVEY for file in _FILES)
"""By the year of their first alerts."""

KEYS: Mapping[str, tuple[tuple[Survey, Key], ...]] = {
    key.name: tuple((of, it) for of in SURVEYS for it in of.keys if it.name == key.name)
    for survey in SURVEYS
    for key in survey.keys
}
"""By the name that callers give: surveys may share one, and the value, the file or the catalog
says which is meant."""
ALIASES: Mapping[str, tuple[tuple[Survey, Key], ...]] = {
    name: tuple((of, it) for of in SURVEYS for it in of.keys if name in it.aliases)
    for survey in SURVEYS
    for key in survey.keys
    for name in key.aliases
}
"""By the name that callers give: other keys whose values are understood under it."""

TABLES: Mapping[str, tuple[View, ...]] = {
    route: tuple(file.TABLES[route] for file in _FILES if route in file.TABLES)
    for route in ("objects", "sources", "fp")
}
"""What ``/api/v1/objects``, ``/sources`` and ``/fp`` show, by survey."""

CURVES: Mapping[str, Curve] = {file.SURVEY.name: file.CURVE for file in _FILES}


def read_descriptions() -> list[bytes]:
    """Return the files of JSON that describe columns: those of the surveys that have one."""
    folder = files(__name__)
    return [file.read_bytes() for file in folder.iterdir() if file.name.endswith(".json")]


def list_titles(surveys: Iterable[Survey] = SURVEYS, last: str = "and") -> str:
    """Return the titles of surveys as a sentence has them: ``ZTF, WINTER and LSST``."""
    *others, end = [survey.title for survey in surveys] or ["no survey"]
    return f"{', '.join(others)} {last} {end}" if others else end


def fingerprint(surveys: Iterable[Survey] = SURVEYS) -> str:
    """Return what differs where files would be recognised or read otherwise: 16 hex digits.

    What was made of a file for other surveys, or other columns, is to be made anew.
    """
    told = [
        (
            survey.name,
            [
                (it.name, it.columns, it.least, it.pattern)
                for it in (*survey.keys, survey.moving_key)
                if it
            ],
            survey.marks,
            survey.stamp_columns,
            survey.time_columns,
            survey.band_columns,
            sorted((repr(held), name) for held, name in survey.bands.items()),
            survey.brightness_columns,
            survey.ra_columns,
            survey.dec_columns,
            survey.sign_columns,
            sorted((repr(held), sign) for held, sign in survey.signs.items()),
        )
        for survey in surveys
    ]
    return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()


def rivals(survey: Survey) -> tuple[Survey, ...]:
    """Return the surveys whose ids have columns of the same names, ``survey`` itself among them."""
    mine = survey.id_columns
    return tuple(other for other in SURVEYS if not mine.isdisjoint(other.id_columns))


def key_meant(name: str, value: object) -> str:
    """Return the name of the key that a value is of which was sent as ``name``.

    That is ``name`` but for a value that only a key takes which has this name as an alias.
    """
    if name not in ALIASES or any(key.takes(value) for _, key in KEYS[name]):
        return name
    return next((key.name for _, key in ALIASES[name] if key.takes(value)), name)


def key_of_form(value: object) -> str | None:
    """Return the name of the only key that takes a text, if there is one and it is no number."""
    if not isinstance(value, str) or value.strip().lstrip("-").isdigit():
        return None
    names = {key.name for survey in SURVEYS for key in survey.keys if key.takes(value)}
    return names.pop() if len(names) == 1 else None
