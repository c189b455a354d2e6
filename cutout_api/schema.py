"""What columns there are: by survey and table, and by the titles that today's clients read.

Of each survey the newest file says which columns there are; the public schema, which ones there
would be in others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .columns import describe, public_types, type_name
from .surveys import KINDS, TABLES, Survey, View
from .table_request import CUTOUTS_ENDPOINT, ENDPOINTS, SchemaRequest
from .tables import Tables

Schema = dict[str, Any]
STAMP_TYPE = "array"


def describe_columns(tables: Tables, surveys: Sequence[Survey]) -> list[dict[str, str]]:
    """Return every column of every table: survey, table, name, type, unit and what it is.

    Raises a CutoutError.
    """
    return [
        entry
        for route, views in TABLES.items()
        for view in views
        if view.survey in surveys
        for entry in _describe_view(tables, route, view)
    ]


def _describe_view(tables: Tables, route: str, view: View) -> Iterator[dict[str, str]]:
    columns = tables.columns(view)
    types = {name: type_name(it.type) for name, it in columns.items() if not it.is_former}
    if types and view.shows_alerts:
        types |= {view.stamp_name(kind): STAMP_TYPE for kind in KINDS}
    for name, kind in types.items():
        known = describe(view, name)
        yield {
            "survey": view.survey.name,
            "table": route,
            "name": name,
            "type": kind,
            "unit": known.unit,
            "description": known.text,
        }


def group_columns(entries: Iterable[dict[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what ``describe_columns`` does by survey, then by table, then by name."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in entries:
        rest = {name: entry[name] for name in ("type", "unit", "description")}
        tables = found.setdefault(entry["survey"], {})
        tables.setdefault(entry["table"], {})[entry["name"]] = rest
    return found


def describe_schema(tables: Tables, asked: SchemaRequest) -> Schema:
    """Return the answer of ``/api/v1/schema``. Raises a CutoutError.

    With an endpoint the columns of its tables by title, as ``{type, doc}`` by name without
    prefix. Without one, every column by survey and table, and beside these by title those of the
    table that is the default, unless one survey is asked for by name.
    """
    if asked.endpoint is not None:
        views = [view for view in ENDPOINTS[asked.endpoint] if view.survey in asked.surveys]
        of_stamps = asked.endpoint == CUTOUTS_ENDPOINT
        return _by_title(tables, views, stamps=of_stamps, columns=not of_stamps)
    by_survey = group_columns(describe_columns(tables, asked.surveys))
    if asked.is_one_survey:
        return by_survey
    defaults = [view for views in TABLES.values() for view in views if view.is_default]
    views = [view for view in defaults if view.survey.name in by_survey or not by_survey]
    return _by_title(tables, views, stamps=True, columns=True) | by_survey


def _by_title(
    tables: Tables, views: Sequence[View], *, stamps: bool, columns: bool
) -> dict[str, dict[str, dict[str, str]]]:
    """Return columns by the title of their prefix, those of each in the order of their names.

    Those of surveys that the archive has; if it has none of them, of all.
    """
    types = {id(view): _types(tables, view) for view in views}
    there = [view for view in views if types[id(view)][0]]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for view in there or views:
        names: dict[str, str] = {}
        if columns:
            names |= types[id(view)][1]
        if stamps:
            names |= {view.stamp_name(kind): STAMP_TYPE for kind in KINDS}
        for name, kind in sorted(names.items()):
            prefix, colon, short = name.partition(":")
            family = found.setdefault(view.family(prefix + colon), {})
            family[short] = {"type": kind, "doc": describe(view, name).text}
    return found


def _types(tables: Tables, view: View) -> tuple[bool, Mapping[str, str]]:
    """Tell whether the archive has a table, and return the types of its columns by name.

    Those that are shown unasked, and those of the public schema.
    """
    known = tables.columns(view)
    other = [prefix for prefix, _ in view.described if not prefix.endswith(":")]
    public = {
        name: kind for name, kind in public_types(view).items() if not name.startswith(tuple(other))
    }
    types = {name: known[name].type if name in known else kind for name, kind in public.items()}
    types |= {name: column.type for name, column in known.items() if not column.asked}
    return bool(known), {name: type_name(kind) for name, kind in types.items()}
