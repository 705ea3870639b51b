"""`radloop simulate`: strategies replayed round by round on a labelled folder, and what came of them.

Studies are drawn from the training side of the stored split; the same test patients measure every model. Settings such
as the budget are chosen by the validation side, which measures no strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from radloop.engine.answer_data import truth_of
from radloop.engine.cores import usable_cores
from radloop.engine.fit import task_of
from radloop.evaluation.learning_curves import Bootstrap, summarise
from radloop.recipes.errors import BadInput, Conflict
from radloop.recipes.recipe import Recipe
from radloop.strategies.choose import strategy
from radloop.strategies.replay import Replay, Rounds, Step, first_draw, make_step, steps_of
from radloop.strategies.replay_look import EMBEDDING, embeddings_of
from radloop.strategies.replay_measure import figure_name, foreground, measured
from radloop.strategies.spread import Task, Workers
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.files import writing
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES, Side

RIVALS = ("random", "foreground")
"""What every strategy is compared with: random, and random that looks for what the recipe asks about."""
ENOUGH = 0.01
"""A doubled budget that moves the full-data figure by less changes nothing worth its time."""
MOST_DOUBLINGS = 5

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What is replayed.

    Attributes:
        strategies: their names.
        rounds: how readers are given studies.
        seeds: how many draws of the first studies and of the weights.
        jobs: processes.
    """

    strategies: tuple[str, ...]
    rounds: Rounds
    seeds: int
    jobs: int = 1


def replay_of(
    folder: StudiesFolder,
    home: Home,
    recipe: Recipe,
    work: Path,
    *,
    epochs: int | None = None,
    side: Side = "test",
    jobs: int = 1,
    step: Callable[[int], None] = lambda _: None,
) -> Replay:
    """The labelled studies of a place, preprocessed once for all processes.

    Args:
        folder: a copy of the studies.
        home: its home, which is written to.
        recipe: the question.
        work: where steps are kept.
        epochs: budget of each training, else the recipe's.
        side: whose patients measure.
        jobs: processes that will share the cores.
        step: called with each study's number while they are preprocessed.

    Raises:
        Conflict: there is no labelled study to learn from or to measure on.
        BadInput: the figure of the recipe cannot be told on these patients, or the recipe's budget is minutes.
    """
    cases = labelled_cases(folder, Ledger(home), recipe, SIDES)
    pool, held_out = ([case for case in cases if case.side == one] for one in ("train", side))
    if not pool or not held_out:
        msg = (
            f"recipe {recipe.name!r} has {len(cases)} labelled studies, {len(pool)} on the training side and "
            f"{len(held_out)} on the {side} side; a replay needs some on both"
        )
        raise Conflict(msg)
    if epochs is None and recipe.fit.minutes:
        msg = f"recipe {recipe.name} has a budget of {recipe.fit.minutes:g} minutes; give one with --epochs"
        raise BadInput(msg)
    _can_be_told(recipe, held_out, side)
    ready = {prepared.case.study for prepared in task_of(recipe).prepare(pool, home.cache, step).ready}
    pool = [case for case in pool if case.study in ready]
    drawn = {case.study: foreground(recipe, case) for case in pool}
    total = sum(drawn.values())
    shares = {study: ml / total if total > 0 else float("nan") for study, ml in drawn.items()}
    threads = max(1, usable_cores() // jobs)
    return Replay(recipe, tuple(pool), tuple(held_out), work, home.cache, epochs or recipe.fit.epochs, threads, shares)


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """A block in which no other process works in the same folder; what a killed one left in the making is removed.

    Raises:
        Conflict: another one does.
        NoSpace: the folder cannot be made.
    """
    with writing(str(work)):
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    with lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError as error:
            msg = f"another simulation works in {work}; wait for it, or give another --work"
            raise Conflict(msg) from error
        rmtree(work / "tmp", ignore_errors=True)
        yield


def simulate(replay: Replay, plan: Plan, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Replays every strategy and seed and says what came of it, for JSON.

    Args:
        replay: what is replayed.
        plan: which strategies, how many rounds and seeds.
        tell: called with what is known whenever a strategy's seed is done.

    Raises:
        NotFound: a strategy is not known.
        BadInput: the rounds need more studies than there are.
    """
    choosers = {name: strategy(name) for name in plan.strategies}
    if plan.rounds.studies > len(replay.pool):
        msg = (
            f"{plan.rounds.count} rounds need {plan.rounds.studies} studies ({plan.rounds.start} first, then "
            f"{plan.rounds.each} each), but the training side has {len(replay.pool)} that can be read; ask for fewer"
        )
        raise BadInput(msg)
    if any(EMBEDDING in chooser.needs for chooser in choosers.values()):
        replay = replace(replay, embeddings=embeddings_of(replay.recipe, replay.pool, replay.work))
    seeds = range(plan.seeds)
    curves: dict[str, dict[int, list[Step]]] = {name: {} for name in plan.strategies}
    full: dict[int, Step] = {}
    # steps that several strategies share are made once, before anybody waits for them
    firsts: dict[tuple[frozenset[str], int], frozenset[str]] = {(replay.every, seed): frozenset() for seed in seeds}
    for chooser in choosers.values():
        for seed in seeds:
            first = (first_draw(replay, chooser, seed, plan.rounds.start), seed)
            firsts[first] = firsts.get(first, frozenset()) | (chooser.needs if plan.rounds.count > 1 else frozenset())
    shared = [(labelled, seed, needs) for (labelled, seed), needs in firsts.items()]
    chains = [(name, seed) for seed in seeds for name in plan.strategies]
    with Workers(plan.jobs) as workers:
        for place, step in workers.each([(make_step, (replay, *arguments)) for arguments in shared]):
            if shared[place][0] == replay.every:
                full[shared[place][1]] = step
                tell(_told(replay, plan, curves, full))
        tasks: list[Task] = [(steps_of, (replay, name, seed, plan.rounds)) for name, seed in chains]
        for place, steps in workers.each(tasks):
            name, seed = chains[place]
            curves[name][seed] = steps
            tell(_told(replay, plan, curves, full))
    return _told(replay, plan, curves, full)


def check_budget(
    replay: Replay, seeds: int, jobs: int = 1, most: int = MOST_DOUBLINGS, tell: Tell = lambda _: None
) -> dict[str, Any]:
    """Doubles the budget of a training on all labels until that moves the figure by less than a point.

    Args:
        replay: of the validation side, with the first budget.
        seeds: over which figures are averaged.
        jobs: processes.
        most: doublings to try.
        tell: called with what is known after each budget.
    """
    told = {**head(replay), "side": replay.held_out[0].side, "budgets": [], "epochs": None, "enough": ENOUGH}
    figures: list[float] = []
    for number in range(most + 1):
        now = replace(replay, epochs=replay.epochs * 2**number)
        with Workers(min(jobs, seeds)) as workers:
            steps = dict(workers.each([(make_step, (now, now.every, seed)) for seed in range(seeds)]))
        models = {seed: measured(replay.recipe, step["studies"]) for seed, step in steps.items()}
        boot = Bootstrap([patient for model in models.values() for patient in model.patients], list(models))
        figure = boot.interval(boot.over_seeds({seed: boot.figure(model) for seed, model in models.items()}))
        figures.append(float(figure["value"] or 0.0))
        moved = figures[-1] - figures[-2] if number else None
        told["budgets"].append({"epochs": now.epochs, **figure, "moved": moved, **cost(steps.values())})
        if moved is not None and abs(moved) < ENOUGH:
            told["epochs"] = now.epochs // 2
        tell(told)
        if told["epochs"]:
            break
    return told


def head(replay: Replay) -> dict[str, Any]:
    """What every result says first."""
    return {
        "recipe": replay.recipe.name,
        "recipe_hash": replay.recipe.hash(),
        "figure": figure_name(replay.recipe),
        "epochs": replay.epochs,
        "pool": {"studies": len(replay.pool), "patients": _patients(replay.pool)},
        "n": len(replay.held_out),
        "patients": _patients(replay.held_out),
    }


def _told(
    replay: Replay, plan: Plan, curves: dict[str, dict[int, list[Step]]], full: dict[int, Step]
) -> dict[str, Any]:
    done = {
        name: {seed: [replay.point(step) for step in steps] for seed, steps in sorted(of.items())}
        for name, of in curves.items()
        if of
    }
    models = {seed: measured(replay.recipe, step["studies"]) for seed, step in sorted(full.items())}
    there = sum(len(of) for of in curves.values())
    every = [*full.values(), *(step for of in curves.values() for steps in of.values() for step in steps)]
    return {
        **head(replay),
        "rounds": plan.rounds.count,
        "start": plan.rounds.start,
        "per_round": plan.rounds.each,
        "seeds": plan.seeds,
        "complete": there == len(plan.strategies) * plan.seeds,
        "done": f"{there} of {len(plan.strategies) * plan.seeds}",
        **cost(every),
        **summarise(done, models, RIVALS),
        "chosen": {
            name: {str(seed): _chosen(steps) for seed, steps in sorted(of.items())} for name, of in curves.items()
        },
    }


def _chosen(steps: Sequence[Step]) -> list[list[str]]:
    """The studies that each round brought."""
    before: list[set[str]] = [set(), *(set(step["labelled"]) for step in steps)]
    return [sorted(set(step["labelled"]) - known) for step, known in zip(steps, before[:-1], strict=True)]


def cost(steps: Collection[Step]) -> dict[str, float]:
    """Hours of machine and of cores behind steps; a step that several share counts once."""
    once = {
        (tuple(step["labelled"]), step["seed"], step["epochs"], step.get("way"), len(step.get("corrected", ()))): step
        for step in steps
    }.values()
    keys = {"machine_hours": "seconds", "core_hours": "core_seconds"}
    return {name: round(sum(step[key] for step in once) / 3600, 4) for name, key in keys.items()}


def _can_be_told(recipe: Recipe, held_out: Sequence[Case], side: Side) -> None:
    """The area under the ROC curve needs patients with and without a label.

    Raises:
        BadInput: no label has both.
    """
    if figure_name(recipe) != "ROC AUC":
        return
    truth = np.stack([truth_of(recipe, case) for case in held_out])
    if not ((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any():
        msg = f"all {len(held_out)} labelled studies of the {side} side say the same of {recipe.name}; label others too"
        raise BadInput(msg)


def _patients(cases: Sequence[Case]) -> int:
    return len({case.patient for case in cases})
