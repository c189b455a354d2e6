"""The archive that the contract is tested on: one folder, the same on disk and on HDFS."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from cutout_api.settings import Archive as ArchiveSettings
from cutout_api.settings import Limits, Settings
from cutout_api.storage import Archive, OpenFile

from .samples import (
    LSST_SCHEMA,
    LSST_TOP_LEVEL_SCHEMA,
    REAL_DATA,
    ZTF_SCHEMA,
    lsst_alert,
    pixels,
    write,
    ztf_alert,
    ztf_fits,
)

NIGHT = "archive/science/year=2024/month=11/day=14"
NEXT_NIGHT = "archive/science/year=2024/month=11/day=15"

Row = dict[str, Any]


@contextmanager
def opened(path: Path, **limits: Any) -> Iterator[OpenFile]:
    """Open one file, its folder being the archive."""
    settings = Settings(archive=ArchiveSettings(uri=str(path.parent)), limits=Limits(**limits))
    archive = Archive(settings)
    try:
        (file_id,) = archive.locate(path.name)
        with archive.open(file_id) as file:
            yield file
    finally:
        archive.close()


@dataclass
class SampleArchive:
    """The folder, and the rows of each file in it by name."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def write(self, name: str, rows: list[Row], schema: pa.Schema, **options: Any) -> None:
        write(self.folder / name, rows, schema, **options)
        self.rows[name] = rows


def _object(number: int) -> str:
    return f"ZTF24aaaaaa{chr(ord('a') + number)}"


# Times are not in the order of rows: the newest alert of an object is in the middle.
_ORDER = (0, 5, 2, 11, 4, 1, 10, 7, 8, 3, 6, 9)


def make_archive(folder: Path) -> SampleArchive:
    """Write one file for each thing that can be met in a real archive."""
    archive = SampleArchive(folder)
    first = [ztf_alert(n, _object(n % 3), nan=n == 2) for n in _ORDER]
    later = [ztf_alert(n + 100, _object(n % 3)) for n in range(6)]
    archive.write(f"{NIGHT}/part-00000.snappy.parquet", first, ZTF_SCHEMA)
    archive.write(
        f"{NIGHT}/part-00001.snappy.parquet",
        [ztf_alert(n + 50, _object(3 + n % 2)) for n in range(4)],
        ZTF_SCHEMA,
        write_page_index=True,
    )
    archive.write(
        f"{NEXT_NIGHT}/part-0.parquet", later, ZTF_SCHEMA, use_dictionary=True, compression="zstd"
    )
    lsst = [lsst_alert(n, n % 2) for n in range(6)]
    lsst += [lsst_alert(6, None), lsst_alert(7, 1, shape=(45, 46))]
    archive.write("lsst/nested.parquet", lsst, LSST_SCHEMA)
    archive.write(
        "lsst/top_level.parquet", [lsst_alert(n + 20, 3) for n in range(4)], LSST_TOP_LEVEL_SCHEMA
    )
    archive.write("lsst/no_rows.parquet", [], LSST_SCHEMA)
    archive.write("ztf/no_rows.parquet", [], ZTF_SCHEMA)
    archive.write(
        "ztf/science_only.parquet",
        [ztf_alert(200), ztf_alert(201)],
        pa.schema([ZTF_SCHEMA.field(name) for name in ("objectId", "candid", "cutoutScience")]),
    )
    archive.write("ztf/peculiar.parquet", _peculiar_alerts(), ZTF_SCHEMA)
    _write_damaged_files(archive)
    if REAL_DATA.is_dir():
        shutil.copytree(REAL_DATA, folder / "real")
        for file in (folder / "real").iterdir():
            file.chmod(0o644)
    for file in folder.rglob("*"):
        make_old(file)
    return archive


def make_old(path: Path) -> None:
    """Have a file be an hour old: not one that may still be being written."""
    an_hour_ago = time.time() - 3700
    os.utime(path, (an_hour_ago, an_hour_ago))


PECULIAR = (
    "null field",
    "null struct",
    "narrow",
    "tall",
    "not gzip",
    "not fits",
    "cut short",
    "bad checksum",
    "no image",
    "empty",
    "plain",
    "no time",
    "integers",
)


def peculiar_candid(what: str) -> str:
    return str(ztf_alert(300 + PECULIAR.index(what))["candid"])


def _peculiar_alerts() -> list[Row]:
    good = gzip.compress(ztf_fits(pixels(1)), mtime=0)
    flipped = bytearray(good)
    flipped[-6] ^= 1
    changes: dict[str, dict[str, Any]] = {
        "null field": {"Template": None},
        "null struct": {"null_struct": ("Science", "Template", "Difference")},
        "narrow": {"shape": (63, 62)},
        "tall": {"shape": (63, 5)},
        "not gzip": {"Science": b"\x1f\x8b this only begins like gzip"},
        "not fits": {"Science": gzip.compress(b"these bytes are no FITS file")},
        "cut short": {"Science": good[: len(good) // 2]},
        "bad checksum": {"Science": bytes(flipped)},
        "no image": {"Science": ztf_fits(pixels(1))[:2880].replace(b"NAXIS   =  ", b"NAXIS   = -")},
        "empty": {"Science": b""},
        "plain": {"Science": ztf_fits(pixels(7))},
        "no time": {"candidate": {"jd": None, "fid": 1}},
        "integers": {"Science": ztf_fits(pixels(8).astype(">i2"))},
    }
    return [
        ztf_alert(300 + number, f"ZTF24bbbbbb{chr(ord('a') + number)}", **changes[what])
        for number, what in enumerate(PECULIAR)
    ]


def _write_damaged_files(archive: SampleArchive) -> None:
    whole = archive.folder / NIGHT / "part-00000.snappy.parquet"
    content = whole.read_bytes()
    damaged = archive.folder / "damaged"
    damaged.mkdir()
    (damaged / "cut_short.parquet").write_bytes(content[: len(content) // 2])
    (damaged / "empty.parquet").write_bytes(b"")
    (damaged / "noise.parquet").write_bytes(b"PAR1" + bytes(range(256)) * 40 + b"PAR1")
    (damaged / "notes.txt").write_text("not a parquet file")
    # Overwritten in the middle of the first row group's Science pages; the footer is whole.
    archive.write("damaged/bad_page.parquet", archive.rows[f"{NIGHT}/{whole.name}"], ZTF_SCHEMA)
    bad = damaged / "bad_page.parquet"
    content = bytearray(bad.read_bytes())
    place = content.index(b"\x1f\x8b\x08") + 2_000
    content[place : place + 4_000] = bytes(4_000)
    bad.write_bytes(content)
