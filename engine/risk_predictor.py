"""A version and a study become a risk over time: a curve, the risk at named times, and what covariates alone say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.channels import lacking
from radloop.engine.clinical import Clinical
from radloop.engine.weights import read_kept
from radloop.evaluation.hazards import survival
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe, Unit
from radloop.recipes.volume import Volume
from radloop.studies.outcomes import DAYS


@dataclass(frozen=True, eq=False)
class RiskPrediction:
    """A risk over time.

    Attributes:
        times: when the risk is told.
        unit: of all times.
        risks: (times,) chance that the event comes by each named time, after scaling by the version's temperature.
        clinical: (times,) the same from covariates alone; of all training patients where the recipe names none.
        bounds: (K + 1,) times of the curve, the first 0; between them log-survival is linear.
        survival: (K + 1,) chance to be without the event at each.
        clinical_survival: (K + 1,) the same from covariates alone.
        logits: (K,) as the network gave them.
        missing: covariates that the study has no value of; the training median stood for them.
        beyond: named times that no training patient was followed for.
        lacking: optional channels that the study lacks.
        seconds: wall clock.
    """

    times: tuple[float, ...]
    unit: Unit
    risks: np.ndarray
    clinical: np.ndarray
    bounds: np.ndarray
    survival: np.ndarray
    clinical_survival: np.ndarray
    logits: np.ndarray
    missing: tuple[str, ...]
    beyond: tuple[float, ...]
    lacking: tuple[str, ...]
    seconds: float


class RiskPredictor(AnswerPredictor):
    """A version's weights, ready to tell a risk; the same study always gets the same answer.

    Args:
        recipe: the recipe saved with the weights.
        weights: `model.pt`.
        device: `cpu` or `cuda`; CUDA where there is one by default.

    Raises:
        NotFound: there are no weights.
        BadInput: the weights cannot be read or do not fit the recipe.
    """

    def __init__(self, recipe: Recipe, weights: Path, device: str | torch.device | None = None) -> None:
        super().__init__(recipe, weights, device)
        kept = read_kept(weights).get("clinical")
        if not kept:
            msg = f"weights {weights} have no bounds of time intervals; train a version of {recipe.name} anew"
            raise BadInput(msg)
        self.clinical = Clinical.from_dict(kept)
        self.times = recipe.answer.times

    def ask(self, recipe: Recipe) -> None:
        """From now on tell the risk at the times that another form of the recipe names, maybe in another unit."""
        there, here = DAYS[recipe.answer.unit], DAYS[self.recipe.answer.unit]
        self.times = tuple(time * there / here for time in recipe.answer.times)

    def predict(  # type: ignore[override]
        self,
        volume: Volume,
        region: Volume | None = None,
        cells: Mapping[str, str] | None = None,
        earlier: Sequence[tuple[Volume, float]] = (),
    ) -> RiskPrediction:
        """The risk of a study's patient; arguments and errors are those of `AnswerPredictor.predict`."""
        begun = time.monotonic()
        cells = cells or {}
        logits = self._look(volume, region, cells, earlier)[0]
        bounds, times = self.clinical.bounds, self.times
        curves = np.stack([self.hazards(logits, cells), self.clinical.logits(cells)])
        risks, whole = 1 - survival(curves, bounds, times), survival(curves, bounds, bounds)
        return RiskPrediction(
            times,
            self.recipe.answer.unit,
            risks[0],
            risks[1],
            bounds,
            whole[0],
            whole[1],
            logits,
            self.clinical.covariates.missing(cells),
            tuple(t for t in times if t > self.clinical.followed),
            lacking(self.recipe, volume),
            time.monotonic() - begun,
        )

    def hazards(self, logits: np.ndarray, cells: Mapping[str, str]) -> np.ndarray:
        """(K,) logits of hazards: the network's, scaled, added to what covariates alone say."""
        return self.clinical.logits(cells) + logits / self.temperature
