"""Scores of studies, brought together: one number a patient, a mean over patients, its interval.

A study's score of a metric is the mean over its labels; a patient's the mean over the studies; the figure the mean over
patients. What was not looked at (None) is left out at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from radloop.evaluation.intervals import Interval, bootstrap_mean


@dataclass(frozen=True)
class StudyRow:
    """What was measured of one study.

    Attributes:
        study: the study's id.
        patient: whose it is.
        scores: `<metric>.<label>` -> value, such as `dice.liver`; None where it has none.
        blind: whether its label was given before any model's answer was seen; None where nobody knows.
        seconds: time the prediction took.
        counts: `<what>.<label>` -> number, such as `lesions_true.nodule`; for the table of studies alone.
    """

    study: str
    patient: str
    scores: Mapping[str, float | None]
    blind: bool | None = None
    seconds: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def study_row(
    study: str,
    patient: str,
    metrics: Mapping[str, Mapping[str, float | None]],
    *,
    blind: bool | None = None,
    seconds: float | None = None,
    counts: Mapping[str, int] | None = None,
) -> StudyRow:
    """A row from metric -> label -> value, such as `{"dice": {"liver": 0.9}, "hd95": {"liver": None}}`."""
    scores = {f"{metric}.{label}": value for metric, labels in metrics.items() for label, value in labels.items()}
    return StudyRow(study, patient, scores, blind, seconds, counts or {})


def patient_values(rows: Iterable[StudyRow], name: str) -> dict[str, float]:
    """Patient -> value of a metric (`dice`: over its labels) or of a metric of one label (`dice.liver`)."""
    found: dict[str, list[float]] = {}
    for row in rows:
        values = [v for key, v in row.scores.items() if v is not None and name in (key, metric_of(key))]
        if values:
            found.setdefault(row.patient, []).append(fmean(values))
    return {patient: fmean(values) for patient, values in sorted(found.items())}


def metric_names(rows: Iterable[StudyRow]) -> list[str]:
    """Every name that can be summed up: each metric, followed by its labels, in the order of first sight."""
    parts: dict[str, dict[str, None]] = {}
    for row in rows:
        for key in row.scores:
            parts.setdefault(metric_of(key), {})[key] = None
    return [name for metric, keys in parts.items() for name in dict.fromkeys([metric, *keys])]


def metric_of(name: str) -> str:
    """`dice` of `dice.liver`."""
    return name.split(".", 1)[0]


def intervals(rows: Sequence[StudyRow], *, seed: int = 0) -> dict[str, Interval]:
    """Every metric that any patient has a value of, with its interval over patients."""
    values = {name: patient_values(rows, name) for name in metric_names(rows)}
    return {name: bootstrap_mean(found, seed=seed) for name, found in values.items() if found}


def summarise(recipe: str, version: int | str, rows: Sequence[StudyRow], *, seed: int = 0) -> dict[str, Any]:
    """What `--json` writes: `{"recipe", "version", "n", "patients", "metrics": {name: {"value", "low", "high"}}}`.

    `n` counts studies, `patients` patients; limits are null where a metric has one patient only. Where it is known what
    readers had seen, `"readings": {"blind": {...}, "anchored": {...}}` has the same three of each part.
    """
    parts = {"blind": [row for row in rows if row.blind], "anchored": [row for row in rows if row.blind is False]}
    readings = {name: _figures(part, seed) for name, part in parts.items() if part}
    return {
        "recipe": recipe,
        "version": version,
        **_figures(rows, seed),
        **({"readings": readings} if readings else {}),
    }


def _figures(rows: Sequence[StudyRow], seed: int) -> dict[str, Any]:
    return {
        "n": len(rows),
        "patients": len({row.patient for row in rows}),
        "metrics": {
            name: {"value": found.value, "low": found.low, "high": found.high}
            for name, found in intervals(rows, seed=seed).items()
        },
    }
