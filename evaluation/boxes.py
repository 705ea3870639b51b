"""How good boxes are: average precision, lesions found per false alarm, and one number a study for the gate.

Boxes are (n, 2 * d) arrays: where they begin along each axis, then where they end. Average precision is COCO's (Lin et
al., ECCV 2014): 101 points of recall, the best precision from there on. FROC is LUNA16's (Setio et al., 2017): the
sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms a study, and their mean; a further box around what a surer one
has found is neither right nor a false alarm there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radloop.evaluation.intervals import Interval

THRESHOLDS = tuple(0.5 + 0.05 * n for n in range(10))
"""IoU from which a box is right, of `ap`; the first alone of `ap50`."""
SAME = {2: 0.5, 3: 0.1}
"""IoU from which a box has found what a true one is around, by dimension: in 3D a shift of a voxel halves it."""
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False alarms a study, of FROC."""
RESAMPLES = 2000
_RECALLS = np.linspace(0, 1, 101)
_MOST_NUMBERS = 4_000_000  # held at once
_ROUNDING = 1e-10  # of an IoU
_TOUCH = 0.1  # IoU under which two boxes have nothing to do with each other, in `box_f1`


@dataclass(frozen=True)
class BoxRow:
    """The boxes of a study beside the true ones, label by label.

    Attributes:
        study, patient: whose.
        truth: label -> (n, 2 * d) true boxes, of every label.
        found: label -> (m, 2 * d) boxes, the most probable first.
        scores: label -> (m,) probability of each.
        shown: from this probability on a box is shown.
        blind: whether the label was given before any model's answer was seen; None where nobody knows.
        seconds: time the answer took.
    """

    study: str
    patient: str
    truth: Mapping[str, np.ndarray]
    found: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    shown: float = 0.5
    blind: bool | None = None
    seconds: float | None = None

    @property
    def dimension(self) -> int:
        """Of the boxes."""
        return next(iter(self.truth.values())).shape[1] // 2

    def shown_boxes(self, label: str) -> np.ndarray:
        """Those of a label that are shown."""
        return self.found[label][self.scores[label] >= self.shown]


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of (n, 2 * d) and (m, 2 * d) boxes."""
    d = first.shape[1] // 2
    low = np.maximum(first[:, None, :d], second[None, :, :d])
    high = np.minimum(first[:, None, d:], second[None, :, d:])
    both = np.prod((high - low).clip(min=0), axis=-1)
    sizes = [np.prod(boxes[:, d:] - boxes[:, :d], axis=1) for boxes in (first, second)]
    either = sizes[0][:, None] + sizes[1][None] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def hits(truth: np.ndarray, found: np.ndarray, threshold: float) -> np.ndarray:
    """(m,) whether each box, in order, is right: it takes the true box it covers best of those not taken before."""
    overlap = iou(truth, found)
    right = np.zeros(len(found), bool)
    for number in range(len(found)):
        best = int(overlap[:, number].argmax()) if len(truth) else 0
        if len(truth) and overlap[best, number] >= threshold - _ROUNDING:
            right[number] = True
            overlap[best] = -1.0
    return right


def box_f1(truth: np.ndarray, found: np.ndarray) -> float:
    """2 x the IoU of pairs / (true + found boxes), 0..1: an F1 in which a pair counts by how well it fits.

    Boxes are paired one to one, the best fitting first, from an IoU of 0.1 on. Without any box on either side it is 1.
    """
    if not len(truth) and not len(found):
        return 1.0
    overlap, total = iou(truth, found), 0.0
    while overlap.size and overlap.max() >= _TOUCH:
        one, other = np.unravel_index(int(overlap.argmax()), overlap.shape)
        total += float(overlap[one, other])
        overlap[one, :], overlap[:, other] = -1.0, -1.0
    return 2 * total / (len(truth) + len(found))


def measure_boxes(rows: Sequence[BoxRow], labels: Sequence[str], *, seed: int = 0) -> dict[str, Interval | None]:
    """Every metric with its 95 % interval (bootstrap over patients); None where it has no value.

    `ap50`, `ap` and `box_f1` over labels and, as `<metric>.<label>`, of each; `recall` and `precision` of the boxes
    shown; `froc` and `froc.<rate>`. A label without any true box has no average precision, nor is it in the mean.
    """
    weights = patient_weights(rows, seed)
    found: dict[str, np.ndarray | None] = {}
    by_label = {name: [average_precision(rows, name, t, weights) for t in THRESHOLDS] for name in labels}
    present = [name for name in labels if by_label[name][0] is not None]
    for metric, count in (("ap50", 1), ("ap", len(THRESHOLDS))):
        each = {name: np.mean([v for v in by_label[name][:count] if v is not None], axis=0) for name in present}
        found[metric] = mean_of(list(each.values()))
        found |= {f"{metric}.{name}": each.get(name) for name in labels}
    closeness = {name: [box_f1(row.truth[name], row.shown_boxes(name)) for row in rows] for name in labels}
    found["box_f1"] = _mean(np.mean(list(closeness.values()), axis=0), weights) if rows else None
    found |= {f"box_f1.{name}": _mean(np.array(of), weights) for name, of in closeness.items()}
    found |= _at_threshold(rows, labels, weights) | _froc(rows, labels, weights)
    alone = len({row.patient for row in rows}) < 2
    return {name: None if draws is None else interval_of(draws, alone=alone) for name, draws in found.items()}


def patient_weights(rows: Sequence[BoxRow], seed: int) -> np.ndarray:
    """(1 + 2000, n) how often each study counts: once, then in draws of patients with all their studies."""
    if not rows:
        return np.empty((1 + RESAMPLES, 0))
    patients, of = np.unique([row.patient for row in rows], return_inverse=True)
    n = len(patients)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.vstack([np.ones(len(rows)), drawn[:, of]])


def froc_curve(rows: Sequence[BoxRow], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """False alarms a study and sensitivity, from the surest box on; all labels together."""
    right, false, _, count = _ordered(rows, labels, None)
    true = max(1.0, float(count.sum()))
    return np.concatenate([[0], np.cumsum(false)]) / max(1, len(rows)), np.concatenate([[0], np.cumsum(right)]) / true


def mean_of(each: Sequence[np.ndarray]) -> np.ndarray | None:
    """(draws,) the mean of those labels that a draw has a value of; None without any label."""
    if not each:
        return None
    values, known = np.nan_to_num(each), np.isfinite(each).sum(axis=0)
    return np.divide(values.sum(axis=0), known, out=np.full(len(known), np.nan), where=known > 0)


def precision_recall(rows: Sequence[BoxRow], label: str) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of a label at an IoU of .5, from the surest box on."""
    right, _, _, count = _ordered(rows, [label], THRESHOLDS[0])
    true = np.cumsum(right)
    return true / max(1.0, float(count.sum())), true / np.arange(1, len(true) + 1)


def _ordered(
    rows: Sequence[BoxRow], labels: Sequence[str], threshold: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of all boxes, the surest first: whether it is right, or around nothing, and its study; the true boxes of each."""
    right: list[np.ndarray] = [np.empty(0, bool)]
    false: list[np.ndarray] = [np.empty(0, bool)]
    scores: list[np.ndarray] = [np.empty(0)]
    study: list[np.ndarray] = [np.empty(0, int)]
    for number, row in enumerate(rows):
        for name in labels:
            limit = SAME[row.dimension] if threshold is None else threshold
            right.append(hits(row.truth[name], row.found[name], limit))
            false.append(iou(row.truth[name], row.found[name]).max(axis=0, initial=0.0) < limit - _ROUNDING)
            scores.append(row.scores[name])
            study.append(np.full(len(row.scores[name]), number))
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    count = np.array([sum(len(row.truth[name]) for name in labels) for row in rows], float)
    return np.concatenate(right)[order], np.concatenate(false)[order], np.concatenate(study)[order], count


def average_precision(rows: Sequence[BoxRow], label: str, threshold: float, weights: np.ndarray) -> np.ndarray | None:
    """(draws,) average precision of a label, each study counted as often as `weights` (draws, n) says.

    None where no study has a true box of it.
    """
    right, _, study, count = _ordered(rows, [label], threshold)
    if not count.sum():
        return None
    some = max(1, _MOST_NUMBERS // max(1, len(right)))
    parts = [weights[first : first + some] for first in range(0, len(weights), some)]
    return np.concatenate([_average(right, part[:, study], part @ count) for part in parts])


def _average(right: np.ndarray, each: np.ndarray, total: np.ndarray) -> np.ndarray:
    """(draws,) average precision of (m,) boxes that count as often as `each` (draws, m) says."""
    true, every = np.cumsum(each * right, axis=1), np.cumsum(each, axis=1)
    precision = np.divide(true, every, out=np.zeros_like(true), where=every > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.hstack([best, np.zeros((len(best), 1))])  # a recall that is never reached
    recall = np.divide(true, total[:, None], out=np.zeros_like(true), where=total[:, None] > 0)
    # all draws in one search: each has a band of its own, two wide, of which recall takes the lower half
    band = 2.0 * np.arange(len(recall))[:, None]
    after = np.searchsorted((recall + band).ravel(), (_RECALLS + band).ravel(), side="left").reshape(len(recall), -1)
    places = (after - np.arange(len(recall))[:, None] * recall.shape[1]).clip(0, recall.shape[1])
    return np.where(total > 0, np.take_along_axis(best, places, axis=1).mean(axis=1), np.nan)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(weights @ values / np.maximum(weights.sum(axis=1), 1))


def _at_threshold(rows: Sequence[BoxRow], labels: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray | None]:
    right = np.zeros(len(rows))
    shown, true = np.zeros(len(rows)), np.zeros(len(rows))
    for number, row in enumerate(rows):
        for name in labels:
            boxes = row.shown_boxes(name)
            right[number] += hits(row.truth[name], boxes, SAME[row.dimension]).sum()
            shown[number] += len(boxes)
            true[number] += len(row.truth[name])
    return {"recall": _share(weights @ right, weights @ true), "precision": _share(weights @ right, weights @ shown)}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray | None:
    if not len(whole) or not whole[0]:
        return None
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _froc(rows: Sequence[BoxRow], labels: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray | None]:
    names = [f"froc.{rate:g}" for rate in RATES]
    right, nothing, study, count = _ordered(rows, labels, None)
    if not count.sum():
        return dict.fromkeys(["froc", *names])
    found = np.full((len(weights), len(RATES)), np.nan)
    for draw, weight in enumerate(weights):
        total = float(weight @ count)
        if not total:
            continue
        each = weight[study]
        true = np.concatenate([[0.0], np.cumsum(each * right)])
        false = np.concatenate([[0.0], np.cumsum(each * nothing)])
        places = np.searchsorted(false, np.array(RATES) * weight.sum(), side="right") - 1
        found[draw] = true[places] / total
    return {"froc": found.mean(axis=1), **dict(zip(names, found.T, strict=True))}


def interval_of(draws: np.ndarray, *, alone: bool) -> Interval:
    """The first draw with the 95 % interval of the others; without limits where one patient is all there is."""
    value, rest = float(draws[0]), draws[1:][np.isfinite(draws[1:])]
    if alone or not len(rest):
        return Interval(value, None, None)
    low, high = np.quantile(rest, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))
