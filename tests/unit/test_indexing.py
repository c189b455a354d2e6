"""Filling the catalog: what is new, changed, damaged, gone; killed, twice at once, all night."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cutout_api import catalog as tables
from cutout_api import storage
from cutout_api.catalog import DAMAGED, GONE, OK, UNKNOWN_SCHEMA, database_url
from cutout_api.errors import ArchiveFileNotFound, StorageUnavailable
from cutout_api.index import IndexStore
from cutout_api.indexing import Indexer, Outcome, open_indexer, recent_folders
from cutout_api.settings import Archive, Catalog, Index, Settings
from cutout_api.surveys import ZTF

from ..archive import make_old
from ..samples import write, ztf_alert
from ..service import ROOT
from .test_storage import after_listing

NIGHT = "science/year=2024/month=11/day=14"


def settings_for(folder: Path, url: str, **archive: Any) -> Settings:
    return Settings(
        archive=Archive(uri=str(folder), **archive),
        catalog=Catalog(url),
        index=Index(str(folder.parent / "index")),
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    for number in range(3):
        write(
            folder / f"{NIGHT}/part-{number}.parquet", [ztf_alert(10 * number + n) for n in (0, 1)]
        )
    return folder


@pytest.fixture
def settings(archive: Path, tmp_path: Path) -> Settings:
    return settings_for(archive, f"sqlite:///{tmp_path / 'catalog.sqlite'}")


@pytest.fixture(params=["folder", "link"])
def maybe_linked(request: pytest.FixtureRequest, settings: Settings, archive: Path) -> Settings:
    """The same settings, and those where the archive is named by a symbolic link to it."""
    if request.param == "folder":
        return settings
    archive.with_name("link").symlink_to(archive)
    return settings_for(archive.with_name("link"), settings.catalog.url)


@pytest.fixture
def indexer(settings: Settings) -> Iterator[Indexer]:
    with open_indexer(settings, blocks=False, jobs=2) as found:
        yield found


def index(indexer: Indexer, *paths: str) -> dict[str, Outcome]:
    return {Path(found.path).name: found for found in indexer.run(indexer.plan(paths))}


def found(indexer: Indexer, number: int) -> str | None:
    entry = indexer.catalog.find_alert(ZTF, ztf_alert(number)["candid"])
    return None if entry is None else Path(entry.file.path).name


def dump(url: str) -> tuple[set[Any], list[Any]]:
    """Return the files, and the alerts by file and row, without the numbers of files."""
    engine = sa.create_engine(database_url(url), poolclass=sa.NullPool)
    # In one view: a server may be at the last commit of a process that was killed just now.
    view = {} if url.startswith("sqlite") else {"isolation_level": "REPEATABLE READ"}
    with engine.connect().execution_options(**view) as connection:
        files = {row.number: row for row in connection.execute(sa.select(tables.FILES))}
        known = {(row.path, row.size, row.state, row.rows) for row in files.values()}
        alerts = []
        for table in tables.ALERTS.values():
            for place, *rest in connection.execute(sa.select(table)):
                file = files[place >> tables.ROW_BITS]
                alerts.append((file.path, place % tables.MOST_ROWS, *rest))
    return known, sorted(alerts, key=lambda row: row[:2])


def test_everything_served_is_indexed_and_then_nothing_is_left_to_do(indexer: Indexer) -> None:
    assert {name: outcome.state for name, outcome in index(indexer).items()} == {
        f"part-{n}.parquet": OK for n in range(3)
    }
    assert found(indexer, 11) == "part-1.parquet"
    assert indexer.plan().steps == 0
    status = indexer.catalog.status()
    assert (status.files[OK], status.alerts, status.newest_night) == (3, {"ztf": 6}, "2024-11-14")


def test_a_rewritten_file_is_read_again(indexer: Indexer, archive: Path) -> None:
    index(indexer)
    write(archive / NIGHT / "part-1.parquet", [ztf_alert(n) for n in (50, 51, 52)])
    assert list(index(indexer)) == ["part-1.parquet"]
    assert (found(indexer, 10), found(indexer, 52)) == (None, "part-1.parquet")


def test_a_file_that_is_gone_is_forgotten_with_its_stored_index(
    settings: Settings, archive: Path
) -> None:
    with open_indexer(settings, blocks=True, jobs=2) as indexer:
        index(indexer)
        stored = list(Path(settings.index.folder).rglob("*.index"))
        assert len(stored) == 3
        (archive / NIGHT / "part-1.parquet").unlink()
        assert index(indexer)["part-1.parquet"].state == GONE
        assert found(indexer, 10) is None
        assert len(list(Path(settings.index.folder).rglob("*.index"))) == 2
        (archive / NIGHT / "part-2.parquet").unlink()
        assert index(indexer, "science")["part-2.parquet"].state == GONE


def test_what_another_run_indexed_is_known_to_be_gone(settings: Settings, archive: Path) -> None:
    (archive / "top.parquet").write_bytes((archive / NIGHT / "part-0.parquet").read_bytes())
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        assert len(index(indexer)) == 4
    (archive / "top.parquet").unlink()
    (archive / NIGHT / "part-1.parquet").unlink()
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        states = {name: outcome.state for name, outcome in index(indexer).items()}
        assert states == {"top.parquet": GONE, "part-1.parquet": GONE}


def test_a_night_that_is_gone_is_forgotten_by_its_path(indexer: Indexer, archive: Path) -> None:
    index(indexer)
    write(archive / "science/year=2024/month=11/day=15/p.parquet", [ztf_alert(90)])
    index(indexer)
    shutil.rmtree(archive / NIGHT)
    outcomes = index(indexer, NIGHT)
    assert {outcome.state for outcome in outcomes.values()} == {GONE}
    assert len(outcomes) == 3
    assert found(indexer, 90) == "p.parquet"


def test_of_paths_only_those_are_looked_at(indexer: Indexer, archive: Path) -> None:
    assert list(index(indexer, f"{NIGHT}/part-2.parquet")) == ["part-2.parquet"]
    write(archive / "other" / "a.parquet", [ztf_alert(70)])
    assert list(index(indexer, "other")) == ["a.parquet"]
    assert len(index(indexer, NIGHT)) == 2
    with pytest.raises(ArchiveFileNotFound):
        indexer.plan(["nothing/here"])


def test_a_folder_that_vanishes_during_a_walk_takes_no_other_file_along(
    indexer: Indexer, archive: Path
) -> None:
    write(archive / NIGHT / "later" / "part-3.parquet", [ztf_alert(90)])
    assert len(index(indexer)) == 4
    after_listing(
        indexer.archive, str(archive / NIGHT), lambda: shutil.rmtree(archive / NIGHT / "later")
    )
    plan = indexer.plan([NIGHT])
    assert [Path(path).name for path in plan.gone] == ["part-3.parquet"]
    assert plan.listed == 3


def test_an_archive_that_looks_empty_leaves_the_catalog_alone(
    indexer: Indexer, archive: Path
) -> None:
    index(indexer)
    shutil.rmtree(archive / "science")
    with pytest.raises(StorageUnavailable, match="shows none of the 3 files"):
        indexer.plan()
    shutil.rmtree(archive)
    with pytest.raises(StorageUnavailable):
        indexer.plan()
    assert found(indexer, 0) == "part-0.parquet"


def test_damaged_and_strange_files_are_reported_and_stop_no_other(
    indexer: Indexer, archive: Path
) -> None:
    (archive / NIGHT / "cut.parquet").write_bytes(b"PAR1")
    (archive / NIGHT / "empty.parquet").write_bytes(b"")
    import pyarrow as pa

    write(archive / NIGHT / "strange.parquet", [{"x": 1}], pa.schema([("x", pa.int64())]))
    outcomes = index(indexer)
    assert {name: outcome.state for name, outcome in outcomes.items() if outcome.failed} == {
        "cut.parquet": DAMAGED,
        "empty.parquet": DAMAGED,
        "strange.parquet": UNKNOWN_SCHEMA,
    }
    faulty = indexer.catalog.status().faulty
    assert [Path(record.id.path).name for record in faulty] == [
        "cut.parquet",
        "empty.parquet",
        "strange.parquet",
    ]
    assert "the footer of" in faulty[0].message
    assert set(index(indexer)) == {"cut.parquet", "empty.parquet", "strange.parquet"}
    write(archive / NIGHT / "cut.parquet", [ztf_alert(60)])
    index(indexer)
    assert found(indexer, 60) == "cut.parquet"


def test_a_file_that_breaks_the_reader_is_reported_and_stops_no_other(
    indexer: Indexer, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutout_api import indexing

    real = indexing.read_alert_columns

    def broken(file: storage.OpenFile) -> Any:
        if file.id.path.endswith("part-1.parquet"):
            raise OverflowError("unforeseen")
        return real(file)

    monkeypatch.setattr(indexing, "read_alert_columns", broken)
    outcomes = index(indexer)
    assert outcomes["part-1.parquet"].message == "it cannot be read: OverflowError"
    assert outcomes["part-2.parquet"].state == OK


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    maybe_linked: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutout_api import indexing

    monkeypatch.setattr(indexing, "SETTLING_SECONDS", 0.1)
    with open_indexer(maybe_linked, blocks=False, jobs=2) as indexer:
        plan = indexer.plan()
        write(archive / NIGHT / "part-1.parquet", [ztf_alert(80)])
        (archive / NIGHT / "part-2.parquet").unlink()
        states = {Path(outcome.path).name: outcome.state for outcome in indexer.run(plan)}
        assert states == {"part-0.parquet": OK, "part-1.parquet": OK, "part-2.parquet": GONE}
        assert found(indexer, 80) == "part-1.parquet"


def test_a_storage_that_goes_away_ends_the_run_and_forgets_nothing(
    indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = indexer.plan()

    def fail(_self: Any, _length: int, _offset: int) -> bytes:
        raise StorageUnavailable("the archive does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(storage.OpenFile, "read_at", fail)
        with pytest.raises(StorageUnavailable):
            indexer.run(plan)
    assert indexer.catalog.status().faulty == []
    assert len(index(indexer)) == 3


def command(settings: Settings, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "cutout_api", "index", *arguments]


def environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "CUTOUT_API_CONFIG": os.devnull,
        "CUTOUT_API_ARCHIVE_URI": settings.archive.uri,
        "CUTOUT_API_CATALOG_URL": settings.catalog.url,
    }


FILES = 200


def test_killed_at_any_instant_it_loses_and_doubles_nothing(
    tmp_path: Path, catalog_url: str
) -> None:
    folder = tmp_path / "archive"
    for number in range(FILES):
        rows = [{"objectId": "ZTF24aaaaaaa", "candid": 1000 * number + n} for n in range(500)]
        import pyarrow as pa

        schema = pa.schema([("objectId", pa.string()), ("candid", pa.int64())])
        write(folder / f"part-{number}.parquet", rows, schema, row_group_size=500)
    interrupted = settings_for(folder, catalog_url)
    whole = settings_for(folder, f"sqlite:///{tmp_path / 'whole.sqlite'}")
    assert subprocess.run(command(whole), env=environment(whole), cwd=ROOT).returncode == 0
    random.seed(5)
    partly = 0
    for attempt in range(10):
        process = subprocess.Popen(
            command(interrupted, "--jobs", "2"),
            env=environment(interrupted),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Once it began to write, it is killed within some milliseconds.
        known = _count_files(catalog_url)
        end = time.monotonic() + 60
        while process.poll() is None and _count_files(catalog_url) == known:
            assert time.monotonic() < end
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        process.wait(20)
        files, alerts = dump(catalog_url)
        assert len(alerts) == 500 * len(files)
        partly += 0 < len(files) < FILES
        if attempt % 5 == 4:  # a new version of what was written
            path = folder / f"part-{attempt}.parquet"
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
    assert partly >= 2
    ended = subprocess.run(command(interrupted), env=environment(interrupted), cwd=ROOT)
    assert ended.returncode == 0
    assert dump(catalog_url) == dump(whole.catalog.url)


def _count_files(url: str) -> int:
    engine = sa.create_engine(database_url(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT max(number) FROM file")) or 0
    except sa.exc.SQLAlchemyError:
        return 0


def test_two_indexers_at_once_do_what_one_does(archive: Path, catalog_url: str) -> None:
    for number in range(3, 30):
        write(archive / f"{NIGHT}/part-{number}.parquet", [ztf_alert(10 * number)])
    settings = settings_for(archive, catalog_url)
    processes = [
        subprocess.Popen(command(settings), env=environment(settings), cwd=ROOT) for _ in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    files, alerts = dump(catalog_url)
    assert (len(files), len(alerts)) == (30, 3 * 2 + 27)


def run_another(settings: Settings) -> None:
    with open_indexer(settings, blocks=False, jobs=1) as other:
        other.run(other.plan())


def test_a_file_that_another_indexer_saw_rewritten_meanwhile_is_not_put_back(
    indexer: Indexer, settings: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutout_api import indexing

    monkeypatch.setattr(indexing, "SETTLING_SECONDS", 0.1)
    index(indexer)
    write(archive / NIGHT / "part-1.parquet", [ztf_alert(50)])
    plan = indexer.plan()
    put_file = indexer.catalog.put_file

    def put_late(*arguments: Any, **options: Any) -> bool:
        monkeypatch.setattr(indexer.catalog, "put_file", put_file)
        write(archive / NIGHT / "part-1.parquet", [ztf_alert(60)])
        run_another(settings)
        return put_file(*arguments, **options)

    monkeypatch.setattr(indexer.catalog, "put_file", put_late)
    indexer.run(plan)
    assert (found(indexer, 50), found(indexer, 60)) == (None, "part-1.parquet")


def test_a_file_that_another_indexer_saw_come_back_meanwhile_is_not_dropped(
    indexer: Indexer, settings: Settings, archive: Path
) -> None:
    index(indexer)
    (archive / NIGHT / "part-1.parquet").unlink()
    plan = indexer.plan()
    write(archive / NIGHT / "part-1.parquet", [ztf_alert(50)])
    run_another(settings)
    indexer.run(plan)
    assert found(indexer, 50) == "part-1.parquet"


@contextmanager
def watching(settings: Settings, seconds: float = 0.1) -> Iterator[tuple[Indexer, list[Outcome]]]:
    """Watch in a thread until the block ends."""
    outcomes: list[Outcome] = []
    end = threading.Event()
    with open_indexer(settings, blocks=False, jobs=2) as indexer:
        real_sleep = time.sleep

        def sleep(pause: float) -> None:
            if end.is_set():
                raise KeyboardInterrupt
            real_sleep(pause)

        def run() -> None:
            try:
                for outcome in indexer.watch(seconds, sleep=sleep):
                    outcomes.append(outcome)
            except KeyboardInterrupt:
                pass

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield indexer, outcomes
        finally:
            end.set()
            thread.join(20)
            assert not thread.is_alive()


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_watch_takes_in_new_files_and_nights_within_seconds(
    settings: Settings, archive: Path
) -> None:
    with watching(settings) as (indexer, outcomes):
        wait_for(lambda: len(outcomes) == 3)
        write(archive / NIGHT / "part-9.parquet", [ztf_alert(90)])
        wait_for(lambda: found(indexer, 90))
        write(archive / "science/year=2024/month=11/day=15/part-0.parquet", [ztf_alert(91)])
        wait_for(lambda: found(indexer, 91))
        (archive / NIGHT / "part-9.parquet").unlink()
        wait_for(lambda: found(indexer, 90) is None)
        part = archive / NIGHT / "_bad.parquet"  # an empty file would be another damaged one
        part.write_bytes(b"PAR1")
        part.rename(archive / NIGHT / "bad.parquet")
        wait_for(lambda: outcomes[-1].state == DAMAGED)
        count = len(outcomes)
        time.sleep(0.5)
        assert len(outcomes) == count  # the damaged one is not read again and again


def test_a_watch_lists_only_recent_nights_when_listing_everything_is_slow(
    maybe_linked: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    real = storage.LocalDriver.list_folder

    def slow(self: storage.LocalDriver, folder: str) -> list[storage.Status]:
        listed.append(folder)
        if folder == str(archive):
            time.sleep(1)  # so that it is listed again after 50 s at the earliest
        return real(self, folder)

    monkeypatch.setattr(storage.LocalDriver, "list_folder", slow)
    with watching(maybe_linked) as (indexer, outcomes):
        wait_for(lambda: len(outcomes) == 3)
        write(archive / "science/year=2024/month=11/day=15/part-0.parquet", [ztf_alert(91)])
        wait_for(lambda: found(indexer, 91))
        wait_for(lambda: listed.count(str(archive / NIGHT)) > 2)
    assert listed.count(str(archive)) == 1


def test_a_watch_fills_the_catalog_anew_when_it_was_deleted(
    settings: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = storage.LocalDriver.list_folder

    def slow(self: storage.LocalDriver, folder: str) -> list[storage.Status]:
        if folder == str(archive):
            time.sleep(0.5)  # so that the next listing of everything is due in 25 s
        return real(self, folder)

    monkeypatch.setattr(storage.LocalDriver, "list_folder", slow)
    with watching(settings) as (indexer, outcomes):
        wait_for(lambda: len(outcomes) == 3)
        for file in archive.parent.glob("catalog.sqlite*"):
            file.unlink()
        write(archive / NIGHT / "part-9.parquet", [ztf_alert(90)])
        wait_for(lambda: found(indexer, 90) and found(indexer, 0))
        assert indexer.catalog.status().files[OK] == 4


def test_a_watch_survives_an_archive_that_is_away(
    settings: Settings, archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with watching(settings) as (indexer, outcomes):
        wait_for(lambda: len(outcomes) == 3)
        away = archive.rename(archive.with_name("away"))
        wait_for(lambda: "trying again" in caplog.text)
        time.sleep(0.3)
        assert caplog.text.count("trying again") == 1
        assert found(indexer, 0)
        away.rename(archive)
        write(archive / NIGHT / "part-9.parquet", [ztf_alert(90)])
        wait_for(lambda: found(indexer, 90))


def test_new_files_are_expected_in_the_last_nights_and_the_next() -> None:
    folders = [f"/a/year=2024/month=11/day={day:02d}" for day in (28, 29, 30)]
    folders += ["/b/year=2024/month=2/day=9", "/c", "/d/year=2024/month=13/day=1"]
    assert recent_folders(folders, date(2026, 1, 2)) == [
        "/a/year=2024/month=11/day=29",
        "/a/year=2024/month=11/day=30",
        "/a/year=2024/month=12/day=01",
        "/a/year=2024/month=12/day=02",
        "/a/year=2026/month=01/day=01",
        "/a/year=2026/month=01/day=02",
        "/a/year=2026/month=01/day=03",
        "/b/year=2024/month=2/day=9",
        "/b/year=2024/month=2/day=10",
        "/b/year=2024/month=2/day=11",
        "/b/year=2026/month=1/day=1",
        "/b/year=2026/month=1/day=2",
        "/b/year=2026/month=1/day=3",
    ]


def run_command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(settings, *arguments),
        env=environment(settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_status_names_what_there_is_and_what_is_damaged(
    settings: Settings, archive: Path
) -> None:
    empty = run_command(settings, "--status")
    assert (empty.returncode, "never indexed: `cutout_api index` fills it" in empty.stdout) == (
        0,
        True,
    )
    (archive / NIGHT / "cut.parquet").write_bytes(b"PAR1")
    make_old(archive / NIGHT / "cut.parquet")
    ended = run_command(settings)
    assert ended.returncode == 1
    assert ended.stdout == "4 files, 1 of them could not be read\n"
    assert "4 of 4 files, 6 alerts" in ended.stderr
    text = run_command(settings, "--status").stdout
    assert "3 ok, 1 damaged" in text
    assert "6 ztf" in text
    assert f"damaged: {archive / NIGHT / 'cut.parquet'}: the footer of" in text
    status = json.loads(run_command(settings, "--status", "--json").stdout)
    assert status["files"] == {"ok": 3, "damaged": 1, "unknown-schema": 0, "gone": 0}
    assert status["newest_night"] == "2024-11-14"
    assert [entry["state"] for entry in status["faulty"]] == ["damaged"]


@pytest.mark.parametrize(("flag", "cells"), [("pages", 0), ("blocks", 3)])
def test_maps_of_pages_and_of_blocks_are_stored_on_demand(
    settings: Settings, flag: str, cells: int
) -> None:
    flags = {"blocks": False, "pages": False} | {flag: True}
    with open_indexer(settings, jobs=2, **flags) as indexer:
        assert len(index(indexer)) == 3
        assert len(index(indexer)) == 3  # catalogued before, they are learnt all the same
        archive = indexer.archive
        store = IndexStore(Path(settings.index.folder), str(archive.address))
        for file_id in archive.locate(NIGHT):
            stored = store.load(file_id)
            assert stored is not None
            assert len(stored.tables) == 3
            assert len(stored.cells) == cells


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json"], "--status"),
        (["--watch", "5", "."], "whole archive"),
        (["--watch", "0"], "0.1 to 3600"),
        (["--blocks"], "index.folder is not set"),
        (["../.."], "must not contain '..'"),
        (["nothing"], "there is no"),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: Settings, arguments: list[str], words: str
) -> None:
    ended = run_command(settings, *arguments)
    assert ended.returncode in (1, 2)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
