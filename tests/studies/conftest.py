"""A studies folder with real files, its home and its ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import write_mask
from radloop.studies.ledger import Ledger

SHAPE = (9, 8, 7)
# Oblique axes, one of them flipped, so that a mixed-up axis or sign shows.
AFFINE = np.array([[0.0, 0.1, 3.0, 10.0], [-1.5, 0.0, 0.0, 20.0], [0.0, 0.7, 0.1, -5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def shape() -> tuple[int, int, int]:
    return SHAPE


@pytest.fixture
def affine() -> np.ndarray:
    return AFFINE.copy()


@pytest.fixture
def organs() -> Recipe:
    return Recipe(name="organs", labels={"liver": 1, "spleen": 2})


@pytest.fixture
def bones() -> Recipe:
    return Recipe(name="bones", labels={"rib": 1, "spine": 2, "hip": 3})


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three CT-like volumes `a`, `b`, `c`."""
    folder = tmp_path / "studies"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for study_id in "abc":
        voxels = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, AFFINE), folder / f"{study_id}.nii.gz")
    return folder


@pytest.fixture
def folder(studies: Path) -> StudiesFolder:
    return StudiesFolder(studies)


@pytest.fixture
def ledger(studies: Path) -> Ledger:
    return Ledger(Home.find(studies))


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Write a mask with one voxel of each value asked for; value v is at (v, 1, 2)."""

    def write(*values: int, name: str = "mask.nii.gz", affine: np.ndarray = AFFINE, names: dict | None = None) -> Path:
        mask = np.zeros(SHAPE, np.uint8)
        for value in values:
            mask[value, 1, 2] = value
        path = tmp_path / "drawn" / name
        path.parent.mkdir(exist_ok=True)
        write_mask(path, mask, affine, names)
        return path

    return write
