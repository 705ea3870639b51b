"""Planned recipes: they can be read, they say why, and they keep to the time."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from radloop.engine.plan import plan_recipe
from radloop.engine.plan_text import Entry, Table, toml_text, toml_value
from radloop.networks.registry import build
from radloop.recipes.errors import BadInput
from radloop.recipes.load import parse_recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home

ODD_NAME = 'quote " backslash \\ 病灶 Läsion é'


def put(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


def noise(shape: tuple[int, int, int], low: int = 0, high: int = 500) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape).astype(np.int16)


def copy_pairs(images: Path, labels: Path, folder: Path, count: int) -> None:
    final = folder / "labels" / "final"
    final.mkdir(parents=True)
    for image in sorted(images.glob("*.nii.gz"))[:count]:
        shutil.copy(image, folder)
        shutil.copy(labels / image.name, final)


def comments(text: str) -> str:
    return " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))


def test_hippocampus(tmp_path, data_dir):
    source = data_dir / "hippocampus"
    copy_pairs(source / "images", source / "labels", tmp_path / "Hippo Campus", 6)
    (tmp_path / "Hippo Campus" / "labels" / "names.json").write_text('{"anterior": 1, "posterior": 2}')
    recipe = parse_recipe(plan_recipe(StudiesFolder(tmp_path / "Hippo Campus"), device="cpu"))
    assert (recipe.name, recipe.modality, recipe.dimension) == ("hippo_campus", "MR", 3)
    assert recipe.labels == {"anterior": 1, "posterior": 2}
    assert recipe.preprocess.spacing == (1.0, 1.0, 1.0)
    assert (recipe.preprocess.normalise, recipe.fit.mirror) == ("zscore", ())
    assert build(recipe) is not None


def test_whole_heads_with_thick_slices(tmp_path, data_dir):
    source = data_dir / "lgg_flair3d"
    copy_pairs(source / "images", source / "labels", tmp_path / "s", 3)
    recipe = parse_recipe(plan_recipe(StudiesFolder(tmp_path / "s"), labels={"tumour": 1}, device="cpu"))
    assert recipe.fit.mirror == (0,)
    assert recipe.preprocess.spacing[0] == pytest.approx(1.8)
    assert recipe.network.strides[1] == (2, 2, 1)  # the thick axis waits


def test_ct(tmp_path, data_dir):
    source = data_dir / "nifti_misc" / "totalseg"
    shutil.copy(source / "example_ct_sm.nii.gz", tmp_path / "ct.nii.gz")
    mask = nib.load(source / "example_seg.nii.gz")
    ids = np.asarray(mask.dataobj)
    dense = np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.uint8)
    (tmp_path / "labels" / "final").mkdir(parents=True)
    nib.save(nib.Nifti1Image(dense, mask.affine), tmp_path / "labels" / "final" / "ct.nii.gz")
    text = plan_recipe(StudiesFolder(tmp_path), device="cpu")
    recipe = parse_recipe(text)
    assert (recipe.modality, recipe.preprocess.normalise, len(recipe.labels)) == ("CT", "ct", int(dense.max()))
    low, high = recipe.preprocess.window
    assert -1100 <= low < recipe.preprocess.mean < high < 2000
    assert "guess" in comments(text)


def test_pictures(tmp_path):
    for name in "ab":
        Image.fromarray(noise((60, 90, 1), 0, 255)[..., 0].astype(np.uint8)).save(tmp_path / f"{name}.png")
    text = plan_recipe(StudiesFolder(tmp_path), name="pictures", device="cpu")
    recipe = parse_recipe(text)
    assert (recipe.dimension, recipe.modality, recipe.preprocess.normalise) == (2, "XR", "rescale")
    assert len(recipe.preprocess.spacing) == len(recipe.fit.patch) == 2
    assert "Pictures that say no size" in comments(text)


def test_two_channels_without_masks(tmp_path):
    for channel in range(2):
        put(tmp_path / f"one_{channel:04}.nii.gz", noise((24, 24, 16)))
    text = plan_recipe(StudiesFolder(tmp_path), device="cpu")
    recipe = parse_recipe(text)
    assert recipe.channels == ("channel_0", "channel_1")
    assert recipe.labels == {"lesion": 1}
    assert "no masks yet" in comments(text)
    assert recipe.optional == ()
    put(tmp_path / "two_0000.nii.gz", noise((24, 24, 16)))
    text = plan_recipe(StudiesFolder(tmp_path), device="cpu")
    assert parse_recipe(text).optional == ("channel_1",)
    assert "channel_1: 1 of 2" in comments(text)


def test_voxels_get_coarser_until_the_answer_is_in_time(tmp_path):
    put(tmp_path / "large.nii.gz", noise((200, 200, 160)), (0.8, 0.8, 1.0))
    free = parse_recipe(plan_recipe(StudiesFolder(tmp_path), answer_seconds=3600, device="cpu"))
    text = plan_recipe(StudiesFolder(tmp_path), answer_seconds=3, device="cpu")
    tight = parse_recipe(text)
    assert free.preprocess.spacing == (0.8, 0.8, 1.0)
    assert min(tight.preprocess.spacing) > 1.0
    said = re.search(r"Answer: about ([\d.]+) s", comments(text))
    assert said
    assert float(said[1]) <= 3 * 0.8 + 0.05
    assert "Made coarser, 0.8 x 0.8 x 1 -> " in comments(text)
    assert f"A 4 mm lesion spans {4 / max(tight.preprocess.spacing):.1f} voxels" in comments(text)


def test_seconds_that_cannot_be_met_are_refused_with_those_that_can(tmp_path):
    put(tmp_path / "large.nii.gz", noise((160, 160, 100)))
    with pytest.raises(BadInput, match=r"'large' takes .* give \d+ or more"):
        plan_recipe(StudiesFolder(tmp_path), answer_seconds=0.01, device="cpu")


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"kind": "risk"}, "come later"),
        ({"kind": "segmentatoin"}, "did you mean 'segmentation'"),
        ({"answer_seconds": 0}, "above 0"),
        ({"name": "My Recipe"}, "my_recipe"),
    ],
)
def test_wrong_wishes_are_refused(tmp_path, how, match):
    with pytest.raises(BadInput, match=match):
        plan_recipe(StudiesFolder(tmp_path), **how)


def test_labels_must_cover_what_the_masks_hold(tmp_path):
    put(tmp_path / "a.nii.gz", noise((16, 16, 16)))
    put(tmp_path / "labels" / "final" / "a.nii.gz", noise((16, 16, 16), 0, 3).astype(np.uint8))
    with pytest.raises(BadInput, match=r"\[2\] besides"):
        plan_recipe(StudiesFolder(tmp_path), labels={"lesion": 1})


def test_names_of_any_script_and_warnings_are_written(tmp_path):
    folder = tmp_path / "odd\nname"
    for name in ("p01_a", "p01_b"):
        put(folder / f"{name}.nii.gz", noise((16, 16, 16)))
    (folder / "bad.nii.gz").write_text("no image")
    (folder / "labels").mkdir()
    (folder / "labels" / "names.json").write_text(json.dumps({ODD_NAME: 1, "left lung": 2}))
    text = plan_recipe(StudiesFolder(folder), device="cpu")
    assert list(parse_recipe(text).labels) == [ODD_NAME, "left lung"]
    assert "p01_a, p01_b" in comments(text)
    assert "bad:" in comments(text)


def test_a_name_that_no_label_may_have_is_refused(tmp_path):
    put(tmp_path / "a.nii.gz", noise((16, 16, 16)))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "names.json").write_text('{"background": 1}')
    with pytest.raises(BadInput, match=r"background.*names\.json"):
        plan_recipe(StudiesFolder(tmp_path), device="cpu")


def test_a_taken_name_gets_a_number(tmp_path):
    put(tmp_path / "knee" / "a.nii.gz", noise((16, 16, 16)))
    home = Home(tmp_path / "home")
    (home.recipes / "knee.toml").write_text("")
    assert parse_recipe(plan_recipe(StudiesFolder(tmp_path / "knee"), home, device="cpu")).name == "knee_2"


def test_values_that_toml_does_not_have_are_refused():
    with pytest.raises(TypeError, match="TOML"):
        toml_value(None)
    assert toml_text(["a\nb"], [Table("t", [Entry("ü", (1.5, True), "why")])]) == (
        '# a b\n\n[t]\n# why\n"ü" = [1.5, true]\n'
    )
    assert toml_value("tab\t del\x7f") == '"tab\\t del\\u007F"'
