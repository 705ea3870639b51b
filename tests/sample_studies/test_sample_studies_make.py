from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.sample_studies.make import main, make_sample_studies, make_truth, render, true_mask
from radloop.sample_studies.plan import plan_studies


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    make_sample_studies(out)
    return out


def _answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_twenty_studies_of_fourteen_patients_fit_in_six_megabytes(made):
    rows = _answers(made)
    images = {path.name.removesuffix(".nii.gz") for path in made.glob("*.nii.gz")}
    assert images == {row["image"] for row in rows}
    assert len(rows) == 20
    visits = Counter(row["patient"] for row in rows)
    assert len(visits) == 14
    assert max(visits.values()) == 3
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) < 6_000_000


def test_half_of_the_studies_are_labelled_over_ten_patients(made):
    patient = {row["image"]: row["patient"] for row in _answers(made)}
    masks = sorted((made / "labels" / "final").glob("*.nii.gz"))
    assert len(masks) == 10
    assert len({patient[path.name.removesuffix(".nii.gz")] for path in masks}) == 10
    assert json.loads((made / "labels" / "names.json").read_text()) == {"lesion": 1}
    for path in masks:
        mask, image = nib.load(path), nib.load(made / path.name)
        np.testing.assert_allclose(mask.affine, image.affine)
        assert mask.shape == image.shape
        assert set(np.unique(np.asanyarray(mask.dataobj))) == {0, 1}


def test_answers_hold_classes_and_follow_up_that_agree_between_visits(made):
    rows = _answers(made)
    assert Counter(row["shape"] for row in rows)["none"] == 3
    assert {row["shape"] for row in rows} == {"smooth", "spiculated", "none"}
    assert {row["event"] for row in rows} == {"0", "1"}
    assert all(int(row["time"]) > 0 for row in rows)
    visits = [row for row in rows if row["patient"] == "patient01"]
    ends = {np.datetime64(row["date"]) + np.timedelta64(int(row["time"]), "D") for row in visits}
    assert len(ends) == 1


def test_grids_differ_as_in_real_life():
    affines = {study.id: study.affine for study in plan_studies()}
    codes = {"".join(nib.aff2axcodes(affine)) for affine in affines.values()}
    assert {"RAS", "LPS"} <= codes
    oblique = [a for a in affines.values() if np.count_nonzero(np.abs(a[:3, :3]) > 1e-6) > 3]
    assert len(oblique) == 1
    thickness = [float(np.linalg.norm(a[:3, 2])) for a in affines.values()]
    assert max(thickness) >= 8
    assert min(thickness) <= 4.5


def test_the_same_seed_gives_the_same_files_and_another_does_not(tmp_path):
    study, other = plan_studies(7)[5], plan_studies(8)[5]
    first, second = render(study), render(plan_studies(7)[5])
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert hashlib.sha256(first[0].tobytes()).digest() != hashlib.sha256(render(other)[0].tobytes()).digest()


def test_truth_is_what_the_labelled_studies_carry(made, tmp_path):
    ids = make_truth(tmp_path)
    assert len(ids) == 20
    for path in sorted((made / "labels" / "final").glob("*.nii.gz")):
        drawn = np.asanyarray(nib.load(tmp_path / path.name).dataobj)
        np.testing.assert_array_equal(drawn, np.asanyarray(nib.load(path).dataobj))
    unlabelled = next(s for s in plan_studies() if not s.labelled and s.lesions)
    np.testing.assert_array_equal(
        true_mask(unlabelled.id), np.asanyarray(nib.load(tmp_path / f"{unlabelled.id}.nii.gz").dataobj)
    )


def test_no_lesion_means_an_empty_mask_and_lesions_grow():
    studies = plan_studies()
    for study in studies:
        assert bool(true_mask(study.id).any()) == (study.shape_class != "none")
    visits = [s for s in studies if s.patient == "patient01"]
    volumes = [true_mask(s.id).sum() * abs(np.linalg.det(s.affine[:3, :3])) for s in visits]
    assert volumes[0] < volumes[1] < volumes[2]


def test_a_lesion_stands_out_of_the_lung_but_no_threshold_finds_it():
    study = plan_studies()[0]
    image, mask = render(study)
    lesion = image[mask > 0]
    assert -200 < np.median(lesion) < 100
    best = 0.0
    for low in range(-700, 300, 50):
        for high in range(low + 50, 500, 50):
            found = (image > low) & (image < high)
            best = max(best, 2 * (found & (mask > 0)).sum() / (found.sum() + mask.sum()))
    assert best < 0.2


def test_command_line_makes_a_folder_and_says_so(tmp_path, capsys):
    assert main([str(tmp_path / "größe"), "--masks", "none"]) == 0
    assert "20 studies" in capsys.readouterr().out
    assert not list((tmp_path / "größe" / "labels" / "final").iterdir())


def test_command_line_fails_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main([str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
