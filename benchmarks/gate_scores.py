"""Scores of honest models on patients that none of them saw, for `gate_error_rates.py`: the uneven set.

    python benchmarks/gate_scores.py [--data DIR] [--work DIR] [--minutes 0.7] [--models 4]

Nodules of a few voxels are found or missed, so Dice differs much between patients and models. The models are small,
trained for under a minute on one thread, and differ in their seed and in the 80 labels drawn for each from two thirds
of the patients. The other third is scored. `gate_retrains.py` writes the scores of real retrains on hippocampus, an
even set, beside these.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prepare import prepare

from radloop.engine.assess import label_scores, score_cases
from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case
from radloop.studies.folder import StudiesFolder

HERE = Path(__file__).parent
NAME = "lidc_nodules"
TRAIN_SHARE, LABELS = 0.65, 80


def recipe_of() -> Recipe:
    """The recipe of the sample lesions, at the nodules' spacing."""
    shipped = load_recipe("sample_lesions")
    preprocess = shipped.preprocess.model_copy(update={"spacing": (0.8, 0.8, 2.5)})
    fit_ = shipped.fit.model_copy(update={"patch": (48, 48, 8), "batch": 4})
    update = {"name": NAME, "labels": {"nodule": 1}, "preprocess": preprocess, "fit": fit_}
    return shipped.model_copy(update=update)


def measure(work: Path, data: Path, models: int, minutes: float) -> dict[str, Any]:
    """Patient -> label -> score of each model."""
    studies = work / "studies"
    if not (studies / "labels" / "names.json").is_file():
        prepare(NAME, studies, data)
    recipe, folder = recipe_of(), StudiesFolder(studies)
    cases = [_case(folder, recipe, study) for study in sorted(folder.studies())]
    patients = sorted({case.patient for case in cases})
    train_side = set(random.Random(0).sample(patients, round(TRAIN_SHARE * len(patients))))
    train = [case for case in cases if case.patient in train_side]
    unused = [case for case in cases if case.patient not in train_side]
    found = []
    for seed in range(models):
        chosen = random.Random(seed).sample(train, min(LABELS, len(train)))
        with tempfile.TemporaryDirectory() as out:
            fit(recipe, chosen, Path(out), cache=work / "cache", minutes=minutes, seed=seed, threads=1)
            found.append(label_scores(score_cases(Predictor(recipe, Path(out) / "model.pt"), unused, surfaces=False)))
    return {
        "margin": recipe.gate.margin,
        "patients": {
            p: {label: [round(of[label][p], 5) for of in found] for label in found[0] if p in found[0][label]}
            for p in sorted({case.patient for case in unused})
        },
    }


def _case(folder: StudiesFolder, recipe: Recipe, study: str) -> Case:
    found = folder.study(study)
    mask = folder.final_dir / f"{study}.nii.gz"
    return Case(study, found.patient, "train", found.first_channels(1), mask, recipe.label_names, 0, blind=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, score and write the scores beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("gate-scores-work"), help="studies and labels go here")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "gate_scores.json")
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=0.7, help="of each training")
    options = parser.parse_args(argv)
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    scores = measure(options.work, Path(options.data), options.models, options.minutes)
    known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.is_file() else {}
    options.json.write_text(json.dumps(known | {NAME: scores}, indent=1) + "\n", encoding="utf-8")
    print(NAME, len(scores["patients"]), "patients")
    return 0


if __name__ == "__main__":
    sys.exit(main())
