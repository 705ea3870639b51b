"""Temperature scaling: one number that makes probabilities as sure as they may be, from validation patients.

Logits are divided by it (Guo et al., 2017), so that classes keep their order and answers theirs. One temperature is
taken for all findings of `multilabel` too: the network and the loss that make logits too large are the same for all,
and a rare finding alone has too few patients to fit one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from radloop.evaluation.class_answers import Answers, check_answers, probabilities
from radloop.evaluation.class_scores import log_losses
from radloop.recipes.recipe import Kind

PATIENTS = 10
"""Under so many validation patients probabilities are left as they are."""
LOWEST, HIGHEST = 0.05, 20.0
_FLAT = 1e-9  # log loss: less is rounding


@dataclass(frozen=True)
class Temperature:
    """What the logits of a version are divided by.

    Attributes:
        value: the temperature; over 1 makes probabilities less sure, 1 leaves them.
        patients: validation patients it was fitted on.
        before: their log loss without it; None without an answer.
        after: their log loss with it, never larger.
        reason: why it was left at 1; empty where it was fitted.
    """

    value: float
    patients: int
    before: float | None
    after: float | None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For a version's manifest."""
        return asdict(self)


def fit_temperature(logits: np.ndarray, y: np.ndarray, patients: Sequence[str], *, kind: Kind) -> Temperature:
    """The temperature with the smallest log loss over these studies, or 1 where they are too few to tell.

    Args:
        logits: (n, outputs) of the network; of `ordinal` one a grade less one.
        y: (n, K) truth, NaN where nobody looked.
        patients: whose each study is.
        kind: the recipe's kind.

    Raises:
        BadInput: the three do not fit each other, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, dtype=float)

    def loss(log_temperature: float) -> float:
        scaled = probabilities(logits, kind, float(np.exp(log_temperature)))
        return _loss(check_answers(scaled, y, patients, kind=kind))

    answers = check_answers(probabilities(logits, kind), y, patients, kind=kind)
    count = len(set(answers.patients))
    if not len(answers.p):
        return Temperature(1.0, 0, None, None, "left at 1: no validation study was looked at")
    before = _loss(answers)
    reason = _too_few(answers, count)
    if reason:
        return Temperature(1.0, count, before, before, reason)
    # The loss is convex in 1 / temperature, so it has one valley.
    limits = (float(np.log(LOWEST)), float(np.log(HIGHEST)))
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6})
    if found.fun > before - _FLAT:
        reason = "left at 1: no other temperature has a smaller log loss"
    elif loss(limits[0]) <= found.fun + _FLAT:  # the smaller the better: there is no valley
        reason = "left at 1: without a mistake in the validation studies nothing says how sure is too sure"
    if reason:
        return Temperature(1.0, count, before, before, reason)
    return Temperature(float(np.exp(found.x)), count, before, float(found.fun))


def _loss(answers: Answers) -> float:
    """The mean over all that was looked at; unlike the figure `log_loss`, rare findings weigh less."""
    return float(np.nanmean(log_losses(answers)))


def _too_few(answers: Answers, patients: int) -> str:
    if patients < PATIENTS:
        return f"left at 1: {patients} validation patients, and fewer than {PATIENTS} say too little"
    if not ((answers.y == 1).any(axis=0) & (answers.y == 0).any(axis=0)).any():
        return "left at 1: the validation studies all have the same answer"
    return ""
