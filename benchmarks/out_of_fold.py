"""What the benchmarks out of fold share: a prepared set, a training of one fold with a budget in processor time.

Processor time, so that what else runs on the machine does not change a result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepare import prepare
from tqdm import tqdm

from radloop.engine.fit import Progress, fit
from radloop.engine.train import TrainOutcome, train_version
from radloop.networks.registry import build
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import sync_view
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES, Split

HERE = Path(__file__).parent
SALT, FOLDS, SEED = "benchmark", 5, 0
_WARM = 5  # steps before the clock starts


@dataclass(frozen=True)
class Trained:
    """A fold's version.

    Attributes:
        outcome: of the training.
        cases: all labelled studies of the set.
        told: what the result file keeps of how it was trained.
    """

    outcome: TrainOutcome
    cases: list[Case]
    told: dict[str, Any]

    def learned(self) -> list[Case]:
        """The cases that the version was not measured on."""
        measured = {score.study for score in self.outcome.scores}
        return [case for case in self.cases if case.study not in measured]

    def held_out(self) -> list[Case]:
        """The cases that it was measured on."""
        measured = {score.study for score in self.outcome.scores}
        return [case for case in self.cases if case.study in measured]


def train_fold(recipe: Recipe, data: str, number: int, options: argparse.Namespace) -> tuple[Trained, Home]:
    """Trains on all folds of a set but one, and measures on that."""
    folder, home = _place(recipe, data, options)
    cases = labelled_cases(folder, Ledger(home), recipe, SIDES)
    epochs = options.epochs or epochs_for(options.core_minutes, recipe, cases, home, options.threads)
    clock: list[float] = []

    def progress(now: Progress) -> None:
        bar.update(int(100 * now.share) - bar.n)
        if now.step:
            clock.append(time.process_time())

    with tqdm(total=100, unit="%", desc=f"{recipe.name}, {recipe.network.name}, fold {number}") as bar:
        outcome = train_version(
            folder,
            home,
            recipe,
            epochs=epochs,
            fold=(number, FOLDS),
            seed=SEED,
            threads=options.threads,
            progress=progress,
        )
    manifest = outcome.version.manifest
    told = {
        "parameters": sum(weights.numel() for weights in build(recipe).parameters()),
        "recipe": recipe.hash(),
        "steps": manifest["steps"],
        "epochs": epochs,
        "minutes": round(manifest["seconds"]["fit"] / 60, 2),
        "core_minutes": round((clock[-1] - clock[0]) / 60, 2),
        "temperature": manifest["temperature"],
    }
    return Trained(outcome, cases, told), home


def _place(recipe: Recipe, data: str, options: argparse.Namespace) -> tuple[StudiesFolder, Home]:
    studies = options.work / data
    if not studies.is_dir():
        prepare(data, studies, options.data)
    folder, home = StudiesFolder(studies), Home(options.work / f"home-{data}")
    ledger = Ledger(home)
    Split(ledger, SALT).assign(study.patient for study in folder.studies().values())
    needed = [load_recipe(recipe.answer.region)] if recipe.answer.region else []
    for file, reason in sync_view(folder, ledger, [*needed, recipe]):
        print(f"{file.name}: {reason}", file=sys.stderr)
    return folder, home


def epochs_for(core_minutes: float, recipe: Recipe, cases: Sequence[Case], home: Home, threads: int) -> int:
    """Epochs of `recipe.fit.steps` steps that take so many minutes of one core, as the first epoch's steps do."""
    seen = dict[int, float]()

    def progress(now: Progress) -> None:
        seen.setdefault(now.step, time.process_time())

    with tempfile.TemporaryDirectory() as out:
        fit(recipe, cases, Path(out), cache=home.cache, epochs=1, threads=threads, progress=progress)
    first, last = min(step for step in seen if step >= min(_WARM, max(seen) - 1)), max(seen)
    a_step = (seen[last] - seen[first]) / (last - first)
    return max(1, round(60 * core_minutes / (a_step * recipe.fit.steps)))


def with_network(shipped: Recipe, name: str) -> Recipe:
    """A shipped recipe with another network of the same sizes."""
    network = shipped.network.model_copy(update={"name": name})
    return Recipe.model_validate_json(shipped.model_copy(update={"network": network}).model_dump_json())


def shown(of: dict[str, float] | None) -> str:
    """A figure with its interval; a dash where there is none."""
    if not of:
        return "-"
    limits = "" if of["low"] is None else f" ({of['low']:.3f} to {of['high']:.3f})"
    return f"{of['value']:.3f}{limits}"


def arguments(about: str, questions: Sequence[str], file: str, core_minutes: float) -> argparse.ArgumentParser:
    """The options that all of them have; `file` is where results go."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("folds-work"), help="studies and versions go here")
    parser.add_argument("--questions", default=",".join(questions))
    parser.add_argument("--networks", default="", help="in place of the recipe's own")
    budget = parser.add_mutually_exclusive_group()
    most = "of a training, on one core; 12 minutes of two cores are the most"
    budget.add_argument("--core-minutes", type=float, default=core_minutes, help=most)
    budget.add_argument("--epochs", type=int, help="in place of processor time")
    parser.add_argument("--folds", default=",".join(map(str, range(1, FOLDS + 1))), help="which of them, such as 1,2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=HERE / "results" / file)
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; the sets must be somewhere."""
    options = parser.parse_args(argv)
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    return options


def fill(
    options: argparse.Namespace,
    run_fold: Callable[[str, Recipe, int, argparse.Namespace], dict[str, Any]],
    figures: Callable[[Recipe, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """The results with the folds that were missing; written whole after each of them."""
    results = json.loads(options.json.read_text()) if options.json.is_file() else {}
    for question in options.questions.split(","):
        shipped = load_recipe(question)
        for network in options.networks.split(",") if options.networks else [shipped.network.name]:
            recipe = with_network(shipped, network)
            run = results.setdefault(f"{question}/{network}", {"folds": {}})
            for number in options.folds.split(","):
                if number not in run["folds"]:
                    run["folds"][number] = run_fold(question, recipe, int(number), options)
                    run["figures"] = figures(recipe, run["folds"])
                    part = options.json.with_suffix(".part")
                    part.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")
                    part.replace(options.json)
    return results
