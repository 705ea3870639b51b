"""A replay's parts: what a strategy is given and may give, words that are damaged, and what is measured of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace as dc_replace
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.strategies import choose, corrections
from radloop.strategies.choose import Candidate
from radloop.strategies.corrections import CorrectionPlan, correct, mistakes_of
from radloop.strategies.replay import Replay, Rounds, steps_of, train
from radloop.strategies.simulate import Plan, simulate
from radloop.studies.answers import write_answer
from radloop.studies.cases import Case
from radloop.studies.outcomes import Outcome

RECIPE = Recipe(
    name="side",
    kind="classification",
    labels={"left": 1, "right": 2},
    network={"name": "cnn", "features": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))},
    fit={"patch": (8, 8, 8), "steps": 3, "epochs": 1},
)


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    """Twelve studies to draw from and six to measure on, bright on one side."""
    cases = []
    for number in range(18):
        left = bool(number % 2)
        image = np.random.default_rng(number).normal(0, 1, (8, 8, 8)).astype(np.float32)
        image[: 4 if left else None, :, :][None if left else slice(4), :] += 4
        paths = tmp_path / f"s{number:02d}.nii.gz", tmp_path / f"s{number:02d}.json"
        nib.save(nib.Nifti1Image(image, np.eye(4)), paths[0])
        write_answer(paths[1], "classification", {"left": left, "right": not left})
        side = "train" if number < 12 else "test"
        cases.append(
            Case(
                f"s{number:02d}", f"p{number:02d}", side, (paths[0],), paths[1], RECIPE.label_names, number, blind=True
            )
        )
    work = tmp_path / "work"
    work.mkdir()
    pool, held_out = (tuple(case for case in cases if case.side == side) for side in ("train", "test"))
    return Replay(RECIPE, pool, held_out, work, tmp_path / "cache", 1, 1)


class Spy:
    """Takes the first studies and remembers what it was shown."""

    name = "spy"
    needs = frozenset({"entropy"})
    seen: ClassVar[list[tuple[list[Candidate], list[Candidate]]]] = []

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        Spy.seen.append((list(pool), list(labelled)))
        return [one.study for one in pool][:k]


def test_a_strategy_sees_scores_of_what_has_no_label_and_never_a_held_out_study(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choose._known, "spy", Spy)
    monkeypatch.setattr(Spy, "seen", [])
    steps = steps_of(replay, "spy", 0, Rounds(3, 4, 2))
    assert [len(step["labelled"]) for step in steps] == [4, 6, 8]
    assert len(Spy.seen) == 2
    for (pool, labelled), step in zip(Spy.seen, steps, strict=False):
        assert {one.study for one in labelled} == set(step["labelled"])
        assert {one.study for one in [*pool, *labelled]} == {case.study for case in replay.pool}
        assert all(one.scores["entropy"] > 0 and set(one.classes) == {"left", "right"} for one in pool)
        assert not any(one.scores for one in labelled)


@pytest.mark.parametrize("given", [["s00"], ["s00", "s00"], ["s00", "s17"]])
def test_a_strategy_that_gives_what_nobody_asked_for_is_named(
    replay: Replay, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    class Wrong(Spy):
        name, needs = "wrong", frozenset[str]()

        def choose(self, *_: object) -> list[str]:
            return given

    monkeypatch.setitem(choose._known, "wrong", Wrong)
    with pytest.raises(RadloopError, match=r"'wrong' was asked for 2 of 12 studies"):
        steps_of(replay, "wrong", 0, Rounds(2, 2, 2))


def test_risks_are_measured_as_the_gate_does(replay: Replay, tmp_path: Path) -> None:
    recipe = Recipe(
        name="life",
        kind="risk",
        labels={"death": 1},
        answer={"times": (100.0, 300.0), "intervals": 3},
        network={"name": "cnn", "features": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))},
        fit={"patch": (8, 8, 8), "steps": 3, "epochs": 1},
    )

    def with_outcome(case: Case) -> Case:
        label = tmp_path / f"{case.study}-life.json"
        number = int(case.study[1:])
        write_answer(label, "risk", Outcome(number % 3 != 0, 20.0 + 25 * number))
        return dc_replace(case, label=label, names=("death",))

    pool, held_out = (tuple(map(with_outcome, cases)) for cases in (replay.pool, replay.held_out))
    told = simulate(
        dc_replace(replay, recipe=recipe, pool=pool, held_out=held_out),
        Plan(("random", "entropy"), Rounds(2, 4, 2), seeds=2),
    )
    assert told["figure"] == recipe.figure
    assert told["complete"]
    for of in told["strategies"].values():
        assert all(0 < entry["value"] < 1 for entry in of["rounds"])


def test_a_damaged_label_is_written_once(replay: Replay) -> None:
    labels = mistakes_of(replay, 0, 4).labels
    times = {study: file.stat().st_mtime_ns for study, file in labels.items()}
    again = mistakes_of(replay, 0, 6)
    assert {study: again.labels[study].stat().st_mtime_ns for study in times} == times
    assert len(again.labels) == len(again.untouched) == 6


def test_corrections_give_true_labels_back_and_tell_what_is_forgotten(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str], bool]] = []

    def watched(replay: Replay, cases: Sequence[Case], seed: int, out: Path, start: Path | None = None) -> Path:
        wrong = {case.study for case in cases if case.label.parent.parent.name == "damaged"}
        seen.append(({case.study for case in cases}, wrong, start is not None))
        return train(replay, cases, seed, out, start)

    monkeypatch.setattr(corrections, "train", watched)
    told = correct(dc_replace(replay, epochs=8), CorrectionPlan(rounds=2, each=2, seeds=1))
    every = {case.study for case in replay.pool}
    wrong = seen[0][1]
    assert seen[0] == (every, wrong, False)
    assert len(wrong) == 4
    for number, from_before in ((1, True), (3, False)):
        assert seen[number][0] == seen[number + 1][0] == every
        assert len(seen[number][1]) == 2
        assert seen[number][1] < wrong
        assert (seen[number + 1][1], seen[number][2], seen[number + 1][2]) == (set(), from_before, from_before)
    alone = [one for one in seen[5:] if one[0] != every]
    assert all(studies <= wrong and not damaged and start for studies, damaged, start in alone)
    assert told["damage"] == ["swapped"]
    assert [entry["labels"] for entry in told["ways"]["afresh"]["rounds"]] == [0, 2, 4]
    assert told["complete"]
    assert not (replay.work / "weights").exists()
    steps = [json.loads(file.read_text()) for file in (replay.work / "steps").glob("*.json")]
    ends = {
        (step["way"], len(step["corrected"])): roc_auc_score(
            [record["y"][0] for record in step["untouched"]], [record["p"][0] for record in step["untouched"]]
        )
        for step in steps
    }
    lost = ends["champion", 0] - ends["afresh", 4]
    assert lost != 0
    assert told["ways"]["afresh"]["forgotten"]["value"] == pytest.approx(lost, abs=1e-5)
    assert all({record["study"] for record in step["untouched"]} == every - wrong for step in steps)
