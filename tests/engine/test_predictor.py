from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor, PredictorCache
from radloop.engine.weights import save_weights
from radloop.evaluation.metrics import dice
from radloop.networks.registry import build
from radloop.recipes.errors import BadImage, BadInput
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.cases import Case
from radloop.studies.images import read_mask, read_study

MakeCase = Callable[..., Case]


def untrained(recipe: Recipe, folder: Path) -> Predictor:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    save_weights(build(recipe), folder / "model.pt")
    return Predictor(recipe, folder / "model.pt")


def noise(*shape: int, seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32), np.eye(4))


def test_a_trained_version_finds_what_it_was_shown(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(4)]
    fit(toy_recipe, cases[:3], tmp_path, cache=tmp_path / "c", epochs=16, threads=1)
    predictor, shares = Predictor(toy_recipe, tmp_path / "model.pt"), []
    answer = predictor.predict(read_study(cases[3].channels), shares.append)
    found = dice(answer.mask, read_mask(cases[3].label).array[0], (1, 2))
    assert min(value or 0 for value in found.values()) > 0.6
    assert answer.mask.dtype == np.uint8
    assert answer.seconds > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("shape", [(20, 18, 16), (5, 40, 3), (1, 1, 1), (16, 16, 33)])
def test_any_size_gets_an_answer_of_its_own_shape(shape: tuple[int, ...], toy_recipe: Recipe, tmp_path: Path) -> None:
    predictor = untrained(toy_recipe, tmp_path / "v")
    volume, shares = noise(*shape), []
    one, other = predictor.predict(volume, shares.append), predictor.predict(volume)
    assert one.mask.shape == shape
    assert np.array_equal(one.mask, other.mask)
    assert shares[-1] == 1


@pytest.mark.parametrize("codes", ["LPS", "SAR", "ILA"])
def test_the_answer_does_not_depend_on_how_the_file_lies(codes: str, toy_recipe: Recipe, tmp_path: Path) -> None:
    predictor, volume = untrained(toy_recipe, tmp_path / "v"), noise(20, 18, 22)
    image = nib.Nifti1Image(volume.array[0], volume.affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    found = predictor.predict(Volume(np.asarray(turned.dataobj)[None], turned.affine)).mask
    back = nib.as_closest_canonical(nib.Nifti1Image(found, turned.affine))
    expected = predictor.predict(volume).mask
    assert len(np.unique(expected)) > 1
    assert np.array_equal(np.asarray(back.dataobj), expected)


def test_a_2d_recipe_answers_slice_by_slice(tmp_path: Path) -> None:
    recipe = Recipe(name="flat", dimension=2, labels={"one": 1}, fit={"patch": (16, 16)})
    predictor, volume = untrained(recipe, tmp_path / "v"), noise(24, 20, 5)
    image = predictor._chain.image(volume)[0]
    whole, alone = predictor.probabilities(image), predictor.probabilities(image[..., 2:3])
    assert whole.shape == (2, 24, 20, 5)
    assert torch.allclose(whole[..., 2], alone[..., 0], atol=1e-5)
    assert torch.allclose(whole.sum(0), torch.ones(24, 20, 5), atol=1e-4)


def test_wrong_channels_and_weights_are_refused(toy_recipe: Recipe, tmp_path: Path) -> None:
    predictor = untrained(toy_recipe, tmp_path / "v")
    with pytest.raises(BadImage, match="2 channels"):
        predictor.predict(Volume(np.zeros((2, 8, 8, 8), np.float32), np.eye(4)))
    (tmp_path / "v" / "model.pt").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot be read"):
        Predictor(toy_recipe, tmp_path / "v" / "model.pt")


def test_the_cache_keeps_the_last_versions_used(toy_recipe: Recipe, tmp_path: Path) -> None:
    versions = []
    for name in ("a", "b", "c"):
        untrained(toy_recipe, tmp_path / name)
        (tmp_path / name / "recipe.json").write_text(toy_recipe.model_dump_json())
        versions.append(SimpleNamespace(dir=tmp_path / name))
    cache = PredictorCache(size=2)
    first, second = cache.get(versions[0]), cache.get(versions[1])
    assert cache.get(versions[0]) is first
    cache.get(versions[2])
    assert cache.get(versions[0]) is first
    assert cache.get(versions[1]) is not second
