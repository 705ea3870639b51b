"""Running accuracy: kinds of reading apart, the newest patients only, and an alarm that is seldom false."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from radloop.evaluation.drift import ALARM, NEWEST, Judged, drifted, running_accuracy

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def judged(values: list[float], first_row: int, *, blind: bool = True, prefix: str = "p") -> list[Judged]:
    return [
        Judged(f"s{first_row + n}", f"{prefix}{first_row + n}", first_row + n, blind, v) for n, v in enumerate(values)
    ]


@given(SCORES, SCORES)
def test_means_of_before_and_since(before: list[float], since: list[float]) -> None:
    found = running_accuracy([*judged(before, 1), *judged(since, 101)], 100, 0.02)
    assert found.keys() == {"blind"}
    assert found["blind"].patients == (len(before), len(since))
    assert found["blind"].before.value == pytest.approx(np.mean(before))
    assert found["blind"].since.value == pytest.approx(np.mean(since))
    assert found["blind"].fall == pytest.approx(np.mean(before) - np.mean(since))


@given(st.lists(st.floats(0, 1), min_size=6, max_size=20), st.lists(st.floats(0, 1), min_size=6, max_size=20))
def test_the_alarm_is_welch_s_test_and_the_margin(before: list[float], since: list[float]) -> None:
    fall = np.mean(before) - np.mean(since)
    p = ttest_ind(before, since, equal_var=False, alternative="greater").pvalue if np.ptp([*before, *since]) else 1.0
    if np.isfinite(p) and abs(p - ALARM) > 1e-9 and abs(fall - 0.02) > 1e-9:
        assert drifted(before, since, 0.02) == bool(fall >= 0.02 and p < ALARM)


def test_blind_and_anchored_labels_are_not_mixed() -> None:
    told = [*judged([0.9] * 8, 1), *judged([0.5] * 8, 101, blind=False)]
    found = running_accuracy(told, 100, 0.02)
    assert found["blind"].patients == (8, 0)
    assert found["anchored"].patients == (0, 8)
    assert not any(of.drift for of in found.values())


def test_a_late_fall_is_not_averaged_away() -> None:
    values = np.random.default_rng(0).normal(0.85, 0.03, 200).tolist()
    told = [*judged(values[:20], 1), *judged(values[20:], 101)]
    assert not running_accuracy(told, 100, 0.02)["blind"].drift
    told += judged([v - 0.2 for v in values[:NEWEST]], 401)
    found = running_accuracy(told, 100, 0.02)["blind"]
    assert found.patients == (20, NEWEST)
    assert found.drift
    assert "since" in found.told("blind", "Dice")


def test_a_patient_counts_once_and_a_label_that_does_not_speak_not_at_all() -> None:
    told = [Judged("a", "p", 1, True, 0.9), Judged("b", "p", 101, True, 0.5), Judged("c", "p", 102, True, 0.7)]
    told.append(Judged("d", "q", 103, True, None))
    found = running_accuracy(told, 100, 0.02)["blind"]
    assert found.patients == (0, 1)
    assert found.since.value == pytest.approx(0.6)


def test_few_false_alarms_although_every_label_is_a_look() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(100):
        before, since = rng.normal(0.85, 0.05, 20), rng.normal(0.85, 0.05, 40)
        false += any(drifted(list(before), list(since[max(0, n - NEWEST) : n]), 0.02) for n in range(6, 41))
    assert false <= 10
