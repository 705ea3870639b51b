"""DICOM folders: the right volume, or a clear no."""

from __future__ import annotations

import shutil
from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest

from radloop.recipes.errors import BadImage
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_header, read_volume


@pytest.fixture
def ct(data_dir, tmp_path) -> Path:
    """A private copy of a real CT of three slices, 1 mm apart."""
    shutil.copytree(data_dir / "dicom_odd" / "dcmqi" / "ct-3slice", tmp_path / "ct")
    return tmp_path / "ct"


def change(path: Path, **tags) -> None:
    header = pydicom.dcmread(path)
    for tag, value in tags.items():
        setattr(header, tag, value)
    header.save_as(path)


@pytest.mark.parametrize(
    "name", ["mr_udacity_study3/11-T1post-18670", "mr_udacity_study3/36468-FLAIRreg-58706", "ct_totalseg_normal"]
)
def test_the_volume_lies_where_itk_says(data_dir, name):
    """Real series, two of them oblique: ITK's own reader of series is the judge."""
    folder = data_dir / "dicom_odd" / name
    files = itk.GDCMSeriesFileNames.New()
    files.SetDirectory(str(folder))
    image = itk.imread(list(files.GetFileNames(files.GetSeriesUIDs()[0])))
    lps = np.eye(4)
    lps[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    volume = read_volume(folder)
    np.testing.assert_allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-6)
    np.testing.assert_array_equal(volume.array[0], itk.array_from_image(image).T)
    shape, affine = read_header(folder)
    assert shape == volume.shape
    np.testing.assert_array_equal(affine, volume.affine)


def test_file_names_and_numbers_do_not_order_slices(ct):
    expected = read_volume(ct)
    assert expected.shape == (512, 512, 3)
    assert expected.spacing == pytest.approx((0.810547, 0.810547, 1.0))
    (ct / "01.dcm").rename(ct / "9.dcm")
    change(ct / "02.dcm", InstanceNumber=77)
    again = read_volume(ct)
    np.testing.assert_array_equal(again.array, expected.array)
    np.testing.assert_array_equal(again.affine, expected.affine)


def test_many_frames_in_one_file_are_the_same_volume(data_dir):
    folder = data_dir / "dicom_odd" / "dcmqi" / "24x38x3"
    slices, frames = read_volume(folder / "image"), read_volume(folder / "multiframe")
    np.testing.assert_array_equal(slices.array, frames.array)
    np.testing.assert_allclose(slices.affine, frames.affine)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ct_ge_variable_tilt_spacing", r"tilted gantry \(18\.5 degrees\) and uneven gaps \(1\.08 to 7\.00 mm"),
        ("mr_xa10_enhanced_6frames", "4 files, some of several frames"),
        ("dcmqi/24x38x3/seg", "no DICOM image"),
        ("dcmqi/sr-example", "no DICOM image"),
        ("highdicom", "."),
    ],
)
def test_real_oddities_are_refused(data_dir, name, reason):
    for read in (read_volume, read_header):
        with pytest.raises(BadImage, match=reason) as told:
            read(data_dir / "dicom_odd" / name)
        assert "\n" not in str(told.value)


def test_a_missing_slice_is_a_gap(data_dir, tmp_path):
    folder = tmp_path / "ct"
    shutil.copytree(data_dir / "dicom_odd" / "ct_totalseg_normal", folder)
    by_place = {}
    for path in folder.iterdir():
        if path.suffix != ".md":
            by_place[float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])] = path
    by_place[sorted(by_place)[7]].unlink()
    with pytest.raises(BadImage, match=r"uneven gaps \(2\.00 to 4\.00 mm; slices may be missing"):
        read_volume(folder)


def test_two_slices_at_one_place(ct):
    shutil.copy(ct / "02.dcm", ct / "02b.dcm")
    with pytest.raises(BadImage, match="2 of 4 slices at one place"):
        read_volume(ct)


def test_a_leaning_stack_is_tilted(ct):
    for number, path in enumerate(sorted(ct.iterdir())):
        position = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[position[0], position[1] + 0.3 * number, position[2]])
    with pytest.raises(BadImage, match="tilted gantry") as told:
        read_volume(ct)
    assert "gaps" not in str(told.value)


def test_the_largest_series_is_taken(ct, caplog):
    expected = read_volume(ct)
    shutil.copy(ct / "01.dcm", ct / "scout.dcm")
    change(ct / "scout.dcm", SeriesInstanceUID="1.2.3", SeriesDescription="Scout")
    np.testing.assert_array_equal(read_volume(ct).array, expected.array)
    assert "holds 2 series" in caplog.text


def test_two_series_of_one_size_are_ambiguous(ct):
    for path in sorted(ct.iterdir()):
        copy = ct / f"again-{path.name}"
        shutil.copy(path, copy)
        change(copy, SeriesInstanceUID="1.2.3", SeriesDescription="Bone")
    with pytest.raises(BadImage, match=r"2 series of 3 slices each \(.*'Bone'"):
        read_volume(ct)


def test_a_slice_of_another_orientation(ct):
    change(ct / "02.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(BadImage, match="several orientations"):
        read_volume(ct)


def test_a_slice_without_a_place(ct):
    header = pydicom.dcmread(ct / "02.dcm")
    del header.ImagePositionPatient
    header.save_as(ct / "02.dcm")
    with pytest.raises(BadImage, match="1 of 3 slices without a position"):
        read_volume(ct)


def test_a_truncated_slice(ct):
    content = (ct / "02.dcm").read_bytes()
    (ct / "02.dcm").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadImage, match="ct"):
        read_volume(ct)


def test_other_files_beside_the_slices_are_left_out(ct):
    expected = read_volume(ct)
    (ct / "README").write_text("notes")
    (ct / "notes.txt").write_text("notes")
    (ct / "DICOMDIR").write_bytes(b"")
    np.testing.assert_array_equal(read_volume(ct).array, expected.array)


def test_an_x_ray_without_a_place_is_a_picture_in_millimetres(ct):
    for name in ("01.dcm", "03.dcm"):
        (ct / name).unlink()
    header = pydicom.dcmread(ct / "02.dcm")
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(header, tag)
    header.Modality, header.ImagerPixelSpacing = "CR", [0.2, 0.3]
    header.save_as(ct / "02.dcm")
    volume = read_volume(ct)
    assert volume.shape == (512, 512, 1)
    assert volume.spacing[:2] == pytest.approx((0.3, 0.2))


def test_a_folder_of_slices_is_a_study(ct):
    study = StudiesFolder(ct.parent).study("ct")
    assert read_volume(study.channels[0]).shape == (512, 512, 3)
