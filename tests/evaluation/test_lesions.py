"""Lesions of masks and of probability maps."""

from __future__ import annotations

import numpy as np
import pytest

from radloop.evaluation.lesion_report import curves_json, lesion_counts, lesion_section
from radloop.evaluation.lesions import (
    LesionScore,
    candidates,
    components,
    fewest_voxels,
    lesion_curves,
    lesion_figures,
    lesion_score,
    overlaps,
)
from radloop.recipes.errors import BadInput


def cube(*places: tuple[int, int]) -> np.ndarray:
    """A mask with cubes of a size at places along the diagonal."""
    mask = np.zeros((24, 24, 24), bool)
    for start, size in places:
        mask[(slice(start, start + size),) * 3] = True
    return mask


def score(patient: str, pred: np.ndarray, true: np.ndarray, smallest: int = 1) -> LesionScore:
    return lesion_score(f"s-{patient}", patient, pred, true, 0.9 * pred, smallest)


def test_components_join_at_corners_and_small_ones_are_left_out() -> None:
    mask = cube((0, 2), (2, 2), (10, 3), (20, 1))
    assert components(mask).max() == 3
    numbered = components(mask, 2)
    assert sorted(np.unique(numbered)) == [0, 1, 2]
    assert numbered[20, 20, 20] == 0


def test_overlaps_are_ratios_of_intersection_and_union() -> None:
    ours, theirs = components(cube((0, 4), (10, 2))), components(cube((1, 4), (18, 2)))
    found = overlaps(ours, theirs)
    assert found.shape == (2, 2)
    assert found[0, 0] == pytest.approx(27 / (64 + 64 - 27))
    assert found[1].tolist() == [0, 0]
    assert overlaps(components(cube()), theirs).shape == (0, 2)


def test_a_lesion_is_found_by_what_overlaps_it_well_enough() -> None:
    true = cube((0, 6), (10, 3), (18, 4))
    pred = cube((0, 1), (10, 3), (16, 2))
    counts = score("a", pred, true).counts
    # one voxel of the first is too little; the third is touched at a corner, not covered
    assert (counts.true, counts.found, counts.drawn, counts.confirmed) == (3, 1, 3, 1)
    everything = score("a", np.ones_like(true), true).counts
    assert (everything.found, everything.confirmed) == (0, 0)


def test_candidates_are_peaks_with_what_belongs_to_them() -> None:
    p = np.zeros((24, 24, 24))
    p[cube((2, 6))] = 0.2  # the rim of the first: at least 1/2.5 of its peak is .36, so outside
    p[cube((3, 4))] = 0.4
    p[4, 4, 4] = 0.9
    p[cube((12, 3))] = 0.3  # unsure, and below one half
    p[cube((20, 2))] = 0.04  # nothing
    places, scores = candidates(p)
    assert scores == pytest.approx([0.9, 0.3])
    assert np.array_equal(places == 1, cube((3, 4)))
    assert np.array_equal(places == 2, cube((12, 3)))
    assert candidates(p, smallest=30)[1] == pytest.approx([0.9])


def test_two_peaks_of_one_region_are_two_candidates_where_a_valley_parts_them() -> None:
    p = np.zeros((30, 5, 5))
    p[2:28, 1:4, 1:4] = 0.1
    p[4:8, 1:4, 1:4], p[20:24, 1:4, 1:4] = 0.9, 0.8
    places, scores = candidates(p)
    assert scores == pytest.approx([0.9, 0.8])
    assert (places == 2)[20:24, 1:4, 1:4].all()


def test_the_surest_candidates_are_kept_when_there_are_too_many() -> None:
    p = np.zeros((60, 3, 3))
    p[::2] = np.linspace(0.1, 0.9, 30)[:, None, None]
    scores = candidates(p)[1]
    assert len(scores) == 20
    assert scores.min() > 0.35


def test_figures_are_pooled_over_lesions() -> None:
    true = cube((0, 4), (10, 4))
    found = {"nodule": [score("a", cube((0, 4)), true), score("b", cube((18, 4)), cube((10, 4)))]}
    told = lesion_figures(found)
    assert told["lesion_recall"].value == pytest.approx(1 / 3)
    assert told["lesion_precision"].value == pytest.approx(1 / 2)
    assert told["lesion_recall.nodule"] == told["lesion_recall"]
    assert told["sensitivity_at_1_fp"].value == pytest.approx(1 / 3)
    assert told["lesion_recall"].low == 0.0
    assert list(lesion_curves(found)) == ["nodule"]


def test_several_labels_are_told_together_and_apart() -> None:
    one, other = cube((0, 4)), cube((10, 4))
    found = {
        "a": [score("p", one, one), score("q", cube(), one)],
        "b": [lesion_score("s-p", "p", one, other, 0.5 * one)],
    }
    told = lesion_figures(found)
    assert told["lesion_recall"].value == pytest.approx(1 / 3)
    assert told["lesion_recall.a"].value == pytest.approx(1 / 2)
    assert told["lesion_recall.b"].value == 0.0
    # what is drawn where the other label's lesion lies finds nothing
    assert told["lesion_precision.b"].value == 0.0
    assert told["sensitivity_at_1/4_fp"].value == pytest.approx(1 / 3)


def test_without_lesions_there_are_no_figures_and_no_section() -> None:
    empty = {"nodule": [score("a", cube(), cube())]}
    assert lesion_figures(empty) == {}
    assert lesion_section(empty, {}) == ""
    assert lesion_figures({}) == {}


def test_the_section_shows_figures_and_the_curve() -> None:
    found = {"<i>": [score("a", cube((0, 4)), cube((0, 4), (10, 4))), score("b", cube(), cube((3, 3)))]}
    text = lesion_section(found, lesion_figures(found))
    assert "3 lesions" in text
    assert "<td>lesion_recall</td>" in text
    assert 'src="data:image/png;base64,' in text
    assert "<i>" not in text
    assert curves_json(found)["<i>"]["sensitivity"] == pytest.approx([1 / 3])


def test_counts_of_a_study_are_columns() -> None:
    counts = lesion_counts({"nodule": score("a", cube((0, 4)), cube((0, 4), (10, 4)))})
    assert counts == {
        "lesions_true.nodule": 2,
        "lesions_found.nodule": 1,
        "lesions_drawn.nodule": 1,
        "lesions_confirmed.nodule": 1,
    }


def test_other_grids_are_refused() -> None:
    with pytest.raises(BadInput, match="do not fit"):
        lesion_score("s", "p", cube(), cube()[1:], cube().astype(float))


def test_a_lesion_of_exactly_the_smallest_volume_counts_whatever_a_file_rounds():
    rounded = [float(np.float32(0.7)), float(np.float32(0.7)), 1.0]
    assert [fewest_voxels(volume, rounded) for volume in (0.0, 0.3, 4.9, 5.0)] == [1, 1, 10, 11]
