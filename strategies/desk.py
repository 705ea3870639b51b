"""Who reads what: gives out the next study, reserves it, takes it back. One desk for all strategies of a server."""

from __future__ import annotations

import secrets
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from radloop.evaluation.gate_rule import FULL
from radloop.recipes.errors import BadInput
from radloop.strategies.background import Scoring
from radloop.strategies.choose import Candidate, strategy
from radloop.studies.pool import Known, Pool

RESERVED_SECONDS = 600.0
SKIPPED_SECONDS = 24 * 3600.0
ANY = "any"
HELD_OUT_EVERY = 5  # one study in five from the held-out sides, so that their figures stay a fair picture of the pool
COLD_START = "coverage"
LATER = "clasp_pe"
AHEAD = 32  # studies chosen at once, so that those of several readers do not look alike


class Desk:
    """The studies without a label that nobody is reading.

    Args:
        pool: the studies.
        recipes: names of those served, the main one first.
        scoring: what is known of the studies; None knows nothing.
        later: the strategy that `auto` stands for once a model serves.
        held_out_every: one study in so many is drawn from the held-out sides; 0 draws none but those that are needed.
        seed: makes what is drawn repeatable; by default it is not.
        needed: how many more held-out patients the gate asked for when it judged a recipe last.
    """

    def __init__(
        self,
        pool: Pool,
        recipes: Sequence[str],
        scoring: Scoring | None = None,
        *,
        later: str = LATER,
        held_out_every: int = HELD_OUT_EVERY,
        seed: int | None = None,
        needed: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._pool, self.recipes, self._scoring, self._needed = pool, tuple(recipes), scoring, needed
        self._later, self._every = strategy(later).name, held_out_every
        self._seed = secrets.randbits(32) if seed is None else seed
        self._draw = np.random.default_rng(self._seed)
        self._lock = threading.Lock()
        self._reserved: dict[str, tuple[str, float]] = {}
        self._skipped: dict[tuple[str, str], float] = {}
        self._ahead: dict[tuple[str, str], tuple[int | None, list[str]]] = {}
        self._generators: dict[tuple[str, str], np.random.Generator] = {}

    def next(self, reader: str, name: str | None, recipe: str | None = None) -> dict[str, Any]:
        """The next study for a reader, reserved for them.

        Args:
            reader: who asks.
            name: the strategy; None takes the cold start, and once a model serves what the server was told.
            recipe: only its labels count; None or `any` those of all that are served.

        Returns:
            `{"id": ...}`, with `reason` where the gate needs the study; an empty dict where every study is labelled or
            being read by somebody else.

        Raises:
            BadInput: the recipe is not served.
        """
        known = self._pool.look()
        tiers = self._tiers(known, recipe)
        wanted = self._wanted(known, recipe)
        with self._lock:
            offer = self._offer(known, tiers, wanted, reader, name, recipe)
            if offer:
                self._reserved[offer["id"]] = (reader, time.monotonic())
        return offer

    def release(self, reader: str, study: str, *, skip: bool = False) -> bool:
        """Takes back a study that is reserved for a reader; False where it was not.

        Args:
            skip: the reader does not want it: for a day it goes to others only.
        """
        with self._lock:
            mine = self._reserved.get(study, ("",))[0] == reader
            if mine:
                del self._reserved[study]
            if skip:
                self._skipped[reader, study] = time.monotonic()
            return mine

    # -- all below: the lock is held

    def _offer(
        self,
        known: Known,
        tiers: Sequence[AbstractSet[str]],
        wanted: Mapping[str, AbstractSet[str]],
        reader: str,
        name: str | None,
        recipe: str | None,
    ) -> dict[str, Any]:
        skipped = self._expire(reader)
        taken = self._reserved.keys() | skipped
        for short, unread in wanted.items():
            if free := sorted(unread - taken):
                reason = f"the gate needs held-out labels of {short} to judge a version"
                return {"id": str(self._draw.choice(free)), "reason": reason}
        tier = next((tier for tier in tiers if not tier <= taken), None)
        if tier is None:
            return self._own(tiers, reader, skipped)
        free_here = tier - taken
        training, held_out = free_here & known.learned_from, free_here - known.learned_from
        turn = len(known.studies) - len(tier) + len(self._reserved.keys() & tier)
        due = self._every and turn % self._every == self._every - 1
        if held_out and (due or not training):
            return {"id": str(self._draw.choice(sorted(held_out)))}
        return {"id": self._chosen(known, training, name, recipe)}

    def _expire(self, reader: str) -> set[str]:
        """Forgets reservations that are over; gives what a reader skipped."""
        now = time.monotonic()
        self._reserved = {i: o for i, o in self._reserved.items() if now - o[1] < RESERVED_SECONDS}
        self._skipped = {key: t for key, t in self._skipped.items() if now - t < SKIPPED_SECONDS}
        return {study for who, study in self._skipped if who == reader}

    def _own(self, tiers: Sequence[AbstractSet[str]], reader: str, skipped: set[str]) -> dict[str, Any]:
        """What a reader was given longest ago, when nothing else is left."""
        for tier in tiers:
            own = [i for i in tier if self._reserved.get(i, ("",))[0] == reader and i not in skipped]
            if own:
                return {"id": min(own, key=lambda i: (self._reserved[i][1], i))}
        return {}

    def _chosen(self, known: Known, free: AbstractSet[str], name: str | None, recipe: str | None) -> str:
        """A study of the training side by a strategy, the next of those chosen ahead that is still free."""
        asked = recipe if recipe in self.recipes else self.recipes[0]
        version, candidates = self._scoring.candidates(asked, known) if self._scoring else (None, {})
        name = name or (COLD_START if version is None else self._later)
        of, ahead = self._ahead.get((name, asked), (version, []))
        left = [i for i in ahead if i in free] if of == version else []
        if not left:
            left = self._choose(known, free, name, asked, candidates)
        self._ahead[name, asked] = (version, left[1:])
        return left[0]

    def _choose(
        self, known: Known, free: AbstractSet[str], name: str, recipe: str, candidates: Mapping[str, Candidate]
    ) -> list[str]:
        chooser = strategy(name)
        if self._scoring:
            self._scoring.want(chooser.needs)

        def seen(studies: AbstractSet[str]) -> list[Candidate]:
            return [
                candidates.get(i) or Candidate(i, known.studies[i].patient)
                for i in sorted(studies)
                if i in known.studies
            ]

        given = (known.labelled.get(recipe, frozenset()) | self._reserved.keys()) & known.learned_from
        if (name, recipe) not in self._generators:
            self._generators[name, recipe] = np.random.default_rng(
                [self._seed, zlib.crc32(f"{name} {recipe}".encode())]
            )
        return chooser.choose(seen(free), seen(given), AHEAD, self._generators[name, recipe])

    def _tiers(self, known: Known, recipe: str | None) -> list[frozenset[str]]:
        """Studies to read, the more urgent first: without any label, then those that a served recipe has no label of.

        Raises:
            BadInput: the recipe is not served.
        """
        everything = frozenset(known.studies)
        if recipe and recipe in self.recipes:
            return [everything - known.labelled[recipe]]
        if recipe and recipe != ANY:
            msg = f"recipe {recipe!r} is not served; served: {', '.join(self.recipes)}"
            raise BadInput(msg)
        return [everything - known.some, (everything & known.some) - known.every]

    def _wanted(self, known: Known, asked: str | None) -> dict[str, set[str]]:
        """Recipe -> unread studies of validation-side patients, where the gate lacks held-out labels."""
        found = {}
        for recipe in [asked] if asked in self.recipes else self.recipes:
            if not recipe or not self._needed(recipe):
                continue
            labelled, held_out = known.labelled[recipe], {i for i, side in known.sides.items() if side == "validation"}
            patients = {known.studies[i].patient for i in held_out & labelled}
            if len(patients) < FULL:
                found[recipe] = {i for i in held_out - labelled if known.studies[i].patient not in patients}
        return found
