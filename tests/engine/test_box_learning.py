"""Learning to draw boxes, in pictures and volumes: places, losses, answers in the file's place, scores, the floor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from radloop.engine.assess import assess, label_scores, patient_scores
from radloop.engine.baseline import baseline_cases
from radloop.engine.box_data import BoxSource, framed, prepare_boxes
from radloop.engine.box_masks import framed_boxes, probable_boxes
from radloop.engine.box_predictor import BoxPredictor
from radloop.engine.calibrate import calibrate
from radloop.engine.fit import fit
from radloop.engine.train import train_version
from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.boxes import Box, boxes_of, directions, edges
from radloop.recipes.errors import BadImage, BadInput, Conflict
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.box_files import write_boxes
from radloop.studies.box_masks import mask_boxes
from radloop.studies.cases import Case
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_study

MakeStudy = Callable[..., Case]


def recipe_of(dimension: int = 2, **more: object) -> Recipe:
    patch = [48, 48] if dimension == 2 else [24, 24, 16]
    plain = {
        "name": "blocks",
        "kind": "detection",
        "modality": "OT",
        "dimension": dimension,
        "labels": {"bright": 1, "dark": 2},
        "preprocess": {"normalise": "ct", "window": [-10, 10], "mean": 0, "deviation": 1}
        | ({"spacing": [1, 1, 1]} if dimension == 3 else {}),
        "network": {"name": "retinanet", "features": [8, 16, 32]},
        "fit": {
            "patch": patch,
            "batch": 4 if dimension == 2 else 2,
            "steps": 10,
            "epochs": 8,
            "learning_rate": 5e-3,
            "ema": 0.9,
        },
    }
    return Recipe.model_validate_json(json.dumps(plain | more))


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """`make_study(number, dimension)` writes a study with a bright and a dark block and their boxes; 3 has none."""

    def make(number: int, dimension: int = 2, names: tuple[str, ...] = ("bright", "dark")) -> Case:
        rng = np.random.default_rng(number)
        shape = (60, 44, 1) if dimension == 2 else (30, 26, 20)
        image, boxes, affine = rng.normal(0, 0.3, shape), [], np.diag([-1.0, -1, 1, 1])
        for place, (name, value) in enumerate((("bright", 4.0), ("dark", -4.0))):
            if number == 3:
                break
            size = np.array([*rng.integers(8, 13, 2), 1 if dimension == 2 else 8])
            room = np.array(shape) - size
            low = np.array([rng.integers(0, room[0] // 2) + place * room[0] // 2, rng.integers(0, room[1]), 0])
            low[2] = rng.integers(0, room[2] + 1)
            image[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] += value
            boxes += boxes_of(np.hstack([low, low + size]).astype(float), [name], affine)
        paths = tmp_path / f"s{number}-{dimension}.nii.gz", tmp_path / f"s{number}-{dimension}.json"
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), paths[0])
        write_boxes(paths[1], boxes)
        return Case(f"s{number}", f"p{number}", "train", (paths[0],), paths[1], names, number, True)

    return make


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_version_learns_to_find_what_it_was_shown(make_study: MakeStudy, tmp_path: Path, dimension: int) -> None:
    recipe = recipe_of(dimension)
    cases = [make_study(number, dimension) for number in range(18)]
    report = fit(recipe, cases[:14], tmp_path, cache=tmp_path / "c", threads=1)
    assert report.losses[-1] < 0.5 * report.losses[0]
    predictor = BoxPredictor(recipe, tmp_path / "model.pt")
    scores = assess(predictor, cases[14:]).scores
    assert np.mean(list(patient_scores(scores).values())) > 0.4
    assert set(label_scores(scores)) == {"bright", "dark"}
    floor = baseline_cases(recipe, cases[:14], cases[14:])
    assert [score.study for score in floor] == [score.study for score in scores]
    assert np.mean(list(patient_scores(floor).values())) < np.mean(list(patient_scores(scores).values()))
    told = calibrate(recipe, tmp_path / "model.pt", cases[4:])
    assert told is not None
    assert told["patients"] >= 10
    assert BoxPredictor(recipe, tmp_path / "model.pt").temperature == pytest.approx(told["value"])


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[[int], BoxPredictor]:
    """A predictor of a network as it is made, whose scores are drawn apart so that it gives some boxes."""

    def make(dimension: int) -> BoxPredictor:
        recipe = recipe_of(dimension)
        torch.manual_seed(0)
        network = build(recipe)
        with torch.no_grad():
            network.classification_head.cls_logits.weight.mul_(60)
        save_weights(network, tmp_path / "model.pt")
        return BoxPredictor(recipe, tmp_path / "model.pt")

    return make


@pytest.mark.parametrize("dimension", [2, 3])
def test_an_answer_does_not_depend_on_how_the_file_is_turned(
    make_study: MakeStudy, untrained: Callable[[int], BoxPredictor], dimension: int
) -> None:
    predictor, volume = untrained(dimension), read_study(make_study(1, dimension).channels)
    first = predictor.predict(volume)
    assert first.boxes
    assert [box.score for box in first.boxes] == sorted((box.score for box in first.boxes), reverse=True)
    image = nib.Nifti1Image(volume.array[0], volume.affine)
    for axes in ("RAS", "LPI", "ASR", "SLP"):
        turned = image.as_reoriented(
            nib.orientations.ornt_transform(
                nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axes))
            )
        )
        again = predictor.predict(Volume(np.asarray(turned.dataobj)[None], turned.affine))
        assert [box.label for box in again.boxes] == [box.label for box in first.boxes]
        for one, other in zip(first.boxes, again.boxes, strict=True):
            np.testing.assert_allclose(one.centre, other.centre, atol=1e-3)
            np.testing.assert_allclose(one.size, other.size, atol=1e-3)


def test_a_large_volume_is_slid_over_and_every_box_lies_inside(untrained: Callable[[int], BoxPredictor]) -> None:
    array = np.random.default_rng(0).normal(0, 1, (1, 50, 26, 40)).astype(np.float32)
    predictor, volume = untrained(3), Volume(array, np.eye(4))
    found, again = predictor.predict(volume), predictor.predict(volume)
    assert found.boxes == again.boxes
    ends = edges(found.boxes, volume.affine)
    assert (ends[:, :3] >= -1e-6).all()
    assert (ends[:, 3:] <= np.array(volume.shape) + 1e-6).all()
    assert (ends[:, 3:] > ends[:, :3]).all()
    assert ends[:, 3:].max(0)[0] > 24, "beyond the first window"


def test_no_box_lies_in_what_is_padded(untrained: Callable[[int], BoxPredictor]) -> None:
    array = np.random.default_rng(0).normal(0, 1, (1, 12, 60, 1)).astype(np.float32)
    found = untrained(2).predict(Volume(array, np.eye(4)))
    assert found.boxes
    ends = edges(found.boxes, np.eye(4))
    assert (ends[:, :2] >= -1e-6).all()
    assert (ends[:, 3:] <= np.array([12, 60, 1]) + 1e-6).all()
    assert (ends[:, 3:] - ends[:, :3])[:, :2].min() > 0.5, "nor is any without a size"


def test_boxes_are_the_same_there_and_back_on_a_tilted_grid() -> None:
    turn = nib.eulerangles.euler2mat(0.3, 0.2, -0.25)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([-0.5, 0.7, 2.0]), (10, -20, 30)
    affine = affine[:, [2, 0, 1, 3]]  # the file's first axis runs foot to head
    box = Box("bright", (3.0, 4.0, 5.0), (10.0, 20.0, 30.0))
    (back,) = boxes_of(edges([box], affine), ["bright"], affine)
    np.testing.assert_allclose(back.centre, box.centre)
    np.testing.assert_allclose(back.size, box.size)
    ends = edges([box], affine)[0]
    np.testing.assert_allclose(ends[3:] - ends[:3], [30 / 2.0, 10 / 0.5, 20 / 0.7])
    assert np.linalg.det(directions(affine)) == pytest.approx(1)


def test_a_picture_is_put_whole_on_the_patch_and_boxes_lie_with_it(make_study: MakeStudy) -> None:
    case, recipe = make_study(1), recipe_of()
    volume = read_study(case.channels)
    image, frame = framed(recipe, volume)
    assert image.shape == (1, 48, 48)
    (bright, dark) = frame.edges([*_true(case)])
    for ends, sign in ((bright, 1), (dark, -1)):
        inside = image[0, round(ends[0]) + 1 : round(ends[2]) - 1, round(ends[1]) + 1 : round(ends[3]) - 1]
        assert (sign * inside).min() > 1.5
    with pytest.raises(BadImage, match="20 slices"):
        framed(recipe, Volume(np.zeros((1, 10, 10, 20), np.float32), np.eye(4)))


def _true(case: Case) -> list[Box]:
    from radloop.studies.box_files import read_boxes

    return read_boxes(case.label)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_patch_takes_its_boxes_along(make_study: MakeStudy, tmp_path: Path, dimension: int) -> None:
    recipe = recipe_of(dimension, fit=recipe_of(dimension).fit.model_dump(mode="json") | {"mirror": [0, 1]})
    ready = prepare_boxes(recipe, [make_study(1, dimension), make_study(3, dimension)], tmp_path / "c").ready
    source, seen = BoxSource(recipe, ready, 0), 0
    for _ in range(10):
        state = source.state()
        batch = source.next()
        for image, boxes, labels in zip(batch.image, batch.boxes, batch.labels, strict=True):
            for ends, label in zip(boxes.numpy(), labels, strict=True):
                low, high = np.ceil(ends[:dimension]) + 1, np.floor(ends[dimension:]) - 1
                inside = image[(0, *(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))]
                if inside.numel():
                    seen += 1
                    assert (inside.mean() > 1) == (label == 0)
                    assert abs(inside.mean()) > 1
    assert seen > 10
    source.go_on(state)
    assert torch.equal(source.next().image, batch.image)


def test_studies_without_boxes_are_learned_from_but_not_alone(make_study: MakeStudy, tmp_path: Path) -> None:
    recipe = recipe_of(fit={"patch": [48, 48], "batch": 2, "steps": 4, "epochs": 1})
    empty = make_study(3)
    report = fit(recipe, [make_study(0), empty], tmp_path, cache=tmp_path / "c", threads=1)
    assert report.steps == 4
    assert np.isfinite(report.losses).all()
    with pytest.raises(BadInput, match=r"none of the 1 studies .* has a box; draw some"):
        fit(recipe, [empty], tmp_path, cache=tmp_path / "c", threads=1)
    old = make_study(4, names=("bright",))
    report = fit(recipe, [make_study(0), old], tmp_path, cache=tmp_path / "c", threads=1)
    assert "do not say whether there is 'dark'" in report.skipped[0][1]


def test_without_any_label_it_is_said_where_boxes_go(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    with pytest.raises(Conflict, match=r"put its boxes into labels/final as <id>\.json"):
        train_version(StudiesFolder(tmp_path / "studies"), Home(tmp_path / "home"), recipe_of())


def test_frames_show_every_box_and_give_it_back() -> None:
    affine, labels = np.diag([-1.0, -1, 2, 1]), {"bright": 1, "dark": 2}
    given = np.array([[2.0, 3, 1, 12, 15, 5], [15, 20, 0, 16, 22, 8]])
    boxes = boxes_of(given, ["bright", "dark"], affine, [0.9, 0.8])
    mask = framed_boxes(boxes, labels, (20, 24, 8), affine)
    assert mask[2, 3, 1] == mask[11, 14, 4] == 1
    assert mask[6, 8, 3] == 0, "a frame, or the reader would see nothing inside"
    again = mask_boxes(mask, labels, affine)
    assert [box.label for box in again] == ["bright", "dark"]
    np.testing.assert_allclose(edges(again, affine), given)


def test_the_parts_of_a_mask_have_boxes_with_their_mean_probability() -> None:
    p = np.zeros((2, 12, 12, 4), np.float32)
    p[1, 1:4, 1:4, 1:3], p[1, 8:10, 8:10, :] = 0.9, 0.6
    p[0] = 1 - p[1]
    found = probable_boxes(p, {"lesion": 1}, np.eye(4))
    assert [box.score for box in found] == pytest.approx([0.9, 0.6])
    np.testing.assert_allclose(edges(found, np.eye(4)), [[1, 1, 1, 4, 4, 3], [8, 8, 0, 10, 10, 4]])
    assert probable_boxes(1 - p, {"lesion": 1}, np.eye(4))[0].size == (12, 12, 4)


def test_a_study_of_slices_among_pictures_has_no_floor(make_study: MakeStudy, tmp_path: Path) -> None:
    """Else a gate would take it for a study that a version has no answer for."""
    cases = [make_study(number) for number in range(5)]
    volume = make_study(6, 3)
    found = baseline_cases(recipe_of(), cases[:4], [cases[4], volume])
    assert [score.study for score in found] == [cases[4].study]
