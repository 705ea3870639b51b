"""Reliability: bins, calibration error, its limit, slope and intercept, against second implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from radloop.evaluation.class_answers import draw_patients, probabilities
from radloop.evaluation.classification import figures
from radloop.evaluation.reliability import perfect_ece, recalibration, reliability

NAN = math.nan


def two(n: int, seed: int, too_sure: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n) * 1.5
    y = rng.random(n) < 1 / (1 + np.exp(-logits))
    chance = 1 / (1 + np.exp(-(logits * too_sure + shift)))
    return np.stack([1 - chance, chance], axis=1), np.eye(2)[y.astype(int)], [str(i) for i in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 90), st.sampled_from([1, 8]))
def test_the_error_is_that_of_the_points(seed: int, n: int, digits: int) -> None:
    p, y, _ = two(n, seed)
    p[:, 1] = p[:, 1].round(digits)
    p[:, 0] = 1 - p[:, 1]
    found = reliability(p, y, kind="classification", labels=("no", "yes"))
    (points,) = found.values()
    assert list(found) == ["yes"]
    assert sum(point.studies for point in points) == n
    assert len(points) <= 10
    error = sum(point.studies / n * abs(point.observed - point.predicted) for point in points)
    assert figures(p, y, kind="classification")["ece"] == pytest.approx(error)
    predicted = [point.predicted for point in points]
    assert predicted == sorted(predicted)
    mixed = np.random.default_rng(seed).permutation(n)
    again = reliability(p[mixed], y[mixed], kind="classification", labels=("no", "yes"))["yes"]
    assert [point.studies for point in again] == [point.studies for point in points]
    assert np.allclose(again, points)


def test_bins_hold_equally_many_and_equals_stay_together() -> None:
    p, y, _ = two(103, 0)
    counts = [point.studies for point in reliability(p, y, kind="classification")["2"]]
    assert len(counts) == 10
    assert max(counts) - min(counts) <= 1
    constant = reliability(np.full((40, 2), 0.5), y[:40], kind="classification")["2"]
    assert [(point.predicted, point.studies) for point in constant] == [(0.5, 40)]
    assert len(reliability(p[:14], y[:14], kind="classification")["2"]) == 2


def test_of_more_labels_the_answer_given_is_looked_at() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    y = np.eye(3)[[0, 1]]
    (point,) = reliability(p, y, kind="classification")["most probable"]
    assert point == pytest.approx((0.6, 0.5, 2))
    assert figures(p, y, kind="classification")["ece"] == pytest.approx(0.1)


def test_of_findings_each_is_a_curve_of_what_was_looked_at() -> None:
    p = np.array([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]])
    found = reliability(p, np.array([[0, NAN, NAN], [0, 1, NAN]]), kind="multilabel", labels="abc")
    assert found == {"a": [(0.5, 0.0, 2)], "b": [(0.5, 1.0, 1)], "c": []}
    assert figures(p, np.array([[0, NAN, NAN], [0, 1, NAN]]), kind="multilabel")["ece"] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "ordinal"])
def test_a_perfect_model_stays_under_its_limit_as_often_as_it_says(kind: str) -> None:
    rng = np.random.default_rng(0)
    under = 0
    for trial in range(200):
        p = probabilities(rng.normal(size=(50, 3)) * 2 - 0.5, kind)
        y = (rng.random(p.shape) < p).astype(float)
        if kind != "multilabel":
            y = np.eye(p.shape[1])[[rng.choice(p.shape[1], p=row) for row in p]]
        limit = perfect_ece(p, y, kind=kind, draws=200, seed=trial)
        under += figures(p, y, kind=kind)["ece"] <= limit
    assert 0.9 <= under / 200 <= 0.99


def test_the_limit_falls_with_more_studies_and_follows_the_seed() -> None:
    few, many = (perfect_ece(*two(n, 1)[:2], kind="classification") for n in (30, 3000))
    assert few > 2 * many
    p, y, _ = two(30, 1)
    assert perfect_ece(p, y, kind="classification", seed=7) == perfect_ece(p, y, kind="classification", seed=7)
    assert perfect_ece(p, y, kind="classification", seed=7) != perfect_ece(p, y, kind="classification", seed=8)
    assert perfect_ece(p, y * NAN, kind="classification") is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(30, 200), st.floats(0.3, 3), st.floats(-1, 1))
def test_slope_and_intercept_are_those_of_logistic_regression(seed: int, n: int, sure: float, shift: float) -> None:
    p, y, patients = two(n, seed, sure, shift)
    found = recalibration(p, y, patients, kind="classification", resamples=20)
    logit = np.log(p[:, 1] / p[:, 0])
    plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(logit[:, None], y[:, 1])
    assert found.slope.value == pytest.approx(plain.coef_[0, 0], rel=1e-3)

    def loss(a: np.ndarray) -> float:
        return float(np.logaddexp(0, -(2 * y[:, 1] - 1) * (a[0] + logit)).sum())

    assert found.intercept.value == pytest.approx(minimize(loss, [0.0], tol=1e-10).x[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "ordinal"])
def test_probabilities_that_are_right_have_slope_one(kind: str) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4000, 3)) * 1.5
    logits = -np.sort(-logits, axis=1) if kind == "ordinal" else logits
    p = probabilities(logits, kind)
    y = (rng.random(p.shape) < p).astype(float)
    if kind != "multilabel":
        y = np.eye(p.shape[1])[[rng.choice(p.shape[1], p=row) for row in p]]
    patients = [str(i) for i in range(4000)]
    right = recalibration(p, y, patients, kind=kind, resamples=100)
    assert right.slope.low <= 1 <= right.slope.high
    assert (right.intercept is None) == (kind == "classification")
    if right.intercept:
        assert right.intercept.low <= 0 <= right.intercept.high
    sure = recalibration(probabilities(logits * 2, kind), y, patients, kind=kind, resamples=100)
    assert sure.slope.value == pytest.approx(0.5, abs=0.08)


def slope(p: np.ndarray, event: np.ndarray) -> float:
    logit = np.log(p / (1 - p))[:, None]
    return LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(logit, event).coef_[0, 0]


def test_of_grades_the_events_are_above_each_grade() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet((4, 2, 1, 1), 100)
    truth = np.array([rng.choice(4, p=row) for row in p])
    above = np.concatenate([p[:, k:].sum(axis=1) for k in (1, 2, 3)])
    event = np.concatenate([truth >= k for k in (1, 2, 3)])
    found = recalibration(p, np.eye(4)[truth], [str(i) for i in range(100)], kind="ordinal", resamples=10)
    assert found.slope.value == pytest.approx(slope(above, event), rel=1e-3)


def test_the_interval_of_the_slope_is_that_of_the_drawn_studies() -> None:
    p, y, _ = two(60, 4)
    patients = [f"p{i // 2}" for i in range(60)]
    found = recalibration(p, y, patients, kind="classification", resamples=40, seed=3).slope
    weights = np.concatenate(list(draw_patients(patients, resamples=40, seed=3))).astype(int)
    drawn = [slope(np.repeat(p[:, 1], w), np.repeat(y[:, 1], w)) for w in weights]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), rel=1e-3)


def test_probabilities_that_are_too_high_have_an_intercept_under_zero() -> None:
    p, y, patients = two(1000, 0, shift=1.0)
    found = recalibration(p, y, patients, kind="classification", resamples=100)
    assert found.intercept.high < 0
    assert found.intercept.value == pytest.approx(-1, abs=0.2)


def test_the_interval_of_the_slope_is_over_patients() -> None:
    p, y, patients = two(80, 2)
    once = recalibration(p, y, patients, kind="classification", resamples=200).slope
    thrice = recalibration(
        np.repeat(p, 3, 0), np.repeat(y, 3, 0), list(np.repeat(patients, 3)), kind="classification", resamples=200
    ).slope
    assert vars(thrice) == pytest.approx(vars(once))


def test_no_overlap_has_no_slope_and_one_patient_no_interval() -> None:
    p, y, _ = two(20, 0)
    apart = np.where(y == 1, 0.9, 0.1)
    apart[:10] = np.where(y[:10] == 1, 0.8, 0.2)
    found = recalibration(apart, y, [str(i) for i in range(20)], kind="classification")
    assert found.slope is None
    same = recalibration(np.full_like(p, 0.5), y, [str(i) for i in range(20)], kind="classification")
    assert same.slope is None
    share = y[:, 1].mean()
    assert same.intercept.value == pytest.approx(math.log(share / (1 - share)))
    one = recalibration(p, y, ["a"] * 20, kind="classification")
    assert (one.slope.low, one.slope.high) == (None, None)
    nothing = recalibration(p, y * NAN, ["a"] * 20, kind="classification")
    assert (nothing.slope, nothing.intercept) == (None, None)
