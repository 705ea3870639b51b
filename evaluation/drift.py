"""How good a version is on what readers label while it serves, and whether that has fallen since it was made.

Scores are what the gate compares, one number a held-out patient, 0..1, higher is better. Labels read blind and labels
given after the version's answer are never mixed: the latter lean towards the model (docs/blind-reading.md).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from radloop.evaluation.compare import FULL
from radloop.evaluation.intervals import Interval, bootstrap_mean

ALARM = 0.005
"""One-sided level of each look; `benchmarks/drift.py` says how often an alarm is false when every label is a look."""
NEWEST = 30
"""Patients whose labels count as recent, so that a late fall is not averaged away."""


@dataclass(frozen=True)
class Judged:
    """What a version said of a held-out study, compared with a reader's label.

    Attributes:
        study, patient: whose.
        row: ledger row of the label.
        blind: whether the reader gave it before seeing an answer.
        value: 0..1; None where the label does not speak or the study could not be read.
    """

    study: str
    patient: str
    row: int
    blind: bool
    value: float | None


@dataclass(frozen=True)
class Reading:
    """The labels of one kind, blind or anchored.

    Attributes:
        before: mean over the patients labelled when the version was made; None without any.
        since: mean over the newest patients labelled after that; None without any.
        patients: how many were labelled before, and since.
        fall: before less since; None where one of them is missing.
        drift: whether it fell by at least the margin, and by more than chance explains.
    """

    before: Interval | None
    since: Interval | None
    patients: tuple[int, int]
    fall: float | None
    drift: bool

    def told(self, name: str, figure: str) -> str:
        """In a line: `name` is `blind` or `anchored`, `figure` what the score is."""
        parts = zip((self.since, self.before), self.patients[::-1], ("since", "when it was made"), strict=True)
        said = [f"{of} on {_patients(count)} labelled {when}" for of, count, when in parts if of]
        return f"{figure}, {name} labels: {'; '.join(said)}"

    def alarm(self, name: str) -> str:
        """What to do where `drift` is true."""
        return (
            f"on {name} labels it is {self.fall:.3f} worse than when it was made; look at the newest studies for "
            "another scanner, protocol or reader, correct some and train"
        )


def running_accuracy(judged: Iterable[Judged], last_row: int, margin: float) -> dict[str, Reading]:
    """`blind` and `anchored`, of those that there are.

    A patient with labels from before and since counts as since.

    Args:
        judged: of one version, one for each current label of a held-out study.
        last_row: the newest label row when the version was made.
        margin: the fall that matters, in units of the score.
    """
    found = {}
    for name, kind in (("blind", True), ("anchored", False)):
        told = [one for one in judged if one.blind is kind and one.value is not None]
        if told:
            found[name] = _reading(told, last_row, margin)
    return found


def _reading(told: Sequence[Judged], last_row: int, margin: float) -> Reading:
    new = [one for one in told if one.row > last_row]
    newest = {one.patient: one.row for one in sorted(new, key=lambda one: one.row)}
    recent = set(sorted(newest, key=lambda patient: newest[patient])[-NEWEST:])
    since = _by_patient(one for one in new if one.patient in recent)
    before = _by_patient(one for one in told if one.row <= last_row and one.patient not in newest)
    fall = fmean(before.values()) - fmean(since.values()) if before and since else None
    return Reading(
        bootstrap_mean(before) if before else None,
        bootstrap_mean(since) if since else None,
        (len(before), len(since)),
        fall,
        drifted(list(before.values()), list(since.values()), margin),
    )


def _by_patient(judged: Iterable[Judged]) -> Mapping[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for one in judged:
        if one.value is not None:
            values[one.patient].append(one.value)
    return {patient: fmean(of) for patient, of in values.items()}


def drifted(before: Sequence[float], since: Sequence[float], margin: float) -> bool:
    """Whether the mean fell by at least the margin and its lower bound is above 0 (Welch's t, Biometrika 34:28, 1947).

    Never with fewer than six patients on either side.
    """
    if min(len(before), len(since)) < FULL:
        return False
    fall = fmean(before) - fmean(since)
    return fall >= margin and fall - _doubt(before, since) > 0


def _doubt(first: Sequence[float], second: Sequence[float]) -> float:
    """Half the width of the interval of a difference of means."""
    from scipy.stats import t

    parts = [float(np.var(of, ddof=1)) / len(of) for of in (first, second)]
    total = sum(parts)
    if not total:
        return 0.0
    freedom = total**2 / sum(part**2 / (len(of) - 1) for part, of in zip(parts, (first, second), strict=True))
    return float(t.ppf(1 - ALARM, freedom)) * math.sqrt(total)


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"
