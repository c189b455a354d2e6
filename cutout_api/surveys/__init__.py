"""The surveys as data, one file each: what callers name, and where the parquet files keep it.

A column may have moved between versions of a schema, so each thing is looked for under
several dotted names and the first that a file has is taken. A further survey is one more file,
which is found by being in this folder.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from typing import Any

from .lsst import LSST
from .model import (
    KINDS,
    Curve,
    History,
    Key,
    KeyValue,
    OutOfRange,
    Rule,
    Survey,
    View,
    parse_int64,
)
from .ztf import ZTF, pack_ztf_name, parse_ztf_name, unpack_ztf_name

__all__ = (
    "ALIASES",
    "CURVES",
    "KINDS",
    "LSST",
    "SURVEYS",
    "TABLES",
    "ZTF",
    "Curve",
    "History",
    "Key",
    "KeyValue",
    "OutOfRange",
    "Rule",
    "Survey",
    "View",
    "key_meant",
    "key_of_form",
    "pack_ztf_name",
    "parse_int64",
    "parse_ztf_name",
    "read_descriptions",
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

ALIASES: Mapping[str, tuple[tuple[Survey, Key], ...]] = {
    name: tuple((of, it) for of in SURVEYS for it in of.keys if name in it.aliases)
    for survey in SURVEYS
    for key in survey.keys
    for name in key.aliases
}
"""By the name that callers give: other keys whose values are understood under it."""
_OWN_KEYS: Mapping[str, tuple[Key, ...]] = {
    name: tuple(key for survey in SURVEYS for key in survey.keys if key.name == name)
    for name in ALIASES
}

TABLES: Mapping[str, tuple[View, ...]] = {
    route: tuple(file.TABLES[route] for file in _FILES if route in file.TABLES)
    for route in ("objects", "sources")
}
"""What ``/api/v1/objects`` and ``/api/v1/sources`` show, by survey."""

CURVES: Mapping[str, Curve] = {file.SURVEY.name: file.CURVE for file in _FILES}


def read_descriptions() -> list[bytes]:
    """Return the files of JSON that describe columns: those of the surveys that have one."""
    folder = files(__name__)
    return [file.read_bytes() for file in folder.iterdir() if file.name.endswith(".json")]


def key_meant(name: str, value: object) -> str:
    """Return the name of the key that a value is of which was sent as ``name``.

    That is ``name`` but for a value that only a key takes which has this name as an alias.
    """
    if name not in ALIASES or any(key.takes(value) for key in _OWN_KEYS[name]):
        return name
    return next((key.name for _, key in ALIASES[name] if key.takes(value)), name)


def key_of_form(value: object) -> str | None:
    """Return the name of the only key that takes a text, if there is one and it is no number."""
    if not isinstance(value, str) or value.strip().lstrip("-").isdigit():
        return None
    names = {key.name for survey in SURVEYS for key in survey.keys if key.takes(value)}
    return names.pop() if len(names) == 1 else None
