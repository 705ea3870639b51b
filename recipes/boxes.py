"""A box around something, the one form in which boxes travel through the rooms.

A box lies along the study's own axes, as its voxels do. Its centre is a place in the world, its sizes are told by the
world's axis that each axis of the study is nearest to: so no orientation of the file changes a box, and none is blurred
by turning it there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A box around something.

    Attributes:
        label: what is in it.
        centre: RAS world, mm.
        size: mm along the study's axes that are nearest to R, A and S.
        score: probability that it is right; None where a reader drew it.
    """

    label: str
    centre: Three
    size: Three
    score: float | None = None


def edges(boxes: Sequence[Box], affine: np.ndarray) -> np.ndarray:
    """(n, 6) float64: where boxes begin and end along the axes of a grid, in voxels; voxel i reaches from i to i + 1.

    Args:
        affine: 4x4, voxel -> RAS world in mm, of the study's file or of its grid turned and resampled.
    """
    if not boxes:
        return np.empty((0, 6))
    centres = np.array([box.centre for box in boxes]) - affine[:3, 3]
    middle = np.linalg.solve(affine[:3, :3], centres.T).T + 0.5
    half = np.array([box.size for box in boxes])[:, _world_axes(affine)] / _spacing(affine) / 2
    return np.hstack([middle - half, middle + half])


def boxes_of(
    found: np.ndarray, labels: Sequence[str], affine: np.ndarray, scores: Sequence[float] | None = None
) -> list[Box]:
    """Boxes from (n, 6) edges on a grid; the other way of `edges`."""
    low, high = np.asarray(found, dtype=float).reshape(-1, 6)[:, :3], np.asarray(found, float).reshape(-1, 6)[:, 3:]
    centres = ((low + high) / 2 - 0.5) @ affine[:3, :3].T + affine[:3, 3]
    sizes = ((high - low) * _spacing(affine))[:, np.argsort(_world_axes(affine))]
    given: Sequence[float | None] = [None] * len(low) if scores is None else scores
    return [
        Box(label, _three(centre), _three(size), score)
        for label, centre, size, score in zip(labels, centres, sizes, given, strict=True)
    ]


def directions(affine: np.ndarray) -> np.ndarray:
    """3x3: unit vectors of the study's axes nearest to R, A and S, in columns, each pointing that way."""
    axes = np.argsort(_world_axes(affine))
    unit = (affine[:3, :3] / _spacing(affine))[:, axes]
    return unit * np.where(np.diag(unit) < 0, -1.0, 1.0)


def _spacing(affine: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _world_axes(affine: np.ndarray) -> np.ndarray:
    """For each axis of the grid, the world's axis that it is nearest to."""
    return np.asarray(nib.orientations.io_orientation(affine)[:, 0], dtype=int)


def _three(values: np.ndarray) -> Three:
    x, y, z = (float(value) for value in values)
    return x, y, z
