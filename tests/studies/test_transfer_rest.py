"""Every file of a source comes in or is named with a reason, and studies that are refused change nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import BadInput
from radloop.studies.fingerprint import fingerprint
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_mask, write_mask
from radloop.studies.transfer import import_studies


def save(path: Path, seed: int = 0, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def draw(path: Path, value: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, np.full((6, 5, 4), value, np.uint8), np.eye(4))
    return path


def tell(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def answers(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8") as handle:
        return {row["image"]: row for row in csv.DictReader(handle)}


def test_what_is_not_read_is_named(tmp_path):
    src = tmp_path / "src"
    save(src / "a.nii.gz")
    save(src / "site" / "b.nii.gz")
    (src / "notes.txt").write_text("x")
    (src / ".hidden").write_text("x")
    draw(src / "labels" / "final" / "a.nii.gz")
    draw(src / "masks" / "a.nii.gz", 2)
    draw(src / "a_seg.nii.gz", 3)
    report = import_studies(src, tmp_path / "studies")
    assert (report.imported, report.labels) == (["a"], ["a"])
    reasons = dict(report.excluded)
    assert sorted(reasons) == ["a_seg.nii.gz", "masks/a.nii.gz", "notes.txt", "site/b.nii.gz"]
    assert "goes before it" in reasons["masks/a.nii.gz"]
    assert "goes before it" in reasons["a_seg.nii.gz"]
    assert "not read" in reasons["site/b.nii.gz"]
    assert len(report.excluded) == 4


def test_a_dataset_s_other_files_are_named(tmp_path):
    src = tmp_path / "task"
    save(src / "imagesTr" / "a.nii.gz")
    draw(src / "labelsTr" / "a.nii.gz")
    save(src / "more" / "b.nii.gz")
    tell(src / "dataset.json", modality={"0": "CT"}, labels={"0": "bg", "1": "x"})
    report = import_studies(src, tmp_path / "studies")
    assert [what for what, _ in report.excluded] == ["more/b.nii.gz"]


def test_folders_one_a_patient_come_in(tmp_path):
    src = tmp_path / "src"
    for number, place in enumerate(("p1/ct", "p1/day 2/ct", "p2/images/ct", "p3/t1", "p3/t2")):
        save(src / f"{place}.nii.gz", number)
    draw(src / "p1" / "mask.nii.gz")
    draw(src / "p1" / "day 2" / "ct_seg.nii.gz")
    draw(src / "p2" / "labels" / "ct.nii.gz")
    draw(src / "p3" / "seg.nii.gz")
    (src / "p2" / "notes.txt").write_text("x")
    (src / "answers.csv").write_text("image,patient,grade\np2_ct,Q,3\n")
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == ["p1_ct", "p1_day 2_ct", "p2_ct", "p3_t1", "p3_t2"]
    assert report.labels == ["p1_ct", "p1_day 2_ct", "p2_ct"]
    assert sorted(what for what, _ in report.excluded) == ["p2/notes.txt", "p3/seg.nii.gz"]
    found = StudiesFolder(tmp_path / "studies").studies()
    assert [study.patient for study in found.values()] == ["p1", "p1", "Q", "p3", "p3"]
    assert found["p2_ct"].answers == {"grade": "3"}


def test_a_refused_study_leaves_the_answers_of_the_one_that_is_here(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "studies"
    save(src / "a.nii.gz", 1)
    save(src / "b.nii.gz", 2)
    (src / "answers.csv").write_text("image,patient\na,another\nb,P2\n")
    save(dst / "a.nii.gz", 99)
    shutil.copy(src / "b.nii.gz", dst / "b.nii.gz")
    (dst / "answers.csv").write_text("image,grade\na,4\n")
    assert import_studies(src, dst).imported == ["b"]
    assert {row["image"]: row["patient"] for row in answers(dst).values()} == {"a": "", "b": "P2"}


def test_a_row_that_waits_for_its_study_is_kept(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "studies"
    save(src / "a.nii.gz")
    (src / "cut.nii.gz").write_bytes(b"x")
    (src / "answers.csv").write_text("image,patient\na,P1\ncut,P2\n")
    dst.mkdir()
    (dst / "answers.csv").write_text("image,grade\ncut,4\n")
    import_studies(src, dst)
    assert answers(dst)["cut"]["grade"] == "4"


def test_a_study_has_its_patient_before_it_lies_there(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "studies"
    for name in "ab":
        save(src / f"{name}.nii.gz")
    (src / "answers.csv").write_text("image,patient\na,P1\nb,P2\n")

    def stop(done, total, what):
        assert answers(dst)["b"]["patient"] == "P2"
        assert not (dst / "b.nii.gz").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_studies(src, dst, progress=stop)
    assert list(answers(dst)) == ["a"]


@pytest.mark.parametrize("listed", [True, False])
def test_nnunet_raw_v1_is_known_by_its_file_names(tmp_path, listed):
    src = tmp_path / "Task005"
    for name in ("prostate_00", "prostate_01"):
        for channel in range(2):
            save(src / "imagesTr" / f"{name}_{channel:04d}.nii.gz", channel)
        draw(src / "labelsTr" / f"{name}.nii.gz")
    save(src / "imagesTs" / "prostate_02_0000.nii.gz")
    save(src / "imagesTs" / "prostate_02_0002.nii.gz")
    training = [{"image": f"./imagesTr/prostate_0{n}.nii.gz", "label": ""} for n in (0, 1)] if listed else []
    tell(
        src / "dataset.json",
        modality={"0": "T2", "1": "ADC"},
        labels={"0": "background", "1": "PZ"},
        training=training,
    )
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == report.labels == ["prostate_00", "prostate_01"]
    assert report.channel_names == ("T2", "ADC")
    assert [what for what, _ in report.excluded] == [f"imagesTs/prostate_02_000{n}.nii.gz" for n in (0, 2)]


@pytest.mark.parametrize(
    ("top", "dtype"), [(500, np.int16), (40_000, np.uint16), (100_000, np.int32), (2**40, np.float32)]
)
def test_a_64_bit_4d_image_comes_in(tmp_path, top, dtype):
    src = tmp_path / "task"
    (src / "imagesTr").mkdir(parents=True)
    voxels = np.zeros((6, 5, 4, 2), np.int64)
    voxels[1, 2, 3] = top
    nib.save(nib.Nifti1Image(voxels, np.eye(4), dtype=np.int64), src / "imagesTr" / "a.nii.gz")
    save(src / "imagesTr" / "b.nii.gz", shape=(6, 5, 4, 2))
    tell(src / "dataset.json", modality={"0": "x", "1": "y"}, labels={"0": "bg", "1": "z"})
    assert import_studies(src, tmp_path / "studies").imported == ["a", "b"]
    image = nib.load(tmp_path / "studies" / "a_0001.nii.gz")
    assert image.get_data_dtype() == dtype
    assert np.asanyarray(image.dataobj)[1, 2, 3] == top


def test_a_file_that_cannot_be_read_is_left_out_and_the_rest_comes_in(tmp_path):
    src = tmp_path / "src"
    save(src / "b.nii.gz")
    # opens, but its first byte cannot be read
    (src / "a.nii.gz").symlink_to("/proc/self/mem")
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == ["b"]
    ((what, reason),) = report.excluded
    assert what == "a.nii.gz"
    assert "cannot be read" in reason


def test_a_file_that_may_not_be_read_is_left_out(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    src = tmp_path / "src"
    save(src / "b.nii.gz")
    save(src / "a.nii.gz").chmod(0)
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == ["b"]
    assert [what for what, _ in report.excluded] == ["a.nii.gz"]


def test_names_of_channels_are_kept_for_the_recipe(tmp_path):
    src, dst = tmp_path / "task", tmp_path / "studies"
    save(src / "imagesTr" / "a.nii.gz", shape=(6, 5, 4, 2))
    tell(src / "dataset.json", modality={"0": "FLAIR", "1": "T1w"}, labels={"0": "bg", "1": "z"})
    import_studies(src, dst)
    assert fingerprint(StudiesFolder(dst)).channel_names == ("FLAIR", "T1w")
    tell(src / "dataset.json", modality={"0": "other", "1": "names"}, labels={"0": "bg", "1": "z"})
    import_studies(src, dst)
    assert fingerprint(StudiesFolder(dst)).channel_names == ("FLAIR", "T1w")
    (dst / "labels" / "channels.json").write_text('["one"]')
    assert fingerprint(StudiesFolder(dst)).channel_names == ()
    (dst / "labels" / "channels.json").write_text('["one", "one"]')
    with pytest.raises(BadInput, match=r"labels/channels\.json must be a list"):
        fingerprint(StudiesFolder(dst))


def test_real_hippocampus_masks_come_in_unchanged(tmp_path, data_dir):
    src = tmp_path / "src"
    for part in ("images", "labels"):
        (src / part).mkdir(parents=True)
        for path in sorted((data_dir / "hippocampus" / part).glob("*.nii.gz"))[:12]:
            shutil.copy(path, src / part)
    report = import_studies(src, tmp_path / "studies", names={"anterior": 1, "posterior": 2})
    assert len(report.labels) == 12
    assert report.excluded == []
    for name in report.labels:
        before, after = (
            read_mask(src / f"labels/{name}.nii.gz"),
            read_mask(tmp_path / f"studies/labels/final/{name}.nii.gz"),
        )
        np.testing.assert_array_equal(before.array, after.array)
        np.testing.assert_allclose(before.affine, after.affine, atol=1e-6)


def test_real_unpaired_files_are_named(tmp_path, data_dir):
    junk = data_dir / "hippocampus" / "unpaired"
    if not junk.is_dir():
        pytest.skip(f"{junk} is not in this copy of the data")
    src = tmp_path / "src"
    shutil.copytree(junk, src)
    report = import_studies(src, tmp_path / "studies")
    assert report.labels == []
    assert report.excluded


def test_real_masks_beside_their_images(tmp_path, data_dir):
    report = import_studies(data_dir / "nifti_misc" / "ivadomed", tmp_path / "studies", names={"spleen": 1})
    assert report.imported == report.labels == ["sub-spleen2_ct"]
    assert report.names == {"spleen": 1}
