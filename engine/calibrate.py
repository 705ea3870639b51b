"""A version's temperature, fitted on patients that it never learned from and saved beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.assess import AnswerScore, assess
from radloop.engine.box_assess import box_temperature
from radloop.engine.box_predictor import BoxPredictor
from radloop.engine.risk_predictor import RiskPredictor
from radloop.engine.weights import add_kept
from radloop.evaluation.calibration import fit_temperature
from radloop.evaluation.class_answers import probabilities
from radloop.evaluation.hazards import fit_scale
from radloop.evaluation.probability_interval import fit_band
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.studies.cases import Case


def calibrate(
    recipe: Recipe,
    weights: Path,
    cases: Sequence[Case],
    device: str | torch.device | None = None,
    stop: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """What the temperature is and what it stands on, for the manifest; None for masks, which have none.

    Args:
        recipe: the question.
        weights: a staged `model.pt`; the temperature, and what an interval of a probability stands on, are added to it.
        cases: labelled studies of patients that the weights did not learn from.
        device: `cpu` or `cuda`.
        stop: called before each case; may raise.

    Raises:
        NoSpace: the weights cannot be written.
    """
    if recipe.kind == "detection":
        boxes = assess(BoxPredictor(recipe, weights, device), cases, lambda _: stop()).scores
        scale = box_temperature(boxes, recipe)
        add_kept(weights, {"temperature": scale.value})
        return scale.as_dict()
    if recipe.kind == "risk":
        return _calibrate_risk(RiskPredictor(recipe, weights, device), weights, cases, stop)
    if recipe.kind not in CLASS_KINDS:
        return None
    found: Sequence[AnswerScore] = assess(AnswerPredictor(recipe, weights, device), cases, lambda _: stop()).scores
    logits = np.array([score.logits for score in found]).reshape(-1, recipe.outputs)
    truth = np.array([[_number(score.truth[name]) for name in recipe.label_names] for score in found])
    patients = [score.patient for score in found]
    truth = truth.reshape(-1, len(recipe.labels))
    temperature = fit_temperature(logits, truth, patients, kind=recipe.kind)
    p = probabilities(logits, recipe.kind, temperature.value)
    band = fit_band(p, truth, patients, recipe.label_names)
    add_kept(weights, {"temperature": temperature.value, "band": band.as_dict()})
    return temperature.as_dict()


def _calibrate_risk(
    predictor: RiskPredictor, weights: Path, cases: Sequence[Case], stop: Callable[[], None]
) -> dict[str, Any]:
    found = assess(predictor, cases, lambda _: stop()).scores
    clinical = predictor.clinical
    logits, alone = (
        np.array([getattr(score, of) for score in found]).reshape(-1, len(clinical.start)) for of in ("logits", "alone")
    )
    event, time = (np.array([getattr(score, of) for score in found]) for of in ("event", "time"))
    patients = [score.patient for score in found]
    temperature = fit_scale(logits, alone, event, time, clinical.bounds, patients)
    add_kept(weights, {"temperature": temperature.value})
    return temperature.as_dict()


def _number(truth: float | None) -> float:
    return np.nan if truth is None else truth
