"""Do events come about as often as their probabilities say: reliability curve, calibration error, slope, intercept.

The bins of curve and error have equally many studies, at most ten bins and at least five studies in each; equal
probabilities stay together. With two classes the event is the last label, with more that the answer given is right
(Guo et al., 2017), of several findings each is a curve of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from radloop.evaluation.class_answers import Answers, check_answers, draw_patients
from radloop.evaluation.intervals import Interval
from radloop.recipes.recipe import Kind

BINS, IN_A_BIN = 10, 5
MOST_PROBABLE = "most probable"
_STEPS = 50  # where it takes more the fit has no end: events and others do not overlap
_CLOSEST = 1e-7  # to 0 and 1 that a probability may be where its logit is taken


class Point(NamedTuple):
    """A bin of a reliability curve.

    Attributes:
        predicted: mean probability of its studies.
        observed: share of them in which the event came about.
        studies: how many they are.
    """

    predicted: float
    observed: float
    studies: int


class Curve(NamedTuple):
    """Events and their probabilities.

    Attributes:
        name: the label, or `most probable`.
        rows: which studies, as places.
        p: probability of each.
        event: 1 where it came about, else 0.
        bin: the bin of each.
    """

    name: str
    rows: np.ndarray
    p: np.ndarray
    event: np.ndarray
    bin: np.ndarray


@dataclass(frozen=True)
class Recalibration:
    """How the truth follows the logit of the probabilities (logistic regression).

    Attributes:
        slope: 1 is right, under 1 the probabilities are too extreme; None where events and others do not overlap.
        intercept: with the slope held at 1; 0 is right, under 0 they are too high; None with three or more classes
            that exclude each other, where it is 0 whatever the probabilities.
    """

    slope: Interval | None
    intercept: Interval | None


def reliability(p: np.ndarray, y: np.ndarray, *, kind: Kind, labels: Sequence[str] = ()) -> dict[str, list[Point]]:
    """Curve -> its points from low to high probability; a finding that nobody looked at has none."""
    answers = check_answers(p, y, [""] * len(y), kind=kind, labels=labels)
    found = {}
    for curve in curves(answers):
        members = [curve.bin == place for place in np.unique(curve.bin)]
        found[curve.name] = [
            Point(float(curve.p[of].mean()), float(curve.event[of].mean()), int(of.sum())) for of in members
        ]
    return found


def perfect_ece(
    p: np.ndarray, y: np.ndarray, *, kind: Kind, share: float = 0.95, draws: int = 2000, seed: int = 0
) -> float | None:
    """The calibration error that perfectly calibrated probabilities stay under in 95 of 100 such sets of studies.

    Truth is drawn again and again by the probabilities themselves, studies and findings independently of each other.
    Even a perfect model has some calibration error with few studies. None without a study.
    """
    answers = check_answers(p, y, [""] * len(y), kind=kind)
    rng = np.random.default_rng(seed)
    errors = [_ece_if_perfect(curve, draws, rng) for curve in curves(answers) if len(curve.p)]
    return float(np.quantile(np.mean(errors, axis=0), share)) if errors else None


def recalibration(
    p: np.ndarray,
    y: np.ndarray,
    patients: Sequence[str],
    *,
    kind: Kind,
    resamples: int = 2000,
    seed: int = 0,
) -> Recalibration:
    """Calibration slope and intercept with 95 % intervals over patients.

    All events are taken together: the last label of two, each of more labels against the others, each finding, or
    "above grade k" for each grade but the last. An interval is left out where over 2.5 % of the draws have no value.
    """
    answers = check_answers(p, y, patients, kind=kind)
    rows, logit, event = _events(answers)
    fits = [_fits(logit, event, np.ones((1, len(rows))))]
    if not np.isfinite(fits[0]).any():
        return Recalibration(None, None)
    weights = draw_patients(answers.patients, resamples=resamples, seed=seed, columns=_columns(answers))
    fits += [_fits(logit, event, drawn[:, rows]) for drawn in weights]
    several = len(set(answers.patients)) > 1
    slope, intercept = (_interval(of, several) for of in np.concatenate(fits).T)
    return Recalibration(slope, None if kind == "classification" and len(answers.labels) > 2 else intercept)


def drawn_ece(answers: Answers, weights: np.ndarray) -> np.ndarray:
    """(draws, curves) of the calibration error: |observed - predicted| of each bin, weighted by its studies."""
    columns = []
    for curve in curves(answers):
        weighed = weights[:, curve.rows]
        count = weighed.sum(axis=1)
        gaps = abs(weighed @ ((curve.event - curve.p)[:, None] * _one_hot(curve))).sum(axis=1)
        columns.append(np.divide(gaps, count, out=np.full(len(count), np.nan), where=count > 0))
    return np.stack(columns, axis=1)


def curves(answers: Answers) -> list[Curve]:
    """The events whose probabilities are looked at, see the module."""
    p, y, every = answers.p, answers.y, np.arange(len(answers.p))
    if not answers.exclusive:
        kept = [np.flatnonzero(known) for known in answers.known.T]
        return [_curve(name, kept[k], p[kept[k], k], y[kept[k], k]) for k, name in enumerate(answers.labels)]
    if len(answers.labels) == 2:
        return [_curve(answers.labels[1], every, p[:, 1], y[:, 1])]
    top = p.argmax(axis=1)
    return [_curve(MOST_PROBABLE, every, p[every, top], y[every, top])]


def _curve(name: str, rows: np.ndarray, p: np.ndarray, event: np.ndarray) -> Curve:
    count = min(BINS, max(1, len(p) // IN_A_BIN))
    inner = np.quantile(p, np.arange(1, count) / count) if len(p) else np.array([])
    return Curve(name, rows, p, event, np.searchsorted(inner, p, side="right"))


def _one_hot(curve: Curve) -> np.ndarray:
    return (curve.bin[:, None] == np.unique(curve.bin)).astype(float)


def _ece_if_perfect(curve: Curve, draws: int, rng: np.random.Generator) -> np.ndarray:
    bins = _one_hot(curve)
    gaps = [abs(((rng.random(len(curve.p)) < curve.p) - curve.p) @ bins).sum() for _ in range(draws)]
    return np.array(gaps) / len(curve.p)


def _columns(answers: Answers) -> int:
    return max(1, len(answers.labels) - answers.exclusive)


def _events(answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every event: its study, the logit of its probability, and whether it came about."""
    p, y = answers.p, answers.y
    if answers.kind == "ordinal":
        p, y = (of[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] for of in (p, y))
    elif answers.exclusive and len(answers.labels) == 2:
        p, y = p[:, 1:], y[:, 1:]
    rows, columns = np.nonzero(~np.isnan(y))
    near = np.clip(p[rows, columns], _CLOSEST, 1 - _CLOSEST)
    return rows, np.log(near / (1 - near)), y[rows, columns]


def _fits(logit: np.ndarray, event: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draws, 2) of slope and intercept; NaN where a fit has no end."""
    spread = logit.std() if len(logit) else 0.0
    alone = _newton(None, logit, event, weights)[:, 0]
    if spread == 0:
        return np.stack([np.full(len(alone), np.nan), alone], axis=1)
    slope = _newton(logit / spread, np.zeros_like(logit), event, weights)[:, 1] / spread
    return np.stack([slope, alone], axis=1)


def _newton(x: np.ndarray | None, offset: np.ndarray, event: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draws, 2): intercept and slope of a weighted logistic regression on x, or an intercept alone without x."""
    from scipy.special import expit

    a, b = np.zeros((2, len(weights)))
    done = np.zeros(len(weights), dtype=bool)
    for _ in range(_STEPS):
        mean = expit(a[:, None] + offset if x is None else a[:, None] + b[:, None] * x + offset)
        slack, spread = weights * (event - mean), weights * mean * (1 - mean)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            steps = _step(x, slack, spread)
        a, b = np.array([a, b]) + np.clip(steps, -2, 2)  # a long step can miss and never come back
        done = (abs(steps) < 1e-8).all(axis=0)
        if (done | ~np.isfinite(steps).all(axis=0)).all():
            break
    return np.where(done[:, None], np.stack([a, b], axis=1), np.nan)


def _step(x: np.ndarray | None, slack: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(2, draws): Newton's step of intercept and slope, from the gradient and the weights of the second derivative."""
    first, h = slack.sum(axis=1), spread.sum(axis=1)
    if x is None:
        return np.stack([first / h, np.zeros_like(h)])
    second, i, j = slack @ x, spread @ x, spread @ x**2
    return np.stack([j * first - i * second, h * second - i * first]) / (h * j - i * i)


def _interval(fits: np.ndarray, several: bool) -> Interval | None:
    """The first is the value, the others are draws."""
    value, draws = float(fits[0]), fits[1:]
    if np.isnan(value):
        return None
    if not several or np.isnan(draws).mean() > 0.025:
        return Interval(value, None, None)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))
