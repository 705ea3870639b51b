"""Sizes of a network: channels, strides and kernels at each resolution, from the recipe or derived from its patch.

The rule is nnU-Net's (Isensee et al., Nature Methods 2021): halve every axis while at least 4 voxels are left and its
voxels are not twice as coarse as the finest axis; double the channels with each resolution. Answers about a whole study
and boxes need no full resolution: their networks halve at the first convolution already.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from radloop.recipes.errors import BadRecipe
from radloop.recipes.recipe import JSON_KINDS, STUDY_KINDS, Recipe

BASE_FEATURES = 16
MOST_FEATURES = 256
SMALLEST_AXIS = 4

_STAGES = 4  # of a classifier whose recipe names no features
_WIDTH_3D, _WIDTH_2D, _WIDTH_TOKENS = 128, 256, 192  # features of their last
_MOST_TOKENS = 256  # of a vision transformer: attention takes their square in time


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

    @property
    def in_plane(self) -> Topology:
        """The same for single slices along S."""
        strides, kernels = (tuple(row[:2] for row in rows) for rows in (self.strides, self.kernels))
        return Topology(self.features, strides, kernels)


def topology(recipe: Recipe) -> Topology:
    """The sizes that `recipe.network` names; where it names none, nnU-Net's rule applied to `recipe.fit.patch`.

    Raises:
        BadRecipe: strides that do not fit the dimension, are below 1, leave a patch of one voxel, or merge slices.
    """
    if recipe.kind in JSON_KINDS:
        return _classifier(recipe)
    strides = recipe.network.strides or _strides(recipe.fit.patch, _spacing(recipe))
    _check(strides, recipe)
    features = recipe.network.features or tuple(min(BASE_FEATURES * 2**i, MOST_FEATURES) for i in range(len(strides)))
    return Topology(features, strides, _kernels(strides, _spacing(recipe)))


def min_multiple(recipe: Recipe) -> tuple[int, ...]:
    """Voxels along each axis of which every input of the recipe's network must be a multiple; 1 where any size does."""
    if recipe.kind in STUDY_KINDS:
        return (1,) * recipe.dimension
    return topology(recipe).total_stride


def patch_shape(recipe: Recipe) -> tuple[int, ...]:
    """`recipe.fit.patch` rounded up to what the network can take, along R, A, S (two numbers in 2D)."""
    return tuple(ceil(size / m) * m for size, m in zip(recipe.fit.patch, min_multiple(recipe), strict=True))


def _classifier(recipe: Recipe) -> Topology:
    """Sizes whose first row is the stem's; 1 along S where slices are encoded one by one."""
    by_slice, tokens = recipe.network.name.startswith("slices_"), recipe.network.name == "vit"
    axes = 2 if by_slice else recipe.dimension
    patch, spacing = recipe.fit.patch[:axes], _spacing(recipe)[:axes]
    small = recipe.dimension == 3 or recipe.kind == "detection"
    width = _WIDTH_TOKENS if tokens else _WIDTH_3D if small else _WIDTH_2D
    features = recipe.network.features or tuple(width // 2**i for i in reversed(range(_STAGES)))
    strides = recipe.network.strides
    if strides:
        _check(strides, recipe)
        if by_slice and any(row[2] != 1 for row in strides):
            msg = f"network.strides merges slices; {recipe.network.name!r} needs 1 as the third number of every row"
            raise BadRecipe(msg)
        strides = tuple(row[:axes] for row in strides)
    else:
        rows = _strides(patch, spacing)[1:]
        strides = _stages(_to_tokens(rows, patch) if tokens else rows, len(features), axes)
    kernels, across = _kernels(strides, spacing), (1,) * by_slice
    return Topology(features, tuple(row + across for row in strides), tuple(row + across for row in kernels))


def _to_tokens(rows: tuple[tuple[int, ...], ...], patch: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """As many rows as it takes to leave few enough tokens."""
    size = list(patch)
    for number, row in enumerate(rows):
        if prod(size) <= _MOST_TOKENS:
            return rows[:number]
        size = [ceil(n / s) for n, s in zip(size, row, strict=True)]
    return rows


def _stages(rows: tuple[tuple[int, ...], ...], count: int, axes: int) -> tuple[tuple[int, ...], ...]:
    """Exactly `count` rows: the stem halves twice if there are too many, the last ones halve no more if too few."""
    if len(rows) > count:
        stem = tuple(a * b for a, b in zip(*rows[:2], strict=True))
        return (stem, *rows[2 : count + 1])
    return (*rows, *((1,) * axes,) * (count - len(rows)))


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
