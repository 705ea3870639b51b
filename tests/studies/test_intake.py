"""What the values of a mask from elsewhere mean, and which recipes it serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.images import read_mask


@pytest.fixture
def put(folder, draw):
    """Put a mask into labels/final behind radloop's back."""

    def write(study: str, *values: int) -> Path:
        folder.final_dir.mkdir(parents=True, exist_ok=True)
        return draw(*values, name="put.nii.gz").replace(folder.final_dir / f"{study}.nii.gz")

    return write


@pytest.fixture
def name(folder):
    """Write labels/names.json."""

    def write(**names: int) -> None:
        (folder.path / "labels").mkdir(exist_ok=True)
        (folder.path / "labels" / "names.json").write_text(json.dumps(names))

    return write


def ids(ledger, study: str, recipe: str) -> dict[int, int]:
    """Value drawn -> id in the study's label."""
    mask = read_mask(ledger.file(ledger.latest(study, recipe))).array[0]
    return {int(x): int(mask[x, 1, 2]) for x in np.flatnonzero(mask.any((1, 2)))}


def recipe(name: str, **labels: int) -> Recipe:
    return Recipe(name=name, labels=labels)


def test_names_that_do_not_cover_a_recipe_are_not_taken_for_its_ids(folder, ledger, put, name):
    put("a", 1, 2)
    name(liver=1, tumour=2)
    wide = recipe("wide", tumour=1, liver=2, spleen=3)
    assert sync_view(folder, ledger, [wide]) == []
    assert ids(ledger, "a", "wide") == {1: 2, 2: 1}
    assert ledger.latest("a", "wide").names == ("tumour", "liver")


def test_names_of_another_recipe_are_not_this_one_s(folder, ledger, organs, put, name):
    put("a", 1, 2)
    name(rib=1, spine=2)
    (problem,) = sync_view(folder, ledger, [organs])
    assert "rib, spine are of no recipe served (organs has liver, spleen)" in problem.reason
    assert ledger.history() == []


def test_numbered_names_are_no_names(folder, ledger, organs, put, name):
    put("a", 1, 2)
    name(label_1=1, label_2=2)
    assert sync_view(folder, ledger, [organs]) == []
    assert ids(ledger, "a", "organs") == {1: 1, 2: 2}


def test_an_edited_file_keeps_the_names_it_came_with(folder, ledger, put, name):
    put("a", 1)
    name(liver=1, tumour=2)
    wide = recipe("wide", tumour=1, liver=2, spleen=3)
    sync_view(folder, ledger, [wide])
    put("a", 1, 2)
    assert sync_view(folder, ledger, [wide]) == []
    assert ids(ledger, "a", "wide") == {1: 2, 2: 1}


def test_a_mask_without_names_serves_the_next_recipe_asked_for(folder, ledger, put):
    put("a", 1)
    one, two, other = recipe("liver", liver=1), recipe("liver2", liver=1), recipe("other", lesion=1)
    sync_view(folder, ledger, [one])
    sync_view(folder, ledger, [one, two, other])
    assert {row.recipe for row in ledger.history()} == {"liver"}
    assert sync_view(folder, ledger, [two, one, other]) == []
    assert ids(ledger, "a", "liver2") == {1: 1}
    assert sync_view(folder, ledger, [other, one, two]) == []
    assert ids(ledger, "a", "other") == {1: 1}
    sync_view(folder, ledger, [two, one])
    assert len(ledger.history()) == 3


def test_ids_that_do_not_fit_are_not_reused(folder, ledger, organs, bones, put):
    put("a", 3)
    sync_view(folder, ledger, [bones])
    assert sync_view(folder, ledger, [organs, bones]) == []
    assert {row.recipe for row in ledger.history()} == {"bones"}


def test_shared_names_go_before_ids(folder, ledger, organs, put):
    put("a", 1, 2)
    sync_view(folder, ledger, [organs])
    turned = recipe("turned", spleen=1, liver=2)
    sync_view(folder, ledger, [turned, organs])
    assert ids(ledger, "a", "turned") == {1: 2, 2: 1}


def test_what_a_reader_has_settled_is_not_guessed_anew(folder, ledger, organs, bones, put, draw):
    put("a", 1, 2)
    sync_view(folder, ledger, [organs])
    accept_label(folder, ledger, organs, "b", draw(2), author="Ada")
    assert sync_view(folder, ledger, [bones, organs]) == []
    assert ledger.current("bones") == {}


def test_an_edit_means_what_the_file_meant_when_the_recipe_is_renumbered(folder, ledger, organs, put, draw):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    put("b", 1)
    sync_view(folder, ledger, [organs])
    turned = recipe("organs", spleen=1, liver=2)
    sync_view(folder, ledger, [turned])
    for study in "ab":
        put(study, 1, 2)
    assert sync_view(folder, ledger, [turned]) == []
    assert ids(ledger, "a", "organs") == ids(ledger, "b", "organs") == {1: 2, 2: 1}


def test_masks_wait_where_nobody_asks_for_masks(folder, ledger, organs, put, name):
    put("a", 1, 2)
    name(liver=1, tumour=2)
    words = Recipe(name="words", kind="classification", labels={"dark": 1, "bright": 2})
    assert sync_view(folder, ledger, [words]) == []
    assert ledger.latest("a", "organs") is None
    assert sync_view(folder, ledger, [recipe("wide", liver=1, tumour=2)]) == []
    assert ledger.latest("a", "wide") is not None
