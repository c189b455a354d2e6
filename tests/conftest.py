"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cutout_api.settings import Archive, Settings

from .archive import SampleArchive, make_archive
from .samples import REAL_DATA

IN_CI = os.environ.get("CI") == "true"

settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


@pytest.fixture(scope="session")
def sample_archive(tmp_path_factory: pytest.TempPathFactory) -> SampleArchive:
    """An archive of small files with known rows, on local disk."""
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real alerts, which a fresh clone does not have."""
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real alerts, ../shared/data, is not here")
    return REAL_DATA


@pytest.fixture(scope="session")
def local_settings(sample_archive: SampleArchive) -> Settings:
    return Settings(archive=Archive(uri=f"file://{sample_archive.folder}"))
