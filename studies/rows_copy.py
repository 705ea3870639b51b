"""Every row of a ledger from one database to another, whatever the databases are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from radloop.recipes.errors import Conflict
from radloop.studies.database import Database
from radloop.studies.tables import metadata

_AT_ONCE = 1000


def sqlite_file(file: Path) -> Database:
    """The database in an SQLite file."""
    return Database(sa.URL.create("sqlite", database=str(file)).render_as_string())


def copy_to_file(database: Database, file: Path) -> None:
    """Write all rows, as they are at one moment, into a new SQLite file; waits for no writer.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    target = sqlite_file(file)
    target.bring_up_to_date()
    with database.read() as source, target.write() as into:
        _copy(source, into)
    target.close()


def copy_from_file(file: Path, database: Database) -> None:
    """Put the rows of an SQLite file into a database that has none; nothing where it has these already.

    Raises:
        Conflict: it has others, which stay, or the file is of a newer radloop.
    """
    source = sqlite_file(file)
    source.bring_up_to_date(may_create=False)
    database.bring_up_to_date()
    with source.read() as rows, database.write() as into:
        if any(_first(into, table) for table in metadata.sorted_tables):
            if _all(into) == _all(rows):
                return
            msg = "the database that RADLOOP_LEDGER names has rows already; give an empty one: nothing is overwritten"
            raise Conflict(msg)
        _copy(rows, into)
        _count_on(into)
    source.close()


def _copy(source: sa.Connection, into: sa.Connection) -> None:
    for table in metadata.sorted_tables:
        found = source.execute(sa.select(table))
        while rows := found.fetchmany(_AT_ONCE):
            into.execute(table.insert(), [dict(row._mapping) for row in rows])


def _first(connection: sa.Connection, table: sa.Table) -> Any:
    return connection.execute(sa.select(table).limit(1)).first()


def _all(connection: sa.Connection) -> dict[str, set[tuple[Any, ...]]]:
    tables = metadata.sorted_tables
    return {table.name: {tuple(row) for row in connection.execute(sa.select(table))} for table in tables}


def _count_on(connection: sa.Connection) -> None:
    """PostgreSQL gives the next row the number after the newest; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        last = connection.execute(sa.select(sa.func.max(table.c.id))).scalar() if "id" in table.c else None
        if last:
            sequence = sa.func.pg_get_serial_sequence(table.name, "id")
            connection.execute(sa.select(sa.func.setval(sequence, last)))
