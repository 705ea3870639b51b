"""Masks judged lesion by lesion: found and missed ones, and candidates of a probability map with a score each.

A lesion is a connected component, joined over faces, edges and corners. It is found by a component, or a candidate,
whose ratio of intersection and union (IoU) with it is .1 or more (`froc.FOUND_AT`). If one shared voxel were enough, a
mask that covers everything would find all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil, prod

import numpy as np
from scipy import ndimage
from scipy.linalg import block_diag

from radloop.evaluation.froc import FOUND_AT, Candidates, Curve, curve, detection_figures, drawn_weights, interval
from radloop.evaluation.intervals import Interval
from radloop.recipes.errors import BadInput

MOST_CANDIDATES = 20
"""Of a study; far more than the eight false positives that the FROC curve is read at."""
_LOWEST = 0.05  # a peak below this is no candidate
_ROUNDED = 1e-3  # of a voxel
_FALL = 2.5  # a candidate reaches down to its peak over this


@dataclass(frozen=True)
class Lesions:
    """Lesions of one label in one study.

    Attributes:
        true: lesions the reader drew.
        found: of those, found by one of the model's.
        drawn: lesions the model drew.
        confirmed: of those, that found one of the reader's.
    """

    true: int
    found: int
    drawn: int
    confirmed: int


@dataclass(frozen=True, eq=False)
class LesionScore:
    """What a version made of the lesions of one label in one study.

    Attributes:
        counts: of the masks.
        candidates: of the probability map.
    """

    counts: Lesions
    candidates: Candidates


def lesion_score(
    study: str, patient: str, pred: np.ndarray, true: np.ndarray, probability: np.ndarray, smallest: int = 1
) -> LesionScore:
    """The lesions of one label in one study.

    Args:
        study, patient: whose.
        pred: (X, Y, Z) bool, what the model drew.
        true: the same of the reader.
        probability: (X, Y, Z) of the label, 0..1.
        smallest: voxels that a lesion has at least; smaller components, the reader's and the model's, are left out.

    Raises:
        BadInput: the three do not lie on one grid.
    """
    if not pred.shape == true.shape == probability.shape:
        msg = f"masks of shape {pred.shape} and {true.shape} and probabilities of {probability.shape} do not fit"
        raise BadInput(msg)
    theirs = components(true, smallest)
    ours = components(pred, smallest)
    touches = overlaps(ours, theirs) >= FOUND_AT
    counts = Lesions(touches.shape[1], int(touches.any(0).sum()), touches.shape[0], int(touches.any(1).sum()))
    places, scores = candidates(probability, smallest)
    return LesionScore(counts, Candidates(study, patient, scores, overlaps(places, theirs)))


def fewest_voxels(volume: float, spacing: Sequence[float]) -> int:
    """Voxels that a lesion of at least `volume` mm³ has; files round their spacing, which must not cost one."""
    return max(1, ceil(volume / prod(spacing) - _ROUNDED))


def components(mask: np.ndarray, smallest: int = 1) -> np.ndarray:
    """A mask's connected components, numbered from 1 without gaps; those of fewer voxels than `smallest` are 0."""
    found, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    numbers = np.zeros(count + 1, dtype=np.int32)
    kept = np.flatnonzero(sizes[1:] >= smallest) + 1
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[found]


def overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(components of one, components of the other) IoU of two arrays of numbered components."""
    rows, columns = int(ours.max(initial=0)), int(theirs.max(initial=0))
    pairs = ours.astype(np.int64) * (columns + 1) + theirs
    both = np.bincount(pairs.ravel(), minlength=(rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    either = both.sum(1)[1:, None] + both.sum(0)[None, 1:] - both[1:, 1:]
    return both[1:, 1:] / np.maximum(either, 1)


def candidates(probability: np.ndarray, smallest: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Numbered candidates of a probability map and the score of each, its highest probability.

    The surest voxel and all connected to it with at least 1/2.5 of its probability are a candidate; then the same in
    what is left. What touches one found before belongs to it (the dynamic rule of Bosma et al., Radiology: Artificial
    Intelligence 2023, e230031).

    Args:
        probability: (X, Y, Z), 0..1.
        smallest: voxels that a candidate has at least.
    """
    places, scores = np.zeros(probability.shape, dtype=np.int32), []
    regions, _ = ndimage.label(probability >= _LOWEST / _FALL, np.ones((3,) * probability.ndim))
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        left = np.where(regions[box] == number, probability[box], 0.0).astype(np.float32)
        for place, score in _peaks(left, smallest):
            scores.append(score)
            places[box][place] = len(scores)
    order = np.argsort(-np.array(scores), kind="stable")[:MOST_CANDIDATES]
    numbers = np.zeros(len(scores) + 1, dtype=np.int32)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    return numbers[places], np.array(scores, dtype=float)[order]


def _peaks(left: np.ndarray, smallest: int) -> Iterable[tuple[np.ndarray, float]]:
    """Where each candidate of a region lies and its score; `left` is used up."""
    touching, taken = np.ones((3,) * left.ndim), np.zeros(left.shape, dtype=bool)
    for _ in range(MOST_CANDIDATES):
        peak = float(left.max())
        if peak < _LOWEST:
            return
        parts, _ = ndimage.label(left >= peak / _FALL, touching)
        place = parts == parts[np.unravel_index(int(left.argmax()), left.shape)]
        if place.sum() >= smallest and not (ndimage.binary_dilation(place, touching) & taken).any():
            yield place, peak
        taken |= place
        left[place] = 0.0


def lesion_figures(
    found: Mapping[str, Sequence[LesionScore]], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Label -> scores of its studies to figures with 95 % intervals over patients, pooled over lesions.

    Names: `lesion_recall`, `lesion_precision` and those of `froc.detection_figures`, over the lesions of all labels,
    and each followed by `.<label>` over those of one.
    """
    by_label = {label: _figures(scores, resamples, seed) for label, scores in found.items()}
    told = {}
    for name, every in _figures(_together(found), resamples, seed).items():
        told[name] = every
        told |= {f"{name}.{label}": of[name] for label, of in by_label.items() if name in of}
    return told


def lesion_curves(found: Mapping[str, Sequence[LesionScore]]) -> dict[str, Curve]:
    """Label -> FROC curve; labels without a lesion are left out."""
    curves = {label: curve([score.candidates for score in scores]) for label, scores in found.items()}
    return {label: of for label, of in curves.items() if of is not None}


def _together(found: Mapping[str, Sequence[LesionScore]]) -> list[LesionScore]:
    """One score a study, of all its labels; a candidate finds lesions of its own label only."""
    by_study: dict[str, list[LesionScore]] = {}
    for scores in found.values():
        for score in scores:
            by_study.setdefault(score.candidates.study, []).append(score)
    return [of[0] if len(of) == 1 else _joined(of) for of in by_study.values()]


def _joined(scores: Sequence[LesionScore]) -> LesionScore:
    first = scores[0].candidates
    every = [score.candidates.overlaps for score in scores]
    return LesionScore(
        Lesions(*(sum(getattr(score.counts, name.name) for score in scores) for name in fields(Lesions))),
        Candidates(
            first.study, first.patient, np.concatenate([s.candidates.scores for s in scores]), block_diag(*every)
        ),
    )


def _figures(scores: Sequence[LesionScore], resamples: int, seed: int) -> dict[str, Interval]:
    told = {
        "lesion_recall": _share(scores, "found", "true", resamples, seed),
        "lesion_precision": _share(scores, "confirmed", "drawn", resamples, seed),
    }
    figures = detection_figures([score.candidates for score in scores], resamples=resamples, seed=seed)
    return {name: of for name, of in told.items() if of is not None} | figures


def _share(scores: Sequence[LesionScore], part: str, whole: str, resamples: int, seed: int) -> Interval | None:
    """A share of lesions, pooled; None where there is none."""
    above, below = (np.array([getattr(score.counts, name) for score in scores], dtype=float) for name in (part, whole))
    if not below.sum():
        return None
    names, patient_of = np.unique([score.candidates.patient for score in scores], return_inverse=True)
    draws = []
    for weights in drawn_weights(len(names), resamples, seed) if len(names) > 1 else ():
        every = weights[:, patient_of]
        with np.errstate(invalid="ignore"):
            draws.append((every @ above) / (every @ below))
    return interval(float(above.sum() / below.sum()), np.concatenate(draws) if draws else np.empty(0))
