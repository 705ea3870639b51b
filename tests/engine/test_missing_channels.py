"""Channels that a study may lack: read, learned without, told to the network and named in the answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.assess import assess
from radloop.engine.augment import Augment, Strength
from radloop.engine.box_predictor import BoxPredictor
from radloop.engine.channels import with_lacking
from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor
from radloop.engine.prepared import prepare
from radloop.networks.registry import build
from radloop.recipes.boxes import boxes_of
from radloop.recipes.errors import BadImage
from radloop.recipes.load import mistakes
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.answers import write_answer
from radloop.studies.box_files import write_boxes
from radloop.studies.cases import Case
from radloop.studies.images import read_study

SHAPE = (16, 16, 8)


def recipe_of(kind: str = "segmentation", normalise: str = "zscore", **fit: object) -> Recipe:
    names = {"segmentation": {"block": 1}}.get(kind, {"dark": 1, "bright": 2})
    plain = {
        "name": "two",
        "kind": kind,
        "modality": "MR",
        "channels": ["flair", "t1c"],
        "optional": ["t1c"],
        "labels": names,
        "preprocess": {"normalise": normalise, "mean": 40.0},
        "network": {"name": "unet" if kind == "segmentation" else "cnn", "features": [4, 8]}
        | ({"strides": [[1, 1, 1], [2, 2, 2]]} if kind == "segmentation" else {}),
        "fit": {"patch": SHAPE, "batch": 2, "steps": 10, "epochs": 4, "learning_rate": 1e-2} | fit,
    }
    return Recipe.model_validate_json(json.dumps(plain))


def make(folder: Path, number: int, kind: str = "segmentation", channels: int = 2) -> Case:
    """A study whose block is bright in both channels, of which the second may be missing."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:9, 4:10, 2:6] = 1
    value = 4 if kind == "segmentation" or number % 2 else -4
    paths = tuple(folder / f"s{number}_{channel:04d}.nii.gz" for channel in range(2))
    for path in paths[:channels]:
        image = rng.normal(0, 1, SHAPE) + value * mask
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), path)
    if kind == "segmentation":
        label, names = folder / f"s{number}-label.nii.gz", ("block",)
        nib.save(nib.Nifti1Image(mask, np.eye(4)), label)
    else:
        label, names = folder / f"s{number}.json", ("dark", "bright")
        write_answer(label, kind, {"bright" if number % 2 else "dark": True})
    return Case(f"s{number}", f"p{number}", "train", paths, label, names, number, True)


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
def test_studies_without_it_are_learned_from_and_answered_with_its_name(kind: str, tmp_path: Path) -> None:
    recipe = recipe_of(kind)
    cases = [make(tmp_path, number, kind, channels=1 + (number % 3 > 0)) for number in range(8)]
    report = fit(recipe, cases, tmp_path, cache=tmp_path / "c", threads=1)
    assert report.skipped == ()
    predictor = (Predictor if kind == "segmentation" else AnswerPredictor)(recipe, tmp_path / "model.pt")
    whole = predictor.predict(read_study(cases[1].channels, recipe.may_lack))
    without = predictor.predict(read_study(cases[3].channels, recipe.may_lack))
    assert whole.lacking == ()
    assert without.lacking == ("t1c",)
    scores = assess(predictor, cases).scores
    assert [score.missing for score in scores[:4]] == [("t1c",), (), (), ("t1c",)]
    good = [np.mean(list(filter(None, score.compared.values()))) for score in scores]
    assert min(good) > 0.5


@pytest.mark.parametrize("normalise", ["zscore", "ct", "rescale"])
def test_zeros_stand_for_it_after_normalisation_and_the_network_is_told(normalise: str, tmp_path: Path) -> None:
    recipe = recipe_of(normalise=normalise)
    volume = read_study(make(tmp_path, 0, channels=1).channels, recipe.may_lack)
    assert volume.missing == (1,)
    image, _ = Preprocess(recipe).image(volume)
    assert not image[1].any()
    given = with_lacking(recipe, torch.stack([image, image + 1]))
    assert given.shape[1] == recipe.inputs == 3
    assert [float(plane.mean()) for plane in given[:, 2]] == [1, 0]
    assert build(recipe)(given).shape[1] == 2


def test_one_that_must_be_there_is_named(tmp_path: Path) -> None:
    recipe = recipe_of()
    case = make(tmp_path, 0)
    case.channels[0].unlink()
    with pytest.raises(BadImage, match=r"channel 0 \(s0_0000\.nii\.gz\) of 2 is missing"):
        read_study(case.channels, recipe.may_lack)
    strict = recipe.model_copy(update={"optional": ()})
    with pytest.raises(BadImage, match="lacks channel 't1c', which recipe 'two' does not call optional"):
        Preprocess(strict).image(Volume(np.zeros((2, *SHAPE)), np.eye(4), missing=(1,)))
    half = replace(make(tmp_path, 1, channels=1))
    assert "channel 1" in prepare(strict, [half], tmp_path / "c").skipped[0][1]
    assert not prepare(recipe, [half], tmp_path / "c").skipped
    assert prepare(strict, [half], tmp_path / "c").skipped, "nor is it found in the cache of a recipe that allows it"


def test_it_is_taken_away_at_random_and_nothing_fills_it() -> None:
    image, label = torch.rand(200, 2, 4, 4, 4) + 1, torch.zeros(200, 4, 4, 4, dtype=torch.uint8)
    image[:50, 1] = 0
    noisy = Strength(noise=1.0, brightness=1.0, affine=0.5)
    found, _ = Augment(recipe_of(channel_dropout=0.4), torch.Generator().manual_seed(0), noisy)(image, label)
    gone = ~found.flatten(2).any(dim=2)
    assert gone[:50, 1].all()
    assert 0.3 < gone[50:, 1].float().mean() < 0.5
    assert not gone[:, 0].any()
    assert image[50:].all(), "what was given is not touched"
    kept, _ = Augment(recipe_of(channel_dropout=0.0), torch.Generator().manual_seed(0), noisy)(image, label)
    assert kept[50:, 1].flatten(1).any(dim=1).all()


def test_mistakes_are_told() -> None:
    text = 'name = "x"\nlabels = { x = 1 }\nchannels = ["a", "b", "c"]\n'
    for more, part in (
        ('optional = ["d"]', "optional names 'd'; it must be one of channels, a, b, c"),
        ('optional = ["a"]', "optional names 'a', which is the first channel"),
        ('optional = ["b"]\ndisplay_channel = 1', "optional names 'b', which is shown"),
    ):
        (wrong,) = mistakes(text + more)
        assert wrong.line == 4
        assert part in wrong.message
    assert mistakes(text + 'optional = ["b", "c"]') == []


def test_boxes_are_found_without_it_too(tmp_path: Path) -> None:
    plain = {
        "name": "boxes",
        "kind": "detection",
        "dimension": 2,
        "channels": ["front", "side"],
        "optional": ["side"],
        "labels": {"block": 1},
        "network": {"name": "retinanet", "features": [8, 16, 32]},
        "fit": {"patch": [48, 48], "batch": 2, "steps": 4, "epochs": 1},
    }
    recipe, cases = Recipe.model_validate_json(json.dumps(plain)), []
    for number in range(4):
        image = np.random.default_rng(number).normal(0, 0.3, (48, 40, 1)).astype(np.float32)
        image[10:22, 12:24] += 4
        paths = tuple(tmp_path / f"b{number}_{channel:04d}.nii.gz" for channel in range(2))
        for path in paths[: 1 + number % 2]:
            nib.save(nib.Nifti1Image(image, np.eye(4)), path)
        label = tmp_path / f"b{number}.json"
        write_boxes(label, boxes_of(np.array([[10.0, 12, 0, 22, 24, 1]]), ["block"], np.eye(4)))
        cases.append(Case(f"b{number}", f"b{number}", "train", paths, label, ("block",), number, True))
    assert not fit(recipe, cases, tmp_path, cache=tmp_path / "c", threads=1).skipped
    scores = assess(BoxPredictor(recipe, tmp_path / "model.pt"), cases).scores
    assert [score.missing for score in scores] == [("side",), (), ("side",), ()]
