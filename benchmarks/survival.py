"""Risks over time, out of fold over five patient-level folds, beside covariates alone on the same patients.

    python benchmarks/survival.py [--networks slices_pool,slices_gru] [--minutes M]

Covariates alone are fitted on what the fold's version learned from. Folds that the result file has are not trained
again. Prints a table of what is there and names what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prepare import prepare
from tqdm import tqdm

from radloop.engine.train import train_version
from radloop.evaluation.risk import RiskRow, Told, against, in_words, measure
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

HERE = Path(__file__).parent
SALT, FOLDS, SEED = "benchmark", 5, 0
RECIPE, DATA = "glioma_survival", "lgg_flair3d"


def run_fold(recipe: Recipe, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """The answers of one fold: study -> patient, outcome, and what version and covariates alone told."""
    studies = options.work / DATA
    if not studies.is_dir():
        prepare(DATA, studies, options.data)
    folder, home = StudiesFolder(studies), Home(options.work / f"home-{DATA}")
    ledger = Ledger(home)
    Split(ledger, SALT).assign(study.patient for study in folder.studies().values())
    sync_view(folder, ledger, [recipe])
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
            score.study: {
                "patient": score.patient,
                "event": score.event,
                "time": score.time,
                "told": asdict(score.told),
                "clinical": asdict(score.clinical),
            }
            for score in outcome.scores
        },
    }


def figures(recipe: Recipe, folds: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds say together, and against covariates alone."""
    answers = {study: of for fold in folds.values() for study, of in sorted(fold["answers"].items())}
    rows = [RiskRow(s, of["patient"], of["event"], of["time"], _told(of["told"])) for s, of in answers.items()]
    floor = {study: _told(of["clinical"]) for study, of in answers.items()}
    alone = [RiskRow(row.study, row.patient, row.event, row.time, floor[row.study]) for row in rows]
    found = against(recipe, rows, floor)
    return {
        "studies": len(rows),
        "events": sum(row.event for row in rows),
        "words": in_words(recipe, rows, floor, f"covariates alone ({', '.join(recipe.answer.covariates)})"),
        "metrics": {name: asdict(of) for name, of in measure(recipe, rows).items() if of},
        "clinical": {name: asdict(of) for name, of in measure(recipe, alone).items() if of},
        "difference": asdict(found.difference) if found else None,
    }


def table(results: Mapping[str, Any]) -> str:
    """The figures in Markdown, and the folds that are missing."""
    lines = [
        "| question | network | studies, events | Harrell's C | covariates alone | difference | Uno's C | "
        "integrated Brier (covariates alone) | folds |",
        "|---" * 9 + "|",
    ]
    for key, run in results.items():
        of = run.get("figures")
        if not of:
            continue
        ours, alone = of["metrics"], of["clinical"]
        cells = [ours.get("c_index"), alone.get("c_index"), of["difference"], ours.get("uno_c")]
        brier = f"{_shown(ours.get('integrated_brier'))} ({_shown(alone.get('integrated_brier'))})"
        lines.append(
            f"| {' | '.join(key.split('/'))} | {of['studies']}, {of['events']} | {' | '.join(map(_shown, cells))} | "
            f"{brier} | {len(run['folds'])}/{FOLDS} |"
        )
    return "\n".join(lines)


def _told(of: Mapping[str, Any]) -> Told:
    return Told(tuple(of["risks"]), tuple(of["curve"]), of["rank"])


def _shown(of: Mapping[str, float] | None) -> str:
    if not of:
        return "-"
    limits = "" if of["low"] is None else f" ({of['low']:.3f} to {of['high']:.3f})"
    return f"{of['value']:.3f}{limits}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds that are missing, write the figures, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("survival-work"), help="studies and versions go here")
    parser.add_argument("--networks", default="", help="in place of the recipe's own")
    parser.add_argument("--minutes", type=float, default=None, help="in place of the recipe's own budget")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "survival.json")
    options = parser.parse_args(argv)
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    results = json.loads(options.json.read_text()) if options.json.is_file() else {}
    shipped = load_recipe(RECIPE)
    for network in options.networks.split(",") if options.networks else [shipped.network.name]:
        values = shipped.model_dump(mode="json")
        recipe = Recipe.model_validate_json(json.dumps(values | {"network": values["network"] | {"name": network}}))
        run = results.setdefault(f"{RECIPE}/{network}", {"folds": {}})
        for number in range(1, FOLDS + 1):
            if str(number) not in run["folds"]:
                run["folds"][str(number)] = run_fold(recipe, number, options)
                run["figures"] = figures(recipe, run["folds"])
                options.json.write_text(json.dumps(results) + "\n", encoding="utf-8")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
