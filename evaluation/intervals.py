"""How sure a mean over patients is.

The patient is the unit everywhere: studies of one patient resemble each other, so counting them as independent would
make every interval too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radloop.recipes.errors import BadInput


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; the limits are None with fewer than two patients."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (one patient, no interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap_mean(
    values_by_patient: Mapping[str, float | Sequence[float]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean over patients with its percentile bootstrap interval (Efron, 1979); patients are drawn, not studies.

    With few patients (under about 10) a percentile interval is somewhat too narrow; read it as a lower estimate of
    the doubt.

    Args:
        values_by_patient: one number a patient, or the numbers of the patient's studies, which are averaged first.
        resamples: bootstrap draws.
        confidence: two-sided coverage aimed at.
        seed: the same seed gives the same interval.

    Raises:
        BadInput: no patient, or a value that is not a finite number.
    """
    if not values_by_patient:
        msg = "no patient has a value; an interval needs at least one"
        raise BadInput(msg)
    means = np.array([_patient_mean(p, values_by_patient[p]) for p in sorted(values_by_patient)])
    value = float(means.mean())
    if len(means) < 2:
        return Interval(value, None, None)
    draws = np.random.default_rng(seed).integers(0, len(means), size=(resamples, len(means)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[draws].mean(axis=1), (tail, 1 - tail))
    # Equal scores in every patient make all three numbers one, up to rounding.
    return Interval(value, min(float(low), value), max(float(high), value))


def paired_differences(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """first - second for every patient who has both, in the order of the ids."""
    return {p: float(first[p]) - float(second[p]) for p in sorted(first.keys() & second.keys())}


def paired_lower_bound(differences: Sequence[float], confidence: float = 0.95) -> float:
    """The one-sided lower confidence bound of the mean of paired differences (Student's t over patients).

    mean - t(confidence, n-1) * s / sqrt(n), with s the sample deviation.

    Raises:
        BadInput: fewer than two differences, or one that is not a finite number.
    """
    from scipy.stats import t

    n = len(differences)
    if n < 2 or not all(map(math.isfinite, differences)):
        msg = f"a lower bound needs at least two finite differences, got {list(differences)}"
        raise BadInput(msg)
    values = np.asarray(differences, dtype=float)
    return float(values.mean() - t.ppf(confidence, n - 1) * values.std(ddof=1) / math.sqrt(n))


def _patient_mean(patient: str, values: float | Sequence[float]) -> float:
    numbers = np.atleast_1d(np.asarray(values, dtype=float))
    if not numbers.size or not np.isfinite(numbers).all():
        msg = f"patient {patient!r} has the scores {numbers.tolist()}; give finite numbers or leave the patient out"
        raise BadInput(msg)
    return float(numbers.mean())
