"""Risks over time, out of fold over five patient-level folds, beside covariates alone on the same patients.

    python benchmarks/survival.py [--networks slices_pool,slices_gru] [--core-minutes M]

Covariates alone are fitted on what the fold's version learned from. Folds that the result file has are not trained
again. Prints a table of what is there and names what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from out_of_fold import FOLDS, arguments, parsed, shown, train_fold, with_network

from radloop.engine.risk_score import RiskScore
from radloop.evaluation.risk import RiskRow, Told, against, in_words, measure
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe

QUESTIONS = {"glioma_survival": "lgg_flair3d"}


def run_fold(question: str, recipe: Recipe, number: int, options: Any) -> dict[str, Any]:
    """How a fold was trained, and its answers: study -> patient, outcome, what version and covariates alone told."""
    trained, _ = train_fold(recipe, QUESTIONS[question], number, options)
    answers = {
        score.study: {
            "patient": score.patient,
            "event": score.event,
            "time": score.time,
            "told": asdict(score.told),
            "clinical": asdict(score.clinical),
        }
        for score in trained.outcome.scores
        if isinstance(score, RiskScore)
    }
    return trained.told | {"answers": answers}


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
        brier = f"{shown(ours.get('integrated_brier'))} ({shown(alone.get('integrated_brier'))})"
        lines.append(
            f"| {' | '.join(key.split('/'))} | {of['studies']}, {of['events']} | {' | '.join(map(shown, cells))} | "
            f"{brier} | {len(run['folds'])}/{FOLDS} |"
        )
    return "\n".join(lines)


def _told(of: Mapping[str, Any]) -> Told:
    return Told(tuple(of["risks"]), tuple(of["curve"]), of["rank"])


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds that are missing, write the figures, print the table."""
    options = parsed(arguments(__doc__ or "", list(QUESTIONS), "survival.json", 2.0), argv)
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
                    options.json.write_text(json.dumps(results) + "\n", encoding="utf-8")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
