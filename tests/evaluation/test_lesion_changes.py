"""Lesions of successive studies: matched in world space, measured, each told once."""

from __future__ import annotations

import numpy as np
import pytest

from radloop.evaluation.lesion_changes import lesions_of, match
from radloop.evaluation.lesion_sizes import lesion_sizes

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def box(*places: tuple[int, int, int], size: int = 4, shape: tuple[int, int, int] = (40, 40, 20)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for x, y, z in places:
        mask[x : x + size, y : y + size, z : z + 2] = True
    return mask


def test_volume_and_diameter_are_of_the_world():
    (lesion,) = lesions_of(box((10, 10, 5)), AFFINE).found
    assert lesion.volume_ml == pytest.approx(4 * 4 * 2 * 2 / 1000)
    assert lesion.diameter_mm == pytest.approx(np.sqrt(9 + 9 + 16))
    np.testing.assert_allclose(lesion.centre, [11.5, 11.5, 11])


def test_a_lesion_is_as_long_as_the_table_of_lesions_says():
    affine = np.diag([0.7, 0.7, 5.0, 1.0])
    mask = box((10, 10, 5), size=12)
    mask[30, 30, 15] = True
    told = [size.longest_mm for size in lesion_sizes(mask, affine)]
    assert [lesion.diameter_mm for lesion in lesions_of(mask, affine).found] == pytest.approx(told)
    assert told[1] == pytest.approx(5.0), "one voxel is as long as its longest side"


def test_lesions_are_the_same_by_overlap_then_by_distance_then_new_or_gone():
    before = lesions_of(box((2, 2, 2), (12, 12, 8), (30, 30, 15)), AFFINE)
    after = lesions_of(box((3, 3, 2), (18, 12, 8), (2, 30, 2)), AFFINE)
    found = [(c.before and c.before.number, c.after and c.after.number, c.matched) for c in match(before, after)]
    assert [how for *_, how in found] == ["overlap", "distance", "gone", "new"]
    assert all(one is None or two is None or one > 0 for one, two, _ in found)
    near = [change.matched for change in match(before, after, within=3.0)]
    assert near == ["overlap", "gone", "gone", "new", "new"]


def test_another_grid_of_the_same_place_changes_nothing():
    before = lesions_of(box((4, 4, 4), (20, 20, 10)), AFFINE)
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = 39
    after = lesions_of(box((4, 4, 4), (20, 20, 10))[::-1], AFFINE @ flip)
    changes = match(before, after)
    assert [change.matched for change in changes] == ["overlap", "overlap"]
    for change in changes:
        np.testing.assert_allclose(change.before.centre, change.after.centre)


def test_nothing_in_either_is_no_change():
    nothing = lesions_of(np.zeros((4, 4, 4), bool), AFFINE)
    assert match(nothing, nothing) == []
    assert [c.matched for c in match(nothing, lesions_of(box((1, 1, 1)), AFFINE))] == ["new"]
