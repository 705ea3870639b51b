"""What strategies share: a fixed order, studies that nobody scored yet, noise, distances between images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from radloop.strategies.choose import Candidate

Pick = Callable[[list[Candidate], int], list[str]]


def in_order(pool: Sequence[Candidate]) -> list[Candidate]:
    """The pool by study id, so that no choice depends on how it was listed."""
    return sorted(pool, key=lambda one: one.study)


def drawn(pool: Sequence[Candidate], k: int, rng: np.random.Generator) -> list[str]:
    """Ids of `k` studies at random."""
    return [pool[place].study for place in rng.permutation(len(pool))[:k]]


def with_unscored(
    pool: Sequence[Candidate], key: str, k: int, rng: np.random.Generator, pick: Pick, *, shuffled: bool = True
) -> list[str]:
    """Ids of `k` studies: those with a score as `pick` says, the others at random, as many as is their share.

    So a study that came after the scoring waits no longer than one drawn at random would, and without any score the
    draw is a random one.

    Args:
        pool: studies to choose from.
        key: a name of `scores`, or `embedding`.
        k: how many.
        rng: makes the draw.
        pick: chooses so many of the scored ones, the one to read first first.
        shuffled: whether those without a score may come before others; else they come last.
    """
    known: list[Candidate] = []
    unknown: list[Candidate] = []
    for one in in_order(pool):
        (known if (one.embedding is not None if key == "embedding" else key in one.scores) else unknown).append(one)
    k = min(k, len(pool))
    blind = int(rng.hypergeometric(len(unknown), len(known), k)) if k and unknown and known else k * bool(unknown)
    others, chosen = drawn(unknown, blind, rng), pick(known, k - blind) if k > blind else []
    if not others or not chosen:
        return chosen or others
    if not shuffled:
        return [*chosen, *others]
    at = set(rng.choice(k, blind, replace=False).tolist())
    mixed = iter(chosen), iter(others)
    return [next(mixed[place in at]) for place in range(k)]


def highest(pool: Sequence[Candidate], key: str, k: int) -> list[str]:
    """Ids of the `k` studies with the highest score; by id where they are equal."""
    return [one.study for one in sorted(in_order(pool), key=lambda one: -one.scores[key])[:k]]


def power_noise(values: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Logarithms of scores with Gumbel noise of scale 1/beta.

    The largest of them is a draw in proportion to the score to the power of beta (Kirsch et al., Stochastic Batch
    Acquisition, TMLR 2023): 0 draws evenly, infinity takes the highest. A score of 0 comes after all others.
    """
    with np.errstate(divide="ignore"):
        return np.log(values) + rng.gumbel(0.0, 1.0 / beta, len(values))


def vectors(*groups: Sequence[Candidate]) -> list[np.ndarray]:
    """Of each group (n, D) float32 embeddings, each dimension on one scale over all; studies without are left out."""
    found = [[one.embedding for one in group if one.embedding is not None] for group in groups]
    flat = [each for group in found for each in group]
    if not flat:
        return [np.zeros((0, 1), np.float32) for _ in groups]
    whole = np.stack(flat).astype(np.float32)
    spread = whole.std(axis=0)
    whole = (whole - whole.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0) / np.sqrt(whole.shape[1])
    return np.split(whole, np.cumsum([len(group) for group in found])[:-1])


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) distance of each point to the nearest centre; infinite without centres."""
    if not len(centres):
        return np.full(len(points), np.inf, np.float32)
    norms, best = (points**2).sum(axis=1), np.full(len(points), np.inf, np.float32)
    for part in np.array_split(centres, max(1, len(centres) // 512)):
        squared = norms[:, None] - 2 * points @ part.T + (part**2).sum(axis=1)
        best = np.minimum(best, squared.min(axis=1))
    return np.sqrt(np.maximum(best, 0.0))


def to_one(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(n,) distance of each point to one."""
    return np.sqrt(((points - centre) ** 2).sum(axis=1))
