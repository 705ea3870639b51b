"""A voxel grid to paint on in millimetres: soft-edged shapes, so that small structures show partial volume as in CT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Canvas:
    """Hounsfield units on a grid of any orientation; shapes are given in RAS world coordinates, mm.

    Attributes:
        hu: (X, Y, Z) float32, starts as air.
        affine: 4x4, voxel index -> RAS world in mm.
    """

    def __init__(self, shape: tuple[int, int, int], affine: np.ndarray) -> None:
        self.hu = np.full(shape, -1000.0, np.float32)
        self.affine = affine
        self._inverse = np.linalg.inv(affine)
        self.spacing = np.linalg.norm(affine[:3, :3], axis=0)
        self.softness = float(self.spacing.mean())
        everywhere = tuple(slice(0, n) for n in shape)
        self.x, self.y, self.z = self._world(everywhere)

    def _world(self, box: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        axes = np.ix_(*[np.arange(s.start, s.stop, dtype=np.float32) for s in box])
        rows = [sum(float(row[k]) * axes[k] for k in range(3)) + float(row[3]) for row in self.affine[:3]]
        x, y, z = (np.broadcast_to(row, tuple(s.stop - s.start for s in box)).astype(np.float32) for row in rows)
        return x, y, z

    def coverage(self, distance: np.ndarray) -> np.ndarray:
        """Share of a voxel inside a shape, from the signed distance (mm, negative inside) of its centre."""
        return np.clip(0.5 - distance / self.softness, 0, 1)

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, within: np.ndarray | float = 1.0) -> np.ndarray:
        """Mixes `hu` into the voxels that a shape covers, and returns the coverage (X, Y, Z)."""
        cover = self.coverage(distance) * within
        self.hu += cover * (hu - self.hu)
        return cover

    def box(self, points: np.ndarray, margin: float) -> tuple[slice, ...]:
        """The voxels within `margin` mm of the box around some points (n, 3) in mm."""
        voxel = points @ self._inverse[:3, :3].T + self._inverse[:3, 3]
        pad = margin / self.spacing
        low = np.clip(np.floor(voxel.min(0) - pad), 0, self.hu.shape).astype(int)
        high = np.clip(np.ceil(voxel.max(0) + pad) + 1, 0, self.hu.shape).astype(int)
        return tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))

    def paint_near(self, centre: np.ndarray, reach: float, distance: Distance, hu: float) -> tuple[tuple, np.ndarray]:
        """Paints a small shape given by a function of x, y, z; returns the box touched and the coverage in it."""
        box = self.box(centre[None], reach + self.softness)
        cover = self.coverage(distance(*self._world(box)))
        self.hu[box] += cover * (hu - self.hu[box])
        return box, cover

    def paint_tube(self, start: np.ndarray, end: np.ndarray, radius: float, hu: float, within: np.ndarray) -> None:
        """Paints a round rod; rods thinner than a voxel fade as they do in a scan."""
        box = self.box(np.stack([start, end]), radius + self.softness)
        if 0 in self.hu[box].shape:
            return
        x, y, z = self._world(box)
        axis = end - start
        offset = np.stack([x - start[0], y - start[1], z - start[2]])
        along = np.clip(np.tensordot(axis, offset, 1) / max(float(axis @ axis), 1e-6), 0, 1)
        gap = offset - axis[:, None, None, None] * along
        thin = min(1.0, (2 * radius / self.softness) ** 2)
        cover = self.coverage(np.sqrt((gap**2).sum(0)) - radius) * thin * within[box]
        self.hu[box] += cover * (hu - self.hu[box])


def ellipsoid(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple, axes: tuple, power: float = 2.0
) -> np.ndarray:
    """Signed distance (mm, approximate) to a superellipsoid; an infinite axis makes it a cylinder."""
    rho = sum(
        np.abs((v - c) / a) ** power for v, c, a in zip((x, y, z), centre, axes, strict=True) if np.isfinite(a)
    ) ** (1 / power)
    return (rho - 1) * min(axes)
