"""How sure a probability is: what such a one meant on validation patients, with the doubt that their number leaves.

Of each label the truth is regressed on the logit of its probability (logistic recalibration; Cox, Biometrika 45, 1958),
once for each of 200 draws of validation patients. The 95 % interval of a new probability is where those lines lie.
It is about the version and its patients: it does not know that a study is unlike any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radloop.evaluation.calibration import PATIENTS
from radloop.evaluation.class_answers import draw_patients

DRAWS = 200
_CLOSEST = 1e-6  # to 0 and 1
_RIDGE = 0.1  # towards what the probability says, so that a draw without a mistake has an end
_STEPS = 100


@dataclass(frozen=True)
class Band:
    """Where probabilities may lie.

    Attributes:
        lines: label -> intercepts and slopes, a pair a draw; none of a label that all or no validation studies have.
        patients: validation patients they stand on.
        reason: why there are no lines, else empty.
    """

    lines: Mapping[str, Sequence[tuple[float, float]]]
    patients: int = 0
    reason: str = ""

    def of(self, label: str, probability: float) -> tuple[float, float] | None:
        """Lower and upper limit of a label's probability, which lies between them; None where nothing is known."""
        lines = np.array(self.lines.get(label, ()))
        if not len(lines):
            return None
        with np.errstate(over="ignore"):
            drawn = 1 / (1 + np.exp(-(lines[:, 0] + lines[:, 1] * _logit(np.array(probability)))))
        low, high = np.quantile(drawn, (0.025, 0.975))
        return min(float(low), probability), max(float(high), probability)

    def as_dict(self) -> dict[str, Any]:
        """To be kept beside the weights."""
        lines = {label: [list(line) for line in of] for label, of in self.lines.items()}
        return {"lines": lines, "patients": self.patients, "reason": self.reason}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Band:
        """Of `as_dict`."""
        lines = {label: [(float(a), float(b)) for a, b in of] for label, of in found["lines"].items()}
        return cls(lines, int(found["patients"]), str(found["reason"]))


def fit_band(p: np.ndarray, y: np.ndarray, patients: Sequence[str], labels: Sequence[str], *, seed: int = 0) -> Band:
    """The band of a version.

    Args:
        p: (n, K) probabilities of validation studies.
        y: (n, K) truth, NaN where nobody looked.
        patients: whose each study is.
        labels: K names.
        seed: of the draws of patients.
    """
    looked = ~np.isnan(y).all(axis=1)
    p, y, whose = p[looked], y[looked], [one for one, kept in zip(patients, looked, strict=True) if kept]
    count = len(set(whose))
    if count < PATIENTS:
        return Band({}, count, f"no interval: {count} validation patients, and fewer than {PATIENTS} say too little")
    weights = np.concatenate(list(draw_patients(whose, resamples=DRAWS, seed=seed)))
    lines = {}
    for place, label in enumerate(labels):
        asked = ~np.isnan(y[:, place])
        event = y[asked, place]
        if 0 < event.sum() < len(event):
            lines[label] = _lines(_logit(p[asked, place]), event, weights[:, asked])
    return Band(lines, count)


def _logit(p: np.ndarray) -> np.ndarray:
    near = np.clip(p, _CLOSEST, 1 - _CLOSEST)
    return np.asarray(np.log(near / (1 - near)))


def _lines(x: np.ndarray, event: np.ndarray, weights: np.ndarray) -> list[tuple[float, float]]:
    """Intercept and slope of every draw: Newton's method on the weighted loss, held near 0 and 1 by the ridge."""
    a, b = np.zeros(len(weights)), np.ones(len(weights))
    for _ in range(_STEPS):
        with np.errstate(over="ignore"):
            mean = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * x)))
        slack, spread = weights * (event - mean), weights * mean * (1 - mean)
        first, second = slack.sum(axis=1) - _RIDGE * a, slack @ x - _RIDGE * (b - 1)
        h, i, j = spread.sum(axis=1) + _RIDGE, spread @ x, spread @ x**2 + _RIDGE
        size = h * j - i * i
        steps = np.clip([(j * first - i * second) / size, (h * second - i * first) / size], -1, 1)
        a, b = a + steps[0], b + steps[1]
        if abs(steps).max() < 1e-8:
            break
    return [(float(one), float(other)) for one, other in zip(a, b, strict=True)]
