"""Answers about whole studies, out of fold over five patient-level folds, beside a trivial method on the same studies.

    python benchmarks/questions.py [--questions lung_nodule_malignancy,...] [--networks cnn,vit] [--core-minutes M]

A fold's version learns from the other four folds' patients and is asked about the fold's; one in seven of those it
could learn from scales its probabilities instead. The trivial method learns from all of the other four. Folds that the
result file has are not trained again. Prints a table of what is there and names what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from fold_answers import FoldAnswers
from out_of_fold import FOLDS, arguments, fill, parsed, shown, train_fold

from radloop.engine.answer_baseline import answer_baseline
from radloop.engine.answer_data import truth_of
from radloop.evaluation.class_answers import probabilities
from radloop.evaluation.classification import measure
from radloop.evaluation.reliability import perfect_ece, recalibration
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_study


@dataclass(frozen=True)
class Question:
    """What is asked of which set.

    Attributes:
        recipe: a shipped recipe.
        data: the set.
        metric: what it is compared with the trivial method in.
        floor: columns of `answers.csv` that the trivial method, a logistic regression, goes by; `pixels` are the
            picture's own, thinned and in principal components; none are the recipe's own floor.
        part: a further figure on the studies whose first floor column lies between these.
    """

    recipe: str
    data: str
    metric: str
    floor: tuple[str, ...] = ()
    part: tuple[float, float] | None = None


PIXELS = ("pixels",)
DIAMETER = ("diameter_mm",)
QUESTIONS = {
    question.recipe: question
    for question in (
        Question("lung_nodule_malignancy", "lidc_nodules", "roc_auc", DIAMETER, (6.0, 12.0)),
        Question("lung_nodule_grade", "lidc_nodules", "kappa", DIAMETER),
        Question("lung_nodule_attributes", "lidc_nodules", "roc_auc", DIAMETER),
        Question("brain_tumour_grade", "lgg_flair3d", "roc_auc"),
        Question("chest_xray", "nih_cxr", "roc_auc", PIXELS),
    )
}


def run_fold(name: str, recipe: Recipe, number: int, options: Any) -> dict[str, Any]:
    """How a fold was trained, and its answers: study -> patient, truth and probabilities."""
    question = QUESTIONS[name]
    trained, _ = train_fold(recipe, question.data, number, options)
    trivial = floor(question, recipe, trained.learned(), trained.held_out())
    answers = FoldAnswers.of(trained.outcome.scores, trivial, recipe.label_names)
    return trained.told | {"answers": answers.columns()}


def floor(question: Question, recipe: Recipe, learned: Sequence[Case], asked: Sequence[Case]) -> dict[str, Any]:
    """The trivial method's probabilities: study -> label -> probability."""
    if question.floor == PIXELS:
        return _pixels(recipe, learned, asked)
    if question.floor:
        answer = recipe.answer.model_copy(update={"region": "", "covariates": question.floor})
        recipe = recipe.model_copy(update={"answer": answer})
    return {score.study: score.probabilities for score in answer_baseline(recipe, learned, asked)}


def _pixels(recipe: Recipe, learned: Sequence[Case], asked: Sequence[Case]) -> dict[str, Any]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def row(case: Case) -> np.ndarray:
        picture = Preprocess(recipe).image(read_study(case.channels))[0][None, ..., 0]
        return torch.nn.functional.interpolate(picture, (48, 48), mode="area").flatten().numpy()

    model = make_pipeline(StandardScaler(), PCA(40, random_state=0), LogisticRegression(C=0.1, max_iter=2000))
    truth = [int(truth_of(recipe, case).argmax()) for case in learned]
    model.fit(np.stack([row(case) for case in learned]), truth)
    found = model.predict_proba(np.stack([row(case) for case in asked]))
    return {
        case.study: dict(zip(recipe.label_names, map(float, p), strict=True))
        for case, p in zip(asked, found, strict=True)
    }


def figures(question: Question, recipe: Recipe, folds: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds say together, and against the trivial method, on all studies and on a part of them."""
    answers = FoldAnswers.read(folds.values())
    found = {"all": _figures(question, recipe, answers)}
    if question.part:
        (low, high), column = question.part, question.floor[0]
        inside = {study for study in answers.studies if low <= float(cells[study][column]) <= high}
        found[f"{column} {low:g} to {high:g}"] = _figures(question, recipe, answers.only(inside))
    return found


def _figures(question: Question, recipe: Recipe, answers: FoldAnswers) -> dict[str, Any]:
    names, kind, patients = recipe.label_names, recipe.kind, list(answers.patients)
    p, y, raw = answers.p, answers.truth, probabilities(answers.logits, recipe.kind)
    against = answers.against(answers.floor, question.metric, recipe)
    line = recalibration(p, y, patients, kind=kind)
    told = {name: of for name, of in measure(p, y, patients, kind=kind, labels=names).items() if of}
    scaled = {name: answers.against(raw, name, recipe) for name in ("brier", "log_loss")}
    wanted = (question.metric, "roc_auc", "accuracy", "balanced_accuracy", "brier", "log_loss", "ece")
    return {
        "studies": len(answers.studies),
        "patients": len(set(patients)),
        "metric": question.metric,
        **{name: asdict(of) for name, of in told.items() if name.split(".")[0] in wanted},
        "ece_perfect": perfect_ece(p, y, kind=kind),
        "slope": asdict(line.slope) if line.slope else None,
        "scaling": {name: asdict(of.difference) for name, of in scaled.items() if of},
        "trivial": asdict(against.second) if against else None,
        "difference": asdict(against.difference) if against else None,
    }


def table(results: Mapping[str, Any]) -> str:
    """The figures in Markdown, and the folds that are missing."""
    lines = [
        "| question | network | parameters | core minutes | studies | figure | trivial | difference | slope | folds |",
        "|---" * 10 + "|",
    ]
    for key, run in results.items():
        question, network = key.split("/")
        folds = run["folds"].values()
        spent = np.mean([fold["core_minutes"] for fold in folds])
        size = f"{max(fold['parameters'] for fold in folds) / 1e6:.2f} M | {spent:.1f}"
        for part, of in run.get("figures", {}).items():
            which = question if part == "all" else f"{question}, {part}"
            figure = f"{of['metric']} {shown(of.get(of['metric']))}"
            cells = " | ".join(shown(of.get(name)) for name in ("trivial", "difference", "slope"))
            done = f"{len(run['folds'])}/{FOLDS}"
            lines.append(f"| {which} | {network} | {size} | {of['studies']} | {figure} | {cells} | {done} |")
    missing = [name for name in QUESTIONS if not any(key.startswith(f"{name}/") for key in results)]
    return "\n".join([*lines, *(f"missing: {name}" for name in missing)])


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds that are missing, write the figures, print the table."""
    options = parsed(arguments(__doc__ or "", list(QUESTIONS), "questions.json", 5.0), argv)

    def of(recipe: Recipe, folds: Mapping[str, Any]) -> dict[str, Any]:
        question = QUESTIONS[recipe.name]
        cells = {s.id: s.answers for s in StudiesFolder(options.work / question.data).studies().values()}
        return figures(question, recipe, folds, cells)

    results = fill(options, run_fold, of)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
