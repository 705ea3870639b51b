"""Learning to answer about a whole study: what the network sees, losses, covariates, scores, the floor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from radloop.engine.answer_baseline import answer_baseline
from radloop.engine.answer_batch import stack
from radloop.engine.answer_data import AnswerSource, cut, input_of, prepare_answers
from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.answer_task import AnswerTask
from radloop.engine.assess import assess, closeness, label_scores, patient_scores
from radloop.engine.augment import Augment
from radloop.engine.covariates import Covariates
from radloop.engine.fit import fit
from radloop.engine.losses import answer_loss
from radloop.engine.train import train_version
from radloop.engine.weights import save_weights
from radloop.networks.registry import build, names
from radloop.recipes.errors import BadImage, BadInput, BadLabel, Conflict
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.answers import write_answer
from radloop.studies.cases import Case
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_mask, read_study

LABELS = {
    "classification": ("dark", "bright"),
    "multilabel": ("bright", "striped"),
    "ordinal": ("low", "middle", "high"),
}
MakeStudy = Callable[..., Case]


def recipe_of(kind: str = "classification", network: str = "cnn", **more: object) -> Recipe:
    plain = {
        "name": "words",
        "kind": kind,
        "labels": {name: number for number, name in enumerate(LABELS[kind], start=1)},
        "preprocess": {"normalise": "ct", "window": [-10, 10], "mean": 0, "deviation": 1},
        "network": {"name": network, "features": [4, 8], "strides": []},
        "fit": {"patch": [16, 16, 8], "batch": 4, "steps": 10, "epochs": 4, "learning_rate": 5e-3},
    }
    return Recipe.model_validate_json(json.dumps(plain | more))


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """`make_study(number, kind)` writes a study whose block says its label, a mask of the block, and the answer."""

    def make(number: int, kind: str = "classification", shape: tuple[int, ...] = (20, 18, 10), **cells: str) -> Case:
        rng = np.random.default_rng(number)
        names, place = LABELS[kind], number % len(LABELS[kind])
        image, mask = rng.normal(0, 0.3, shape), np.zeros(shape, np.uint8)
        start = [int(rng.integers(2, n - 6)) if n > 8 else 0 for n in shape]
        block = tuple(slice(s, s + 4) for s in start)
        image[block] += {"classification": (-3, 3), "multilabel": (3, -3), "ordinal": (-3, 0, 3)}[kind][place]
        mask[block] = 1
        answer = {name: i == place for i, name in enumerate(names)}
        paths = [tmp_path / f"s{number}{part}" for part in (".nii.gz", "-region.nii.gz", ".json")]
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), paths[0])
        nib.save(nib.Nifti1Image(mask, np.eye(4)), paths[1])
        write_answer(paths[2], kind, answer)
        return Case(
            f"s{number}", f"p{number}", "train", (paths[0],), paths[2], names, number, True,
            region=paths[1], answers=cells,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("network", ["cnn", "slices_gru"])
def test_a_version_learns_to_tell_what_it_was_shown(
    make_study: MakeStudy, tmp_path: Path, kind: str, network: str
) -> None:
    recipe = recipe_of(kind, network, answer={"region": "block", "border": 2.0})
    cases = [make_study(number, kind) for number in range(18)]
    report = fit(recipe, cases[:12], tmp_path, cache=tmp_path / "c", epochs=6, threads=1)
    assert report.losses[-1] < report.losses[0]
    predictor = AnswerPredictor(recipe, tmp_path / "model.pt")
    scores = assess(predictor, cases[12:]).scores
    assert len(scores) == 6
    assert np.mean(list(patient_scores(scores).values())) > 0.8
    for score in scores:
        assert set(score.probabilities) == set(recipe.labels)
        if kind != "multilabel":
            assert sum(score.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(("network", "kind"), [(n, k) for k in LABELS for n in names(k)])
def test_every_network_is_trained_saved_and_asked(
    make_study: MakeStudy, tmp_path: Path, network: str, kind: str
) -> None:
    recipe = recipe_of(kind, network, fit={"patch": [16, 16, 8], "batch": 2, "steps": 2, "epochs": 1})
    cases = [make_study(number, kind) for number in range(3)]
    report = fit(recipe, cases, tmp_path, cache=tmp_path / "c", threads=1)
    assert report.steps == 2
    scores = assess(AnswerPredictor(recipe, tmp_path / "model.pt"), cases).scores
    again = assess(AnswerPredictor(recipe, tmp_path / "model.pt"), cases[::-1]).scores
    assert [score.probabilities for score in scores] == [score.probabilities for score in again[::-1]]


def test_the_same_seed_gives_the_same_bits_and_the_same_study_the_same_answer(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    recipe = recipe_of(network="slices_pool")
    cases = [make_study(number) for number in range(6)]
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fit(recipe, cases, tmp_path / name, cache=tmp_path / "c", epochs=1, seed=3, threads=1)
        found.append(torch.load(tmp_path / name / "model.pt", weights_only=True)["state_dict"])
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    predictor = AnswerPredictor(recipe, tmp_path / "one" / "model.pt")
    volume = read_study(cases[0].channels)
    first, again = predictor.predict(volume), predictor.predict(volume)
    assert np.array_equal(first.probabilities, again.probabilities)


@pytest.mark.parametrize("network", ["cnn", "slices_attention"])
def test_an_answer_does_not_depend_on_how_the_file_lies(make_study: MakeStudy, tmp_path: Path, network: str) -> None:
    recipe = recipe_of(network=network)
    case = make_study(0)
    fit(recipe, [case, make_study(1)], tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    predictor = AnswerPredictor(recipe, tmp_path / "model.pt")
    image = nib.load(case.channels[0])
    turned = tmp_path / "turned.nii.gz"
    nib.save(image.as_reoriented(nib.orientations.axcodes2ornt("PIL")), turned)
    plain, other = (predictor.predict(read_study((path,))).probabilities for path in (case.channels[0], turned))
    np.testing.assert_allclose(plain, other, atol=1e-5)


def test_around_a_region_neither_extent_nor_surroundings_of_the_file_show(make_study: MakeStudy) -> None:
    recipe = recipe_of(answer={"region": "block", "border": 1.0})
    case = make_study(0)
    volume, region = read_study(case.channels), read_mask(case.region)
    pad = ((0, 0), (3, 1), (0, 6), (2, 2))
    affine = volume.affine.copy()
    affine[:3, 3] -= (3, 0, 2)
    wider = Volume(np.pad(volume.array, pad, constant_values=5.0), affine)
    around = Volume(np.pad(region.array, pad), affine)
    plain, other = (cut(input_of(recipe, *of), recipe)[0] for of in ((volume, region), (wider, around)))
    assert plain.shape == (2, 16, 16, 8)
    np.testing.assert_array_equal(plain, other)
    assert set(np.unique(plain[1])) == {0, 1}
    with pytest.raises(BadLabel, match="is empty"):
        input_of(recipe, volume, Volume(np.zeros_like(region.array), region.affine))
    with pytest.raises(BadLabel, match="voxels"):
        input_of(recipe, volume, around)


def test_studies_of_one_and_of_many_slices(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of(network="slices_gru", fit={"patch": [16, 16, 32], "batch": 3, "steps": 2, "epochs": 1})
    cases = [make_study(number, shape=(18, 18, slices)) for number, slices in enumerate((1, 200, 12, 33))]
    fit(recipe, cases, tmp_path, cache=tmp_path / "c", threads=1)
    scores = assess(AnswerPredictor(recipe, tmp_path / "model.pt"), cases).scores
    assert len(scores) == 4
    assert all(math.isfinite(p) for score in scores for p in score.probabilities.values())
    array = np.zeros((1, 18, 18, 200))
    assert cut(array, recipe)[0].shape == (1, 16, 16, 32)
    assert cut(array[..., :3], recipe)[1] == 3


@pytest.mark.parametrize("network", ["cnn", "slices_gru"])
def test_sides_that_training_mirrors_do_not_change_the_answer(
    network: str, make_study: MakeStudy, tmp_path: Path
) -> None:
    recipe = recipe_of(
        network=network, fit={"patch": [16, 16, 8], "batch": 2, "steps": 2, "epochs": 1, "mirror": [0, 2]}
    )
    fit(recipe, [make_study(number) for number in range(4)], tmp_path, cache=tmp_path / "c", threads=1)
    predictor = AnswerPredictor(recipe, tmp_path / "model.pt")
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 8)).astype(np.float32)
    plain, *others = (predictor.logits([np.flip(image, axes).copy()], [{}]) for axes in ((), (1,), (3,), (1, 3), (2,)))
    for mirrored in others[:3]:
        np.testing.assert_allclose(mirrored, plain, atol=1e-5)
    assert abs(others[3] - plain).max() > 1e-4


def test_the_slices_that_spoke_are_numbers_of_the_file(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of(network="slices_attention", fit={"patch": [16, 16, 40], "batch": 2, "steps": 2, "epochs": 1})
    fit(recipe, [make_study(number) for number in range(4)], tmp_path, cache=tmp_path / "c", threads=1)
    predictor = AnswerPredictor(recipe, tmp_path / "model.pt")
    array = np.random.default_rng(0).normal(size=(1, 16, 16, 30)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    told = predictor.predict(Volume(array, affine)).slices
    assert len(told) == 3
    assert told[0].weight >= told[1].weight >= told[2].weight > 0
    assert all(of.axis == 2 and 0 <= of.number < 30 for of in told)
    turned = Volume(
        np.ascontiguousarray(array[..., ::-1].transpose(0, 3, 2, 1)), affine[:, [2, 1, 0, 3]] * [-1, 1, 1, 1]
    )
    other = predictor.predict(turned).slices
    assert [(29 - of.number, of.axis) for of in other] == [(of.number, 0) for of in told]


def test_what_cannot_be_learned_from_is_said(make_study: MakeStudy, tmp_path: Path) -> None:
    same = [make_study(number) for number in (0, 2, 4)]
    with pytest.raises(BadInput, match="all say 'dark'"):
        fit(recipe_of(), same, tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    flat = recipe_of(dimension=2, fit={"patch": [16, 16], "batch": 2, "steps": 1, "epochs": 1})
    with pytest.raises(BadInput, match="10 slices"):
        fit(flat, same, tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    with pytest.raises(BadImage, match="one picture"):
        input_of(flat, read_study(same[0].channels), None)
    told = recipe_of(answer={"covariates": ["age"]})
    with pytest.raises(BadInput, match="'age' has no value"):
        fit(told, [make_study(0), make_study(1)], tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    with pytest.raises(BadInput, match="age = 'old'"):
        fit(told, [make_study(0, age="old"), make_study(1)], tmp_path, cache=tmp_path / "c", epochs=1, threads=1)


@pytest.mark.parametrize("kind", ["classification", "ordinal"])
def test_an_answer_that_no_study_gives_is_named(kind: str, make_study: MakeStudy, tmp_path: Path) -> None:
    cases = [make_study(number) for number in range(4)]
    recipe = recipe_of(kind, labels={"dark": 1, "bright": 2, "striped": 3})
    with pytest.raises(BadInput, match="none says 'striped'"):
        fit(recipe, cases, tmp_path, cache=tmp_path / "c", epochs=1, threads=1)


def test_without_any_label_it_is_said_where_answers_go(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    with pytest.raises(Conflict, match=r"or fill 'diagnosis' in answers\.csv"):
        train_version(
            StudiesFolder(tmp_path / "studies"),
            Home(tmp_path / "home"),
            recipe_of(answer={"column": "diagnosis"}),
        )


def test_a_covariate_is_learned_and_a_missing_one_is_named(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of(answer={"covariates": ["age"]})
    cases = [make_study(number, age=str(40 + 30 * (number % 2))) for number in range(8)]
    fit(recipe, cases, tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    predictor = AnswerPredictor(recipe, tmp_path / "model.pt")
    volume = read_study(cases[0].channels)
    young, old = (predictor.predict(volume, None, {"age": age}) for age in ("40", "70"))
    assert not np.array_equal(young.logits, old.logits)
    assert predictor.predict(volume, None, {}).missing == ("age",)
    assert old.missing == ()
    with pytest.raises(BadInput, match="plain number"):
        predictor.predict(volume, None, {"age": "70 years"})


def test_covariates_are_standardised_by_those_learned_from() -> None:
    fitted = Covariates.fitted(("age", "size"), [{"age": "40", "size": "1"}, {"age": "60"}, {"age": "80", "size": "3"}])
    np.testing.assert_allclose(fitted.row({"age": "60", "size": "3"}), [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(fitted.row({"age": " "}), [0, 0, 1, 1], atol=1e-6)
    assert Covariates.from_dict(json.loads(json.dumps(fitted.as_dict()))) == fitted


def test_the_sampler_draws_rare_classes_as_often(make_study: MakeStudy, tmp_path: Path) -> None:
    cases = [make_study(number) for number in (0, 2, 4, 6, 8, 1)]
    rare = recipe_of(fit={"patch": [16, 16, 8], "batch": 50, "balance": "sampler"})
    ready = prepare_answers(rare, cases, tmp_path / "c").ready
    share = float(AnswerSource(rare, ready, 0).next().truth[:, 1].mean())
    assert 0.3 < share < 0.7
    plain = rare.model_copy(update={"fit": rare.fit.model_copy(update={"balance": "none", "batch": 6})})
    assert float(AnswerSource(plain, ready, 0).next().truth[:, 1].sum()) == 1, "each once before any twice"


@given(st.integers(0, 1000), st.sampled_from(list(LABELS)))
def test_a_loss_leaves_out_what_nobody_looked_at(seed: int, kind: str) -> None:
    torch.manual_seed(seed)
    count = len(LABELS[kind])
    logits = torch.randn(5, count - (kind == "ordinal"), requires_grad=True)
    truth = torch.eye(count)[torch.randint(count, (5,))]
    truth[0] = math.nan
    loss = answer_loss(kind, logits, truth, None)
    assert loss.item() == pytest.approx(answer_loss(kind, logits[1:], truth[1:], None).item(), abs=1e-6)
    loss.backward()
    assert not logits.grad[0].any()
    assert answer_loss(kind, logits, torch.full_like(truth, math.nan), None).item() == 0


def test_closeness_is_one_for_certainty_and_counts_how_far_a_grade_is_off() -> None:
    names = LABELS["ordinal"]
    truth = np.array([1.0, 0.0, 0.0])
    near, far = (closeness("ordinal", names, np.array(p), truth)["low"] for p in ([0, 1, 0], [0, 0, 1]))
    assert closeness("ordinal", names, truth, truth)["low"] == 1
    assert (near, far) == (0.5, 0.0)
    assert closeness("classification", ("a", "b"), np.array([0.7, 0.3]), np.array([1.0, 0.0])) == {
        "a": pytest.approx(1 - 0.09), "b": None,
    }  # fmt: skip
    some = closeness("multilabel", ("a", "b"), np.array([0.7, 0.3]), np.array([1.0, math.nan]))
    assert some == {"a": pytest.approx(1 - 0.09), "b": None}
    assert closeness("classification", ("a", "b"), np.array([0.7, 0.3]), np.array([math.nan, math.nan])) == {
        "a": None, "b": None,
    }  # fmt: skip


def test_the_floor_is_what_covariates_and_size_tell(make_study: MakeStudy) -> None:
    cases = [make_study(number, age=str(40 + 30 * (number % 2))) for number in range(12)]
    plain = answer_baseline(recipe_of(), cases[:6], cases[6:])
    assert {round(p, 3) for score in plain for p in score.probabilities.values()} == {0.5}
    told = answer_baseline(recipe_of(answer={"covariates": ["age"]}), cases[:6], cases[6:])
    assert np.mean(list(patient_scores(told).values())) > 0.9
    assert set(label_scores(told)) == {"dark", "bright"}


def test_what_no_network_can_be_asked_about_has_no_floor(make_study: MakeStudy, tmp_path: Path) -> None:
    """Else a gate would take it for a study that a version has no answer for."""
    cases = [make_study(number) for number in range(10)]
    recipe = recipe_of(answer={"region": "block", "per": "lesion"})
    mask = nib.load(cases[6].region)
    for number, array in ((6, np.zeros(mask.shape)), (7, np.indices(mask.shape)[0] % 4 == 0)):
        nib.save(nib.Nifti1Image(array.astype(np.uint8), np.eye(4)), cases[number].region)
    cases[8].channels[0].unlink()
    held_out = [*cases[6:9], replace(cases[9], region=None), make_study(10)]
    assert [score.study for score in answer_baseline(recipe, cases[:6], held_out)] == ["s10"]
    torch.manual_seed(0)
    save_weights(build(recipe), tmp_path / "model.pt", {})
    found = assess(AnswerPredictor(recipe, tmp_path / "model.pt"), held_out)
    assert [score.study for score in found.scores] == ["s10"]
    flat = recipe_of(dimension=2, fit={"patch": [16, 16]})
    pictures = [make_study(number, shape=(20, 18, 1)) for number in range(20, 26)]
    assert [score.study for score in answer_baseline(flat, pictures[:5], [held_out[0], pictures[5]])] == ["s25"]


def test_random_changes_move_no_padding_among_the_slices() -> None:
    recipe = recipe_of(network="slices_pool", fit={"patch": [16, 16, 32], "mirror": [2]})
    images = [np.full((1, 16, 16, count), 10.0) for count in (3, 12)]
    batch = stack(recipe, images, [np.array([1.0, 0.0])] * 2)
    augment = Augment(recipe, torch.Generator().manual_seed(0))
    seen = []

    class Looks(torch.nn.Module):
        def forward(self, image: torch.Tensor, present: torch.Tensor, extra: None) -> torch.Tensor:
            seen.append((image[:, 0, 8, 8] > 5, present))  # noise is less than that
            return torch.zeros(len(image), 2)

    for _ in range(20):
        AnswerTask(recipe).loss(Looks(), batch, augment, torch.device("cpu"))
    assert all(torch.equal(bright, present) for bright, present in seen)
