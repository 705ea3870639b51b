"""How well a risk over time fits what became of a patient: of a version, and of covariates alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radloop.engine.answer_data import earlier_volumes, looked_at, region_mask, truth_of
from radloop.engine.clinical import Clinical, fit_clinical
from radloop.engine.risk_predictor import RiskPredictor
from radloop.evaluation.hazards import known_at, survival, time_lost
from radloop.evaluation.risk import Told, grid_of
from radloop.recipes.errors import BadInput, BadLabel, NotFound
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case
from radloop.studies.images import read_study


@dataclass(frozen=True)
class RiskScore:
    """A risk over time beside what became of the patient.

    Attributes:
        study, patient: whose.
        event, time: whether the event came, and when; the unit is the recipe's.
        told: the risk over time.
        clinical: the same from covariates alone, by the model that the version carries.
        compared: what the gate compares, under the event's name: 1 minus the mean squared error of the risk over the
            named times at which it is known whether the event had come; None where it is at none.
        logits: as the network gave them, for the temperature.
        alone: logits of the hazards that covariates alone tell.
        missing: covariates that had no value, and optional channels that the study lacks.
        seconds: the prediction's wall clock.
        row: ledger row of the label.
    """

    study: str
    patient: str
    event: bool
    time: float
    told: Told
    clinical: Told
    compared: dict[str, float | None]
    logits: tuple[float, ...] = ()
    alone: tuple[float, ...] = ()
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    row: int = 0


def score_risk(predictor: RiskPredictor, case: Case) -> RiskScore:
    """A version's answer about a case.

    Raises:
        BadInput: the study, label or a covariate cannot be used.
        NotFound: a file, or the region's mask, is not there.
    """
    recipe, truth = predictor.recipe, truth_of(predictor.recipe, case)
    seen = (read_study(case.channels, predictor.recipe.may_lack), region_mask(case.region, recipe))
    found = predictor.predict(*seen, case.answers, earlier_volumes(recipe, case.earlier))
    return RiskScore(
        case.study,
        case.patient,
        bool(truth[0]),
        float(truth[1]),
        told_of(recipe, predictor.hazards(found.logits, case.answers), found.bounds),
        told_of(recipe, predictor.clinical.logits(case.answers), found.bounds),
        {recipe.label_names[0]: fit_to(truth, found.risks, predictor.times)},
        tuple(map(float, found.logits)),
        tuple(map(float, predictor.clinical.logits(case.answers))),
        (*found.missing, *found.lacking),
        found.seconds,
        case.row,
    )


def risk_baseline(recipe: Recipe, train: Sequence[Case], cases: Sequence[Case]) -> list[RiskScore]:
    """What covariates alone say of `cases`, fitted on `train`; those that cannot be read are left out."""
    learned = [(case, truth) for case, truth in _readable(recipe, train)]
    if not learned:
        return []
    truth = np.stack([truth for _, truth in learned])
    try:
        model = fit_clinical(recipe, truth, [c.answers for c, _ in learned], [c.patient for c, _ in learned])
    except BadInput:  # the training says so itself
        return []
    return [score for case, told in _readable(recipe, cases) for score in _scored(recipe, model, case, told)]


def told_of(recipe: Recipe, logits: np.ndarray, bounds: np.ndarray) -> Told:
    """What (K,) logits of hazards say at the recipe's times."""
    risks, curve = (
        tuple(map(float, 1 - survival(logits[None], bounds, times)[0]))
        for times in (recipe.answer.times, grid_of(recipe))
    )
    return Told(risks, curve, float(time_lost(logits[None], bounds, recipe.answer.times[-1])[0]))


def fit_to(truth: np.ndarray, risks: np.ndarray, times: Sequence[float]) -> float | None:
    """1 minus the mean squared error of risks at the times at which it is known whether the event had come, 0..1."""
    known = known_at(truth[:1] == 1, truth[1:], times)[0]
    errors = (risks - known)[~np.isnan(known)] ** 2
    return 1 - float(errors.mean()) if errors.size else None


def _scored(recipe: Recipe, model: Clinical, case: Case, truth: np.ndarray) -> list[RiskScore]:
    try:
        looked_at(recipe, case)  # what no network can be asked about has no floor either
        told = told_of(recipe, model.logits(case.answers), model.bounds)
    except (BadInput, NotFound):
        return []
    near = {recipe.label_names[0]: fit_to(truth, np.array(told.risks), recipe.answer.times)}
    return [RiskScore(case.study, case.patient, bool(truth[0]), float(truth[1]), told, told, near, row=case.row)]


def _readable(recipe: Recipe, cases: Sequence[Case]) -> list[tuple[Case, np.ndarray]]:
    found = []
    for case in cases:
        try:
            found.append((case, truth_of(recipe, case)))
        except (BadLabel, NotFound):
            continue
    return found
