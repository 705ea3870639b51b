"""The floor under every model: the best band of intensity for each label, or the empty mask, whichever is better.

The band is fitted on training cases and never sees the case it is scored on. It works on preprocessed intensities, so
images without a unit (MR) are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from radloop.engine.answer_baseline import answer_baseline
from radloop.engine.assess import CaseScore, patient_scores
from radloop.engine.box_assess import box_baseline
from radloop.engine.prepared import Prepared, prepare
from radloop.engine.risk_score import risk_baseline
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.studies.cases import Case

_BINS = 48
_MOST_CASES = 40  # a band has two numbers; more cases do not make it better
_VALUES_A_CASE = 20_000


def baseline_scores(
    recipe: Recipe, train_cases: Sequence[Case], eval_cases: Sequence[Case], cache: Path | None = None
) -> dict[str, float]:
    """Patient -> mean Dice of the trivial method over labels and studies; see `baseline_cases`."""
    return patient_scores(baseline_cases(recipe, train_cases, eval_cases, cache))


def baseline_cases(
    recipe: Recipe, train_cases: Sequence[Case], eval_cases: Sequence[Case], cache: Path | None = None
) -> list[Any]:
    """The trivial method's score of every case, by label; cases that cannot be read are left out.

    For answers in words see `radloop.engine.answer_baseline`, for boxes `radloop.engine.box_assess`; the rest is of
    masks.

    Each label is judged alone, so bands may overlap, which flatters the floor a little.

    Args:
        recipe: whose preprocessing and labels.
        train_cases: where the bands are fitted, evenly thinned to 40; empty masks are predicted where there is none.
        eval_cases: what is scored.
        cache: where preprocessed cases are kept; a temporary folder by default.
    """
    if recipe.kind == "detection":
        return box_baseline(recipe, train_cases, eval_cases)
    if recipe.kind == "risk":
        return risk_baseline(recipe, train_cases, eval_cases)
    if recipe.kind in CLASS_KINDS:
        return answer_baseline(recipe, train_cases, eval_cases)
    if cache is None:
        with TemporaryDirectory(prefix="radloop-baseline-") as folder:
            return baseline_cases(recipe, train_cases, eval_cases, Path(folder))
    train = prepare(recipe, _thinned(train_cases), cache).ready
    held_out = prepare(recipe, eval_cases, cache).ready
    edges = [_edges(train, channel) for channel in range(len(recipe.channels))]
    bands = {n: _best_band([case for case in train if case.known[n]], n, edges) for n in recipe.labels.values()}

    def dice(case: Prepared) -> dict[str, float | None]:
        return {name: _score(case, n, edges, bands[n]) if case.known[n] else None for name, n in recipe.labels.items()}

    return [CaseScore(c.case.study, c.case.patient, dice(c), row=c.case.row) for c in held_out]


Band = tuple[int, int, int]
"""Channel, first bin, last bin."""


def _thinned(cases: Sequence[Case]) -> list[Case]:
    if len(cases) <= _MOST_CASES:
        return list(cases)
    return [cases[i] for i in np.linspace(0, len(cases) - 1, _MOST_CASES).round().astype(int)]


def _edges(cases: Sequence[Prepared], channel: int) -> np.ndarray:
    """Inner edges of bins that hold about as many voxels each, inside labels and outside counted alike."""
    if not cases:
        return np.empty(0)
    rng = np.random.default_rng(0)
    values = []
    for case in cases:
        flat, inside = case.image[channel].reshape(-1), np.flatnonzero(case.label.reshape(-1))
        values.append(flat[rng.integers(0, flat.size, _VALUES_A_CASE)])
        if inside.size:
            values.append(flat[rng.choice(inside, _VALUES_A_CASE)])
    return np.unique(np.quantile(np.concatenate(values).astype(np.float32), np.linspace(0, 1, _BINS + 1)[1:-1]))


def _counts(case: Prepared, label: int, channel: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of each bin, and those of them inside the label."""
    bins = np.searchsorted(edges, np.asarray(case.image[channel], dtype=np.float32).reshape(-1))
    inside = np.asarray(case.label).reshape(-1) == label
    return np.bincount(bins, minlength=len(edges) + 1), np.bincount(bins[inside], minlength=len(edges) + 1)


def _best_band(cases: Sequence[Prepared], label: int, edges: Sequence[np.ndarray]) -> Band | None:
    """The band with the highest mean Dice over `cases`; None where the empty mask does as well."""
    if not cases:
        return None
    best, score = None, fmean(float(not (np.asarray(case.label) == label).any()) for case in cases)
    for channel, inner in enumerate(edges):
        size = len(inner) + 1
        total = np.zeros((size, size))
        for case in cases:
            total += _dice_of_bands(*_counts(case, label, channel, inner))
        first, last = np.unravel_index(int(total.argmax()), total.shape)
        if total[first, last] / len(cases) > score:
            best, score = (channel, int(first), int(last)), float(total[first, last]) / len(cases)
    return best


def _dice_of_bands(every: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(bins, bins) Dice of the band from the first to the last bin; 0 below the diagonal."""
    sums = [np.concatenate([[0], np.cumsum(count)]) for count in (every, inside)]
    predicted, overlap = (s[None, 1:] - s[:-1, None] for s in sums)
    either = predicted + inside.sum()
    dice = np.where(either > 0, 2 * overlap / np.maximum(either, 1), 1.0)
    return np.triu(dice)


def _score(case: Prepared, label: int, edges: Sequence[np.ndarray], band: Band | None) -> float:
    if band is None:
        return float(not (np.asarray(case.label) == label).any())
    channel, first, last = band
    every, inside = _counts(case, label, channel, edges[channel])
    return float(_dice_of_bands(every, inside)[first, last])
