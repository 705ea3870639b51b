"""The strategy `random`: a study without a label, drawn at random, that nobody else is reading now."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from radloop.evaluation.gate_rule import FULL
from radloop.recipes.errors import BadInput
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.folder import Study
from radloop.studies.sides import study_sides
from radloop.studies.split import Side

RESERVED_SECONDS = 600.0
ANY = "any"
HELD_OUT_EVERY = 5  # one study in five from the held-out sides, so that their figures stay a fair picture of the pool


class RandomDraw(Strategy):
    """Draws at random among studies without a label, then among those that some recipe has no label of.

    Proposals do not count as labels. Where the gate could not judge a recipe's last version for want of held-out
    labels, a study of a validation-side patient is drawn until there are enough.

    Args:
        recipes: names of those served, for viewers to choose from.
        seed: makes the draw repeatable; by default it is not.
        needed: how many more held-out patients the gate asked for when it judged a recipe last.
    """

    def __init__(
        self, recipes: Sequence[str] = (), seed: int | None = None, needed: Callable[[str], int] = lambda _: 0
    ) -> None:
        super().__init__("a random study without a label, one in five from the held-out patients")
        self._recipes, self._needed = tuple(recipes), needed
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._offered: dict[str, tuple[str, float]] = {}

    def info(self) -> dict[str, Any]:
        """What viewers list, and the recipe to draw for, where several are served."""
        choice = {"recipe": [ANY, *self._recipes]} if len(self._recipes) > 1 else {}
        return {**super().info(), "config": choice}

    def __call__(self, request: dict[str, Any], datastore: FolderDatastore) -> dict[str, Any]:
        """The next study for a client.

        Args:
            request: `client_id`, and `recipe` to count only its labels (`any`: those of all that are served).
            datastore: the studies.

        Returns:
            `{"id": ...}`, with `reason` where the gate needs the study and `blind` where it is to be read without an
            answer first; an empty dict where every study is labelled or being read by somebody else.
        """
        client = str(request.get("client_id") or "unknown")
        offer = self._choose(request, client, datastore)
        if not offer:
            return {}
        datastore.blind.offer(offer["id"], client)
        recipe = request.get("recipe")
        blind = datastore.blind.due([offer["id"]], recipe if recipe in self._recipes else None)
        return {**offer, "blind": True} if blind else offer

    def _choose(self, request: dict[str, Any], client: str, datastore: FolderDatastore) -> dict[str, Any]:
        """A study, reserved for the client, and why; empty where none is free."""
        studies = datastore.folder.studies()
        tiers = _tiers(list(studies), datastore, request.get("recipe"))
        sides = study_sides(studies, datastore.ledger)
        wanted = self._wanted(studies, sides, datastore, request.get("recipe"))
        with self._lock:
            free, tier = self._free(tiers, client)
            if not free:
                return {}
            untaken = {i for one in tiers for i in one if i not in self._offered}
            for recipe, unread in wanted.items():
                chosen = self._random.choice(sorted(unread & untaken) or [""])
                if chosen:
                    self._offered[chosen] = (client, time.monotonic())
                    return {"id": chosen, "reason": f"the gate needs held-out labels of {recipe} to judge a version"}
            held_out = [i for i in free if sides.get(i) != "train"]
            training = [i for i in free if sides.get(i) == "train"]
            turn = len(studies) - len(tier) + len(self._offered.keys() & set(tier))
            first, second = (
                (held_out, training) if turn % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else (training, held_out)
            )
            chosen = self._random.choice(first or second)
            self._offered[chosen] = (client, time.monotonic())
        return {"id": chosen}

    def _wanted(
        self, studies: Mapping[str, Study], sides: Mapping[str, Side], datastore: FolderDatastore, asked: str | None
    ) -> dict[str, set[str]]:
        """Recipe -> unread studies of validation-side patients, where the gate lacks held-out labels."""
        found = {}
        for recipe in [asked] if asked in self._recipes else self._recipes:
            if not self._needed(recipe):
                continue
            labelled = datastore.labelled(recipe)
            held_out = {i for i in studies if sides.get(i) == "validation"}
            patients = {studies[i].patient for i in held_out & set(labelled)}
            if len(patients) < FULL:
                found[recipe] = {i for i in held_out - set(labelled) if studies[i].patient not in patients}
        return found

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
