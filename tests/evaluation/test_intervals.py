from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from radloop.evaluation.intervals import bootstrap_mean, paired_differences, paired_lower_bound
from radloop.recipes.errors import BadInput


def test_the_bound_is_students() -> None:
    differences = [0.03, -0.01, 0.02, 0.00, 0.05, -0.02, 0.01]
    expected = stats.ttest_1samp(differences, 0.0, alternative="greater").confidence_interval(0.95).low
    assert paired_lower_bound(differences) == pytest.approx(expected)


def test_the_bound_holds_in_95_of_100_experiments() -> None:
    rng = np.random.default_rng(0)
    held = np.mean([paired_lower_bound(rng.normal(0.01, 0.05, 8)) <= 0.01 for _ in range(1500)])
    assert 0.93 <= held <= 0.97


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        interval = bootstrap_mean(
            {str(i): v for i, v in enumerate(rng.normal(0.8, 0.1, 30))}, resamples=500, seed=trial
        )
        covered += interval.low <= 0.8 <= interval.high
    assert 0.88 <= covered / 200 <= 0.98


def test_patients_are_drawn_not_studies() -> None:
    few = bootstrap_mean({"a": 0.25, "b": 0.75, "c": 0.5})
    many = bootstrap_mean({"a": [0.25] * 50, "b": [0.75] * 50, "c": [0.5] * 50})
    assert few == many


def test_the_seed_decides() -> None:
    values = {str(i): i / 10 for i in range(10)}
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(dict(reversed(values.items())), seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_one_patient_has_no_interval() -> None:
    interval = bootstrap_mean({"a": 0.7})
    assert (interval.value, interval.low, interval.high) == (0.7, None, None)
    assert "no interval" in str(interval)


def test_equal_scores_have_an_interval_of_no_width() -> None:
    interval = bootstrap_mean({str(i): 0.1 for i in range(7)})
    assert interval.low == pytest.approx(0.1)
    assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize("values", [{}, {"a": float("nan")}, {"a": []}, {"a": [0.1, float("inf")]}])
def test_what_is_not_a_number_is_refused(values: dict) -> None:
    with pytest.raises(BadInput):
        bootstrap_mean(values)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, float("nan")]])
def test_a_bound_needs_two_numbers(differences: list) -> None:
    with pytest.raises(BadInput):
        paired_lower_bound(differences)


def test_pairs_are_those_who_have_both() -> None:
    assert paired_differences({"a": 1.0, "b": 0.5, "c": 0.1}, {"b": 0.25, "a": 0.5, "d": 0.0}) == {"a": 0.5, "b": 0.25}
