from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.errors import BadInput, Conflict
from radloop.recipes.recipe import Recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_mask, read_volume, write_mask
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split
from radloop.studies.transfer import export_studies, import_studies

AFFINE = np.array([[0.0, 0.1, 3.0, 10.0], [-1.5, 0.0, 0.0, 20.0], [0.0, 0.7, 0.1, -5.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (6, 5, 4)
IDS = [f"fall {k} ü" for k in range(12)]


def fill(folder: Path, recipe: Recipe) -> Ledger:
    """Twelve labelled studies of eleven patients, one channel or two."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    ledger = Ledger(Home.find(folder))
    (folder / "answers.csv").write_text(
        "image,patient,grade\n" + "".join(f"{name},P{max(k, 1)},{k}\n" for k, name in enumerate(IDS)), encoding="utf-8"
    )
    for name in IDS:
        for channel in range(len(recipe.channels)):
            suffix = f"_{channel:04d}" if len(recipe.channels) > 1 else ""
            voxels = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, AFFINE), folder / f"{name}{suffix}.nii.gz")
        mask = folder.parent / "drawn.nii.gz"
        write_mask(mask, rng.integers(0, 3, SHAPE).astype(np.uint8), AFFINE)
        ledger.add(name, f"P{max(IDS.index(name), 1)}", recipe.name, "anna", mask, ".nii.gz", recipe.label_names)
    return ledger


@pytest.mark.parametrize("channels", [("CT",), ("FLAIR", "T1w")])
@pytest.mark.parametrize("form", ["nnunet", "msd", "folder"])
def test_what_goes_out_comes_back_voxel_by_voxel(tmp_path, form, channels):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2}, channels=channels)
    ledger = fill(tmp_path / "studies", recipe)
    folder = StudiesFolder(tmp_path / "studies", len(channels))
    report = export_studies(folder, ledger, recipe, tmp_path / "größe", form)
    assert report.left_out == []
    assert sorted(report.exported) == sorted(IDS)

    back = import_studies(tmp_path / "größe", tmp_path / "back")
    assert {what for what, _ in back.excluded} <= {"sides.csv", "splits_final.json"}
    assert (back.channel_names, back.names) == (channels, recipe.labels)
    assert sorted(back.labels) == sorted(IDS)
    assert back.names == recipe.labels
    returned = StudiesFolder(tmp_path / "back", len(channels)).studies()
    for name, study in folder.studies().items():
        assert returned[name].patient == study.patient
        assert returned[name].answers["grade"] == study.answers["grade"]
        for before, after in zip(study.channels, returned[name].channels, strict=True):
            one, two = read_volume(before), read_volume(after)
            np.testing.assert_array_equal(one.array, two.array)
            np.testing.assert_allclose(one.affine, two.affine, atol=1e-5)
        kept = read_mask(ledger.file(ledger.current("organs")[name]))
        np.testing.assert_array_equal(kept.array, read_mask(tmp_path / f"back/labels/final/{name}.nii.gz").array)


def test_the_test_side_is_kept_apart_in_nnunet_form(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2})
    ledger = fill(tmp_path / "studies", recipe)
    out = tmp_path / "Dataset007_organs"
    report = export_studies(StudiesFolder(tmp_path / "studies"), ledger, recipe, out)
    sides = Split(ledger).stored()
    assert set(sides.values()) == {"train", "validation", "test"}
    test = {name for name, side in report.exported.items() if side == "test"}
    assert {p.name for p in (out / "imagesTs").iterdir()} == {f"{name}_0000.nii.gz" for name in test}
    assert {p.name for p in (out / "labelsTs").iterdir()} == {f"{name}.nii.gz" for name in test}
    told = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert told["labels"] == {"background": 0, "leber": 1, "gefäß": 2}
    assert told["channel_names"] == {"0": "image"}
    assert told["file_ending"] == ".nii.gz"
    assert told["numTraining"] == len(IDS) - len(test) == len(list((out / "imagesTr").iterdir()))
    (split,) = json.loads((out / "splits_final.json").read_text(encoding="utf-8"))
    assert sorted(split["train"] + split["val"]) == sorted(set(IDS) - test)
    # the two studies of patient P1 are on one side
    assert report.exported[IDS[0]] == report.exported[IDS[1]]


def test_a_label_that_does_not_speak_for_every_name_is_left_out(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2})
    ledger = fill(tmp_path / "studies", recipe)
    write_mask(tmp_path / "m.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    ledger.add(IDS[3], "P3", "organs", "bert", tmp_path / "m.nii.gz", ".nii.gz", ("leber",))
    report = export_studies(StudiesFolder(tmp_path / "studies"), ledger, recipe, tmp_path / "out")
    assert [name for name, _ in report.left_out] == [IDS[3]]
    assert "gefäß" in report.left_out[0][1]
    assert not list((tmp_path / "out").rglob(f"{IDS[3]}*"))


def test_a_labelled_study_that_is_gone_is_named(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2})
    ledger = fill(tmp_path / "studies", recipe)
    (tmp_path / "studies" / f"{IDS[4]}.nii.gz").unlink()
    report = export_studies(StudiesFolder(tmp_path / "studies"), ledger, recipe, tmp_path / "out", "msd")
    assert report.left_out == [(IDS[4], "labelled, but not in the studies folder")]
    assert len(report.exported) == 11


def test_a_folder_with_files_is_not_touched(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2})
    ledger = fill(tmp_path / "studies", recipe)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict, match="not empty"):
        export_studies(StudiesFolder(tmp_path / "studies"), ledger, recipe, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_interrupted_export_leaves_nothing(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2})
    ledger = fill(tmp_path / "studies", recipe)

    def stop(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_studies(StudiesFolder(tmp_path / "studies"), ledger, recipe, tmp_path / "out", progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drawn.nii.gz", "studies"]


def test_wrong_wishes_are_refused_in_one_line(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2})
    ledger = fill(tmp_path / "studies", recipe)
    folder = StudiesFolder(tmp_path / "studies")
    with pytest.raises(BadInput, match="nnunet, msd, folder"):
        export_studies(folder, ledger, recipe, tmp_path / "out", "zip")
    with pytest.raises(BadInput, match="no label"):
        export_studies(folder, ledger, Recipe(name="other", labels={"x": 1}), tmp_path / "out")


def test_pictures_go_out_and_come_back(tmp_path):
    from PIL import Image

    folder = tmp_path / "studies"
    folder.mkdir()
    recipe = Recipe(name="chest", labels={"nodule": 1}, dimension=2, fit={"patch": (32, 32)}, modality="XR")
    ledger = Ledger(Home.find(folder))
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(folder / "bild.png")
    mask = np.zeros((8, 6, 1), np.uint8)
    mask[5, 1] = 1
    write_mask(tmp_path / "m.png", mask, np.eye(4))
    ledger.add("bild", "bild", "chest", "anna", tmp_path / "m.png", ".png", ("nodule",))
    for form in ("nnunet", "folder"):
        export_studies(StudiesFolder(folder), ledger, recipe, tmp_path / form, form)
        import_studies(tmp_path / form, tmp_path / f"back_{form}")
        (study,) = StudiesFolder(tmp_path / f"back_{form}").studies().values()
        np.testing.assert_array_equal(read_volume(study.channels[0]).array, read_volume(folder / "bild.png").array)
        (label,) = (tmp_path / f"back_{form}" / "labels" / "final").iterdir()
        np.testing.assert_array_equal(read_mask(label).array[0], mask)


def test_64_bit_channels_go_out_as_one_4d_file(tmp_path):
    recipe = Recipe(name="organs", labels={"leber": 1, "gefäß": 2}, channels=("FLAIR", "T1w"))
    ledger = fill(tmp_path / "studies", recipe)
    wide = np.arange(120, dtype=np.int64).reshape(SHAPE) * 1000
    for path in (tmp_path / "studies").glob("*.nii.gz"):
        nib.save(nib.Nifti1Image(wide, AFFINE, dtype=np.int64), path)
    report = export_studies(StudiesFolder(tmp_path / "studies", 2), ledger, recipe, tmp_path / "out", "msd")
    assert report.left_out == []
    out = nib.load(next((tmp_path / "out" / "imagesTr").iterdir()))
    assert out.get_data_dtype() == np.int32
    np.testing.assert_array_equal(np.asanyarray(out.dataobj)[..., 1], wide)
