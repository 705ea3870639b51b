"""`changes.csv`: a patient's lesions from study to study, beside the masks of `radloop predict`."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from radloop.apps.cli import main
from radloop.apps.lesion_table import write_changes
from radloop.recipes.recipe import Recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home

RECIPE = Recipe(name="tiny", labels={"lesion": 1})


def mask(folder: Path, study: str, *places: tuple[int, int], size: int = 4) -> None:
    array = np.zeros((40, 40, 10), np.uint8)
    for x, y in places:
        array[x : x + size, y : y + size, 3:6] = 1
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{study}.nii.gz")


@pytest.fixture
def studies(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """Three dated studies of anna, one of bert, one of anna without a date."""
    folder = tmp_path / "d"
    folder.mkdir()
    rows = {"a2": "anna,2024-02-01", "a1": "anna,2024-01-01", "a3": "anna,20240401", "b1": "bert,2024-01-01"}
    rows["a0"] = "anna,"
    for study in rows:
        kit.make_study(folder, study)
    lines = (f"{study},{cells}\n" for study, cells in rows.items())
    (folder / "answers.csv").write_text("image,patient,date\n" + "".join(lines))
    return folder


def test_a_lesion_keeps_its_number_from_study_to_study(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mask(out, "a1", (2, 2), (20, 20))
    mask(out, "a2", (20, 20), (33, 2), size=6)
    mask(out, "a3", (33, 2), size=5)
    mask(out, "b1", (2, 2))
    assert write_changes(StudiesFolder(studies), RECIPE, out, {"a1", "a2", "a3", "b1"}) == 1
    with (out / "changes.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = [(r["earlier"], r["later"], r["days"], r["lesion"], r["matched"], r["volume_change_ml"]) for r in rows]
    assert told == [
        ("a1", "a2", "31", "1", "gone", "-0.048"),
        ("a1", "a2", "31", "2", "overlap", "+0.060"),
        ("a1", "a2", "31", "3", "new", "+0.108"),
        ("a2", "a3", "60", "2", "gone", "-0.108"),
        ("a2", "a3", "60", "3", "overlap", "-0.033"),
    ]
    assert {row["patient"] for row in rows} == {"anna"}
    assert float(rows[1]["diameter_mm_later"]) == pytest.approx(np.sqrt(36 + 25 + 4), abs=1e-3)
    assert float(rows[1]["diameter_change_mm"]) > 0


def predicting(studies: Path, tmp_path: Path, kit: SimpleNamespace) -> tuple[list[str], Path]:
    """The command that predicts all studies, and its folder; a version serves."""
    home, out = tmp_path / "home", tmp_path / "out"
    (Home(home).recipes / "tiny.toml").write_text(kit.tiny)
    kit.publish(home, "tiny")
    return ["predict", "tiny", "--studies", str(studies), "--home", str(home), "--out", str(out)], out


def test_predict_writes_it_where_a_patient_has_several_dated_studies(
    studies: Path, tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    words, out = predicting(studies, tmp_path, kit)
    assert main(words) == 0
    assert "changes.csv follows the lesions of 1 patient from study to study" in capsys.readouterr().out
    assert (out / "changes.csv").is_file()
    (studies / "answers.csv").unlink()
    assert main(words) == 0
    assert not (out / "changes.csv").exists(), "no patient has two dated studies any more"


def test_a_table_that_is_no_answer_stays_and_a_study_that_failed_is_not_in_it(
    studies: Path, tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    words, out = predicting(studies, tmp_path, kit)
    out.mkdir()
    (out / "changes.csv").write_text("mine")
    assert main(words) != 0
    assert (out / "changes.csv").read_text() == "mine"
    assert "changes.csv is there and no results.csv says that it is an answer" in capsys.readouterr().err
    (out / "changes.csv").unlink()
    assert main(words) == 0
    (studies / "a2.nii.gz").write_bytes(b"cut short")
    assert main(words) == 1
    assert (out / "a2.nii.gz").is_file(), "the mask of before"
    with (out / "changes.csv").open() as file:
        assert {(row["earlier"], row["later"]) for row in csv.DictReader(file)} <= {("a1", "a3")}
