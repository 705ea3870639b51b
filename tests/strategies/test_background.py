"""Scoring in the background: once a study and version, kept over a restart, with whatever happens to the studies."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from radloop.engine.turns import Turns
from radloop.engine.weights import save_weights
from radloop.networks.registry import build
from radloop.recipes.recipe import Recipe
from radloop.strategies import background
from radloop.strategies.background import Scoring
from radloop.strategies.desk import Desk
from radloop.strategies.score_cache import Kept, ScoreCache
from radloop.strategies.scores import Score
from radloop.strategies.study_input import StudyInput
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.pool import Pool

RECIPE = Recipe(
    name="toy",
    labels={"a": 1, "b": 2},
    network={"features": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))},
    fit={"patch": (16, 16, 8)},
)
House = SimpleNamespace


def image(path: Path, seed: int) -> None:
    array = np.random.default_rng(seed).normal(size=(16, 16, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Twelve studies, a version that can be made to serve, and scorings that begin as after a restart."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for number in range(12):
        image(studies / f"s{number:02d}.nii.gz", number)
    folder, home = StudiesFolder(studies), Home(tmp_path / "home")
    ledger = Ledger(home)
    found = House(path=studies, folder=folder, home=home, ledger=ledger, version=None, turns=Turns())
    found.pool = Pool(folder, ledger, ["toy"])

    def serve(number: int) -> None:
        place = tmp_path / f"v{number}"
        place.mkdir()
        torch.manual_seed(number)
        save_weights(build(RECIPE), place / "model.pt")
        (place / "recipe.json").write_text(RECIPE.model_dump_json())
        found.version = SimpleNamespace(number=number, dir=place)

    def scoring() -> Scoring:
        inputs = StudyInput(folder, ledger, lambda name: found.version, lambda version: None)
        return Scoring(found.pool, ScoreCache(home), [RECIPE], lambda name: found.version, inputs, found.turns)

    found.serve, found.scoring = serve, scoring
    return found


def steps(scoring: Scoring) -> int:
    """Until nothing is missing."""
    count = 0
    while scoring.step():
        count += 1
        assert count < 100
    return count


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of dropout looks of every score that is computed."""
    calls, real = list[int](), background.score_study

    def count(*given: object, looks: int, **more: object) -> Score:
        calls.append(looks)
        return real(*given, looks=looks, **more)

    monkeypatch.setattr(background, "score_study", count)
    return calls


def seen(scoring: Scoring, house: House) -> dict:
    return dict(scoring.candidates("toy", house.pool.look(fresh=True))[1])


def test_before_any_model_images_are_embedded(house: House, counted: list[int]) -> None:
    scoring = house.scoring()
    training = house.pool.look().learned_from
    assert steps(scoring) == len(training) < 12
    found = seen(scoring, house)
    assert {i for i, one in found.items() if one.embedding is not None} == training
    assert not any(one.scores for one in found.values())
    assert counted == []


def test_each_study_is_scored_once_by_each_version_also_after_a_restart(house: House, counted: list[int]) -> None:
    house.serve(1)
    scoring, training = house.scoring(), house.pool.look().learned_from
    assert steps(scoring) == len(counted) == len(training)
    before = seen(scoring, house)
    again = house.scoring()
    assert {i: c.scores for i, c in seen(again, house).items()} == {i: c.scores for i, c in before.items()}
    assert np.array_equal(seen(again, house)[min(training)].embedding, before[min(training)].embedding)
    assert steps(again) == 0
    house.serve(2)
    assert not any(one.scores for one in seen(again, house).values()), "another version has said nothing yet"
    assert steps(again) == len(training)
    assert again.progress("toy") == (2, len(training))
    house.version = SimpleNamespace(number=1, dir=house.version.dir.parent / "v1")
    assert seen(again, house)[min(training)].scores == before[min(training)].scores
    assert steps(again) == 0, "rolled back: what version 1 said is still there"


def test_a_study_that_came_meanwhile_is_offered_without_a_score_and_scored_next(house: House) -> None:
    house.serve(1)
    scoring = house.scoring()
    steps(scoring)
    for number in range(40):
        image(house.path / f"new{number}.nii.gz", 100 + number)
    known = house.pool.look(fresh=True)
    desk = Desk(house.pool, ["toy"], scoring, seed=0, held_out_every=0)
    assert any(desk.next("r", "entropy")["id"].startswith("new") for _ in range(10))
    new = {i for i in known.learned_from if i.startswith("new")}
    assert steps(scoring) == len(new)
    assert all(seen(scoring, house)[i].scores for i in new)


def test_labelled_and_held_out_studies_are_not_scored(house: House, counted: list[int], tmp_path: Path) -> None:
    house.serve(1)
    training = sorted(house.pool.look().learned_from)
    (tmp_path / "m").write_bytes(b"m")
    house.ledger.add(training[0], training[0], "toy", "r", tmp_path / "m", ".nii.gz", ["a"])
    scoring = house.scoring()
    steps(scoring)
    scored = {i for i, one in seen(scoring, house).items() if one.scores}
    assert scored == set(training[1:])
    assert len(counted) == len(training) - 1
    row = house.ledger.latest(training[0], "toy")
    house.ledger.revoke(ids=[row.id])
    assert steps(scoring) == 1, "retracted: it may be read again"


def test_looks_are_computed_once_somebody_wants_them(house: House, counted: list[int]) -> None:
    house.serve(1)
    scoring = house.scoring()
    count = steps(scoring)
    assert set(counted) == {0}
    scoring.want({"entropy"})
    assert steps(scoring) == 0
    Desk(house.pool, ["toy"], scoring, held_out_every=0).next("r", "mutual_information")
    assert steps(scoring) == count
    assert set(counted[count:]) == {background.LOOKS}
    assert steps(scoring) == 0


def test_a_study_that_cannot_be_read_is_tried_once_and_again_when_its_file_changed(house: House) -> None:
    house.serve(1)
    bad = min(house.pool.look().learned_from)
    (house.path / f"{bad}.nii.gz").write_bytes(b"no image")
    scoring = house.scoring()
    count = steps(scoring)
    assert seen(scoring, house)[bad].embedding is None
    assert steps(house.scoring()) == 0
    image(house.path / f"{bad}.nii.gz", 5)
    again = house.scoring()
    assert steps(again) == 1 < count
    assert seen(again, house)[bad].scores


def test_the_cache_may_go_or_be_damaged_at_any_time(house: House) -> None:
    house.serve(1)
    scoring = house.scoring()
    count = steps(scoring)
    file = house.home.cache / "scores" / "scores.db"
    file.write_bytes(b"nothing that SQLite made" * 100)
    assert steps(house.scoring()) == count
    file.unlink()
    file.parent.rmdir()
    assert steps(house.scoring()) == count


def test_scores_of_the_newest_versions_are_kept(tmp_path: Path) -> None:
    cache = ScoreCache(Home(tmp_path))
    for version in range(1, 7):
        cache.keep_score("toy", version, "s", Kept("x", 0, Score({"entropy": 1.0}, {"a": 0.5})))
    assert [v for v in range(1, 7) if cache.scores("toy", v)] == [4, 5, 6]
    cache.keep_score("toy", 1, "s", Kept("x", 0, None))
    assert [v for v in range(1, 7) if cache.scores("toy", v)] == [1, 5, 6], "the one that serves is kept, however old"


def test_it_waits_while_an_answer_is_computed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.turns, "give_way", lambda: Turns.give_way(house.turns, 0.0))
    scoring, done = house.scoring(), threading.Event()

    def compute() -> None:
        steps(scoring)
        done.set()

    with house.turns:
        thread = threading.Thread(target=compute)
        thread.start()
        assert not done.wait(0.5)
        assert not any(one.embedding is not None for one in seen(scoring, house).values())
    assert done.wait(30)
    thread.join()
