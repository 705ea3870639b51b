"""The floor under every answer in words: how often each was given, or what covariates and the region's size tell alone.

Fitted on training cases; never sees the case that it is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from radloop.engine.answer_data import looked_at, truth_of
from radloop.engine.assess import AnswerScore, closeness
from radloop.engine.covariates import Covariates
from radloop.engine.losses import answer_loss
from radloop.evaluation.class_answers import probabilities
from radloop.recipes.errors import BadInput, NotFound
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case

_RIDGE = 1e-2  # so that a few separable studies do not run to certainty


def answer_baseline(recipe: Recipe, train: Sequence[Case], cases: Sequence[Case]) -> list[AnswerScore]:
    """The trivial method's answers about `cases`; those that cannot be read are left out.

    Logistic regression on covariates and the logarithm of the region's volume; without either it is the share of each
    label among the training cases.
    """
    learned = [(case, truth_of(recipe, case)) for case in train]
    covariates = _fitted(recipe, train)
    rows = [(_features(recipe, covariates, case), truth) for case, truth in learned]
    usable = [(row, truth) for row, truth in rows if row is not None]
    if not usable:
        return []
    x, y = (torch.from_numpy(np.stack(of)).double() for of in zip(*usable, strict=True))
    centre, spread = x.mean(0), x.std(0, unbiased=False).clamp(min=1e-9)
    weights = _logistic(recipe, (x - centre) / spread, y)
    found = []
    for case in cases:
        row = _features(recipe, covariates, case)
        if row is None:
            continue
        logits = _logits((torch.from_numpy(row).double()[None] - centre) / spread, weights)
        p, truth = probabilities(logits.numpy(), recipe.kind)[0], truth_of(recipe, case)
        told = {n: None if np.isnan(t) else float(t) for n, t in zip(recipe.label_names, truth, strict=True)}
        near = closeness(recipe.kind, recipe.label_names, p, truth)
        shown = dict(zip(recipe.label_names, map(float, p), strict=True))
        found.append(AnswerScore(case.study, case.patient, shown, told, near, row=case.row))
    return found


def floor_name(recipe: Recipe) -> str:
    """What the trivial method goes by, in words."""
    known = [*recipe.answer.covariates, *([f"size of {recipe.answer.region}"] if recipe.answer.region else [])]
    return f"logistic regression on {', '.join(known)}" if known else "how often each answer was given"


def _fitted(recipe: Recipe, train: Sequence[Case]) -> Covariates:
    try:
        return Covariates.fitted(recipe.answer.covariates, [case.answers for case in train])
    except BadInput:  # the training says so itself
        return Covariates()


def _features(recipe: Recipe, covariates: Covariates, case: Case) -> np.ndarray | None:
    try:
        known = covariates.row(case.answers) if covariates.names else np.empty(0)
        region = looked_at(recipe, case)  # what no network can be asked about has no floor either
    except (BadInput, NotFound):
        return None
    if region is None:
        return known
    volume = float((region.array[0] > 0).sum()) * abs(float(np.linalg.det(region.affine[:3, :3])))
    return np.append(known, np.log(max(volume, 1e-3)))


def _logistic(recipe: Recipe, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(1 + features, outputs) weights of least regularised loss."""
    weights = torch.zeros(x.shape[1] + 1, recipe.outputs, dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = answer_loss(recipe.kind, _logits(x, weights), y, None) + _RIDGE * (weights[1:] ** 2).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)
    return weights.detach()


def _logits(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return weights[0] + x @ weights[1:]
