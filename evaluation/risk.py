"""How good risks over time are, with intervals over patients, beside what covariates alone say of the same studies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radloop.evaluation.class_answers import draw_patients
from radloop.evaluation.classification import Comparison
from radloop.evaluation.intervals import Interval
from radloop.evaluation.risk_scores import Risks, c_index, metrics_of
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe

COMPARED = "c_index"
"""What a version and covariates alone are compared in."""
GRID = 32
"""Times at which curves are told, from the first to the last named one."""
_DRAWN = 0.8  # share of draws that must have a value for an interval
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Told:
    """A risk over time of one study.

    Attributes:
        risks: at the recipe's named times.
        curve: at `grid_of(recipe)`.
        rank: time expected to be lost to the event before the last named time; orders patients by risk.
    """

    risks: tuple[float, ...]
    curve: tuple[float, ...]
    rank: float


@dataclass(frozen=True)
class RiskRow:
    """A risk beside what became of the patient.

    Attributes:
        study: the study's id.
        patient: whose it is.
        event: whether the event came.
        time: when, or until when the patient was known without it, in the recipe's unit.
        told: the version's answer.
        blind: whether its label was given before any model's answer was seen; None where nobody knows.
        seconds: time the answer took.
    """

    study: str
    patient: str
    event: bool
    time: float
    told: Told
    blind: bool | None = None
    seconds: float | None = None


def grid_of(recipe: Recipe) -> np.ndarray:
    """(GRID,) times at which curves are told."""
    last = recipe.answer.times[-1]
    return np.linspace(last / GRID, last, GRID)


def risks_of(recipe: Recipe, rows: Sequence[RiskRow], told: Sequence[Told] | None = None) -> Risks:
    """The rows as arrays, with other answers in place of their own.

    Raises:
        BadInput: a study has other times than the recipe, or a risk is not in 0..1.
    """
    answers = [row.told for row in rows] if told is None else told
    times, grid = np.array(recipe.answer.times), grid_of(recipe)
    risks = np.array([answer.risks for answer in answers], float).reshape(-1, len(times))
    curve = np.array([answer.curve for answer in answers], float).reshape(-1, len(grid))
    wrong = ~((risks >= 0) & (risks <= 1)).all(axis=1)
    if wrong.any():
        msg = f"risks of {rows[int(wrong.argmax())].study} are {risks[wrong.argmax()].tolist()}; they must lie in 0..1"
        raise BadInput(msg)
    event, time = np.array([row.event for row in rows], bool), np.array([row.time for row in rows], float)
    return Risks(event, time, np.array([answer.rank for answer in answers], float), risks, curve, times, grid)


def measure(
    recipe: Recipe, rows: Sequence[RiskRow], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval | None]:
    """Every metric by its name with its 95 % interval over patients; None where it has no value.

    The limits are None with one patient, or where a value hangs on a single one.
    """
    if not rows:
        return {}
    risks, patients = risks_of(recipe, rows), [row.patient for row in rows]
    whole, drawn = _drawn(patients, lambda weights: metrics_of(risks, weights), resamples, seed)
    several = len(set(patients)) > 1
    return {name: _interval(float(whole[name][0]), drawn[name], several) for name in whole}


def against(
    recipe: Recipe, rows: Sequence[RiskRow], floor: Mapping[str, Told], *, resamples: int = 2000, seed: int = 0
) -> Comparison | None:
    """The rows compared with covariates alone in Harrell's C on the studies that both answered.

    None where it has no value: no two patients whose order is known.

    Args:
        recipe: the question.
        rows: the answers.
        floor: study -> what covariates alone say.
        resamples: draws of patients, the same for both.
        seed: of the draws.
    """
    shared = [row for row in rows if row.study in floor]
    if not shared:
        return None
    both = {"first": risks_of(recipe, shared), "second": risks_of(recipe, shared, [floor[r.study] for r in shared])}

    def scored(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: c_index(of, weights) for name, of in both.items()}
        return found | {"difference": found["first"] - found["second"]}

    patients = [row.patient for row in shared]
    whole, drawn = _drawn(patients, scored, resamples, seed)
    several = len(set(patients)) > 1
    one, two, difference = (_interval(float(whole[name][0]), drawn[name], several) for name in whole)
    if one is None or two is None or difference is None:
        return None
    return Comparison(COMPARED, one, two, difference, higher=True)


def summarise_risks(
    recipe: Recipe, version: int | str, rows: Sequence[RiskRow], *, floor: Mapping[str, Told], seed: int = 0
) -> dict[str, Any]:
    """What `--json` writes, in the form of `summary.summarise`; metrics without a value are left out.

    Beside the version's metrics it has those of covariates alone as `clinical_<metric>`, and `difference` in
    Harrell's C with its interval.
    """
    parts = {"blind": [row for row in rows if row.blind], "anchored": [row for row in rows if row.blind is False]}
    readings = {name: _figures(recipe, part, seed) for name, part in parts.items() if part}
    summary = {"recipe": recipe.name, "version": version, **_figures(recipe, rows, seed)}
    alone = measure(recipe, alone_rows(rows, floor), seed=seed)
    summary["metrics"] |= {f"clinical_{name}": vars(found) for name, found in alone.items() if found}
    found = against(recipe, rows, floor, seed=seed)
    if found:
        summary["metrics"]["difference"] = vars(found.difference)
    return summary | ({"readings": readings} if readings else {})


def alone_rows(rows: Sequence[RiskRow], floor: Mapping[str, Told]) -> list[RiskRow]:
    """The rows with what covariates alone say in place of the version's answer."""
    return [
        RiskRow(r.study, r.patient, r.event, r.time, floor[r.study], r.blind, r.seconds)
        for r in rows
        if r.study in floor
    ]


def in_words(recipe: Recipe, rows: Sequence[RiskRow], floor: Mapping[str, Told], name: str, *, seed: int = 0) -> str:
    """One or two sentences: is the version better than covariates alone on the same patients?"""
    events = sum(row.event for row in rows)
    came = f"{recipe.label_names[0]!r} came in {events} of {len(rows)} studies"
    found = against(recipe, rows, floor, seed=seed)
    if found is None:
        return f"Not compared with {name}: no two patients whose order in time is known; {came}."
    low, high = found.difference.low, found.difference.high
    verdict = {True: "Better than", False: "Worse than", None: "Not shown to be better than"}[found.better]
    limits = "no interval: it hangs on one patient" if low is None else f"95 % interval {low:+.3f} to {high:+.3f}"
    count = len({row.patient for row in rows if row.study in floor})
    patients = f"{count} patient{'' if count == 1 else 's'}"
    return (
        f"{verdict} {name}: Harrell's C {found.first.value:.3f} against {found.second.value:.3f} on the same "
        f"{patients}, difference {found.difference.value:+.3f} ({limits}); {came}."
    )


def _figures(recipe: Recipe, rows: Sequence[RiskRow], seed: int) -> dict[str, Any]:
    found = measure(recipe, rows, seed=seed)
    return {
        "n": len(rows),
        "patients": len({row.patient for row in rows}),
        "events": sum(row.event for row in rows),
        "metrics": {name: vars(interval) for name, interval in found.items() if interval is not None},
    }


def _drawn(
    patients: Sequence[str], scored: Callable[[np.ndarray], dict[str, np.ndarray]], resamples: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each metric of all studies, and in every draw of patients."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing, which are NaN as they should be
        whole = scored(np.ones((1, len(patients))))
        parts = [scored(weights) for weights in draw_patients(patients, resamples=resamples, seed=seed)]
    return whole, {name: np.concatenate([part[name] for part in parts]) for name in whole}


def _interval(value: float, drawn: np.ndarray, several: bool) -> Interval | None:
    if np.isnan(value):
        return None
    kept = drawn[~np.isnan(drawn)]
    if not several or len(kept) < _DRAWN * len(drawn):
        return Interval(value, None, None)
    low, high = np.quantile(kept, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))
