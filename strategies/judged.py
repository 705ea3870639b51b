"""What versions that serve were worth on held-out labels, as the server found (`Judging`); quick to read."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING

from radloop.evaluation.drift import Judged, Reading, running_accuracy
from radloop.strategies.cache_file import drop_old, opened
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

if TYPE_CHECKING:
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)
_TABLES = """
create table if not exists judged (recipe text, version integer, row integer, study text, patient text, blind integer,
    value real, primary key (recipe, version, row)) without rowid;
"""


class JudgedLabels:
    """The judged labels of a home.

    Args:
        home: whose cache.
    """

    def __init__(self, home: Home) -> None:
        self._file = home.cache.resolve() / "scores" / "judged.db"

    def of(self, recipe: str, version: int) -> list[Judged]:
        """Those of a version, the oldest label first; changes nothing. None, with a warning, of a damaged file."""
        if not self._file.is_file():
            return []
        query = "select study, patient, row, blind, value from judged where recipe = ? and version = ? order by row"
        try:
            with contextlib.closing(
                sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True, timeout=30)
            ) as database:
                rows = database.execute(query, (recipe, version)).fetchall()
        except sqlite3.DatabaseError as error:
            logger.warning("%s cannot be read (%s); delete it, a server makes it again", self._file.name, error)
            return []
        return [Judged(study, patient, row, bool(blind), value) for study, patient, row, blind, value in rows]

    def keep(self, recipe: str, version: int, judged: Judged) -> None:
        """Writes one down; those of all but the newest few versions go.

        Raises:
            NoSpace: the disk is full or read-only.
        """
        row = (recipe, version, judged.row, judged.study, judged.patient, judged.blind, judged.value)
        with opened(self._file, _TABLES) as database:
            database.execute("insert or replace into judged values (?, ?, ?, ?, ?, ?, ?)", row)
            drop_old(database, "judged", recipe, version)


def accuracy(version: Version, ledger: Ledger) -> dict[str, Reading]:
    """The running accuracy of a version on held-out labels that are still current, blind and anchored apart."""
    judged = JudgedLabels(ledger.home).of(version.recipe, version.number)
    current = {row.id for row in ledger.current(version.recipe).values()} if judged else set()
    still = [one for one in judged if one.row in current]
    return running_accuracy(still, version.last_row, version.load_recipe().gate.margin) if still else {}
