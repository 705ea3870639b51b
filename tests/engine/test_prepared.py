from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.engine.losses import IGNORE
from radloop.engine.patches import PatchSource
from radloop.engine.prepared import prepare
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case

MakeCase = Callable[..., Case]


def test_a_case_is_prepared_once(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(0)
    first = prepare(toy_recipe, [case], tmp_path / "cache").ready[0]
    made = (first.folder / "image.npy").stat().st_mtime_ns
    again = prepare(toy_recipe, [case], tmp_path / "cache").ready[0]
    assert again.folder == first.folder
    assert (again.folder / "image.npy").stat().st_mtime_ns == made
    assert first.image.shape == (1, 20, 18, 16)
    assert isinstance(first.image, np.memmap)
    assert first.image.astype(np.float32).mean() == pytest.approx(0, abs=0.01)


def test_points_lie_on_their_label(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    ready = prepare(toy_recipe, [make_case(1)], tmp_path).ready[0]
    ids, places = ready.points[:, 0], ready.points[:, 1:]
    assert set(ids) == {1, 2}
    assert (ready.label[tuple(places.T)] == ids).all()


def test_a_changed_label_or_image_is_prepared_anew(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(0)
    first = prepare(toy_recipe, [case], tmp_path / "cache").ready[0]
    nib.save(nib.Nifti1Image(np.zeros((20, 18, 16), np.uint8), np.eye(4)), case.label)
    second = prepare(toy_recipe, [case], tmp_path / "cache").ready[0]
    assert first.label.any()
    assert not second.label.any()
    image = nib.load(case.channels[0])
    nib.save(nib.Nifti1Image(np.flip(image.get_fdata(dtype=np.float32), 0), np.eye(4)), case.channels[0])
    third = prepare(toy_recipe, [case], tmp_path / "cache").ready[0]
    assert not np.array_equal(third.image, second.image)


def test_unreadable_cases_are_named(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    good, torn, lost, foreign = (make_case(i) for i in range(4))
    torn.channels[0].write_bytes(torn.channels[0].read_bytes()[:500])
    lost = dataclasses.replace(lost, label=tmp_path / "nowhere.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), foreign.label)
    found = prepare(toy_recipe, [good, torn, lost, foreign], tmp_path / "cache")
    assert [ready.case.study for ready in found.ready] == ["s0"]
    assert [study for study, _ in found.skipped] == ["s1", "s2", "s3"]
    assert all(reason and "\n" not in reason for _, reason in found.skipped)


def test_patches_are_centred_on_every_label_in_turn(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    recipe = toy_recipe.model_copy(update={"fit": toy_recipe.fit.model_copy(update={"foreground": 1.0})})
    ready = prepare(recipe, [make_case(0, shape=(48, 48, 48))], tmp_path).ready
    source = PatchSource(recipe, ready, seed=0)
    counts = {1: 0, 2: 0}
    for _ in range(20):
        batch = source.next()
        assert batch.image.shape == (2, 1, 16, 16, 16)
        for label in batch.label:
            assert label.max() > 0
            for number in counts:
                counts[number] += int((label == number).any())
    assert min(counts.values()) > 10


def test_small_studies_are_padded_with_their_edge_and_ignored_there(
    toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path
) -> None:
    ready = prepare(toy_recipe, [make_case(0, shape=(10, 18, 16))], tmp_path).ready
    batch = PatchSource(toy_recipe, ready, seed=0).next()
    assert (batch.label[:, :3] == IGNORE).all()
    assert (batch.label[:, 3:13] != IGNORE).all()
    assert (batch.image[:, :, 0] == batch.image[:, :, 3]).all()


def test_the_same_seed_draws_the_same_patches(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    ready = prepare(toy_recipe, [make_case(i, shape=(32, 32, 32)) for i in range(3)], tmp_path).ready
    one, other, different = (PatchSource(toy_recipe, ready, seed) for seed in (1, 1, 2))
    for _ in range(3):
        first = one.next()
        assert (first.image == other.next().image).all()
        assert not (first.image == different.next().image).all()


def test_a_2d_recipe_gets_slices(make_case: MakeCase, tmp_path: Path) -> None:
    recipe = Recipe(name="flat", dimension=2, labels={"bright": 1, "dark": 2}, fit={"patch": (16, 16), "batch": 3})
    ready = prepare(recipe, [make_case(0, names=("dark",))], tmp_path).ready
    batch = PatchSource(recipe, ready, seed=0).next()
    assert batch.image.shape == (3, 1, 16, 16)
    assert batch.label.shape == (3, 16, 16)
    assert batch.known.tolist() == [[True, False, True]] * 3
