"""Images and masks come in as they are, or are refused with the reason."""

from __future__ import annotations

import gzip
import subprocess
import sys

import itk
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radloop.recipes.errors import BadImage, BadInput, BadLabel
from radloop.studies.images import (
    mask_extension,
    read_header,
    read_mask,
    read_named_mask,
    read_study,
    read_volume,
    write_mask,
)

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def nifti(tmp_path, affine):
    """Write voxels as NIfTI."""

    def write(voxels, name="image.nii.gz", slope=None):
        image = nib.Nifti1Image(voxels, affine)
        if slope:
            image.header.set_slope_inter(*slope)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["image.nii.gz", "image.nii", "片子.nii.gz"])
def test_whole_numbers_stay_whole_numbers(nifti, affine, name):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000
    path = nifti(voxels, name)
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, voxels[None])
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    shape, header = read_header(path)
    assert shape == (2, 3, 4)
    np.testing.assert_array_equal(header, volume.affine)


def test_scaled_voxels_are_float32(tmp_path, affine):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    image.header.set_data_dtype(np.int16)
    path = tmp_path / "scaled.nii"
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, -3], np.float32).tobytes()  # scl_slope, scl_inter
    path.write_bytes(raw)
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], np.arange(24).reshape(2, 3, 4) * 0.5 - 3)


def test_big_endian_becomes_native(tmp_path, affine):
    nib.save(
        nib.Nifti1Image(np.arange(24, dtype=">i2").reshape(2, 3, 4), affine, nib.Nifti1Header(endianness=">")),
        tmp_path / "b.nii",
    )
    volume = read_volume(tmp_path / "b.nii")
    assert volume.array.dtype.isnative
    assert volume.array[0, 1, 2, 3] == 23


def test_flat_and_trailing_axes(nifti):
    assert read_volume(nifti(np.ones((4, 5), np.uint8))).shape == (4, 5, 1)
    assert read_volume(nifti(np.ones((4, 5, 6, 1), np.uint8))).shape == (4, 5, 6)
    path = nifti(np.ones((4, 5, 6, 3), np.uint8))
    for read in (read_volume, read_header):
        with pytest.raises(BadImage, match=r"4 dimensions \(4, 5, 6, 3\).*_0000"):
            read(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted(nifti, bad):
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[1, 2, 3] = voxels[3, 4, 5] = bad
    with pytest.raises(BadImage, match="2 voxels that are not finite"):
        read_volume(nifti(voxels))


def test_a_truncated_file_is_refused(nifti):
    whole = nifti(np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16))
    content = whole.read_bytes()
    for part in (len(content) // 2, 400, 100, 3, 0):
        whole.write_bytes(content[:part])
        with pytest.raises(BadImage, match=r"image\.nii\.gz"):
            read_volume(whole)


def test_a_truncated_uncompressed_file_is_refused(nifti):
    whole = nifti(np.ones((20, 20, 20), np.int16), "image.nii")
    content = whole.read_bytes()
    for part in (len(content) - 10, 352, 100, 0):
        whole.write_bytes(content[:part])
        with pytest.raises(BadImage, match=r"image\.nii"):
            read_volume(whole)


@given(st.binary(max_size=2000))
def test_no_bytes_bring_the_reader_down(tmp_path_factory, junk):
    folder = tmp_path_factory.mktemp("junk")
    for name, content in (("a.nii", junk), ("a.nii.gz", gzip.compress(junk)), ("b.nii.gz", junk)):
        (folder / name).write_bytes(content)
        with pytest.raises(BadImage, match=name):
            read_volume(folder / name)


@pytest.mark.parametrize("name", ["t.nii.gz", "t.nii", "t.nrrd", "t.mha", "t.png", "t.jpg", "t.xyz"])
def test_text_is_no_image(tmp_path, name):
    (tmp_path / name).write_text("this is a text\n" * 50)
    with pytest.raises(BadImage, match=name) as told:
        read_volume(tmp_path / name)
    assert "\n" not in str(told.value)
    assert str(tmp_path) not in str(told.value)


def test_a_missing_file(tmp_path):
    for read in (read_volume, read_header):
        with pytest.raises(BadImage, match=r"image a\.nii\.gz is missing"):
            read(tmp_path / "a.nii.gz")


def test_geometry_that_cannot_be_used(tmp_path):
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    skew = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for affine in (flat, skew, np.full((4, 4), np.nan)):
        image = nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4))
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        for axis, row in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[row] = affine[axis]
        with (tmp_path / "g.nii").open("wb") as handle:
            handle.write(image.header.binaryblock + b"\0" * 4 + np.ones(60, np.uint8).tobytes())
        with pytest.raises(BadImage, match=r"g\.nii has no usable geometry"):
            read_volume(tmp_path / "g.nii")


def test_colour_and_complex_nifti_are_refused(nifti, tmp_path):
    with pytest.raises(BadImage, match="one number a voxel"):
        read_volume(nifti(np.ones((2, 3, 4), np.complex64)))
    colour = np.zeros((2, 3, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii.gz")
    with pytest.raises(BadImage, match="not colour"):
        read_volume(tmp_path / "rgb.nii.gz")


def test_nrrd_lies_where_nifti_lies(tmp_path, nifti, affine):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = itk.image_from_array(np.ascontiguousarray(voxels.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    expected = read_volume(nifti(voxels))
    for name in ("image.nrrd", "image.mha", "图像.nrrd"):
        itk.imwrite(image, str(tmp_path / name))
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, expected.array)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
        shape, header = read_header(tmp_path / name)
        assert shape == volume.shape
        np.testing.assert_array_equal(header, volume.affine)


def test_nrrd_in_ras_space(tmp_path):
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\n"
        "space directions: (2,0,0) (0,3,0) (0,0,4)\nkinds: domain domain domain\nencoding: raw\n"
        "space origin: (5,6,7)\n\n"
    )
    (tmp_path / "r.nrrd").write_bytes(header.encode() + bytes(range(24)))
    volume = read_volume(tmp_path / "r.nrrd")
    np.testing.assert_allclose(volume.affine, [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    assert volume.array[0, 1, 2, 3] == 23


def test_four_dimensions_of_nrrd_are_refused(tmp_path):
    itk.imwrite(itk.image_from_array(np.zeros((2, 3, 4, 5), np.uint8)), str(tmp_path / "t.nrrd"))
    with pytest.raises(BadImage, match="4 dimensions"):
        read_volume(tmp_path / "t.nrrd")


def test_pictures_are_columns_by_rows_in_grey(tmp_path):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)  # 5 rows, 6 columns
    colour = np.zeros((5, 6, 3), np.uint8)
    colour[2, 4] = (255, 0, 0)
    itk.imwrite(itk.image_from_array(grey), str(tmp_path / "g.png"))
    itk.imwrite(itk.image_from_array(grey.astype(np.uint16) * 1000), str(tmp_path / "deep.png"))
    itk.imwrite(itk.image_from_array(np.repeat(grey[..., None], 3, 2), is_vector=True), str(tmp_path / "g3.png"))
    itk.imwrite(itk.image_from_array(colour, is_vector=True), str(tmp_path / "c.png"))
    opaque = np.concatenate([colour, np.full((5, 6, 1), 255, np.uint8)], 2)
    itk.imwrite(itk.image_from_array(opaque, is_vector=True), str(tmp_path / "ca.png"))
    volume = read_volume(tmp_path / "g.png")
    assert volume.shape == (6, 5, 1)
    np.testing.assert_array_equal(volume.array[0, :, :, 0], grey.T)
    np.testing.assert_array_equal(volume.affine, LPS)
    np.testing.assert_array_equal(read_volume(tmp_path / "g3.png").array, volume.array)
    np.testing.assert_array_equal(read_volume(tmp_path / "deep.png").array, volume.array.astype(np.uint16) * 1000)
    for name in ("c.png", "ca.png"):
        red = read_volume(tmp_path / name).array
        assert red[0, 4, 2, 0] == 76
        assert np.count_nonzero(red) == 1
    assert read_header(tmp_path / "g.png")[0] == (6, 5, 1)


def test_channels_are_stacked_on_one_grid(nifti, affine, tmp_path):
    one = nifti(np.ones((3, 4, 5), np.int16), "a_0000.nii.gz")
    two = nifti(np.full((3, 4, 5), 2, np.float32), "a_0001.nii.gz")
    volume = read_study([one, two])
    assert volume.array.shape == (2, 3, 4, 5)
    assert volume.array[1].max() == 2
    with pytest.raises(BadImage, match=r"channel 1 \(a_0007\.nii\.gz\) of 2 is missing"):
        read_study([one, tmp_path / "a_0007.nii.gz"])
    other = nifti(np.ones((3, 4, 6), np.int16), "a_0002.nii.gz")
    with pytest.raises(BadImage, match=r"a_0002\.nii\.gz has 3x4x6.*a_0000\.nii\.gz 3x4x5"):
        read_study([one, other])


@pytest.mark.parametrize("name", ["m.nii.gz", "m.nii", "m.nrrd", "m.seg.nrrd", "肝脏.seg.nrrd"])
def test_a_mask_comes_back_as_it_was_written(tmp_path, affine, name):
    mask = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    names = {"肝": 1, "left lung": 2, "x": 3}
    write_mask(tmp_path / name, mask, affine, names)
    volume, found = read_named_mask(tmp_path / name)
    np.testing.assert_array_equal(volume.array[0], mask)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    assert found == (names if name.endswith(".seg.nrrd") else None)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_mask_as_a_picture(tmp_path):
    mask = np.zeros((6, 5, 1), np.uint8)
    mask[4, 2, 0] = 3
    write_mask(tmp_path / "m.png", mask, np.eye(4))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png").array[0], mask)


def test_equal_masks_are_equal_files(tmp_path, affine):
    mask = np.ones((5, 6, 7), np.uint8)
    for name in ("one.nii.gz", "two.nii.gz"):
        write_mask(tmp_path / name, mask, affine)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("name", "mask", "reason"),
    [
        ("m.txt", np.zeros((2, 2, 2), np.uint8), "cannot be written as m.txt"),
        ("m.png", np.zeros((2, 2, 2), np.uint8), "one slice"),
        ("m.nii.gz", np.zeros((2, 2), np.uint8), r"\(2, 2\)"),
        ("m.nii.gz", np.full((2, 2, 2), 300), "300"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, mask, reason):
    with pytest.raises(BadInput, match=reason):
        write_mask(tmp_path / name, mask, np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_masks_of_floats_are_ids_if_they_are_whole(nifti):
    voxels = np.zeros((3, 4, 5), np.float32)
    voxels[1, 1, 1] = 2
    mask = read_mask(nifti(voxels))
    assert (mask.array.dtype, mask.array.max()) == (np.uint8, 2)
    voxels[0, 0, 0] = 0.5
    with pytest.raises(BadLabel, match="not whole numbers"):
        read_mask(nifti(voxels))
    voxels[0, 0, 0] = np.nan
    with pytest.raises(BadLabel, match="not whole numbers"):
        read_mask(nifti(voxels))
    voxels[0, 0, 0] = -1
    with pytest.raises(BadLabel, match="from -1"):
        read_mask(nifti(voxels))


def segmentation(tmp_path, layers, segments, name="s.seg.nrrd"):
    """A .seg.nrrd as Slicer writes it: layers (L, X, Y, Z) and (name, layer, value) for each segment."""
    count, *size = layers.shape
    kinds, sizes, directions = "domain domain domain", size, "(1,0,0) (0,1,0) (0,0,1)"
    if count > 1:
        kinds, sizes, directions = f"list {kinds}", [count, *size], f"none {directions}"
    lines = [
        "NRRD0004",
        "type: uchar",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {directions}",
        f"kinds: {kinds}",
        "encoding: raw",
        "space origin: (0,0,0)",
    ]
    for number, (title, layer, value) in enumerate(segments):
        lines += [
            f"Segment{number}_Name:={title}",
            f"Segment{number}_LabelValue:={value}",
            f"Segment{number}_Layer:={layer}",
        ]
    content = "\n".join(lines).encode() + b"\n\n" + (layers if count > 1 else layers[0]).tobytes(order="F")
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_layers_of_slicer_are_merged_where_they_do_not_overlap(tmp_path):
    layers = np.zeros((2, 4, 5, 6), np.uint8)
    layers[0, 1, 1, 1] = 1
    layers[0, 2, 2, 2] = 2
    layers[1, 3, 3, 3] = 1
    segments = [("liver", 0, 1), ("spleen", 0, 2), ("tumour", 1, 1)]
    volume, names = read_named_mask(segmentation(tmp_path, layers, segments))
    at = {
        name: volume.array[0][index]
        for name, index in (("liver", (1, 1, 1)), ("spleen", (2, 2, 2)), ("tumour", (3, 3, 3)))
    }
    assert at == names
    assert np.count_nonzero(volume.array) == 3
    layers[1, 1, 1, 1] = 1
    with pytest.raises(BadLabel, match="'liver' and 'tumour' overlap in 1 voxels"):
        read_named_mask(segmentation(tmp_path, layers, segments))


def test_slicers_header_must_explain_every_voxel(tmp_path):
    layers = np.zeros((1, 4, 5, 6), np.uint8)
    layers[0, 1, 1, 1] = 5
    volume, names = read_named_mask(segmentation(tmp_path, layers, [("liver", 0, 5)]))
    assert names == {"liver": 5}
    assert volume.array[0, 1, 1, 1] == 5
    for segments, reason in (
        ([("liver", 0, 1)], "1 voxels that belong to no segment"),
        ([("liver", 0, 5), ("liver", 0, 6)], "two segments named 'liver'"),
        ([("liver", 3, 5)], "layer 3 of 1"),
        ([("liver", 0, "five")], "whole number"),
    ):
        with pytest.raises(BadLabel, match=reason):
            read_named_mask(segmentation(tmp_path, layers, segments))


def test_mask_endings(tmp_path):
    assert mask_extension(tmp_path / "a.PNG") == mask_extension(tmp_path / "a.jpeg") == ".png"
    assert mask_extension(tmp_path / "a.nrrd") == mask_extension(tmp_path / "folder") == ".nii.gz"


MEASURE = """
import re, sys
from pathlib import Path
from radloop.studies.images import read_volume
volume = read_volume(sys.argv[1])
assert volume.array.dtype == "int16" and volume.shape == (512, 512, 300), volume.array.dtype
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_large_ct_is_read_within_a_gigabyte(tmp_path):
    path = tmp_path / "ct.nii.gz"
    voxels = np.zeros((512, 512, 300), np.int16, order="F")
    voxels[::7] = -1000
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    told = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 1000


def test_real_images_are_read(data_dir):
    image = sorted((data_dir / "hippocampus" / "images").glob("*.nii.gz"))[0]
    theirs = nib.load(image)
    ours = read_volume(image)
    np.testing.assert_allclose(ours.array[0], theirs.get_fdata(), rtol=1e-6)
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    xray = sorted((data_dir / "nih_cxr" / "images").iterdir())[0]
    assert read_volume(xray).array.ndim == 4
