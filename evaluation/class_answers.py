"""Answers about a whole study in numbers: probabilities, truth, and the answer that probabilities stand for.

Probabilities `p` and truth `y` are (n, K) over a recipe's labels in order. Truth is 1, 0, or NaN where nobody looked,
which is left out of every figure. In `classification` and `ordinal` each row of `p` sums to 1 and each row of `y` has
one 1, or is NaN throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from radloop.recipes.errors import BadInput, closest
from radloop.recipes.recipe import CLASS_KINDS, Kind

ROUNDING = 1e-3  # rows of float32, or of a table with few digits, do not sum to 1 exactly
CELLS = 2_000_000  # numbers in memory at once while patients are drawn


@dataclass(frozen=True)
class Answers:
    """Probabilities and truth that fit each other, without the studies that nobody looked at.

    Attributes:
        p: (n, K) probabilities.
        y: (n, K) truth; NaN only in single findings of `multilabel`.
        patients: whose study each row is.
        kind: the recipe's kind.
        labels: K names.
    """

    p: np.ndarray
    y: np.ndarray
    patients: tuple[str, ...]
    kind: Kind
    labels: tuple[str, ...]

    @property
    def exclusive(self) -> bool:
        """Whether exactly one label holds in each study."""
        return self.kind != "multilabel"

    @property
    def known(self) -> np.ndarray:
        """(n, K) bool: what was looked at."""
        return ~np.isnan(self.y)


def check_answers(
    p: np.ndarray, y: np.ndarray, patients: Sequence[str], *, kind: Kind, labels: Sequence[str] = ()
) -> Answers:
    """The answers, once they fit each other; `labels` are 1..K where no names are given.

    Raises:
        BadInput: shapes, probabilities, truth or kind are not as the module says.
    """
    probabilities, truth = np.asarray(p, dtype=float), np.asarray(y, dtype=float)
    if kind not in CLASS_KINDS:
        msg = f"kind is {kind!r}; allowed are {', '.join(CLASS_KINDS)}{closest(kind, CLASS_KINDS)}"
        raise BadInput(msg)
    if probabilities.ndim != 2 or probabilities.shape != truth.shape or len(patients) != len(truth):
        shapes = f"probabilities are {probabilities.shape}, truth is {truth.shape}, patients are {len(patients)}"
        msg = f"{shapes}; give one row a study, one column a label and one patient a row"
        raise BadInput(msg)
    names = tuple(labels) or tuple(map(str, range(1, probabilities.shape[1] + 1)))
    if len(names) != probabilities.shape[1]:
        msg = f"there are {len(names)} labels and {probabilities.shape[1]} probabilities a study; give one a label"
        raise BadInput(msg)
    _check_probabilities(probabilities, kind)
    _check_truth(truth, kind)
    asked = ~np.isnan(truth).all(axis=1)
    whose = tuple(patient for patient, kept in zip(patients, asked, strict=True) if kept)
    return Answers(probabilities[asked], truth[asked], whose, kind, names)


def answered(p: np.ndarray, kind: Kind) -> np.ndarray:
    """(n, K) bool: what the probabilities say.

    `classification` takes the most probable class, the first of equals; `multilabel` every finding from 0.5;
    `ordinal` the median grade, the first up to which the probabilities sum to 0.5, since that keeps the expected error
    in grades smallest.
    """
    if kind == "multilabel":
        return p >= 0.5
    # rounding must not decide where a sum is 0.5
    place = (p.cumsum(axis=1) < 0.5 - 1e-9).sum(axis=1) if kind == "ordinal" else p.argmax(axis=1)
    return np.arange(p.shape[1]) == np.minimum(place, p.shape[1] - 1)[:, None]


def probabilities(logits: np.ndarray, kind: Kind, temperature: float = 1.0) -> np.ndarray:
    """(n, K) probabilities of a network's logits, which are divided by the temperature first.

    Softmax for `classification`, a sigmoid a finding for `multilabel`. For `ordinal` the K-1 logits are of "above
    grade k"; a later one counts as no larger than those before it, so that no grade gets less than nothing.
    """
    from scipy.special import expit, softmax

    scaled = np.asarray(logits, dtype=float) / temperature
    if kind == "classification":
        return softmax(scaled, axis=1)
    if kind == "multilabel":
        return expit(scaled)
    sides = np.ones((len(scaled), 1)), np.zeros((len(scaled), 1))
    above = np.hstack([sides[0], expit(np.minimum.accumulate(scaled, axis=1)), sides[1]])
    return above[:, :-1] - above[:, 1:]


def draw_patients(
    patients: Sequence[str], *, resamples: int = 2000, seed: int = 0, columns: int = 1
) -> Iterator[np.ndarray]:
    """Bootstrap over patients, in parts that fit in memory: (draws, n), how often each study counts in each draw.

    Args:
        patients: whose each study is.
        resamples: draws in all.
        seed: the same seed gives the same draws.
        columns: numbers that the caller makes of each of these.
    """
    names, owner = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    rng, count = np.random.default_rng(seed), len(names)
    at_once = max(1, CELLS // max(1, len(owner) * columns))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        drawn = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        often = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield often[:, owner].astype(float)


def _check_probabilities(p: np.ndarray, kind: Kind) -> None:
    wrong = ~(np.isfinite(p) & (p >= 0) & (p <= 1 + 1e-9)).all(axis=1)
    if wrong.any():
        msg = f"probabilities of row {wrong.argmax()} are {p[wrong.argmax()].tolist()}; they must lie in 0..1"
        raise BadInput(msg)
    wrong = abs(p.sum(axis=1) - 1) > ROUNDING
    if kind != "multilabel" and wrong.any():
        msg = f"probabilities of row {wrong.argmax()} sum to {p[wrong.argmax()].sum():g}; of {kind} they must sum to 1"
        raise BadInput(msg)


def _check_truth(y: np.ndarray, kind: Kind) -> None:
    unknown = np.isnan(y)
    wrong = ~(unknown | (y == 0) | (y == 1)).all(axis=1)
    if kind != "multilabel":
        wrong |= ~unknown.all(axis=1) & (unknown.any(axis=1) | (np.nansum(y, axis=1) != 1))
    if wrong.any():
        allowed = "1, 0 or NaN" if kind == "multilabel" else "one 1 and else 0, or NaN throughout"
        msg = f"truth of row {wrong.argmax()} is {y[wrong.argmax()].tolist()}; of {kind} it must be {allowed}"
        raise BadInput(msg)
