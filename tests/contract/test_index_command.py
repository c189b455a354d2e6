"""``cutout_api index``: what it makes is what the service reads by."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import requests

from ..archive import NIGHT, SampleArchive
from ..samples import stored_fits
from ..service import ROOT, running_service


def run_index(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cutout_api", "index", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_was_indexed_is_read_by_block(sample_archive: SampleArchive, tmp_path: Path) -> None:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "CUTOUT_API_INDEX_FOLDER": str(tmp_path),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
        "CUTOUT_API_LIMITS_FOLDER_FILES": "1",
    }
    ended = run_index(environment, NIGHT, "--blocks")
    assert (ended.returncode, ended.stdout) == (0, "2 files, 0 of them could not be read\n")
    name = f"{NIGHT}/part-00000.snappy.parquet"
    row = sample_archive.rows[name][3]
    with running_service(environment) as service:
        answer = requests.get(
            f"{service.address}/api/v1/cutouts",
            params={"hdfsPath": name, "candid": row["candid"], "kind": "All", "return_type": "PNG"},
            timeout=20,
        )
        assert answer.status_code == 200
        answer = requests.get(
            f"{service.address}/api/v1/cutouts",
            params={
                "hdfsPath": name,
                "candid": row["candid"],
                "kind": "Science",
                "return_type": "FITS",
            },
            timeout=20,
        )
        assert answer.content == stored_fits(row, "Science")
        text = requests.get(f"{service.address}/metrics", timeout=20).text
    counts = dict(re.findall(r'^cutout_stamps_read_total\{by="([a-z ]+)"\} (\S+)$', text, re.M))
    assert {name: float(count) for name, count in counts.items() if float(count)} == {"block": 4.0}


def test_damaged_files_are_reported_and_left_out(
    sample_archive: SampleArchive, tmp_path: Path
) -> None:
    environment = {
        "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
        "CUTOUT_API_INDEX_FOLDER": str(tmp_path),
        "CUTOUT_API_CATALOG_URL": f"sqlite:///{tmp_path / 'catalog.sqlite'}",
    }
    ended = run_index(environment, "damaged", "ztf", "--blocks")
    assert ended.returncode == 1
    assert "7 files, 3 of them could not be read" in ended.stdout
    for name in ("cut_short", "empty", "noise"):
        assert re.search(
            rf"{name}\.parquet: the footer of '{name}\.parquet' is damaged", ended.stderr
        )
    assert "Traceback" not in ended.stderr


def test_without_a_folder_to_keep_them_it_says_so(sample_archive: SampleArchive) -> None:
    ended = run_index(
        {
            "CUTOUT_API_ARCHIVE_URI": str(sample_archive.folder),
            "CUTOUT_API_CONFIG": os.devnull,
        },
        NIGHT,
        "--blocks",
    )
    assert ended.returncode == 2
    assert "index.folder is not set" in ended.stderr
