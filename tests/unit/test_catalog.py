"""The catalog, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
import multiprocessing
import queue
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from cutout_api import catalog as module
from cutout_api.alert_columns import AlertColumns
from cutout_api.catalog import DAMAGED, GONE, OK, Catalog, database_url, night_of
from cutout_api.errors import CatalogUnavailable
from cutout_api.settings import Catalog as CatalogSettings
from cutout_api.settings import parse_address
from cutout_api.storage import FileChanged, FileId
from cutout_api.surveys import LSST, ZTF, Survey

from ..postgres import Network, PostgresServer
from ..service import ROOT
from .test_indexing import wait_for

ADDRESS = parse_address("/data/archive")
NIGHT = "/data/archive/year=2024/month=11/day=14"


def open_catalog(url: str) -> Catalog:
    return Catalog(CatalogSettings(url), ADDRESS)


@pytest.fixture
def catalog(catalog_url: str) -> Catalog:
    return open_catalog(catalog_url)


def a_file(name: str = "part-0.parquet", modified: int = 1) -> FileId:
    return FileId(f"{NIGHT}/{name}", 1000, modified * 10**9, "v")


def alerts(
    *rows: tuple[int | None, Any, float | None], survey: Survey = ZTF, band: str | None = "g"
) -> AlertColumns:
    """Return columns with these alert ids, objects and times."""
    return AlertColumns(
        survey,
        [row[0] for row in rows],
        [None if row[1] is None else survey.object_key.pack(row[1]) for row in rows],
        [row[2] for row in rows],
        [band] * len(rows),
        [18.5] * len(rows),
        [123.4567890123] * len(rows),
        [-1.5] * len(rows),
        [True, False, None][: len(rows)] + [None] * (len(rows) - 3),
    )


A, B = "ZTF24aaaaaaa", "ZTF24zzzzzzz"
LARGEST = 2**63 - 1


def test_an_alert_is_found_by_its_id_with_all_that_is_known_of_it(catalog: Catalog) -> None:
    catalog.put_file(a_file(), [alerts((1, A, 2460000.1234567), (LARGEST, B, 2460001.5))])
    found = catalog.find_alert(ZTF, LARGEST)
    assert found is not None
    assert (found.file, found.row, found.alert_id, found.object_id) == (a_file(), 1, LARGEST, B)
    assert (found.time, found.band, found.brightness) == (2460001.5, "g", 18.5)
    assert (found.ra, found.dec, found.positive) == (123.4567890123, -1.5, False)
    assert catalog.find_alert(ZTF, 2) is None
    assert catalog.find_alert(LSST, 1) is None


def test_what_is_unknown_stays_unknown(catalog: Catalog) -> None:
    catalog.put_file(a_file(), [alerts((None, A, None), (-5, None, None), band=None)])
    (found,) = catalog.alerts_of(ZTF, [A])
    assert (found.alert_id, found.band) == (None, None)
    assert math.isnan(found.time)
    by_id = catalog.find_alert(ZTF, -5)
    assert by_id is not None
    assert by_id.object_id is None


def test_of_an_id_that_files_repeat_the_file_written_last_wins(catalog: Catalog) -> None:
    for name, modified in (("a.parquet", 2), ("b.parquet", 3), ("c.parquet", 1)):
        catalog.put_file(a_file(name, modified), [alerts((7, A, 1.0))])
    found = catalog.find_alert(ZTF, 7)
    assert found is not None
    assert found.file == a_file("b.parquet", 3)
    assert catalog.find_alerts(ZTF, [7])[7] == found
    assert catalog.alerts_of(ZTF, [A]) == [found]
    assert [copy.file.path[-9:] for copy in catalog.copies(ZTF, 7)] == [
        "b.parquet",
        "a.parquet",
        "c.parquet",
    ]


def test_many_ids_are_looked_up_at_once(catalog: Catalog) -> None:
    rows = [(number, A, float(number)) for number in range(3000)]
    catalog.put_file(a_file(), [alerts(*rows)])
    found = catalog.find_alerts(ZTF, [*range(2999, -100, -1), 5])
    assert set(found) == set(range(3000))
    assert all(entry.row == number for number, entry in found.items())
    assert catalog.find_alerts(ZTF, []) == {}


def test_the_alerts_of_objects_come_in_the_order_of_time(catalog: Catalog) -> None:
    catalog.put_file(a_file("a.parquet"), [alerts((3, A, 9.0), (1, B, 5.0), (2, A, None))])
    catalog.put_file(a_file("b.parquet"), [alerts((5, A, 1.0), (4, A, 9.0))])
    assert [entry.alert_id for entry in catalog.alerts_of(ZTF, [A])] == [2, 5, 3, 4]
    assert [entry.alert_id for entry in catalog.alerts_of(ZTF, [A, B])] == [2, 5, 1, 3, 4]
    assert catalog.alerts_of(ZTF, ["ZTF18aaaaaaa"]) == []
    assert catalog.alerts_of(ZTF, []) == []


def test_lsst_ids_are_exact(catalog: Catalog) -> None:
    catalog.put_file(a_file(), [alerts((2**62 + 1, 2**61 + 1, 60000.5), survey=LSST)])
    assert catalog.find_alert(LSST, 2**62) is None
    (found,) = catalog.alerts_of(LSST, [2**61 + 1])
    assert (found.alert_id, found.object_id) == (2**62 + 1, 2**61 + 1)


def test_a_new_version_of_a_file_replaces_the_old_one(catalog: Catalog) -> None:
    assert catalog.put_file(a_file(modified=1), [alerts((1, A, 1.0), (2, A, 2.0))])
    assert not catalog.put_file(a_file(modified=1), [alerts((1, A, 1.0), (2, A, 2.0))])
    assert catalog.put_file(a_file(modified=2), [alerts((2, A, 2.0), (3, A, 3.0))])
    found = catalog.alerts_of(ZTF, [A])
    assert [(entry.alert_id, entry.row, entry.file.modified) for entry in found] == [
        (2, 0, 2 * 10**9),
        (3, 1, 2 * 10**9),
    ]
    assert [record.id for record in catalog.files()] == [a_file(modified=2)]
    assert catalog.status().alerts == {"ztf": 2}


def test_a_file_that_is_gone_leaves_no_alerts_behind(catalog: Catalog) -> None:
    catalog.put_file(a_file(), [alerts((1, A, 1.0))])
    assert catalog.drop_file(a_file())
    assert not catalog.drop_file(a_file())
    assert not catalog.drop_file(a_file("never"))
    assert catalog.find_alert(ZTF, 1) is None
    assert catalog.files() == []
    assert catalog.status().files == {"ok": 0, "damaged": 0, "unknown-schema": 0, "gone": 1}
    assert [record.state for record in catalog.files(states=[GONE])] == [GONE]
    assert catalog.put_file(a_file(), [alerts((1, A, 1.0))])
    assert catalog.status().files[OK] == 1


def test_another_version_is_replaced_only_if_the_check_allows_it(catalog: Catalog) -> None:
    asked: list[FileId] = []

    def put(modified: int, check: Any = asked.append) -> bool:
        return catalog.put_file(
            a_file(modified=modified), [alerts((modified, A, 1.0))], check=check
        )

    def refuse(file_id: FileId) -> None:
        raise FileChanged(file_id.path)

    assert put(1)
    assert not put(1)
    assert asked == []  # there was nothing to replace
    assert put(2)
    assert asked == [a_file(modified=2)]
    with pytest.raises(FileChanged):
        put(1, refuse)
    assert [record.id for record in catalog.files()] == [a_file(modified=2)]
    assert catalog.find_alert(ZTF, 2) is not None


def test_only_the_version_that_is_known_to_be_gone_is_dropped(catalog: Catalog) -> None:
    catalog.put_file(a_file(modified=2), [alerts((1, A, 1.0))])
    assert not catalog.drop_file(a_file(modified=1))
    assert catalog.find_alert(ZTF, 1) is not None


def test_damaged_files_are_known_with_the_reason(catalog: Catalog) -> None:
    catalog.put_file(a_file(), [], state=DAMAGED, message="it is\0 cut short")
    (record,) = catalog.status().faulty
    assert (record.id, record.state, record.message) == (a_file(), DAMAGED, "it is cut short")
    assert (record.night, record.rows) == ("2024-11-14", 0)


def test_files_below_a_folder_are_those_below_it(catalog: Catalog) -> None:
    names = ("/d/a/1.parquet", "/d/a b/2.parquet", "/d/a/b/3.parquet", "/d/a.parquet", "/d/A/4")
    for name in names:
        catalog.put_file(FileId(name, 1, 1), [])
    assert [record.id.path for record in catalog.files("/d/a")] == [names[0], names[2]]
    assert [record.id.path for record in catalog.files("/d/a.parquet")] == ["/d/a.parquet"]
    assert len(catalog.files("/")) == 5


def test_another_archive_in_the_same_database_is_not_seen(catalog_url: str) -> None:
    catalog = open_catalog(catalog_url)
    other = Catalog(CatalogSettings(catalog_url), parse_address("hdfs://node/data"))
    catalog.put_file(a_file(), [alerts((1, A, 1.0))])
    other.prepare()
    assert other.find_alert(ZTF, 1) is None
    assert other.alerts_of(ZTF, [A, B]) == []
    assert other.files() == []
    assert other.freshness() is None


def test_freshness_is_that_of_the_last_walk_or_file(catalog: Catalog) -> None:
    assert catalog.freshness() is None
    start = datetime.now(UTC)
    catalog.put_file(a_file(), [alerts((1, A, 1.0))])
    taken = catalog.freshness()
    catalog.note_walk()
    catalog.note_walk()
    walked = catalog.freshness()
    assert taken is not None
    assert walked is not None
    assert start <= taken < walked <= datetime.now(UTC)


def test_a_catalog_that_was_never_made_is_empty_and_is_not_made_by_reading(
    catalog_url: str, tmp_path: Path
) -> None:
    catalog = open_catalog(catalog_url)
    assert catalog.find_alert(ZTF, 1) is None
    assert catalog.alerts_of(ZTF, [A]) == []
    assert catalog.find_alerts(ZTF, [1]) == {}
    assert catalog.freshness() is None
    assert sum(catalog.status().files.values()) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_what_is_written_later(catalog_url: str) -> None:
    reader, writer = open_catalog(catalog_url), open_catalog(catalog_url)
    assert reader.find_alert(ZTF, 1) is None
    writer.put_file(a_file(), [alerts((1, A, 1.0))])
    assert reader.find_alert(ZTF, 1) is not None
    writer.put_file(a_file("b"), [alerts((2, A, 1.0))])
    assert reader.find_alert(ZTF, 2) is not None


def test_a_survey_that_had_no_alerts_is_asked_for_again_a_second_later(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    told = SimpleNamespace(monotonic=lambda: now[0], time=time.time, sleep=time.sleep)
    monkeypatch.setattr(module, "clock", told)
    reader, writer = open_catalog(catalog_url), open_catalog(catalog_url)
    assert not reader.has_alerts(ZTF)
    writer.put_file(a_file(), [alerts((1, A, 1.0))])
    assert not reader.has_alerts(ZTF)
    now[0] += module.EMPTY_SECONDS
    assert reader.has_alerts(ZTF)
    assert not reader.has_alerts(LSST)
    now[0] += module.EMPTY_SECONDS
    assert reader.has_alerts(ZTF)


def test_a_catalog_of_a_newer_version_is_refused(catalog_url: str) -> None:
    open_catalog(catalog_url).prepare()
    with sa.create_engine(database_url(catalog_url)).begin() as connection:
        connection.execute(sa.update(module.VERSIONS).values(version=len(module.MIGRATIONS) + 1))
    for use in (
        lambda: open_catalog(catalog_url).find_alert(ZTF, 1),
        lambda: open_catalog(catalog_url).prepare(),
    ):
        with pytest.raises(CatalogUnavailable, match="made by a newer version"):
            use()


def test_an_older_catalog_is_brought_up_to_date_by_who_writes(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_catalog(catalog_url).put_file(a_file(), [alerts((1, A, 1.0))])

    def add_a_table(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE added (n INTEGER)"))

    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, add_a_table))
    with pytest.raises(CatalogUnavailable, match="brings it up to date"):
        open_catalog(catalog_url).find_alert(ZTF, 1)
    open_catalog(catalog_url).prepare()
    assert open_catalog(catalog_url).find_alert(ZTF, 1) is not None
    with sa.create_engine(database_url(catalog_url)).connect() as connection:
        assert sa.inspect(connection).has_table("added")


def test_threads_may_look_up_while_one_writes(catalog: Catalog) -> None:
    catalog.put_file(a_file("0"), [alerts(*((n, A, float(n)) for n in range(100)))])
    end = threading.Event()

    def look_up() -> int:
        rounds = 0
        while not end.is_set() or rounds < 2:
            rounds += 1
            found = catalog.find_alert(ZTF, rounds % 100)
            assert found is not None
            assert found.alert_id == rounds % 100
            # A file is there with all its alerts, or not at all.
            assert len(catalog.alerts_of(ZTF, [B])) % 10 == 0
        return rounds

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(look_up) for _ in range(4)]
        try:
            for number in range(1, 30):
                rows = ((1000 * number + n, B, float(n)) for n in range(10))
                catalog.put_file(a_file(str(number)), [alerts(*rows)])
        finally:
            end.set()
        assert all(future.result() > 1 for future in futures)


def _put_many(url: str, worker: int, both_ready: Any) -> None:
    catalog = open_catalog(url)
    both_ready.wait(60)
    for number in range(200):
        rows = ((100 * number + n, A, float(n)) for n in range(5))
        # Half of the files are the same for both, in versions that differ.
        name = f"{number}" if number % 2 else f"{worker}-{number}"
        catalog.put_file(a_file(name, worker), [alerts(*rows)])


def test_two_processes_may_write_the_same_files_at_once(catalog_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    both_ready = context.Barrier(2)
    workers = [context.Process(target=_put_many, args=(catalog_url, n, both_ready)) for n in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
        assert worker.exitcode == 0
    catalog = open_catalog(catalog_url)
    assert catalog.status().files[OK] == 100 + 2 * 100
    with sa.create_engine(database_url(catalog_url)).connect() as connection:
        table = module.ALERTS["ztf"]
        count = connection.scalar(sa.select(sa.func.count()).select_from(table))
    assert count == 300 * 5
    assert catalog.status().alerts == {"ztf": 1500}


def test_a_file_that_is_no_database_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"this is no database" * 1000)
    catalog = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    for use in (lambda: catalog.find_alert(ZTF, 1), catalog.prepare):
        with pytest.raises(CatalogUnavailable) as caught:
            use()
        assert caught.value.retry_after
        assert str(tmp_path) not in caught.value.detail


def test_a_row_that_the_database_refuses_twice_is_told_as_any_failure(catalog_url: str) -> None:
    catalog = open_catalog(catalog_url)
    catalog.put_file(a_file("a"), [])
    with sa.create_engine(database_url(catalog_url)).begin() as connection:
        connection.execute(sa.text("CREATE UNIQUE INDEX one_file ON file (archive)"))
    with pytest.raises(CatalogUnavailable):
        catalog.put_file(a_file("b"), [])


def test_a_database_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (n INTEGER)")
    connection.close()
    catalog = open_catalog(f"sqlite:///file:{path}?mode=ro&uri=true")
    start = time.monotonic()
    with pytest.raises(CatalogUnavailable):
        catalog.prepare()
    assert time.monotonic() - start < module.BUSY_SECONDS / 4


def test_a_database_file_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    catalog, writer = open_catalog(url), open_catalog(url)
    writer.put_file(a_file(), [alerts((1, A, 1.0))])
    assert catalog.find_alert(ZTF, 1) is not None
    writer.close()
    catalog.close()
    for file in tmp_path.iterdir():
        file.unlink()
    assert catalog.find_alert(ZTF, 1) is None
    open_catalog(url).put_file(a_file(), [alerts((2, A, 1.0))])
    assert catalog.find_alert(ZTF, 2) is not None


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_file_that_is_deleted_or_replaced_is_not_written_to(
    tmp_path: Path, replaced: bool
) -> None:
    path, other = tmp_path / "catalog.sqlite", tmp_path / "other.sqlite"
    writer = open_catalog(f"sqlite:///{path}")
    writer.put_file(a_file("a"), [alerts((1, A, 1.0))])
    for file in tmp_path.iterdir():
        file.unlink()
    if replaced:
        made = open_catalog(f"sqlite:///{other}")
        made.put_file(a_file("b"), [alerts((2, A, 1.0))])
        made.close()
        other.rename(path)
    with pytest.raises(CatalogUnavailable, match="deleted or replaced"):
        writer.put_file(a_file("c"), [alerts((3, A, 1.0))])
    writer.put_file(a_file("c"), [alerts((3, A, 1.0))])
    found = open_catalog(f"sqlite:///{path}").files()
    names = [Path(record.id.path).name for record in found]
    assert names == (["b", "c"] if replaced else ["c"])


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    catalog = open_catalog(f"sqlite:///{path}")
    catalog.put_file(a_file(), [alerts((1, A, 1.0))])
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    writing.execute("DELETE FROM alert_ztf")
    assert catalog.find_alert(ZTF, 1) is not None
    writing.close()


def test_a_server_that_is_gone_is_unavailable_until_it_is_back(postgres: PostgresServer) -> None:
    catalog = open_catalog(postgres.new_database())
    catalog.put_file(a_file(), [alerts((1, A, 1.0))])
    assert catalog.find_alert(ZTF, 1) is not None
    postgres.stop()
    try:
        with pytest.raises(CatalogUnavailable) as caught:
            catalog.find_alert(ZTF, 1)
        assert str(postgres.port) not in caught.value.detail
        with pytest.raises(CatalogUnavailable):
            catalog.put_file(a_file("b"), [alerts((2, A, 1.0))])
    finally:
        postgres.start()
    assert catalog.find_alert(ZTF, 1) is not None
    assert catalog.put_file(a_file("b"), [alerts((2, A, 1.0))])


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_a_server_that_vanishes_without_a_word_is_given_up(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    for name in ("tcp_user_timeout", "keepalives_idle", "keepalives_interval"):
        given = module._OPTIONS["postgresql"]["connect_args"]
        monkeypatch.setitem(given, name, given[name] // 5)
    url = postgres.new_database()
    open_catalog(url).put_file(a_file(), [alerts((1, A, 1.0))])
    network = Network(postgres.port)
    catalog = open_catalog(url.replace(str(postgres.port), str(network.port)))
    outcomes: queue.Queue[Any] = queue.Queue()

    def look_up() -> None:
        try:
            outcomes.put(catalog.find_alert(ZTF, 1))
            asked.wait(20)
            outcomes.put(catalog.find_alert(ZTF, 1))
        except CatalogUnavailable as error:
            outcomes.put(error)

    asked = threading.Event()
    threading.Thread(target=look_up, daemon=True).start()
    engine = sa.create_engine(database_url(url))
    try:
        assert outcomes.get(timeout=60).alert_id == 1
        with engine.begin() as other, engine.connect() as looking:
            other.execute(sa.text("LOCK TABLE file"))  # the server takes the question, and waits
            if lost == "question":
                network.lose_everything()
            asked.set()
            if lost == "answer":
                waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                wait_for(lambda: looking.scalar(waiting))
                network.lose_everything()
            assert isinstance(outcomes.get(timeout=60), CatalogUnavailable)
    finally:
        network.close()
        engine.dispose()


def test_a_catalog_split_by_nights_answers_as_before(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    catalog = open_catalog(url)
    for number in range(4):
        catalog.put_file(a_file(f"{number}"), [alerts((number, A, 1.0), (10 + number, B, 2.0))])
    postgres.run_file(url, ROOT / "install/partition_catalog.sql", files_each=3, parts=2)
    with sa.create_engine(database_url(url)).connect() as connection:
        parts = connection.scalars(sa.text("SELECT tableoid::regclass::text FROM alert_ztf"))
        assert set(parts) == {"alert_ztf_p0", "alert_ztf_p1"}
    for number in range(4, 8):
        catalog.put_file(a_file(f"{number}"), [alerts((number, A, 1.0), (10 + number, B, 2.0))])
    catalog.put_file(a_file("1", 2), [alerts((1, A, 5.0))])
    catalog.drop_file(a_file("2"))
    assert [entry.alert_id for entry in catalog.alerts_of(ZTF, [A])] == [0, 3, 4, 5, 6, 7, 1]
    assert catalog.find_alert(ZTF, 12) is None
    assert set(catalog.find_alerts(ZTF, range(20))) == {0, 1, 3, 4, 5, 6, 7, 10, *range(13, 18)}


@pytest.mark.parametrize(
    ("path", "night"),
    [
        ("/a/year=2024/month=11/day=14/p.parquet", "2024-11-14"),
        ("/a/year=2024/month=1/day=4/p.parquet", "2024-01-04"),
        ("/a/year=2024/p.parquet", ""),
        ("/a/p.parquet", ""),
    ],
)
def test_the_night_of_a_file_is_read_from_its_folders(path: str, night: str) -> None:
    assert night_of(path) == night


def test_what_older_catalogs_hold_for_no_object_makes_no_history(catalog: Catalog) -> None:
    """They kept 0, or what else a file had: such alerts are nobody's, and no example."""
    catalog.put_file(a_file(), [alerts((1, 0, 1.0), (2, 0, 2.0), (3, -1, 3.0), survey=LSST)])
    for number in (1, 2, 3):
        found = catalog.find_alert(LSST, number)
        assert found is not None
        assert (found.object_id, found.moving_id) == (None, None)
        assert catalog.alerts_like(LSST, found) == [found]
    assert catalog.examples(LSST) == []


def test_what_moves_has_a_history_and_is_no_example(catalog: Catalog) -> None:
    rows = [(1, -77, 2.0), (2, -77, 1.0), (3, 77, 3.0), (4, -(2**63 - 1), 4.0)]
    catalog.put_file(a_file(), [alerts(*rows, survey=LSST)])
    found = catalog.find_alert(LSST, 1)
    assert found is not None
    assert (found.object_id, found.moving_id) == (None, 77)
    assert [entry.alert_id for entry in catalog.alerts_like(LSST, found)] == [2, 1]
    assert [entry.alert_id for entry in catalog.alerts_of(LSST, [77])] == [3]
    assert catalog.examples(LSST) == [77]


def test_examples_are_objects_of_the_newest_files_with_most_alerts(catalog: Catalog) -> None:
    assert catalog.examples(ZTF) == []
    names = ["ZTF24aaaaaaa", "ZTF24aaaaaab", "ZTF24aaaaaac"]
    catalog.put_file(
        a_file("old.parquet", 1),
        [alerts((1, names[1], 1.0), (2, names[1], 2.0), (3, names[2], 3.0))],
    )
    catalog.put_file(
        a_file("new.parquet", 2),
        [alerts((4, names[0], 4.0), (5, names[1], 5.0), (6, None, 6.0))],
    )
    assert catalog.examples(ZTF) == [names[1], names[0], names[2]]
    assert catalog.examples(ZTF, 1) == [names[1]]
    assert catalog.examples(LSST) == []
