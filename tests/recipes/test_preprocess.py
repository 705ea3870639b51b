"""What is at a place in the world stays there, from the file's voxels to the network's grid and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from radloop.recipes.errors import BadImage, BadLabel
from radloop.recipes.load import load_recipe
from radloop.recipes.preprocess import Grid, Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume

TURNS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]  # fmt: skip
RAW = {"normalise": "ct", "window": (-1e6, 1e6), "deviation": 1.0}  # values as they are
mm = st.floats(0.5, 4.0)


def chain(labels: int = 1, dimension: int = 3, channels: int = 1, **preprocess: Any) -> Preprocess:
    return Preprocess(
        Recipe(
            name="test",
            dimension=dimension,
            channels=tuple(f"c{i}" for i in range(channels)),
            labels={f"l{i}": i for i in range(1, labels + 1)},
            preprocess=preprocess,
            fit={"patch": (8,) * dimension},
        )
    )


@st.composite
def affines(draw: st.DrawFn, degrees: float = 20) -> np.ndarray:
    """Any of the 48 orientations, anisotropic spacing, a shift, and a rotation away from the axes."""
    order, flips = draw(st.sampled_from(TURNS))
    columns = np.eye(3)[list(order)] * np.where(flips, -1.0, 1.0)
    angles = draw(st.tuples(*[st.floats(-degrees / 2, degrees / 2)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ columns @ np.diag(draw(st.tuples(mm, mm, mm)))
    )
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


shapes = st.tuples(*[st.integers(8, 20)] * 3)


def places(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates of every voxel, (3, X, Y, Z) mm."""
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]


def one_hot(label: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.stack([(label == k).float() for k in range(classes)])


def inner(grid: Grid) -> tuple[slice, ...]:
    """Voxels of the grid whose value no border has touched."""
    margins = [1 + int(np.ceil(new / old)) for new, old in zip(grid.shape, grid.oriented_shape, strict=True)]
    return tuple(slice(margin, size - margin) for margin, size in zip(margins, grid.shape, strict=True))


@given(affines(), shapes, st.tuples(mm, mm, mm))
def test_every_grid_voxel_holds_what_the_file_has_at_its_place(affine, shape, spacing) -> None:
    world = places(shape, affine)
    image, grid = chain(channels=3, spacing=spacing, **RAW).image(Volume(world, affine))
    assert image.shape[1:] == grid.shape
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    part = (slice(None), *inner(grid))
    # The antialiasing filter is off by some hundredths of a voxel where an axis shrinks by an odd factor.
    wrong = np.abs(image.numpy()[part] - places(grid.shape, grid.affine)[part])
    assert wrong.max(initial=0) < 0.1 * max(np.linalg.norm(affine[:3, :3], axis=0)) + 1e-3


@given(affines(), shapes, st.tuples(mm, mm, mm))
def test_the_grid_has_the_spacing_asked_for_and_the_files_field_of_view(affine, shape, spacing) -> None:
    volume = Volume(np.zeros((1, *shape)), affine)
    grid = chain(spacing=spacing).grid(volume)
    for got, asked, voxels in zip(grid.spacing, spacing, grid.shape, strict=True):
        assert abs(got - asked) <= 0.5 * asked / (voxels - 0.5)
    ends = np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in grid.shape])))
    found = nib.affines.apply_affine(np.linalg.inv(affine) @ grid.affine, ends)
    expected = np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in shape])))
    np.testing.assert_allclose(sorted(found.round(6).tolist()), sorted(expected.tolist()), atol=1e-6)


@given(affines(), shapes, st.tuples(mm, mm, mm), st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_plane_between_two_classes_comes_back_where_it_was(affine, shape, spacing, normal) -> None:
    way = chain(spacing=spacing)
    grid = way.grid(Volume(np.zeros((1, *shape)), affine))
    centre = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    direction = np.array(normal) + np.array([0.01, 0.0, 0.0])

    def height(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        return np.einsum("i,ixyz->xyz", direction, places(shape, affine) - centre[:, None, None, None])

    score = torch.from_numpy(height(grid.shape, grid.affine))
    for scores in (torch.stack([torch.zeros_like(score), score]), torch.stack([-score, score, score - 1.0])):
        found = way.restore(scores, grid)
        expected = height(shape, affine)
        # Beyond the outermost grid centres their value is held, and voxels on the plane may round either way.
        voxel = nib.affines.apply_affine(np.linalg.inv(grid.affine) @ affine, np.indices(shape).reshape(3, -1).T)
        inside = ((voxel >= 0) & (voxel <= np.array(grid.shape) - 1)).all(axis=1).reshape(shape)
        clear = inside & (np.abs(expected) > 1e-3)
        np.testing.assert_array_equal(found[clear], (expected > 0)[clear])


@given(affines(degrees=10), st.tuples(mm, mm, mm))
def test_a_blob_stays_within_half_a_voxel_from_image_to_restore(affine, spacing) -> None:
    size = np.linalg.norm(affine[:3, :3], axis=0)
    radius = 2.5 * max(*size, *spacing)
    shape = tuple(int(np.ceil(4 * radius / s)) for s in size)
    centre = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    far = np.linalg.norm(places(shape, affine) - centre[:, None, None, None], axis=0)
    mask = (far < radius).astype(np.uint8)
    way = chain(spacing=spacing, **RAW)
    image, grid = way.image(Volume(mask[None].astype(np.float32), affine))
    label = way.label(Volume(mask[None], affine), grid)

    def centroid(weights: np.ndarray, affine: np.ndarray) -> np.ndarray:
        return (places(weights.shape, affine) * weights).sum(axis=(1, 2, 3)) / weights.sum()

    true, half = centroid(mask, affine), 0.5 * min(*size, *spacing)
    assert np.abs(centroid(image[0].numpy(), grid.affine) - true).max() < half
    assert np.abs(centroid(label.numpy(), grid.affine) - true).max() < 0.5 * max(*size, *spacing)
    from_image = way.restore(torch.stack([1 - image[0], image[0]]), grid)
    assert from_image.shape == shape
    assert np.abs(centroid(from_image, affine) - true).max() < half
    both = 2 * (from_image & mask).sum() / (from_image.sum() + mask.sum())
    assert both > 0.8


@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_the_grid_does_not_know_how_the_file_was_turned(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    random = np.random.default_rng(3)
    array, mask = random.normal(size=(1, 9, 12, 7)), random.integers(0, 4, (1, 9, 12, 7))
    affine = np.diag([0.8, 1.1, 3.0, 1.0])
    affine[:3, :3] = Rotation.from_euler("xyz", (5, -8, 10), degrees=True).as_matrix() @ affine[:3, :3]
    way = chain(labels=3, spacing=(1.0, 1.0, 2.0), normalise="zscore")
    image, grid = way.image(Volume(array, affine))
    label = way.label(Volume(mask, affine), grid)

    turn = nib.orientations.inv_ornt_aff(np.column_stack([np.argsort(order), np.where(flips, -1, 1)]), (9, 12, 7))
    ornt = np.column_stack([np.argsort(order), np.where(flips, -1, 1)])
    other = Volume(nib.orientations.apply_orientation(array[0], ornt)[None], affine @ turn)
    other_mask = Volume(nib.orientations.apply_orientation(mask[0], ornt)[None], affine @ turn)
    other_image, other_grid = way.image(other)
    assert torch.equal(image, other_image)
    assert torch.equal(label, way.label(other_mask, other_grid))
    np.testing.assert_allclose(grid.affine, other_grid.affine, atol=1e-9)
    back, other_back = way.restore(one_hot(label, 4), grid), way.restore(one_hot(label, 4), other_grid)
    np.testing.assert_array_equal(nib.orientations.apply_orientation(back, ornt), other_back)


@given(affines(), shapes, st.integers(1, 5), st.randoms(use_true_random=False))
def test_without_resampling_a_label_comes_back_exactly(affine, shape, labels, random) -> None:
    mask = np.random.default_rng(random.randrange(1 << 30)).integers(0, labels + 1, (1, *shape))
    way = chain(labels=labels)
    grid = way.grid(Volume(mask, affine))
    label = way.label(Volume(mask, affine), grid)
    assert label.dtype == torch.uint8
    for scores in (one_hot(label, labels + 1), one_hot(label, labels + 1).half(), 5 * one_hot(label, labels + 1) - 3):
        back = way.restore(scores, grid)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, mask[0])


@given(affines(), st.tuples(mm, mm, mm))
def test_no_label_is_lost_where_it_is_larger_than_a_voxel(affine, spacing) -> None:
    size = np.linalg.norm(affine[:3, :3], axis=0)
    edge = [int(np.ceil(2.1 * max(spacing) / s)) + 1 for s in size]
    mask = np.kron(np.arange(8).reshape(2, 2, 2), np.ones(edge, dtype=int))
    way = chain(labels=7, spacing=spacing)
    grid = way.grid(Volume(mask[None], affine))
    label = way.label(Volume(mask[None], affine), grid)
    assert set(label.unique().tolist()) == set(range(8))
    assert set(np.unique(way.restore(one_hot(label, 8), grid))) == set(range(8))


@pytest.mark.parametrize("spacing", [(), (1.0, 2.0), (0.4, 0.3)])
def test_a_picture_keeps_its_one_slice(spacing: tuple[float, ...]) -> None:
    affine = np.diag([-0.7, -0.9, 1.0, 1.0])
    array = np.random.default_rng(0).integers(0, 256, (1, 40, 30, 1), dtype=np.uint8)
    way = chain(dimension=2, spacing=spacing, normalise="rescale")
    image, grid = way.image(Volume(array, affine))
    expected = tuple(round(n * s / t) for n, s, t in zip((40, 30), (0.7, 0.9), spacing, strict=False)) or (40, 30)
    assert image.shape == (1, *expected, 1)
    assert way.restore(torch.cat([image, 1 - image]), grid).shape == (40, 30, 1)


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_a_lone_slice_of_any_direction_is_a_picture_in_2d(thin: int) -> None:
    shape = [20, 20, 20]
    shape[thin] = 1
    world = places(tuple(shape), np.diag([1.0, -1.0, 1.0, 1.0]))
    way = chain(dimension=2, channels=3, spacing=(2.0, 2.0), **RAW)
    image, grid = way.image(Volume(world, np.diag([1.0, -1.0, 1.0, 1.0])))
    assert image.shape == (3, 10, 10, 1)
    part = (slice(None), *inner(grid)[:2], slice(None))
    np.testing.assert_allclose(image.numpy()[part], places(grid.shape, grid.affine)[part], atol=1e-4)
    assert way.restore(image, grid).shape == tuple(shape)


def test_a_2d_recipe_leaves_the_distance_of_slices() -> None:
    grid = chain(dimension=2, spacing=(1.0, 1.0)).grid(Volume(np.zeros((1, 20, 20, 6)), np.diag([2.0, 2.0, 7.0, 1.0])))
    assert grid.shape == (40, 40, 6)
    assert grid.spacing == (1.0, 1.0, 7.0)


@given(st.floats(1e-3, 1e6), st.floats(-1e6, 1e6))
def test_zscore_does_not_see_scale_and_offset(scale: float, offset: float) -> None:
    base = np.random.default_rng(1).gamma(1.0, size=(2, 12, 12, 12))
    base[1] *= 3
    affine = np.eye(4)
    plain, _ = chain(channels=2).image(Volume(base, affine))
    other, _ = chain(channels=2).image(Volume(base * scale + offset, affine))
    for channel in plain:
        assert abs(channel.mean()) < 1e-5
        assert abs(channel.std(correction=0) - 1) < 1e-4
    # float32 holds seven digits of the offset; what it cannot hold cannot be compared.
    lost = 1e-6 * abs(offset) / scale
    assert (plain - other).abs().max() < 1e-3 + 10 * lost


@pytest.mark.parametrize("how", ["zscore", "rescale"])
@pytest.mark.parametrize("value", [0, 112, 1.7e6, -3024, 0.1])
def test_a_constant_image_becomes_zero(how: str, value: float) -> None:
    image, _ = chain(normalise=how, spacing=(2.0, 2.0, 2.0)).image(Volume(np.full((1, 9, 9, 9), value), np.eye(4)))
    assert (image == 0).all()


def test_rescale_puts_percentiles_to_0_and_1_and_clips() -> None:
    array = np.arange(27000, dtype=np.float64).reshape(1, 30, 30, 30)
    array[0, 0, 0, 0] = 1e9
    image, _ = chain(normalise="rescale").image(Volume(array, np.eye(4)))
    assert image.min() == 0
    assert image.max() == 1
    np.testing.assert_allclose(image[0, 15, 0, 0], (13500 - 135) / (26864 - 135), atol=1e-3)


def test_rescale_of_nearly_all_background_keeps_the_rest() -> None:
    array = np.zeros((1, 20, 20, 20))
    array[0, 5, 5, 5] = 7
    image, _ = chain(normalise="rescale").image(Volume(array, np.eye(4)))
    assert image[0, 5, 5, 5] == 1
    assert image.sum() == 1


def test_ct_clips_before_it_resamples() -> None:
    array = np.full((1, 8, 8, 8), -160, dtype=np.int16)
    array[0, :4] = 30000  # metal
    way = chain(normalise="ct", window=(-160.0, 240.0), mean=40.0, deviation=100.0, spacing=(0.5, 1.0, 1.0))
    image, _ = way.image(Volume(array, np.eye(4)))
    assert image.min() == -2
    assert image.max() == 2
    np.testing.assert_allclose(image[0, 6:10, 0, 0], [2, 1, -1, -2], atol=1e-6)  # 30000 is 240 to its neighbours


@pytest.mark.parametrize("kind", ["int8", "uint16", ">i2", "uint32", "int64", "float64", "bool"])
def test_every_kind_of_number_is_read(kind: str) -> None:
    array = np.arange(512).reshape(1, 8, 8, 8) % 2
    image, _ = chain(**RAW).image(Volume(array.astype(kind)[:, ::-1], np.eye(4)))
    np.testing.assert_array_equal(image, array[:, ::-1])


def test_what_cannot_be_used_is_refused_by_name() -> None:
    way, cube = chain(labels=2, spacing=(1.0, 1.0, 1.0)), np.zeros((1, 5, 5, 5))
    with pytest.raises(BadImage, match="2 channels; recipe 'test' needs 1"):
        way.image(Volume(np.zeros((2, 5, 5, 5)), np.eye(4)))
    for affine in (np.zeros((4, 4)), np.diag([1.0, 1.0, 0.0, 1.0]), np.full((4, 4), np.nan)):
        with pytest.raises(BadImage, match="no inverse"):
            way.image(Volume(cube, affine))
    with pytest.raises(BadImage, match="check the file's spacing"):
        way.image(Volume(cube, np.diag([1000.0, 1000.0, 1000.0, 1.0])))
    with pytest.raises(BadImage, match="not finite"):
        way.image(Volume(np.full((1, 5, 5, 5), np.nan), np.eye(4)))
    grid = way.grid(Volume(cube, np.eye(4)))
    with pytest.raises(BadLabel, match=r"ids 0\.\.3; recipe 'test' has 0\.\.2"):
        way.label(Volume(np.arange(125).reshape(1, 5, 5, 5) % 4, np.eye(4)), grid)
    with pytest.raises(BadLabel, match="not those of the study"):
        way.label(Volume(np.zeros((1, 5, 5, 6), dtype=int), np.eye(4)), grid)
    with pytest.raises(BadLabel, match="not those of the study"):
        way.label(Volume(np.zeros((1, 5, 5, 5), dtype=int), np.diag([-1.0, 1.0, 1.0, 1.0])), grid)
    with pytest.raises(ValueError, match="the grid has"):
        way.restore(torch.zeros(3, 5, 5, 4), grid)


def test_the_study_is_not_changed() -> None:
    array = np.random.default_rng(0).normal(size=(1, 6, 6, 6)).astype(np.float32)
    kept = array.copy()
    for how in ("zscore", "ct", "rescale"):
        chain(normalise=how).image(Volume(array, np.eye(4)))
    np.testing.assert_array_equal(array, kept)


def test_real_crops_become_alike_whatever_their_intensities(data_dir: Path) -> None:
    way = Preprocess(load_recipe("hippocampus"))
    files = sorted((data_dir / "hippocampus" / "images").glob("*.nii.gz"))[::20]
    assert files
    for file in files:
        image, label = nib.load(file), nib.load(data_dir / "hippocampus" / "labels" / file.name)
        tensor, grid = way.image(Volume(image.get_fdata(dtype=np.float32)[None], image.affine))
        assert abs(tensor.mean()) < 1e-4
        assert abs(tensor.std() - 1) < 1e-3
        mask = np.asarray(label.dataobj).astype(np.uint8)
        on_grid = way.label(Volume(mask[None], label.affine), grid)
        np.testing.assert_array_equal(way.restore(one_hot(on_grid, 3), grid), mask)


@pytest.mark.slow
def test_a_large_ct_takes_seconds_and_little_memory(time_and_peak: Callable[[str], dict[str, float]]) -> None:
    cost = time_and_peak("0.8, 0.8, 1.0")
    assert cost["image_s"] < 8
    assert cost["restore_s"] < 8
    assert cost["peak_gb"] < 2
