"""The ledger's database: SQLite beside the labels, or PostgreSQL by URL; one writer at a time in either."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DataError, OperationalError

from radloop.recipes.errors import BadInput, Conflict, NoSpace
from radloop.studies import snapshots
from radloop.studies.files import writing
from radloop.studies.home import Home, database_url
from radloop.studies.tables import REVISION, settings

_FULL = ("disk is full", "readonly database", "unable to open database", "disk i/o error", "no space left")
_DAMAGED = ("malformed", "not a database")
_READ = "radloop_read"
_PATIENCE = 30  # seconds that a write waits for another process
_LOCK = 20260114  # any number, the same in every process


def open_ledger(home: Home) -> Database:
    """The ledger's database of a home, made where the home never had one.

    Raises:
        NoSpace: it cannot be made or brought up to date for want of space or permission.
        Conflict: it is missing, damaged, another home's, or newer than this radloop; nothing was changed.
        BadInput: RADLOOP_LEDGER is no address of a database that can be used.
    """
    file = home.ledger_file
    if file is not None:
        _look_at(home, file)
    database = Database(home.ledger_url, partial(snapshots.take, home), partial(snapshots.advice, home))
    database.bring_up_to_date(may_create=not home.had_ledger)
    ledger_id = database.identify(home.ledger_id)
    if not home.ledger_id:
        home.remember(ledger_id)
    elif ledger_id != home.ledger_id:
        msg = f"the database is not the ledger that {home.path} had; set RADLOOP_LEDGER right, or give another --home"
        raise Conflict(msg)
    return database


def _look_at(home: Home, file: Path) -> None:
    """Nothing is made where a ledger was, and a damaged one is not opened for writing."""
    if not file.is_file():
        if home.had_ledger:
            msg = f"the ledger {file} is gone; {snapshots.advice(home)}"
            raise Conflict(msg)
        return
    with writing(file.name):
        # An empty file is a home's that was killed before it remembered anything.
        wrong = snapshots.damage(file) if file.stat().st_size or home.had_ledger else ""
    if wrong:
        msg = f"the ledger {file} is damaged ({wrong}); {snapshots.advice(home)}"
        raise Conflict(msg)


class Database:
    """Reads, and writes that happen one after another across processes.

    Args:
        url: SQLAlchemy URL.
        keep: called before tables that are there change.
        advice: says what to do when the file turns out to be damaged.

    Raises:
        BadInput: nothing here can speak to such a database.
    """

    def __init__(
        self, url: str, keep: Callable[[], object] = lambda: None, advice: Callable[[], str] = lambda: "restore it"
    ) -> None:
        self._keep, self._advice = keep, advice
        address = database_url(url)
        sqlite = address.get_backend_name() == "sqlite"
        try:
            # A server that was restarted is found again, instead of one refusal for each connection that was open.
            self._engine = sa.create_engine(
                address, connect_args={"timeout": _PATIENCE} if sqlite else {}, pool_pre_ping=not sqlite
            )
        except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
            msg = f"RADLOOP_LEDGER names {address.drivername}, which is not there ({error}); "
            msg += "write postgresql+psycopg://... and install it with `pip install 'radloop[postgres]'`"
            raise BadInput(msg) from error
        if sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database and waits for no writer."""
        with _named_errors(self._advice), self._engine.connect() as plain:
            if self._engine.dialect.name == "postgresql":
                plain = plain.execution_options(isolation_level="REPEATABLE READ")
            yield plain.execution_options(**{_READ: True})

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end of the block; only one runs at a time, whatever the process."""
        with _named_errors(self._advice), self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection

    def close(self) -> None:
        """Let go of the file; the next question opens it again."""
        self._engine.dispose()

    def _revision(self, connection: sa.Connection) -> str | None:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def identify(self, ledger_id: str = "") -> str:
        """What tells this ledger from every other; `ledger_id`, or a new one, where it has none yet."""
        query = sa.select(settings.c.value).where(settings.c.key == "ledger")
        with self.read() as connection:
            found = connection.execute(query).scalar()
        if found is None:
            with self.write() as connection:
                found = connection.execute(query).scalar()
                if found is None:
                    found = ledger_id or uuid.uuid4().hex
                    connection.execute(settings.insert().values(key="ledger", value=found))
        return str(found)

    def bring_up_to_date(self, may_create: bool = True) -> None:
        """Make the tables, or change those of an older release, in one transaction.

        Args:
            may_create: whether there may be no tables yet.

        Raises:
            NoSpace: the disk is full or read-only; the database is as it was.
            Conflict: the database is empty but must not be, or is newer than this radloop.
        """
        with self.read() as connection:
            found = self._revision(connection)
        if found == REVISION:
            return
        if found is None and not may_create:
            msg = f"the ledger is empty, but this home had one; {self._advice()}"
            raise Conflict(msg)
        if found is not None and found < REVISION:
            self._keep()
        # Imported late: most starts find the tables up to date.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                found = self._revision(connection)
                msg = f"the ledger is of revision {found}, this radloop knows {REVISION}; update radloop"
                raise Conflict(msg) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # SQLAlchemy's begin event starts transactions; the driver's own habit of starting them late is off.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * _PATIENCE}")
    _to_wal(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _to_wal(cursor: sqlite3.Cursor) -> None:
    """SQLite does not wait by itself for another process that makes the same new file a write-ahead log."""
    until = time.monotonic() + _PATIENCE
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def _named_errors(advice: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        msg = f"the ledger does not take this: {_text(error)}; give shorter or plainer text"
        raise BadInput(msg) from error
    except OperationalError as error:
        text = _text(error)
        if any(sign in text.lower() for sign in _FULL):
            msg = f"cannot write the ledger: {text}; free some space or allow writing, then send it again"
            raise NoSpace(msg) from error
        if "locked" in text.lower():
            msg = f"the ledger is busy: another process has held it for {_PATIENCE} seconds; try again"
            raise Conflict(msg) from error
        if not isinstance(error.orig, sqlite3.Error):
            msg = f"the ledger's database does not answer: {text}; start it, or set RADLOOP_LEDGER right"
            raise Conflict(msg) from error
        raise
    except DatabaseError as error:
        if not any(sign in _text(error).lower() for sign in _DAMAGED):
            raise
        msg = f"the ledger is damaged ({_text(error)}); {advice()}"
        raise Conflict(msg) from error


def _text(error: DatabaseError) -> str:
    return " ".join(str(error.orig).split())
