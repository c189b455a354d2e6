"""Fixtures that every kind of test shares."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cutout_api import storage
from cutout_api.settings import Archive, Settings

from .archive import SampleArchive, make_archive
from .postgres import PostgresServer, program_folder
from .samples import REAL_DATA

IN_CI = os.environ.get("CI") == "true"

settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def old_files() -> Iterator[None]:
    """Have each file be older than one that may still be being written.

    What tests damage they wrote just now, and would be told to ask again for some seconds.
    """
    with pytest.MonkeyPatch.context() as patched:
        for name in ("FRESH_SECONDS", "LEASE_SECONDS"):
            patched.setattr(storage, name, -math.inf)
        yield


@pytest.fixture
def new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files be as old as they are."""
    monkeypatch.setattr(storage, "FRESH_SECONDS", 60)
    monkeypatch.setattr(storage, "LEASE_SECONDS", 3600)


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the session; a test that stops it starts it again."""
    if program_folder() is None:
        sentence = "no PostgreSQL server: `make programs` installs it"
        if IN_CI:
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty catalog, on each kind of database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()
