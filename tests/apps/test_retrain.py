"""When a training starts by itself: the labels that count, what follows a failure, and never two at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from radloop.apps.retrain import Retraining
from radloop.apps.training import train_with_bar
from radloop.engine.running import training
from radloop.recipes.errors import BadInput
from radloop.recipes.load import parse_recipe
from radloop.studies import tables
from radloop.studies.cases import labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

RECIPE = parse_recipe('name = "tiny"\nlabels = { lesion = 1 }\n[gate]\nfirst_model_after = 4\nretrain_after = 2\n')


class House:
    """Studies, a ledger, and the trainings that were asked for."""

    def __init__(self, folder: Path, kit: SimpleNamespace) -> None:
        (folder / "studies").mkdir()
        for number in range(12):
            kit.make_study(folder / "studies", f"s{number:02d}", number)
        self.folder, self.home = StudiesFolder(folder / "studies"), Home(folder / "home")
        self.ledger, self.mask = Ledger(self.home), kit.mask_file(folder / "mask.nii.gz")
        self.champion, self.tainted, self.started = False, False, []
        self._labelled = iter(sorted(self.folder.studies()))
        self.again()

    def again(self) -> None:
        """As after a restart of the server."""
        self.retraining = Retraining(
            self.folder,
            self.home,
            self.ledger,
            lambda name: self.champion,
            self.started.append,
            lambda name: self.tainted,
        )

    def label(self, count: int) -> None:
        for _ in range(count):
            study = next(self._labelled)
            self.ledger.add(study, study, "tiny", "a", self.mask, ".nii.gz", ["lesion"])

    def look(self) -> bool:
        return self.retraining.look(RECIPE)

    def trained(self, state: str, **request: object) -> None:
        self.ledger.finish_training(self.ledger.start_training("tiny", os.getpid(), json.dumps(request)), state)


@pytest.fixture
def house(tmp_path: Path, kit: SimpleNamespace) -> House:
    return House(tmp_path, kit)


def test_a_first_model_counts_labels_of_every_side(house: House) -> None:
    house.label(3)
    assert not house.look()
    house.label(1)
    assert len(labelled_cases(house.folder, house.ledger, RECIPE)) in range(1, 5)  # some are held out
    assert house.look()
    assert house.started == ["tiny"]
    assert not house.look()  # it is on its way


def test_where_a_version_serves_only_new_labels_count(house: House) -> None:
    house.champion = True
    house.label(1)
    assert not house.look()
    house.label(1)
    assert house.look()


def test_labels_that_arrive_during_a_training_start_the_next_one(house: House) -> None:
    house.label(4)
    with training(house.home, house.ledger, "tiny") as run:
        house.label(2)
        assert not house.look()
        house.ledger.finish_training(run.id, "done")
    assert house.look()
    house.trained("done")
    assert not house.look()


def test_labels_of_a_failed_training_count_again_but_later(house: House) -> None:
    house.label(4)
    house.trained("failed")
    assert not house.look()
    with house.ledger.database.write() as connection:
        connection.execute(tables.trainings.update().values(finished="2020-01-01T00:00:00.000+00:00"))
    assert house.look()


def test_a_clock_that_was_set_back_puts_no_training_off(house: House) -> None:
    house.label(4)
    house.trained("failed")
    with house.ledger.database.write() as connection:
        connection.execute(tables.trainings.update().values(finished="2999-01-01T00:00:00.000+00:00"))
    assert house.look()


def test_a_stopped_training_waits_for_a_further_label(house: House) -> None:
    house.label(4)
    house.trained("cancelled")
    assert not house.look()
    house.label(1)
    assert house.look()


def test_a_serving_version_that_learned_from_retracted_labels_is_trained_anew_once(house: House) -> None:
    house.label(6)
    house.trained("done")
    house.champion = house.tainted = True
    assert not house.look()
    house.ledger.revoke(ids=[1])
    house.tainted = False
    assert not house.look()  # nothing that serves has learned from it
    house.tainted = True
    assert house.look()
    house.again()
    house.trained("done")
    assert not house.look()  # whatever the gate said of it


@pytest.mark.parametrize("request_", [{"fold": [1, 5]}, {"only": ["s00"]}])
def test_a_training_of_a_fold_or_of_some_images_counts_for_nothing(house: House, request_: dict) -> None:
    house.label(4)
    house.trained("done", fold=None, only=None)
    house.label(2)
    house.trained("done", **request_)
    assert house.look()
    house.again()
    house.trained("cancelled", **request_)
    assert house.look()
    house.again()
    house.trained("done", fold=None, only=None)
    house.champion = house.tainted = True
    house.ledger.revoke(ids=[1])
    house.trained("done", **request_)
    assert house.look()


def test_a_command_writes_down_which_images_it_learns_from(house: House) -> None:
    house.label(12)
    train = [case.study for case in labelled_cases(house.folder, house.ledger, RECIPE)]
    with pytest.raises(BadInput, match=r"fold 6/5"):
        train_with_bar(house.folder, house.home, RECIPE, only=train[:2], fold=(6, 5))
    asked = json.loads(house.ledger.last_training("tiny").request)
    assert (asked["only"], asked["fold"]) == (train[:2], [6, 5])
