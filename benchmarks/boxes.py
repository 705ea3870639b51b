"""Boxes out of fold over five patient-level folds, beside mean boxes on the same studies.

    python benchmarks/boxes.py [--questions chest_lungs] [--core-minutes M]

A fold's version learns from the other four folds' patients and is measured on the fold's; one in seven of those it
could learn from scales its scores instead. The mean boxes learn from all of the other four. Folds that the result file
has are not trained again. Prints a table of what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from out_of_fold import FOLDS, arguments, fill, parsed, shown, train_fold

from radloop.engine.box_assess import BoxScore, box_baseline
from radloop.evaluation.box_report import against
from radloop.evaluation.boxes import BoxRow, measure_boxes
from radloop.recipes.recipe import Recipe

QUESTIONS = {"chest_lungs": "covid_cxr"}
REACH = {"chest_lungs": 0.90}


def run_fold(question: str, recipe: Recipe, number: int, options: Any) -> dict[str, Any]:
    """How a fold was trained; of every study the true boxes and those of the version and of the floor."""
    trained, _ = train_fold(recipe, QUESTIONS[question], number, options)
    floor = box_baseline(recipe, trained.learned(), trained.held_out())
    mine = [score for score in trained.outcome.scores if isinstance(score, BoxScore)]
    return trained.told | {"radloop": [_kept(score) for score in mine], "floor": [_kept(score) for score in floor]}


def _kept(score: BoxScore) -> dict[str, Any]:
    parts = {name: getattr(score, name) for name in ("truth", "found", "scores")}
    lists = {name: {label: np.round(of, 3).tolist() for label, of in part.items()} for name, part in parts.items()}
    return {"study": score.study, "patient": score.patient, **lists}


def _row(of: Mapping[str, Any]) -> BoxRow:
    def arrays(name: str, *shape: int) -> dict[str, np.ndarray]:
        return {label: np.array(values, float).reshape(-1, *shape) for label, values in of[name].items()}

    return BoxRow(of["study"], of["patient"], arrays("truth", 4), arrays("found", 4), arrays("scores"))


def figures(recipe: Recipe, folds: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds say together, and against the floor."""
    mine, floor = ([_row(of) for fold in folds.values() for of in fold[name]] for name in ("radloop", "floor"))
    names = recipe.label_names
    compared = against(mine, floor, names)
    return {
        "studies": len(mine),
        "patients": len({row.patient for row in mine}),
        "radloop": {name: asdict(of) for name, of in measure_boxes(mine, names).items() if of},
        "floor": {name: asdict(of) for name, of in measure_boxes(floor, names).items() if of},
        "difference": asdict(compared[2]) if compared else None,
    }


def table(results: Mapping[str, Any]) -> str:
    """The figures in Markdown, and the folds that are missing."""
    names = ("question", "network", "studies", "AP50", "must reach", "mean boxes", "difference", "AP50 to 95", "folds")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for key, run in results.items():
        question, network = key.split("/")
        of, done = run["figures"], f"{len(run['folds'])}/{FOLDS}"
        mine = [shown(of["radloop"].get(name)) for name in ("ap50", "ap")]
        floor = [shown(of["floor"].get("ap50")), shown(of["difference"])]
        goal = f"{REACH.get(question, 0):.2f}"
        lines.append(f"| {' | '.join([question, network, str(of['studies']), mine[0], goal, *floor, mine[1], done])} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds that are missing, write the figures, print the table."""
    options = parsed(arguments(__doc__ or "", list(QUESTIONS), "boxes.json", 5.0), argv)
    print(table(fill(options, run_fold, figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
