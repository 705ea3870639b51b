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
        _count_on(into, _last_ids(source))
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
        _count_on(into, _last_ids(rows))
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


def _last_ids(connection: sa.Connection) -> dict[str, int]:
    """The last id given in each table, also where it was skipped or its row is no more; 0 before the first."""
    found = {}
    for table in metadata.sorted_tables:
        if "id" not in table.c:
            continue
        if connection.dialect.name == "postgresql":
            asked = sa.text("SELECT pg_sequence_last_value(pg_get_serial_sequence(:name, 'id')::regclass)")
        else:
            asked = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        given = connection.execute(asked, {"name": table.name}).scalar()
        found[table.name] = max(given or 0, connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0)
    return found


def _count_on(connection: sa.Connection, last: dict[str, int]) -> None:
    """Let the next ids follow those given last, also where the rows with these are not there."""
    for name, number in last.items():
        if connection.dialect.name == "postgresql":
            if number:
                sequence = sa.func.pg_get_serial_sequence(name, "id")
                connection.execute(sa.select(sa.func.setval(sequence, number)))
        elif metadata.tables[name].dialect_options["sqlite"]["autoincrement"]:
            # the other tables of SQLite go on from their newest row by themselves
            values = {"name": name, "seq": number}
            if not connection.execute(
                sa.text("UPDATE sqlite_sequence SET seq = :seq WHERE name = :name"), values
            ).rowcount:
                connection.execute(sa.text("INSERT INTO sqlite_sequence VALUES (:name, :seq)"), values)
