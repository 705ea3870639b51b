from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.engine.assess import CaseScore, assess, label_scores, patient_scores
from radloop.engine.baseline import baseline_scores
from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case

MakeCase = Callable[..., Case]


def test_scores_name_every_label_and_what_could_not_be_read(
    toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path
) -> None:
    cases = [make_case(0), make_case(1, names=("dark",)), make_case(2)]
    fit(toy_recipe, cases[:1], tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    cases[2].channels[0].write_text("no image")
    shares: list[float] = []
    found = assess(Predictor(toy_recipe, tmp_path / "model.pt"), cases, shares.append)
    assert [score.study for score in found.scores] == ["s0", "s1"]
    assert [study for study, _ in found.skipped] == ["s2"]
    assert set(found.scores[0].dice) == set(found.scores[0].surface_dice) == set(found.scores[0].hd95)
    assert found.scores[1].dice["bright"] is None
    assert found.scores[1].dice["dark"] is not None
    assert shares[-1] == 1


def test_patients_weigh_alike_whatever_their_number_of_studies() -> None:
    scores = [
        CaseScore("a1", "a", {"one": 1.0, "two": 0.5}),
        CaseScore("a2", "a", {"one": None, "two": 0.25}),
        CaseScore("b1", "b", {"one": 0.0, "two": None}),
        CaseScore("c1", "c", {"one": None, "two": None}),
    ]
    assert patient_scores(scores) == {"a": 0.5, "b": 0.0}
    assert label_scores(scores) == {"one": {"a": 1.0, "b": 0.0}, "two": {"a": 0.375}}


def test_the_baseline_finds_what_intensity_alone_tells(toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(5)]
    found = baseline_scores(toy_recipe, cases[:3], cases[3:])
    assert set(found) == {"p3", "p4"}
    assert min(found.values()) > 0.8


def test_the_baseline_never_sees_the_case_it_is_scored_on(
    toy_recipe: Recipe, make_case: MakeCase, tmp_path: Path
) -> None:
    cases = [make_case(i) for i in range(4)]
    inverted = nib.load(cases[3].channels[0])
    nib.save(nib.Nifti1Image(-inverted.get_fdata(dtype=np.float32), np.eye(4)), cases[3].channels[0])
    assert baseline_scores(toy_recipe, cases[:3], cases[3:])["p3"] < 0.1


def test_without_training_cases_the_baseline_is_the_empty_mask(toy_recipe: Recipe, make_case: MakeCase) -> None:
    full, empty = make_case(0), make_case(1)
    nib.save(nib.Nifti1Image(np.zeros((20, 18, 16), np.uint8), np.eye(4)), empty.label)
    assert baseline_scores(toy_recipe, [], [full, empty]) == {"p0": 0.0, "p1": 1.0}


def test_the_baseline_scores_only_names_a_label_speaks_for(toy_recipe: Recipe, make_case: MakeCase) -> None:
    train = [make_case(i) for i in range(3)]
    case = make_case(4)
    both = baseline_scores(toy_recipe, train, [case])["p4"]
    one, other = (
        baseline_scores(toy_recipe, train, [dataclasses.replace(case, names=(name,))])["p4"]
        for name in ("bright", "dark")
    )
    assert both == pytest.approx((one + other) / 2)
