"""SQLite files among the caches of a home, of what was computed by version; they may be deleted at any time."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from radloop.studies.files import writing

logger = logging.getLogger(__name__)
KEPT = 3  # versions of a recipe, so that nothing is computed again after a rollback


@contextlib.contextmanager
def opened(file: Path, tables: str) -> Iterator[sqlite3.Connection]:
    """A connection for one use: the file may go at any time, as when a patient is forgotten. Damaged, it is made anew.

    Args:
        file: made where it is not there.
        tables: statements that make the tables, where they are not there.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    with writing(file.name):
        file.parent.mkdir(exist_ok=True)
        try:
            database = _connected(file, tables)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            logger.warning("%s is damaged (%s); it is made again", file.name, error)
            file.unlink(missing_ok=True)
            database = _connected(file, tables)
        with contextlib.closing(database), database:
            yield database


def _connected(file: Path, tables: str) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=30)
    try:
        database.execute("pragma synchronous = off")  # a cache
        database.executescript(tables)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def drop_old(database: sqlite3.Connection, table: str, recipe: str, version: int) -> None:
    """Drops the rows of all versions of a recipe but this one and the newest few."""
    old = (
        f"delete from {table} where recipe = ?1 and version not in (select distinct version from {table}"
        " where recipe = ?1 order by version = ?2 desc, version desc limit ?3)"
    )
    database.execute(old, (recipe, version, KEPT))
