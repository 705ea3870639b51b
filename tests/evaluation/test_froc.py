"""FROC and average precision against counts made by hand, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from radloop.evaluation.froc import RATES, Candidates, curve, detection_figures
from radloop.recipes.errors import BadInput


def study(name: str, scores: list[float], overlaps: list[list[float]], truths: int | None = None) -> Candidates:
    count = truths if truths is not None else len(overlaps[0])
    return Candidates(name, name, np.array(scores), np.array(overlaps, dtype=float).reshape(len(scores), count))


TWO = [
    study("a", [0.9, 0.8, 0.3], [[0.6, 0.0], [0.0, 0.0], [0.0, 0.2]]),
    study("b", [0.7, 0.2], [[0.0], [0.55]]),
]


def test_the_curve_counts_what_is_found_and_what_is_false() -> None:
    found = curve(TWO)
    assert found is not None
    assert found.rate.tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert found.sensitivity == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 1.0])


def test_the_figures_are_read_from_the_curve() -> None:
    told = detection_figures(TWO)
    assert list(told) == [
        "froc",
        "sensitivity_at_1/8_fp",
        "sensitivity_at_1/4_fp",
        "sensitivity_at_1/2_fp",
        "sensitivity_at_1_fp",
        "sensitivity_at_2_fp",
        "sensitivity_at_4_fp",
        "sensitivity_at_8_fp",
        "ap50",
    ]
    assert told["sensitivity_at_1/8_fp"].value == pytest.approx(1 / 3)
    assert told["sensitivity_at_1_fp"].value == pytest.approx(1.0)
    assert told["froc"].value == pytest.approx((3 / 3 + 4) / len(RATES))
    # at IoU .5 two are found: as the first of one, and as the second of five
    assert told["ap50"].value == pytest.approx((1 / 1 + 2 / 5) / 3)
    for of in told.values():
        assert of.low is not None
        assert of.low <= of.value <= of.high


def test_a_second_candidate_of_a_lesion_is_no_false_positive_of_the_curve_but_one_of_precision() -> None:
    twice = [study("a", [0.9, 0.8, 0.7], [[0.6, 0.0], [0.7, 0.0], [0.0, 0.9]])]
    found = curve(twice)
    assert found is not None
    assert found.rate.tolist() == [0, 0, 0]
    assert found.sensitivity.tolist() == [0.5, 0.5, 1.0]
    assert detection_figures(twice)["ap50"].value == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_are_taken_together() -> None:
    ties = [study("a", [0.5, 0.5], [[0.0], [0.9]]), study("b", [0.5], [[0.0]])]
    found = curve(ties)
    assert found is not None
    assert (found.rate.tolist(), found.sensitivity.tolist()) == ([1.0], [0.5])
    assert detection_figures(ties)["sensitivity_at_1/2_fp"].value == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_precision_agrees_with_a_second_implementation_where_precision_never_rises(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(200) / 200
    hit = rng.random(200) < scores
    studies = [study(str(n), [s], [[float(h)]], 1) for n, (s, h) in enumerate(zip(scores, hit, strict=True)) if h]
    studies += [study(f"n{n}", [s], [], 0) for n, (s, h) in enumerate(zip(scores, hit, strict=True)) if not h]
    mine = detection_figures(studies, resamples=10)["ap50"].value
    assert mine >= average_precision_score(hit, scores) - 1e-12
    found, false, best, area = 0, 0, [], 0.0
    for h in hit[np.argsort(-scores)]:
        found, false = found + h, false + (not h)
        best.append((found, found / (found + false)))
    for rank in range(1, found + 1):
        area += max(precision for count, precision in best if count >= rank) / found
    assert mine == pytest.approx(area)


def test_patients_are_drawn_not_studies() -> None:
    def of(patients: list[str]) -> float:
        cases = [Candidates(f"s{i}", p, np.array([1.0]), np.array([[float(i < 12)]])) for i, p in enumerate(patients)]
        told = detection_figures(cases)["sensitivity_at_1_fp"]
        assert told.low is not None
        return told.high - told.low

    many = of([f"p{i}" for i in range(24)])
    # each patient has studies of one outcome only, six patients in all
    few = of([f"p{i // 4}" for i in range(24)])
    assert few > 1.5 * many


def test_nothing_to_find_and_one_patient() -> None:
    assert detection_figures([study("a", [0.9], [], 0)]) == {}
    assert curve([study("a", [0.9], [], 0)]) is None
    assert curve([]) is None
    alone = detection_figures([study("a", [], [], 2)])
    assert (alone["froc"].value, alone["ap50"].value, alone["froc"].low) == (0.0, 0.0, None)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(BadInput, match=r"s7.*2 scores, overlaps of shape \(1, 1\)"):
        Candidates("s7", "p", np.array([0.1, 0.2]), np.array([[1.0]]))
