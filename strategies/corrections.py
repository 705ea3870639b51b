"""Corrections replayed: labels damaged on purpose, the true ones given back round by round.

The champion learns from every label of the training side, some of them damaged. Each round gives back the true labels
of some of these, and a version is made of what is known then:

    fine-tuned        on all labels, from the weights of the round before
    afresh            on all labels, from nothing
    corrected-alone   on the corrected labels only, from the weights of the round before

Each is measured on the test patients (what a correction gains) and on training-side studies whose labels were right all
along (what is forgotten of them).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from radloop.evaluation.learning_curves import Bootstrap, Measured, Point, summarise
from radloop.recipes.errors import BadInput
from radloop.strategies.damage import damaged_file, damages
from radloop.strategies.replay import Replay, Step, keep_step, read_step, step_file, train
from radloop.strategies.replay_measure import alike, measure, measured, without_a_model
from radloop.strategies.simulate import Tell, cost, head
from radloop.strategies.spread import Task, Workers
from radloop.studies.cases import Case
from radloop.studies.files import write_whole

WAYS = ("fine-tuned", "afresh", "corrected-alone")
AFRESH = "afresh"
MOST_UNTOUCHED = 24
"""Studies that measure what is forgotten."""


@dataclass(frozen=True)
class Mistakes:
    """Studies with a damaged label, in the order in which they are corrected.

    Attributes:
        labels: study -> its damaged label.
        kinds: study -> what is wrong with it.
        untouched: studies of the pool whose labels were never damaged, some of them.
    """

    labels: Mapping[str, Path]
    kinds: Mapping[str, str]
    untouched: tuple[str, ...]


@dataclass(frozen=True)
class CorrectionPlan:
    """What is replayed.

    Attributes:
        rounds: how often labels are corrected.
        each: labels a round.
        seeds: how many draws of what is damaged and of the weights.
        jobs: processes.
        ways: some of `WAYS`.
    """

    rounds: int
    each: int
    seeds: int
    jobs: int = 1
    ways: tuple[str, ...] = WAYS


def mistakes_of(replay: Replay, seed: int, count: int) -> Mistakes:
    """The mistakes of a seed: every kind as often as every other, written once."""
    rng = np.random.default_rng([seed, 1])
    order = [replay.pool[place] for place in rng.permutation(len(replay.pool))]
    kinds = damages(replay.recipe)
    folder = replay.work / "damaged" / f"{replay.recipe.hash()}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    labels, wrong = {}, {}
    for number, case in enumerate(order[:count]):
        wrong[case.study] = kinds[number % len(kinds)]
        own = np.random.default_rng([seed, 2, number])
        labels[case.study] = damaged_file(replay.recipe, case, wrong[case.study], own, folder)
    untouched = tuple(case.study for case in order[count:])[:MOST_UNTOUCHED]
    return Mistakes(labels, wrong, untouched)


def correct(replay: Replay, plan: CorrectionPlan, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Replays corrections and says what came of them, for JSON.

    Raises:
        BadInput: labels of this kind cannot be damaged, or there are too few studies.
    """
    damages(replay.recipe)
    count = plan.rounds * plan.each
    if count >= len(replay.pool):
        msg = (
            f"{plan.rounds} rounds of {plan.each} damage {count} labels, but the training side has {len(replay.pool)}, "
            "of which some must stay right; ask for fewer"
        )
        raise BadInput(msg)
    seeds = range(plan.seeds)
    for seed in seeds:  # before several processes want them
        mistakes_of(replay, seed, count)
    chains = [(way, seed) for seed in seeds for way in plan.ways]
    found: dict[str, dict[int, list[Step]]] = {way: {} for way in plan.ways}
    with Workers(plan.jobs) as workers:
        champions: list[Task] = [(_champion, (replay, plan, seed)) for seed in seeds]
        for _ in workers.each(champions):  # which all ways begin with
            pass
        tasks: list[Task] = [(_steps, (replay, plan, seed, way)) for way, seed in chains]
        for place, steps in workers.each(tasks):
            way, seed = chains[place]
            found[way][seed] = steps
            tell(_told(replay, plan, found))
    shutil.rmtree(replay.work / "weights", ignore_errors=True)
    return _told(replay, plan, found)


def _champion(replay: Replay, plan: CorrectionPlan, seed: int) -> Step:
    return _Chain(replay, plan, seed, plan.ways[0]).step(0)


def _steps(replay: Replay, plan: CorrectionPlan, seed: int, way: str) -> list[Step]:
    chain = _Chain(replay, plan, seed, way)
    return [chain.step(number) for number in range(plan.rounds + 1)]


class _Chain:
    """The versions of one way and seed; 0 is the champion, which all ways have in common."""

    def __init__(self, replay: Replay, plan: CorrectionPlan, seed: int, way: str) -> None:
        self._replay, self._plan, self._seed, self._way = replay, plan, seed, way
        self._mistakes = mistakes_of(replay, seed, plan.rounds * plan.each)

    def step(self, number: int) -> Step:
        """How the version after a round measures."""
        return read_step(self._file(number)) or self._make(number)

    def _file(self, number: int) -> Path:
        way = self._way if number else "champion"
        every = [f"{study}:{how}" for study, how in self._mistakes.kinds.items()]
        return step_file(self._replay, self._replay.every, self._seed, way, str(number * self._plan.each), *every)

    def _weights(self, number: int) -> Path | None:
        """The version itself, made again where only its figures are there; None where there was nothing to learn."""
        path = self._replay.work / "weights" / f"{self._file(number).stem}.pt"
        if not path.is_file():
            self._make(number)
        return path if path.is_file() else None

    def _make(self, number: int) -> Step:
        replay, begun, cores = self._replay, time.monotonic(), time.process_time()
        corrected = list(self._mistakes.labels)[: number * self._plan.each]
        start = self._weights(number - 1) if number and self._way != AFRESH else None
        cases = self._cases(corrected)
        step: Step = {"labelled": sorted(case.study for case in cases), "corrected": corrected, "seed": self._seed}
        step |= {"epochs": replay.epochs, "way": self._way if number else "champion", "kinds": self._mistakes.kinds}
        kept = replay.work / "weights" / f"{self._file(number).stem}.pt"
        kept.parent.mkdir(parents=True, exist_ok=True)
        looked_at = [*replay.held_out, *replay.cases(self._mistakes.untouched)]
        with TemporaryDirectory(dir=replay.passing) as name:
            found = start
            if alike(replay.recipe, cases):
                step["untrained"] = "all labels say the same"
            else:
                found = train(replay, cases, self._seed, Path(name), start)
            if found:
                write_whole(kept, partial(shutil.copyfile, found), ".pt")
        records = measure(replay.recipe, kept, looked_at) if found else without_a_model(replay.recipe, cases, looked_at)
        theirs = set(self._mistakes.untouched)
        step["studies"] = [record for record in records if record["study"] not in theirs]
        step["untouched"] = [record for record in records if record["study"] in theirs]
        step |= {"seconds": round(time.monotonic() - begun, 2), "core_seconds": round(time.process_time() - cores, 2)}
        keep_step(self._file(number), step)
        return step

    def _cases(self, corrected: Collection[str]) -> list[Case]:
        """What the version learns from."""
        known = set(corrected)
        if self._way == "corrected-alone" and known:
            return self._replay.cases(known)
        wrong = {study: path for study, path in self._mistakes.labels.items() if study not in known}
        return [
            replace(case, label=wrong[case.study], ids=()) if case.study in wrong else case
            for case in self._replay.pool
        ]


def _told(replay: Replay, plan: CorrectionPlan, found: Mapping[str, Mapping[int, list[Step]]]) -> dict[str, Any]:
    curves = {way: dict(sorted(of.items())) for way, of in found.items() if of}
    there = sum(len(of) for of in curves.values())
    every = [step for of in curves.values() for steps in of.values() for step in steps]
    kinds = sorted({kind for step in every for kind in step["kinds"].values()})
    told = {
        **head(replay),
        "corrections": True,
        "rounds": plan.rounds,
        "per_round": plan.each,
        "seeds": plan.seeds,
        "damage": kinds,
        "complete": there == len(plan.ways) * plan.seeds,
        "done": f"{there} of {len(plan.ways) * plan.seeds}",
        **cost(every),
    }
    points = {
        way: {seed: [_point(replay, step) for step in steps] for seed, steps in of.items()}
        for way, of in curves.items()
    }
    told |= summarise(points, {}, (AFRESH,))
    for way, of in curves.items():
        told["strategies"][way] |= _changes(replay, of)
    told["ways"] = told.pop("strategies")
    del told["full"]
    return told


def _point(replay: Replay, step: Step) -> Point:
    return Point(len(step["corrected"]), float("nan"), measured(replay.recipe, step["studies"]))


def _changes(replay: Replay, of: Mapping[int, Sequence[Step]]) -> dict[str, Any]:
    """From the champion to the last version: what is gained on test patients, and forgotten of untouched studies."""
    count = len(next(iter(of.values()))[-1]["corrected"])
    gain = _difference(replay, of, lambda step: step["studies"])
    told = {"gain": gain, "gain_per_case": {key: value / count for key, value in gain.items() if value is not None}}
    if all(step["untouched"] for steps in of.values() for step in (steps[0], steps[-1])):
        change = _difference(replay, of, lambda step: step["untouched"])
        told["forgotten"] = {
            "value": _minus(change["value"]),
            "low": _minus(change["high"]),
            "high": _minus(change["low"]),
        }
    return told


def _difference(
    replay: Replay, of: Mapping[int, Sequence[Step]], records: Callable[[Step], Any]
) -> dict[str, float | None]:
    pairs: dict[int, tuple[Measured, Measured]] = {
        seed: (measured(replay.recipe, records(steps[-1])), measured(replay.recipe, records(steps[0])))
        for seed, steps in of.items()
    }
    boot = Bootstrap([patient for pair in pairs.values() for patient in pair[0].patients], list(pairs))
    return boot.interval(
        boot.over_seeds({seed: boot.figure(last) - boot.figure(first) for seed, (last, first) in pairs.items()})
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
