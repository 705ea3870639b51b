from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from radloop.evaluation.gate_rule import Decision, judge

MARGIN = 0.02


def patients(*scores: float) -> dict[str, float]:
    return {f"p{i}": score for i, score in enumerate(scores)}


def against(differences: list[float], **more) -> Decision:
    """Judge a challenger whose differences to a champion at 0.5 are these."""
    return judge(patients(*(0.5 + d for d in differences)), patients(*[0.5] * len(differences)), None, MARGIN, **more)


@settings(deadline=None)
@given(st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=20))
def test_from_six_patients_students_bound_decides(differences: list[float]) -> None:
    exact = [round(0.5 + d, 6) - 0.5 for d in differences]
    if max(exact) == min(exact):
        lower = exact[0]
    else:
        lower = stats.ttest_1samp(exact, 0.0, alternative="greater").confidence_interval(0.95).low
    decision = judge(
        patients(*(round(0.5 + d, 6) for d in differences)), patients(*[0.5] * len(differences)), None, MARGIN
    )
    assert not decision.provisional
    assert decision.needed == 0
    assert decision.lower == pytest.approx(lower, abs=1e-9)
    if abs(lower + MARGIN) > 1e-8:
        assert decision.serves is bool(lower > -MARGIN)


@settings(deadline=None)
@given(st.lists(st.floats(-0.4, 0.4), min_size=1, max_size=5))
def test_under_six_the_mean_and_the_worst_patient_decide(differences: list[float]) -> None:
    decision = against(differences)
    assert decision.provisional
    assert decision.lower is None
    assert decision.needed == 6 - len(differences)
    mean, worst = np.mean(differences), min(differences)
    if abs(mean + MARGIN) > 1e-8 and abs(worst + 5 * MARGIN) > 1e-8:
        assert decision.serves is bool(mean >= -MARGIN and worst >= -5 * MARGIN)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_same_model_again_always_serves(scores: list[float]) -> None:
    assert judge(patients(*scores), patients(*scores), None, MARGIN).serves


def test_a_loss_of_exactly_the_margin() -> None:
    # 0.80 - 0.82 is -0.019999... in floating point; that must not decide.
    assert not judge(patients(*[0.80] * 8), patients(*[0.82] * 8), None, MARGIN).serves
    assert judge(patients(*[0.80] * 4), patients(*[0.82] * 4), None, MARGIN).serves


def test_a_clear_loss_is_rejected_with_its_numbers() -> None:
    decision = against([-0.10, -0.12, -0.08, -0.11, -0.09, -0.10])
    assert not decision.serves
    assert decision.difference == pytest.approx(-0.10)
    for part in ("rejected", "6 held-out patients", "0.400", "0.500", "-0.100", "-0.020", "not above"):
        assert part in decision.reason


def test_doubt_is_not_enough_to_serve() -> None:
    decision = against([0.30, -0.25, 0.28, -0.24, 0.05, -0.10])
    assert decision.difference > 0
    assert not decision.serves


def test_uneven_gains_are_explained() -> None:
    decision = against([0.9, 0, 0, 0, 0, 0])
    assert not decision.serves
    assert "no patient fell by more than the margin" in decision.reason


def test_one_patient_who_falls_far_stops_a_provisional_version() -> None:
    decision = against([0.2, 0.2, 0.2, -0.15])
    assert not decision.serves
    assert "one patient fell by 0.150" in decision.reason
    assert "2 more held-out labels" in decision.reason
    assert against([0.2, 0.2, 0.2, -0.09]).serves


def test_only_patients_with_both_scores_count() -> None:
    decision = judge(patients(*[0.9] * 9), {"p1": 0.9, "p2": 0.9, "x": 0.0}, None, MARGIN)
    assert decision.n == 2
    assert decision.needed == 4
    assert decision.provisional


def test_a_first_model_without_held_out_labels_serves_provisionally() -> None:
    for scores, baseline in (({}, {}), ({}, None)):
        decision = judge(scores, None, baseline, MARGIN)
        assert decision.serves
        assert decision.provisional
        assert decision.needed == 6
        assert "nothing to judge it by" in decision.reason


def test_without_held_out_labels_a_champion_stays() -> None:
    decision = judge({}, {}, None, MARGIN)
    assert not decision.serves
    assert decision.held
    assert decision.needed == 6
    assert "held for a person" in decision.reason
    assert "6 a full one" in decision.reason


@pytest.mark.parametrize(
    ("scores", "baseline", "serves", "provisional"),
    [
        ([0.5] * 8, [0.1] * 8, True, False),
        ([0.1] * 8, [0.1] * 8, False, False),
        ([0.9, 0.0, 0.9, 0.0, 0.9, 0.0], [0.4] * 6, False, False),  # better on average, but that may be chance
        ([0.9, 0.0, 0.9], [0.4] * 3, True, True),
        ([0.1, 0.1], [0.1, 0.1], False, True),
        ([0.0], [0.2], False, True),
    ],
)
def test_a_first_model_must_beat_the_baseline(
    scores: list[float], baseline: list[float], serves: bool, provisional: bool
) -> None:
    decision = judge(patients(*scores), None, patients(*baseline), MARGIN)
    assert decision.serves is serves
    assert decision.provisional is provisional
    assert "baseline" in decision.reason
    assert decision.needed == max(0, 6 - len(scores))


def test_a_first_model_with_scores_but_no_baseline_is_not_waved_through() -> None:
    decision = judge(patients(0.9, 0.9), None, None, MARGIN)
    assert not decision.serves
    assert "baseline" in decision.reason


def test_no_single_label_may_get_worse() -> None:
    new = {"liver": patients(*[0.95] * 8), "tumour": patients(*[0.30] * 8)}
    old = {"liver": patients(*[0.80] * 8), "tumour": patients(*[0.40] * 8)}
    decision = against([0.025] * 8, challenger_labels=new, champion_labels=old)
    assert not decision.serves
    assert "'tumour' fell by 0.100" in decision.reason
    assert against([0.025] * 8, challenger_labels=old, champion_labels=old).serves
    # A label that nobody could be compared on decides nothing.
    assert against([0.025] * 8, challenger_labels={"liver": {}}, champion_labels=old).serves


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["challenger", "champion", "first", "baseline", "label"])
def test_what_is_not_a_number_never_serves(bad: float, where: str) -> None:
    fine, broken = patients(*[0.5] * 7), patients(*[0.5] * 6, bad)
    decision = {
        "challenger": lambda: judge(broken, fine, None, MARGIN),
        "champion": lambda: judge(fine, broken, None, MARGIN),
        "first": lambda: judge(broken, None, fine, MARGIN),
        "baseline": lambda: judge(fine, None, broken, MARGIN),
        "label": lambda: judge(
            fine, fine, None, MARGIN, challenger_labels={"liver": broken}, champion_labels={"liver": fine}
        ),
    }[where]()
    assert not decision.serves
    assert "one patient" in decision.reason
    assert "not a finite number" in decision.reason


def test_a_decision_fits_a_manifest() -> None:
    decision = against([0.01] * 7)
    again = json.loads(json.dumps(decision.as_dict(), allow_nan=False))
    assert Decision(**again) == decision


def test_a_worse_model_rarely_passes() -> None:
    """A model truly worse by the margin passes in about 5 % of trainings, one that is equal mostly."""
    rng = np.random.default_rng(0)
    for loss, low, high in ((MARGIN, 0.02, 0.09), (0.0, 0.7, 1.0)):
        passed = np.mean([against(list(rng.normal(-loss, 0.025, 12))).serves for _ in range(600)])
        assert low <= passed <= high
