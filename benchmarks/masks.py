"""Masks out of fold over five patient-level folds, beside trivial methods on the same studies.

    python benchmarks/masks.py [--questions lung_nodule,brain_tumour] [--networks unet,resunet] [--core-minutes M]

A fold's version learns from the other four folds' patients and is measured on the fold's. Trivial methods, fitted on
what the version learns from: the best band of intensity (`threshold`), and the largest bright blob of the smoothed
image (`blob`). Written after each fold, and folds that the result file has are not trained again. Prints a table of
what is there and of what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
import torch
from out_of_fold import FOLDS, arguments, fill, parsed, shown, train_fold
from scipy import ndimage

from radloop.engine.assess import CaseScore, assess
from radloop.engine.baseline import baseline_cases
from radloop.engine.predictor import Predictor
from radloop.evaluation.froc import Candidates, detection_figures
from radloop.evaluation.intervals import Interval, bootstrap_mean, paired_differences
from radloop.evaluation.lesions import components, overlaps
from radloop.evaluation.metrics import dice
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case, read_label
from radloop.studies.home import Home
from radloop.studies.images import read_study

QUESTIONS = {"lung_nodule": "lidc_nodules", "brain_tumour": "lgg_flair3d"}
REACH = {"lung_nodule": {"dice": 0.84}, "brain_tumour": {"dice": 0.78, "sensitivity_at_1_fp": 0.90}}
FLOORS = ("threshold", "blob")
_SMOOTHED = (0.0, 1.0, 2.0)  # voxels of the file
_SHARES = (90.0, 95.0, 97.0, 98.0, 99.0, 99.5)  # percentiles of the image
_DEPTHS = (0.0, 4.0, 8.0, 12.0)  # voxels inside what is not dark, so that a skull is not the brightest of a head
_DARK = 0.12  # of the way from the darkest to the brightest
_MOST_FITTED = 12  # a blob has three numbers; more cases do not make it better


def run_fold(question: str, recipe: Recipe, number: int, options: Any) -> dict[str, Any]:
    """One fold: how it was trained, and of every study the Dice and the candidates of the version and the floors."""
    trained, home = train_fold(recipe, QUESTIONS[question], number, options)
    version, held_out = trained.outcome.version, trained.held_out()
    torch.set_num_threads(options.threads)
    scores = assess(Predictor(version.load_recipe(), version.weights), held_out, surfaces=False, lesions=True).scores
    return trained.told | {
        "studies": {
            "radloop": {score.study: _of_score(score, recipe) for score in scores},
            "threshold": _thresholds(recipe, trained.learned(), held_out, home),
            "blob": blobs(recipe, trained.learned(), held_out),
        },
    }


def _of_score(score: CaseScore, recipe: Recipe) -> dict[str, Any]:
    (name,) = recipe.evaluate.lesions
    lesion = score.lesions[name]
    told = {"patient": score.patient, "dice": score.dice[name], "counts": vars(lesion.counts)}
    return told | _kept(lesion.candidates)


def _kept(found: Candidates) -> dict[str, Any]:
    return {
        "scores": np.round(found.scores, 4).tolist(),
        "overlaps": np.round(found.overlaps, 4).tolist(),
        "lesions": found.overlaps.shape[1],
    }


def _thresholds(recipe: Recipe, learned: Sequence[Case], held_out: Sequence[Case], home: Home) -> dict[str, Any]:
    (name,) = recipe.evaluate.lesions
    found = baseline_cases(recipe, learned, held_out, home.cache)
    return {score.study: {"patient": score.patient, "dice": score.dice[name]} for score in found}


def blobs(recipe: Recipe, learned: Sequence[Case], held_out: Sequence[Case]) -> dict[str, Any]:
    """Study -> Dice and candidate of the largest bright component of the smoothed image.

    Bright is what lies above a percentile, at least a number of voxels inside the body; how much is smoothed, how deep
    and which percentile are fitted on what the version learns from.
    """
    (name,) = recipe.evaluate.lesions
    number = recipe.labels[name]
    some = [learned[i] for i in np.linspace(0, len(learned) - 1, min(len(learned), _MOST_FITTED)).round().astype(int)]
    pairs = [(read_study(case.channels).array[0], read_label(case, recipe.labels).array[0]) for case in some]
    gain = {
        how: fmean(float(dice(_blob(image, *how), true == number, [1])[1] or 0) for image, true in pairs)
        for how in product(_SMOOTHED, _DEPTHS, _SHARES)
    }
    best = max(gain, key=lambda how: gain[how])
    told = {}
    for case in held_out:
        true = read_label(case, recipe.labels).array[0] == number
        mask = _blob(read_study(case.channels).array[0], *best)
        found = overlaps(components(mask), components(true))
        kept = _kept(Candidates(case.study, case.patient, np.ones(len(found)), found))
        told[case.study] = {"patient": case.patient, "dice": dice(mask, true, [1])[1], **kept}
    return told


def _blob(image: np.ndarray, smoothed: float, depth: float, share: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(image.astype(np.float32), smoothed)
    inside = _depth(smooth) >= depth
    limit = np.percentile(smooth[inside], share) if inside.any() else np.inf
    found = components((smooth > limit) & inside)
    sizes = np.bincount(found.ravel())
    return (found == sizes[1:].argmax() + 1 if len(sizes) > 1 else found > 0).astype(np.uint8)


def _depth(image: np.ndarray) -> np.ndarray:
    """Voxels in the plane from the dark around the body, holes in it filled; 0 outside."""
    low, high = np.percentile(image, (0.5, 99.5))
    body = image > low + _DARK * (high - low)
    slices = [ndimage.distance_transform_edt(ndimage.binary_fill_holes(of)) for of in np.moveaxis(body, 2, 0)]
    return np.stack(slices, 2)


def figures(folds: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds say together: each method's figures and the version's lead over each floor, at patient level."""
    methods = {
        name: {study: of for fold in folds.values() for study, of in fold["studies"][name].items()}
        for name in ("radloop", *FLOORS)
    }
    by_patient = {name: patient_dice(studies) for name, studies in methods.items()}
    found: dict[str, Any] = {
        "studies": len(methods["radloop"]),
        "patients": len(by_patient["radloop"]),
        "parameters": next(iter(folds.values()))["parameters"],
        "core_minutes": max(fold["core_minutes"] for fold in folds.values()),
    }
    for name, studies in methods.items():
        told: dict[str, Interval] = {"dice": bootstrap_mean(by_patient[name])}
        if name != "threshold":  # a band is no set of candidates
            told |= detection_figures(_candidates(studies))
        if name != "radloop":
            told["difference"] = bootstrap_mean(paired_differences(by_patient["radloop"], by_patient[name]))
        found[name] = {metric: asdict(interval) for metric, interval in told.items()}
    return found


def patient_dice(studies: Mapping[str, Any]) -> dict[str, float]:
    """Patient -> mean Dice of their studies."""
    values: dict[str, list[float]] = {}
    for of in studies.values():
        values.setdefault(of["patient"], []).append(of["dice"])
    return {patient: fmean(of) for patient, of in values.items()}


def _candidates(studies: Mapping[str, Any]) -> list[Candidates]:
    return [
        Candidates(
            study,
            of["patient"],
            np.array(of["scores"], dtype=float),
            np.array(of["overlaps"], dtype=float).reshape(len(of["scores"]), of["lesions"]),
        )
        for study, of in studies.items()
    ]


def table(results: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """The figures in Markdown, and the folds that are missing."""
    names = ["question", "network", "parameters", "core minutes", "Dice", "must reach", *(f"{f}; lead" for f in FLOORS)]
    lines = [f"| {' | '.join([*names, 'found at 1 FP', 'must reach', 'folds'])} |", f"{'|---' * (len(names) + 3)}|"]
    for key in dict.fromkeys([*wanted, *results]):
        question, network = key.split("/")
        run = results.get(key, {"folds": {}})
        goal = REACH.get(question, {})
        missing = [str(n) for n in range(1, FOLDS + 1) if str(n) not in run["folds"]]
        told = run.get("figures")
        cells = [question, network]
        if told:
            mine = told["radloop"]
            leads = [f"{told[f]['dice']['value']:.3f}; {shown(told[f]['difference'])}" for f in FLOORS]
            cells += [
                f"{told['parameters']:,}",
                f"{told['core_minutes']:.1f}",
                shown(mine["dice"]),
                _goal(goal, "dice"),
            ]
            cells += [*leads, shown(mine.get("sensitivity_at_1_fp")), _goal(goal, "sensitivity_at_1_fp")]
        else:
            cells += ["-"] * 8
        cells.append("all" if not missing else f"missing: {', '.join(missing)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _goal(goal: Mapping[str, float], name: str) -> str:
    return f"{goal[name]:.2f}" if name in goal else "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds that are missing, write the figures, print the table."""
    options = parsed(arguments(__doc__ or "", list(QUESTIONS), "masks.json", 8.0), argv)
    results = fill(options, run_fold, lambda recipe, folds: figures(folds))
    names = options.networks.split(",") if options.networks else [""]
    wanted = [
        f"{question}/{name or load_recipe(question).network.name}"
        for question in options.questions.split(",")
        for name in names
    ]
    print(table(results, wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
