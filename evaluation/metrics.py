"""How close a mask is to a reader's: overlap, surfaces, volume; one number a label id.

Every function takes integer masks of one shape (X, Y, Z) and the ids to score. `known` are the ids that the reader
looked at (all where None); the others score None, because an absent name says nothing. No function returns NaN.

Where one or both masks have no voxel of a label:

    ===============  ==========  ===============
    metric           both empty  one empty
    ===============  ==========  ===============
    Dice             1.0         0.0
    surface Dice     1.0         0.0
    HD95             None        None, and `one_sided` is True so that reports count it
    ===============  ==========  ===============
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radloop.recipes.errors import BadInput

if TYPE_CHECKING:
    import torch

Scores = dict[int, "float | None"]


def dice(pred: np.ndarray, true: np.ndarray, ids: Iterable[int], known: Collection[int] | None = None) -> Scores:
    """Dice's overlap 2|A∩B| / (|A|+|B|) of each id, 0 to 1 (Dice, Ecology 1945)."""

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        return 2.0 * int(np.count_nonzero(a & b)) / (int(np.count_nonzero(a)) + int(np.count_nonzero(b)))

    return _each(pred, true, ids, known, overlap, both_empty=1.0, one_empty=0.0)


def surface_dice(
    pred: np.ndarray,
    true: np.ndarray,
    ids: Iterable[int],
    spacing: Sequence[float],
    tolerance_mm: float = 1.0,
    known: Collection[int] | None = None,
) -> Scores:
    """Share of both surfaces that lies within `tolerance_mm` of the other, 0 to 1.

    Surface voxels each count once (MONAI's `compute_surface_dice`; Nikolov et al., JMIR 2021; Seidlitz et al., 2022).
    A picture with Z = 1 is scored in its plane.

    Args:
        spacing: voxel size along X, Y, Z in mm.
    """
    from monai.metrics import compute_surface_dice

    def score(a: np.ndarray, b: np.ndarray) -> float:
        one, other, size = _surface_input(a, b, spacing)
        found = compute_surface_dice(one, other, [tolerance_mm], include_background=True, spacing=size)
        return float(found[0, 0])

    return _each(pred, true, ids, known, score, both_empty=1.0, one_empty=0.0)


def hd95(
    pred: np.ndarray,
    true: np.ndarray,
    ids: Iterable[int],
    spacing: Sequence[float],
    known: Collection[int] | None = None,
) -> Scores:
    """The larger of the two directed 95th percentiles of surface distance, mm (MONAI's `compute_hausdorff_distance`).

    A distance to nothing has no value: None where one or both masks are empty.

    Args:
        spacing: voxel size along X, Y, Z in mm.
    """
    from monai.metrics import compute_hausdorff_distance

    def score(a: np.ndarray, b: np.ndarray) -> float:
        one, other, size = _surface_input(a, b, spacing)
        found = compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=size)
        return float(found[0, 0])

    return _each(pred, true, ids, known, score, both_empty=None, one_empty=None)


def one_sided(pred: np.ndarray, true: np.ndarray, ids: Iterable[int]) -> dict[int, bool]:
    """Which ids only one of the masks has: missed altogether, or drawn where there is none."""
    _check(pred, true)
    return {i: bool((pred == i).any()) != bool((true == i).any()) for i in ids}


def volume_ml(mask: np.ndarray, ids: Iterable[int], spacing: Sequence[float]) -> dict[int, float]:
    """Volume of each id in ml.

    Args:
        spacing: voxel size along X, Y, Z in mm.
    """
    voxel = float(np.prod(np.asarray(spacing, dtype=float))) / 1000.0
    return {i: int(np.count_nonzero(mask == i)) * voxel for i in ids}


def _each(
    pred: np.ndarray,
    true: np.ndarray,
    ids: Iterable[int],
    known: Collection[int] | None,
    score: Callable[[np.ndarray, np.ndarray], float],
    *,
    both_empty: float | None,
    one_empty: float | None,
) -> Scores:
    """The score of each known id, with the stated values where a mask has none of it."""
    _check(pred, true)
    found: Scores = {}
    for i in ids:
        if known is not None and i not in known:
            found[i] = None
            continue
        a, b = pred == i, true == i
        filled = bool(a.any()) + bool(b.any())
        found[i] = (both_empty, one_empty)[filled] if filled < 2 else score(a, b)
    return found


def _check(pred: np.ndarray, true: np.ndarray) -> None:
    if pred.shape != true.shape:
        msg = f"masks of shape {pred.shape} and {true.shape} cannot be compared; bring both to one grid first"
        raise BadInput(msg)


def _surface_input(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """MONAI's (1, 1, ...) tensors, cut to where either mask is, without a flat third axis."""
    import torch

    size = [float(s) for s in spacing]
    if len(size) != a.ndim:
        msg = f"spacing {tuple(size)} has {len(size)} numbers; a mask of shape {a.shape} needs {a.ndim}"
        raise BadInput(msg)
    # A flat third axis would make every voxel a surface voxel.
    if a.ndim == 3 and a.shape[2] == 1:
        a, b, size = a[..., 0], b[..., 0], size[:2]
    box = _box(a | b)
    one, other = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (a, b))
    return one, other, size


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask that has at least one voxel."""
    sides = []
    for axis in range(mask.ndim):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        sides.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(sides)
