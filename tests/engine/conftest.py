"""Small synthetic studies with something to find, and a recipe that fits them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case

MakeCase = Callable[..., Case]


@pytest.fixture
def toy_recipe() -> Recipe:
    """Bright balls (1) and dark balls (2) in noise, a network that learns them in seconds."""
    return Recipe(
        name="toy",
        modality="OT",
        labels={"bright": 1, "dark": 2},
        preprocess={"spacing": (1.0, 1.0, 1.0)},
        network={"features": (8, 16, 16), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2))},
        fit={"patch": (16, 16, 16), "steps": 5, "epochs": 2, "learning_rate": 5e-3, "mirror": (0, 1, 2)},
    )


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    """`make_case(number, names=..., shape=...)` writes a study and its label and returns the case."""

    def make(number: int, names: tuple[str, ...] = ("bright", "dark"), shape: tuple[int, ...] = (20, 18, 16)) -> Case:
        rng = np.random.default_rng(number)
        image, label = rng.normal(0, 0.3, shape), np.zeros(shape, np.uint8)
        for identity, value in ((1, 2.0), (2, -2.0)):
            centre = [rng.uniform(4, n - 4) if n > 8 else n / 2 for n in shape]
            places = np.indices(shape).reshape(len(shape), -1).T
            ball = (np.linalg.norm(places - centre, axis=1) < 3.5).reshape(shape)
            image[ball], label[ball] = image[ball] + value, identity
        paths = tmp_path / f"s{number}.nii.gz", tmp_path / f"s{number}-label.nii.gz"
        for path, array in zip(paths, (image.astype(np.float32), label), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        return Case(f"s{number}", f"p{number}", "train", (paths[0],), paths[1], names, number, True)

    return make
