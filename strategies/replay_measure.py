"""What a replay measures of a model on held-out studies: the recipe's figure and, of masks, the outline left to draw.

The figure is Dice of masks, the area under the ROC curve of classes and findings (mean over labels), and of the other
kinds what the gate compares.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from radloop.engine.answer_data import truth_of
from radloop.engine.assess import AnswerScore, assess
from radloop.engine.predictor import Predictor, predictor_of
from radloop.evaluation.class_answers import check_answers
from radloop.evaluation.learning_curves import Measured
from radloop.evaluation.metrics import dice
from radloop.evaluation.path_length import added_path_length
from radloop.recipes.errors import BadInput, NotFound
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.studies.cases import Case, read_label
from radloop.studies.images import read_study

logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""Of one study: `study`, `patient`, `value` of what the gate compares; of masks `path_mm`; of words `p` and `y`."""
_RANKED = ("classification", "multilabel")


def figure_name(recipe: Recipe) -> str:
    """The figure of a recipe in words."""
    return "ROC AUC" if recipe.kind in _RANKED else recipe.figure


def measure(recipe: Recipe, weights: Path, cases: Sequence[Case]) -> list[Record]:
    """A record a study; those that cannot be read are left out with a warning."""
    predictor = predictor_of(recipe, weights)
    if not isinstance(predictor, Predictor):
        return [_of_score(recipe, score) for score in assess(predictor, cases, surfaces=False).scores]
    records = []
    for case in cases:
        try:
            records.append(_of_mask(predictor, case))
        except (BadInput, NotFound) as error:
            logger.warning("study %s cannot be measured: %s", case.study, error)
    return records


def without_a_model(recipe: Recipe, learned: Sequence[Case], cases: Sequence[Case]) -> list[Record]:
    """The records where all labels to learn from say the same, so that the answer to every study is just that."""
    share = np.nanmean(np.stack([truth_of(recipe, case) for case in learned]), axis=0)
    share = np.nan_to_num(share)
    records = []
    for case in cases:
        truth = truth_of(recipe, case)
        apart = (share - truth)[~np.isnan(truth)]
        value = 1 - float((apart**2).mean()) if recipe.kind == "multilabel" else 1 - float((apart**2).sum()) / 2
        records.append({"study": case.study, "patient": case.patient, "value": value, **_words(share, truth)})
    return records


def alike(recipe: Recipe, cases: Sequence[Case]) -> bool:
    """Whether labels in words leave nothing to learn, since no label is said of one study and denied of another."""
    if recipe.kind not in CLASS_KINDS:
        return False
    truth = np.stack([truth_of(recipe, case) for case in cases])
    return not ((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any()


def measured(recipe: Recipe, records: Sequence[Record]) -> Measured:
    """The records as learning curves take them.

    Raises:
        BadInput: nothing could be measured.
    """
    if not records:
        msg = "none of the held-out studies can be measured; see the warnings"
        raise BadInput(msg)
    patients = tuple(record["patient"] for record in records)
    values = np.array([_number(record["value"]) for record in records])
    if recipe.kind in _RANKED:
        p, y = (np.array([[_number(one) for one in record[key]] for record in records]) for key in ("p", "y"))
        answers = check_answers(p, y, patients, kind=recipe.kind, labels=recipe.label_names)
        return Measured(patients, values, answers)
    paths = [_number(record.get("path_mm")) for record in records]
    return Measured(patients, values, None, np.array(paths) if recipe.kind == "segmentation" else None)


def foreground(recipe: Recipe, case: Case) -> float:
    """ml that a reader drew in a study; NaN where labels are no masks."""
    if recipe.kind != "segmentation":
        return math.nan
    mask = read_label(case, recipe.labels)
    return int(np.count_nonzero(mask.array)) * float(np.prod(mask.spacing)) / 1000


def _of_mask(predictor: Predictor, case: Case) -> Record:
    labels = predictor.recipe.labels
    volume, true = read_study(case.channels, predictor.recipe.may_lack), read_label(case, labels).array[0]
    ids, known = list(labels.values()), {labels[name] for name in case.names if name in labels}
    mask = predictor.predict(volume).mask
    overlaps = [value for value in dice(mask, true, ids, known).values() if value is not None]
    paths = [value for value in added_path_length(mask, true, ids, volume.spacing, known).values() if value is not None]
    return {
        "study": case.study,
        "patient": case.patient,
        "value": round(fmean(overlaps), 6) if overlaps else None,
        "path_mm": round(sum(paths), 3) if paths else None,
    }


def _of_score(recipe: Recipe, score: Any) -> Record:
    values = [value for value in score.compared.values() if value is not None]
    record = {"study": score.study, "patient": score.patient, "value": round(fmean(values), 6) if values else None}
    if isinstance(score, AnswerScore):
        p = np.array([score.probabilities[name] for name in recipe.label_names])
        record |= _words(p, np.array([_number(score.truth[name]) for name in recipe.label_names]))
    return record


def _words(p: np.ndarray, y: np.ndarray) -> Record:
    told = [None if math.isnan(one) else float(one) for one in y]
    return {"p": [round(float(one), 6) for one in p], "y": told}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
