"""Figures of answers about a whole study, against scikit-learn and against second implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from radloop.evaluation.class_answers import answered, draw_patients, probabilities
from radloop.evaluation.classification import compare, confusion, figures, measure, roc_curves
from radloop.evaluation.intervals import bootstrap_mean
from radloop.recipes.errors import BadInput

some_studies = given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 5), st.sampled_from([1, 2, 8]))
quick = settings(max_examples=30, deadline=None)
NAN = math.nan


def exclusive(seed: int, n: int, labels: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties where they have few digits, and truth that follows them; some labels are absent."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(labels), n).round(digits)
    p[:, -1] = np.clip(1 - p[:, :-1].sum(axis=1), 0, 1).round(digits)
    p /= p.sum(axis=1, keepdims=True)
    places = [rng.choice(labels, p=(row + 0.1) / (row + 0.1).sum()) for row in p]
    return p, np.eye(labels)[places]


def several(seed: int, n: int, labels: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.random((n, labels)).round(digits)
    y = (rng.random((n, labels)) < 0.2 + 0.6 * p).astype(float)
    y[rng.random((n, labels)) < 0.3] = np.nan
    return p, y


def same(found: float | None, expected: float) -> bool:
    return found is not None and math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)


@quick
@some_studies
def test_classes_are_measured_as_by_scikit_learn(seed: int, n: int, labels: int, digits: int) -> None:
    p, y = exclusive(seed, n, labels, digits)
    truth, said = y.argmax(axis=1), p.argmax(axis=1)
    found = figures(p, y, kind="classification")
    there = sorted(set(truth))
    assert same(found["accuracy"], sk.accuracy_score(truth, said))
    assert same(found["log_loss"], sk.log_loss(truth, p, labels=range(labels)))
    kept = {"labels": there, "average": "macro", "zero_division": 0}
    assert same(found["recall"], sk.recall_score(truth, said, **kept))
    assert same(found["precision"], sk.precision_score(truth, said, **kept))
    assert same(found["f1"], sk.f1_score(truth, said, **kept))
    assert found["balanced_accuracy"] == found["recall"]
    assert (confusion(p, y, kind="classification") == sk.confusion_matrix(truth, said, labels=range(labels))).all()
    if labels == 2 and len(there) == 2:
        assert same(found["balanced_accuracy"], sk.balanced_accuracy_score(truth, said))
        assert same(found["brier"], sk.brier_score_loss(truth, p[:, 1]))
        assert same(found["roc_auc"], sk.roc_auc_score(truth, p[:, 1]))
    if len(there) == labels > 2:
        assert same(found["roc_auc"], sk.roc_auc_score(truth, p, multi_class="ovr", average="macro"))
        assert same(found["average_precision"], sk.average_precision_score(y, p, average="macro"))


@quick
@some_studies
def test_each_label_is_measured_against_the_others(seed: int, n: int, labels: int, digits: int) -> None:
    p, y = exclusive(seed, n, labels, digits)
    found = figures(p, y, kind="classification", labels=[f"l{k}" for k in range(labels)])
    for k in range(labels):
        truth, said = y[:, k], (p.argmax(axis=1) == k).astype(float)
        alone(found, f"l{k}", p[:, k], truth, said)


@quick
@some_studies
def test_findings_are_measured_where_they_were_looked_at(seed: int, n: int, labels: int, digits: int) -> None:
    p, y = several(seed, n, labels, digits)
    names = [f"l{k}" for k in range(labels)]
    found = figures(p, y, kind="multilabel", labels=names)
    for k, name in enumerate(names):
        known = ~np.isnan(y[:, k])
        truth, chance = y[known, k], p[known, k]
        if not known.any():
            assert {value for key, value in found.items() if key.endswith(f".{name}")} == {None}
            continue
        said = (chance >= 0.5).astype(float)
        alone(found, name, chance, truth, said)
        assert same(found[f"accuracy.{name}"], sk.accuracy_score(truth, said))
        assert same(found[f"brier.{name}"], float(np.mean((chance - truth) ** 2)))
        assert same(found[f"log_loss.{name}"], sk.log_loss(truth, chance, labels=[0, 1]))
        if 0 < truth.mean() < 1:
            assert same(found[f"balanced_accuracy.{name}"], sk.balanced_accuracy_score(truth, said))
        table = confusion(p, y, kind="multilabel")[k]
        assert (table == sk.confusion_matrix(truth, said, labels=[0, 1])).all()
    for metric in ("roc_auc", "f1", "brier", "ece"):
        parts = [found[f"{metric}.{name}"] for name in names if found[f"{metric}.{name}"] is not None]
        assert found[metric] is None if not parts else same(found[metric], float(np.mean(parts)))


def alone(found: dict, name: str, chance: np.ndarray, truth: np.ndarray, said: np.ndarray) -> None:
    """The metrics of one label; those that have no value when it is nowhere, or everywhere, are None."""
    kept = {"zero_division": 0}
    expected = {
        "recall": sk.recall_score(truth, said, **kept) if truth.any() else None,
        "precision": sk.precision_score(truth, said, **kept) if truth.any() else None,
        "f1": sk.f1_score(truth, said, **kept) if truth.any() else None,
        "specificity": sk.recall_score(1 - truth, 1 - said, **kept) if not truth.all() else None,
        "roc_auc": sk.roc_auc_score(truth, chance) if truth.any() and not truth.all() else None,
        "average_precision": sk.average_precision_score(truth, chance) if truth.any() else None,
    }
    for metric, value in expected.items():
        mine = found[f"{metric}.{name}"]
        assert mine is None if value is None else same(mine, value), metric


@quick
@some_studies
def test_grades_are_measured_by_distance(seed: int, n: int, labels: int, digits: int) -> None:
    p, y = exclusive(seed, n, labels, digits)
    found = figures(p, y, kind="ordinal")
    truth, said = y.argmax(axis=1), answered(p, "ordinal").argmax(axis=1)
    assert same(found["mae"], float(np.mean(abs(truth - said))))
    if len(set(truth) | set(said)) > 1:
        assert same(found["kappa"], sk.cohen_kappa_score(truth, said, weights="quadratic", labels=range(labels)))
    else:
        assert found["kappa"] is None


@quick
@some_studies
def test_the_auc_is_the_share_of_pairs_in_order(seed: int, n: int, labels: int, digits: int) -> None:
    p, y = exclusive(seed, n, labels, digits)
    found = figures(p, y, kind="classification")
    yes, no = p[y[:, 0] == 1, 0], p[y[:, 0] == 0, 0]
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(yes, no)]
    assert found["roc_auc.1"] is None if not pairs else same(found["roc_auc.1"], float(np.mean(pairs)))
    for k, (false, true) in roc_curves(p, y, kind="classification").items():
        assert same(found[f"roc_auc.{k}"], sk.auc(false, true))
        assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_the_brier_score_of_classes_is_half_the_squared_distance() -> None:
    found = figures([[0.2, 0.5, 0.3]], [[0, 0, 1]], kind="classification")
    assert found["brier"] == pytest.approx((0.2**2 + 0.5**2 + 0.7**2) / 2)


def test_a_label_that_is_nowhere_has_no_value_and_one_never_answered_has_no_precision_to_boast_of() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    found = figures(p, np.eye(3)[[0, 0, 1, 0]], kind="classification", labels="abc")
    assert {found[f"{m}.c"] for m in ("recall", "precision", "f1", "roc_auc", "average_precision")} == {None}
    assert found["specificity.c"] == 0.75
    assert found["precision.b"] == 0
    assert found["precision"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["recall"] == pytest.approx((2 / 3 + 0) / 2)


def test_what_nobody_looked_at_changes_nothing() -> None:
    p, y = exclusive(3, 20, 3, 8)
    more_p, more_y = np.vstack([p, p[:5]]), np.vstack([y, np.full((5, 3), NAN)])
    patients = [f"p{i // 2}" for i in range(25)]
    assert figures(more_p, more_y, kind="ordinal") == figures(p, y, kind="ordinal")
    whole = measure(more_p, more_y, patients, kind="ordinal")
    assert whole == measure(p, y, patients[:20], kind="ordinal")
    assert set(figures(p, np.full_like(p, NAN), kind="ordinal").values()) == {None}
    assert set(measure(p, np.full_like(p, NAN), patients[:20], kind="ordinal").values()) == {None}


def test_the_median_grade_keeps_the_expected_error_smallest() -> None:
    rng = np.random.default_rng(0)
    for p in rng.dirichlet(np.ones(5) * 0.7, 200):
        expected = [(p * abs(np.arange(5) - grade)).sum() for grade in range(5)]
        assert expected[answered(p[None], "ordinal")[0].argmax()] == pytest.approx(min(expected))
    assert answered(np.array([[0.5, 0.5]]), "ordinal")[0, 0]
    assert answered(np.array([[0.21, 0.24, 0.05, 0.5]]), "ordinal")[0, 2]  # their sum is a little under 0.5


@quick
@given(st.integers(0, 1000), st.integers(2, 6))
def test_logits_of_grades_become_probabilities(seed: int, grades: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(10, grades - 1)) * 3
    ordered = -np.sort(-logits, axis=1)
    for some in (logits, ordered):
        p = probabilities(some, "ordinal")
        assert p.shape == (10, grades)
        assert (p >= 0).all()
        assert np.allclose(p.sum(axis=1), 1)
    above = 1 / (1 + np.exp(-ordered))
    assert np.allclose(1 - p.cumsum(axis=1)[:, :-1], above)


def test_logits_of_classes_and_findings() -> None:
    logits = np.array([[1.0, -2.0, 0.5]])
    powers = np.exp(logits / 2)
    assert np.allclose(probabilities(logits, "classification", 2.0), powers / powers.sum())
    assert np.allclose(probabilities(logits, "multilabel", 2.0), powers / (1 + powers))


def test_intervals_draw_patients_with_all_their_studies() -> None:
    p, y = exclusive(1, 24, 2, 8)
    patients = [f"p{i}" for i in range(24)]
    once = measure(p, y, patients, kind="classification")
    thrice = measure(np.repeat(p, 3, 0), np.repeat(y, 3, 0), list(np.repeat(patients, 3)), kind="classification")
    for name in ("accuracy", "roc_auc", "f1", "log_loss", "recall.2"):
        assert vars(once[name]) == pytest.approx(vars(thrice[name])), name
    apart = measure(np.repeat(p, 3, 0), np.repeat(y, 3, 0), [str(i) for i in range(72)], kind="classification")
    assert apart["accuracy"].high - apart["accuracy"].low < once["accuracy"].high - once["accuracy"].low


def test_the_interval_of_a_mean_is_the_one_of_the_other_reports() -> None:
    p, y = exclusive(2, 30, 3, 8)
    right = (p.argmax(axis=1) == y.argmax(axis=1)).astype(float)
    patients = [f"{i:02}" for i in range(30)]
    found = measure(p, y, patients, kind="classification")["accuracy"]
    assert vars(found) == pytest.approx(vars(bootstrap_mean(dict(zip(patients, right, strict=True)))))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["classification", "ordinal", "multilabel"]))
def test_a_draw_counts_a_study_as_often_as_it_was_drawn(seed: int, kind: str) -> None:
    """A weight of two is the same as the study twice, in every metric: an interval of all draws, one by one."""
    p, y = several(seed, 9, 3, 1) if kind == "multilabel" else exclusive(seed, 9, 3, 1)
    asked = ~np.isnan(y).all(axis=1)
    p, y = p[asked], y[asked]
    patients = [str(i % 5) for i in range(len(p))]
    found = measure(p, y, patients, kind=kind, resamples=40, seed=seed)
    weights = np.concatenate(list(draw_patients(patients, resamples=40, seed=seed))).astype(int)
    whole = figures(p, y, kind=kind)
    names = [name for name, value in whole.items() if found[name] is not None and found[name].low is not None]
    single = [name for name in names if "ece" not in name and ("." in name or name in ("accuracy", "kappa", "mae"))]
    if kind == "multilabel":
        single = [name for name in single if "." in name]
    drawn = [figures(np.repeat(p, w, 0), np.repeat(y, w, 0), kind=kind) for w in weights]
    for name in single:
        values = [of[name] for of in drawn if of[name] is not None]
        low, high = np.quantile(values, (0.025, 0.975))
        assert found[name].low == pytest.approx(min(low, whole[name])), name
        assert found[name].high == pytest.approx(max(high, whole[name])), name


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(80):
        z, y = rng.normal(size=60), rng.random(60) < 0.4
        chance = 1 / (1 + np.exp(-(z + y * np.sqrt(2) * 1.0)))
        true = 0.8413447  # of normals sqrt(2) apart
        p = np.stack([1 - chance, chance], axis=1)
        patients = [str(i) for i in range(60)]
        found = measure(p, np.eye(2)[y.astype(int)], patients, kind="classification", resamples=200, seed=trial)
        covered += found["roc_auc"].low <= true <= found["roc_auc"].high
    assert 0.87 <= covered / 80 <= 0.99


def test_what_hangs_on_one_patient_has_no_limits() -> None:
    p, y = exclusive(4, 30, 2, 8)
    y = np.eye(2)[[1, 1, *[0] * 28]]
    one = measure(p, y, ["a", "a", *map(str, range(28))], kind="classification")
    assert (one["recall.2"].low, one["roc_auc"].low, one["recall"].low) == (None, None, None)
    assert one["accuracy"].low is not None
    assert one["recall.1"].low is not None
    two = measure(p, y, ["a", "b", *map(str, range(28))], kind="classification")
    assert two["recall.2"].low is not None
    assert {found.low for found in measure(p, y, ["a"] * 30, kind="classification").values()} == {None}


def test_a_comparison_is_of_the_same_draws() -> None:
    p, y = exclusive(6, 80, 2, 8)
    q = np.full_like(p, 0.5)
    patients = [f"p{i // 2}" for i in range(80)]
    found = compare(p, q, y, patients, "roc_auc", kind="classification")
    whole = measure(p, y, patients, kind="classification")["roc_auc"]
    assert (found.first, found.second.value) == (whole, 0.5)
    assert vars(found.difference) == pytest.approx({k: v - 0.5 for k, v in vars(whole).items()})
    back = compare(q, p, y, patients, "roc_auc", kind="classification")
    assert back.difference.low == pytest.approx(-found.difference.high)
    assert (found.better, back.better) == (True, False)
    itself = compare(p, p, y, patients, "f1.2", kind="classification")
    assert itself.difference.low == itself.difference.high == 0
    assert itself.better is None


@pytest.mark.parametrize("metric", ["brier", "log_loss", "ece"])
def test_less_loss_is_better(metric: str) -> None:
    rng = np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, 60)]
    sure, patients = 0.05 + 0.9 * y, [str(i) for i in range(60)]
    found = compare(sure, sure[:, ::-1], y, patients, metric, kind="classification")
    assert found.difference.high < 0
    assert found.better is True


def test_a_comparison_without_a_value_is_none() -> None:
    p, _ = exclusive(1, 6, 2, 8)
    y = np.eye(2)[[0] * 6]
    assert compare(p, p, y, list("abcdef"), "roc_auc", kind="classification") is None
    assert compare(p, p, y * NAN, list("abcdef"), "accuracy", kind="classification") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "segmentation"}, "allowed are classification"),
        ({"p": [[0.5, 0.4]]}, "sum to 0.9"),
        ({"p": [[NAN, 0.5]]}, "must lie in 0..1"),
        ({"p": [[-0.5, 1.5]]}, "must lie in 0..1"),
        ({"y": [[1, 1]]}, "one 1"),
        ({"y": [[1, NAN]]}, "NaN throughout"),
        ({"y": [[0.5, 0.5]]}, "one 1"),
        ({"y": [[1, 0, 0]]}, r"\(1, 3\)"),
        ({"patients": ["a", "b"]}, "patients are 2"),
        ({"labels": ["a"]}, "1 labels"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, says: str) -> None:
    given = {"p": [[0.5, 0.5]], "y": [[1, 0]], "patients": ["a"], "kind": "classification", **change}
    p, y, patients = (given.pop(name) for name in ("p", "y", "patients"))
    with pytest.raises(BadInput, match=says):
        measure(p, y, patients, **given)


def test_an_unknown_metric_is_named_with_the_closest() -> None:
    with pytest.raises(BadInput, match="did you mean 'roc_auc'"):
        compare([[0.5, 0.5]], [[0.5, 0.5]], [[1, 0]], ["a"], "rocauc", kind="classification")
    with pytest.raises(BadInput, match="kappa"):
        compare([[0.5, 0.5]], [[0.5, 0.5]], [[1, 0]], ["a"], "kappa", kind="classification")
