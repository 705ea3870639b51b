"""How much of a contour a reader still has to draw: the added path length, in mm.

On every slice the outline of the reader's mask is compared with that of the answer; what the answer's outline does not
have is counted, a voxel at a time, and a voxel is as long as its side in the plane. What the answer drew and the reader
has to take away is not counted. (Vaassen et al., Physics and Imaging in Radiation Oncology 13 (2020), where it went
with the time that correcting took, better than Dice or surface distances.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from scipy import ndimage

from radloop.evaluation.metrics import Scores
from radloop.recipes.errors import BadInput


def added_path_length(
    pred: np.ndarray,
    true: np.ndarray,
    ids: Iterable[int],
    spacing: Sequence[float],
    known: Collection[int] | None = None,
) -> Scores:
    """The length in mm of each id's outline in `true` that `pred` lacks; 0 where `true` has none of it.

    Slices lie across the axis of the largest voxel size, the last of equals; a flat picture is one slice.

    Args:
        pred: (X, Y, Z) ids of the answer.
        true: (X, Y, Z) ids of the reader.
        ids: those to measure.
        spacing: voxel size along X, Y, Z in mm.
        known: ids that the reader looked at, all where None; the others score None.
    """
    if pred.shape != true.shape or len(spacing) != true.ndim or true.ndim != 3:
        msg = f"masks of shape {pred.shape} and {true.shape} with spacing {tuple(spacing)} cannot be compared"
        raise BadInput(msg)
    across = _across(true.shape, spacing)
    side = math.sqrt(math.prod(float(size) for axis, size in enumerate(spacing) if axis != across))
    found: Scores = {}
    for i in ids:
        theirs = true == i
        lacking = outline(theirs, across) & ~outline(pred == i, across) if theirs.any() else theirs
        found[i] = None if known is not None and i not in known else side * int(np.count_nonzero(lacking))
    return found


def outline(mask: np.ndarray, across: int) -> np.ndarray:
    """Voxels of a mask with a neighbour outside of it in their slice; beyond the image is outside."""
    plane = ndimage.generate_binary_structure(3, 1)
    keep = np.zeros_like(plane)
    middle = tuple(1 if axis == across else slice(None) for axis in range(3))
    keep[middle] = plane[middle]
    return mask & ~ndimage.binary_erosion(mask, keep)


def _across(shape: Sequence[int], spacing: Sequence[float]) -> int:
    flat = [axis for axis, count in enumerate(shape) if count == 1]
    return max(flat or range(3), key=lambda axis: (float(spacing[axis]), axis))
