"""Deep supervision, answers over mirrored images, and lesions, from training to scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from radloop.engine.assess import assess
from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor
from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.cases import Case
from radloop.studies.images import read_study

MakeCase = Callable[..., Case]


def changed(recipe: Recipe, **parts: dict[str, object]) -> Recipe:
    values = recipe.model_dump()
    return Recipe.model_validate(values | {name: {**values[name], **part} for name, part in parts.items()})


def untrained(recipe: Recipe, folder: Path) -> Predictor:
    torch.manual_seed(0)
    save_weights(build(recipe), folder / "model.pt")
    return Predictor(recipe, folder / "model.pt")


@pytest.mark.parametrize("name", ["unet", "resunet", "unet_attention"])
def test_a_version_learns_with_deep_supervision_and_loads(
    name: str, toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path
) -> None:
    recipe = changed(toy_recipe, network={"name": name, "deep_supervision": True})
    cases = [make_case(i) for i in range(3)]
    report = fit(recipe, cases[:2], tmp_path, cache=tmp_path / "c", epochs=8, threads=1)
    assert report.losses[-1] < 0.8 * report.losses[0]
    (score,) = assess(Predictor(recipe, tmp_path / "model.pt"), cases[2:], surfaces=False).scores
    assert set(score.dice) == {"bright", "dark"}


def test_the_answer_to_a_mirrored_image_is_the_mirrored_answer(toy_recipe: Recipe, tmp_path: Path) -> None:
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32))
    for mirror in (False, True):
        predictor = untrained(changed(toy_recipe, network={"mirror": mirror}), tmp_path)
        there, back = predictor.probabilities(image), predictor.probabilities(image.flip(1, 3)).flip(1, 3)
        assert torch.allclose(there, back, atol=1e-5) == mirror
        assert torch.allclose(there.sum(0), torch.ones(16, 16, 16), atol=1e-5)


def test_progress_runs_to_the_end_once_over_all_mirrors(toy_recipe: Recipe, tmp_path: Path) -> None:
    shares: list[float] = []
    predictor = untrained(changed(toy_recipe, network={"mirror": True}), tmp_path)
    predictor.predict(Volume(np.zeros((1, 20, 18, 16), np.float32), np.eye(4)), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert shares[0] < 1 / 8


def test_probabilities_lie_on_the_files_voxels(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    recipe = changed(toy_recipe, preprocess={"spacing": (2.0, 1.0, 1.0)})
    case = make_case(1)
    fit(recipe, [make_case(0), make_case(2)], tmp_path, cache=tmp_path / "c", epochs=6, threads=1)
    volume = read_study(case.channels)
    turned = Volume(
        volume.array[:, ::-1].transpose(0, 2, 1, 3), volume.affine[:, [1, 0, 2, 3]] @ np.diag([1, -1, 1, 1])
    )
    turned = Volume(turned.array, _moved(turned.affine, volume.affine, volume.shape[0]))
    answer, other = (Predictor(recipe, tmp_path / "model.pt").predict(of, keep=[1]) for of in (volume, turned))
    assert list(answer.probabilities) == [1]
    assert answer.probabilities[1].shape == volume.shape
    sure = answer.probabilities[1] > 0.5
    assert (sure == (answer.mask == 1)).mean() > 0.98
    assert np.allclose(other.probabilities[1].transpose(1, 0, 2)[::-1], answer.probabilities[1], atol=1e-5)
    assert Predictor(recipe, tmp_path / "model.pt").predict(volume).probabilities == {}


def _moved(affine: np.ndarray, before: np.ndarray, count: int) -> np.ndarray:
    """The affine of axes 0 and 1 swapped after axis 0 of `count` voxels was turned round."""
    found = affine.copy()
    found[:, 1] = -before[:, 0]
    found[:, 0] = before[:, 1]
    found[:3, 3] = before[:3, 3] + (count - 1) * before[:3, 0]
    return found


def test_lesions_are_scored_where_the_recipe_says_what_is_one(
    toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path
) -> None:
    recipe = changed(toy_recipe, evaluate={"lesions": ("bright",)})
    cases = [make_case(0), make_case(1), make_case(2, names=("dark",))]
    fit(recipe, cases, tmp_path, cache=tmp_path / "c", epochs=16, threads=1)
    predictor = Predictor(recipe, tmp_path / "model.pt")
    scores = assess(predictor, cases, surfaces=False, lesions=True).scores
    assert [list(score.lesions) for score in scores] == [["bright"], ["bright"], []]
    assert [score.lesions["bright"].counts.found for score in scores[:2]] == [1, 1]
    assert max(scores[0].lesions["bright"].candidates.scores) > 0.5
    assert not assess(predictor, cases[:1], surfaces=False).scores[0].lesions
    large = changed(recipe, evaluate={"smallest": 1000.0})
    few = assess(Predictor(large, tmp_path / "model.pt"), cases[:1], surfaces=False, lesions=True).scores[0]
    assert few.lesions["bright"].counts.true == 0
