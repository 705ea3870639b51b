"""Boxes as labels: their file, what is wrong with one, from labels/final, COCO, a drawn mask, and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from radloop.recipes.boxes import Box
from radloop.recipes.errors import BadInput, BadLabel
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.box_files import read_boxes, write_boxes
from radloop.studies.cases import labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES
from radloop.studies.transfer import export_studies, import_studies

RECIPE = Recipe(
    name="blocks", kind="detection", modality="OT", labels={"bright": 1, "dark": 2}, network={"name": "retinanet"}
)
ONE = {"label": "bright", "center": [5, 6, 4], "size": [4, 6, 2]}


def told(*boxes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"format": 1, "kind": "detection", "coordinates": "RAS", "boxes": list(boxes)} | more


class Place:
    """A studies folder with two volumes, 20 x 18 x 10 mm from the world's origin on, and its ledger."""

    def __init__(self, top: Path) -> None:
        self.path = top / "studies"
        (self.path / "labels" / "final").mkdir(parents=True)
        for name in ("s1", "s2"):
            nib.save(nib.Nifti1Image(np.zeros((20, 18, 10), np.float32), np.eye(4)), self.path / f"{name}.nii.gz")
        self.folder, self.ledger = StudiesFolder(self.path), Ledger(Home.find(self.path))

    def file(self, content: Any, name: str = "s1.json") -> Path:
        path = self.path.parent / name
        path.write_text(json.dumps(content))
        return path

    def accept(self, content: Any, study: str = "s1", **more: Any) -> list[Box]:
        row = accept_label(self.folder, self.ledger, RECIPE, study, self.file(content), author="ann", **more)
        return read_boxes(self.ledger.content(row))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_box_is_the_same_in_either_convention(place: Place) -> None:
    (ras,) = place.accept(told(ONE))
    (lps,) = place.accept(told(ONE | {"center": [-5, -6, 4]}, coordinates="LPS"))
    assert ras == lps == Box("bright", (5.0, 6.0, 4.0), (4.0, 6.0, 2.0))
    (cut,) = place.accept(told(ONE | {"size": [100, 6, 2]}))
    assert cut.size == (20.0, 6.0, 2.0), "a box ends where the study does"
    (scored,) = place.accept(told(ONE | {"score": 0.8}))
    assert scored == ras, "what was answered may be sent back; a label has no score"


def test_an_empty_list_is_a_label(place: Place) -> None:
    assert place.accept(told()) == []
    (case,) = labelled_cases(place.folder, place.ledger, RECIPE, SIDES)
    assert case.names == ("bright", "dark")
    assert read_boxes(case.label, RECIPE) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "holds no boxes; write"),
        (told(format=2), "of format 2, this radloop knows 1"),
        (told(kind="ordinal"), "kind 'ordinal'; boxes have kind 'detection'"),
        (told(coordinates="XYZ"), "coordinates 'XYZ'; allowed are LPS, RAS"),
        ({"format": 1, "kind": "detection", "boxes": []}, "no key 'coordinates'"),
        (told(bokses=[]), "key 'bokses', which is not allowed.*did you mean 'boxes'"),
        (told(boxes=3), "write a list of at most"),
        (told(ONE | {"label": "brihgt"}), "'brihgt' is no label of recipe blocks.*did you mean 'bright'"),
        (told({"label": "bright", "center": [1, 2, 3]}), "of box 1: it has no key 'size'"),
        (told(ONE | {"size": [1, 0, 1]}), "three numbers above 0"),
        (told(ONE | {"center": [1, 2]}), "three numbers, in mm"),
        (told(ONE | {"center": [1, 2, True]}), "three numbers, in mm"),
        (told(ONE | {"center": [300, 6, 4]}), r"box 1 of s1.json.*lies outside the study, which reaches over -20\.\.0"),
    ],
)
def test_a_wrong_file_says_what_to_write(place: Place, content: Any, says: str) -> None:
    with pytest.raises(BadLabel, match=says):
        place.accept(content)
    assert place.ledger.history("s1") == []


def test_files_in_labels_final_become_labels_once(place: Place) -> None:
    final = place.path / "labels" / "final"
    (final / "s1.json").write_text(json.dumps(told(ONE)))
    (final / "s2.json").write_text(json.dumps(told(ONE | {"label": "strange"})))
    (final / "s9.json").write_text(json.dumps(told()))
    problems = sync_view(place.folder, place.ledger, [RECIPE])
    assert sorted(problem.file.name for problem in problems) == ["s2.json", "s9.json"]
    (row,) = place.ledger.history("s1")
    assert (row.author, row.origin) == ("import", "import")
    assert place.accept(told()) == []
    sync_view(place.folder, place.ledger, [RECIPE])
    assert len(place.ledger.history("s1")) == 2, "an old file never comes back over a reader's word"
    assert (final / "s1.json").is_file()
    (final / "s1.json").write_text(json.dumps(told(ONE, ONE | {"center": [9, 9, 5]})))
    sync_view(place.folder, place.ledger, [RECIPE])
    assert len(read_boxes(place.ledger.content(place.ledger.latest("s1", "blocks")))) == 2, "a changed one does"


def test_what_is_drawn_in_a_viewer_becomes_boxes(place: Place) -> None:
    mask = np.zeros((20, 18, 10), np.uint8)
    mask[3:7, 3:9, 3:5], mask[12:15, 12:14, 5:9], mask[10, 2, 2] = 1, 1, 2
    nib.save(nib.Nifti1Image(mask, np.eye(4)), place.path.parent / "m.nii.gz")
    file = place.path.parent / "m.nii.gz"
    row = accept_label(place.folder, place.ledger, RECIPE, "s1", file, author="ann")
    boxes = read_boxes(place.ledger.content(row))
    assert [box.label for box in boxes] == ["bright", "bright", "dark"]
    assert boxes[0] == Box("bright", (4.5, 5.5, 3.5), (4.0, 6.0, 2.0))
    assert row.names == ("bright", "dark")
    listed = [{"name": "bright", "idx": 1}]
    row = accept_label(
        place.folder, place.ledger, RECIPE, "s2", file, author="ann", label_info=[*listed, {"name": "dark", "idx": 2}]
    )
    assert row.names == ("bright", "dark")


def test_coco_comes_in_and_goes_out(tmp_path: Path) -> None:
    source = tmp_path / "coco"
    (source / "images").mkdir(parents=True)
    for number in (1, 2):
        Image.fromarray(np.full((40, 30), 9 * number, np.uint8)).save(source / "images" / f"x{number}.png")
    annotations = {
        "images": [{"id": n, "file_name": f"x{n}.png"} for n in (1, 2, 3)],
        "categories": [{"id": 7, "name": "bright"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [10, 20, 8, 12]}],
    }
    (source / "annotations.json").write_text(json.dumps(annotations))
    report = import_studies(source, tmp_path / "studies")
    assert report.labels == ["x1", "x2"]
    assert report.excluded == [("x3.png", "listed in annotations.json, not there")]
    studies = tmp_path / "studies"
    told_there = json.loads((studies / "labels" / "final" / "x1.json").read_text())
    assert told_there["boxes"] == [{"label": "bright", "center": [13.5, 25.5, 0.0], "size": [8.0, 12.0, 1.0]}], "LPS"
    folder, ledger = StudiesFolder(studies), Ledger(Home.find(studies))
    recipe = RECIPE.model_copy(update={"dimension": 2})
    assert sync_view(folder, ledger, [recipe]) == []
    assert [len(read_boxes(case.label)) for case in labelled_cases(folder, ledger, recipe, SIDES)] == [1, 0]
    export_studies(folder, ledger, recipe, tmp_path / "out", format="folder")
    again = import_studies(tmp_path / "out", tmp_path / "again")
    assert again.labels == ["x1", "x2"]
    assert not [what for what, _ in again.excluded if "labels/final" in what]
    assert read_boxes(tmp_path / "again/labels/final/x1.json") == read_boxes(studies / "labels/final/x1.json")
    (source / "annotations.json").write_text(json.dumps(annotations | {"annotations": [{"image_id": 1}]}))
    with pytest.raises(BadInput, match="not in COCO's form"):
        import_studies(source, tmp_path / "third")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    boxes = [Box("bright", (-1.5, 2.25, 0.0), (3.0, 4.0, 1.0)), Box("dark", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))]
    write_boxes(tmp_path / "b.json", boxes)
    assert read_boxes(tmp_path / "b.json") == boxes
    assert read_boxes(tmp_path / "b.json", RECIPE.model_copy(update={"labels": {"dark": 1}})) == boxes[1:]


def test_coco_boxes_that_are_none_are_said_and_are_no_label(tmp_path: Path) -> None:
    source = tmp_path / "coco"
    source.mkdir()
    for number in (1, 2, 3):
        Image.fromarray(np.full((40, 30), 9 * number, np.uint8)).save(source / f"x{number}.png")
    boxes = {1: [10, 20, 0, 12], 2: [10, 20, float("nan"), 12], 3: [10, 20, 8, 12], 9: [1, 1, 2, 2]}
    annotations = {
        "images": [{"id": n, "file_name": f"x{n}.png"} for n in (1, 2, 3)],
        "categories": [{"id": 7, "name": "bright"}],
        "annotations": [{"image_id": n, "category_id": 7, "bbox": bbox} for n, bbox in boxes.items()],
    }
    (source / "annotations.json").write_text(json.dumps(annotations))
    report = import_studies(source, tmp_path / "studies")
    assert (report.imported, report.labels) == (["x1", "x2", "x3"], ["x3"])
    reasons = dict(report.excluded)
    assert "width and height above 0" in reasons["label of x1.png"]
    assert "bbox [10.0, 20.0, nan, 12.0]" in reasons["label of x2.png"]
    assert reasons["boxes of image 9"] == "no image of annotations.json has this id"
    assert [file.name for file in (tmp_path / "studies/labels/final").iterdir()] == ["x3.json"]


def test_boxes_of_some_names_only_do_not_go_out_as_if_all_had_been_looked_for(place: Place, tmp_path: Path) -> None:
    mask = np.zeros((20, 18, 10), np.uint8)
    mask[3:7, 3:9, 3:5] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "m.nii.gz")
    listed = [{"name": "bright", "idx": 1}, {"name": "dark", "idx": 2}]
    more = {"author": "ann", "label_info": listed}
    row = accept_label(place.folder, place.ledger, RECIPE, "s1", tmp_path / "m.nii.gz", **more)
    assert row.names == ("bright",)
    place.accept(told(ONE), "s2")
    report = export_studies(place.folder, place.ledger, RECIPE, tmp_path / "out", format="folder")
    assert list(report.exported) == ["s2"]
    assert dict(report.left_out)["s1"] == "its label speaks only for bright, not for dark"


def test_a_mask_of_too_many_parts_is_refused_and_none_of_it_is_lost_in_silence(place: Place, tmp_path: Path) -> None:
    mask = np.zeros((20, 18, 10), np.uint8)
    mask[::2, ::2, ::2] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "m.nii.gz")
    with pytest.raises(BadLabel, match="'bright' is drawn in 450 separate parts, of which at most 200 become boxes"):
        accept_label(place.folder, place.ledger, RECIPE, "s1", tmp_path / "m.nii.gz", author="ann")
    assert place.ledger.history("s1") == []
