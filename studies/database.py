"""The ledger's database: SQLite beside the labels, or PostgreSQL by URL; one writer at a time in either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from radloop.recipes.errors import Conflict, NoSpace
from radloop.studies.tables import REVISION

_FULL = ("disk is full", "readonly database", "unable to open database", "disk i/o error", "no space left")
_READ = "radloop_read"
_LOCK = 20260114  # any number, the same in every process


class Database:
    """Reads, and writes that happen one after another across processes.

    Args:
        url: SQLAlchemy URL.

    Raises:
        NoSpace: the database cannot be made or brought up to date for want of space or permission.
        Conflict: the database is newer than this radloop.
    """

    def __init__(self, url: str) -> None:
        arguments = {"timeout": 30} if url.startswith("sqlite") else {}
        self._engine = sa.create_engine(url, connect_args=arguments)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._migrate()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database and waits for no writer."""
        with _named_errors(), self._engine.connect() as plain:
            yield plain.execution_options(**{_READ: True})

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end of the block; only one runs at a time, whatever the process."""
        with _named_errors(), self._engine.begin() as connection:
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

    def _migrate(self) -> None:
        with self.read() as connection:
            if self._revision(connection) == REVISION:
                return
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
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READ, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        text = " ".join(str(error.orig).split())
        if any(sign in text.lower() for sign in _FULL):
            msg = f"cannot write the ledger: {text}; free some space or allow writing, then send it again"
            raise NoSpace(msg) from error
        if "locked" in text.lower():
            msg = "the ledger is busy: another process has held it for 30 seconds; try again"
            raise Conflict(msg) from error
        raise
