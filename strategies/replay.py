"""A labelled folder replayed as if readers labelled it in rounds: learn, measure, choose the next studies, and again.

A step is one model: what it learned from, how it measured on the held-out studies, and what it said of the studies that
it might have been given next. It depends on nothing but the recipe, the labels it learned from, the budget and the
seed, and is named after them: strategies that come to the same labels share it, and after a kill what is there is read
again. Files appear whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from radloop.engine.fit import fit
from radloop.evaluation.learning_curves import Point
from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.registry.folders import WEIGHTS
from radloop.strategies.choose import Candidate, Chooser, strategy
from radloop.strategies.replay_look import EMBEDDING, scores_of
from radloop.strategies.replay_measure import alike, measure, measured, without_a_model
from radloop.studies.cases import Case
from radloop.studies.files import write_whole, writing

logger = logging.getLogger(__name__)

RANDOM = "random"
Step = dict[str, Any]
"""`labelled`, `seed`, `epochs`, `studies` (records), `scores` of unlabelled ones, `needs` (scores that it has)."""


@dataclass(frozen=True)
class Replay:
    """What all steps of a simulation share.

    Attributes:
        recipe: the question.
        pool: studies that may be drawn, of training-side patients, with their labels.
        held_out: those that every model is measured on.
        work: holds the steps, and what is in the making.
        cache: for preprocessed studies.
        epochs: budget of each training.
        threads: of each process.
        shares: study -> its share of the foreground of the pool; NaN of kinds without.
        embeddings: study -> what its image looks like, where a strategy asks for that.
    """

    recipe: Recipe
    pool: tuple[Case, ...]
    held_out: tuple[Case, ...]
    work: Path
    cache: Path
    epochs: int
    threads: int | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)

    def cases(self, studies: Collection[str]) -> list[Case]:
        """The cases of some studies of the pool, in its order."""
        return [case for case in self.pool if case.study in studies]

    @property
    def every(self) -> frozenset[str]:
        """All studies of the pool."""
        return frozenset(case.study for case in self.pool)

    @property
    def passing(self) -> Path:
        """What is in the making; may be deleted while nothing runs."""
        return _folder(self.work / "tmp")

    def point(self, step: Step) -> Point:
        """A step as a learning curve takes it."""
        share = sum(self.shares[study] for study in step["labelled"]) if self.shares else float("nan")
        return Point(len(step["labelled"]), share, measured(self.recipe, step["studies"]))


@dataclass(frozen=True)
class Rounds:
    """How readers are given studies.

    Attributes:
        count: rounds; a model is trained after each.
        start: studies of the first.
        each: studies of each further one.
    """

    count: int
    start: int
    each: int

    @property
    def studies(self) -> int:
        """Labelled in the last round."""
        return self.start + (self.count - 1) * self.each


def steps_of(replay: Replay, name: str, seed: int, rounds: Rounds) -> list[Step]:
    """The steps of one strategy and seed, a round each; those that are missing are made."""
    chooser = strategy(name)
    labelled = first_draw(replay, chooser, seed, rounds.start)
    found = []
    for number in range(1, rounds.count + 1):
        last = number == rounds.count
        step = make_step(replay, labelled, seed, frozenset() if last else chooser.needs)
        found.append(step)
        if not last:
            labelled |= _next(replay, chooser, step, rounds.each, np.random.default_rng([seed, number]))
    return found


def first_draw(replay: Replay, chooser: Chooser, seed: int, count: int) -> frozenset[str]:
    """Studies of the first round, before there is a model: a strategy that needs none chooses itself.

    Of the others it is the same random draw for all.
    """
    own = chooser if chooser.needs <= {EMBEDDING} else strategy(RANDOM)
    return _next(replay, own, {"labelled": [], "scores": {}}, count, np.random.default_rng([seed, 0]))


def make_step(replay: Replay, labelled: Collection[str], seed: int, needs: Collection[str] = ()) -> Step:
    """A model of some labels and what it says of the other studies of the pool, made unless it is there.

    Args:
        needs: names of scores that the next choice looks at.
    """
    file, needs = step_file(replay, labelled, seed), frozenset(needs) - {EMBEDDING}
    known = read_step(file)
    if known and needs <= set(known["needs"]):
        return known
    needs |= frozenset(known["needs"] if known else ())
    learned, begun, cores = replay.cases(labelled), time.monotonic(), time.process_time()
    step: Step = {"labelled": sorted(labelled), "seed": seed, "epochs": replay.epochs, "needs": sorted(needs)}
    with TemporaryDirectory(dir=replay.passing) as name:
        weights: Path | None = None
        if alike(replay.recipe, learned):
            step["untrained"] = "all labels say the same"
            step["studies"] = without_a_model(replay.recipe, learned, replay.held_out)
        else:
            weights = train(replay, learned, seed, Path(name))
            step["studies"] = measure(replay.recipe, weights, replay.held_out)
        unread = [case for case in replay.pool if case.study not in set(labelled)]
        step["scores"] = scores_of(replay.recipe, weights, unread, needs)
    step["seconds"] = round(time.monotonic() - begun, 2)
    step["core_seconds"] = round(time.process_time() - cores, 2)
    keep_step(file, step)
    return step


def train(replay: Replay, cases: Sequence[Case], seed: int, out: Path, start: Path | None = None) -> Path:
    """Weights in `out` that learned from these cases, from `start` or from nothing."""
    fit(replay.recipe, cases, out, cache=replay.cache, epochs=replay.epochs, start=start, seed=seed,
        threads=replay.threads)  # fmt: skip
    return out / WEIGHTS


def step_file(replay: Replay, labelled: Collection[str], seed: int, *more: str) -> Path:
    """Where a step is, or will be."""
    rows = sorted((case.study, case.row) for case in replay.pool if case.study in set(labelled))
    held_out = sorted((case.study, case.row) for case in replay.held_out)
    told = json.dumps([replay.recipe.hash(), replay.epochs, seed, rows, held_out, *more])
    return _folder(replay.work / "steps") / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"


def read_step(file: Path) -> Step | None:
    """A step that is there, or None."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def keep_step(file: Path, step: Step) -> None:
    """Write a step whole.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    write_whole(file, lambda path: _write(path, step), ".json")


def _next(replay: Replay, chooser: Chooser, step: Step, count: int, rng: np.random.Generator) -> frozenset[str]:
    scores, labelled = step["scores"], set(step["labelled"])
    every = [
        Candidate(case.study, case.patient, **scores.get(case.study, {}), embedding=replay.embeddings.get(case.study))
        for case in replay.pool
    ]
    pool, taken = ([c for c in every if (c.study in labelled) == there] for there in (False, True))
    chosen = chooser.choose(pool, taken, count, rng)
    if len(set(chosen)) != min(count, len(pool)) or not set(chosen) <= {candidate.study for candidate in pool}:
        msg = f"strategy {chooser.name!r} was asked for {count} of {len(pool)} studies and gave {chosen}"
        raise RadloopError(msg)
    return frozenset(chosen)


def _folder(path: Path) -> Path:
    with writing(str(path)):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, step: Step) -> None:
    path.write_text(json.dumps(step, ensure_ascii=False) + "\n", encoding="utf-8")
