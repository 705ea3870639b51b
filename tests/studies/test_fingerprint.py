"""What a studies folder is seen to hold."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from radloop.recipes.errors import BadInput, BadLabel
from radloop.studies.fingerprint import fingerprint
from radloop.studies.folder import StudiesFolder
from radloop.studies.patients import look_alike


def put(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def noise(shape: tuple[int, int, int], low: int = 0, high: int = 500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)


def put_labelled(folder: Path, count: int, ids: tuple[int, ...], **how: int) -> None:
    """Studies of 12 x 10 x 8 voxels with a block of each id."""
    for number in range(count):
        put(folder / f"case{number:02}.nii.gz", noise((12, 10, 8), seed=number, **how))
        mask = np.zeros((12, 10, 8), np.uint8)
        for place, value in enumerate(ids):
            mask[3 * place : 3 * place + 2, 2:6, 2:6] = value
        put(folder / "labels" / "final" / f"case{number:02}.nii.gz", mask)


def test_spacing_and_size_are_told_along_ras_axes(tmp_path):
    lps_rotated = np.array([[0, 0, -3.0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])  # X=P, Y=S, Z=L
    put(tmp_path / "a.nii.gz", noise((10, 20, 30)), lps_rotated)
    seen = fingerprint(StudiesFolder(tmp_path))
    assert seen.spacings.tolist() == [[3.0, 1.0, 2.0]]
    assert seen.shapes.tolist() == [[30, 10, 20]]
    assert seen.dimension == 3


def test_intensities_are_those_inside_the_labels(tmp_path):
    image = np.full((20, 20, 20), -1000, np.int16)
    image[5:15, 5:15, 5:15] = 40
    mask = np.zeros(image.shape, np.uint8)
    mask[8:12, 8:12, 8:12] = 1
    image[mask > 0] = 60
    put(tmp_path / "a.nii.gz", image)
    body = fingerprint(StudiesFolder(tmp_path))
    assert (body.modality, body.intensities[0].where) == ("CT", "body")
    assert 40 <= body.intensities[0].mean < 45
    put(tmp_path / "labels" / "final" / "a.nii.gz", mask)
    inside = fingerprint(StudiesFolder(tmp_path)).intensities[0]
    assert (inside.where, inside.mean, inside.deviation) == ("labels", 60.0, 0.0)
    assert (inside.low, inside.high) == (-1000.0, 60.0)


@pytest.mark.parametrize(("low", "high", "modality"), [(-1000, 1500, "CT"), (0, 900, "MR"), (-50, 900, "MR")])
def test_modality_is_guessed_from_values(tmp_path, low, high, modality):
    put(tmp_path / "a.nii.gz", noise((9, 9, 9), low, high))
    seen = fingerprint(StudiesFolder(tmp_path))
    assert seen.modality == modality
    assert "guess" in seen.modality_from


def test_values_that_are_no_whole_numbers_are_not_ct(tmp_path):
    put(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(0, 500, (9, 9, 9)).astype(np.float32))
    assert fingerprint(StudiesFolder(tmp_path)).modality == "MR"


def test_answers_say_modality_and_patients(tmp_path):
    for name in ("p01_a", "p01_b"):
        put(tmp_path / f"{name}.nii.gz", noise((9, 9, 9)))
    assert fingerprint(StudiesFolder(tmp_path)).same_patient == (("p01_a", "p01_b"),)
    (tmp_path / "answers.csv").write_text("image,patient,modality\np01_a,one,pt\np01_b,two,PT\n")
    seen = fingerprint(StudiesFolder(tmp_path))
    assert (seen.modality, seen.same_patient) == ("PT", ())
    assert "answers.csv" in seen.modality_from


def test_two_modalities_are_refused(tmp_path):
    for name in "ab":
        put(tmp_path / f"{name}.nii.gz", noise((9, 9, 9)))
    (tmp_path / "answers.csv").write_text("image,modality\na,CT\nb,MR\n")
    with pytest.raises(BadInput, match="CT, MR"):
        fingerprint(StudiesFolder(tmp_path))


def test_pictures_are_two_dimensional_radiographs(tmp_path):
    Image.fromarray(noise((30, 40, 1), 0, 255)[..., 0].astype(np.uint8)).save(tmp_path / "a.png")
    seen = fingerprint(StudiesFolder(tmp_path))
    assert (seen.dimension, seen.modality, seen.shapes.tolist()) == (2, "XR", [[40, 30, 1]])


def test_a_lone_sagittal_slice_is_two_dimensional(tmp_path):
    put(tmp_path / "a.nii.gz", noise((1, 30, 40)), np.diag([5.0, 1.0, 2.0, 1.0]))
    seen = fingerprint(StudiesFolder(tmp_path))
    assert (seen.dimension, seen.shapes.tolist(), seen.spacings.tolist()) == (2, [[30, 40, 1]], [[1.0, 2.0, 5.0]])


def test_channels_are_seen(tmp_path):
    for channel, low in enumerate((0, -900)):
        put(tmp_path / f"a_{channel:04}.nii.gz", noise((9, 9, 9), low, 1000))
    seen = fingerprint(StudiesFolder(tmp_path))
    assert (seen.ids, seen.channels) == (("a",), 2)
    assert seen.intensities[1].low < -500 < seen.intensities[0].low


def test_a_channel_that_some_studies_lack_is_counted_but_the_first_is_needed(tmp_path):
    for name in ("a_0000", "a_0001", "a_0002", "b_0000", "b_0002", "c_0000", "d_0001"):
        put(tmp_path / f"{name}.nii.gz", noise((9, 9, 9)))
    seen = fingerprint(StudiesFolder(tmp_path))
    assert (seen.ids, seen.channels, seen.lacking) == (("a", "b", "c"), 3, {1: 2, 2: 1})
    assert [study for study, _ in seen.unreadable] == ["d"]


def test_names_come_from_the_ids_or_from_names_json(tmp_path):
    put_labelled(tmp_path, 2, (1, 2))
    assert fingerprint(StudiesFolder(tmp_path)).labels.names == {"label_1": 1, "label_2": 2}
    (tmp_path / "labels" / "names.json").write_text(json.dumps({"病灶": 2, "liver": 1, "never seen": 3}))
    assert list(fingerprint(StudiesFolder(tmp_path)).labels.names.items()) == [
        ("liver", 1),
        ("病灶", 2),
        ("never seen", 3),
    ]


def test_gaps_in_the_ids_are_refused_with_the_way_out(tmp_path):
    put_labelled(tmp_path, 2, (1, 3))
    with pytest.raises(BadLabel, match=r"1, 3 without 2.*3 -> 2.*names\.json"):
        fingerprint(StudiesFolder(tmp_path))


def test_a_gap_in_the_sample_alone_is_none(tmp_path):
    put_labelled(tmp_path, 3, (1, 3))
    mask = np.zeros((12, 10, 8), np.uint8)
    mask[:4, :4, :4] = 2
    put(tmp_path / "labels" / "final" / "case02.nii.gz", mask)
    seen = fingerprint(StudiesFolder(tmp_path), sample=1)
    assert (sorted(seen.labels.names.values()), seen.sampled) == ([1, 2, 3], 1)


def test_ids_without_a_name_are_refused(tmp_path):
    put_labelled(tmp_path, 1, (1, 2))
    (tmp_path / "labels" / "names.json").write_text('{"liver": 1}')
    with pytest.raises(BadLabel, match="2, which"):
        fingerprint(StudiesFolder(tmp_path))


def test_diameters_are_those_of_single_things(tmp_path):
    put(tmp_path / "a.nii.gz", noise((40, 40, 40)), np.diag([2.0, 2.0, 2.0, 1.0]))
    grid = np.indices((40, 40, 40))
    mask = np.zeros((40, 40, 40), np.uint8)
    for centre, radius in ((10, 4), (28, 8)):
        mask[((grid - centre) ** 2).sum(axis=0) < radius**2] = 1
    put(tmp_path / "labels" / "final" / "a.nii.gz", mask, np.diag([2.0, 2.0, 2.0, 1.0]))
    found = sorted(fingerprint(StudiesFolder(tmp_path)).labels.diameters)
    assert found == pytest.approx([16.0, 32.0], rel=0.05)


def test_unreadable_studies_are_listed(tmp_path):
    put(tmp_path / "good.nii.gz", noise((9, 9, 9)))
    (tmp_path / "bad.nii.gz").write_text("this is no image")
    seen = fingerprint(StudiesFolder(tmp_path))
    assert seen.ids == ("good",)
    assert [study for study, _ in seen.unreadable] == ["bad"]
    (tmp_path / "good.nii.gz").unlink()
    with pytest.raises(BadInput, match="bad"):
        fingerprint(StudiesFolder(tmp_path))


def test_at_most_the_sample_is_read_and_labelled_ones_first(tmp_path):
    for number in range(12):
        put(tmp_path / f"plain{number:02}.nii.gz", noise((6, 6, 6)))
    put_labelled(tmp_path, 2, (1,))
    said = []
    seen = fingerprint(StudiesFolder(tmp_path), sample=5, progress=lambda *event: said.append(event))
    assert (len(seen.ids), seen.sampled) == (14, 5)
    assert [event[:2] for event in said] == [(n, 5) for n in range(1, 6)]
    assert {"case00", "case01"} < {event[2] for event in said}


@pytest.mark.parametrize(
    ("ids", "groups"),
    [
        (["p01_a", "p01_b", "p02_a"], [("p01_a", "p01_b")]),
        (["LUNG-001_20200101", "LUNG-001_20200301", "LUNG-002_20200101"], [("LUNG-001_20200101", "LUNG-001_20200301")]),
        (["anna_pre", "anna_post", "ben_pre"], [("anna_post", "anna_pre")]),
        (["00013_001", "00013_002", "00014_000"], [("00013_001", "00013_002")]),
        ([f"hippocampus_{n:03}" for n in range(5)], []),
        ([f"case_2020_{n:03}" for n in range(5)], []),
        (["TCGA_DU_5852_19950709", "TCGA_DU_5853_19950823"], []),
    ],
)
def test_ids_that_look_like_one_patient(ids, groups):
    assert look_alike(ids) == tuple(groups)


def test_real_ids_of_one_patient(data_dir):
    ids = [path.stem for path in (data_dir / "nih_cxr" / "images").glob("*.jpg")]
    patients = {name[:8] for name in ids}
    assert {group[0][:8] for group in look_alike(ids)} <= patients
    assert len(look_alike(ids)) == sum(sum(i.startswith(p) for i in ids) > 1 for p in patients)
