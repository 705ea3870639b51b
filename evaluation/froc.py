"""Scored candidates against what is truly there: FROC and average precision, with intervals over patients.

For whatever overlaps by a ratio of intersection and union (IoU): components of masks, boxes. Figures are pooled: every
lesion counts once, whichever study it is in. Intervals draw patients, each with all studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from radloop.evaluation.intervals import Interval
from radloop.recipes.errors import BadInput

FOUND_AT = 0.1
"""IoU from which a candidate finds a lesion: enough to look at the right place, as nnDetection counts in three
dimensions (Baumgartner et al., MICCAI 2021)."""
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a study at which sensitivity is told (Setio et al., Medical Image Analysis 2017)."""
_AT_ONCE = 100  # draws, so that memory stays small
_DRAWN = 0.8  # share of draws that must have a value for an interval


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a model marked in one study, and what is there.

    Attributes:
        study, patient: whose.
        scores: one a candidate, the higher the surer; any order.
        overlaps: (candidates, truths) IoU.
    """

    study: str
    patient: str
    scores: np.ndarray
    overlaps: np.ndarray

    def __post_init__(self) -> None:
        if self.overlaps.ndim != 2 or len(self.scores) != len(self.overlaps) or not np.isfinite(self.scores).all():
            shape = self.overlaps.shape
            msg = f"{self.study}: {len(self.scores)} scores, overlaps of shape {shape}; give each a finite score"
            raise BadInput(msg)


class Curve(NamedTuple):
    """A FROC curve: one point a distinct score, the highest first.

    Attributes:
        rate: false positives a study.
        sensitivity: share of the truths that are found.
    """

    rate: np.ndarray
    sensitivity: np.ndarray


def curve(studies: Sequence[Candidates], overlap: float = FOUND_AT) -> Curve | None:
    """The FROC curve of all studies; None where nothing is there to be found.

    A candidate finds every truth that it overlaps by `overlap`; one that finds none is a false positive, and one that
    finds what a surer one has found already is neither (Bunch et al., SPIE 1977; Setio et al., 2017).
    """
    ranked = _Ranked.of(studies, [_finds(study, overlap) for study in studies])
    rate, sensitivity = ranked.froc(np.ones((1, len(ranked.studies))))
    return Curve(rate[0], sensitivity[0]) if ranked.truths.any() else None


def detection_figures(
    studies: Sequence[Candidates], *, overlap: float = FOUND_AT, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Sensitivity at `RATES`, their mean, and average precision at IoU .5, with 95 % intervals over patients.

    Names: `froc` (the mean of the seven), `sensitivity_at_1/8_fp` ... `sensitivity_at_8_fp`, `ap50`. Empty where
    nothing is there to be found. Limits are None with one patient, or where too many draws have nothing to be found.
    """
    if not any(study.overlaps.shape[1] for study in studies):
        return {}
    by_froc = _Ranked.of(studies, [_finds(study, overlap) for study in studies])
    by_precision = _Ranked.of(studies, [_matches(study, 0.5) for study in studies])
    values = _values(by_froc, by_precision, np.ones((1, len(by_froc.studies))))
    draws = [
        _values(by_froc, by_precision, weights[:, by_froc.patient_of])
        for weights in drawn_weights(len(set(by_froc.patients)), resamples, seed)
    ]
    several = len(set(by_froc.patients)) > 1
    return {
        name: interval(float(of[0]), np.concatenate([draw[name] for draw in draws]) if several else np.empty(0))
        for name, of in values.items()
    }


def drawn_weights(patients: int, resamples: int, seed: int) -> list[np.ndarray]:
    """How often each patient is drawn, in blocks of (draws, patients)."""
    rng = np.random.default_rng(seed)
    sizes = [min(_AT_ONCE, resamples - start) for start in range(0, resamples, _AT_ONCE)]
    return [rng.multinomial(patients, np.full(patients, 1 / patients), size=size).astype(float) for size in sizes]


def interval(value: float, draws: np.ndarray) -> Interval:
    """A value with the 2.5th and 97.5th percentiles of its draws; NaN in a draw is no value."""
    told = draws[np.isfinite(draws)]
    if not len(told) or len(told) < _DRAWN * len(draws):
        return Interval(value, None, None)
    low, high = np.quantile(told, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))


class _Hits(NamedTuple):
    """For each candidate of a study, how many truths it is the surest to find, and whether it is a false positive."""

    new: np.ndarray
    false: np.ndarray


def _finds(study: Candidates, overlap: float) -> _Hits:
    order = np.argsort(-study.scores, kind="stable")
    touches = study.overlaps[order] >= overlap
    first = touches & (np.cumsum(touches, axis=0) == 1)
    hits = _Hits(np.empty(len(order)), np.empty(len(order)))
    hits.new[order], hits.false[order] = first.sum(axis=1), ~touches.any(axis=1)
    return hits


def _matches(study: Candidates, overlap: float) -> _Hits:
    """Each truth is given to the surest candidate that overlaps it enough; a second one is a false positive.

    As in the PASCAL VOC challenge (Everingham et al., IJCV 2010).
    """
    hits = _Hits(np.zeros(len(study.scores)), np.ones(len(study.scores)))
    free = np.ones(study.overlaps.shape[1], dtype=bool)
    for number in np.argsort(-study.scores, kind="stable"):
        near = np.where(free, study.overlaps[number], 0.0)
        if len(near) and near.max() >= overlap:
            free[near.argmax()] = False
            hits.new[number], hits.false[number] = 1, 0
    return hits


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The candidates of all studies, the surest first."""

    studies: Sequence[Candidates]
    truths: np.ndarray
    study_of: np.ndarray
    hits: _Hits
    last: np.ndarray  # of each distinct score

    @classmethod
    def of(cls, studies: Sequence[Candidates], hits: Sequence[_Hits]) -> _Ranked:
        scores = np.concatenate([study.scores for study in studies]) if studies else np.empty(0)
        order = np.argsort(-scores, kind="stable")
        last = np.flatnonzero(np.diff(scores[order], append=-np.inf)) if len(scores) else np.empty(0, int)
        study_of = np.repeat(np.arange(len(studies)), [len(study.scores) for study in studies])[order]
        new, false = (
            np.concatenate([getattr(of, name) for of in hits])[order] if hits else order for name in _Hits._fields
        )
        truths = np.array([study.overlaps.shape[1] for study in studies], dtype=float)
        return cls(studies, truths, study_of.astype(int), _Hits(new, false), last)

    @property
    def patients(self) -> list[str]:
        return [study.patient for study in self.studies]

    @property
    def patient_of(self) -> np.ndarray:
        """Of each study, the number of its patient."""
        return np.unique(self.patients, return_inverse=True)[1].astype(int)

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Truths found and false positives so far, (draws, scores), under (draws, studies) weights."""
        each = weights[:, self.study_of]
        return np.cumsum(each * self.hits.new, axis=1)[:, self.last], np.cumsum(each * self.hits.false, axis=1)[
            :, self.last
        ]

    def froc(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """False positives a study and sensitivity, (draws, scores)."""
        found, false = self.counts(weights)
        return _ratio(false, weights.sum(1)), _ratio(found, weights @ self.truths)

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """Average precision: the area under precision over recall, precision made to fall."""
        found, false = self.counts(weights)
        every = weights @ self.truths
        precision = np.divide(found, found + false, out=np.zeros_like(found), where=found + false > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        steps = np.diff(found, axis=1, prepend=0.0)
        return _ratio((envelope * steps).sum(1, keepdims=True), every)[:, 0]


def _values(by_froc: _Ranked, by_precision: _Ranked, weights: np.ndarray) -> dict[str, np.ndarray]:
    rate, sensitivity = by_froc.froc(weights)
    told = {}
    for wanted in RATES:
        # A study's share of rounding must not cost a point that lies on the rate itself.
        reached = np.where(rate <= wanted + 1e-9, sensitivity, 0.0)
        best = reached.max(axis=1, initial=0.0)
        told[wanted] = np.where(weights @ by_froc.truths > 0, best, np.nan)
    named = {f"sensitivity_at_{Fraction(wanted)}_fp": of for wanted, of in told.items()}
    return {"froc": np.mean(list(told.values()), axis=0), **named, "ap50": by_precision.precision(weights)}


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Row by row; NaN where there is nothing to divide by."""
    return np.divide(above, below[:, None], out=np.full_like(above, np.nan), where=below[:, None] > 0)
