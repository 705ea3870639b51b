"""What learning curves of several strategies say: area, labels needed, foreground efficiency, and who is ahead of whom.

Seeds and patients are both drawn (a two-way bootstrap: the same held-out patients measure every seed), so an interval
holds for other patients and other first draws alike. Strategies are compared on the same draws. Of n there are n - 1
drawn, so that the variance is right also for few seeds (McCarthy and Snowden 1985); of one seed nothing is known about
others, and the interval holds for other patients only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radloop.evaluation.class_answers import Answers
from radloop.evaluation.class_scores import Draws, metrics_of
from radloop.recipes.errors import BadInput

SHARES = (95, 98)
"""Percent of the full-data figure whose price in labels is told."""
RESAMPLES = 2000
POINT = 0.01
"""How near to the full-data figure counts as there."""
_RATES = np.concatenate([[0.0], np.logspace(-1, 3, 161)])  # of closing the gap to the full-data figure

ByRound = list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Measured:
    """One model on the held-out studies.

    Attributes:
        patients: whose each study is.
        values: (n,) what the gate compares of each study; NaN where its label says nothing.
        answers: probabilities and truth, where the figure is the area under the ROC curve; else None.
        paths: (n,) mm of outline left to draw in each study; None where there is no outline.
    """

    patients: tuple[str, ...]
    values: np.ndarray
    answers: Answers | None = None
    paths: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Point:
    """A model of one round.

    Attributes:
        labels: studies that it learned from.
        foreground: share of the foreground of all studies to choose from that was labelled; NaN of other kinds.
        measured: on the held-out studies.
    """

    labels: int
    foreground: float
    measured: Measured


Curves = Mapping[str, Mapping[int, Sequence[Point]]]
"""Strategy -> seed -> a point a round."""


class Bootstrap:
    """Draws of patients and seeds, the same for everything that is asked; the first is the sample itself.

    Args:
        patients: every held-out patient.
        seeds: every seed.
        resamples: draws beside the first.
        seed: the same one gives the same draws.
    """

    def __init__(
        self, patients: Sequence[str], seeds: Sequence[int], resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.patients, self.seeds = sorted(set(patients)), sorted(set(seeds))
        if not self.patients or not self.seeds:
            msg = "a learning curve needs a held-out patient and a seed"
            raise BadInput(msg)
        self._place = {name: place for place, name in enumerate(self.patients)}
        self._patients = _counts(rng, len(self.patients), resamples)
        self._seeds = _counts(rng, len(self.seeds), resamples)

    def figure(self, measured: Measured) -> np.ndarray:
        """(1 + resamples,) of the figure: the mean over patients, or the area under the ROC curve, mean over labels."""
        if measured.answers is None:
            return self._mean(measured.patients, measured.values)
        places = [self._place[patient] for patient in measured.answers.patients]
        weights = self._patients[:, places].astype(float)
        by_label = metrics_of(measured.answers)["roc_auc"].of(Draws(measured.answers, weights))
        known = ~np.isnan(by_label)
        return _divide(np.where(known, by_label, 0).sum(axis=1), known.sum(axis=1))

    def paths(self, measured: Measured) -> np.ndarray | None:
        """(1 + resamples,) of the mean outline left to draw, mm a study."""
        return None if measured.paths is None else self._mean(measured.patients, measured.paths)

    def over_seeds(self, by_seed: Mapping[int, np.ndarray]) -> np.ndarray:
        """The mean over the seeds that there are; NaN in draws that have none of them."""
        weights = self._seeds[:, [self.seeds.index(seed) for seed in by_seed]].astype(float)
        return _divide((weights * np.stack(list(by_seed.values()), axis=1)).sum(axis=1), weights.sum(axis=1))

    def interval(self, draws: np.ndarray) -> dict[str, float | None]:
        """The value of the sample and the 95 % interval of the draws; infinity, in words "not reached", is None."""
        value, rest = draws[0], draws[1:][~np.isnan(draws[1:])]
        alone = len(self.patients) < 2 and len(self.seeds) < 2
        if math.isnan(value) or alone or not len(rest):
            return {"value": _told(value), "low": None, "high": None}
        low, high = np.quantile(rest, 0.025, method="lower"), np.quantile(rest, 0.975, method="higher")
        return {"value": _told(value), "low": _told(min(low, value)), "high": _told(max(high, value))}

    def _mean(self, patients: Sequence[str], values: np.ndarray) -> np.ndarray:
        """The mean over patients of the mean over their studies."""
        total, count = np.zeros(len(self.patients)), np.zeros(len(self.patients))
        for patient, value in zip(patients, values, strict=True):
            if not math.isnan(value):
                total[self._place[patient]] += value
                count[self._place[patient]] += 1
        means, known = np.divide(total, count, out=np.zeros_like(total), where=count > 0), (count > 0).astype(float)
        return _divide(self._patients @ means, self._patients @ known)


def summarise(
    curves: Curves, full: Mapping[int, Measured], rivals: Sequence[str] = (), resamples: int = RESAMPLES
) -> dict[str, Any]:
    """What the curves say, for JSON.

    Args:
        curves: of each strategy the seeds that are complete; the rounds have the same number of labels in all.
        full: seed -> the model that learned from every study to choose from.
        rivals: strategies that the others are compared with.
        resamples: bootstrap draws.
    """
    points = [point.measured for seeds in curves.values() for of in seeds.values() for point in of]
    patients = [patient for measured in (*points, *full.values()) for patient in measured.patients]
    boot = Bootstrap(patients, [*full, *(seed for seeds in curves.values() for seed in seeds)], resamples)
    whole = boot.over_seeds({seed: boot.figure(of) for seed, of in full.items()}) if full else None
    told: dict[str, Any] = {"full": None if whole is None else boot.interval(whole), "strategies": {}}
    areas: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    there: dict[str, np.ndarray] = {}
    for name, seeds in curves.items():
        told["strategies"][name], areas[name], there[name] = _of_strategy(boot, seeds, whole)
    for name in curves:
        told["strategies"][name]["against"] = {
            rival: _ahead(boot, areas[name], areas[rival]) | _sooner(boot, there[name], there[rival])
            for rival in rivals
            if rival in curves and rival != name
        }
    return told


def _of_strategy(
    boot: Bootstrap, seeds: Mapping[int, Sequence[Point]], whole: np.ndarray | None
) -> tuple[dict[str, Any], dict[str, dict[int, np.ndarray]], np.ndarray]:
    """What one strategy's curves say, of each seed the areas under them, and the labels to come within a point.

    Where that is not reached, the labels are those of one round more.
    """
    labels = [point.labels for point in next(iter(seeds.values()))]
    figures = {seed: [boot.figure(point.measured) for point in of] for seed, of in seeds.items()}
    paths = {seed: [boot.paths(point.measured) for point in of] for seed, of in seeds.items()}
    drawn = {seed: [one for one in of if one is not None] for seed, of in paths.items()}
    drawn = drawn if all(len(of) == len(labels) for of in drawn.values()) else {}
    curve = [boot.over_seeds({seed: of[n] for seed, of in figures.items()}) for n in range(len(labels))]
    rounds: list[dict[str, Any]] = [
        {"labels": count, **boot.interval(of)} for count, of in zip(labels, curve, strict=True)
    ]
    for n, entry in enumerate(rounds):
        if drawn:
            entry["path_mm"] = boot.interval(boot.over_seeds({seed: of[n] for seed, of in drawn.items()}))
    areas = {"area": {seed: area(labels, of) for seed, of in figures.items()}}
    areas |= {"path_mm": {seed: area(labels, of) for seed, of in drawn.items()}} if drawn else {}
    told: dict[str, Any] = {"seeds": sorted(seeds), "rounds": rounds}
    told |= {name: boot.interval(boot.over_seeds(of)) for name, of in areas.items()}
    there = np.array([])
    if whole is not None:
        told |= {f"labels_to_{p}": boot.interval(labels_to(labels, curve, share_of(whole, p))) for p in SHARES}
        near = labels_to(labels, curve, whole - POINT)
        told["labels_within_a_point"] = boot.interval(near)
        more = labels[-1] - labels[-2] if len(labels) > 1 else labels[-1]
        there = np.where(np.isinf(near), labels[-1] + more, near)
        shares = [boot.over_seeds({s: np.full(len(curve[0]), of[n].foreground) for s, of in seeds.items()})
                  for n in range(len(labels))]  # fmt: skip
        for entry, share in zip(rounds, shares, strict=True):
            entry["foreground"] = _told(share[0])
        if not np.isnan(shares[0][0]):
            told["foreground_efficiency"] = boot.interval(foreground_efficiency(shares, curve, whole))
    return told, areas, there


def _ahead(
    boot: Bootstrap, ours: Mapping[str, Mapping[int, np.ndarray]], theirs: Mapping[str, Mapping[int, np.ndarray]]
) -> dict[str, Any]:
    """Of each area the difference to another strategy's, seed by seed on the same patients."""
    found: dict[str, Any] = {}
    for name in ours.keys() & theirs.keys():
        both = {seed: ours[name][seed] - theirs[name][seed] for seed in ours[name] if seed in theirs[name]}
        found[name] = {**boot.interval(boot.over_seeds(both)), "seeds": len(both)} if both else None
    return dict(sorted(found.items()))


def _sooner(boot: Bootstrap, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Labels to come within a point of the full-data figure, ours less theirs."""
    return {"labels_within_a_point": boot.interval(ours - theirs)} if len(ours) and len(theirs) else {}


def area(labels: Sequence[int], curve: ByRound) -> np.ndarray:
    """The area under a curve over the number of labels, divided by their range, so that it is a mean figure."""
    if len(labels) < 2 or labels[-1] == labels[0]:
        return curve[-1]
    parts = [
        (labels[n + 1] - labels[n]) * (curve[n] + curve[n + 1]) / 2 / (labels[-1] - labels[0])
        for n in range(len(labels) - 1)
    ]
    return np.sum(parts, axis=0)


def share_of(whole: np.ndarray, percent: float) -> np.ndarray:
    """So many percent of the full-data figure; infinity where that is 0, which any curve would reach."""
    return np.where(whole > 0, whole * percent / 100, np.inf)


def labels_to(labels: Sequence[int], curve: ByRound, goal: np.ndarray) -> np.ndarray:
    """The labels of the first round that reaches the goal, nothing put between rounds; infinity where none does."""
    found = np.full(len(goal), np.inf)
    for count, figures in reversed(list(zip(labels, curve, strict=True))):
        found[figures >= goal] = count
    return found


def foreground_efficiency(shares: ByRound, curve: ByRound, whole: np.ndarray) -> np.ndarray:
    """How fast the gap to the full-data figure closes per share of the foreground labelled; higher is better.

    The rate g of `whole - (whole - first) * exp(-g * (share - first share))` that fits the rounds best (least squares),
    after Lüth et al., nnActive, TMLR 2025. It is between 0 and 1000; NaN where the first round leaves no gap, or where
    there is one round.
    """
    found = np.full(len(whole), np.nan)
    gap = whole - curve[0]
    some = gap > 0
    if len(curve) < 2 or not some.any():
        return found
    errors = np.zeros((int(some.sum()), len(_RATES)))
    for share, figures in zip(shares[1:], curve[1:], strict=True):
        more = (share - shares[0])[some]
        fitted = whole[some, None] - gap[some, None] * np.exp(-more[:, None] * _RATES)
        errors += (fitted - figures[some, None]) ** 2
    found[some] = _RATES[np.nan_to_num(errors, nan=np.inf).argmin(axis=1)]
    return found


def _counts(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """How often each of n is drawn, n - 1 draws in all; once each in the first row."""
    return np.vstack([np.ones((1, n), int), rng.multinomial(max(1, n - 1), np.full(n, 1 / n), size=resamples)])


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _told(value: float) -> float | None:
    return None if not math.isfinite(value) else round(float(value), 6)
