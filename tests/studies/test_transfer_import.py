from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import BadInput, BadLabel, NotFound
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_mask, read_volume, write_mask
from radloop.studies.transfer import import_studies

OBLIQUE = np.array([[0.0, 0.1, 3.0, 10.0], [-1.5, 0.0, 0.0, 20.0], [0.0, 0.7, 0.1, -5.0], [0.0, 0.0, 0.0, 1.0]])


def save(path: Path, seed: int = 0, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, OBLIQUE), path)
    return path


def draw(path: Path, *values: int, affine: np.ndarray = OBLIQUE, names: dict[str, int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((6, 5, 4), np.uint8)
    for place, value in enumerate(values):
        mask[place % 6, place // 6 % 5, 2] = value
    write_mask(path, mask, affine, names)
    return path


def tell(path: Path, **content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def answers(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8") as handle:
        return {row["image"]: row for row in csv.DictReader(handle)}


def ids_in(path: Path) -> list[int]:
    return [int(v) for v in np.unique(read_mask(path).array)]


def decathlon(src: Path) -> Path:
    for number, name in enumerate(("liver_1", "żółć")):
        save(src / "imagesTr" / f"{name}.nii.gz", number)
        draw(src / "labelsTr" / f"{name}.nii.gz", 1, 2)
        (src / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"\0\5\x16\7")
        (src / "labelsTr" / f"._{name}.nii.gz").write_bytes(b"\0\5\x16\7")
    save(src / "imagesTs" / "liver_9.nii.gz", 9)
    tell(
        src / "dataset.json",
        modality={"0": "CT"},
        labels={"0": "background", "1": "liver", "2": "Tumor ö"},
        training=[{"image": f"./imagesTr/{n}.nii.gz", "label": ""} for n in ("liver_1", "żółć", "liver_3")],
        test=["./imagesTs/liver_9.nii.gz"],
    )
    return src


def test_a_decathlon_task_comes_in_with_masks_and_names(tmp_path):
    src, dst = decathlon(tmp_path / "Task03_Liver"), tmp_path / "studies"
    report = import_studies(src, dst)
    assert report.imported == ["liver_1", "żółć", "liver_9"]
    assert report.labels == ["liver_1", "żółć"]
    assert report.names == {"liver": 1, "Tumor ö": 2}
    assert json.loads((dst / "labels" / "names.json").read_text(encoding="utf-8")) == report.names
    assert report.excluded == [("./imagesTr/liver_3.nii.gz", "listed in dataset.json, not there")]
    for name in ("liver_1", "żółć"):
        assert (dst / f"{name}.nii.gz").read_bytes() == (src / "imagesTr" / f"{name}.nii.gz").read_bytes()
        mask, wanted = (
            read_mask(dst / "labels" / "final" / f"{name}.nii.gz"),
            read_mask(src / f"labelsTr/{name}.nii.gz"),
        )
        np.testing.assert_array_equal(mask.array, wanted.array)
        np.testing.assert_allclose(mask.affine, wanted.affine)
    assert sorted(StudiesFolder(dst).studies()) == ["liver_1", "liver_9", "żółć"]


def test_a_4d_image_is_cut_into_channels(tmp_path):
    src = tmp_path / "Task01"
    whole = save(src / "imagesTr" / "brats_1.nii.gz", shape=(6, 5, 4, 3))
    draw(src / "labelsTr" / "brats_1.nii.gz", 1)
    tell(src / "dataset.json", modality={"0": "FLAIR", "1": "T1w", "2": "T2w"}, labels={"0": "bg", "1": "edema"})
    report = import_studies(src, tmp_path / "studies")
    assert report.channel_names == ("FLAIR", "T1w", "T2w")
    study = StudiesFolder(tmp_path / "studies").study("brats_1")
    assert [path.name for path in study.channels] == [f"brats_1_000{c}.nii.gz" for c in range(3)]
    for channel, path in enumerate(study.channels):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array[0], np.asanyarray(nib.load(whole).dataobj)[..., channel])
        np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    assert import_studies(src, tmp_path / "studies").imported == ["brats_1"]


def test_scaled_4d_voxels_keep_their_values(tmp_path):
    src = tmp_path / "task"
    image = nib.Nifti1Image(np.arange(240, dtype=np.int16).reshape(6, 5, 4, 2), OBLIQUE)
    image.header.set_slope_inter(0.5, -3)
    (src / "imagesTr").mkdir(parents=True)
    nib.save(image, src / "imagesTr" / "x.nii.gz")
    tell(src / "dataset.json", modality={"0": "a", "1": "b"}, labels={"0": "bg", "1": "edema"})
    import_studies(src, tmp_path / "studies")
    want = nib.load(src / "imagesTr" / "x.nii.gz").get_fdata()
    for channel in (0, 1):
        got = nib.load(tmp_path / "studies" / f"x_000{channel}.nii.gz").get_fdata()
        np.testing.assert_allclose(got, want[..., channel])


def nnunet(src: Path, labels: dict[str, object]) -> Path:
    for name in ("case_1", "amos_0007"):
        save(src / "imagesTr" / f"{name}_0000.nii.gz", 1)
        save(src / "imagesTr" / f"{name}_0001.nii.gz", 2)
        draw(src / "labelsTr" / f"{name}.nii.gz", *[v for v in labels.values() if isinstance(v, int)])
    tell(
        src / "dataset.json",
        channel_names={"0": "T1", "1": "T2"},
        labels=labels,
        numTraining=2,
        file_ending=".nii.gz",
    )
    return src


def test_nnunet_raw_comes_in_with_its_channels(tmp_path):
    src = nnunet(tmp_path / "Dataset001", {"background": 0, "tumour": 1, "oedema": 2})
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == ["amos_0007", "case_1"]
    assert report.names == {"tumour": 1, "oedema": 2}
    assert not report.excluded
    found = StudiesFolder(tmp_path / "studies", channels=2).studies()
    assert {name: len(study.channels) for name, study in found.items()} == {"amos_0007": 2, "case_1": 2}


def test_an_id_that_ends_like_a_channel_stays_one_study(tmp_path):
    src = tmp_path / "set"
    for name in ("amos_0000", "amos_0001", "plain"):
        save(src / "imagesTr" / f"{name}_0000.nii.gz")
    tell(src / "dataset.json", channel_names={"0": "CT"}, labels={"background": 0, "a": 1}, file_ending=".nii.gz")
    import_studies(src, tmp_path / "studies")
    found = StudiesFolder(tmp_path / "studies").studies()
    assert {name: len(study.channels) for name, study in found.items()} == {"amos_0000": 1, "amos_0001": 1, "plain": 1}


def test_gaps_in_the_numbers_are_closed(tmp_path):
    src = nnunet(tmp_path / "set", {"background": 0, "spleen": 4, "liver": 9})
    report = import_studies(src, tmp_path / "studies")
    assert report.names == {"spleen": 1, "liver": 2}
    assert ids_in(tmp_path / "studies/labels/final/case_1.nii.gz") == [0, 1, 2]
    before, after = (
        read_mask(src / "labelsTr/case_1.nii.gz"),
        read_mask(tmp_path / "studies/labels/final/case_1.nii.gz"),
    )
    np.testing.assert_array_equal(before.array == 9, after.array == 2)


def test_a_mask_with_voxels_to_ignore_is_left_out_and_named(tmp_path):
    src = nnunet(tmp_path / "set", {"background": 0, "spleen": 1, "ignore": 2})
    draw(src / "labelsTr" / "case_1.nii.gz", 1)
    report = import_studies(src, tmp_path / "studies")
    assert report.labels == ["case_1"]
    assert [what for what, _ in report.excluded] == ["mask of imagesTr/amos_0007"]
    assert "[2]" in report.excluded[0][1]


def test_regions_are_refused_in_one_line(tmp_path):
    src = nnunet(tmp_path / "set", {"background": 0, "whole": [1, 2], "core": [2]})
    with pytest.raises(BadInput, match="region 'whole'"):
        import_studies(src, tmp_path / "studies")


def test_a_plain_folder_finds_masks_wherever_they_lie(tmp_path):
    src = tmp_path / "src"
    for number, name in enumerate("abcdef"):
        save(src / f"{name}.nii.gz", number)
    draw(src / "a_seg.nii.gz", 1)
    draw(src / "b-label.nii.gz", 1)
    draw(src / "c.seg.nrrd", 3, names={"lesion": 3})
    draw(src / "labels" / "d.nii.gz", 1)
    draw(src / "labels" / "final" / "e.nii.gz", 1)
    draw(src / "labels" / "ghost.nii.gz", 1)
    tell(src / "labels" / "names.json", lesion=1)
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == list("abcdef")
    assert report.labels == list("abcde")
    assert report.names == {"lesion": 1}
    assert report.excluded == [("labels/ghost.nii.gz", "a mask without an image of its name")]
    for name in "abcde":
        assert ids_in(tmp_path / f"studies/labels/final/{name}.nii.gz") == [0, 1]


def test_names_of_several_masks_become_one_mapping(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "studies"
    save(src / "a.nii.gz")
    save(src / "b.nii.gz")
    draw(src / "a.seg.nrrd", 1, 2, names={"leber": 1, "milz": 2})
    draw(src / "b.seg.nrrd", 1, 5, names={"milz": 1, "niere": 5})
    report = import_studies(src, dst)
    assert report.names == {"leber": 1, "milz": 2, "niere": 3}
    a, b = read_mask(dst / "labels/final/a.nii.gz").array[0], read_mask(dst / "labels/final/b.nii.gz").array[0]
    assert [a[0, 0, 2], a[1, 0, 2]] == [1, 2]
    assert [b[0, 0, 2], b[1, 0, 2]] == [2, 3]


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        ((1, 2), {"label_1": 1, "label_2": 2}, [0, 1, 2]),
        ((2,), {"label_1": 1, "label_2": 2}, [0, 2]),
        ((255,), {"label_255": 1}, [0, 1]),
    ],
)
def test_masks_without_names_keep_small_numbers(tmp_path, values, names, ids):
    save(tmp_path / "src" / "a.nii.gz")
    draw(tmp_path / "src" / "labels" / "a.nii.gz", *values)
    report = import_studies(tmp_path / "src", tmp_path / "studies")
    assert report.names == names
    assert ids_in(tmp_path / "studies/labels/final/a.nii.gz") == ids


def test_masks_without_names_are_never_taken_for_named_ones(tmp_path):
    save(tmp_path / "one" / "a.nii.gz")
    draw(tmp_path / "one" / "a.seg.nrrd", 1, names={"lesion": 1})
    save(tmp_path / "two" / "b.nii.gz")
    draw(tmp_path / "two" / "labels" / "b.nii.gz", 1)
    import_studies(tmp_path / "one", tmp_path / "studies")
    assert import_studies(tmp_path / "two", tmp_path / "studies").names == {"lesion": 1, "label_1": 2}
    assert ids_in(tmp_path / "studies/labels/final/b.nii.gz") == [0, 2]


def test_the_caller_may_say_the_names(tmp_path):
    save(tmp_path / "src" / "a.nii.gz")
    draw(tmp_path / "src" / "labels" / "a.nii.gz", 255)
    report = import_studies(tmp_path / "src", tmp_path / "studies", names={"lesion": 255})
    assert report.names == {"lesion": 1}
    assert ids_in(tmp_path / "studies/labels/final/a.nii.gz") == [0, 1]


def test_pictures_come_in_with_png_masks(tmp_path):
    from PIL import Image

    src = tmp_path / "src"
    src.mkdir()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(src / "röntgen.png")
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 5] = 255
    (src / "labels").mkdir()
    Image.fromarray(mask).save(src / "labels" / "röntgen.png")
    report = import_studies(src, tmp_path / "studies")
    assert report.labels == ["röntgen"]
    assert read_mask(tmp_path / "studies/labels/final/röntgen.png").array[0, 5, 1, 0] == 1


def test_bad_images_are_left_out_with_the_reason(tmp_path):
    src = tmp_path / "src"
    save(src / "good.nii.gz")
    save(src / "film.nii.gz", shape=(6, 5, 4, 3))
    cut = save(src / "cut.nii.gz", shape=(30, 30, 30))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (src / "text.nii.gz").write_text("no image")
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), np.nan, np.float32), np.eye(4)), src / "nan.nii.gz")
    save(src / "semi;colon.nii.gz")
    report = import_studies(src, tmp_path / "studies")
    assert report.imported == ["good"]
    reasons = dict(report.excluded)
    assert sorted(reasons) == ["cut.nii.gz", "film.nii.gz", "nan.nii.gz", "semi;colon.nii.gz", "text.nii.gz"]
    assert "4 dimensions" in reasons["film.nii.gz"]
    assert "rename" in reasons["semi;colon.nii.gz"]
    assert all("\n" not in reason for reason in reasons.values())
    assert sorted(p.name for p in (tmp_path / "studies").iterdir()) == ["good.nii.gz"]


def test_a_mask_on_another_grid_is_left_out_but_its_image_stays(tmp_path):
    save(tmp_path / "src" / "a.nii.gz")
    draw(tmp_path / "src" / "labels" / "a.nii.gz", 1, affine=OBLIQUE @ np.diag([1, 1, -1, 1]))
    report = import_studies(tmp_path / "src", tmp_path / "studies")
    assert report.imported == ["a"]
    assert report.labels == []
    assert report.excluded[0][0] == "mask of a.nii.gz"


def test_nothing_there_is_overwritten(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "studies"
    save(src / "a.nii.gz", 1)
    draw(src / "labels" / "a.nii.gz", 1)
    save(src / "b.nii.gz", 2)
    draw(src / "labels" / "b.nii.gz", 1)
    old = save(dst / "a.nii.gz", 99).read_bytes()
    shutil.copy(src / "b.nii.gz", dst / "b.nii.gz")
    corrected = draw(dst / "labels" / "final" / "b.nii.gz", 1, 1).read_bytes()
    report = import_studies(src, dst)
    assert report.imported == ["b"]
    assert report.labels == []
    assert {what for what, _ in report.excluded} == {"a.nii.gz", "mask of b.nii.gz"}
    assert (dst / "a.nii.gz").read_bytes() == old
    assert (dst / "labels/final/b.nii.gz").read_bytes() == corrected


def test_an_import_can_be_repeated_and_finished(tmp_path):
    src, dst = decathlon(tmp_path / "task"), tmp_path / "studies"

    class Interrupted(Exception):
        pass

    def stop(done, total, what):
        if done == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        import_studies(src, dst, progress=stop)
    assert not [p for p in dst.iterdir() if p.name.startswith(".import-")]
    first = import_studies(src, dst)
    stamps = {p: p.stat().st_mtime_ns for p in dst.rglob("*") if p.is_file()}
    again = import_studies(src, dst)
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in dst.rglob("*") if p.is_file()} == stamps


def test_leftovers_of_a_killed_import_go_away(tmp_path):
    left = tmp_path / "studies" / ".import-old"
    left.mkdir(parents=True)
    (left / "half.nii.gz").write_bytes(b"x")
    os.utime(left, (0, 0))
    save(tmp_path / "src" / "a.nii.gz")
    import_studies(tmp_path / "src", tmp_path / "studies")
    assert not left.exists()


def test_answers_are_merged_and_what_is_there_stays(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "studies"
    save(src / "a.nii.gz")
    save(src / "b.nii.gz", 1)
    (src / "cut.nii.gz").write_bytes(b"x")
    (src / "answers.csv").write_text("image,patient,grade\na,P1,2\nb.nii.gz,P2,3\ncut,P3,1\n", encoding="utf-8")
    dst.mkdir()
    (dst / "answers.csv").write_text("image,note,patient\na,müde,KEEP\nold,alt,X\n", encoding="utf-8")
    import_studies(src, dst)
    assert answers(dst) == {
        "a": {"image": "a", "note": "müde", "patient": "KEEP", "grade": "2"},
        "old": {"image": "old", "note": "alt", "patient": "X", "grade": ""},
        "b": {"image": "b", "note": "", "patient": "P2", "grade": "3"},
    }


def test_channels_and_numbered_studies_are_told_apart_by_their_masks(tmp_path):
    for name in ("case_0000", "case_0001", "case_0002"):
        save(tmp_path / "src" / f"{name}.nii.gz")
        draw(tmp_path / "src" / "labels" / f"{name}.nii.gz", 1)
    report = import_studies(tmp_path / "src", tmp_path / "studies")
    assert report.labels == ["case_0000", "case_0001", "case_0002"]
    assert list(StudiesFolder(tmp_path / "studies").studies()) == report.labels


def test_wrong_sources_are_refused_in_one_line(tmp_path):
    with pytest.raises(NotFound, match="no folder"):
        import_studies(tmp_path / "nowhere", tmp_path / "studies")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="has no images"):
        import_studies(tmp_path / "empty", tmp_path / "studies")
    (tmp_path / "empty" / "dataset.json").write_text("{")
    with pytest.raises(BadInput, match=r"dataset\.json"):
        import_studies(tmp_path / "empty", tmp_path / "studies")
    save(tmp_path / "src" / "a.nii.gz")
    tell(tmp_path / "studies" / "labels" / "names.json", lesion=7)
    with pytest.raises(BadLabel, match=r"1\.\.1"):
        import_studies(tmp_path / "src", tmp_path / "studies")


def test_the_report_accounts_for_everything(tmp_path):
    src = decathlon(tmp_path / "task")
    import_studies(src, tmp_path / "studies").write_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(encoding="utf-8") as handle:
        rows = [(row["what"], row["outcome"]) for row in csv.DictReader(handle)]
    assert rows == [
        ("liver_1", "imported with mask"),
        ("żółć", "imported with mask"),
        ("liver_9", "imported"),
        ("./imagesTr/liver_3.nii.gz", "left out"),
    ]
