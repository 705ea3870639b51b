"""How far do few labels, and many, carry the shipped hippocampus recipe on two processor cores?

    few   10 labels drawn from the training side, 3 minutes, for each of two seeds: Dice of at least .80
    many  every label of the training side, 20 minutes: Dice of at least .87 (nnU-Net's published mean: .89)

    python benchmarks/hippocampus.py [--data DIR] [--work DIR] [--runs few-0,few-1,many] [--threads 2]

Dice is the mean over both labels and the patients of the test side, which no training here saw; beside it the trivial
method on the same patients. The settings were chosen by the validation side, the learning rate on another random split.
The split is the same in every run. A run already in the result file is not made again; remove it there to repeat it.
Run it on a machine that does nothing else: `load_before` near 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prepare import prepare
from tqdm import tqdm

from radloop.engine.assess import label_scores, patient_scores, score_cases
from radloop.engine.baseline import baseline_scores
from radloop.engine.fit import Progress
from radloop.engine.predictor import Predictor
from radloop.engine.train import train_version
from radloop.evaluation.intervals import bootstrap_mean, paired_differences
from radloop.recipes.errors import RadloopError
from radloop.recipes.load import load_recipe
from radloop.studies.accept import sync_view
from radloop.studies.cases import labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

HERE = Path(__file__).parent
SALT = "benchmark"  # the same split in every run and on every machine


@dataclass(frozen=True)
class Run:
    """One training: how many labels (None for all), minutes, seed, and the Dice aimed at."""

    labels: int | None
    minutes: float
    seed: int
    target: float


RUNS = {"few-0": Run(10, 3, 0, 0.80), "few-1": Run(10, 3, 1, 0.80), "many": Run(None, 20, 0, 0.87)}


def measure(run: Run, studies: StudiesFolder, home: Home, threads: int, side: str = "test") -> dict[str, Any]:
    """Train one version and measure it on a held-out side."""
    recipe = load_recipe("hippocampus")
    ledger = Ledger(home)
    Split(ledger, SALT).assign(study.patient for study in studies.studies().values())
    problems = sync_view(studies, ledger, [recipe])
    if problems:
        raise RadloopError(str(problems[0]))
    train = labelled_cases(studies, ledger, recipe, ("train",))
    chosen = random.Random(run.seed).sample(train, run.labels) if run.labels else train
    load = os.getloadavg()[0]
    with tqdm(total=100, unit="%", desc="train") as bar:

        def progress(now: Progress) -> None:
            bar.update(round(100 * now.share) - bar.n)

        outcome = train_version(
            studies,
            home,
            recipe,
            minutes=run.minutes,
            only=[case.study for case in chosen],
            seed=run.seed,
            threads=threads,
            progress=progress,
        )
    cases = labelled_cases(studies, ledger, recipe, (side,))
    begun = time.monotonic()
    scores = score_cases(Predictor(recipe, outcome.version.weights), cases, surfaces=False)
    seconds = (time.monotonic() - begun) / len(cases)
    floor = baseline_scores(recipe, chosen, cases, home.cache)
    found = patient_scores(scores)
    return {
        **asdict(run),
        "recipe_hash": recipe.hash(),
        "trained_on": len(outcome.report.used),
        "steps": outcome.report.steps,
        "train_seconds": round(outcome.report.seconds, 1),
        "load_before": round(load, 2),
        "side": side,
        "patients": len(found),
        "dice": asdict(bootstrap_mean(found)),
        **{f"dice.{label}": asdict(bootstrap_mean(values)) for label, values in label_scores(scores).items()},
        "trivial_dice": asdict(bootstrap_mean(floor)),
        "difference": asdict(bootstrap_mean(paired_differences(found, floor))),
        "seconds_a_study": round(seconds, 2),
        "gate": outcome.decision.reason if outcome.decision else "",
        "met": bootstrap_mean(found).value >= run.target,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, write the figures, and return 0 where all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("hippocampus-work"), help="studies and versions go here")
    parser.add_argument("--runs", default=",".join(RUNS), help=f"some of {', '.join(RUNS)}")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "hippocampus.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=("validation", "test"), default="test", help="settings: validation only")
    parser.add_argument("--minutes", type=float, help="another budget, to choose settings; not for reports")
    options = parser.parse_args(argv)
    names = options.runs.split(",")
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        parser.error(f"--runs has {unknown[0]!r}; there are {', '.join(RUNS)}")
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    studies = options.work / "studies"
    if not (studies / "labels" / "names.json").is_file():
        prepare("hippocampus", studies, Path(options.data))
    figures = _read(options.json)
    figures |= {
        "command": "python benchmarks/hippocampus.py",
        "machine": f"{options.threads} threads, {platform.processor() or platform.machine()}",
    }
    runs = figures.setdefault("runs", {})
    for name in names:
        if name not in runs:
            run = RUNS[name]
            if options.minutes:
                run = Run(run.labels, options.minutes, run.seed, run.target)
            home = Home(options.work / f"home-{name}-{time.time_ns()}")
            runs[name] = measure(run, StudiesFolder(studies), home, options.threads, options.side)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(runs[name], indent=1))
    return 0 if all(runs[name]["met"] for name in names) else 1


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
