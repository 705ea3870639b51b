"""How good answers about a whole study are, and which of two is better, with intervals over patients.

Studies count one by one; intervals and comparisons draw patients with all their studies. `<metric>.<label>` is the
metric of one label against all others, `<metric>` the mean over the labels that have a value. A label that is nowhere
in the truth has none, see docs/figures-and-reports.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from radloop.evaluation.class_answers import Answers, answered, check_answers, draw_patients
from radloop.evaluation.class_scores import Draws, Metric, metrics_of
from radloop.evaluation.intervals import Interval
from radloop.recipes.errors import BadInput, closest
from radloop.recipes.recipe import Kind

_DRAWN = 0.8
"""Share of draws that must have a value for an interval. A value that hangs on one patient is lost in a fourth of the
draws or more, one that hangs on two in a seventh or less."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Two sets of probabilities on the same studies.

    Attributes:
        metric: what they are compared in.
        first: its value of the first.
        second: its value of the second.
        difference: first - second with its interval.
        higher: whether a higher value is better.
    """

    metric: str
    first: Interval
    second: Interval
    difference: Interval
    higher: bool

    @property
    def better(self) -> bool | None:
        """True where the first is better, False where it is worse; None where the interval holds 0 or is missing."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or (low <= _ROUNDING and high >= -_ROUNDING):
            return None
        return (low > 0) == self.higher


def figures(p: np.ndarray, y: np.ndarray, *, kind: Kind, labels: Sequence[str] = ()) -> dict[str, float | None]:
    """Every metric by its name, without intervals; None where it has no value."""
    answers = check_answers(p, y, [""] * len(y), kind=kind, labels=labels)
    return {part.name: _value(values) for part, values in _whole(answers).items()}


def measure(
    p: np.ndarray,
    y: np.ndarray,
    patients: Sequence[str],
    *,
    kind: Kind,
    labels: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Every metric by its name with its 95 % interval over patients; None where it has no value.

    The limits are None with one patient, or where a value, or that of a label in a mean, hangs on a single patient.

    Args:
        p: (n, K) probabilities.
        y: (n, K) truth, NaN where nobody looked.
        patients: whose each study is.
        kind: the recipe's kind.
        labels: names of the columns; 1..K where left out.
        resamples: bootstrap draws.
        seed: the same seed gives the same intervals.

    Raises:
        BadInput: the three do not fit each other.
    """
    answers = check_answers(p, y, patients, kind=kind, labels=labels)
    whole = _whole(answers)
    if not answers.patients:
        return dict.fromkeys(part.name for part in whole)
    drawn = _drawn([answers], list(whole), resamples, seed)[0]
    several = len(set(answers.patients)) > 1
    return {part.name: _interval(values, drawn[part], several) for part, values in whole.items()}


def compare(
    p: np.ndarray,
    q: np.ndarray,
    y: np.ndarray,
    patients: Sequence[str],
    metric: str,
    *,
    kind: Kind,
    labels: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison | None:
    """The difference of a metric, that of `p` less that of `q`, with its 95 % interval over patients.

    In every draw both are measured on the same patients. None where the metric has no value on these studies.

    Raises:
        BadInput: the arrays do not fit each other, or the metric is not one of this kind.
    """
    both = [check_answers(of, y, patients, kind=kind, labels=labels) for of in (p, q)]
    part = _find(metric, both[0])
    values = [_scored(of, [part], np.ones((1, len(of.p))))[part][0] for of in both]
    if np.isnan(values[0] - values[1]).all():
        return None
    drawn = [of[part] for of in _drawn(both, [part], resamples, seed)]
    several = len(set(both[0].patients)) > 1
    first, second = (_interval(*of, several) for of in zip(values, drawn, strict=True))
    difference = _interval(values[0] - values[1], drawn[0] - drawn[1], several)
    if first is None or second is None or difference is None:
        return None
    return Comparison(metric, first, second, difference, part.metric.higher)


def confusion(p: np.ndarray, y: np.ndarray, *, kind: Kind) -> np.ndarray:
    """Numbers of studies by truth (rows) and answer (columns).

    (K, K) where labels exclude each other; (K, 2, 2) of `multilabel`, absent before present.
    """
    answers = check_answers(p, y, [""] * len(y), kind=kind)
    said, truth = answered(answers.p, kind), answers.y == 1
    if answers.exclusive:
        return truth.astype(int).T @ said.astype(int)
    known = answers.known
    cells = [[(known & (truth == t) & (said == s)).sum(axis=0) for s in (False, True)] for t in (False, True)]
    return np.moveaxis(np.array(cells), -1, 0)


def roc_curves(
    p: np.ndarray, y: np.ndarray, *, kind: Kind, labels: Sequence[str] = ()
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Label -> false and true positive rate at each distinct probability, from (0, 0) to (1, 1).

    Of two labels that exclude each other only the last; none of a label that is in all of the truth or nowhere.
    """
    answers = check_answers(p, y, [""] * len(y), kind=kind, labels=labels)
    places = [1] if answers.exclusive and len(answers.labels) == 2 else range(len(answers.labels))
    found = {}
    for k in places:
        known = answers.known[:, k]
        chance, yes = answers.p[known, k], answers.y[known, k] == 1
        if not yes.any() or yes.all():
            continue
        limits = np.unique(chance)[::-1, None]
        rates = [np.r_[0.0, (chance[of] >= limits).mean(axis=1)] for of in (~yes, yes)]
        found[answers.labels[k]] = (rates[0], rates[1])
    return found


class _Part(NamedTuple):
    """A metric, or its part of one label."""

    name: str
    base: str
    metric: Metric
    column: int | None


def _parts(answers: Answers) -> list[_Part]:
    found = []
    for base, metric in metrics_of(answers).items():
        found.append(_Part(base, base, metric, None))
        labels = answers.labels if metric.by_label else ()
        found += [_Part(f"{base}.{label}", base, metric, k) for k, label in enumerate(labels)]
    return found


def _find(name: str, answers: Answers) -> _Part:
    parts = {part.name: part for part in _parts(answers)}
    if name not in parts:
        bases = list(metrics_of(answers))
        msg = f"metric {name!r} is not one of {answers.kind}: {', '.join(bases)}{closest(name, parts)}"
        raise BadInput(msg)
    return parts[name]


def _scored(answers: Answers, parts: Sequence[_Part], weights: np.ndarray) -> dict[_Part, np.ndarray]:
    """Of each part (draws, columns), each metric computed once."""
    draws, known = Draws(answers, weights), dict[str, np.ndarray]()
    for part in parts:
        if part.base not in known:
            known[part.base] = part.metric.of(draws)
    return {part: known[part.base] if part.column is None else known[part.base][:, [part.column]] for part in parts}


def _whole(answers: Answers) -> dict[_Part, np.ndarray]:
    scored = _scored(answers, _parts(answers), np.ones((1, len(answers.p))))
    return {part: values[0] for part, values in scored.items()}


def _drawn(
    answers: Sequence[Answers], parts: Sequence[_Part], resamples: int, seed: int
) -> list[dict[_Part, np.ndarray]]:
    """The parts of each of the answers in the same draws of patients."""
    found: list[list[dict[_Part, np.ndarray]]] = [[] for _ in answers]
    for weights in draw_patients(answers[0].patients, resamples=resamples, seed=seed):
        for one, into in zip(answers, found, strict=True):
            into.append(_scored(one, parts, weights))
    return [{part: np.concatenate([of[part] for of in into]) for part in parts} for into in found]


def _value(values: np.ndarray) -> float | None:
    """The mean over the columns that have a value."""
    used = ~np.isnan(values)
    return float(values[used].mean()) if used.any() else None


def _interval(values: np.ndarray, drawn: np.ndarray, several: bool) -> Interval | None:
    """Of the mean over the columns that have a value; a draw in which one of those has none is left out."""
    value = _value(values)
    if value is None:
        return None
    drawn = drawn[:, ~np.isnan(values)]
    kept = drawn[~np.isnan(drawn).any(axis=1)].mean(axis=1)
    if not several or not len(kept) or (~np.isnan(drawn)).mean(axis=0).min() < _DRAWN:
        return Interval(value, None, None)
    low, high = np.quantile(kept, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))
