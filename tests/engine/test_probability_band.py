"""What an interval of a probability stands on is fitted on validation patients and kept beside the weights."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.calibrate import calibrate
from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.recipe import Recipe
from radloop.studies.answers import write_answer
from radloop.studies.cases import Case
from radloop.studies.images import read_study


def test_a_version_knows_its_band_from_the_patients_that_calibrate_it(tmp_path: Path) -> None:
    fit = {"patch": (8, 8, 8)}
    network = {"name": "cnn", "features": (4, 8)}
    labels = {"dark": 1, "bright": 2}
    recipe = Recipe(name="words", kind="classification", labels=labels, network=network, fit=fit)
    cases = []
    for number in range(12):
        image, answer = tmp_path / f"s{number}.nii.gz", tmp_path / f"s{number}.json"
        array = np.random.default_rng(number).normal(0, 1, (8, 8, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4)), image)
        write_answer(answer, recipe.kind, {recipe.label_names[number % 2]: True})
        cases.append(Case(f"s{number}", f"p{number}", "validation", (image,), answer, recipe.label_names, number, True))
    torch.manual_seed(0)
    save_weights(build(recipe), tmp_path / "model.pt")
    volume = read_study(cases[0].channels)
    assert AnswerPredictor(recipe, tmp_path / "model.pt").predict(volume).limits == {}, "nothing is known yet"
    calibrate(recipe, tmp_path / "model.pt", cases)
    predictor = AnswerPredictor(recipe, tmp_path / "model.pt")
    assert predictor.band.patients == 12
    found = predictor.predict(volume)
    for name, p in zip(recipe.label_names, found.probabilities, strict=True):
        low, high = found.limits[name]
        assert 0 <= low <= p <= high <= 1
        assert high - low > 0.1, "twelve patients leave doubt"
    few = calibrate(recipe, tmp_path / "model.pt", cases[:6])
    assert few is not None
    assert AnswerPredictor(recipe, tmp_path / "model.pt").predict(volume).limits == {}
