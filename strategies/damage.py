"""Labels damaged on purpose, as readers and models damage them, so that a replay can give the true ones back.

eroded    every label loses its rim: a third of the way to its innermost voxel
shifted   the whole mask lies off by half of its extent, along the file's first or second axis
swapped   one label is called another; of answers in words, another one is given
missing   the largest lesion is not drawn
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from radloop.evaluation.lesions import components
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.recipes.volume import Volume
from radloop.studies.answers import read_answer, write_answer
from radloop.studies.cases import Case, read_label
from radloop.studies.files import write_whole
from radloop.studies.images import write_mask

RIM = 1 / 3
"""Of the depth of a label that erosion takes."""
SHIFT = 1 / 2
"""Of a mask's extent that it is moved by."""


def damages(recipe: Recipe) -> tuple[str, ...]:
    """The kinds of damage that a recipe's labels can have.

    Raises:
        BadInput: those of its kind cannot be damaged here.
    """
    if recipe.kind in CLASS_KINDS:
        return ("swapped",)
    if recipe.kind != "segmentation":
        msg = f"recipe {recipe.name} is of kind {recipe.kind}; corrections are replayed of masks and answers in words"
        raise BadInput(msg)
    some = (("swapped", len(recipe.labels) > 1), ("missing", bool(recipe.evaluate.lesions)))
    return ("eroded", "shifted", *(name for name, there in some if there))


def damaged_file(recipe: Recipe, case: Case, how: str, rng: np.random.Generator, folder: Path) -> Path:
    """A damaged copy of a case's label in a folder, written whole unless it is there; the ids are the recipe's."""
    path = folder / (f"{case.study}.json" if recipe.kind in CLASS_KINDS else f"{case.study}.nii.gz")
    if path.is_file():
        return path
    if recipe.kind in CLASS_KINDS:
        answer = read_answer(case.label, recipe)
        write_whole(path, lambda file: write_answer(file, recipe.kind, _another(recipe, answer, rng)), ".json")
        return path
    mask = read_label(case, recipe.labels)
    write_mask(path, damaged(recipe, mask, how, rng), mask.affine)
    return path


def damaged(recipe: Recipe, mask: Volume, how: str, rng: np.random.Generator) -> np.ndarray:
    """(X, Y, Z) uint8: a mask with one kind of damage; an empty one stays empty.

    Args:
        recipe: whose labels.
        mask: as the reader gave it.
        how: one of `damages`.
        rng: chooses the direction, or the label.
    """
    array = mask.array[0].astype(np.uint8)
    if not array.any():
        return array
    if how == "eroded":
        return _eroded(array, mask.spacing)
    if how == "shifted":
        return _shifted(array, rng)
    if how == "swapped":
        names = np.unique(array[array > 0])
        wrong, count = int(rng.choice(names)), len(recipe.labels)
        return np.where(array == wrong, _other(wrong, count, rng), array).astype(np.uint8)
    if how == "missing":
        return _missing(array, [recipe.labels[name] for name in recipe.evaluate.lesions])
    msg = f"damage {how!r}; there is {', '.join(damages(recipe))}"
    raise BadInput(msg)


def _eroded(array: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    found, around = np.zeros_like(array), [(int(n > 1), int(n > 1)) for n in array.shape]  # a picture has no depth
    inside = tuple(slice(before, before + n) for (before, _), n in zip(around, array.shape, strict=True))
    for number in np.unique(array[array > 0]):
        depth = ndimage.distance_transform_edt(np.pad(array == number, around), sampling=spacing)[inside]
        # the outermost voxels go in any case, the innermost never
        rim = max(depth.max() * RIM, min(spacing))
        found[(depth > rim) | (depth == depth.max())] = number
    return found


def _shifted(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    axis = int(rng.integers(2))
    other = tuple(i for i in range(3) if i != axis)
    hit = np.flatnonzero(array.any(axis=other))
    by = max(1, round((hit[-1] - hit[0] + 1) * SHIFT)) * int(rng.choice((-1, 1)))
    return ndimage.shift(array, [by if i == axis else 0 for i in range(3)], order=0).astype(np.uint8)


def _missing(array: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    found = components(np.isin(array, numbers))
    sizes = np.bincount(found.ravel())[1:]
    return np.where(found == sizes.argmax() + 1, 0, array).astype(np.uint8) if len(sizes) else array


def _another(recipe: Recipe, answer: dict[str, bool], rng: np.random.Generator) -> dict[str, bool]:
    """An answer that is wrong in one label; of grades the neighbour's."""
    if recipe.kind == "multilabel":
        name = str(rng.choice(sorted(answer)))
        return {**answer, name: not answer[name]}
    names = recipe.label_names
    place = next(n for n, name in enumerate(names) if answer[name])
    near = [n for n in (place - 1, place + 1) if 0 <= n < len(names)]
    others = near if recipe.kind == "ordinal" else [n for n in range(len(names)) if n != place]
    chosen = int(rng.choice(others))
    return {name: n == chosen for n, name in enumerate(names)}


def _other(number: int, count: int, rng: np.random.Generator) -> int:
    return int(rng.choice([one for one in range(1, count + 1) if one != number]))
