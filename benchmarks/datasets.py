"""The files that are measured: simulated alerts in the real schemas, and what is in them."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cutout_api.demo import (
    CARDS,
    SIMULATE,
    read_schema,
    simulate_ztf,
    write_file,
    write_hdu,
    ztf_name,
)
from cutout_api.surveys import KINDS

SURVEYS = tuple(SIMULATE)
ROWS_PER_MEGABYTE = 24
LAYOUTS = {
    "spark": "without page index (Spark up to parquet-mr 1.10)",
    "spark-indexed": "with page index (Spark from parquet-mr 1.11 on)",
}
KEYS = {"ztf": ("objectId", "candid"), "lsst": ("diaSourceId",)}
"""What a caller names an alert by, and the columns that hold it; the last one alone is enough."""
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class File:
    """One file of the benchmark."""

    survey: str
    megabytes: int
    layout: str

    @property
    def name(self) -> str:
        return f"{self.survey}-{self.megabytes}-{self.layout}.parquet"

    @property
    def samples(self) -> str:
        """The file of sampled alerts, the same for each layout."""
        return f"{self.survey}-{self.megabytes}.samples"


@dataclass(frozen=True)
class Alert:
    """An alert of a file: where it is, what it is called, and its stamps as they are stored."""

    row: int
    keys: dict[str, str | int]
    cells: dict[str, bytes]


def write_files(folder: Path, files: Iterable[File], samples: int) -> None:
    """Write those files that are not there yet, each with a sample of its alerts beside it."""
    for survey, megabytes in sorted({(file.survey, file.megabytes) for file in files}):
        wanted = [file for file in files if (file.survey, file.megabytes) == (survey, megabytes)]
        names = [wanted[0].samples, *(file.name for file in wanted)]
        if all((folder / name).exists() for name in names):
            continue
        table = SIMULATE[survey](rows=megabytes * ROWS_PER_MEGABYTE)
        for file in wanted:
            write_file(folder / file.name, table, file.layout)
        write_samples(folder / wanted[0].samples, table, survey, samples)


def write_samples(path: Path, table: pa.Table, survey: str, number: int) -> None:
    """Write down some random alerts of a table, in the order in which they are to be asked for."""
    rows = np.random.default_rng(7).permutation(table.num_rows)[:number]
    chosen = table.take(pa.array(rows))
    columns: dict[str, Any] = {"row": rows, **{key: chosen[key] for key in KEYS[survey]}}
    for kind in KINDS:
        cells = chosen[f"cutout{kind}"].combine_chunks()
        columns[kind] = cells.field("stampData") if pa.types.is_struct(cells.type) else cells
    part = path.with_suffix(".part")
    pq.write_table(pa.table(columns), part, compression="zstd")
    part.replace(path)


def read_samples(folder: Path, file: File) -> list[Alert]:
    """Return the sampled alerts of a file."""
    return [
        Alert(
            row=row.pop("row"),
            keys={key: row[key] for key in KEYS[file.survey]},
            cells={kind: row[kind] for kind in KINDS},
        )
        for row in pq.read_table(folder / file.samples).to_pylist()
    ]


def inflate(cell: bytes) -> bytes:
    """Return the FITS file in a cell: what every method's answer is compared by."""
    return gzip.decompress(cell) if cell.startswith(GZIP_MAGIC) else cell


# --- Many small files -------------------------------------------------------------------------

SMALL_ROWS = 1  # a footer in the real schema, some 40 kB, and three stamps
DISTINCT = 200


def write_small_files(folder: Path) -> list[dict[str, str | int]]:
    """Write small ZTF files named after their number; return how the alert of each is called."""
    folder.mkdir(parents=True, exist_ok=True)
    table = simulate_ztf(rows=DISTINCT * SMALL_ROWS)
    for number in range(DISTINCT):
        rows = table.slice(number * SMALL_ROWS, SMALL_ROWS)
        write_file(folder / f"{number}.parquet", rows, "spark-indexed")
    firsts = table.take(pa.array(np.arange(DISTINCT) * SMALL_ROWS)).select(KEYS["ztf"])
    named: list[dict[str, str | int]] = firsts.to_pylist()
    return named


def small_name(number: int) -> str:
    """Return where the numbered small file is, a thousand to a folder."""
    return f"small/{number // 1000:03d}/{number:05d}.parquet"


def link_small_files(source: Path, folder: Path, number: int) -> None:
    """Give the small files ``number`` names: to the service each is a file of its own."""
    for n in range(number):
        path = folder / small_name(n)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(source / f"{n % DISTINCT}.parquet", path)


# --- Many rows --------------------------------------------------------------------------------


def write_rows(path: Path, rows: int) -> Iterator[Alert]:
    """Write a file of many alerts with tiny stamps; yield a few hundred random ones of them."""
    rng = np.random.default_rng(rows)
    pixels = rng.normal(size=(64, 3, 3)).astype(np.float32)
    stamps = [gzip.compress(write_hdu(CARDS["ztf"], image), mtime=0) for image in pixels]
    which = rng.integers(len(stamps), size=rows)
    candids = 2_600_000_000_000_000_000 + 7 * np.arange(rows)
    cells = pa.array(stamps, pa.binary()).take(pa.array(which))
    schema = read_schema("ztf")
    stamp = schema.field("cutoutScience").type
    table = pa.table(
        {
            "objectId": [ztf_name(int(n), 2024) for n in range(rows)],
            "candid": candids,
            "candidate": pa.StructArray.from_arrays(
                [pa.array(2_460_000.5 + np.arange(rows) / 86400)], ["jd"]
            ),
            "cutoutScience": pa.StructArray.from_arrays(
                [cells if f.name == "stampData" else pa.nulls(rows, f.type) for f in stamp],
                fields=list(stamp),
            ),
        }
    )
    write_file(path, table, "spark-indexed")
    for row in map(int, rng.choice(rows, size=min(rows, 300), replace=False)):
        keys: dict[str, str | int] = {"objectId": ztf_name(row, 2024), "candid": int(candids[row])}
        yield Alert(row, keys, {"Science": stamps[which[row]]})


WARM_UP = "warm-up-{survey}.parquet"


def write_warm_up(folder: Path, survey: str) -> dict[str, str | int]:
    """Write a tiny file that warms a connection; return how its first alert is called."""
    table = SIMULATE[survey](nights=2, objects=8, rows=20)
    write_file(folder / WARM_UP.format(survey=survey), table, "spark-indexed")
    named: dict[str, str | int] = table.slice(0, 1).select(KEYS[survey]).to_pylist()[0]
    return named
