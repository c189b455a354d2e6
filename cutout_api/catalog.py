"""The archive: alert id -> file and row, object -> its alerts; in SQLite or PostgreSQL.

One table of files, one table of alerts for each survey. The key of an alert is its *place*: the
number of its file and its row there, in one int64, so that the alerts of a file lie together,
are written in order and removed as one range. Each version of a file has a number of its own, and
is written with all its alerts in one transaction: whoever reads sees a file whole, or not at
all, and a writer that is killed leaves nothing behind.

Times are as the survey's column has them; see docs/decisions/0005-the-catalog.md for the rest.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from .alert_columns import AlertColumns, make_entry, pack_object
from .epochs import Entry, drop_repeats
from .errors import CatalogUnavailable
from .settings import Address
from .settings import Catalog as CatalogSettings
from .storage import FileId
from .surveys import SURVEYS, KeyValue, Survey, fingerprint, rivals

log = logging.getLogger("cutout_api")
T = TypeVar("T")
_Identity = tuple[int, int] | None

ROW_BITS = 24
MOST_ROWS = 1 << ROW_BITS
"""Of one file: sixteen million, where a file of 100 MB holds some thousands."""
MOST_IN_LIST = 500
"""Ids of one statement; below what every SQLite takes."""
EXAMPLES_FILES, EXAMPLES_FROM = 4, 100
"""Files, and rows of each, among whose objects examples are looked for."""
EMPTY_SECONDS = 1.0
"""How long a survey is taken to have no alerts, once it had none."""
BUSY_SECONDS = 60.0
"""How long a writer waits for another."""
HOW_TO_FILL = "`cutout_api index` fills it"

OK, DAMAGED, UNKNOWN_SCHEMA, GONE = "ok", "damaged", "unknown-schema", "gone"
STATES = (OK, DAMAGED, UNKNOWN_SCHEMA, GONE)

# SQLite takes a column for the row's own number only if its type is spelled INTEGER.
_INT64 = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")

# Compared byte by byte: a range of paths is then a folder, whatever the database's language.
_PATH = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

METADATA = sa.MetaData()
VERSIONS = sa.Table("catalog_version", METADATA, sa.Column("version", sa.Integer, nullable=False))
WALKS = sa.Table(
    "walk",
    METADATA,
    sa.Column("archive", sa.Text, primary_key=True),
    sa.Column("finished", sa.Double, nullable=False),
)
FILES = sa.Table(
    "file",
    METADATA,
    sa.Column("number", _INT64, primary_key=True, autoincrement=True),
    sa.Column("archive", sa.Text, nullable=False),
    sa.Column("path", _PATH, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("modified", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("night", sa.Text, nullable=False),
    sa.Column("survey", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("indexed", sa.Double, nullable=False),
    sa.Column("least_id", sa.BigInteger),
    sa.Column("greatest_id", sa.BigInteger),
    sa.Column("first_time", sa.Double),
    sa.Column("last_time", sa.Double),
    sa.UniqueConstraint("archive", "path", name="file_path"),
    # A number is never given twice, not even after its file was dropped.
    sqlite_autoincrement=True,
)


RECOGNISED = sa.Table(
    "file_recognised",
    METADATA,
    sa.Column("number", _INT64, primary_key=True, autoincrement=False),
    sa.Column("made_for", sa.Text, nullable=False),
)
"""Fingerprint of the surveys that each file was compared with. Only writers look at it."""


def _alert_table(survey: Survey) -> sa.Table:
    name = f"alert_{survey.name}"
    return sa.Table(
        name,
        METADATA,
        sa.Column("place", _INT64, primary_key=True, autoincrement=False),
        sa.Column("alert_id", sa.BigInteger),
        sa.Column("object_id", sa.BigInteger),
        sa.Column("time", sa.Double),
        sa.Column("band", sa.Text),
        sa.Column("brightness", sa.Double),
        sa.Column("ra", sa.Double),
        sa.Column("dec", sa.Double),
        sa.Column("positive", sa.SmallInteger),
        sa.Index(f"{name}_id", "alert_id"),
        sa.Index(f"{name}_object", "object_id", "time"),
    )


ALERTS: Mapping[str, sa.Table] = {survey.name: _alert_table(survey) for survey in SURVEYS}


_MADE_FOR = {survey.name: fingerprint(rivals(survey)) for survey in SURVEYS}
_LONE = {survey.name for survey in SURVEYS if len(rivals(survey)) == 1}
"""Surveys whose files no other could be taken for."""


def _made_for(survey: str) -> str:
    """Return the fingerprint of the surveys whose alerts a file of ``survey`` could hold: of all
    where the file is of none that is known."""
    return _MADE_FOR.get(survey) or fingerprint()


def _create_everything(connection: Connection) -> None:
    METADATA.create_all(connection)


MIGRATIONS: Sequence[Callable[[Connection], None]] = (_create_everything,)
"""What turns a catalog of version n into one of version n + 1, in one transaction each."""


@dataclass(frozen=True)
class FileRecord:
    """What the catalog knows of a file."""

    id: FileId
    number: int
    night: str
    """``YYYY-MM-DD`` of the folder, empty where there is none."""
    survey: str
    rows: int
    state: str
    message: str
    """Why the file is not ``ok``."""
    indexed: datetime


@dataclass(frozen=True)
class CatalogStatus:
    """What the catalog holds of one archive."""

    files: Mapping[str, int]
    """By state."""
    alerts: Mapping[str, int]
    """By survey; a file of two surveys counts for its first."""
    newest_night: str
    freshness: datetime | None
    faulty: Sequence[FileRecord] = field(default_factory=tuple)
    """Damaged files and those of an unknown schema."""


class Catalog:
    """The catalog of one archive; safe to share between threads, connects when first used.

    A catalog that was never made is empty to whoever reads. Each method raises
    CatalogUnavailable where the database does not answer.
    """

    def __init__(self, settings: CatalogSettings, archive: Address) -> None:
        self._url = database_url(settings.url)
        self._archive = str(archive)
        self._lock = threading.Lock()
        self._peopled: set[str] = set()
        self._empty_until: dict[str, float] = {}
        self._reading: _Connections | None = None
        self._writing: tuple[Engine, _Identity] | None = None

    # --- looking up

    def has_alerts(self, survey: Survey) -> bool:
        """Whether there are alerts of a survey; that there are none may be a second old.

        Where an archive is of one survey, this spares a look-up for each id that could be of
        another.
        """
        name, now = survey.name, clock.monotonic()
        if name not in self._peopled and now >= self._empty_until.get(name, now):
            query = sa.select(ALERTS[name].c.place).limit(1)
            if self._read_alerts(survey, lambda found: found.execute(query).first(), None):
                self._peopled.add(name)
            else:
                self._empty_until[name] = now + EMPTY_SECONDS
        return name in self._peopled

    def find_alert(self, survey: Survey, alert_id: int) -> Entry | None:
        """Return where the alert is; of several files that repeat it, the one written last."""
        copies = self.copies(survey, alert_id)
        return copies[0] if copies else None

    def copies(self, survey: Survey, alert_id: int) -> list[Entry]:
        """Return every place of an alert, that of the file written last first."""
        return _entries(survey, self._rows(survey, "alert", alert_id))

    def find_alerts(self, survey: Survey, alert_ids: Sequence[int]) -> dict[int, Entry]:
        """Return those of the alerts that are known; hundreds are looked up at a time."""
        found: dict[int, Entry] = {}
        for entry in self._listed(survey, "alert_id", alert_ids):
            if entry.alert_id is not None:
                found.setdefault(entry.alert_id, entry)
        return found

    def alerts_of(self, survey: Survey, object_ids: Sequence[KeyValue]) -> list[Entry]:
        """Return the alerts of these objects in the order of time, each alert once."""
        return self._of_objects(survey, list(map(survey.object_key.pack, object_ids)))

    def alerts_like(self, survey: Survey, entry: Entry) -> list[Entry]:
        """Return the alerts of the object, or of what moves, that an alert is one of."""
        packed = pack_object(survey, entry)
        return [entry] if packed is None else self._of_objects(survey, [packed])

    def _of_objects(self, survey: Survey, packed: Sequence[int]) -> list[Entry]:
        if len(packed) == 1:
            entries = _entries(survey, self._rows(survey, "object", packed[0]))
        else:
            entries = self._listed(survey, "object_id", packed)
        kept = drop_repeats(entries)
        kept.sort(key=lambda entry: (entry.time == entry.time, entry.time, entry.alert_id or 0))
        return kept

    def examples(self, survey: Survey, count: int = 3) -> list[KeyValue]:
        """Return objects of the newest files: those that have most alerts in all, most first.

        Looks at the first ``EXAMPLES_FROM`` rows of a few files only; a survey of which nothing
        is known has none.
        """
        alerts = ALERTS[survey.name]
        newest = self._newest_files(survey, EXAMPLES_FILES)

        def read(connection: Connection) -> list[KeyValue]:
            starts = [file.number << ROW_BITS for file in connection.execute(newest)]
            if not starts:
                return []
            near = [alerts.c.place.between(start, start + EXAMPLES_FROM - 1) for start in starts]
            seen = (
                sa.select(alerts.c.object_id)
                .where(sa.or_(*near), alerts.c.object_id >= survey.object_key.least_packed)
                .distinct()
            )
            counted = (
                sa.select(alerts.c.object_id)
                .where(alerts.c.object_id.in_(seen))
                .group_by(alerts.c.object_id)
                .order_by(sa.func.count().desc(), alerts.c.object_id)
                .limit(count)
            )
            return [survey.object_key.unpack(number) for number in connection.scalars(counted)]

        nothing: list[KeyValue] = []
        return self._read_alerts(survey, read, nothing)

    def freshness(self) -> datetime | None:
        """Return when the archive was last looked through or a file taken in; None: never."""

        def read(connection: Connection) -> datetime | None:
            walked = connection.scalar(
                sa.select(WALKS.c.finished).where(WALKS.c.archive == self._archive)
            )
            # The greatest number is the file taken in last.
            taken = connection.scalar(
                sa.select(FILES.c.indexed)
                .where(FILES.c.archive == self._archive)
                .order_by(FILES.c.number.desc())
                .limit(1)
            )
            times = [moment for moment in (walked, taken) if moment is not None]
            return datetime.fromtimestamp(max(times), UTC) if times else None

        return self._read(read, None)

    def status(self) -> CatalogStatus:
        """Count what the catalog holds."""
        ours = FILES.c.archive == self._archive

        def read(connection: Connection) -> CatalogStatus:
            states = sa.select(FILES.c.state, sa.func.count()).where(ours).group_by(FILES.c.state)
            alerts = (
                sa.select(FILES.c.survey, sa.func.sum(FILES.c.rows))
                .where(ours, FILES.c.state == OK)
                .group_by(FILES.c.survey)
            )
            newest = sa.select(sa.func.max(FILES.c.night)).where(ours, FILES.c.state == OK)
            counts: dict[str, int] = dict.fromkeys(STATES, 0)
            counts |= {state: int(count) for state, count in connection.execute(states)}
            return CatalogStatus(
                counts,
                {survey: int(rows) for survey, rows in connection.execute(alerts)},
                connection.scalar(newest) or "",
                self.freshness(),
                [*self.files(states=(DAMAGED, UNKNOWN_SCHEMA))],
            )

        return self._read(read, CatalogStatus(dict.fromkeys(STATES, 0), {}, "", None))

    def files(
        self, below: str | None = None, states: Sequence[str] = (OK, DAMAGED, UNKNOWN_SCHEMA)
    ) -> list[FileRecord]:
        """Return the files of these states, those below a folder or all, in the order of paths."""
        query = (
            sa.select(FILES)
            .where(FILES.c.archive == self._archive, FILES.c.state.in_(states))
            .order_by(FILES.c.path)
        )
        if below is not None:
            start = below.rstrip("/") + "/"
            # As a range: LIKE has wild cards, and does not use the index.
            inside = sa.and_(FILES.c.path >= start, FILES.c.path < start[:-1] + chr(ord("/") + 1))
            query = query.where(sa.or_(inside, FILES.c.path == below))
        empty: list[FileRecord] = []
        return self._read(lambda it: [_record(row) for row in it.execute(query)], empty)

    def outdated(self) -> set[str]:
        """Return the files that were cataloged before the surveys were what they are now.

        They may hold alerts of a survey that was not known then, whatever they were taken for.
        """
        query = (
            sa.select(FILES.c.path, FILES.c.survey, RECOGNISED.c.made_for)
            .select_from(FILES.outerjoin(RECOGNISED, FILES.c.number == RECOGNISED.c.number))
            .where(FILES.c.archive == self._archive, FILES.c.state != GONE)
        )

        def read(connection: Connection) -> set[str]:
            return {
                path
                for path, survey, made_for in connection.execute(query)
                if made_for != _made_for(survey) and not (made_for is None and survey in _LONE)
            }

        return self._write(read)

    def latest_file(self, survey: Survey) -> FileId | None:
        """Return the file written last that holds alerts of a survey, None where there is none."""
        query = self._newest_files(survey, 1)

        def read(connection: Connection) -> FileId | None:
            row = connection.execute(query).first()
            return None if row is None else _record(row).id

        return self._read(read, None)

    def _newest_files(self, survey: Survey, most: int) -> sa.Select[Any]:
        """Select the files that hold alerts of a survey, the one written last first."""
        return (
            sa.select(FILES)
            .where(
                FILES.c.archive == self._archive,
                FILES.c.survey == survey.name,
                FILES.c.state == OK,
                FILES.c.rows > 0,
            )
            .order_by(FILES.c.modified.desc(), FILES.c.path.desc())
            .limit(most)
        )

    # --- writing

    def prepare(self) -> None:
        """Make the database, or bring an older one up to date.

        Raises CatalogUnavailable for one that a newer version of this program made.
        """
        self._write(lambda connection: None)

    def put_file(
        self,
        file_id: FileId,
        columns: Sequence[AlertColumns],
        *,
        state: str = OK,
        message: str = "",
        check: Callable[[FileId], None] | None = None,
        again: bool = False,
    ) -> bool:
        """Replace what is known of a file by this version of it, its alerts included.

        Before another version is replaced, ``check`` is asked, and whatever it raises raised: that
        may be a newer one, which another process wrote while this one was read.
        Returns False where this version is there already, unless it is to be written ``again``:
        another process was faster.
        """
        if any(len(alerts) > MOST_ROWS for alerts in columns):
            raise ValueError(f"more than {MOST_ROWS} rows in one file")

        def write(connection: Connection) -> bool:
            old = connection.execute(_file_of(self._archive, file_id.path)).first()
            if old is not None:
                if _record(old).id == file_id and old.state == state and not again:
                    return False
                if check is not None and old.state != GONE:
                    check(file_id)
                _remove(connection, old.number)
            number = connection.execute(
                sa.insert(FILES)
                .values(self._describe(file_id, columns, state, message))
                .returning(FILES.c.number)
            ).scalar_one()
            of_file = columns[0].survey.name if columns else ""
            made_for = {"number": number, "made_for": _made_for(of_file)}
            connection.execute(sa.insert(RECOGNISED).values(made_for))
            for alerts in columns:
                _insert_alerts(connection, number, alerts)
            return True

        return self._write(write)

    def drop_file(self, file_id: FileId) -> bool:
        """Note that this version of a file is gone, and forget its alerts.

        Returns False where it is not known, nor is where another process wrote a newer one.
        """

        def write(connection: Connection) -> bool:
            old = connection.execute(_file_of(self._archive, file_id.path)).first()
            if old is None or old.state == GONE or _record(old).id != file_id:
                return False
            _remove(connection, old.number)
            kept = {name: value for name, value in old._mapping.items() if name != "number"}
            kept |= {"state": GONE, "rows": 0, "indexed": clock.time(), "message": ""}
            connection.execute(sa.insert(FILES).values(kept))
            return True

        return self._write(write)

    def note_walk(self) -> None:
        """Note that the archive was looked through just now, for ``freshness``."""

        def write(connection: Connection) -> None:
            ours = WALKS.c.archive == self._archive
            now = {"finished": clock.time()}
            if connection.execute(sa.update(WALKS).where(ours).values(now)).rowcount == 0:
                connection.execute(sa.insert(WALKS).values(now | {"archive": self._archive}))

        self._write(write)

    def close(self) -> None:
        """Close what this thread has open; other threads' connections end with them."""
        with self._lock:
            if self._reading is not None:
                self._reading.drop()
            if self._writing is not None:
                self._writing[0].dispose()
            self._reading = self._writing = None

    def _describe(
        self, file_id: FileId, columns: Sequence[AlertColumns], state: str, message: str
    ) -> dict[str, Any]:
        ids = [number for alerts in columns for number in alerts.alert_ids if number is not None]
        times = [time for alerts in columns for time in alerts.times if time is not None]
        return {
            "archive": self._archive,
            "path": file_id.path,
            "size": file_id.size,
            "modified": file_id.modified,
            "version": file_id.version,
            "night": night_of(file_id.path),
            "survey": columns[0].survey.name if columns else "",
            "rows": max((len(alerts) for alerts in columns), default=0),
            "state": state,
            "message": message[:500].replace("\0", ""),
            "indexed": clock.time(),
            "least_id": min(ids, default=None),
            "greatest_id": max(ids, default=None),
            "first_time": min(times, default=None),
            "last_time": max(times, default=None),
        }

    # --- connections

    def _rows(self, survey: Survey, column: str, value: int) -> Sequence[Any]:
        """Run one of the two look-ups that requests wait for, past what Core adds to each."""

        def read(connection: Connection) -> Sequence[Any]:
            sql, names = self._connections().statement((column, survey.name))
            values = {"value": value, "archive": self._archive}
            given: Any = tuple(values[name] for name in names) if names else values
            return connection.exec_driver_sql(sql, given).fetchall()

        return self._read_alerts(survey, read, ())

    def _listed(self, survey: Survey, column: str, values: Sequence[int]) -> list[Entry]:
        query = _lookup(survey, self._archive)
        listed = query.where(ALERTS[survey.name].c[column].in_(sa.bindparam("v", expanding=True)))
        different = list(dict.fromkeys(values))
        parts = [
            different[start : start + MOST_IN_LIST]
            for start in range(0, len(different), MOST_IN_LIST)
        ]

        def read(connection: Connection) -> list[Any]:
            return [row for part in parts for row in connection.execute(listed, {"v": part})]

        nothing: list[Any] = []
        return _entries(survey, self._read_alerts(survey, read, nothing))

    def _read_alerts(self, survey: Survey, work: Callable[[Connection], T], nothing: T) -> T:
        """Run ``work``; return ``nothing`` of a survey that the catalog has not heard of yet."""

        def read(connection: Connection) -> T:
            return work(connection) if self._connections().knows(survey) else nothing

        return self._read(read, nothing)

    def _connections(self) -> _Connections:
        """Return this process's connections; those of a parent do not survive a fork."""
        found = self._reading
        if found is None or found.process != os.getpid():
            with self._lock:
                found = self._reading
                if found is None or found.process != os.getpid():
                    found = self._reading = _Connections(self._url)
                    self._writing = None
        return found

    def _read(self, work: Callable[[Connection], T], nothing: T) -> T:
        """Run ``work`` on this thread's connection; return ``nothing`` of what is not there."""
        connections = self._connections()
        for attempt in (1, 2):
            try:
                connection = connections.get()
                return nothing if connection is None else work(connection)
            except DBAPIError as error:
                connections.drop()
                if attempt == 2 or not _may_pass(error):
                    raise _unavailable(error) from error
            except SQLAlchemyError as error:
                connections.drop()
                raise _unavailable(error) from error
        raise AssertionError

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction, once more where another process wrote the same row."""
        engine = self._engine()
        for attempt in (1, 2):
            try:
                with engine.begin() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                if attempt == 2 or not isinstance(error, IntegrityError):
                    raise _unavailable(error) from error
        raise AssertionError

    def _engine(self) -> Engine:
        self._connections()
        with self._lock:
            if self._writing is not None and self._writing[1] != _identity(self._url):
                # A file that was deleted can be written to, and nobody would see it; and whoever
                # goes on in its place must know that what was written is not there.
                self._writing[0].dispose()
                self._writing = None
                raise CatalogUnavailable("the catalog was deleted or replaced by another")
            if self._writing is None:
                engine = _writing_engine(self._url)
                try:
                    with engine.begin() as connection:
                        _migrate(connection)
                except SQLAlchemyError as error:
                    raise _unavailable(error) from error
                self._writing = (engine, _identity(self._url))
            return self._writing[0]


def database_url(url: str) -> URL:
    """Return a setting as SQLAlchemy takes it: PostgreSQL is spoken to by psycopg."""
    made = make_url(url)
    return made.set(drivername="postgresql+psycopg") if made.drivername == "postgresql" else made


def night_of(path: str) -> str:
    """Return the night, ``YYYY-MM-DD``, whose folder a path leads through, else nothing."""
    parts = dict(part.split("=", 1) for part in path.split("/") if "=" in part)
    if not {"year", "month", "day"} <= parts.keys():
        return ""
    return f"{parts['year'][:8]}-{parts['month'][:2]:0>2}-{parts['day'][:2]:0>2}"


def _lookup(survey: Survey, archive: str | None = None) -> sa.Select[Any]:
    """Select alerts and the files they are in, the file written last first."""
    alerts = ALERTS[survey.name]
    named = [column for column in alerts.c if column.name != "place"]
    return (
        sa.select(
            FILES.c.path,
            FILES.c.size,
            FILES.c.modified,
            FILES.c.version,
            alerts.c.place,
            *named,
        )
        .select_from(
            alerts.join(
                FILES, FILES.c.number == alerts.c.place.bitwise_rshift(sa.text(str(ROW_BITS)))
            )
        )
        .where(FILES.c.archive == (sa.bindparam("archive") if archive is None else archive))
        .order_by(FILES.c.modified.desc(), FILES.c.path.desc(), alerts.c.place.desc())
    )


def _entries(survey: Survey, rows: Iterable[Any]) -> list[Entry]:
    return [
        make_entry(survey, FileId(*row[:4]), row[4] & (MOST_ROWS - 1), tuple(row[5:]))
        for row in rows
    ]


def _record(row: Any) -> FileRecord:
    return FileRecord(
        FileId(row.path, row.size, row.modified, row.version),
        row.number,
        row.night,
        row.survey,
        row.rows,
        row.state,
        row.message,
        datetime.fromtimestamp(row.indexed, UTC),
    )


def _file_of(archive: str, path: str) -> sa.Select[Any]:
    return (
        sa.select(FILES)
        .where(FILES.c.archive == archive, FILES.c.path == path)
        .with_for_update()  # SQLite has no such thing, and needs none: one writes at a time
    )


def _remove(connection: Connection, number: int) -> None:
    first = number << ROW_BITS
    for table in ALERTS.values():
        inside = (table.c.place >= first, table.c.place < first + MOST_ROWS)
        connection.execute(sa.delete(table).where(*inside))
    connection.execute(sa.delete(RECOGNISED).where(RECOGNISED.c.number == number))
    connection.execute(sa.delete(FILES).where(FILES.c.number == number))


def _insert_alerts(connection: Connection, number: int, alerts: AlertColumns) -> None:
    """Write the alerts of one file by what is fastest in each database."""
    first = number << ROW_BITS
    rows = [
        (first + place, *row[:-1], None if row[-1] is None else int(row[-1]))
        for place, row in enumerate(alerts.rows())
    ]
    if rows:
        _BULK_INSERTS[connection.dialect.name](connection, ALERTS[alerts.survey.name], rows)


def _insert_many(connection: Connection, table: sa.Table, rows: list[tuple[Any, ...]]) -> None:
    sql = str(sa.insert(table).compile(dialect=connection.dialect))
    connection.exec_driver_sql(sql, rows)


def _copy(connection: Connection, table: sa.Table, rows: list[tuple[Any, ...]]) -> None:
    import psycopg  # 8 MB that a service with SQLite does without

    names = ", ".join(f'"{column.name}"' for column in table.c)
    driver: Any = connection.connection.driver_connection
    copying = f'COPY "{table.name}" ({names}) FROM STDIN'
    try:
        with driver.cursor() as cursor, cursor.copy(copying) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:  # past SQLAlchemy, which would say the same
        raise DBAPIError(copying, None, error) from error


_BULK_INSERTS = {"sqlite": _insert_many, "postgresql": _copy}


class _Connections:
    """One connection to read through for each thread of one process, and prepared statements."""

    def __init__(self, url: URL) -> None:
        self.process = os.getpid()
        self._url = url
        self._engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            **_OPTIONS[url.get_backend_name()],
        )
        if url.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _tune_sqlite_reader)
        self._statements = {
            (what, survey.name): self._compile(
                _lookup(survey).where(ALERTS[survey.name].c[f"{what}_id"] == sa.bindparam("value"))
            )
            for survey in SURVEYS
            for what in ("alert", "object")
        }
        self._local = threading.local()

    def statement(self, which: tuple[str, str]) -> tuple[str, Sequence[str]]:
        """Return SQL, and the names of its parameters in order where they stand in order."""
        return self._statements[which]

    def get(self) -> Connection | None:
        """Return this thread's connection; None where no catalog was made yet."""
        found: tuple[Connection, Any] | None = getattr(self._local, "found", None)
        identity = _identity(self._url)
        if found is not None and found[1] == identity:
            return found[0]
        self.drop()
        if identity is None:
            return None
        connection = self._engine.connect()
        version = _version(connection)
        if version > len(MIGRATIONS):
            connection.close()
            raise _too_new(version)
        if version < len(MIGRATIONS):
            connection.close()
            if version == 0:
                return None
            raise CatalogUnavailable(
                "the catalog was made by an older version of this service; "
                "`cutout_api index` brings it up to date"
            )
        self._local.found, self._local.tables = (connection, identity), set()
        return connection

    def knows(self, survey: Survey) -> bool:
        """Whether the catalog has a table of a survey; the next who writes makes it."""
        connection, tables = self._local.found[0], self._local.tables
        name = ALERTS[survey.name].name
        if name not in tables:
            tables.update(sa.inspect(connection).get_table_names())
        return name in tables

    def drop(self) -> None:
        """Close this thread's connection, which may be broken."""
        found = getattr(self._local, "found", None)
        self._local.found = None
        if found is not None:
            with suppress(SQLAlchemyError):
                found[0].close()

    def _compile(self, query: sa.Select[Any]) -> tuple[str, Sequence[str]]:
        compiled = query.compile(dialect=self._engine.dialect)
        names = getattr(compiled, "positiontup", None)
        return str(compiled), tuple(names or ())


def _identity(url: URL) -> _Identity:
    """Tell one database file from another that took its place; None where there is none."""
    if url.get_backend_name() != "sqlite":
        return (0, 0)
    try:
        status = os.stat(url.database or "")  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


_OPTIONS: Mapping[str, dict[str, Any]] = {
    "sqlite": {"connect_args": {"check_same_thread": False, "timeout": BUSY_SECONDS}},
    "postgresql": {
        "connect_args": {
            "connect_timeout": 3,
            "options": "-c statement_timeout=60000",
            # A server that vanished without a word is given up after 15 s, else after a quarter of
            # an hour: the first is for a query that does not arrive, the rest for one that did.
            "tcp_user_timeout": 15_000,
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 2,
        }
    },
}


def _tune_sqlite_reader(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA busy_timeout = 2000")
    # The whole file may be mapped: pages that are in the system's cache are not copied.
    connection.execute(f"PRAGMA mmap_size = {1 << 38}")
    connection.execute("PRAGMA cache_size = -8192")


def _tune_sqlite_writer(connection: Any, _record: Any) -> None:
    # sqlite3 of Python begins transactions by itself, and too late.
    connection.isolation_level = None
    # The first to write makes the file one with a WAL, for which it must be alone for a moment, and
    # SQLite does not wait for that by itself.
    end = clock.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            reason = error.sqlite_errorcode & 0xFF  # what is above says more about it
            busy = reason in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or clock.monotonic() > end:
                raise
            clock.sleep(0.02)
    # With a WAL, a power cut may take the last transactions, whole; a kill takes none.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -262144")
    # 512 MB: the same pages of the index of objects are written again and again, and what the
    # log holds is copied back once. A quarter of it took a third longer at 10^7 alerts.
    connection.execute("PRAGMA wal_autocheckpoint = 131072")


def _writing_engine(url: URL) -> Engine:
    backend = url.get_backend_name()
    engine = sa.create_engine(
        url, pool_size=1, max_overflow=0, pool_pre_ping=True, **_OPTIONS[backend]
    )
    if backend == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite_writer)
        # Deferred, a transaction that read first could not write after another one wrote.
        sa.event.listen(
            engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
        )
    return engine


def _version(connection: Connection) -> int:
    """Return the version of the catalog; 0 where there is none yet."""
    if not sa.inspect(connection).has_table(VERSIONS.name):
        return 0
    return connection.scalar(sa.select(VERSIONS.c.version)) or 0


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # one at a time; SQLite has begun immediately
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x6375746F7574)))
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise _too_new(version)
    if version == len(MIGRATIONS):
        METADATA.create_all(connection)  # the tables of surveys that were not known yet
        return
    for migrate in MIGRATIONS[version:]:
        migrate(connection)
    connection.execute(sa.delete(VERSIONS))
    connection.execute(sa.insert(VERSIONS).values(version=len(MIGRATIONS)))


def _too_new(version: int) -> CatalogUnavailable:
    return CatalogUnavailable(
        f"the catalog is of version {version}, made by a newer version of this service; "
        f"this one knows {len(MIGRATIONS)}"
    )


def _may_pass(error: DBAPIError) -> bool:
    """Tell whether a new connection may help: the server restarted, or the file was replaced."""
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)


def _unavailable(error: SQLAlchemyError) -> CatalogUnavailable:
    cause = getattr(error, "orig", None) or error
    log.warning("the catalog failed: %s", str(cause).strip().partition("\n")[0])
    return CatalogUnavailable("the catalog does not answer; try again in a moment")
