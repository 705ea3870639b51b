"""Held-out studies are offered without a proposal until they have a label; others, and where it is off, with one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import NotFound
from radloop.recipes.load import parse_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.blind import CLIENTS, BlindReading
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.sides import study_sides

SHAPE = (12, 10, 8)


def recipe(name: str, blind: bool = True) -> Recipe:
    return parse_recipe(f'name = "{name}"\nlabels = {{ {name} = 1 }}\n[gate]\nblind = {str(blind).lower()}\n')


def image(path: Path, dtype: type) -> Path:
    array = np.zeros(SHAPE, dtype)
    array[4:8, 4:8, 2:6] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


@pytest.fixture
def place(tmp_path: Path) -> tuple[StudiesFolder, Ledger]:
    """Twelve studies, each with a proposal of recipe `one`'s ids."""
    for number in range(12):
        image(tmp_path / "studies" / f"s{number:02d}.nii.gz", np.float32)
        image(tmp_path / "studies" / "labels" / "original" / f"s{number:02d}.nii.gz", np.uint8)
    return StudiesFolder(tmp_path / "studies"), Ledger(Home(tmp_path / "home"))


def store_of(place: tuple[StudiesFolder, Ledger], *recipes: Recipe) -> FolderDatastore:
    return FolderDatastore(place[0], place[1].home, place[1], recipes)


def held_out(place: tuple[StudiesFolder, Ledger]) -> set[str]:
    found = {i for i, side in study_sides(place[0].studies(), place[1]).items() if side != "train"}
    assert 2 <= len(found) < 12
    return found


def test_proposals_of_held_out_studies_are_not_shown_until_they_have_a_label(
    place: tuple[StudiesFolder, Ledger], tmp_path: Path
) -> None:
    store, hidden = store_of(place, recipe("one")), held_out(place)
    visible = set(place[0].studies()) - hidden
    assert {i for i, of in store.json()["objects"].items() if "original" in of["labels"]} == visible
    assert store.status()["label_tags"]["original"] == len(visible)
    study = min(hidden)
    assert store.get_labels_by_image_id(study) == {}
    with pytest.raises(NotFound):
        store.get_label_uri(study, "original")
    assert Path(store.get_label_uri(min(visible), "original")).is_file()

    mask = str(image(tmp_path / "m.nii.gz", np.uint8))
    (given,) = store.save_rows(study, mask, "final", {"model": "one", "client_id": "r"})
    assert given.shown_version == "", "the proposal was hidden, so the label is blind"
    assert store.get_labels_by_image_id(study) == {"final": study, "original": study}
    (again,) = store.save_rows(study, mask, "final", {"model": "one", "client_id": "r"})
    assert again.shown_version == "proposal"
    (anchored,) = store.save_rows(min(visible), mask, "final", {"model": "one", "client_id": "r"})
    assert anchored.shown_version == "proposal"


def test_a_new_proposal_replaces_a_hidden_one_and_nothing_is_lost(
    place: tuple[StudiesFolder, Ledger], tmp_path: Path
) -> None:
    store, study = store_of(place, recipe("one")), min(held_out(place))
    empty = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), empty)
    store.save_label(study, str(empty), "original", {"model": "one"})
    assert len(list((place[1].home.path / "removed").iterdir())) == 1
    assert store.get_labels_by_image_id(study) == {}


def test_a_recipe_that_switches_it_off_shows_its_proposals(place: tuple[StudiesFolder, Ledger]) -> None:
    assert set(store_of(place, recipe("one", blind=False)).proposals.ids()) == set(place[0].studies())
    both = store_of(place, recipe("one", blind=False), recipe("two"))
    hidden = held_out(place)
    assert both.blind.due(place[0].studies(), "one") == set()
    assert both.blind.due(place[0].studies(), "two") == both.blind.due(place[0].studies()) == hidden


def test_the_first_question_after_an_offer_is_withheld_once(place: tuple[StudiesFolder, Ledger]) -> None:
    blind, study = BlindReading(*place, [recipe("one")]), min(held_out(place))
    other = min(set(place[0].studies()) - held_out(place))
    assert not blind.withholds(study, "one", "r"), "opened by hand"
    blind.offer(study, "r")
    assert not blind.withholds(study, "one", "somebody else")
    assert blind.withholds(study, "one", "r")
    assert not blind.withholds(study, "one", "r"), "asked again"
    blind.offer(other, "r")
    assert not blind.withholds(other, "one", "r"), "nothing is measured on it"
    blind.offer(study, "r")
    place[1].add(study, study, "one", "x", place[0].study(study).channels[0], ".nii.gz", ["one"])
    assert not blind.withholds(study, "one", "r"), "it has a label"


def test_offers_of_many_clients_take_bounded_space(place: tuple[StudiesFolder, Ledger]) -> None:
    blind, study = BlindReading(*place, [recipe("one")]), min(held_out(place))
    for number in range(CLIENTS + 1):
        blind.offer(study, str(number))
    assert not blind.withholds(study, "one", "0")
    assert blind.withholds(study, "one", "1")
