"""How close a version's boxes are to a reader's, the floor under it, and what makes its scores probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.cluster.vq import kmeans2

from radloop.engine.box_data import true_boxes
from radloop.engine.box_predictor import SHOWN, BoxPredictor
from radloop.engine.region_check import check_picture
from radloop.evaluation.boxes import SAME, BoxRow, box_f1, hits
from radloop.evaluation.calibration import Temperature, fit_temperature
from radloop.recipes.boxes import Box, boxes_of, edges
from radloop.recipes.errors import BadInput, NotFound
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.cases import Case
from radloop.studies.images import read_header, read_study

ByLabel = dict[str, "float | None"]
Boxes = dict[str, np.ndarray]


@dataclass(frozen=True)
class BoxScore:
    """The boxes of a study beside the true ones, in voxels of the study's grid.

    Attributes:
        study, patient: whose.
        truth: label -> (n, 2 * dimension).
        found: label -> (m, 2 * dimension), the most probable first.
        scores: label -> (m,) probabilities.
        compared: what the gate compares, by label: `box_f1` of the boxes shown.
        logits: label -> (m,) before scaling.
        seconds: the prediction's wall clock.
        row: ledger row of the label.
        missing: optional channels that the study lacks.
    """

    study: str
    patient: str
    truth: Boxes
    found: Boxes
    scores: Boxes
    compared: ByLabel
    logits: Boxes = field(default_factory=dict)
    seconds: float = 0.0
    row: int = 0
    missing: tuple[str, ...] = ()

    def as_row(self, *, blind: bool | None = None) -> BoxRow:
        """For `radloop.evaluation.boxes`."""
        return BoxRow(self.study, self.patient, self.truth, self.found, self.scores, SHOWN, blind, self.seconds)


def score_boxes(predictor: BoxPredictor, case: Case) -> BoxScore:
    """A version's boxes of a case beside the reader's.

    Raises:
        BadInput, NotFound: the study or its label cannot be read.
    """
    recipe, true = predictor.recipe, true_boxes(predictor.recipe, case)
    answer = predictor.predict(read_study(case.channels, recipe.may_lack))
    found = _score(recipe, case, answer.grid, true, answer.boxes, answer.logits, answer.seconds)
    return replace(found, missing=answer.lacking)


def _score(
    recipe: Recipe,
    case: Case,
    grid: np.ndarray,
    true: Sequence[Box],
    found: Sequence[Box],
    logits: np.ndarray,
    seconds: float = 0.0,
) -> BoxScore:
    d = recipe.dimension

    def of(boxes: Sequence[Box], name: str) -> np.ndarray:
        places = edges([box for box in boxes if box.label == name], grid)
        return np.hstack([places[:, :d], places[:, 3 : 3 + d]])

    names = recipe.label_names
    mine = {name: np.array([box.label == name for box in found], bool) for name in names}
    scores = np.array([box.score for box in found], float)
    truth, boxes = ({name: of(which, name) for name in names} for which in (true, found))
    given = {name: scores[mine[name]] for name in names}
    compared: ByLabel = {name: box_f1(truth[name], boxes[name][given[name] >= SHOWN]) for name in names}
    told = {name: logits[mine[name]] for name in names}
    return BoxScore(case.study, case.patient, truth, boxes, given, compared, told, seconds, case.row)


def box_temperature(scores: Sequence[BoxScore], recipe: Recipe) -> Temperature:
    """The temperature by which the score of a box becomes the probability that it is right.

    Every box that a version gives of a validation study counts once; it is right as `recall` counts it.
    """
    limit = SAME[recipe.dimension]
    logits: list[float] = []
    truth: list[float] = []
    patients: list[str] = []
    for score in scores:
        for name in recipe.label_names:
            right = hits(score.truth[name], score.found[name], limit)
            logits += score.logits[name].tolist()
            truth += right.astype(float).tolist()
            patients += [score.patient] * len(right)
    given, right_ones = np.array(logits, float).reshape(-1, 1), np.array(truth, float).reshape(-1, 1)
    return fit_temperature(given, right_ones, patients, kind="multilabel")


FLOOR = "the mean boxes of the studies learned from"


def box_baseline(recipe: Recipe, train: Sequence[Case], cases: Sequence[Case]) -> list[BoxScore]:
    """The trivial method's boxes of `cases`, wherever they are: the mean boxes of the training studies.

    Of each label as many as studies have on average, at least one: the means of as many groups of alike boxes, placed
    as a share of the study's extent. The score is how many of the group a study has, at most 1.
    """
    means = _mean_boxes(recipe, train)
    found = []
    for case in cases:
        try:
            true, grid, shape = true_boxes(recipe, case), *_grid(recipe, case)
        except (BadInput, NotFound):
            continue
        boxes = [
            box
            for name, (places, chances) in means.items()
            for box in _placed(places * np.tile(shape, 2), name, grid, chances)
        ]
        boxes.sort(key=lambda box: -(box.score or 0))
        found.append(_score(recipe, case, grid, true, boxes, np.zeros(len(boxes))))
    return found


def _placed(places: np.ndarray, name: str, grid: np.ndarray, chances: np.ndarray) -> list[Box]:
    return boxes_of(places, [name] * len(places), grid, chances.tolist())


def _mean_boxes(recipe: Recipe, train: Sequence[Case]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Label -> mean boxes (k, 6) as shares of the extent, and how often a study has each."""
    places: dict[str, list[np.ndarray]] = {name: [] for name in recipe.label_names}
    studies = 0
    for case in train:
        try:
            boxes, grid, shape = true_boxes(recipe, case), *_grid(recipe, case)
        except (BadInput, NotFound):
            continue
        studies += 1
        for box in boxes:
            places[box.label].append(edges([box], grid)[0] / np.tile(shape, 2))
    found = {}
    for name, of in places.items():
        if not of:
            continue
        every = np.array(of)
        k = min(max(1, round(len(every) / studies)), len(np.unique(every, axis=0)))
        # begun evenly along the first axis, so that the same studies give the same boxes
        begun = every[np.argsort(every[:, 0], kind="stable")[((np.arange(k) + 0.5) * len(every) / k).astype(int)]]
        centres, group = kmeans2(every, begun, minit="matrix", missing="warn", seed=0) if k > 1 else (
            every.mean(axis=0, keepdims=True), np.zeros(len(every), int))  # fmt: skip
        found[name] = centres, np.minimum(1.0, np.bincount(group, minlength=len(centres)) / studies)
    return found


def _grid(recipe: Recipe, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Affine and extent of a case's grid, without its voxels."""
    shape, affine = read_header(case.channels[0])
    empty = np.broadcast_to(np.zeros(1, np.uint8), (1, *shape))
    grid = Preprocess(recipe).grid(Volume(empty, affine))
    check_picture(recipe, grid.shape[-1])  # what no network can be asked about has no floor either
    return grid.affine, np.array(grid.shape, float)
