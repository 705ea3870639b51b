"""The strategy `random`: a study without a label, drawn at random, that nobody else is reading now."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from radloop.recipes.errors import BadInput
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.split import Split

RESERVED_SECONDS = 600.0
ANY = "any"
HELD_OUT_EVERY = 5  # one study in five from the held-out sides, so that their figures stay a fair picture of the pool


class RandomDraw(Strategy):
    """Draws at random among studies without a label, then among those that some recipe has no label of.

    Proposals do not count as labels.

    Args:
        recipes: names of those served, for viewers to choose from.
        seed: makes the draw repeatable; by default it is not.
    """

    def __init__(self, recipes: Sequence[str] = (), seed: int | None = None) -> None:
        super().__init__("a random study without a label, one in five from the held-out patients")
        self._recipes = tuple(recipes)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._offered: dict[str, tuple[str, float]] = {}

    def info(self) -> dict[str, Any]:
        """What viewers list, and the recipe to draw for, where several are served."""
        choice = {"recipe": [ANY, *self._recipes]} if len(self._recipes) > 1 else {}
        return {**super().info(), "config": choice}

    def __call__(self, request: dict[str, Any], datastore: FolderDatastore) -> dict[str, str]:
        """The next study for a client.

        Args:
            request: `client_id`, and `recipe` to count only its labels (`any`: those of all that are served).
            datastore: the studies.

        Returns:
            `{"id": ...}`, or an empty dict where every study is labelled or being read by somebody else.
        """
        client = str(request.get("client_id") or "unknown")
        studies = datastore.folder.studies()
        tiers = _tiers(list(studies), datastore, request.get("recipe"))
        sides = Split(datastore.ledger).assign(study.patient for study in studies.values())
        with self._lock:
            free, tier = self._free(tiers, client)
            if not free:
                return {}
            held_out = [i for i in free if sides[studies[i].patient] != "train"]
            training = [i for i in free if sides[studies[i].patient] == "train"]
            turn = len(studies) - len(tier) + len(self._offered.keys() & set(tier))
            first, second = (
                (held_out, training) if turn % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else (training, held_out)
            )
            chosen = self._random.choice(first or second)
            self._offered[chosen] = (client, time.monotonic())
        return {"id": chosen}

    def _free(self, tiers: Sequence[list[str]], client: str) -> tuple[list[str], list[str]]:
        """Studies that nobody was offered lately, and their tier; those of the client itself when nothing is left."""
        now = time.monotonic()
        self._offered = {i: o for i, o in self._offered.items() if now - o[1] < RESERVED_SECONDS}
        for tier in tiers:
            fresh = [i for i in tier if i not in self._offered]
            if fresh:
                return fresh, tier
        for tier in tiers:
            own = [i for i in tier if self._offered.get(i, ("",))[0] == client]
            if own:
                return [min(own, key=lambda i: self._offered[i][1])], tier
        return [], []


def _tiers(studies: list[str], datastore: FolderDatastore, recipe: str | None) -> list[list[str]]:
    """Studies to read, the more urgent first: without any label, then those that a served recipe has no label of.

    Raises:
        BadInput: the recipe is not served.
    """
    served = [r.name for r in datastore.recipes]
    if recipe and recipe in served:
        labelled = datastore.labelled(recipe)
        return [[i for i in studies if i not in labelled]]
    if recipe and recipe != ANY:
        msg = f"recipe {recipe!r} is not served; served: {', '.join(served)}"
        raise BadInput(msg)
    by_recipe = [datastore.labelled(name) for name in served]
    some, all_ = set[str]().union(*by_recipe), set(studies).intersection(*by_recipe)
    return [[i for i in studies if i not in some], [i for i in studies if i in some and i not in all_]]
