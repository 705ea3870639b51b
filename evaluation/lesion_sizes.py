"""The lesions of a mask and how large they are: volume and longest diameters.

A lesion is a connected component, joined over faces, edges and corners as in `metrics.lesions`. A diameter is the
largest distance between two points of its surface, which lie in the middle of the voxel faces it shows: so one voxel is
as long as its longest side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import io_orientation
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

_EVERY_PAIR = 200  # points whose distances are all looked at; of more only those of the convex hull


@dataclass(frozen=True)
class Lesion:
    """How large one lesion is.

    Attributes:
        volume_ml: voxels times their volume.
        axial_mm: the largest diameter within one axial slice, as RECIST 1.1 measures; of a picture in its plane.
        longest_mm: the largest diameter in any direction.
        centre: RAS mm of its centre of mass.
    """

    volume_ml: float
    axial_mm: float
    longest_mm: float
    centre: tuple[float, float, float]


def count_lesions(mask: np.ndarray) -> int:
    """How many lesions a mask (X, Y, Z) has."""
    return int(ndimage.label(mask, np.ones((3, 3, 3)))[1])


def lesion_sizes(mask: np.ndarray, affine: np.ndarray, most: int | None = None) -> list[Lesion]:
    """The lesions of a mask from the largest volume down.

    Args:
        mask: (X, Y, Z) bool, axes as in the file.
        affine: 4x4, voxel -> RAS world in mm.
        most: only so many of the largest.
    """
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(parts)
    upright = _upright(mask.shape, affine)
    order = np.argsort(-sizes, kind="stable")[:most]
    return [_lesion(parts[boxes[i]] == i + 1, _moved(affine, boxes[i]), upright) for i in order]


def longest_diameter(mask: np.ndarray, affine: np.ndarray) -> float:
    """The largest diameter of one lesion (X, Y, Z) in any direction, mm."""
    return _longest([_faces(mask, axis) for axis in range(3)], affine[:3, :3])


def _longest(faces: list[np.ndarray], linear: np.ndarray) -> float:
    return _farthest(np.concatenate(faces) @ linear.T)


def _moved(affine: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """The affine of a part of the voxels."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ [part.start for part in box] + affine[:3, 3]
    return moved


def _lesion(mask: np.ndarray, affine: np.ndarray, upright: int) -> Lesion:
    linear = affine[:3, :3]
    faces = [_faces(mask, axis) for axis in range(3)]
    x, y, z = linear @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    return Lesion(
        volume_ml=float(mask.sum() * abs(np.linalg.det(linear)) / 1000),
        axial_mm=max(_farthest(points @ linear.T) for points in _by_slice(faces, upright)),
        longest_mm=_longest(faces, linear),
        centre=(float(x), float(y), float(z)),
    )


def _upright(shape: tuple[int, ...], affine: np.ndarray) -> int:
    """The file's axis that runs closest to foot-head, across which axial slices lie; of a picture its thin one."""
    if shape.count(1) == 1:
        return shape.index(1)
    return int(np.argmax(io_orientation(affine)[:, 0] == 2))


def _faces(mask: np.ndarray, axis: int) -> np.ndarray:
    """(n, 3) in voxels: the middle of every face across an axis between the lesion and what is outside."""
    width = [(1, 1) if each == axis else (0, 0) for each in range(3)]
    places = np.argwhere(np.diff(np.pad(mask, width).astype(np.int8), axis=axis) != 0).astype(float)
    places[:, axis] -= 0.5
    return places


def _by_slice(faces: list[np.ndarray], upright: int) -> Iterator[np.ndarray]:
    """The points of each slice, of faces within its plane."""
    points = np.concatenate([of for axis, of in enumerate(faces) if axis != upright])
    for place in np.unique(points[:, upright]):
        yield points[points[:, upright] == place]


def _farthest(points: np.ndarray) -> float:
    """The largest distance between two of (n, 3) points."""
    if len(points) > _EVERY_PAIR:
        flat = points - points.mean(axis=0)
        _, spread, turn = np.linalg.svd(flat, full_matrices=False)
        inside = flat @ turn[spread > 1e-6 * spread[0]].T  # a slice has two directions
        points = points[ConvexHull(inside).vertices]
    return float(pdist(points).max())
