"""A patient's visits in sequence: what is taken in, padding, order, one visit alone, learning from a change."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radloop.engine.answer_data import earlier_volumes
from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.assess import assess
from radloop.engine.fit import fit
from radloop.engine.risk_predictor import RiskPredictor
from radloop.networks.registry import build, names
from radloop.recipes.errors import BadRecipe
from radloop.recipes.load import mistakes
from radloop.recipes.recipe import Recipe
from radloop.studies.answer_rows import take_cells
from radloop.studies.cases import labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_study
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES
from radloop.studies.visits import MOST, Visits, earlier_of

NETWORKS = [name for name in names("risk") if name != "clinical"]


def recipe_of(network: str = "cnn", kind: str = "risk", **more: object) -> Recipe:
    of_risk = {"times": [100, 300], "intervals": 3} if kind == "risk" else {}
    plain = {
        "name": "course",
        "kind": kind,
        "labels": {"death": 1} if kind == "risk" else {"better": 1, "worse": 2},
        "answer": {"sequence": "visits", "unit": "months", **of_risk},
        "preprocess": {"normalise": "ct", "window": [-10, 10], "mean": 0, "deviation": 1},
        "network": {"name": network, "features": [4, 8], "strides": []},
        "fit": {"patch": [12, 12, 6], "batch": 4, "steps": 8, "epochs": 5, "learning_rate": 1e-2},
    }
    return Recipe.model_validate_json(json.dumps(plain | more))


def put(folder: Path, study: str, value: float) -> None:
    image = np.random.default_rng(len(study)).normal(0, 0.2, (12, 12, 6))
    image[3:9, 3:9, 2:4] += value
    nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"{study}.nii.gz")


@pytest.fixture
def house(tmp_path: Path) -> tuple[StudiesFolder, Ledger]:
    """Sixteen patients with two visits each: who got brighter does badly, whatever the last image shows alone."""
    studies = tmp_path / "studies"
    studies.mkdir()
    lines = ["image,patient,date,event,time,course"]
    for number in range(16):
        last, grew = (3 if number % 4 < 2 else -3), number % 2
        put(studies, f"p{number:02}_a", last - 3 if grew else last + 3)
        put(studies, f"p{number:02}_b", last)
        lines.append(f"p{number:02}_a,p{number},2024-01-01,,,")
        time, course = (3, "worse") if grew else (12 + number / 4, "better")
        lines.append(f"p{number:02}_b,p{number},2024-03-01,{grew},{time},{course}")
    (studies / "answers.csv").write_text("\n".join(lines) + "\n")
    return StudiesFolder(studies), Ledger(Home.find(studies))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["risk", "classification"])
def test_padding_other_patients_and_the_batch_change_nothing(network: str, kind: str) -> None:
    torch.manual_seed(0)
    recipe = recipe_of(network, kind)
    model = build(recipe).eval()
    image = torch.randn(4, 1, 12, 12, 6)
    present = torch.ones(4, 6, dtype=torch.bool) if network.startswith("slices_") else None
    gaps = torch.tensor([[5.0, 2.0, 0.0], [0.0, torch.nan, torch.nan]])
    both = model(image, present, None, gaps)
    one = model(image[:3], None if present is None else present[:3], None, gaps[:1])
    two = model(image[3:], None if present is None else present[3:], None, gaps[1:, :1])
    torch.testing.assert_close(both, torch.cat([one, two]), atol=1e-5, rtol=1e-4)
    later = model(image[:3], None if present is None else present[:3], None, torch.tensor([[9.0, 2.0, 0.0]]))
    assert not torch.allclose(one, later), "time counts"
    turned = model(image[[1, 0, 2]], None if present is None else present[:3], None, gaps[:1])
    assert not torch.allclose(one, turned), "order counts"


def test_the_asked_visit_is_the_last_one() -> None:
    torch.manual_seed(0)
    model = build(recipe_of()).eval()
    with torch.no_grad():
        model.last.linear.weight[:, -model.cell.hidden_size :] = 0  # without what the visits before say
    image = torch.randn(3, 1, 12, 12, 6)
    several = model(image, None, None, torch.tensor([[5.0, 2.0, 0.0]]))
    torch.testing.assert_close(several, model(image[2:], None, None, torch.tensor([[0.0]])))


def test_earlier_dated_studies_of_the_same_patient_are_taken_in(house) -> None:
    folder, ledger = house
    recipe = recipe_of()
    (one,) = earlier_of(folder, "p00_b", recipe)
    assert (one.study, one.gap) == ("p00_a", pytest.approx(60 / (365.25 / 12)))
    assert earlier_of(folder, "p00_a", recipe) == ()
    assert take_cells(folder, ledger, [recipe]) == []
    cases = labelled_cases(folder, ledger, recipe, SIDES)
    assert len(cases) == 16
    assert {case.earlier[0].study for case in cases} == {f"p{n:02}_a" for n in range(16)}
    plain = recipe_of(answer={"times": [100]})
    assert all(case.earlier == () for case in labelled_cases(folder, ledger, plain, SIDES))


def test_of_many_visits_the_latest_are_taken_and_a_wrong_date_is_left_out(tmp_path: Path) -> None:
    lines = ["image,patient,date"]
    for number in range(12):
        put(tmp_path, f"v{number:02}", 0)
        lines.append(f"v{number:02},anna,{'soon' if number == 9 else f'2024{number + 1:02}05'}")
    (tmp_path / "answers.csv").write_text("\n".join(lines) + "\n")
    studies = StudiesFolder(tmp_path).studies()
    found = [one.study for one in Visits(studies).before(studies["v11"], recipe_of())]
    assert found == ["v03", "v04", "v05", "v06", "v07", "v08", "v10"]
    assert len(found) == MOST - 1


@pytest.mark.parametrize("kind", ["risk", "classification"])
def test_a_version_learns_from_the_change_between_visits(house, tmp_path: Path, kind: str) -> None:
    folder, ledger = house
    told = {"times": [6, 9], "intervals": 3} if kind == "risk" else {"column": "course"}
    recipe = recipe_of("slices_pool", kind, answer={"sequence": "visits", "unit": "months", **told})
    take_cells(folder, ledger, [recipe])
    cases = labelled_cases(folder, ledger, recipe, SIDES)
    report = fit(recipe, cases, tmp_path, cache=tmp_path / "c", epochs=8, threads=1)
    assert report.losses[-1] < report.losses[0]
    predictor = (RiskPredictor if kind == "risk" else AnswerPredictor)(recipe, tmp_path / "model.pt")
    found = assess(predictor, cases).scores
    again = assess(predictor, cases[::-1]).scores[::-1]
    assert found[3].logits == again[3].logits
    grew, shrank = (
        [s.told.rank if kind == "risk" else s.probabilities["worse"] for s in found if int(s.study[1:3]) % 2 == side]
        for side in (1, 0)
    )
    assert np.mean(grew) > np.mean(shrank)
    case = cases[1]
    alone = predictor.predict(read_study(case.channels))
    both = predictor.predict(read_study(case.channels), None, {}, earlier_volumes(recipe, case.earlier))
    assert np.isfinite(alone.logits).all()
    assert not np.allclose(alone.logits, both.logits)


def test_a_version_of_another_form_of_the_recipe_is_given_what_it_learned_from(house, tmp_path: Path) -> None:
    folder, ledger = house
    forms = {
        "alone": {"column": "course"},
        "days": {"column": "course", "sequence": "visits", "unit": "days"},
        "months": {"column": "course", "sequence": "visits", "unit": "months"},
    }
    recipes = {name: recipe_of("cnn", "classification", answer=answer) for name, answer in forms.items()}
    take_cells(folder, ledger, [recipes["alone"]])
    cases = {name: labelled_cases(folder, ledger, recipe, SIDES) for name, recipe in recipes.items()}
    for own, other in (("alone", "months"), ("days", "months")):
        fit(recipes[own], cases[own], tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
        predictor = AnswerPredictor(recipes[own], tmp_path / "model.pt")
        one, two = ([s.logits for s in assess(predictor, cases[name]).scores] for name in (own, other))
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_what_cannot_be_a_sequence_is_said() -> None:
    text = 'name = "x"\nkind = "risk"\nlabels = { a = 1 }\n[answer]\ntimes = [3]\nsequence = "visits"\nregion = "y"\n'
    assert any("cannot be together" in mistake.message for mistake in mistakes(text))
    recipe = recipe_of("clinical", answer={"times": [3], "sequence": "visits", "covariates": ["age"]})
    with pytest.raises(BadRecipe, match="looks at no image"):
        build(recipe)
