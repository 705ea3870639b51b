"""Sizes of a network: channels, strides and kernels at each resolution, from the recipe or derived from its patch.

The rule is nnU-Net's (Isensee et al., Nature Methods 2021): halve every axis while at least 4 voxels are left and its
voxels are not twice as coarse as the finest axis; double the channels with each resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from radloop.recipes.errors import BadRecipe
from radloop.recipes.recipe import Recipe

BASE_FEATURES = 16
MOST_FEATURES = 256
SMALLEST_AXIS = 4


@dataclass(frozen=True)
class Topology:
    """Sizes at each resolution, from the finest; axes in the order R, A, S (two in 2D)."""

    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Voxels of the input that make one voxel of the coarsest resolution, by axis."""
        return tuple(prod(axis) for axis in zip(*self.strides, strict=True))


def topology(recipe: Recipe) -> Topology:
    """The sizes that `recipe.network` names; where it names none, nnU-Net's rule applied to `recipe.fit.patch`.

    Raises:
        BadRecipe: strides that do not fit the dimension, are below 1, or leave a patch of one voxel.
    """
    strides = recipe.network.strides or _strides(recipe.fit.patch, _spacing(recipe))
    _check(strides, recipe)
    features = recipe.network.features or tuple(min(BASE_FEATURES * 2**i, MOST_FEATURES) for i in range(len(strides)))
    return Topology(features, strides, _kernels(strides, _spacing(recipe)))


def min_multiple(recipe: Recipe) -> tuple[int, ...]:
    """Voxels along each axis of which every input of the recipe's network must be a multiple."""
    return topology(recipe).total_stride


def patch_shape(recipe: Recipe) -> tuple[int, ...]:
    """`recipe.fit.patch` rounded up to what the network can take, along R, A, S (two numbers in 2D)."""
    return tuple(ceil(size / m) * m for size, m in zip(recipe.fit.patch, min_multiple(recipe), strict=True))


def _spacing(recipe: Recipe) -> tuple[float, ...]:
    return recipe.preprocess.spacing or (1.0,) * recipe.dimension


def _strides(patch: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
    rows = [(1,) * len(patch)]
    size, mm = list(patch), list(spacing)
    while True:
        large = [i for i, n in enumerate(size) if n >= 2 * SMALLEST_AXIS]
        if not large:
            return tuple(rows)
        finest = min(mm[i] for i in large)
        row = tuple(2 if i in large and mm[i] < 2 * finest else 1 for i in range(len(patch)))
        size = [ceil(n / s) for n, s in zip(size, row, strict=True)]
        mm = [v * s for v, s in zip(mm, row, strict=True)]
        rows.append(row)


def _kernels(strides: tuple[tuple[int, ...], ...], spacing: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
    """3 along each axis, 1 along those whose voxels are still twice as coarse as the finest."""
    rows, mm = [], list(spacing)
    for row in strides:
        mm = [v * s for v, s in zip(mm, row, strict=True)]
        rows.append(tuple(3 if v < 2 * min(mm) else 1 for v in mm))
    return tuple(rows)


def _check(strides: tuple[tuple[int, ...], ...], recipe: Recipe) -> None:
    for number, row in enumerate(strides, start=1):
        if len(row) != recipe.dimension or min(row) < 1:
            msg = f"network.strides row {number} is {list(row)}; it must have {recipe.dimension} numbers of 1 or more"
            raise BadRecipe(msg)
    total = [prod(axis) for axis in zip(*strides, strict=True)]
    if all(n <= t for n, t in zip(recipe.fit.patch, total, strict=True)):
        msg = f"network.strides shrink the patch {list(recipe.fit.patch)} to one voxel; drop a row or enlarge fit.patch"
        raise BadRecipe(msg)
