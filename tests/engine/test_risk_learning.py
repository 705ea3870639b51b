"""Learning a risk over time: the loss, bounds, the clinical model, curves, and every network that serves it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radloop.engine.answer_data import prepare_answers
from radloop.engine.assess import assess, patient_scores
from radloop.engine.augment import Augment
from radloop.engine.baseline import baseline_cases
from radloop.engine.calibrate import calibrate
from radloop.engine.clinical import fit_clinical
from radloop.engine.fit import fit
from radloop.engine.risk_loss import hazard_loss
from radloop.engine.risk_predictor import RiskPredictor
from radloop.engine.risk_score import fit_to
from radloop.engine.risk_task import RiskTask
from radloop.engine.train import train_version
from radloop.evaluation.hazards import bounds_of, counted_logits, survival
from radloop.networks.registry import build, names
from radloop.recipes.errors import BadInput, BadRecipe, Conflict
from radloop.recipes.recipe import Recipe
from radloop.studies.answers import write_answer
from radloop.studies.cases import Case
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_study
from radloop.studies.outcomes import Outcome

MakeStudy = Callable[..., Case]


def recipe_of(network: str = "cnn", covariates: tuple[str, ...] = (), **more: object) -> Recipe:
    plain = {
        "name": "life",
        "kind": "risk",
        "labels": {"death": 1},
        "answer": {"times": [100, 300], "intervals": 4, "covariates": covariates},
        "preprocess": {"normalise": "ct", "window": [-10, 10], "mean": 0, "deviation": 1},
        "network": {"name": network, "features": [4, 8], "strides": []},
        "fit": {"patch": [16, 16, 8], "batch": 4, "steps": 10, "epochs": 4, "learning_rate": 5e-3},
    }
    return Recipe.model_validate_json(json.dumps(plain | more))


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """`make_study(number)` writes a study whose block is bright where the patient does badly."""

    def make(number: int, event: bool | None = None, time: float | None = None, **cells: str) -> Case:
        rng = np.random.default_rng(number)
        bad = number % 2 == 1
        image = rng.normal(0, 0.3, (20, 18, 10))
        image[6:12, 6:12, 3:7] += 4 if bad else -4
        when = time or float(rng.uniform(20, 90) if bad else rng.uniform(250, 500))
        came = event if event is not None else bad or number % 4 == 0
        image_file, label = tmp_path / f"s{number}.nii.gz", tmp_path / f"s{number}.json"
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), image_file)
        write_answer(label, "risk", Outcome(came, when))
        return Case(f"s{number}", f"p{number}", "train", (image_file,), label, ("death",), number, True, answers=cells)

    return make


def test_the_loss_is_minus_the_log_likelihood_of_each_patient():
    bounds = np.array([0.0, 10.0, 20.0, 40.0])
    hazards = torch.tensor([[0.2, 0.5, 0.1]]).double()
    logits = torch.logit(hazards).repeat(5, 1)
    truth = torch.tensor([[1, 15.0], [0, 15.0], [1, 10.0], [0, 99.0], [math.nan, math.nan]]).double()
    likely = [0.8 * 0.5, 0.8 * 0.5**0.5, 0.2, 0.8 * 0.5 * 0.9, 1.0]
    torch.testing.assert_close(hazard_loss(logits, truth, bounds), -torch.tensor(likely).double().log())
    for number in range(5):  # one by one it is the same
        alone = hazard_loss(logits[number : number + 1], truth[number : number + 1], bounds)
        torch.testing.assert_close(alone[0], -torch.tensor(likely[number]).double().log())


def test_without_covariates_the_clinical_model_is_kaplan_meier():
    rng = np.random.default_rng(1)
    time, event = rng.exponential(100, 60).round(1) + 0.1, rng.random(60) < 0.6
    truth = np.stack([event, time], axis=1)
    model = fit_clinical(recipe_of(), truth, [{}] * 60, [str(n) for n in range(60)])
    at = model.bounds[1:-1]
    alive = np.array([np.prod([1 - 1 / (time >= t).sum() for t in time[event] if t <= limit]) for limit in at])
    assert abs(survival(model.logits({})[None], model.bounds, at)[0] - alive).max() < 0.02


def test_the_loss_has_32_bits_where_the_network_has_16(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of(covariates=("age",))
    cases = prepare_answers(recipe, [make_study(n, age=str(30 + n)) for n in range(6)], tmp_path / "cache").ready
    found = []
    for bits in (torch.float32, torch.bfloat16):

        class Silent(torch.nn.Module):
            def forward(self, image: torch.Tensor, *_: object, bits: torch.dtype = bits) -> torch.Tensor:
                return torch.zeros(len(image), recipe.outputs, dtype=bits)

        task, augment = RiskTask(recipe), Augment(recipe, torch.Generator().manual_seed(0))
        batch = task.source(cases, seed=0).next()
        found.append(task.loss(Silent(), batch, augment, torch.device("cpu")))
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(*found)


def test_a_named_time_that_nobody_was_followed_for_changes_no_other_risk():
    rng = np.random.default_rng(0)
    came, lost = rng.exponential(800, 300), rng.uniform(100, 400, 300)
    truth = np.stack([came <= lost, np.minimum(came, lost)], axis=1)
    told = []
    for times in ([365], [365, 3650]):
        model = fit_clinical(recipe_of(answer={"times": times}), truth, [{}] * 300, [str(n) for n in range(300)])
        told.append(survival(model.logits({})[None], model.bounds, [365])[0, 0])
    assert told[0] == told[1] == pytest.approx(np.exp(-365 / 800), abs=0.06)


def test_the_clinical_model_finds_the_covariate_that_counts():
    rng = np.random.default_rng(0)
    cells = [{"age": f"{rng.uniform(20, 80):.1f}", "noise": f"{rng.normal():.2f}"} for _ in range(120)]
    time = np.array([rng.exponential(3000 / float(of["age"])) + 1 for of in cells])
    recipe = recipe_of(covariates=("age", "noise"))
    model = fit_clinical(recipe, np.stack([time < 200, time], axis=1), cells, [str(n) for n in range(120)])
    assert model.weights[0] > 3 * abs(model.weights[1])
    old, young = (survival(model.logits({"age": a, "noise": "0"})[None], model.bounds, [100])[0, 0] for a in "82")
    assert model.logits({"age": "80", "noise": "0"}).mean() > model.logits({"age": "20", "noise": ""}).mean()
    assert 0 < old < 1
    assert 0 < young < 1


@pytest.mark.parametrize("events", [1, 2, 30])
def test_bounds_rise_whatever_the_events(events):
    time = np.r_[np.full(events, 7.0), np.linspace(1, 50, 9)]
    bounds = bounds_of(np.arange(len(time)) < events, time, 5)
    assert len(bounds) == 6
    assert (np.diff(bounds) > 0).all()
    assert bounds[0] == 0
    assert bounds[-1] == pytest.approx(50, rel=1e-3)
    assert np.isfinite(counted_logits(np.arange(len(time)) < events, time, bounds)).all()


def test_what_the_gate_compares_counts_only_times_that_can_be_known():
    risks, times = np.array([0.5, 0.8]), (100.0, 300.0)
    assert fit_to(np.array([1, 50.0]), risks, times) == pytest.approx(1 - (0.25 + 0.04) / 2)
    assert fit_to(np.array([1, 200.0]), risks, times) == pytest.approx(1 - (0.25 + 0.04) / 2)
    assert fit_to(np.array([0, 200.0]), risks, times) == pytest.approx(1 - 0.25)
    assert fit_to(np.array([0, 50.0]), risks, times) is None


@pytest.mark.parametrize("network", ["cnn", "slices_gru"])
def test_a_version_learns_who_does_badly(make_study: MakeStudy, tmp_path: Path, network: str) -> None:
    recipe = recipe_of(network)
    cases = [make_study(number) for number in range(24)]
    report = fit(recipe, cases[:16], tmp_path, cache=tmp_path / "c", epochs=6, threads=1)
    assert report.losses[-1] < report.losses[0]
    scores = assess(RiskPredictor(recipe, tmp_path / "model.pt"), cases[16:]).scores
    floor = baseline_cases(recipe, cases[:16], cases[16:])
    bad, good = ([s.told.rank for s in scores if int(s.study[1:]) % 2 == side] for side in (1, 0))
    assert min(bad) > max(good)
    ours, trivial = (np.mean(list(patient_scores(of).values())) for of in (scores, floor))
    assert ours > trivial + 0.05
    assert {s.clinical for s in scores} == {floor[0].told}, "without covariates all have the same curve"


@pytest.mark.parametrize("network", names("risk"))
def test_every_network_of_risks_is_trained_saved_and_asked(make_study: MakeStudy, tmp_path: Path, network: str) -> None:
    fit_of = {"patch": [16, 16, 8], "batch": 1, "steps": 2, "epochs": 1}
    recipe = recipe_of(network, ("age",), fit=fit_of)
    cases = [make_study(number, age=str(50 + number) if number else "") for number in range(4)]
    assert fit(recipe, cases, tmp_path, cache=tmp_path / "c", threads=1).steps == 2
    predictor = RiskPredictor(recipe, tmp_path / "model.pt")
    scores = assess(predictor, cases).scores
    again = assess(RiskPredictor(recipe, tmp_path / "model.pt"), cases[::-1]).scores
    assert [s.told for s in scores] == [s.told for s in again[::-1]]
    assert scores[0].missing == ("age",)
    found = predictor.predict(read_study(cases[1].channels), None, cases[1].answers)
    assert found.survival[0] == 1
    assert (np.diff(found.survival) <= 0).all()
    assert 0 < found.risks[0] <= found.risks[1] < 1
    between = np.exp(np.interp(300, found.bounds, np.log(found.survival)))
    assert found.risks[1] == pytest.approx(1 - between), "log-survival is linear between bounds"
    together = predictor.logits([np.zeros((1, 16, 16, 8), np.float32)] * 2, [{}, {"age": "99"}])
    np.testing.assert_allclose(
        together[1], predictor.logits([np.zeros((1, 16, 16, 8), np.float32)], [{"age": "99"}])[0], atol=1e-5
    )


def test_the_answer_does_not_depend_on_how_the_file_is_turned(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of("slices_pool")
    cases = [make_study(number) for number in range(4)]
    fit(recipe, cases, tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    predictor = RiskPredictor(recipe, tmp_path / "model.pt")
    image = nib.load(cases[1].channels[0])
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PIL"))
    nib.save(turned, tmp_path / "turned.nii.gz")
    one, two = (predictor.predict(read_study((p,))) for p in (cases[1].channels[0], tmp_path / "turned.nii.gz"))
    np.testing.assert_allclose(one.risks, two.risks, atol=1e-5)


def test_the_temperature_draws_curves_to_what_covariates_alone_say(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of()
    cases = [make_study(number) for number in range(20)]
    fit(recipe, cases[:8], tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    told = calibrate(recipe, tmp_path / "model.pt", cases[8:])
    assert told["after"] <= told["before"]
    predictor = RiskPredictor(recipe, tmp_path / "model.pt")
    assert predictor.temperature == told["value"]
    predictor.temperature = 1e9
    found = predictor.predict(read_study(cases[1].channels))
    np.testing.assert_allclose(found.risks, found.clinical)
    few = calibrate(recipe, tmp_path / "model.pt", cases[8:12])
    assert "fewer than 10" in few["reason"]


def test_what_no_network_can_be_asked_about_has_no_floor(make_study: MakeStudy) -> None:
    cases = [make_study(number) for number in range(10)]
    plain, around = recipe_of(), recipe_of(answer={"times": [100], "region": "block"})
    cases[9].channels[0].unlink()
    assert [score.study for score in baseline_cases(plain, cases[:6], cases[8:])] == [cases[8].study]
    assert baseline_cases(around, cases[:6], cases[8:]) == [], "nobody drew the region"


def test_what_cannot_be_learned_from_is_said(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe, cache = recipe_of(), tmp_path / "c"
    censored = [make_study(number, event=False) for number in range(3)]
    with pytest.raises(BadInput, match=r"'death' came in none \(all are censored\).*'event' in answers\.csv"):
        fit(recipe, censored, tmp_path, cache=cache, epochs=1, threads=1)
    with pytest.raises(BadInput, match="one patient to learn from"):
        fit(recipe, [make_study(5)], tmp_path, cache=cache, epochs=1, threads=1)
    with pytest.raises(BadRecipe, match=r"looks at answer\.covariates alone"):
        build(recipe_of("clinical"))
    studies = tmp_path / "studies"
    studies.mkdir()
    nib.save(nib.load(censored[0].channels[0]), studies / "a.nii.gz")
    with pytest.raises(Conflict, match=r"fill 'event', 'time' in answers\.csv"):
        train_version(StudiesFolder(studies), Home.find(studies), recipe)
