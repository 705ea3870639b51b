"""What strategies may see of each study in a replay: scores of the round's model, and what the image looks like."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radloop.engine.answer_data import earlier_volumes, region_mask
from radloop.engine.predictor import predictor_of
from radloop.recipes.errors import BadInput, NotFound
from radloop.recipes.recipe import Recipe
from radloop.strategies.embedding import image_embedding
from radloop.strategies.scores import LOOKS, score_study
from radloop.studies.cases import Case
from radloop.studies.files import write_whole
from radloop.studies.images import read_study

logger = logging.getLogger(__name__)

EMBEDDING, DISAGREEMENT = "embedding", "mutual_information"


def scores_of(
    recipe: Recipe, weights: Path | None, cases: Sequence[Case], needs: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Study -> its `scores` and `classes`, for a step's file; a study that cannot be read has none.

    Args:
        recipe: the question.
        weights: the round's model; without one nothing can be scored.
        cases: studies that have no label yet; their labels are not looked at.
        needs: names of scores; nothing is computed that nobody needs.
    """
    if weights is None or not set(needs) - {EMBEDDING}:
        return {}
    predictor, found = predictor_of(recipe, weights), dict[str, dict[str, Any]]()
    for case in cases:
        try:
            score = score_study(
                predictor,
                read_study(case.channels, recipe.may_lack),
                region=region_mask(case.region, recipe),
                cells=case.answers,
                earlier=earlier_volumes(recipe, case.earlier),
                looks=LOOKS if DISAGREEMENT in needs else 0,
            )
        except (BadInput, NotFound) as error:
            logger.warning("study %s cannot be scored: %s", case.study, error)
            continue
        found[case.study] = {"scores": _rounded(score.scores), "classes": _rounded(score.classes)}
    return found


def embeddings_of(recipe: Recipe, cases: Sequence[Case], folder: Path) -> dict[str, np.ndarray]:
    """Study -> (D,) float32 of what its image looks like, computed once for a folder; unreadable ones are left out."""
    names = "\n".join([recipe.hash(), *(case.study for case in cases)])
    file = folder / f"embeddings-{hashlib.sha256(names.encode()).hexdigest()[:12]}.npz"
    if not file.is_file():
        found = {}
        for case in cases:
            try:
                found[case.study] = image_embedding(recipe, read_study(case.channels, recipe.may_lack))
            except (BadInput, NotFound) as error:
                logger.warning("study %s has no embedding: %s", case.study, error)
        write_whole(file, lambda path: _save(path, found), ".npz")
    with np.load(file) as stored:
        return dict(zip(stored["studies"].tolist(), stored["embeddings"], strict=True))


def _save(path: Path, found: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as handle:
        np.savez(handle, studies=np.array(list(found), dtype=str), embeddings=np.array(list(found.values())))


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 8) for name, value in values.items()}
