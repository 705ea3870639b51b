"""The datastore's labels, drafts and proposals, asked for as a viewer asks."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import BadInput, BadLabel, Conflict, NotFound
from radloop.recipes.recipe import Gate, Recipe
from radloop.studies import tables
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.images import read_mask
from radloop.studies.info_store import InfoStore
from radloop.studies.ledger import checksum


@pytest.fixture
def store(folder, ledger, organs, bones) -> FolderDatastore:
    # Proposals are shown whichever side a study is on.
    recipes = [r.model_copy(update={"gate": Gate(blind=False)}) for r in (organs, bones)]
    return FolderDatastore(folder, ledger.home, ledger, recipes, lambda _recipe, _study: True)


@pytest.fixture
def put(folder, draw) -> Callable[..., Path]:
    """Lay a file into labels/original."""

    def lay(*values: int, ending: str = ".nii.gz", names: dict | None = None) -> Path:
        folder.proposal_dir.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(draw(*values, name=f"laid{ending}", names=names), folder.proposal_dir / f"a{ending}"))

    return lay


def value_at(path: str | Path, drawn: int) -> int:
    return int(read_mask(Path(path)).array[0, drawn, 1, 2])


def test_file_names_and_recipe_are_of_one_label(store, draw):
    store.save_rows("a", str(draw(1)), "final", {"model": "organs"})
    store.save_rows("a", str(draw(3)), "final", {"model": "bones"})
    info = store.get_label_info("a", "final")
    assert (info["recipe"], list(info["params"]["label_names"])) == ("bones", ["rib", "spine", "hip"])
    assert [row["recipe"] for row in info["labels"]] == ["bones", "organs"]
    assert value_at(store.get_label_uri("a", "final"), 3) == 3
    assert store.json()["objects"]["a"]["labels"]["final"]["info"]["recipe"] == "bones"
    store.remove_label("a", "final", recipe="bones")
    assert store.get_label_info("a", "final")["recipe"] == "organs"
    assert value_at(store.get_label_uri("a", "final"), 1) == 1


def test_a_label_follows_its_names_when_its_recipe_is_renumbered(store, folder, ledger, draw):
    store.save_rows("a", str(draw(1)), "final", {"model": "organs"})
    turned = Recipe(name="organs", labels={"spleen": 1, "liver": 2})
    later = FolderDatastore(folder, ledger.home, ledger, (turned,))
    assert later.get_label_info("a", "final")["params"]["label_names"] == {"spleen": 1, "liver": 2}
    assert value_at(later.get_label_uri("a", "final"), 1) == 2
    assert Path(later.get_label_uri("a", "final")).name == "a.nii.gz"
    with zipfile.ZipFile(later.get_dataset_archive(None)) as archive:
        archive.extract("labels/final/a.nii.gz", folder.path)
    later.finish_reply()
    assert value_at(folder.final_dir / "a.nii.gz", 1) == 2


def test_a_view_that_shows_something_else_is_not_given(store, folder, draw):
    store.save_rows("a", str(draw(1)), "final", {"model": "organs"})
    shutil.copy(draw(2), folder.final_dir / "a.nii.gz")
    assert value_at(store.get_label_uri("a", "final"), 1) == 1


def test_the_archive_says_the_recipe_of_each_file(store, draw):
    store.save_rows("a", str(draw(1)), "final", {"model": "organs"})
    store.save_rows("a", str(draw(3)), "final", {"model": "bones"})
    store.save_rows("b", str(draw(1)), "final", {"model": "organs"})
    with zipfile.ZipFile(store.get_dataset_archive(None)) as archive:
        files = json.loads(archive.read("metadata.json"))["files"]
        assert files == {"labels/final/a.nii.gz": "bones", "labels/final/b.nii.gz": "organs"}
        assert set(files) | {"a.nii.gz", "b.nii.gz", "metadata.json"} == set(archive.namelist())
    store.finish_reply()


def test_a_draft_is_given_back_and_is_no_label(store, draw):
    (row,) = store.save_rows("a", str(draw()), "draft", {"model": "organs", "client_id": "Ada"})
    assert row.state == "draft"
    store.save_rows("a", str(draw(1)), "draft", {"model": "organs", "client_id": "Ben"})
    assert store.get_labeled_images() == []
    assert store.get_labels_by_image_id("a") == {"draft": "a"}
    assert value_at(store.get_label_uri("a", "draft"), 1) == 1
    assert store.get_label_info("a", "draft")["labels"][0]["author"] == "Ben"
    store.save_rows("a", str(draw(1, 2)), "final", {"model": "organs", "client_id": "Ben"})
    assert store.get_label_info("a", "draft")["labels"][0]["author"] == "Ada"  # Ben is done
    store.remove_label("a", "draft")
    with pytest.raises(NotFound, match="tag 'draft'"):
        store.get_label_uri("a", "draft")
    assert store.get_labels_by_image_id("a") == {"final": "a"}


def test_a_retraction_says_who_and_keeps_to_its_recipe(store, ledger, draw):
    for model, value in (("organs", 1), ("organs", 2), ("bones", 3)):
        store.save_rows("a", str(draw(value)), "final", {"model": model, "client_id": "Ada"})
    store.remove_label("a", "final", recipe="organs", by="Ben")
    assert ledger.latest("a", "organs") is None
    assert ledger.latest("a", "bones").author == "Ada"
    store.remove_label("a", "final")
    gone = [(row.recipe, row.author) for row in ledger.history() if row.state == "revoked"]
    assert gone == [("organs", "Ben"), ("organs", "Ben"), ("bones", "unknown")]


def test_a_retraction_takes_held_labels_along(store, ledger, draw):
    store.save_rows("a", str(draw(1)), "final", {"model": "organs", "client_id": "Ada"})
    info = {"model": "organs", "client_id": "Ben", "label_info": [{"name": "liver", "idx": 1}]}
    (held,) = store.save_rows("a", str(draw()), "final", info)
    assert held.state == "held"
    store.remove_label("a", "final")
    with pytest.raises(Conflict, match="is revoked"):
        ledger.confirm(held.id)


def test_a_proposal_that_is_replaced_is_kept(store, ledger, put, draw):
    old = checksum(put(2))
    store.save_rows("a", str(draw(1)), "original", {"model": "organs"})
    store.save_rows("a", str(draw(1)), "original", {"model": "organs"})  # the same again
    assert value_at(store.get_label_uri("a", "original"), 1) == 1
    assert [checksum(path) for path in (ledger.home.path / "removed").iterdir()] == [old]


def test_a_proposal_of_another_ending_is_replaced_and_kept(store, ledger, folder, put, draw):
    old = checksum(put(2, ending=".nrrd"))
    store.save_rows("a", str(draw(1)), "original", {"model": "organs"})
    assert [path.name for path in folder.proposal_dir.iterdir()] == ["a.nii.gz"]
    assert [checksum(path) for path in (ledger.home.path / "removed").iterdir()] == [old]


def test_a_proposal_with_ids_of_no_recipe_is_refused(store, folder, put, tmp_path, affine, shape):
    before = put(2)
    wide = np.zeros(shape, np.uint16)
    wide[1, 1, 2] = 257  # 1, if cut to eight bits
    nib.save(nib.Nifti1Image(wide, affine), tmp_path / "wide.nii.gz")
    with pytest.raises(BadLabel, match="257"):
        store.save_rows("a", str(tmp_path / "wide.nii.gz"), "original", {"model": "organs"})
    with pytest.raises(NotFound, match="'organ' is not served"):
        store.save_rows("a", str(before), "original", {"model": "organ"})
    assert [value_at(path, 2) for path in folder.proposal_dir.iterdir()] == [2]


def test_a_proposal_is_kept_by_name(store, draw):
    info = [{"name": "hip", "idx": 1}, {"name": "rib", "idx": 2}]
    store.save_rows("a", str(draw(1, 2)), "original", {"label_info": info})
    path, told = store.get_label_uri("a", "original"), store.get_label_info("a", "original")
    assert (value_at(path, 1), value_at(path, 2)) == (3, 1)
    assert (told["model"], told["params"]["label_names"]) == ("bones", {"rib": 1, "spine": 2, "hip": 3})
    file = draw(5, name="m.seg.nrrd", names={"spleen": 5})
    store.save_rows("b", str(file), "original", {})
    assert value_at(store.get_label_uri("b", "original"), 5) == 2


def test_a_file_that_names_its_segments_is_given_with_the_recipes_ids(store, put):
    put(4, 6, ending=".seg.nrrd", names={"spleen": 4, "tumour": 6})
    path, told = store.get_label_uri("a", "original"), store.get_label_info("a", "original")
    assert (value_at(path, 4), value_at(path, 6)) == (2, 0)
    assert told["params"]["label_names"] == {"liver": 1, "spleen": 2}


def test_ids_that_no_recipe_has_get_no_names(store, put):
    put(3)
    assert list(store.get_label_info("a", "original")["params"]["label_names"]) == ["rib", "spine", "hip"]
    put(7)
    told = store.get_label_info("a", "original")
    assert told["params"]["label_names"] == {}
    assert "[7]" in told["message"]
    store.remove_label("a", "original")
    with pytest.raises(NotFound):
        store.get_label_info("a", "original")


@pytest.mark.parametrize("image", ["k_0000", "k_0001"])
def test_an_image_that_would_be_a_channel_is_refused(store, folder, image):
    with pytest.raises(BadInput, match="channel of study 'k'"):
        store.add_image(image, str(folder.path / "a.nii.gz"), {})
    assert store.add_image("k_00011", str(folder.path / "a.nii.gz"), {}) == "k_00011"


def test_two_thousand_labelled_studies_are_listed_at_once(folder, ledger, organs, bones, draw):
    mask = draw(1)
    for number in range(2000):
        (folder.path / f"s{number:04d}.nii.gz").touch()
    ledger.add("s0000", "s0000", "organs", "Ada", mask, ".nii.gz", ("liver",))
    first = ledger.history()[0]
    with ledger.database.write() as connection:
        for number in range(1, 2000):
            study = f"s{number:04d}"
            values = {n: getattr(first, n) for n in type(first).__dataclass_fields__ if n not in ("id", "parent")}
            values |= {"study": study, "patient": study, "names": '["liver"]', "ids": ""}
            connection.execute(tables.labels.insert().values(values))
    store = FolderDatastore(folder, ledger.home, ledger, (organs, bones))
    start = time.process_time()
    assert sum("final" in entry["labels"] for entry in store.json()["objects"].values()) == 2000
    assert time.process_time() - start < 1
    start = time.process_time()
    assert len(store.datalist()) == 2000
    assert time.process_time() - start < 1


def test_facts_that_json_does_not_have_are_left_empty(tmp_path):
    facts = InfoStore(tmp_path)
    facts.update("images", "a", {"kept": 1})
    (path,) = (tmp_path / "images").glob("*.json")
    path.write_text(
        '{"study": "a", "info": {"score": NaN, "deep": [{"x": -Infinity, "y": 1e999}, 2.5]}}', encoding="utf-8"
    )
    assert facts.get("images", "a") == {"score": None, "deep": [{"x": None, "y": None}, 2.5]}
    assert facts.update("images", "a", {"new": float("inf")})["new"] is None
    assert "NaN" not in path.read_text(encoding="utf-8")
