"""Answers of studies brought together: what `--json` writes, and in words how they compare with a trivial method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radloop.evaluation.class_answers import answered
from radloop.evaluation.classification import Comparison, compare, measure
from radloop.evaluation.intervals import Interval
from radloop.evaluation.reliability import perfect_ece, recalibration
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe

OTHERWISE = "accuracy"
"""What a trivial method is compared in where the metric asked for has no value or no interval."""
WORDS = {
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "calibration error",
    "kappa": "quadratic kappa",
    "mae": "mean error in grades",
}

Probabilities = Mapping[str, float]


@dataclass(frozen=True)
class ClassRow:
    """An answer about one study beside its truth.

    Attributes:
        study: the study's id.
        patient: whose it is.
        truth: label -> whether it holds, of those that were looked at; empty where nobody looked.
        probabilities: label -> probability, of every label.
        blind: whether its label was given before any model's answer was seen; None where nobody knows.
        seconds: time the answer took.
    """

    study: str
    patient: str
    truth: Mapping[str, bool]
    probabilities: Probabilities
    blind: bool | None = None
    seconds: float | None = None


def compared_in(recipe: Recipe) -> str:
    """What a trivial method is compared in by itself: quadratic kappa for grades, else ROC AUC."""
    return "kappa" if recipe.kind == "ordinal" else "roc_auc"


def matrices(recipe: Recipe, rows: Sequence[ClassRow]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities (n, K), truth (n, K) with NaN where nobody looked, and patients.

    Raises:
        BadInput: a study lacks the probability of a label.
    """
    names = recipe.label_names
    p = np.array([_numbers(recipe, row.study, row.probabilities) for row in rows]).reshape(-1, len(names))
    y = np.array([[float(row.truth.get(name, np.nan)) for name in names] for row in rows]).reshape(-1, len(names))
    return p, y, [row.patient for row in rows]


def answer_of(recipe: Recipe, given: Probabilities) -> tuple[str, ...]:
    """The labels that probabilities stand for: one, or any number of findings."""
    said = answered(np.array([_numbers(recipe, "", given)]), recipe.kind)[0]
    return tuple(name for name, holds in zip(recipe.label_names, said, strict=True) if holds)


def summarise_classes(
    recipe: Recipe,
    version: int | str,
    rows: Sequence[ClassRow],
    *,
    baseline: Mapping[str, Probabilities] | None = None,
    metric: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """What `--json` writes, in the form of `summary.summarise`; metrics without a value are left out.

    Beside the metrics of `classification.measure` it has `slope`, `intercept` and `ece_perfect`, and with the
    probabilities that a trivial method gives of the same studies `trivial_<metric>` and `difference`.
    """
    parts = {"blind": [row for row in rows if row.blind], "anchored": [row for row in rows if row.blind is False]}
    readings = {name: _figures(recipe, part, seed) for name, part in parts.items() if part}
    summary = {"recipe": recipe.name, "version": version, **_figures(recipe, rows, seed)}
    found = against(recipe, rows, baseline or {}, metric=metric, seed=seed)
    if found:
        summary["metrics"] |= {
            f"trivial_{found.metric}": vars(found.second),
            "difference": vars(found.difference),
        }
    return summary | ({"readings": readings} if readings else {})


def class_intervals(recipe: Recipe, rows: Sequence[ClassRow], *, seed: int = 0) -> dict[str, Interval | None]:
    """Every metric of these rows with its interval, those of calibration included; None where it has no value."""
    p, y, patients = matrices(recipe, rows)
    kind = recipe.kind
    line = recalibration(p, y, patients, kind=kind, seed=seed)
    limit = perfect_ece(p, y, kind=kind, seed=seed)
    return {
        **measure(p, y, patients, kind=kind, labels=recipe.label_names, seed=seed),
        "ece_perfect": None if limit is None else Interval(limit, None, None),
        "slope": line.slope,
        "intercept": line.intercept,
    }


def against(
    recipe: Recipe,
    rows: Sequence[ClassRow],
    baseline: Mapping[str, Probabilities],
    *,
    metric: str = "",
    seed: int = 0,
) -> Comparison | None:
    """The rows compared with a trivial method on the studies that both answered, or None where nothing can be said.

    In accuracy where the metric has no value or no interval there.

    Args:
        recipe: the question.
        rows: the answers.
        baseline: study -> probabilities of the trivial method.
        metric: what they are compared in; empty takes `compared_in`.
        seed: of the draws of patients.
    """
    shared = _shared(rows, baseline)
    p, y, patients = matrices(recipe, shared)
    q = np.array([_numbers(recipe, row.study, baseline[row.study]) for row in shared]).reshape(p.shape)
    found = None
    for name in dict.fromkeys((metric or compared_in(recipe), OTHERWISE)):
        asked = compare(p, q, y, patients, name, kind=recipe.kind, labels=recipe.label_names, seed=seed)
        found = found or asked
        if asked and asked.difference.low is not None:
            return asked
    return found


def in_words(
    recipe: Recipe,
    rows: Sequence[ClassRow],
    baseline: Mapping[str, Probabilities],
    name: str,
    *,
    metric: str = "",
    seed: int = 0,
) -> str:
    """One or two sentences: is the version better than the trivial method of that name on the same patients?"""
    found = against(recipe, rows, baseline, metric=metric, seed=seed)
    if not baseline or found is None:
        return f"Not compared with a trivial method ({name}): no study has a truth and both answers."
    shared = [row for row in _shared(rows, baseline) if row.truth]
    studies = _plural(len(shared), "study", "studies")
    patients = _plural(len({row.patient for row in shared}), "patient", "patients")
    low, high = found.difference.low, found.difference.high
    verdict = {True: "Better than", False: "Worse than", None: "Not shown to be better than"}[found.better]
    limits = "no interval: it hangs on one patient" if low is None else f"95 % interval {low:+.3f} to {high:+.3f}"
    word = WORDS.get(found.metric, found.metric.replace("_", " "))
    return (
        f"{verdict} the trivial method ({name}): {word} {found.first.value:.3f} against {found.second.value:.3f} on "
        f"the same {studies} of {patients}, difference {found.difference.value:+.3f} ({limits})."
    )


def _shared(rows: Sequence[ClassRow], baseline: Mapping[str, Probabilities]) -> list[ClassRow]:
    return [row for row in rows if row.study in baseline]


def _figures(recipe: Recipe, rows: Sequence[ClassRow], seed: int) -> dict[str, Any]:
    found = class_intervals(recipe, rows, seed=seed)
    read = [row for row in rows if row.truth]
    return {
        "n": len(read),
        "patients": len({row.patient for row in read}),
        "metrics": {name: vars(interval) for name, interval in found.items() if interval is not None},
    }


def _numbers(recipe: Recipe, study: str, given: Probabilities) -> list[float]:
    missing = [name for name in recipe.label_names if name not in given]
    if missing:
        of = f" of study {study!r}" if study else ""
        msg = (
            f"the answer{of} has no probability of {missing[0]!r}; give one of each of {', '.join(recipe.label_names)}"
        )
        raise BadInput(msg)
    return [float(given[name]) for name in recipe.label_names]


def _plural(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
