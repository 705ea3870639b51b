"""Temperature scaling: found again, never harmful, and left alone where too little is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radloop.evaluation.calibration import HIGHEST, fit_temperature
from radloop.evaluation.class_answers import probabilities
from radloop.evaluation.classification import figures
from radloop.recipes.errors import BadInput

KINDS = ("classification", "multilabel", "ordinal")
NAN = math.nan


def studies(kind: str, n: int, seed: int, labels: int = 4) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits that are right, truth drawn from them, and patients of two studies each."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, labels)) * 2
    if kind == "ordinal":
        logits = rng.normal(size=(n, 1)) * 2 + np.linspace(1.5, -1.5, labels - 1)
    p = probabilities(logits, kind)
    y = (rng.random(p.shape) < p).astype(float)
    if kind != "multilabel":
        y = np.eye(labels)[[rng.choice(labels, p=row) for row in p]]
    return logits, y, [f"p{i // 2}" for i in range(n)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_logits_that_are_too_large_are_brought_back(kind: str, true: float) -> None:
    logits, y, patients = studies(kind, 3000, 0)
    found = fit_temperature(logits * true, y, patients, kind=kind)
    assert found.value == pytest.approx(true, rel=0.1)
    assert (found.patients, found.reason) == (1500, "")
    assert found.after < found.before or true == 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.integers(1, 60), st.floats(-3, 3), st.floats(0, 0.6))
def test_the_log_loss_never_grows_on_what_it_was_fitted_on(
    seed: int, kind: str, n: int, size: float, unknown: float
) -> None:
    logits, y, patients = studies(kind, n, seed)
    rng = np.random.default_rng(seed)
    if kind == "multilabel":
        y[rng.random(y.shape) < unknown] = NAN
    else:
        y[rng.random(n) < unknown] = NAN
    logits = logits[rng.permutation(n)] * 10**size if seed % 2 else logits * 10**size
    found = fit_temperature(logits, y, patients, kind=kind)
    if found.before is None:
        assert np.isnan(y).all()
        return

    def loss(temperature: float) -> float:
        p = probabilities(logits, kind, temperature)
        if kind != "multilabel":
            return figures(p, y, kind=kind)["log_loss"]
        eps = np.finfo(float).eps
        return float(np.nanmean(-np.log(np.where(y == 1, p.clip(eps), (1 - p).clip(eps))) + 0 * y))

    assert loss(1.0) == pytest.approx(found.before, abs=1e-9)
    assert loss(found.value) == pytest.approx(found.after, abs=1e-9)
    assert found.after <= found.before
    if not found.reason and found.value < HIGHEST / 1.1:  # a valley: nothing near is better
        assert min(loss(found.value * 1.05), loss(found.value / 1.05)) >= found.after - 1e-9
    if found.reason:
        assert found.value == 1


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_patients_leave_probabilities_alone(kind: str) -> None:
    logits, y, patients = studies(kind, 18, 1)
    few = fit_temperature(logits * 5, y, patients, kind=kind)
    assert (few.value, few.patients) == (1.0, 9)
    assert few.before == few.after
    assert "9 validation patients, and fewer than 10" in few.reason
    assert fit_temperature(logits * 5, y, [*patients[:-1], "another"], kind=kind).reason == ""


def test_one_answer_only_says_nothing() -> None:
    logits, _, patients = studies("classification", 40, 2)
    found = fit_temperature(logits, np.eye(4)[[2] * 40], patients, kind="classification")
    assert (found.value, "same answer" in found.reason) == (1.0, True)
    present = np.column_stack([np.ones(40), np.zeros(40), np.full((40, 2), NAN)])
    assert "same answer" in fit_temperature(logits, present, patients, kind="multilabel").reason


def test_no_truth_says_nothing() -> None:
    logits, y, patients = studies("ordinal", 40, 2)
    found = fit_temperature(logits, y * NAN, patients, kind="ordinal")
    assert (found.value, found.patients, found.before, found.after) == (1.0, 0, None, None)
    assert found.reason


def test_without_a_mistake_nothing_is_made_surer() -> None:
    _, y, patients = studies("classification", 40, 3)
    for size, reason in ((1.0, "without a mistake"), (100.0, "no other temperature"), (0.0, "no other temperature")):
        found = fit_temperature(y * size, y, patients, kind="classification")
        assert (found.value, found.before) == (1.0, found.after)
        assert reason in found.reason


def test_answers_and_order_stay() -> None:
    logits, y, patients = studies("classification", 60, 4)
    found = fit_temperature(logits * 4, y, patients, kind="classification")
    before, after = (probabilities(logits * 4, "classification", t) for t in (1.0, found.value))
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    assert found.as_dict()["value"] == found.value > 1


def test_what_is_not_finite_is_refused() -> None:
    logits, y, patients = studies("classification", 20, 5)
    logits[3, 0] = NAN
    with pytest.raises(BadInput, match="row 3"):
        fit_temperature(logits, y, patients, kind="classification")
