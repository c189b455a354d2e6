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
    Listing,
    Past,
    Quality,
    Rule,
    Survey,
    View,
    parse_int64,
)
from .ztf import ZTF, pack_ztf_name, parse_ztf_name, unpack_ztf_name

__all__ = (
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
    "Listing",
    "Past",
    "Quality",
    "Rule",
    "Survey",
    "View",
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
