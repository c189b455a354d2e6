"""The contract on a local folder; tests/hdfs runs the same tests on HDFS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from cutout_api.settings import Settings
from cutout_api.web import create_app

from ..archive import SampleArchive


@pytest.fixture(scope="session")
def client(local_settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(local_settings)
    yield app.test_client()
    app.extensions["cutout_reader"].close()


@pytest.fixture(scope="session")
def archive(sample_archive: SampleArchive) -> SampleArchive:
    return sample_archive
