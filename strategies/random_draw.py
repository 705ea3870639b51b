"""The strategy `random`: an unlabelled study, drawn at random, that nobody else is reading now."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from radloop.recipes.errors import BadInput
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.split import Split

RESERVED_SECONDS = 600.0
HELD_OUT_EVERY = 5  # one study in five from the held-out sides, so that their figures stay a fair picture of the pool


class RandomDraw(Strategy):
    """Draws at random among studies without a label; proposals do not count as labels.

    Args:
        seed: makes the draw repeatable; by default it is not.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__("a random study without a label, one in five from the held-out patients")
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._offered: dict[str, tuple[str, float]] = {}

    def __call__(self, request: dict[str, Any], datastore: FolderDatastore) -> dict[str, str]:
        """The next study for a client.

        Args:
            request: `client_id`, and `recipe` to count only its labels.
            datastore: the studies.

        Returns:
            `{"id": ...}`, or an empty dict where every study is labelled or being read by somebody else.
        """
        client = str(request.get("client_id") or "unknown")
        recipe = request.get("recipe")
        if recipe and recipe not in [r.name for r in datastore.recipes]:
            msg = f"recipe {recipe!r} is not served; served: {', '.join(r.name for r in datastore.recipes)}"
            raise BadInput(msg)
        studies = datastore.folder.studies()
        labelled = datastore.labelled(recipe) & set(studies)
        sides = Split(datastore.ledger).assign(study.patient for study in studies.values())
        with self._lock:
            free = self._free([i for i in studies if i not in labelled], client)
            if not free:
                return {}
            held_out = [i for i in free if sides[studies[i].patient] != "train"]
            training = [i for i in free if sides[studies[i].patient] == "train"]
            turn = len(labelled) + len(self._offered.keys() - labelled)
            first, second = (
                (held_out, training) if turn % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else (training, held_out)
            )
            chosen = self._random.choice(first or second)
            self._offered[chosen] = (client, time.monotonic())
        return {"id": chosen}

    def _free(self, unlabelled: list[str], client: str) -> list[str]:
        """Studies that nobody else was offered lately; those offered to the client itself only when nothing is left."""
        now = time.monotonic()
        self._offered = {i: o for i, o in self._offered.items() if now - o[1] < RESERVED_SECONDS}
        fresh = [i for i in unlabelled if i not in self._offered]
        own = [i for i in unlabelled if self._offered.get(i, ("",))[0] == client]
        return fresh or sorted(own, key=lambda i: self._offered[i][1])[:1]
