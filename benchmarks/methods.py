"""The ways to read a stamp: one table of them, ours and the others'.

Each answers with the stored stamps of one alert. What is asked of each is the same, and each
answer is compared with the stamp that was written, after the clock has stopped.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cutout_api.reader import Reader
from cutout_api.request import parse_request
from cutout_api.settings import load_settings

from . import today
from .datasets import KEYS, WARM_UP, Alert, File
from .places import ROOT, Place

BLOCK = 65536
PAGE_ROWS = 100  # of a stamp column as Spark writes it


def cell_path(survey: str, kind: str) -> tuple[str, ...]:
    """Return the nested name of the column that holds the stamps of a kind."""
    return (f"cutout{kind}", "stampData") if survey == "ztf" else (f"cutout{kind}",)


class Way:
    """One way to read stamps, made once for all files and used by one thread."""

    def prepare(self, file: File) -> None:
        """Do what is not timed, before each read."""

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        """Return the stamps of an alert, one for each kind."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open."""


# --- Ours -------------------------------------------------------------------------------------


def our_environment(place: Place, driver: str, folder: str = "") -> dict[str, str]:
    """Return the settings of a service, or of a reader, as environment variables."""
    environment = {
        "CUTOUT_API_CONFIG": os.devnull,
        "CUTOUT_API_ARCHIVE_URI": place.uri,
        "CUTOUT_API_ARCHIVE_USER": place.user,
        "CUTOUT_API_ARCHIVE_ROOTS": place.folder,
        "CUTOUT_API_INDEX_FOLDER": folder,
    }
    if driver != "local":
        environment["CUTOUT_API_ARCHIVE_DRIVER"] = driver
    return environment


def index_folder(place: Place, driver: str, stored: str) -> str:
    """Return where indexes of a kind are stored, empty where none are.

    Drivers tell a file's time differently, so that each needs its own.
    """
    return f"{place.scratch}/index-{stored}-{driver}" if stored else ""


def store_indexes(place: Place, driver: str, files: Iterable[File], stored: str) -> dict[str, Any]:
    """Index files ahead of time, as an operator does: ``cutout_api index``."""
    folder = Path(index_folder(place, driver, stored))
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cutout_api", "index", *map(place.path, files)]
    command.append(f"--{stored}")
    start = time.monotonic()
    subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ
        | our_environment(place, driver, str(folder))
        | {"CUTOUT_API_CATALOG_URL": f"sqlite:///{folder / 'catalog.sqlite'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=600,
    )
    return {
        "bytes": sum(file.stat().st_size for file in folder.rglob("*.index")),
        "seconds": round(time.monotonic() - start, 2),
    }


@dataclass(frozen=True)
class Variant:
    """One row of what is measured of ours."""

    name: str
    title: str
    stored: str = ""
    """What is in the index folder: nothing, ``pages`` or ``blocks``."""
    cold: bool = False
    """A reader that has not seen the file before, on a warm connection."""


OURS = (
    Variant("page", "ours, page"),
    Variant("block", "ours, block map", stored="blocks"),
    Variant("cold", "ours, file never seen", cold=True),
    Variant("stored", "ours, file never seen, index stored", stored="pages", cold=True),
    Variant("stored-block", "ours, file never seen, index with blocks", stored="blocks", cold=True),
)


class Ours(Way):
    """``Reader.read_stored``: what a request does to have the stored bytes of its stamps."""

    def __init__(self, place: Place, driver: str, variant: Variant) -> None:
        self._place, self._variant = place, variant
        folder = index_folder(place, driver, variant.stored)
        self._settings = partial(self._load, place, driver)
        self._folder = folder
        self._seen: set[File] = set()
        self._reader: Reader | None = None
        self._empty: tempfile.TemporaryDirectory[str] | None = None
        if not variant.cold:
            self._reader = Reader(self._settings(folder))

    @staticmethod
    def _load(place: Place, driver: str, folder: str) -> Any:
        return load_settings(os.devnull, our_environment(place, driver, folder))

    def prepare(self, file: File) -> None:
        if self._variant.cold:
            self.close()
            self._empty = tempfile.TemporaryDirectory(dir=self._place.scratch)
            self._reader = Reader(self._settings(self._folder or self._empty.name))
            self._ask(WARM_UP.format(survey=file.survey), warm_up_keys(self._place, file), "All")
        elif file not in self._seen:
            # Whatever is built on first touch of a file is built here.
            self._seen.add(file)
            for alert in first_alerts(self._place, file):
                self._ask(file.name, alert.keys, "All")

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        return self._ask(file.name, alert.keys, kinds[0] if len(kinds) == 1 else "All")

    def _ask(self, name: str, keys: dict[str, Any], kind: str) -> list[bytes]:
        assert self._reader is not None
        asked = {"hdfsPath": self._place.path(name), "kind": kind, "return_type": "FITS", **keys}
        return list(self._reader.read_stored(parse_request(asked))[1].values())

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._empty is not None:
            self._empty.cleanup()
            self._empty = None


_named: dict[tuple[str, str], Any] = {}


def warm_up_keys(place: Place, file: File) -> dict[str, str | int]:
    """Return how an alert of the warm-up file is called."""
    path = f"{place.local}/{WARM_UP.format(survey=file.survey)}"
    if (path, "") not in _named:
        columns = list(KEYS[file.survey])
        _named[path, ""] = pq.read_table(path, columns=columns).slice(0, 1).to_pylist()[0]
    keys: dict[str, str | int] = _named[path, ""]
    return keys


def first_alerts(place: Place, file: File) -> list[Alert]:
    """Return a few alerts of a file, to warm up on."""
    from .datasets import read_samples

    if (place.local, file.samples) not in _named:
        _named[place.local, file.samples] = read_samples(Path(place.local), file)[-2:]
    alerts: list[Alert] = _named[place.local, file.samples]
    return alerts


# --- Today's algorithm, and what libraries offer ----------------------------------------------


class Today(Way):
    """``pq.read_table(path, columns, filters)``."""

    def __init__(self, place: Place, *, keep: bool) -> None:
        self._place = place
        self._kept = place.connect() if keep else None
        self._last: Any = None

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        # Held until the next one: pyarrow's threads may still close its files. Letting go of a
        # connection takes 0.1 ms, making one 7.
        self._last = self._kept or self._place.connect()
        return today.read_cells(self._last, self._place.path(file), alert.keys, kinds)


class Dataset(Way):
    """A pyarrow dataset of the file, kept: the footer is parsed once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._filesystem = place.connect()
        self._kept: dict[File, ds.Dataset] = {}

    def prepare(self, file: File) -> None:
        if file not in self._kept:
            path = self._place.path(file)
            self._kept[file] = ds.dataset(path, filesystem=self._filesystem, format="parquet")

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        condition = None
        for name, value in alert.keys.items():
            equal = ds.field(name) == value
            condition = equal if condition is None else condition & equal
        columns = {kind: ds.field(*cell_path(file.survey, kind)) for kind in kinds}
        found = self._kept[file].to_table(columns=columns, filter=condition)
        return [found[kind][0].as_py() for kind in kinds]


class RowGroup(Way):
    """``ParquetFile.read_row_group`` of one column, the row being known."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._filesystem = place.connect()
        self._open: list[Any] = []
        self._kept: dict[File, pq.ParquetFile] = {}

    def prepare(self, file: File) -> None:
        if file not in self._kept:
            self._open.append(self._filesystem.open_input_file(self._place.path(file)))
            self._kept[file] = pq.ParquetFile(self._open[-1])

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        reader, row, group = self._kept[file], alert.row, 0
        while row >= (rows := reader.metadata.row_group(group).num_rows):
            row, group = row - rows, group + 1
        paths = [cell_path(file.survey, kind) for kind in kinds]
        found = reader.read_row_group(group, columns=[".".join(path) for path in paths])
        cells = [found[path[0]][row].as_py() for path in paths]
        return [cell["stampData"] if isinstance(cell, dict) else cell for cell in cells]

    def close(self) -> None:
        # Before their file system: libhdfs complains otherwise.
        for source in self._open:
            source.close()


class Sql(Way):
    """A query with the keys as its condition; the file is on local disk."""

    names_nested: Callable[[tuple[str, ...]], str]

    def __init__(self, place: Place) -> None:
        self._place = place

    def query(self, file: File, alert: Alert, kinds: Sequence[str], source: str) -> str:
        columns = [type(self).names_nested(cell_path(file.survey, kind)) for kind in kinds]
        conditions = [
            f'"{name}" = ' + (f"'{value}'" if isinstance(value, str) else str(value))
            for name, value in alert.keys.items()
        ]
        return f"SELECT {', '.join(columns)} FROM {source} WHERE {' AND '.join(conditions)}"


class DuckDb(Sql):
    """DuckDB, one connection kept, with its cache of file metadata."""

    names_nested = staticmethod(lambda path: ".".join(f'"{name}"' for name in path))

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._connection = importlib.import_module("duckdb").connect()
        self._connection.execute("SET parquet_metadata_cache = true")

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        source = f"read_parquet('{self._place.local_path(file)}')"
        query = self.query(file, alert, kinds, source)
        return list(self._connection.execute(query).fetchone())

    def close(self) -> None:
        self._connection.close()


class DataFusion(Sql):
    """DataFusion, one context kept, the file registered."""

    names_nested = staticmethod(
        lambda path: f'"{path[0]}"' + "".join(f"['{name}']" for name in path[1:])
    )

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._context = importlib.import_module("datafusion").SessionContext()
        self._tables: dict[File, str] = {}

    def prepare(self, file: File) -> None:
        if file not in self._tables:
            self._tables[file] = f"t{len(self._tables)}"
            self._context.register_parquet(self._tables[file], self._place.local_path(file))

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        batches = self._context.sql(self.query(file, alert, kinds, self._tables[file])).collect()
        batch = next(batch for batch in batches if batch.num_rows)
        return [batch.column(number)[0].as_py() for number in range(len(kinds))]


class Polars(Way):
    """``polars.scan_parquet``, which keeps nothing; the file is on local disk."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._polars = importlib.import_module("polars")

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        pl = self._polars
        columns = []
        for kind in kinds:
            name, *members = cell_path(file.survey, kind)
            column = pl.col(name)
            for member in members:
                column = column.struct.field(member)
            columns.append(column.alias(kind))
        conditions = [pl.col(name) == value for name, value in alert.keys.items()]
        scanned = pl.scan_parquet(self._place.local_path(file))
        return list(scanned.filter(*conditions).select(columns).collect().row(0))


# --- The floor --------------------------------------------------------------------------------


class Floor(Way):
    """A bare read of as many bytes as a page or a block has; the bytes are not looked at."""

    def __init__(self, place: Place, driver: str, *, page: bool) -> None:
        self._place, self._page, self._driver = place, page, driver
        self._local = place.connect() if driver != "native" else None
        self._open: list[Any] = []
        self._kept: dict[File, Callable[[int, int], bytes]] = {}
        self._chunks: dict[File, list[tuple[int, int, int]]] = {}
        if driver == "native":
            os.environ["HADOOP_USER_NAME"] = place.user
            module = importlib.import_module("hdfs_native")
            self._client = module.Client(place.uri)

    def prepare(self, file: File) -> None:
        if file in self._kept:
            return
        path = self._place.path(file)
        if self._local is not None:
            self._open.append(self._local.open_input_file(path))
            self._kept[file] = self._open[-1].read_at
        else:
            reader = self._client.read(path)
            self._kept[file] = lambda length, offset: bytes(reader.read_range(offset, length))
        footer = pq.read_metadata(self._place.local_path(file))
        name = ".".join(cell_path(file.survey, "Science"))
        chunks = self._chunks[file] = []
        for group in (footer.row_group(n) for n in range(footer.num_row_groups)):
            columns = (group.column(n) for n in range(group.num_columns))
            chunk = next(column for column in columns if column.path_in_schema == name)
            chunks.append((group.num_rows, chunk.data_page_offset, chunk.total_compressed_size))

    def read(self, file: File, alert: Alert, kinds: Sequence[str]) -> list[bytes]:
        row = alert.row
        for rows, start, size in self._chunks[file]:  # noqa: B007
            if row < rows:
                break
            row -= rows
        page = row // PAGE_ROWS
        length = min(size, size * PAGE_ROWS // rows) if self._page else min(BLOCK, size)
        offset = start + min(page * length if self._page else row * size // rows, size - length)
        return [self._kept[file](length, offset)]

    def close(self) -> None:
        self._kept.clear()
        for source in self._open:
            source.close()


# --- The table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One row of what is measured."""

    name: str
    title: str
    group: str
    """ours, today, library or floor"""
    make: Callable[[], Way]
    driver: str
    times: int = 1
    """How often in a round: what is fast needs more samples."""
    every_file: bool = True
    """On files of every size, or of the middle one only."""
    all_kinds: bool = False
    """Also measured for ``kind=All``."""
    checked: bool = True
    library: str | None = None

    @property
    def missing(self) -> bool:
        """Whether the library it needs is not installed."""
        return self.library is not None and importlib.util.find_spec(self.library) is None


def list_methods(place: Place) -> list[Method]:
    """Return every method that applies to a place, also those whose library is missing."""
    on = "libhdfs" if place.on_hdfs else "local"
    methods = [
        Method(
            "today",
            "today's algorithm" + (", new connection each time" if place.on_hdfs else ""),
            "today",
            partial(Today, place, keep=False),
            on,
            all_kinds=not place.on_hdfs,
        )
    ]
    if place.on_hdfs:
        methods.append(
            Method(
                "today-kept",
                "today's algorithm, connection kept",
                "today",
                partial(Today, place, keep=True),
                on,
                all_kinds=True,
            )
        )
    middle: dict[str, Any] = {"group": "library", "every_file": False}
    methods += [
        Method(
            "dataset", "pyarrow dataset, kept", make=partial(Dataset, place), driver=on, **middle
        ),
        Method(
            "row-group",
            "pyarrow read_row_group, row known",
            make=partial(RowGroup, place),
            driver=on,
            **middle,
        ),
    ]
    for name, title, make in (
        ("duckdb", "DuckDB", DuckDb),
        ("polars", "Polars", Polars),
        ("datafusion", "DataFusion", DataFusion),
    ):
        disk = ", file on local disk" if place.on_hdfs else ""
        methods.append(
            Method(
                name,
                title + disk,
                make=partial(make, place),
                driver="local",
                library=name,
                **middle,
            )
        )
    for driver in place.drivers:
        how = "" if driver == "local" else f", {driver}"
        for variant in OURS:
            methods.append(
                Method(
                    f"{variant.name}@{driver}",
                    variant.title + how,
                    "ours",
                    partial(Ours, place, driver, variant),
                    driver,
                    times=1 if variant.cold else 3,
                    all_kinds=not variant.cold,
                )
            )
        for page, what in ((True, "as many bytes as a page"), (False, "64 kB")):
            methods.append(
                Method(
                    f"floor-{'page' if page else 'block'}@{driver}",
                    f"floor: a bare read of {what}{how}",
                    "floor",
                    partial(Floor, place, driver, page=page),
                    driver,
                    times=3,
                    checked=False,
                )
            )
    return methods
