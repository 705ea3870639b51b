"""Risk over time from covariates alone: always fitted beside a network, shown beside it, and the floor under it.

Logistic hazards: one logit an interval, as counted over all patients, and one weight a covariate; without covariates it
is the Kaplan-Meier curve. A ridge keeps it sound where events are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from radloop.engine.covariates import Covariates
from radloop.engine.risk_loss import hazard_loss
from radloop.evaluation.hazards import bounds_of, counted_logits
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe

_RIDGE = 1e-2

Cells = Mapping[str, str]


@dataclass(frozen=True)
class Clinical:
    """A fitted model.

    Attributes:
        covariates: how cells become numbers.
        bounds: (K + 1,) of the intervals.
        start: (K,) logits of a patient with mean covariates.
        weights: a number a covariate, then one for each being missing.
        followed: the longest time that any training patient was known.
    """

    covariates: Covariates
    bounds: np.ndarray
    start: np.ndarray
    weights: np.ndarray
    followed: float

    def logits(self, cells: Cells) -> np.ndarray:
        """(K,) of a study.

        Raises:
            BadInput: a covariate is no number.
        """
        return self.of_rows(self.covariates.row(cells)[None])[0]

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """(n, K) of (n, 2 * covariates) numbers as `Covariates.row` gives them."""
        return self.start + (np.asarray(rows, float) @ self.weights)[:, None]

    def as_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        arrays = {name: getattr(self, name).tolist() for name in ("bounds", "start", "weights")}
        return {"covariates": self.covariates.as_dict(), "followed": self.followed, **arrays}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Clinical:
        """Of `as_dict`."""
        arrays = {name: np.array(found[name], float) for name in ("bounds", "start", "weights")}
        return cls(Covariates.from_dict(found["covariates"]), followed=float(found["followed"]), **arrays)


def fit_clinical(recipe: Recipe, truth: np.ndarray, cells: Sequence[Cells], patients: Sequence[str]) -> Clinical:
    """The model of these studies.

    Args:
        recipe: the question.
        truth: (n, 2) event and time.
        cells: the studies' columns of `answers.csv`.
        patients: whose each study is.

    Raises:
        BadInput: they are of one patient, no event came, or a covariate cannot be used.
    """
    event, time = truth[:, 0] == 1, truth[:, 1].astype(float)
    name = recipe.label_names[0]
    if len(set(patients)) < 2:
        msg = f"recipe {recipe.name!r} has one patient to learn from; a risk needs several, with {name!r} and without"
        raise BadInput(msg)
    if not event.any():
        msg = (
            f"recipe {recipe.name!r} has {len(truth)} studies to learn from, and {name!r} came in none (all are "
            f"censored); a risk cannot be learned before some did: see {recipe.answer.event!r} in answers.csv"
        )
        raise BadInput(msg)
    covariates = Covariates.fitted(recipe.answer.covariates, cells)
    bounds = bounds_of(event, time, recipe.answer.intervals)
    base = counted_logits(event, time, bounds)
    if not covariates.names:
        return Clinical(covariates, bounds, base, np.zeros(0), float(time.max()))
    rows = np.stack([covariates.row(of) for of in cells]).astype(float)
    start, weights = _fitted(rows, truth, base, bounds)
    return Clinical(covariates, bounds, start, weights, float(time.max()))


def _fitted(rows: np.ndarray, truth: np.ndarray, base: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) start and (covariates,) weights of least regularised loss."""
    x, y, middle = (torch.from_numpy(np.asarray(of, float)) for of in (rows, truth, base))
    shift = torch.zeros(len(base), dtype=torch.double, requires_grad=True)
    weights = torch.zeros(rows.shape[1], dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([shift, weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        search.zero_grad()
        logits = middle + shift + (x @ weights)[:, None]
        loss = hazard_loss(logits, y, bounds).mean() + _RIDGE * ((weights**2).sum() + (shift**2).sum())
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)
    return base + shift.detach().numpy(), weights.detach().numpy()
