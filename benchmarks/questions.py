"""Answers about whole studies, out of fold over five patient-level folds, beside a trivial method on the same studies.

    python benchmarks/questions.py [--questions lung_nodule_malignancy,...] [--networks slices_gru,cnn] [--minutes M]

A fold's version learns from the other four folds' patients and is asked about the fold's; one in seven of those it
could learn from scales its probabilities instead. Folds that the result file has are not trained again. Prints a
table of what is there and names what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prepare import prepare
from tqdm import tqdm

from radloop.engine.train import train_version
from radloop.evaluation.classification import compare, measure
from radloop.evaluation.reliability import perfect_ece, recalibration
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

HERE = Path(__file__).parent
SALT, FOLDS, SEED = "benchmark", 5, 0


@dataclass(frozen=True)
class Question:
    """What is asked of which set.

    Attributes:
        recipe: a shipped recipe.
        data: the set.
        floor: the column of `answers.csv` that a trivial method goes by: the larger, the more of the last label.
        part: a further figure on the studies whose floor lies between these.
    """

    recipe: str
    data: str
    floor: str
    part: tuple[float, float] | None = None


QUESTIONS = {
    "lung_nodule_malignancy": Question("lung_nodule_malignancy", "lidc_nodules", "diameter_mm", (6.0, 12.0)),
}


def run_fold(question: Question, recipe: Recipe, work: Path, data: Path, number: int, options: Any) -> dict[str, Any]:
    """The answers of one fold: study -> patient, truth and probabilities."""
    studies = work / question.data
    if not studies.is_dir():
        prepare(question.data, studies, data)
    folder, home = StudiesFolder(studies), Home(work / f"home-{question.data}")
    ledger = Ledger(home)
    Split(ledger, SALT).assign(study.patient for study in folder.studies().values())
    needed = [load_recipe(recipe.answer.region)] if recipe.answer.region else []
    for file, reason in sync_view(folder, ledger, [*needed, recipe]):
        print(f"{file.name}: {reason}", file=sys.stderr)
    with tqdm(total=100, unit="%", desc=f"{recipe.network.name}, fold {number}") as bar:
        outcome = train_version(
            folder,
            home,
            recipe,
            minutes=options.minutes,
            fold=(number, FOLDS),
            seed=SEED,
            threads=options.threads,
            progress=lambda now: bar.update(int(100 * now.share) - bar.n),
        )
    manifest = outcome.version.manifest
    return {
        "steps": manifest["steps"],
        "minutes": round(manifest["seconds"]["fit"] / 60, 2),
        "temperature": manifest["temperature"],
        "answers": {
            score.study: {"patient": score.patient, "truth": score.truth, "p": score.probabilities}
            for score in outcome.scores
        },
    }


def with_network(shipped: Recipe, name: str) -> Recipe:
    """A shipped recipe with another network of the same sizes."""
    values = shipped.model_dump(mode="json")
    return Recipe.model_validate_json(json.dumps(values | {"network": values["network"] | {"name": name}}))


def figures(question: Question, recipe: Recipe, folds: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds say together, and against the trivial method, on all studies and on a part of them."""
    answers = {study: of for fold in folds.values() for study, of in fold["answers"].items()}
    found = {"all": _figures(question, recipe, answers, cells)}
    if question.part:
        low, high = question.part
        inside = {s: of for s, of in answers.items() if low <= float(cells[s][question.floor]) <= high}
        found[f"{question.floor} {low:g} to {high:g}"] = _figures(question, recipe, inside, cells)
    return found


def _figures(
    question: Question, recipe: Recipe, answers: Mapping[str, Any], cells: Mapping[str, Any]
) -> dict[str, Any]:
    names, studies = recipe.label_names, sorted(answers)
    p = np.array([[answers[s]["p"][name] for name in names] for s in studies])
    y = np.array([[answers[s]["truth"][name] for name in names] for s in studies], dtype=float)
    patients = [answers[s]["patient"] for s in studies]
    floor = np.array([float(cells[s][question.floor]) for s in studies])
    order = (floor - floor.min()) / max(float(np.ptp(floor)), 1e-9)
    trivial = np.stack([1 - order, order], axis=1)
    against = compare(p, trivial, y, patients, "roc_auc", kind=recipe.kind, labels=names)
    line = recalibration(p, y, patients, kind=recipe.kind)
    told = {name: of for name, of in measure(p, y, patients, kind=recipe.kind, labels=names).items() if of}
    return {
        "studies": len(studies),
        "patients": len(set(patients)),
        **{name: asdict(told[name]) for name in ("roc_auc", "accuracy", "brier", "log_loss", "ece") if name in told},
        "ece_perfect": perfect_ece(p, y, kind=recipe.kind),
        "slope": asdict(line.slope) if line.slope else None,
        "trivial_roc_auc": asdict(against.second) if against else None,
        "difference": asdict(against.difference) if against else None,
    }


def table(results: Mapping[str, Any]) -> str:
    """The figures in Markdown, and the folds that are missing."""
    lines = [
        "| question | network | studies | ROC AUC | trivial | difference | calibration slope | folds |",
        "|---" * 8 + "|",
    ]
    for key, run in results.items():
        question, network = key.split("/")
        for part, of in run.get("figures", {}).items():
            which = question if part == "all" else f"{question}, {part}"
            cells = [_shown(of.get(name)) for name in ("roc_auc", "trivial_roc_auc", "difference", "slope")]
            lines.append(
                f"| {which} | {network} | {of['studies']} | {' | '.join(cells)} | {len(run['folds'])}/{FOLDS} |"
            )
    return "\n".join(lines)


def _shown(of: Mapping[str, float] | None) -> str:
    if not of:
        return "-"
    limits = "" if of["low"] is None else f" ({of['low']:.3f} to {of['high']:.3f})"
    return f"{of['value']:.3f}{limits}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds that are missing, write the figures, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("questions-work"), help="studies and versions go here")
    parser.add_argument("--questions", default=",".join(QUESTIONS))
    parser.add_argument("--networks", default="", help="in place of the recipe's own")
    parser.add_argument(
        "--minutes", type=float, default=None, help="in place of the recipe's own; at most 12 are compared"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "questions.json")
    options = parser.parse_args(argv)
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    results = json.loads(options.json.read_text()) if options.json.is_file() else {}
    for name in options.questions.split(","):
        question, shipped = QUESTIONS[name], load_recipe(QUESTIONS[name].recipe)
        for network in options.networks.split(",") if options.networks else [shipped.network.name]:
            recipe = with_network(shipped, network)
            run = results.setdefault(f"{name}/{network}", {"folds": {}})
            for number in range(1, FOLDS + 1):
                if str(number) not in run["folds"]:
                    run["folds"][str(number)] = run_fold(question, recipe, options.work, options.data, number, options)
                    cells = {s.id: s.answers for s in StudiesFolder(options.work / question.data).studies().values()}
                    run["figures"] = figures(question, recipe, run["folds"], cells)
                    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
