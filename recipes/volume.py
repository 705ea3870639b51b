"""An image with its place in the world, the one form in which voxels travel through the rooms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Volume:
    """Voxels and their place in the world.

    Attributes:
        array: (channels, X, Y, Z), voxel axes as in the file; a 2D picture has Z = 1, X = column, Y = row.
        affine: 4x4, voxel index -> RAS world in mm.
        missing: channels that the study lacks; they hold zeros.
    """

    array: np.ndarray
    affine: np.ndarray
    missing: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        x, y, z = self.array.shape[1:]
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the file's axes, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def same_grid(self, other: Volume, tolerance_mm: float = 0.01) -> bool:
        """Whether both have the same shape and every corner voxel lies within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1)
        corners = np.vstack([corners, np.ones(corners.shape[1])])
        gap = (self.affine - other.affine) @ corners
        return bool(np.abs(gap[:3]).max() <= tolerance_mm)
