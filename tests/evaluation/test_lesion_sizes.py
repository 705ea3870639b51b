"""How large lesions are, held against shapes whose size is known and against every pair of surface points."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from radloop.evaluation.lesion_sizes import count_lesions, lesion_sizes


def ball(radius: float, spacing: tuple[float, float, float], size: float = 40.0) -> np.ndarray:
    """A ball in the middle of a cube of `size` mm."""
    shape = [int(size / mm) for mm in spacing]
    places = np.indices(shape).reshape(3, -1).T * spacing
    return (np.linalg.norm(places - places.mean(axis=0), axis=1) <= radius).reshape(shape)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0), (0.7, 0.9, 1.3)])
def test_a_ball_is_as_large_as_it_was_made(spacing: tuple[float, float, float]) -> None:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30, 20, 5)
    mask = ball(12.0, spacing)
    (found,) = lesion_sizes(mask, affine)
    assert found.volume_ml == pytest.approx(mask.sum() * np.prod(spacing) / 1000)
    assert found.axial_mm == pytest.approx(24, abs=max(spacing[:2]))
    assert found.longest_mm == pytest.approx(24, abs=max(spacing))
    middle = (np.array(mask.shape) - 1) / 2 * spacing + affine[:3, 3]
    assert found.centre == pytest.approx(tuple(middle), abs=0.01)


def test_one_voxel_is_as_long_as_its_longest_side() -> None:
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    (found,) = lesion_sizes(mask, np.diag([0.5, 0.7, 3.0, 1.0]))
    assert found.axial_mm == pytest.approx(0.7)
    assert found.longest_mm == pytest.approx(3.0)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "ASL", "SRA"])
def test_axial_means_axial_however_the_file_lies(codes: str) -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[5:8, 5:9, 2:18] = True  # 3 x 4 across, 16 from foot to head
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    turned = nib.orientations.apply_orientation(mask, change)
    (found,) = lesion_sizes(turned, nib.orientations.inv_ornt_aff(change, mask.shape))
    assert 4 <= found.axial_mm <= 5
    assert 16 <= found.longest_mm <= 17


def test_a_picture_is_measured_in_its_plane() -> None:
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 2:18, 5:9] = True
    (found,) = lesion_sizes(mask, np.diag([3.0, 1.0, 1.0, 1.0]))
    assert 16 <= found.axial_mm <= 17


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.floats(0.4, 4)] * 3))
def test_the_hull_forgets_no_pair(seed: int, spacing: tuple[float, float, float]) -> None:
    mask = np.random.default_rng(seed).random((9, 8, 7)) < 0.4
    mask[3:5] = True
    affine = np.diag([*spacing, 1.0])
    for found in lesion_sizes(mask, affine, most=1):
        parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        inside = parts == np.argmax(np.bincount(parts[parts > 0]))
        points = []
        for voxel in np.argwhere(inside):
            for axis, step in itertools.product(range(3), (-1, 1)):
                other = voxel.copy()
                other[axis] += step
                if not (0 <= other[axis] < mask.shape[axis]) or not inside[tuple(other)]:
                    points.append((voxel + other) / 2 * spacing)
        every = np.array(points)
        gaps = np.linalg.norm(every[:, None] - every[None], axis=2)
        assert found.longest_mm == pytest.approx(gaps.max())


def test_lesions_are_told_apart_from_the_largest_down() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[1:3, 1:3, 1:3] = True
    mask[3, 3, 3] = True  # joined over a corner
    mask[10:15, 10:15, 10:15] = True
    mask[18, 18, 18] = True
    sizes = lesion_sizes(mask, np.eye(4))
    assert [round(one.volume_ml * 1000) for one in sizes] == [125, 9, 1]
    assert count_lesions(mask) == 3
    assert len(lesion_sizes(mask, np.eye(4), most=2)) == 2
    assert lesion_sizes(np.zeros((3, 3, 3), bool), np.eye(4)) == []
