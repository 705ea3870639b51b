"""Which slices of a study spoke for its answer, in the numbers of its own file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from radloop.recipes.preprocess import Grid

_TOLD = 3


class SliceWeight(NamedTuple):
    """A slice and how much of the answer came from it.

    Attributes:
        number: of the slice in the file, from 0.
        axis: of the file that it is counted along.
        weight: 0..1; over all slices of the study they sum to 1.
    """

    number: int
    axis: int
    weight: float


def heaviest(weights: Sequence[float], places: Sequence[int], grid: Grid) -> tuple[SliceWeight, ...]:
    """The slices that weighed most, the heaviest first; at most three.

    Args:
        weights: of the slices that the network took.
        places: where each of them lies along the grid's third axis.
        grid: of the study.
    """
    axis, count = grid.axes[2], grid.oriented_shape[2]
    found = dict[int, float]()
    for weight, place in zip(weights, places, strict=True):
        index = min(count - 1, int((place + 0.5) / grid.shape[2] * count))
        index = count - 1 - index if grid.flips[2] else index
        found[index] = found.get(index, 0.0) + float(weight)
    order = sorted(found, key=lambda index: (-found[index], index))
    return tuple(SliceWeight(index, axis, found[index]) for index in order[:_TOLD])


def thinned(count: int, most: int) -> np.ndarray:
    """Which of `count` slices a network that takes at most `most` is given: all, or evenly spread ones."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)
