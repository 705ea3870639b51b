"""Held-out studies are read blind first: what a reader gives after seeing a model's answer leans towards that model."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from radloop.recipes.recipe import Recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.ledger import Ledger
from radloop.studies.pool import Pool

CLIENTS = 1000  # whose last study is remembered
WITHHELD = (
    "held-out study: read it without the model's answer first, so that it can measure the model; "
    "ask again for the answer, and your label counts as given after it"
)


class BlindReading:
    """Which studies a reader meets without a proposal; docs/blind-reading.md says why.

    Args:
        folder: the studies.
        ledger: where labels and sides are.
        recipes: those served; `gate.blind` switches it off for one.
        pool: the same studies and recipes, where it is there already.
    """

    def __init__(
        self, folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe], pool: Pool | None = None
    ) -> None:
        self._pool = pool or Pool(folder, ledger, [recipe.name for recipe in recipes])
        self._recipes = {recipe.name: recipe for recipe in recipes if recipe.gate.blind}
        self._offered: dict[str, str] = {}
        self._lock = threading.Lock()

    def due(self, studies: Collection[str], recipe: str | None = None) -> set[str]:
        """Those of these studies that are held out and without a label of a recipe.

        Args:
            recipe: None takes any of those served.
        """
        asked = [name for name in self._recipes if recipe in (None, name)]
        if not asked or not studies:
            return set()
        known = self._pool.look()
        if not known.studies.keys() >= set(studies):
            known = self._pool.look(fresh=True)
        there = set(studies) & known.studies.keys()
        unread = there - frozenset(there).intersection(*(known.labelled[name] for name in asked))
        return {study_id for study_id in unread if known.sides.get(study_id) not in (None, "train")}

    def offer(self, study_id: str, client: str) -> None:
        """A client was given this study to read; the answer that it asks for next is withheld, once."""
        with self._lock:
            self._offered.pop(client, None)
            while len(self._offered) >= CLIENTS:
                self._offered.pop(next(iter(self._offered)))
            self._offered[client] = study_id

    def withholds(self, study_id: str, recipe: str, client: str) -> bool:
        """Whether a client's question about a study is to be left unanswered; True once for each offer."""
        with self._lock:
            if self._offered.get(client) != study_id:
                return False
            del self._offered[client]
        return bool(self.due([study_id], recipe))
