"""Draws a sample study in three planes with its mask outlined, as a reader would see it.

python -m radloop.sample_studies.picture docs/images/sample_study.png [--study ID]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy.ndimage import affine_transform

from radloop.sample_studies.make import render
from radloop.sample_studies.plan import SampleStudy, plan_studies

GRID_MM = 1.0
WINDOW = (-1100.0, 350.0)
"""HU shown from black to white: wide, so that lung and soft tissue are both seen."""


def draw(study: SampleStudy, path: Path) -> None:
    """Writes a PNG: axial, coronal and sagittal plane through the largest lesion, radiological convention."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    image, mask = render(study)
    hu, low = _to_ras(image.astype(np.float32), study.affine, order=3)
    lesion, _ = _to_ras(mask.astype(np.float32), study.affine, order=1)
    x, y, z = _through(study, low, hu.shape)
    planes = {
        "axial": (hu[:, :, z].T, lesion[:, :, z].T, ("R", "L")),
        "coronal": (hu[:, y, :].T, lesion[:, y, :].T, ("R", "L")),
        "sagittal": (hu[x].T[:, ::-1], lesion[x].T[:, ::-1], ("A", "P")),
    }
    widths = [plane.shape[1] for plane, _, _ in planes.values()]  # mm, so that all planes have one scale
    tall = max(plane.shape[0] for plane, _, _ in planes.values())
    size = (12.0, 12.0 * tall / sum(widths))
    figure, axes = plt.subplots(1, 3, figsize=size, width_ratios=widths, facecolor="black", layout="constrained")
    for ax, (name, (plane, outline, (left, right))) in zip(axes, planes.items(), strict=True):
        _draw_plane(ax, plane, outline, name, left, right, mirror=name != "sagittal")
    figure.savefig(path, dpi=110, facecolor="black", pil_kwargs={"optimize": True})
    plt.close(figure)


def _draw_plane(
    ax: mpl.axes.Axes, plane: np.ndarray, outline: np.ndarray, name: str, left: str, right: str, mirror: bool
) -> None:
    # the patient's right is drawn on the left; arrays run along RAS+, that is towards the patient's right
    if mirror:
        plane, outline = plane[:, ::-1], outline[:, ::-1]
    ax.imshow(plane, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], origin="lower", interpolation="bilinear")
    if outline.max() > 0.5:
        ax.contour(outline, levels=[0.5], colors=["#ffb000"], linewidths=1.4)
    box = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1.5}
    style: dict[str, Any] = {"transform": ax.transAxes, "color": "#e8e8e8", "fontsize": 10, "va": "center", "bbox": box}
    ax.text(0.02, 0.5, left, ha="left", **style)
    ax.text(0.98, 0.5, right, ha="right", **style)
    ax.text(0.02, 0.94, name, ha="left", **style)
    ax.set_axis_off()


def _through(study: SampleStudy, low: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int]:
    centre = max(study.lesions, key=lambda lesion: lesion.radius).centre if study.lesions else np.zeros(3)
    x, y, z = np.clip(np.round((centre - low) / GRID_MM).astype(int), 0, np.array(shape) - 1)
    return int(x), int(y), int(z)


def _to_ras(array: np.ndarray, affine: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Resamples to an upright grid of `GRID_MM`; returns it and the world position (mm) of its first voxel."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in array.shape])).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = world.min(1), world.max(1)
    size = np.ceil((high - low) / GRID_MM).astype(int)
    inverse = np.linalg.inv(affine)
    matrix = inverse[:3, :3] * GRID_MM
    offset = inverse[:3, :3] @ low + inverse[:3, 3]
    fill = float(array.min())
    return affine_transform(array, matrix, offset, tuple(size), order=order, cval=fill), low


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m radloop.sample_studies.picture", description="Draws a study.")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--study", default="", help="a study id; default: the first")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(argv)
    studies = {study.id: study for study in plan_studies(options.seed)}
    wanted = options.study or next(iter(studies))
    if wanted not in studies:
        sys.stderr.write(f"no sample study {wanted!r}; there are {', '.join(studies)}\n")
        return 2
    draw(studies[wanted], options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
