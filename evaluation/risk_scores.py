"""Every metric of risks over time, for many bootstrap draws at once.

A draw is a row of weights: how often each study counts. Weights of 1 give the figure itself, so there is one
implementation of each metric. What has no value is NaN here. Patients who were lost count through those who were not:
weights are the inverse of the chance not to be lost before (Uno et al., Statistics in Medicine 2011; Graf et al.,
Statistics in Medicine 1999), estimated once on all studies that are measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from radloop.evaluation.hazards import known_at


@dataclass(frozen=True, eq=False)
class Risks:
    """Risks over time and what became of the patients.

    Attributes:
        event: (n,) bool, whether it came.
        time: (n,) when, or until when the patient was known without it.
        rank: (n,) the higher, the greater the risk all along.
        risks: (n, m) at the named times.
        curve: (n, g) at the times of `grid`.
        times: (m,) named times, rising.
        grid: (g,) times from the first after 0 to the last named one, evenly.
    """

    event: np.ndarray
    time: np.ndarray
    rank: np.ndarray
    risks: np.ndarray
    curve: np.ndarray
    times: np.ndarray
    grid: np.ndarray

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, n) pairs whose order is known, the earlier event first, and those of them in the right order."""
        sooner = self.time[:, None] < self.time
        sooner |= (self.time[:, None] == self.time) & ~self.event
        comparable = (sooner & self.event[:, None]).astype(float)
        return comparable, comparable * _order(self.rank, self.rank)

    @cached_property
    def kept(self) -> np.ndarray:
        """(n,) chance not to be lost before one's own time."""
        return not_lost(self.event, self.time, self.time, before=True)


def metrics_of(risks: Risks, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (draws,) of every metric under (draws, n) weights, in the order of reports."""
    names = [f"{time:g}" for time in risks.times]
    found = {"c_index": c_index(risks, weights), "uno_c": uno_c(risks, weights)}
    areas = auc(risks, weights)
    found["auc"] = _mean_of_known(areas)
    found |= {f"auc.{name}": areas[:, k] for k, name in enumerate(names)}
    found["integrated_brier"] = integrated_brier(risks, weights)
    squares = brier(risks, weights, risks.risks, risks.times)
    found |= {f"brier.{name}": squares[:, k] for k, name in enumerate(names)}
    excess = excess_risk(risks, weights)
    return found | {f"excess_risk.{name}": excess[:, k] for k, name in enumerate(names)}


def c_index(risks: Risks, weights: np.ndarray) -> np.ndarray:
    """Of pairs whose order is known the share in the right order; equal ranks count half (Harrell, JAMA 1982)."""
    comparable, right = risks.pairs
    return _pairs(weights, right, weights) / _or_nan(_pairs(weights, comparable, weights))


def uno_c(risks: Risks, weights: np.ndarray) -> np.ndarray:
    """The same up to the last named time, each event weighed by how many like it were lost (Uno et al., 2011)."""
    comparable, right = risks.pairs
    counts = (risks.kept > 0) & (risks.time <= risks.times[-1])
    each = np.where(counts, 1.0 / np.where(counts, risks.kept, 1.0) ** 2, 0.0)
    return _pairs(weights * each, right, weights) / _or_nan(_pairs(weights * each, comparable, weights))


def auc(risks: Risks, weights: np.ndarray) -> np.ndarray:
    """(draws, m): at each named time, how often a patient with the event so far has the higher risk then.

    Against those who are known without it at that time (cumulative cases, dynamic controls; Uno et al., JASA 2007).
    """
    found = []
    for column, time in enumerate(risks.times):
        came = risks.event & (risks.time <= time) & (risks.kept > 0)
        case = np.where(came, 1.0 / np.where(came, risks.kept, 1.0), 0.0)
        control = (risks.time > time).astype(float)
        right = _order(risks.risks[:, column], risks.risks[:, column])
        above = _pairs(weights * case, right, weights * control)
        found.append(above / _or_nan((weights @ case) * (weights @ control)))
    return np.stack(found, axis=1)


def brier(risks: Risks, weights: np.ndarray, told: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(draws, times) mean squared error of (n, times) risks; NaN at times that nobody was followed for."""
    truth = known_at(risks.event, risks.time, times)
    still = not_lost(risks.event, risks.time, times)
    came = risks.event[:, None] & (risks.time[:, None] <= times)
    chance = np.where(came, risks.kept[:, None], still)
    inverse = np.where(np.isnan(truth) | (chance <= 0), 0.0, 1.0 / np.where(chance > 0, chance, 1.0))
    squares = inverse * (told - np.nan_to_num(truth)) ** 2
    found = (weights @ squares) / _or_nan(weights.sum(axis=1))[:, None]
    followed = (still > 0) & (risks.time.max() >= times)
    return np.where(followed, found, np.nan)


def integrated_brier(risks: Risks, weights: np.ndarray) -> np.ndarray:
    """(draws,) the mean of the Brier score over time, up to the last named time or as far as anybody was followed."""
    squares = brier(risks, weights, risks.curve, risks.grid)
    known = ~np.isnan(squares).any(axis=0)
    if not known.any():
        return np.full(len(weights), np.nan)
    grid, squares = np.r_[0.0, risks.grid[known]], np.c_[np.zeros(len(weights)), squares[:, known]]
    areas = (squares[:, 1:] + squares[:, :-1]) / 2 * np.diff(grid)
    return areas.sum(axis=1) / grid[-1]


def excess_risk(risks: Risks, weights: np.ndarray) -> np.ndarray:
    """(draws, m) mean risk at each named time less the share to whom the event came (Kaplan-Meier); 0 is right."""
    mean = (weights @ risks.risks) / _or_nan(weights.sum(axis=1))[:, None]
    came = 1 - kaplan_meier(risks.event, risks.time, risks.times, weights)
    return np.where(risks.time.max() >= risks.times, mean - came, np.nan)


def kaplan_meier(
    event: np.ndarray, time: np.ndarray, times: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """(draws, times) share without the event after each time (Kaplan and Meier, JASA 1958)."""
    weights = np.ones((1, len(time))) if weights is None else weights
    moments = np.unique(time[event])
    came = weights @ ((time[:, None] == moments) & event[:, None]).astype(float)
    there = weights @ (time[:, None] >= moments).astype(float)
    stay = 1 - np.divide(came, there, out=np.zeros_like(came), where=there > 0)
    steps = np.c_[np.ones(len(weights)), stay.cumprod(axis=1)]
    return steps[:, np.searchsorted(moments, times, side="right")]


def not_lost(event: np.ndarray, time: np.ndarray, times: np.ndarray, *, before: bool = False) -> np.ndarray:
    """(times,) chance not to be lost by each time, or before it; at one time events come before losses."""
    moments = np.unique(time[~event])
    lost = ((time[:, None] == moments) & ~event[:, None]).sum(axis=0)
    there = (time[:, None] > moments).sum(axis=0) + lost
    steps = np.r_[1.0, (1 - lost / there).cumprod()] if len(moments) else np.ones(1)
    return steps[np.searchsorted(moments, times, side="left" if before else "right")]


def _order(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, n) 1 where the first is higher, a half where both are equal."""
    return (first[:, None] > second) + 0.5 * (first[:, None] == second)


def _pairs(left: np.ndarray, of: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(draws,) sum over pairs of their weights."""
    return ((left @ of) * right).sum(axis=1)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """(draws,) the mean over the columns that have a value in every draw that has any."""
    used = ~np.isnan(values).all(axis=0)
    return values[:, used].mean(axis=1) if used.any() else np.full(len(values), np.nan)


def _or_nan(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)
