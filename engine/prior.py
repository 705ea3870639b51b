"""What balancing does to probabilities, and how it is undone.

A training that weighs rare classes, or draws them more often, learns probabilities of a world in which they are less
rare. Its logits are shifted back by the logarithm of how much more often they were seen (Saerens et al., Neural
Computation 14:21, 2002; Menon et al., ICLR 2021), so that a probability is one of the studies there are.
"""

from __future__ import annotations

import numpy as np

from radloop.evaluation.class_answers import probabilities
from radloop.recipes.recipe import Kind

_SMALLEST = 1e-6  # of a share


def overseen(kind: Kind, truth: np.ndarray, chances: np.ndarray | None, weights: np.ndarray | None) -> np.ndarray:
    """(K,) logarithm of how much more often a training saw each label than it is, odds where it is a finding.

    Args:
        kind: of the recipe.
        truth: (n, K) 1, 0, or NaN where nobody looked.
        chances: (n,) of each study to be drawn; None where all are drawn alike.
        weights: (K,) of the loss, see `radloop.engine.losses.answer_loss`; None where all weigh alike.
    """
    found = np.zeros(truth.shape[1])
    if weights is not None:
        found += np.log(weights, out=np.zeros_like(found), where=weights > 0)
    if chances is not None:
        drawn, real = (_share(kind, truth, of) for of in (chances, np.ones(len(truth))))
        seen = (drawn > 0) & (real > 0)
        found[seen] += np.log(drawn[seen] / real[seen])
    return found


def _share(kind: Kind, truth: np.ndarray, often: np.ndarray) -> np.ndarray:
    """(K,) of each label among the studies that were looked at, each as often as (n,) says; odds of findings."""
    known = ~np.isnan(truth)
    yes, every = np.nan_to_num(truth).T @ often, known.T @ often
    rest = every - yes if kind == "multilabel" else every
    return np.divide(yes, rest, out=np.zeros_like(yes), where=rest > 0)


def as_seen_in_life(kind: Kind, logits: np.ndarray, overseen: np.ndarray) -> np.ndarray:
    """(N, outputs) logits without what balancing added."""
    if kind != "ordinal":
        return logits - overseen
    grades = probabilities(logits, kind) * np.exp(-overseen)
    below = np.clip((grades / grades.sum(1, keepdims=True)).cumsum(1)[:, :-1], _SMALLEST, 1 - _SMALLEST)
    return np.log((1 - below) / below)
