"""A file that is being rewritten answers as it was, as it is, or that it is being rewritten.

The same tests run on HDFS, in tests/hdfs/test_rewriting.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from cutout_api import storage
from cutout_api.catalog import DAMAGED, OK
from cutout_api.indexing import CHANGING, open_indexer
from cutout_api.settings import Archive, Catalog, Settings
from cutout_api.web import create_app

from ..archive import make_old
from ..samples import stored_fits, write, ztf_alert

pytestmark = pytest.mark.usefixtures("new_files")

OLD = [ztf_alert(number) for number in range(12)]
NEW = [ztf_alert(number) for number in range(6, 30)]
BOTH = OLD[6:]
"""What both versions of the file hold."""
CUTOUTS, OBJECTS = "/api/v1/cutouts", "/api/v1/objects"
NAME = "night/a.parquet"
PARTS = 5


class Place(Protocol):
    """Where the file is, and how it is rewritten there."""

    settings: Settings

    def rewriting(self) -> AbstractContextManager[Callable[[bytes], object]]:
        """Begin the file anew; lend what appends to it, and end it."""
        ...

    def make_old(self) -> None: ...


class Disk:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "archive" / NAME
        self._path.parent.mkdir(parents=True)
        self.settings = Settings(
            archive=Archive(uri=str(folder / "archive")),
            catalog=Catalog(f"sqlite:///{folder / 'catalog.sqlite'}"),
        )

    @contextmanager
    def rewriting(self) -> Iterator[Callable[[bytes], object]]:
        with self._path.open("wb", buffering=0) as file:  # as shells and cp do: cut short, written
            yield file.write

    def make_old(self) -> None:
        make_old(self._path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Disk(tmp_path)


@pytest.fixture
def app(place: Place) -> Iterator[Flask]:
    app = create_app(place.settings)
    yield app
    app.extensions["cutout_reader"].close()


@pytest.fixture
def versions(tmp_path: Path) -> tuple[bytes, bytes]:
    old, new = (
        write(tmp_path / f"{number}.parquet", rows) for number, rows in enumerate((OLD, NEW))
    )
    return old.read_bytes(), new.read_bytes()


def put(place: Place, content: bytes) -> None:
    with place.rewriting() as append:
        append(content)


def parts_of(content: bytes) -> list[bytes]:
    size = -(-len(content) // PARTS)
    return [content[start : start + size] for start in range(0, len(content), size)]


def ask(app: Flask, row: dict[str, Any], path: str = NAME) -> TestResponse:
    asked = {"candid": str(row["candid"]), "kind": "Science", "return_type": "FITS"}
    return app.test_client().get(CUTOUTS, query_string=asked | {"hdfsPath": path})


def ask_batch(app: Flask) -> list[dict[str, Any]]:
    asked = {"candid": [str(row["candid"]) for row in BOTH], "kind": "Science", "hdfsPath": NAME}
    answer = app.test_client().post(
        f"{CUTOUTS}/batch", json=asked | {"package": "ndjson", "output-format": "FITS"}
    )
    lines = answer.data.splitlines()
    return [json.loads(line) for line in lines] if answer.status_code == 200 else [answer.json]


def assert_right_or_changing(answer: TestResponse, row: dict[str, Any]) -> None:
    if answer.status_code == 200:
        assert answer.data == stored_fits(row, "Science")
    else:
        assert (answer.status_code, answer.json["code"]) == (503, "file_changing"), answer.text
        assert answer.headers["Retry-After"] == "2"


def index(place: Place) -> list[str]:
    with open_indexer(place.settings, blocks=True, jobs=2) as indexer:
        return [outcome.state for outcome in indexer.run(indexer.plan())]


def test_each_state_of_a_file_that_is_rewritten_is_right_or_changing(
    place: Place, app: Flask, versions: tuple[bytes, bytes]
) -> None:
    put(place, versions[0])
    assert ask(app, BOTH[0]).status_code == 200
    with place.rewriting() as append:
        for number, part in enumerate(parts_of(versions[1])):
            for path in (NAME, "night"):
                assert_right_or_changing(ask(app, BOTH[number], path), BOTH[number])
            for item in ask_batch(app):
                assert "error" not in item or item["error"]["code"] == "file_changing", item
            append(part)
    end = time.monotonic() + 30
    while (answer := ask(app, NEW[-1])).status_code != 200:  # HDFS is looked at once a second
        assert answer.status_code in (404, 503), answer.text
        assert time.monotonic() < end
    assert answer.data == stored_fits(NEW[-1], "Science")


def test_a_file_that_is_begun_has_no_damage_for_tables_and_the_indexer(
    place: Place, app: Flask, versions: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutout_api.indexing.SETTLING_SECONDS", 0)
    put(place, versions[0])
    place.make_old()
    assert index(place) == [OK]
    asked = {"objectId": OLD[0]["objectId"], "withcutouts": "True", "cutout-kind": "Science"}
    client = app.test_client()
    assert client.post(OBJECTS, json=asked).status_code == 200
    with place.rewriting() as append:
        append(parts_of(versions[1])[0])
        time.sleep(1.1)  # on HDFS the file is looked at once a second
        answer = client.post(OBJECTS, json=asked)
        if answer.status_code == 200:  # of the file before, whose blocks HDFS still has
            assert len(answer.json) == sum(row["objectId"] == OLD[0]["objectId"] for row in OLD)
        else:
            found = answer.status_code, answer.json["code"]
            assert found == (503, "file_changing"), answer.text
        assert index(place) == [CHANGING]
        append(b"".join(parts_of(versions[1])[1:]))
    time.sleep(1.1)
    place.make_old()
    assert index(place) == [OK]
    assert client.post(OBJECTS, json=asked).status_code == 200


def test_a_file_that_is_rewritten_over_and_over_is_right_or_changing(
    place: Place, app: Flask, versions: tuple[bytes, bytes]
) -> None:
    put(place, versions[0])
    answers: list[tuple[TestResponse, dict[str, Any]]] = []
    over = threading.Event()

    def keep_asking(number: int) -> None:
        while not over.is_set():
            row = BOTH[number % len(BOTH)]
            answers.append((ask(app, row), row))
            number += 1

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            with place.rewriting() as append:
                for part in parts_of(versions[turn % 2]):
                    append(part)
                    time.sleep(0.005)
            answered = len(answers)
            while len(answers) < answered + 6:  # some while it is whole
                assert any(thread.is_alive() for thread in threads)
                time.sleep(0.001)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for answer, row in answers:
        if answer.status_code == 503 and answer.json["code"] == "storage_unavailable":
            continue  # the blocks of a file of HDFS vanish under who reads them
        assert_right_or_changing(answer, row)
    assert any(answer.status_code == 200 for answer, _ in answers)


def test_what_stays_damaged_is_said_to_be(
    place: Place, app: Flask, versions: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, versions[0][:-100])
    answer = ask(app, OLD[0])
    assert (answer.status_code, answer.json["code"]) == (503, "file_changing")
    with monkeypatch.context() as patched:  # as long as it has been seen so is long enough
        patched.setattr(storage, "STEADY_SECONDS", 0)
        assert ask(app, OLD[0]).json["code"] == "file_unreadable"
    place.make_old()
    time.sleep(1.1)
    assert ask(app, OLD[0]).json["code"] == "file_unreadable"  # at once
    assert index(place) == [DAMAGED]
