"""Every metric of answers about a whole study, for many bootstrap draws at once.

A draw is a row of weights: how often each study counts. Weights of 1 give the figure itself, so there is one
implementation of each metric. What has no value is NaN here and None outside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from radloop.evaluation.class_answers import Answers, answered
from radloop.evaluation.reliability import drawn_ece

_SMALLEST = np.finfo(float).eps  # a probability of 0 that comes true would cost infinitely much


class Draws:
    """Answers under (draws, n) weights; counts are made once for all metrics.

    Args:
        answers: what is measured.
        weights: how often each study counts in each draw.
    """

    def __init__(self, answers: Answers, weights: np.ndarray) -> None:
        self.answers, self.weights = answers, weights
        self.truth = np.nan_to_num(answers.y)
        self.said = answered(answers.p, answers.kind).astype(float)

    @property
    def every(self) -> np.ndarray:
        """Studies in each draw."""
        return self.weights.sum(axis=1)

    @cached_property
    def counts(self) -> tuple[np.ndarray, ...]:
        """True positives, false positives, false negatives, true negatives, each (draws, K)."""
        yes, said, known = self.truth, self.said, self.answers.known
        cells = (yes * said, (1 - yes) * said, yes * (1 - said), (1 - yes) * (1 - said))
        return tuple(self.weights @ (known * cell) for cell in cells)

    def mean(self, losses: np.ndarray) -> np.ndarray:
        """The mean of a loss of each study (n,) or of each finding that was looked at (n, K)."""
        if losses.ndim == 1:
            return _ratio(self.weights @ losses, self.every)[:, None]
        known = self.answers.known
        return _ratio(self.weights @ np.where(known, losses, 0.0), self.weights @ known.astype(float))

    def ranked(self, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """(draws, K) of a score of true and false studies at each distinct probability, highest first."""
        columns = []
        for k, known in enumerate(self.answers.known.T):
            p, yes = self.answers.p[known, k], self.truth[known, k]
            order = np.argsort(-p, kind="stable")
            firsts = np.flatnonzero(np.r_[True, np.diff(p[order]) != 0]) if len(p) else np.array([], dtype=int)
            weights = self.weights[:, known][:, order]
            if not len(p):
                columns.append(np.full(len(weights), np.nan))
                continue
            parts = [np.add.reduceat(weights * of, firsts, axis=1) for of in (yes[order], 1 - yes[order])]
            columns.append(score(*parts))
        return np.stack(columns, axis=1)


class Metric(NamedTuple):
    """How a metric is computed and read.

    Attributes:
        of: (draws, parts) of its values; the metric is the mean over the parts.
        by_label: its parts are the labels, and shown.
        higher: higher is better.
    """

    of: Callable[[Draws], np.ndarray]
    by_label: bool = True
    higher: bool = True


def metrics_of(answers: Answers) -> dict[str, Metric]:
    """The metrics that a kind has, in the order of reports."""
    several, ordinal = not answers.exclusive, answers.kind == "ordinal"
    found = {
        "roc_auc": Metric(_roc_auc),
        "average_precision": Metric(_average_precision),
        "accuracy": Metric(_accuracy, several),
        "balanced_accuracy": Metric(_balanced_accuracy, several),
        "recall": Metric(_recall),
        "specificity": Metric(_specificity),
        "precision": Metric(_precision),
        "f1": Metric(_f1),
        "brier": Metric(_brier, several, higher=False),
        "log_loss": Metric(_log_loss, several, higher=False),
        "ece": Metric(lambda draws: drawn_ece(draws.answers, draws.weights), several, higher=False),
    }
    grades = {"kappa": Metric(_kappa, False), "mae": Metric(_mae, False, higher=False)}
    return found | (grades if ordinal else {})


def _accuracy(draws: Draws) -> np.ndarray:
    if draws.answers.exclusive:
        return draws.mean((draws.said * draws.truth).sum(axis=1))
    return draws.mean((draws.said == draws.truth).astype(float))


def _balanced_accuracy(draws: Draws) -> np.ndarray:
    return _recall(draws) if draws.answers.exclusive else (_recall(draws) + _specificity(draws)) / 2


def _recall(draws: Draws) -> np.ndarray:
    hit, _, missed, _ = draws.counts
    return _ratio(hit, hit + missed)


def _specificity(draws: Draws) -> np.ndarray:
    _, false, _, rejected = draws.counts
    return _ratio(rejected, rejected + false)


def _precision(draws: Draws) -> np.ndarray:
    """0 where a label that is in the truth is never answered, or never answering it would look good."""
    hit, false, missed, _ = draws.counts
    said = np.divide(hit, hit + false, out=np.zeros_like(hit), where=hit + false > 0)
    return np.where(hit + missed > 0, said, np.nan)


def _f1(draws: Draws) -> np.ndarray:
    hit, false, missed, _ = draws.counts
    return np.where(hit + missed > 0, _ratio(2 * hit, 2 * hit + false + missed), np.nan)


def _roc_auc(draws: Draws) -> np.ndarray:
    """The share of pairs of a true and a false study in the right order; equal probabilities count half."""

    def score(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
        pairs = yes.sum(axis=1) * no.sum(axis=1)
        after = no.sum(axis=1, keepdims=True) - no.cumsum(axis=1)
        return _ratio((yes * (after + no / 2)).sum(axis=1), pairs)

    return draws.ranked(score)


def _average_precision(draws: Draws) -> np.ndarray:
    """The mean over the true studies of the precision at their probability, without interpolation."""

    def score(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
        hits = yes.cumsum(axis=1)
        called = hits + no.cumsum(axis=1)
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        return _ratio((yes * precision).sum(axis=1), yes.sum(axis=1))

    return draws.ranked(score)


def _brier(draws: Draws) -> np.ndarray:
    squares = (draws.answers.p - draws.truth) ** 2
    return draws.mean(squares.sum(axis=1) / 2 if draws.answers.exclusive else squares)


def _log_loss(draws: Draws) -> np.ndarray:
    return draws.mean(log_losses(draws.answers))


def log_losses(answers: Answers) -> np.ndarray:
    """Minus the logarithm of the probability that the truth was given: (n,), or (n, K) a finding; NaN where unknown."""
    p, y = np.clip(answers.p, _SMALLEST, 1 - _SMALLEST), answers.y
    if answers.exclusive:
        return -np.log((np.clip(answers.p, _SMALLEST, 1) * y).sum(axis=1))
    return -np.log(np.where(y == 1, p, 1 - p)) + 0 * y


def _kappa(draws: Draws) -> np.ndarray:
    """Cohen's weighted kappa with squared distances in grades."""
    truth, said = draws.truth, draws.said
    grades = np.arange(truth.shape[1])
    squared = (grades[:, None] - grades) ** 2
    apart = ((truth @ grades) - (said @ grades)) ** 2
    by_chance = np.einsum("bi,ij,bj->b", draws.weights @ truth, squared, draws.weights @ said)
    return 1 - _ratio((draws.weights @ apart) * draws.every, by_chance)[:, None]


def _mae(draws: Draws) -> np.ndarray:
    grades = np.arange(draws.truth.shape[1])
    return draws.mean(abs(draws.truth @ grades - draws.said @ grades))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
