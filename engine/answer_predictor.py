"""A version and a study become an answer about the whole: probabilities over the recipe's labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from radloop.engine.answer_data import ask, cut, input_of, stack
from radloop.engine.covariates import Covariates
from radloop.engine.weights import default_device, load_weights, read_kept
from radloop.evaluation.class_answers import probabilities
from radloop.networks.registry import build
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume


@dataclass(frozen=True, eq=False)
class AnswerPrediction:
    """An answer about a study.

    Attributes:
        probabilities: (K,) over the recipe's labels in their order, after scaling by the version's temperature; classes
            and grades sum to 1, findings are each 0..1.
        logits: (outputs,) as the network gave them.
        missing: covariates that the study has no value of; the training median stood for them.
        seconds: wall clock.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    missing: tuple[str, ...]
    seconds: float


class AnswerPredictor:
    """A version's weights, ready to answer; the same study always gets the same answer.

    Args:
        recipe: the recipe saved with the weights.
        weights: `model.pt`.
        device: `cpu` or `cuda`; CUDA where there is one by default.

    Raises:
        NotFound: there are no weights.
        BadInput: the weights cannot be read or do not fit the recipe.
    """

    def __init__(self, recipe: Recipe, weights: Path, device: str | torch.device | None = None) -> None:
        self.recipe = recipe
        self._device = torch.device(device or default_device())
        self._network = build(recipe)
        load_weights(self._network, weights)
        self._network.to(self._device).eval()
        kept = read_kept(weights)
        self.covariates = Covariates.from_dict(kept["covariates"]) if "covariates" in kept else Covariates()
        self.temperature = float(kept.get("temperature", 1.0))

    def predict(
        self,
        volume: Volume,
        region: Volume | None = None,
        cells: Mapping[str, str] | None = None,
        earlier: Sequence[tuple[Volume, float]] = (),
    ) -> AnswerPrediction:
        """The answer about a study.

        Args:
            volume: the study's channels as read from its files.
            region: the mask of the recipe's region, where it names one.
            cells: the study's columns of `answers.csv`, for covariates.
            earlier: of a sequence, the patient's studies before it, oldest first, and the time from each.

        Raises:
            BadImage: the volume does not fit the recipe.
            BadLabel: the region lies on other voxels, or is empty.
            BadInput: a covariate is no number.
        """
        begun = time.monotonic()
        logits = self._look(volume, region, cells or {}, earlier)
        found = self.scaled(logits[None])[0]
        missing = self.covariates.missing(cells or {})
        return AnswerPrediction(found, logits, missing, time.monotonic() - begun)

    def _look(
        self,
        volume: Volume,
        region: Volume | None,
        cells: Mapping[str, str],
        earlier: Sequence[tuple[Volume, float]],
    ) -> np.ndarray:
        """(outputs,) logits of one study, with the visits before it."""
        seen = [*earlier, (volume, 0.0)]
        images = [cut(input_of(self.recipe, one, region).numpy(), self.recipe)[0] for one, _ in seen]
        return self.logits(images, [cells], [[gap for _, gap in seen]])[0]

    @torch.inference_mode()
    def logits(
        self,
        images: Sequence[np.ndarray],
        cells: Sequence[Mapping[str, str]],
        gaps: Sequence[Sequence[float]] | None = None,
    ) -> np.ndarray:
        """(N, outputs) float64 of studies that were cut; of a sequence one image a visit, and `gaps` of each study."""
        extra = np.stack([self.covariates.row(of) for of in cells]) if self.covariates.names else None
        nothing = np.full(len(self.recipe.labels), np.nan, np.float32)
        gaps = (gaps or [[0.0]] * len(cells)) if self.recipe.answer.sequence else None
        batch = stack(self.recipe, images, [nothing] * len(cells), extra, gaps)
        return ask(self._network, self.recipe, batch, self._device).double().cpu().numpy()

    def scaled(self, logits: np.ndarray, temperature: float | None = None) -> np.ndarray:
        """(N, K) float64 probabilities of (N, outputs) logits; `temperature` in place of the version's own."""
        return probabilities(logits, self.recipe.kind, self.temperature if temperature is None else temperature)
