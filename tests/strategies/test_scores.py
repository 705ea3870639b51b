"""Scores of every kind of answer, looks with dropout, and image embeddings."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.special import entr
from torch import nn

from radloop.engine.dropout import dropping
from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor, predictor_of
from radloop.engine.weights import save_weights
from radloop.networks import registry
from radloop.networks.registry import build, register
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.strategies.embedding import image_embedding
from radloop.strategies.scores import score_study
from radloop.studies.answers import write_answer
from radloop.studies.cases import Case
from radloop.studies.outcomes import Outcome

SIZES = {"features": (8, 16), "strides": ((1, 1, 1), (2, 2, 2))}


class ByBrightness(nn.Module):
    """Bright from 1 on, dark from -1 down, the less sure the closer; eight channels that all say it."""

    def __init__(self) -> None:
        super().__init__()
        self.copies, self.drop, self.last = nn.Conv3d(1, 8, 1), nn.Dropout(0.2), nn.Conv3d(8, 3, 1)
        with torch.no_grad():
            self.copies.weight.fill_(1.0)
            self.copies.bias.zero_()
            self.last.weight.copy_(torch.tensor([0.0, 5 / 8, -5 / 8]).view(3, 1, 1, 1, 1).expand(3, 8, 1, 1, 1))
            self.last.bias.copy_(torch.tensor([0.0, -5.0, -5.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(self.copies(image)))


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known in these tests alone: others go by what the house registers."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    register("by_brightness", ("segmentation",))(lambda recipe: ByBrightness())


TOY = Recipe(
    name="toy",
    labels={"bright": 1, "dark": 2},
    preprocess={"normalise": "ct", "window": (-10, 10), "mean": 0, "deviation": 1},
    network={"name": "by_brightness", **SIZES},
    fit={"patch": (16, 16, 16)},
)


def balls(seed: int, values: tuple[float, ...] = (2.0, -2.0), shape: tuple[int, ...] = (20, 18, 16)) -> tuple:
    """A noisy image with a ball a value, and its mask."""
    rng = np.random.default_rng(seed)
    image, label = rng.normal(0, 0.2, shape), np.zeros(shape, np.uint8)
    places = np.indices(shape).reshape(3, -1).T
    for number, value in enumerate(values, start=1):
        ball = (np.linalg.norm(places - [rng.uniform(4, n - 4) for n in shape], axis=1) < 3.5).reshape(shape)
        image[ball], label[ball] = image[ball] + value, number
    return Volume(image.astype(np.float32)[None], np.eye(4)), label


@pytest.fixture
def toy(tmp_path: Path) -> Predictor:
    """Finds bright and dark balls."""
    save_weights(build(TOY), tmp_path / "model.pt")
    return Predictor(TOY, tmp_path / "model.pt")


def untrained(kind: str, folder: Path):
    boxes = kind == "detection"
    recipe = Recipe(
        name="toy",
        kind=kind,
        labels={"a": 1, "b": 2, "c": 3},
        preprocess={"spacing": (1.0, 1.0, 1.0)},
        network={"name": "retinanet", "features": (8, 16, 32)} if boxes else {"name": "cnn", **SIZES},
        fit={"patch": (24, 24, 16) if boxes else (16, 16, 16)},
    )
    torch.manual_seed(0)
    save_weights(build(recipe), folder / "model.pt")
    return predictor_of(recipe, folder / "model.pt")


def test_a_doubtful_target_scores_higher_than_a_clear_one(toy: Predictor) -> None:
    clear, doubtful = (score_study(toy, balls(7, (value,))[0]) for value in (2.0, 1.25))
    assert doubtful.scores["entropy"] > 1.2 * clear.scores["entropy"]
    assert 0 < clear.scores["entropy"] < math.log(3)


def test_background_does_not_thin_the_score_out(toy: Predictor) -> None:
    volume, _ = balls(7, (1.2,))
    wide = np.random.default_rng(1).normal(0, 0.2, (1, 52, 50, 48)).astype(np.float32)
    wide[:, :20, :18, :16] = wide[:, -20:, -18:, -16:] = volume.array
    near, far = score_study(toy, volume), score_study(toy, Volume(wide, np.eye(4)))
    assert far.scores["entropy"] == pytest.approx(near.scores["entropy"], rel=0.2)
    assert far.classes["bright"] < near.classes["bright"] / 5, "its share of the study does get less"


def test_only_labels_that_are_predicted_have_a_score_of_their_own(toy: Predictor) -> None:
    both, one = score_study(toy, balls(7)[0]), score_study(toy, balls(7, (2.0,))[0])
    assert {"entropy.bright", "entropy.dark"} <= both.scores.keys()
    assert "entropy.dark" not in one.scores
    assert one.classes["dark"] == 0
    assert 0 < one.classes["bright"] < 0.2


def test_nothing_predicted_has_a_score_nevertheless(toy: Predictor) -> None:
    found = score_study(toy, balls(3, ())[0])
    assert found.classes == {"bright": 0, "dark": 0}
    assert 0 < found.scores["entropy"] < math.log(3)
    assert found.scores["foreground"] < 0.1


def test_looks_differ_come_again_and_leave_the_network_as_it_was(toy: Predictor) -> None:
    volume, _ = balls(7)
    before = toy.predict(volume, keep=(1,)).probabilities[1]
    first, again = (score_study(toy, volume, looks=3) for _ in range(2))
    assert first.scores == again.scores
    assert 1e-3 < first.scores["mutual_information"] < first.scores["entropy"] + 0.5
    assert "mutual_information" not in score_study(toy, volume).scores
    assert np.array_equal(toy.predict(volume, keep=(1,)).probabilities[1], before)


def test_a_network_with_dropout_of_its_own_uses_that_alone() -> None:
    network = torch.nn.Sequential(torch.nn.GroupNorm(1, 64), torch.nn.Dropout(0.5)).eval()
    with dropping(network, 0, rate=1.0 - 1e-9):
        found = network(torch.randn(1, 64))
    assert 10 < int((found == 0).sum()) < 54


def test_every_window_gives_way(toy: Predictor) -> None:
    calls: list[int] = []
    volume = Volume(np.zeros((1, 40, 16, 16), np.float32), np.eye(4))
    score_study(toy, volume, give_way=lambda: calls.append(1))
    assert len(calls) >= 3


@pytest.mark.parametrize("kind", ["classification", "ordinal", "multilabel"])
def test_answers_in_words(kind: str, tmp_path: Path) -> None:
    predictor = untrained(kind, tmp_path)
    volume, _ = balls(7)
    found = score_study(predictor, volume, looks=4)
    p = predictor.predict(volume).probabilities
    assert found.classes == dict(zip("abc", p.tolist(), strict=True))
    if kind == "multilabel":
        assert found.scores["entropy"] == pytest.approx((entr(p) + entr(1 - p)).mean())
        predicted = {name for name, one in zip("abc", p, strict=True) if one >= 0.5}
    else:
        assert found.scores["entropy"] == pytest.approx(entr(p).sum())
        predicted = {"abc"[int(p.argmax())]}
    assert {name for name in "abc" if f"entropy.{name}" in found.scores} == predicted
    assert found.scores["mutual_information"] > 0


def test_boxes(tmp_path: Path) -> None:
    predictor = untrained("detection", tmp_path)
    volume, _ = balls(7)
    found = score_study(predictor, volume, looks=2)
    best = {
        name: max((b.score for b in predictor.predict(volume).boxes if b.label == name), default=0) for name in "abc"
    }
    assert found.classes == pytest.approx(best)
    assert found.scores["foreground"] == max(best.values())
    assert 0 <= found.scores["entropy"] <= math.log(2)


def test_images_that_look_alike_lie_close() -> None:
    recipe = Recipe(name="toy", labels={"a": 1}, network=SIZES, fit={"patch": (16, 16, 16)})
    one, same, brighter, larger = (
        image_embedding(recipe, of)
        for of in (
            balls(7)[0],
            Volume(balls(7)[0].array + 0.01, np.eye(4)),
            Volume(balls(7)[0].array * 3 + 2, np.eye(4)),
            Volume(balls(7)[0].array, np.diag([2.0, 2.0, 2.0, 1.0])),
        )
    )
    assert one.shape == (4 * 4 * 3 + 7 + 3,)
    assert one.dtype == np.float32
    near = np.linalg.norm(one - same)
    assert near < np.linalg.norm(one - brighter) / 10 or near < 0.05
    assert np.linalg.norm(one - larger) > 1


def test_a_risk_is_scored_by_the_last_time_that_is_asked_for(tmp_path: Path) -> None:
    recipe = Recipe(
        name="toy",
        kind="risk",
        labels={"death": 1},
        answer={"times": (100, 300), "intervals": 4},
        network={"name": "cnn", "features": (4, 8), "strides": ()},
        fit={"patch": (16, 16, 8), "batch": 4, "steps": 2, "epochs": 1},
    )
    cases = []
    for number in range(6):
        image, label = tmp_path / f"s{number}.nii.gz", tmp_path / f"s{number}.json"
        nib.save(nib.Nifti1Image(balls(number)[0].array[0], np.eye(4)), image)
        write_answer(label, "risk", Outcome(number % 2 == 0, 60.0 * (1 + number)))
        cases.append(Case(f"s{number}", f"p{number}", "train", (image,), label, ("death",), number, True))
    fit(recipe, cases, tmp_path, cache=tmp_path / "c", epochs=1, threads=1)
    predictor = predictor_of(recipe, tmp_path / "model.pt")
    volume, _ = balls(7)
    found, p = score_study(predictor, volume, looks=2), predictor.predict(volume).risks[-1]
    assert found.classes == {"death": pytest.approx(p)}
    assert found.scores["entropy"] == pytest.approx(entr(p) + entr(1 - p))
    assert found.scores["mutual_information"] >= 0
