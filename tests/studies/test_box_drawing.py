"""Boxes drawn as masks beside other questions, as a stock viewer sends them: names of its scene, and no recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.images import read_mask
from radloop.studies.shown import ShownAnswers

BOXES = Recipe(name="spots", kind="detection", labels={"spot": 1}, network={"name": "retinanet"}, gate={"blind": False})


@pytest.fixture
def organs(organs: Recipe) -> Recipe:
    return Recipe.model_validate(organs.model_dump() | {"gate": {"blind": False}})


def scene(*names: str) -> dict[str, object]:
    return {"client_id": "r", "label_info": [{"name": name, "idx": n} for n, name in enumerate(names, start=1)]}


def test_a_drawn_mask_needs_no_recipe_where_only_boxes_are_served(folder, ledger, draw):
    store = FolderDatastore(folder, ledger.home, ledger, [BOXES])
    (row,) = store.save_rows("a", str(draw(1)), "final", scene("spot"))
    assert (row.recipe, row.ext) == ("spots", ".json")


def test_a_scene_of_masks_and_boxes_goes_to_those_whose_names_are_drawn(folder, ledger, draw, organs):
    store = FolderDatastore(folder, ledger.home, ledger, [BOXES, organs])
    (row,) = store.save_rows("a", str(draw(1)), "final", scene("liver", "spleen", "spot"))
    assert (row.recipe, row.names) == ("organs", ("liver",)), "an empty segment of the other question is no reason"
    (row,) = store.save_rows("b", str(draw(3)), "final", scene("liver", "spleen", "spot"))
    assert (row.recipe, row.names) == ("spots", ("spot",))
    rows = store.save_rows("c", str(draw(1, 3)), "final", scene("liver", "spleen", "spot"))
    assert sorted(row.recipe for row in rows) == ["organs", "spots"]
    (row,) = store.save_rows("c", str(draw(1)), "final", {"client_id": "r"})
    assert row.recipe == "organs", "a mask without names is for the recipe of masks"


def test_frames_that_were_shown_and_come_back_unchanged_are_no_new_boxes(folder, ledger, draw, organs):
    store, shown = FolderDatastore(folder, ledger.home, ledger, [BOXES, organs]), ShownAnswers(ledger)
    frames = (read_mask(Path(draw(3))).array[0] == 3).astype("uint8")
    shown.record("a", "spots", "r", "1", frames)
    shown.record("a", "organs", "r", "1", frames * 0)
    rows = store.save_rows("a", str(draw(1, 3)), "final", scene("liver", "spleen", "spot"))
    assert [row.recipe for row in rows] == ["organs"]
