from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from radloop.studies.box_files import read_boxes
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_mask, read_study, same_place


@pytest.fixture(scope="module")
def prepare(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("radloop_prepare", root / "benchmarks" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["radloop_prepare"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize(
    ("name", "studies", "labels", "patients", "columns"),
    [
        ("hippocampus", 193, 193, 193, set()),
        ("lgg_flair3d", 65, 65, 65, {"grade", "age", "sex", "event", "time", "date"}),
        ("covid_cxr", 273, 273, None, {"finding", "survival", "sex", "age"}),
        ("cxr_mass_boxes", 34, 34, None, set()),
        ("head_ct_hemorrhage", 131, 0, None, {"hemorrhage"}),
        ("brats15_6", 4, 4, 4, set()),
        ("nifti_misc", 5, 2, 4, {"modality"}),
    ],
)
def test_a_set_becomes_a_studies_folder(prepare, missing, data_dir, tmp_path, name, studies, labels, patients, columns):
    if not (data_dir / name).is_dir():
        missing("data", f"{name} is not in this copy of it")
    assert prepare.prepare(name, tmp_path, data_dir, quiet=True) == studies
    folder = StudiesFolder(tmp_path)
    found = folder.studies()
    table = rows(tmp_path / "answers.csv")
    assert sorted(found) == sorted(row["image"] for row in table)
    assert all(row["patient"] for row in table)
    assert columns <= set(table[0])
    if patients:
        assert len({study.patient for study in found.values()}) == patients
    drawn = sorted(folder.final_dir.glob("*")) if folder.final_dir.is_dir() else []
    assert len(drawn) == labels
    if labels and drawn[0].suffix == ".json":
        assert {len(read_boxes(file)) for file in drawn} <= set(range(1, 17))
    elif labels:
        names = json.loads((tmp_path / "labels" / "names.json").read_text())
        mask, study = read_mask(drawn[0]), found[drawn[0].name.split(".")[0]]
        assert set(np.unique(mask.array)) - {0} <= set(names.values())
        assert same_place(mask, read_study(study.channels))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "studies", "patients", "column"),
    [("lidc_nodules", 732, 404, "malignancy"), ("nih_cxr", 688, 0, "finding")],
)
def test_a_large_set_becomes_a_studies_folder(prepare, missing, data_dir, tmp_path, name, studies, patients, column):
    assert prepare.prepare(name, tmp_path, data_dir, quiet=True) == studies
    table = rows(tmp_path / "answers.csv")
    assert all(row[column] for row in table)
    if patients:
        assert len({row["patient"] for row in table}) == patients


def test_covariates_of_gliomas_are_numbers_and_every_patient_has_a_time(prepare, data_dir, tmp_path):
    prepare.prepare("lgg_flair3d", tmp_path, data_dir, quiet=True)
    table = rows(tmp_path / "answers.csv")
    assert {row["sex"] for row in table} == {"0", "1"}
    assert [row["grade"] for row in table].count("") == 1, "one is graded differently in two places"
    assert {row["grade"] for row in table} == {"2", "3", ""}
    assert {row["who_grade"] for row in table} == {"G2", "G3", ""}
    assert {row["event"] for row in table} == {"0", "1"}
    assert all(float(row["time"]) > 0 for row in table)
    assert all(float(row["age"]) > 0 for row in table)


def test_boxes_name_studies_that_are_there(prepare, data_dir, tmp_path):
    prepare.prepare("cxr_mass_boxes", tmp_path, data_dir, quiet=True)
    boxes = rows(tmp_path / "boxes.csv")
    found = StudiesFolder(tmp_path).studies()
    assert {box["label"] for box in boxes} == {"mass", "nodule"}
    for box in boxes:
        width, height, _ = read_study(found[box["image"]].channels).shape
        assert 0 <= float(box["x"]) <= float(box["x"]) + float(box["width"]) <= width
        assert 0 <= float(box["y"]) <= float(box["y"]) + float(box["height"]) <= height


def test_duplicates_are_of_one_patient(prepare, data_dir, tmp_path):
    duplicates = [r for r in rows(data_dir / "head_ct_hemorrhage" / "labels.csv") if r["exact_duplicate_of"]]
    prepare.prepare("head_ct_hemorrhage", tmp_path, data_dir, quiet=True)
    patient = {row["image"]: row["patient"] for row in rows(tmp_path / "answers.csv")}
    for row in duplicates:
        first, second = Path(row["file"]).stem, Path(row["exact_duplicate_of"]).stem
        assert patient[first] == patient[second]


def test_two_channels_share_one_study(prepare, data_dir, tmp_path):
    prepare.prepare("brats15_6", tmp_path, data_dir, quiet=True)
    study = StudiesFolder(tmp_path, channels=2).studies()["brats_2013_pat0001_1"]
    assert read_study(study.channels).array.shape[0] == 2
    assert study.patient == "brats_2013_pat0001"


def test_a_missing_set_is_said_in_one_line(prepare, tmp_path, capsys):
    assert prepare.main(["hippocampus", str(tmp_path / "out"), "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_incomplete_set_is_said_in_one_line(prepare, tmp_path, capsys):
    (tmp_path / "hippocampus").mkdir()
    assert prepare.main(["hippocampus", str(tmp_path / "out"), "--data", str(tmp_path)]) == 1
    assert "not complete" in capsys.readouterr().err


def test_an_unknown_set_is_wrong_use(prepare, tmp_path):
    with pytest.raises(SystemExit) as raised:
        prepare.main(["nonsense", str(tmp_path)])
    assert raised.value.code == 2
