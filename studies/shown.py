"""What a reader was shown of a study: which versions, for which recipe last, and whether a mask is still just that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies import tables
from radloop.studies.images import read_mask
from radloop.studies.info_store import InfoStore
from radloop.studies.ledger import Ledger
from radloop.studies.proposals import Proposals


class ShownAnswers:
    """Answers by study and client: versions in the ledger, what they looked like beside it.

    Args:
        ledger: where versions that were shown are written down.
        proposals: the proposals, which Slicer loads with a study; without them they are not looked at.
    """

    def __init__(self, ledger: Ledger, proposals: Proposals | None = None) -> None:
        self._ledger, self._proposals = ledger, proposals
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

    def version(self, study: str, recipe: str, client: str) -> str:
        """The version that the reader saw: an answer asked for, or a proposal; "" means none, blind."""
        asked = self._ledger.shown(study, recipe, client)
        if asked or not self._has_proposal(study, recipe):
            return asked
        return str(self._proposed(study).get("params", {}).get("version") or "proposal")

    def made_for(self, study: str, client: str) -> str:
        """The recipe that the reader works on: of the answer given last, else of the proposal; "" where none."""
        table = tables.shown
        query = sa.select(table.c.recipe).where(table.c.study == study, table.c.client == client)
        with self._ledger.database.read() as connection:
            last = connection.execute(query.order_by(table.c.id.desc()).limit(1)).scalar()
        proposed = self._proposed(study).get("model") if self._proposals and self._proposals.find(study) else ""
        return str(last or proposed or "")

    def is_unchanged(self, study: str, recipe: Recipe, client: str, mask: np.ndarray) -> bool:
        """Whether a mask is, voxel by voxel, the answer that a client was given last, or the proposal, of a recipe."""
        if self._info.get(f"shown-{recipe.name}", study).get(client) == _digest(mask):
            return True
        if not self._proposals or not self._has_proposal(study, recipe.name):
            return False
        try:
            proposal = self._proposals.readable(study, [recipe])
            return proposal is not None and np.array_equal(read_mask(proposal.file).array[0], mask)
        except RadloopError:  # a proposal that cannot be read was not shown either
            return False

    def drawn(self, study: str, client: str, masks: Sequence[tuple[Recipe, np.ndarray]], made_for: str) -> list[Recipe]:
        """Of the recipes that a mask has voxels of, the one it was made for and those whose voxels a reader drew.

        Args:
            masks: (X, Y, Z) uint8 of each recipe, ids of the recipe.
            made_for: the recipe that the reader works on; where it is not among them, all are taken.
        """
        if made_for not in [recipe.name for recipe, _ in masks]:
            return [recipe for recipe, _ in masks]
        return [r for r, mask in masks if r.name == made_for or not self.is_unchanged(study, r, client, mask)]

    def _has_proposal(self, study: str, recipe: str) -> bool:
        there = self._proposals is not None and self._proposals.find(study) is not None
        return there and self._proposed(study).get("model") in (None, recipe)

    def _proposed(self, study: str) -> dict[str, Any]:
        return self._info.get("labels-original", study)


def _digest(mask: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()
