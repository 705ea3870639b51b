"""Answers about whole studies beside masks: neither hides, overwrites or retracts the other."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from radloop.recipes.errors import BadInput, BadLabel, NotFound
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.answers import read_answer, said
from radloop.studies.cases import labelled_cases
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.folder import StudiesFolder
from radloop.studies.label_tags import asked_recipe
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES
from radloop.studies.transfer import export_studies, import_studies

GRADE = Recipe(name="grade", kind="ordinal", labels={"low": 1, "high": 2})
CHEST = Recipe(name="chest", kind="multilabel", labels={"effusion": 1, "mass": 2})


@pytest.fixture
def told(tmp_path) -> Callable[..., Path]:
    """An answer file as a client sends it."""

    def write(recipe: Recipe, answer: object) -> Path:
        file = tmp_path / f"{recipe.name}.json"
        file.write_text(json.dumps({"format": 1, "kind": recipe.kind, "answer": answer}))
        return file

    return write


@pytest.fixture
def store(folder, ledger, organs) -> FolderDatastore:
    return FolderDatastore(folder, ledger.home, ledger, (GRADE, organs, CHEST), lambda _recipe, _study: True)


@pytest.fixture
def ask() -> Iterator[Callable[[str], object]]:
    """As a request with `recipe=`."""
    yield asked_recipe.set
    asked_recipe.set("")


def send(
    store: FolderDatastore, file: Path, model: str = "", tag: str = "final", study: str = "a", client: str = "Ada"
):
    return store.save_rows(study, str(file), tag, {"client_id": client} | ({"model": model} if model else {}))


def test_an_answer_is_a_row_like_any_other(folder, ledger, told):
    first = accept_label(folder, ledger, GRADE, "a", told(GRADE, "low"), author="Ada", shown_version="3")
    assert (first.author, first.shown_version, first.state, first.origin, first.ext) == (
        "Ada", "3", "final", "reader", ".json",
    )  # fmt: skip
    assert (first.names, first.ids, first.patient) == (("low", "high"), (), "a")
    second = accept_label(folder, ledger, CHEST, "a", told(CHEST, {"mass": False}), author="Ada")
    third = accept_label(folder, ledger, GRADE, "a", told(GRADE, "high"), author="Ben")
    assert (second.names, second.parent, third.parent) == (("mass",), None, first.id)
    assert read_answer(ledger.content(ledger.latest("a", "grade")), GRADE) == {"low": False, "high": True}
    assert said(ledger.content(ledger.latest("a", "chest"))) == {"mass": False}


def test_a_mask_for_a_question_about_the_study_is_refused_and_the_reverse(folder, ledger, organs, told, draw):
    with pytest.raises(BadLabel, match="recipe grade is of kind ordinal and takes a JSON answer file"):
        accept_label(folder, ledger, GRADE, "a", draw(1), author="Ada")
    with pytest.raises(BadLabel, match="recipe organs is of kind segmentation and takes a mask"):
        accept_label(folder, ledger, organs, "a", told(GRADE, "low"), author="Ada")
    with pytest.raises(NotFound, match="study 'zz'"):
        accept_label(folder, ledger, GRADE, "zz", told(GRADE, "low"), author="Ada")
    assert ledger.history() == []


def test_masks_and_answers_of_a_study_do_not_hide_each_other(store, folder, told, draw, ask):
    send(store, draw(1))
    assert [row.recipe for row in send(store, told(GRADE, "low"), "grade")] == ["grade"]
    send(store, told(CHEST, {"mass": True}), "chest")
    assert [path.name for path in folder.final_dir.iterdir()] == ["a.nii.gz"]
    sync_view(folder, store.ledger, store.recipes)
    assert [path.name for path in folder.final_dir.iterdir()] == ["a.nii.gz"]
    assert store.get_label_uri("a", "final").endswith("labels/final/a.nii.gz")
    info = store.json()["objects"]["a"]["labels"]["final"]
    assert (info["ext"], info["info"]["recipe"]) == (".nii.gz", "organs")
    assert [(row["recipe"], row.get("answer")) for row in info["info"]["labels"]] == [
        ("organs", None),
        ("chest", {"mass": True}),
        ("grade", "low"),
    ]
    ask("grade")
    assert said(Path(store.get_label_uri("a", "final"))) == "low"
    assert store.get_label_info("a", "final")["params"]["label_names"] == GRADE.labels
    ask("chest")
    assert said(Path(store.get_label_uri("a", "final"))) == {"mass": True}
    ask("grad")
    with pytest.raises(NotFound, match=r"recipe 'grad' is not served.*did you mean 'grade'"):
        store.get_label_uri("a", "final")
    ask("grade")
    with pytest.raises(NotFound, match="study 'b' has no label of tag 'final' of recipe grade"):
        store.get_label_uri("b", "final")


def test_only_the_label_asked_for_is_retracted(store, folder, ledger, told, draw, ask):
    send(store, draw(1))
    send(store, told(GRADE, "low"), "grade")
    ask("grade")
    store.remove_label("a", "final", by="Ben")
    assert ledger.latest("a", "grade") is None
    assert [path.name for path in folder.final_dir.iterdir()] == ["a.nii.gz"]
    ask("")
    send(store, told(GRADE, "high"), "grade")
    ask("organs")
    store.remove_label("a", "final")
    assert list(folder.final_dir.iterdir()) == []  # the answer does not keep the file of a mask that is gone
    ask("")
    assert said(Path(store.get_label_uri("a", "final"))) == "high"
    store.remove_label("a", "final")
    assert store.get_labels_by_image_id("a") == {}


def test_an_edited_mask_keeps_its_meaning_after_an_answer(store, folder, ledger, organs, bones, told, draw):
    send(store, draw(1))
    send(store, told(GRADE, "low"), "grade")
    (folder.final_dir / "a.nii.gz").write_bytes(draw(2).read_bytes())
    assert sync_view(folder, ledger, [bones, *store.recipes]) == []
    assert ledger.latest("a", "organs").author == "import"
    assert ledger.current("bones") == {}


def test_no_mask_is_taken_for_an_answer_and_no_answer_is_shown_as_a_mask(folder, ledger, organs, told, draw):
    folder.final_dir.mkdir(parents=True)
    (folder.final_dir / "b.nii.gz").write_bytes(draw(2).read_bytes())
    accept_label(folder, ledger, GRADE, "a", told(GRADE, "low"), author="Ada")
    assert sync_view(folder, ledger, [GRADE, organs]) == []
    assert [(row.study, row.recipe) for row in ledger.history()] == [("a", "grade"), ("b", "organs")]
    sync_view(folder, ledger, [Recipe(name="grade", labels={"low": 1}), organs])  # of masks from now on
    assert [path.name for path in folder.final_dir.iterdir()] == ["b.nii.gz"]


def test_a_study_is_complete_with_its_mask(store, organs, folder, ledger, told, draw):
    send(store, told(GRADE, "low"), "grade")
    send(store, draw(1), study="b")
    assert store.status()["completed"] == 1
    assert (store.get_labeled_images(), store.get_unlabeled_images()) == (["b"], ["a", "c"])
    assert store.labelled() == {"a", "b"}
    assert store.datalist() == [{"image": "b.nii.gz", "label": "labels/final/b.nii.gz"}]
    only = FolderDatastore(folder, ledger.home, ledger, (GRADE,))
    assert only.status()["completed"] == 1
    assert only.get_labeled_images() == ["a"]


def test_a_draft_answer_is_given_back_and_is_no_label(store, ledger, told, ask):
    (row,) = send(store, told(GRADE, "low"), "grade", "draft")
    assert (row.state, ledger.current("grade")) == ("draft", {})
    assert said(Path(store.get_label_uri("a", "draft"))) == "low"
    send(store, told(GRADE, "high"), "grade")
    assert store.get_labels_by_image_id("a") == {"final": "a"}


def test_which_recipe_an_answer_is_for(store, folder, ledger, organs, told, draw):
    with pytest.raises(BadLabel, match=r"a\.json may be for grade, chest; say which recipe in params"):
        send(store, told(GRADE, "low"))
    with pytest.raises(NotFound, match="'grad' is not served"):
        send(store, told(GRADE, "low"), "grad")
    one = FolderDatastore(folder, ledger.home, ledger, (organs, GRADE))
    assert [row.recipe for row in send(one, told(GRADE, "low"))] == ["grade"]
    with pytest.raises(BadLabel, match=r"an answer, which no recipe served takes; served: organs \(segmentation\)"):
        send(FolderDatastore(folder, ledger.home, ledger, (organs,)), told(GRADE, "low"))
    with pytest.raises(BadLabel, match=r"a mask, which no recipe served takes; served: grade \(ordinal\)"):
        send(FolderDatastore(folder, ledger.home, ledger, (GRADE,)), draw(1))
    with pytest.raises(BadLabel, match="recipe grade is of kind ordinal and takes a JSON"):
        send(store, draw(1), "grade")


def test_a_mask_laid_beside_a_study_says_nothing_of_its_answer(folder, ledger, organs, told, draw):
    recipes = [r.model_copy(update={"gate": r.gate.model_copy(update={"blind": False})}) for r in (organs, GRADE)]
    store = FolderDatastore(folder, ledger.home, ledger, recipes)
    folder.proposal_dir.mkdir(parents=True)
    (folder.proposal_dir / "a.nii.gz").write_bytes(draw(1).read_bytes())
    assert send(store, draw(1))[0].shown_version == "proposal"
    assert send(store, told(GRADE, "low"))[0].shown_version == ""


def test_a_proposal_is_a_mask(store, told, draw, ask):
    for file, model in ((told(GRADE, "low"), "grade"), (draw(1), "grade"), (told(GRADE, "low"), "organs")):
        with pytest.raises(BadLabel, match=f"tag 'original' is a mask; recipe {model}"):
            send(store, file, model, "original")
    send(store, draw(1), "organs", "original")
    send(store, told(GRADE, "low"), "grade")
    ask("grade")
    with pytest.raises(NotFound, match="'original' of recipe grade"):
        store.get_label_uri("a", "original")


def test_the_version_shown_is_kept(store, ledger, told):
    ledger.record_shown("a", "grade", "Ada", "7")
    assert send(store, told(GRADE, "low"), "grade")[0].shown_version == "7"
    assert send(store, told(GRADE, "low"), "grade", client="Ben")[0].shown_version == ""


def test_the_archive_has_masks_and_answers(store, told, draw):
    send(store, draw(1))
    send(store, told(GRADE, "low"), "grade")
    send(store, told(GRADE, "high"), "grade", study="b")
    with zipfile.ZipFile(store.get_dataset_archive(None)) as archive:
        files = json.loads(archive.read("metadata.json"))["files"]
        assert files == {
            "labels/final/a.nii.gz": "organs",
            "labels/answers/grade/a.json": "grade",
            "labels/answers/grade/b.json": "grade",
        }
        assert json.loads(archive.read("labels/answers/grade/b.json"))["answer"] == "high"
    store.finish_reply()


def test_a_damaged_answer_is_written_anew_for_all_who_gave_it(store, folder, ledger, told, caplog):
    rows = [send(store, told(GRADE, "low"), "grade", study=study)[0] for study in "ab"]
    assert ledger.file(rows[0]) == ledger.file(rows[1])
    good = ledger.file(rows[0]).read_bytes()
    ledger.file(rows[0]).write_text("altered")
    assert sync_view(folder, ledger, store.recipes) == []
    assert ledger.file(rows[1]).read_bytes() == good
    assert "written anew" in caplog.text
    ledger.file(rows[0]).unlink()
    assert said(Ledger(ledger.home).content(rows[1])) == "low"


def test_cases_of_answers_have_sides_and_flags_as_masks_have(folder, ledger, organs, told, draw):
    accept_label(folder, ledger, GRADE, "a", told(GRADE, "low"), author="Ada")
    accept_label(folder, ledger, GRADE, "b", told(GRADE, "high"), author="Ben", shown_version="2")
    accept_label(folder, ledger, CHEST, "c", told(CHEST, {"mass": True}), author="Ben")
    one, two = labelled_cases(folder, ledger, GRADE, SIDES)
    assert ([one.study, two.study], [one.blind, two.blind]) == (["a", "b"], [True, False])
    assert (one.author, one.names, one.ids) == ("Ada", ("low", "high"), ())
    assert read_answer(two.label, GRADE) == {"low": False, "high": True}
    for study in "abc":
        accept_label(folder, ledger, organs, study, draw(1), author="Ada")
    sides = {case.study: case.side for case in labelled_cases(folder, ledger, organs, SIDES)}
    assert {one.study: one.side, two.study: two.side} == {study: sides[study] for study in "ab"}
    assert labelled_cases(folder, ledger, GRADE, (one.side,), only=["a"]) == [one]
    assert labelled_cases(folder, ledger, GRADE, [side for side in SIDES if side != one.side], only=["a"]) == []
    (case,) = labelled_cases(folder, ledger, CHEST, SIDES)
    assert (case.names, read_answer(case.label, CHEST)) == (("mass",), {"mass": True})


def test_cases_that_do_not_fit_the_recipe_of_now_are_left_out(folder, ledger, told, draw, caplog):
    accept_label(folder, ledger, GRADE, "a", told(GRADE, "low"), author="Ada")
    accept_label(folder, ledger, GRADE, "b", told(GRADE, "high"), author="Ada")
    renamed = GRADE.model_copy(update={"labels": {"lowest": 1, "high": 2}})
    (case,) = labelled_cases(folder, ledger, renamed, SIDES)
    assert (case.study, case.names) == ("b", ("high",))
    assert "says low (ordinal); recipe grade (ordinal) has lowest, high" in caplog.text
    assert labelled_cases(folder, ledger, Recipe(name="grade", labels={"low": 1}), SIDES) == []
    assert "label 1 is an answer, but recipe grade is of kind segmentation now" in caplog.text


@pytest.mark.parametrize("form", ["nnunet", "msd", "folder"])
def test_exported_answers_come_back(folder, ledger, studies, told, tmp_path, form):
    (studies / "answers.csv").write_text("image,patient,grade,age\na,p1,high,70\nb,p2,,61\nc,p3,,50\n")
    sync_view(folder, ledger, [GRADE])
    accept_label(folder, ledger, GRADE, "a", told(GRADE, "low"), author="Ada")  # newer than the cell
    accept_label(folder, ledger, GRADE, "b", told(GRADE, "high"), author="Ada")
    accept_label(folder, ledger, CHEST, "a", told(CHEST, {"mass": True}), author="Ada")
    report = export_studies(folder, ledger, GRADE, tmp_path / "out", form)
    assert (sorted(report.exported), report.left_out) == (["a", "b"], [])
    assert not list((tmp_path / "out").rglob("labels*/**/*.nii.gz"))
    back = import_studies(tmp_path / "out", tmp_path / "back")
    assert (sorted(back.imported), back.labels, back.names) == (["a", "b"], [], {})
    again = StudiesFolder(tmp_path / "back")
    assert {i: (s.patient, s.answers) for i, s in again.studies().items()} == {
        "a": ("p1", {"grade": "low", "age": "70"}),
        "b": ("p2", {"grade": "high", "age": "61"}),
    }
    assert export_studies(folder, ledger, CHEST, tmp_path / "chest", form).exported
    assert (tmp_path / "chest" / "answers.csv").read_text() == "image,patient,age,grade,mass\na,p1,70,high,1\n"


def test_a_forgotten_patient_takes_answers_along(house, told):
    for study in ("x", "y"):
        house.arrive(study)
        house.name(study, f"patient {study}")
        accept_label(house.folder, house.ledger, GRADE, study, told(GRADE, "low"), author="ann")
    own = accept_label(house.folder, house.ledger, CHEST, "x", told(CHEST, {"mass": True}), author="ann")
    house.forget("patient x")
    assert not house.ledger.file(own).exists()
    assert house.ledger.current("grade").keys() == {"y"}  # whose answer is the same file
    assert said(house.ledger.content(house.ledger.latest("y", "grade"))) == "low"


def test_an_unknown_tag_is_refused_with_those_that_are_kept(store, told):
    with pytest.raises(BadInput, match="'finall' is not kept here; use final, original, draft; did you mean 'final'"):
        send(store, told(GRADE, "low"), "grade", "finall")
