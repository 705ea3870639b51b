from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from radloop.engine.checkpoint import Checkpoint
from radloop.engine.fit import Cancelled, Progress
from radloop.engine.running import training
from radloop.engine.train import train_version
from radloop.recipes.errors import BadInput, Conflict
from radloop.recipes.recipe import Recipe
from radloop.registry.lineage import uses
from radloop.registry.registry import Registry
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES

MakeCase = Callable[..., Case]
House = tuple[StudiesFolder, Home, Ledger]


@pytest.fixture
def house(make_case: MakeCase, tmp_path: Path, toy_recipe: Recipe) -> House:
    """Sixteen labelled studies of as many patients."""
    folder, home = tmp_path / "studies", Home(tmp_path / "home")
    folder.mkdir()
    ledger = Ledger(home)
    for number in range(16):
        case = make_case(number, shape=(16, 16, 16))
        case.channels[0].rename(folder / f"{case.study}.nii.gz")
        ledger.add(case.study, case.study, "toy", "ann", case.label, ".nii.gz", ("bright", "dark"))
    return StudiesFolder(folder), home, ledger


def sides_of(house: House, recipe: Recipe) -> dict[str, str]:
    return {case.study: case.side for case in labelled_cases(house[0], house[2], recipe, SIDES)}


def test_first_model_then_a_challenger_that_starts_from_it(house: House, toy_recipe: Recipe) -> None:
    folder, home, _ = house
    first = train_version(folder, home, toy_recipe, epochs=10, threads=1)
    sides = sides_of(house, toy_recipe)
    manifest = first.version.manifest
    assert set(manifest["patients"]["train"]) == {study for study, side in sides.items() if side == "train"}
    assert set(manifest["held_out"]) == {study for study, side in sides.items() if side == "validation"}
    assert set(manifest["baseline"]) == set(manifest["held_out"])
    assert len(manifest["labels"]) == len(manifest["patients"]["train"])
    assert manifest["torch"] == torch.__version__
    assert manifest["code_version"]
    assert manifest["started_from"] is None
    assert first.decision is not None
    served = Registry(home).champion("toy")
    assert (served is not None) == first.decision.serves

    if served is None:
        Registry(home).rollback("toy", 1)
    second = train_version(folder, home, toy_recipe, epochs=3, seed=1, threads=1)
    assert second.version.number == 2
    assert second.version.manifest["started_from"] == 1
    assert second.version.manifest["champion"].keys() == second.version.manifest["held_out"].keys()
    assert second.decision is not None
    now = Registry(home).champion("toy")
    assert now is not None
    assert now.number == (2 if second.decision.serves else 1)


def test_a_recipe_with_another_network_starts_anew(house: House, toy_recipe: Recipe) -> None:
    folder, home, _ = house
    train_version(folder, home, toy_recipe, epochs=1, threads=1)
    Registry(home).rollback("toy", 1)
    wider = Recipe.model_validate(
        toy_recipe.model_dump() | {"network": toy_recipe.network.model_dump() | {"features": (8, 16, 24)}}
    )
    outcome = train_version(folder, home, wider, epochs=1, threads=1)
    assert outcome.version.manifest["started_from"] is None
    assert outcome.version.manifest["champion"]


def test_only_the_images_given_are_learned_from(house: House, toy_recipe: Recipe) -> None:
    folder, home, _ = house
    sides = sides_of(house, toy_recipe)
    train = [study for study, side in sides.items() if side == "train"]
    held = [study for study, side in sides.items() if side != "train"]
    outcome = train_version(folder, home, toy_recipe, epochs=1, threads=1, only=[train[0], held[0]])
    assert outcome.version.manifest["patients"]["train"] == [train[0]]
    with pytest.raises(Conflict, match="among the 1 images given"):
        train_version(folder, home, toy_recipe, epochs=1, threads=1, only=held[:1])


def test_folds_cover_every_patient_once_and_never_serve(house: House, toy_recipe: Recipe) -> None:
    folder, home, _ = house
    measured: list[str] = []
    for number in (1, 2):
        outcome = train_version(folder, home, toy_recipe, epochs=1, threads=1, fold=(number, 2))
        assert outcome.decision is None
        assert outcome.version.state == "fold"
        patients = outcome.version.manifest["patients"]
        assert not set(patients["train"]) & set(patients["fold"])
        measured += outcome.version.manifest["held_out"]
    assert sorted(measured) == sorted(sides_of(house, toy_recipe))
    assert Registry(home).champion("toy") is None
    with pytest.raises(BadInput, match="fold 3/2"):
        train_version(folder, home, toy_recipe, epochs=1, fold=(3, 2))


def test_cancelling_publishes_nothing(house: House, toy_recipe: Recipe) -> None:
    folder, home, _ = house
    steps: list[int] = []
    with pytest.raises(Cancelled):
        train_version(
            folder,
            home,
            toy_recipe,
            epochs=1,
            threads=1,
            progress=lambda p: steps.append(p.step),
            cancelled=lambda: bool(steps) and steps[-1] >= toy_recipe.fit.steps,  # the training done, not yet judged
        )
    assert Registry(home).versions("toy") == []
    assert not list((home.versions / ".staging").glob("*/model.pt"))


def test_no_label_is_a_conflict(tmp_path: Path, toy_recipe: Recipe) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Conflict, match="no label on the training side"):
        train_version(StudiesFolder(tmp_path / "empty"), Home(tmp_path / "home"), toy_recipe, epochs=1)


def test_named_weights_of_a_fold_are_refused_and_those_of_another_version_are_written_down(
    house: House, toy_recipe: Recipe
) -> None:
    folder, home, ledger = house
    fold = train_version(folder, home, toy_recipe, epochs=1, threads=1, fold=(1, 4)).version

    def named(weights: Path, name: str = "second") -> Recipe:
        plain = toy_recipe.model_dump()
        return Recipe.model_validate(plain | {"name": name, "network": plain["network"] | {"weights": str(weights)}})

    for row in ledger.current("toy").values():
        ledger.add(row.study, row.patient, "second", "ann", ledger.file(row), ".nii.gz", row.names, ids=row.names)
    with pytest.raises(BadInput, match="trained on a fold"):
        train_version(folder, home, named(fold.weights), epochs=1, threads=1)

    first = train_version(folder, home, toy_recipe, epochs=1, threads=1).version
    second = train_version(folder, home, named(first.weights), epochs=1, threads=1).version
    assert second.manifest["weights_of"] == ["toy", first.number]
    learned = set(first.manifest["labels"])
    (use,) = [one for one in uses(Registry(home), learned) if one.version.recipe == "second"]
    assert set(use.inherited) == learned
    ledger.revoke(ids=[min(learned)])
    with pytest.raises(BadInput, match="retracted since"):
        train_version(folder, home, named(first.weights), epochs=1, threads=1)


def test_an_epoch_of_skipped_steps_is_published_without_a_loss(house: House, toy_recipe: Recipe) -> None:
    folder, home, _ = house
    values = toy_recipe.model_dump()
    wild = Recipe.model_validate(values | {"fit": values["fit"] | {"learning_rate": 1e30}})
    version = train_version(folder, home, wild, epochs=2, threads=1).version
    assert version.manifest["losses"][0] > 0
    assert version.manifest["losses"][1] is None
    assert version.state == "rejected"


def test_a_label_that_comes_while_a_training_starts_is_left_to_the_next(
    house: House, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home, ledger = house
    monkeypatch.setenv("RADLOOP_CHECKPOINT_SECONDS", "0")
    case = labelled_cases(folder, ledger, toy_recipe)[0]
    with training(home, ledger, "toy") as run:
        ledger.add(case.study, case.patient, "toy", "ann", case.label, ".nii.gz", ("bright", "dark"))
        with pytest.raises(Cancelled):
            train_version(folder, home, toy_recipe, epochs=2, threads=1, run=run, cancelled=run.checkpoint.path.exists)
        needed = Checkpoint(run.checkpoint.path, needed=True)
        resumed = replace(run, checkpoint=needed)  # as the next server does
        outcome = train_version(folder, home, toy_recipe, epochs=2, threads=1, run=resumed)
        assert outcome.version.manifest["last_row"] == run.last_row
        assert case.row in outcome.version.manifest["labels"]


def without_held_out(house: House, recipe: Recipe) -> None:
    """Whatever is trained first serves: there is nothing to judge it by."""
    folder, _, ledger = house
    ledger.revoke(ids=[case.row for case in labelled_cases(folder, ledger, recipe, ["validation"])])


def test_a_version_over_another_champion_than_it_was_judged_against_is_held(house: House, toy_recipe: Recipe) -> None:
    without_held_out(house, toy_recipe)
    folder, home, _ = house
    registry = Registry(home)

    def other_serves(progress: Progress) -> None:
        if progress.step == 1:
            staged = registry.stage(toy_recipe)
            (staged / "model.pt").write_bytes(b"weights")
            registry.promote(registry.publish(toy_recipe, staged, {"labels": []}))

    outcome = train_version(folder, home, toy_recipe, epochs=1, threads=1, progress=other_serves)
    assert outcome.decision is not None
    assert outcome.decision.serves
    assert outcome.version.state == "held"
    assert "judged against version None, but version 1 serves by now" in outcome.version.reason
    assert Registry(home).champion("toy").number == 1


def test_a_version_that_could_not_be_made_to_serve_fails_its_training(house: House, toy_recipe: Recipe) -> None:
    without_held_out(house, toy_recipe)
    folder, home, _ = house
    Registry(home)
    with closing(sqlite3.connect(home.registry_db)) as connection:
        connection.execute(
            "CREATE TRIGGER busy BEFORE INSERT ON registered_model_aliases "
            "BEGIN SELECT RAISE(ABORT, 'database is locked'); END"
        )
    with pytest.raises(Conflict, match=r"version 1 was published, but .* could not be carried out: .* is locked"):
        train_version(folder, home, toy_recipe, epochs=1, threads=1)
    assert [version.state for version in Registry(home).versions("toy")] == ["challenger"]
