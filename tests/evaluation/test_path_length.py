"""Added path length on shapes whose outline is known."""

from __future__ import annotations

import numpy as np
import pytest

from radloop.evaluation.path_length import added_path_length, outline
from radloop.recipes.errors import BadInput


def _square(low: int, high: int, slices: slice = slice(2, 4)) -> np.ndarray:
    mask = np.zeros((20, 20, 6), np.uint8)
    mask[low:high, low:high, slices] = 1
    return mask


def test_an_answer_that_lacks_everything_costs_the_whole_outline() -> None:
    # 8 x 8 voxels have 28 on their border, on two slices, of 0.5 mm
    found = added_path_length(np.zeros((20, 20, 6)), _square(4, 12), [1], (0.5, 0.5, 3.0))
    assert found == {1: pytest.approx(2 * 28 * 0.5)}


def test_the_same_mask_costs_nothing_and_a_slice_that_lacks_costs_its_outline() -> None:
    true = _square(4, 12)
    assert added_path_length(true, true, [1], (1, 1, 3)) == {1: 0}
    assert added_path_length(_square(4, 12, slice(2, 3)), true, [1], (1, 1, 3)) == {1: 28}


def test_what_has_to_be_taken_away_costs_nothing() -> None:
    assert added_path_length(_square(4, 12), np.zeros((20, 20, 6)), [1], (1, 1, 3)) == {1: 0}


def test_slices_lie_across_the_thickest_axis() -> None:
    true = np.moveaxis(_square(4, 12), 2, 0)
    assert added_path_length(np.zeros(true.shape), true, [1], (3, 0.5, 0.5)) == {1: pytest.approx(28)}
    # an outline in the other planes is another one
    assert added_path_length(np.zeros(true.shape), true, [1], (0.5, 0.5, 3)) != {1: pytest.approx(28)}


def test_labels_are_measured_by_themselves_and_unknown_ones_not_at_all() -> None:
    true = _square(4, 12) + 2 * _square(14, 17)
    assert added_path_length(_square(4, 12), true, [1, 2], (1, 1, 3)) == {1: 0, 2: 16}
    assert added_path_length(_square(4, 12), true, [1, 2], (1, 1, 3), known=[1]) == {1: 0, 2: None}


def test_a_picture_is_one_slice_and_its_edge_is_an_outline() -> None:
    whole = np.ones((5, 4, 1), np.uint8)
    assert outline(whole > 0, 2).sum() == 14
    assert added_path_length(0 * whole, whole, [1], (2.0, 2.0, 1.0)) == {1: 28}


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match=r"\(2, 2, 1\)"):
        added_path_length(np.zeros((2, 2, 1)), np.zeros((2, 2, 2)), [1], (1, 1, 1))
