"""How good a version is: every metric of every case, and one score a patient for the gate.

What the gate compares is 0..1, higher is better: Dice for masks; `radloop.evaluation.boxes.box_f1` for boxes; for
answers in words 1 minus the Brier score (Brier 1950), halved where classes exclude each other, or 1 minus the ranked
probability score of grades (Epstein 1969); for risks 1 minus the squared error at the named times.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np

from radloop.engine.answer_data import earlier_volumes, region_mask, truth_of
from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.box_assess import BoxScore, score_boxes
from radloop.engine.box_predictor import BoxPredictor
from radloop.engine.predictor import Prediction, Predictor
from radloop.engine.risk_predictor import RiskPredictor
from radloop.engine.risk_score import RiskScore, score_risk
from radloop.evaluation import metrics
from radloop.evaluation.lesions import LesionScore, fewest_voxels, lesion_score
from radloop.recipes.errors import BadInput, NotFound
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.cases import Case, read_label
from radloop.studies.images import read_study

logger = logging.getLogger(__name__)

ByLabel = dict[str, "float | None"]


@dataclass(frozen=True)
class CaseScore:
    """How close a version's answer is to a reader's label, by label name; None where the label does not speak.

    Attributes:
        study, patient: whose.
        dice: overlap, 0..1.
        surface_dice: share of the surfaces within 1 mm, 0..1; empty unless asked for.
        hd95: 95th percentile of surface distance, mm; None also where one is empty; empty unless asked for.
        seconds: the prediction's wall clock.
        row: ledger row of the label; a study may be scored against two labels of it.
        lesions: of the labels that the recipe says are lesions; empty unless asked for.
        missing: optional channels that the study lacks.
    """

    study: str
    patient: str
    dice: ByLabel
    surface_dice: ByLabel = field(default_factory=dict)
    hd95: ByLabel = field(default_factory=dict)
    seconds: float = 0.0
    row: int = 0
    lesions: dict[str, LesionScore] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def compared(self) -> ByLabel:
        """What the gate compares."""
        return self.dice


@dataclass(frozen=True)
class AnswerScore:
    """How close a version's probabilities are to a reader's answer about a study.

    Attributes:
        study, patient: whose.
        probabilities: label -> 0..1.
        truth: label -> 1 or 0; None where nobody looked.
        logits: as the network gave them, for the temperature.
        missing: covariates that had no value, and optional channels that the study lacks.
        seconds: the prediction's wall clock.
        row: ledger row of the label.
        compared: what the gate compares, by label: of classes and grades under the true one alone.
    """

    study: str
    patient: str
    probabilities: dict[str, float]
    truth: ByLabel
    compared: ByLabel
    logits: tuple[float, ...] = ()
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    row: int = 0


Score = CaseScore | AnswerScore | BoxScore | RiskScore


@dataclass(frozen=True)
class Assessment:
    """The scores of the cases that could be read, and (study, reason) of the others."""

    scores: tuple[Any, ...]
    skipped: tuple[tuple[str, str], ...]


def assess(
    predictor: Predictor | AnswerPredictor | BoxPredictor,
    cases: Sequence[Case],
    progress: Callable[[float], None] | None = None,
    *,
    surfaces: bool = True,
    lesions: bool = False,
    during: Callable[[float], None] | None = None,
) -> Assessment:
    """Predict every case and compare it with its label, a mask on the study's own voxels; what cannot be read is named.

    Args:
        predictor: the version to assess.
        cases: labelled studies.
        progress: called with the share of cases done, 0..1; may raise to stop.
        surfaces: also the surface metrics, which take longer than the overlap.
        lesions: also the lesions of the labels that are some.
        during: called after each window of a network that slides over a study, with the share of the study; may wait.
    """
    scores: list[Any] = []
    skipped = []
    for number, case in enumerate(cases, start=1):
        try:
            if isinstance(predictor, BoxPredictor):
                scores.append(score_boxes(predictor, case))
            elif isinstance(predictor, RiskPredictor):
                scores.append(score_risk(predictor, case))
            elif isinstance(predictor, AnswerPredictor):
                scores.append(_score_answer(predictor, case))
            else:
                scores.append(_score(predictor, case, surfaces, lesions, during))
        except (BadInput, NotFound) as error:
            logger.warning("study %s cannot be assessed: %s", case.study, error)
            skipped.append((case.study, str(error)))
        if progress:
            progress(number / len(cases))
    return Assessment(tuple(scores), tuple(skipped))


def score_cases(
    predictor: Predictor | AnswerPredictor | BoxPredictor,
    cases: Sequence[Case],
    progress: Callable[[float], None] | None = None,
    *,
    surfaces: bool = True,
) -> list[Any]:
    """The scores of `assess` alone."""
    return list(assess(predictor, cases, progress, surfaces=surfaces).scores)


def patient_scores(scores: Sequence[Any]) -> dict[str, float]:
    """Patient -> mean of what the gate compares over the labels of a study, then over the patient's studies."""
    studies: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        values = [value for value in score.compared.values() if value is not None]
        if values:
            studies[score.patient].append(fmean(values))
    return {patient: fmean(values) for patient, values in sorted(studies.items())}


def label_scores(scores: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Label -> patient -> mean of what the gate compares over the patient's studies that speak for the label."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        for label, value in score.compared.items():
            if value is not None:
                found[label][score.patient].append(value)
    return {label: {p: fmean(values) for p, values in sorted(of.items())} for label, of in found.items()}


def _study(predictor: Predictor | AnswerPredictor, case: Case) -> Volume:
    return read_study(case.channels, predictor.recipe.may_lack)


def _score(
    predictor: Predictor, case: Case, surfaces: bool, lesions: bool, during: Callable[[float], None] | None = None
) -> CaseScore:
    volume, true = _study(predictor, case), read_label(case, predictor.recipe.labels).array[0]
    labels = predictor.recipe.labels
    ids, known = list(labels.values()), {labels[name] for name in case.names if name in labels}
    asked = [name for name in predictor.recipe.evaluate.lesions if lesions and labels[name] in known]
    answer = predictor.predict(volume, during, keep=[labels[name] for name in asked])

    def named(found: metrics.Scores) -> ByLabel:
        return {name: found[number] for name, number in labels.items()}

    score = CaseScore(
        case.study,
        case.patient,
        named(metrics.dice(answer.mask, true, ids, known)),
        seconds=answer.seconds,
        row=case.row,
        missing=answer.lacking,
        lesions={name: _lesions(predictor.recipe, case, answer, true, name, volume.spacing) for name in asked},
    )
    if not surfaces:
        return score
    near = metrics.surface_dice(answer.mask, true, ids, volume.spacing, known=known)
    far = metrics.hd95(answer.mask, true, ids, volume.spacing, known=known)
    return replace(score, surface_dice=named(near), hd95=named(far))


def _lesions(
    recipe: Recipe, case: Case, answer: Prediction, true: np.ndarray, name: str, spacing: Sequence[float]
) -> LesionScore:
    number, smallest = recipe.labels[name], fewest_voxels(recipe.evaluate.smallest, spacing)
    found, theirs = answer.mask == number, true == number
    return lesion_score(case.study, case.patient, found, theirs, answer.probabilities[number], smallest)


def _score_answer(predictor: AnswerPredictor, case: Case) -> AnswerScore:
    recipe, truth = predictor.recipe, truth_of(predictor.recipe, case)
    seen = (_study(predictor, case), region_mask(case.region, recipe))
    answer = predictor.predict(*seen, case.answers, earlier_volumes(recipe, case.earlier))
    return AnswerScore(
        case.study,
        case.patient,
        dict(zip(recipe.label_names, map(float, answer.probabilities), strict=True)),
        {name: None if np.isnan(t) else float(t) for name, t in zip(recipe.label_names, truth, strict=True)},
        closeness(recipe.kind, recipe.label_names, answer.probabilities, truth),
        tuple(map(float, answer.logits)),
        (*answer.missing, *answer.lacking),
        answer.seconds,
        case.row,
    )


def closeness(kind: str, names: Sequence[str], probabilities: np.ndarray, truth: np.ndarray) -> ByLabel:
    """Label -> how close (K,) probabilities are to a (K,) answer of 1, 0 and NaN, 0..1; None where nobody looked.

    Classes and grades have one number, under the true one.
    """
    if kind == "multilabel":
        each = 1 - (probabilities - truth) ** 2
        return {name: None if np.isnan(value) else float(value) for name, value in zip(names, each, strict=True)}
    if np.isnan(truth).any():
        return dict.fromkeys(names)
    if kind == "ordinal":
        far = (np.cumsum(probabilities) - np.cumsum(truth))[:-1]
        value = 1 - float((far**2).mean())
    else:
        value = 1 - float(((probabilities - truth) ** 2).sum()) / 2
    return {name: value if t == 1 else None for name, t in zip(names, truth, strict=True)}
