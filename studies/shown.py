"""What a viewer was shown of a study, and whether a mask that comes back is still that."""

from __future__ import annotations

import hashlib

import numpy as np
import sqlalchemy as sa

from radloop.studies import tables
from radloop.studies.info_store import InfoStore
from radloop.studies.ledger import Ledger


class ShownAnswers:
    """Answers by study and client: versions in the ledger, what they looked like beside it.

    Args:
        ledger: where versions that were shown are written down.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._info = InfoStore(ledger.home.path / "info")

    def record(self, study: str, recipe: str, client: str, version: str, mask: np.ndarray) -> None:
        """Remembers that a client was given this answer.

        Args:
            mask: (X, Y, Z) uint8, ids of the recipe, axes as in the study's file.

        Raises:
            NoSpace: the disk is full or read-only.
        """
        self._ledger.record_shown(study, recipe, client, version)
        self._info.update(f"shown-{recipe}", study, {client: _digest(mask)})

    def last(self, study: str, client: str) -> str:
        """The recipe whose answer a client was given last for a study; "" where none."""
        table = tables.shown
        query = sa.select(table.c.recipe).where(table.c.study == study, table.c.client == client)
        with self._ledger.database.read() as connection:
            return connection.execute(query.order_by(table.c.id.desc()).limit(1)).scalar() or ""

    def is_same(self, study: str, recipe: str, client: str, mask: np.ndarray) -> bool:
        """Whether a mask is, voxel by voxel, the answer of a recipe that a client was given last."""
        return self._info.get(f"shown-{recipe}", study).get(client) == _digest(mask)


def _digest(mask: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()
