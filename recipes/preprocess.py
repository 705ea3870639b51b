"""From a file's voxels to the network's grid and back: the one preprocessing of prediction, training and validation.

The grid has the closest RAS orientation (axes only flipped and swapped; what is oblique stays in the affine), the
recipe's spacing or size and normalised intensities, as in nnU-Net (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import nibabel as nib
import numpy as np
import torch
from torch.nn import functional

from radloop.recipes.errors import BadImage, BadLabel
from radloop.recipes.normalise import normalise
from radloop.recipes.recipe import Recipe
from radloop.recipes.resample import resize_image, resize_label, resized_affine, winners
from radloop.recipes.volume import Volume

Shape = tuple[int, int, int]

# 4 GiB of float32 a channel. More comes from a wrong spacing in the file or in the recipe.
MAX_VOXELS = 1 << 30


@dataclass(frozen=True, eq=False)
class Grid:
    """The network's grid of one study, and all that is needed to go back to the file's.

    Attributes:
        source_shape: voxels of the file along its own axes.
        source_affine: 4x4, file voxel -> RAS world, mm.
        shape: voxels of the grid along R, A, S.
        affine: 4x4, grid voxel -> RAS world, mm.
        axes: for each axis of the grid, the file's axis it is.
        flips: for each axis of the grid, whether it runs against the file's axis.
    """

    source_shape: Shape
    source_affine: np.ndarray
    shape: Shape
    affine: np.ndarray
    axes: Shape
    flips: tuple[bool, bool, bool]

    @property
    def oriented_shape(self) -> Shape:
        """Voxels along R, A, S before resampling."""
        x, y, z = (self.source_shape[axis] for axis in self.axes)
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the grid along R, A, S, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """A view of a file's array (X, Y, Z) with the axes of the grid, not resampled."""
        return self._flip(array.transpose(self.axes))

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """A view of an array with the axes of the grid, not resampled, as (X, Y, Z) of the file."""
        return self._flip(array).transpose(np.argsort(self.axes))

    def _flip(self, array: np.ndarray) -> np.ndarray:
        return array[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]


class Preprocess:
    """A recipe's way from a file's voxels to its network's grid and back.

    Everything is 3D; a 2D picture has one slice. A 2D recipe resamples axes 0 and 1 only and its network works slice by
    slice along axis 2. There, an image of one slice keeps that slice whole, however it lies in the world.

    Args:
        recipe: the question; its `preprocess` and `dimension` decide.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def image(self, volume: Volume) -> tuple[torch.Tensor, Grid]:
        """The network's input (C, x, y, z) float32 on the RAS grid, and the grid; a channel that is missing is 0.

        Raises:
            BadImage: the number of channels is not the recipe's, a channel is missing that is not optional, the affine
                is no affine, or the grid is too large.
        """
        expected = len(self.recipe.channels)
        if volume.array.shape[0] != expected:
            msg = f"the study has {volume.array.shape[0]} channels; recipe {self.recipe.name!r} needs {expected}"
            raise BadImage(msg)
        needed = [self.recipe.channels[place] for place in volume.missing if place not in self.recipe.may_lack]
        if needed:
            msg = f"the study lacks channel {needed[0]!r}, which recipe {self.recipe.name!r} does not call optional"
            raise BadImage(msg)
        grid = self.grid(volume)
        image = torch.zeros((expected, *grid.shape))
        for number, channel in enumerate(volume.array):
            if number not in volume.missing:
                image[number] = self._channel(channel, grid)
        if not torch.isfinite(image.sum()):
            msg = "the image holds voxels that are not finite or beyond float32 (3.4e38); rescale the file"
            raise BadImage(msg)
        return image, grid

    def _channel(self, channel: np.ndarray, grid: Grid) -> torch.Tensor:
        values = np.array(grid.to_ras(channel), dtype=np.float32, order="C")
        tensor = torch.from_numpy(values)[None]
        # Normalised first: what is clipped (metal, padding) must not bleed into its neighbours.
        return resize_image(normalise(tensor, self.recipe.preprocess), grid.shape)[0]

    def label(self, mask: Volume, grid: Grid) -> torch.Tensor:
        """A mask's ids (x, y, z) uint8 on the grid of its study, nearest voxel.

        Args:
            mask: (1, X, Y, Z) integer ids 0..N on the voxels of the study's file.
            grid: what `image` gave for the study.

        Raises:
            BadLabel: the mask lies on other voxels than the study, or holds ids that the recipe has not.
        """
        voxels = mask.array[0]
        if not mask.same_grid(Volume(np.empty((1, *grid.source_shape), dtype=np.bool_), grid.source_affine)):
            msg = f"the label's voxels {mask.shape} are not those of the study {grid.source_shape}; resample the label"
            raise BadLabel(msg)
        low, high = int(voxels.min()), int(voxels.max())
        if low < 0 or high > len(self.recipe.labels):
            msg = f"the label holds ids {low}..{high}; recipe {self.recipe.name!r} has 0..{len(self.recipe.labels)}"
            raise BadLabel(msg)
        picked = resize_label(grid.to_ras(voxels), grid.shape)
        return torch.from_numpy(np.array(picked, dtype=np.uint8, order="C"))

    def restore(self, probabilities: torch.Tensor, grid: Grid) -> np.ndarray:
        """The winning class of every voxel of the file, (X, Y, Z) uint8 in the file's own axes.

        Args:
            probabilities: (K, x, y, z) probabilities or logits, any float, on any device; resized linearly before the
                winner is taken, in slabs, so that memory stays bounded.
            grid: what `image` gave for the study.
        """
        if tuple(probabilities.shape[1:]) != grid.shape:
            msg = f"probabilities have shape {tuple(probabilities.shape[1:])}; the grid has {grid.shape}"
            raise ValueError(msg)
        return np.ascontiguousarray(grid.to_file(winners(probabilities, grid.oriented_shape)))

    def restore_values(self, values: torch.Tensor, grid: Grid) -> np.ndarray:
        """A number a voxel, such as a probability, on the file's voxels: (X, Y, Z) float32, resized linearly.

        Args:
            values: (x, y, z).
            grid: what `image` gave for the study.
        """
        resized = functional.interpolate(values.float()[None, None].cpu(), grid.oriented_shape, mode="trilinear")
        return np.ascontiguousarray(grid.to_file(resized[0, 0].numpy()))

    def grid(self, volume: Volume) -> Grid:
        """The grid on which the network sees an image, from its shape and affine alone.

        Raises:
            BadImage: the affine is no affine, or the grid would be too large.
        """
        axes, flips = self._orientation(volume)
        oriented: Shape = tuple(volume.shape[axis] for axis in axes)  # type: ignore[assignment]
        turn = np.zeros((4, 4))
        turn[3, 3] = 1.0
        for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
            turn[old, new] = -1.0 if flip else 1.0
            turn[old, 3] = volume.shape[old] - 1 if flip else 0.0
        affine = volume.affine @ turn
        shape = self._target_shape(oriented, np.linalg.norm(affine[:3, :3], axis=0))
        return Grid(volume.shape, volume.affine, shape, resized_affine(affine, oriented, shape), axes, flips)

    def _orientation(self, volume: Volume) -> tuple[Shape, tuple[bool, bool, bool]]:
        """For each axis of the grid, the file's axis and whether it is flipped."""
        linear = volume.affine[:3, :3]
        if not np.isfinite(volume.affine).all() or abs(np.linalg.det(linear)) < 1e-12:
            msg = "the image's affine has no inverse; its header does not say where the voxels are"
            raise BadImage(msg)
        found = nib.orientations.io_orientation(volume.affine)
        axes = [int(axis) for axis in np.argsort(found[:, 0])]
        thin = [axis for axis in axes if volume.shape[axis] == 1]
        if self.recipe.dimension == 2 and len(thin) == 1:  # a lone sagittal or coronal slice is a picture too
            axes.remove(thin[0])
            axes.append(thin[0])
        x, y, z = axes
        flips = tuple(bool(found[axis, 1] < 0) for axis in axes)
        return (x, y, z), flips  # type: ignore[return-value]

    def _target_shape(self, shape: Shape, spacing: np.ndarray) -> Shape:
        how = self.recipe.preprocess
        if how.size:
            x, y, z = fitted_shape(shape, spacing, how.size)
        elif how.spacing:
            wanted = (*how.spacing, float(spacing[2]))[:3]
            x, y, z = (max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, wanted, strict=True))
        else:
            return shape
        if math.prod((x, y, z)) > MAX_VOXELS:
            size = " x ".join(f"{value:.3g}" for value in spacing)
            key = "lower preprocess.size" if how.size else "raise preprocess.spacing"
            msg = (
                f"an image of {shape} voxels of {size} mm would become {(x, y, z)}; "
                f"check the file's spacing, or {key} of recipe {self.recipe.name!r}"
            )
            raise BadImage(msg)
        return x, y, z


def fitted_shape(shape: Shape, spacing: Sequence[float] | np.ndarray, size: tuple[int, ...]) -> Shape:
    """The voxels of the largest grid within `size` that keeps an image's proportions in mm.

    Its voxels are as long as wide, as a body is; two numbers of `size` leave the third axis as it is.

    Args:
        shape: voxels along R, A, S.
        spacing: their size in mm.
        size: the most voxels along these axes.
    """
    lengths = [n * mm for n, mm in zip(shape, spacing, strict=True)][: len(size)]
    voxel = max(length / most for length, most in zip(lengths, size, strict=True))
    fitted = (min(most, max(1, round(length / voxel))) for length, most in zip(lengths, size, strict=True))
    x, y, z = chain(fitted, shape[len(size) :])
    return x, y, z
