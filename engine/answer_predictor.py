"""A version and a study become an answer about the whole: probabilities over the recipe's labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from radloop.engine.answer_data import cut, input_of, stack, with_region
from radloop.engine.channels import lacking
from radloop.engine.covariates import Covariates
from radloop.engine.weights import default_device, load_weights, read_kept
from radloop.evaluation.class_answers import probabilities
from radloop.evaluation.probability_interval import Band
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
        lacking: optional channels that the study lacks.
        limits: label -> lower and upper limit of its probability, see `radloop.evaluation.probability_interval`; of
            labels whose limits are not known nothing.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    missing: tuple[str, ...]
    seconds: float
    lacking: tuple[str, ...] = ()
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)


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
        self.band = Band.from_dict(kept["band"]) if "band" in kept else Band({})

    def predict(
        self, volume: Volume, region: Volume | None = None, cells: Mapping[str, str] | None = None
    ) -> AnswerPrediction:
        """The answer about a study.

        Args:
            volume: the study's channels as read from its files.
            region: the mask of the recipe's region, where it names one.
            cells: the study's columns of `answers.csv`, for covariates.

        Raises:
            BadImage: the volume does not fit the recipe.
            BadLabel: the region lies on other voxels, or is empty.
            BadInput: a covariate is no number.
        """
        begun = time.monotonic()
        image = cut(input_of(self.recipe, volume, region).numpy(), self.recipe)[0]
        logits = self.logits([image], [cells or {}])[0]
        found = self.scaled(logits[None])[0]
        missing = self.covariates.missing(cells or {})
        seconds = time.monotonic() - begun
        known = {
            name: limits
            for name, p in zip(self.recipe.label_names, found, strict=True)
            if (limits := self.band.of(name, float(p)))
        }
        return AnswerPrediction(found, logits, missing, seconds, lacking(self.recipe, volume), known)

    @torch.inference_mode()
    def logits(self, images: Sequence[np.ndarray], cells: Sequence[Mapping[str, str]]) -> np.ndarray:
        """(N, outputs) float64 of studies that were cut."""
        extra = np.stack([self.covariates.row(of) for of in cells]) if self.covariates.names else None
        nothing = np.full(len(self.recipe.labels), np.nan, np.float32)
        batch = stack(self.recipe, images, [nothing] * len(images), extra)
        image = with_region(self.recipe, batch.image, batch.region).to(self._device)
        present, more = (None if of is None else of.to(self._device) for of in (batch.present, batch.extra))
        with torch.autocast(self._device.type, enabled=self._device.type == "cuda"):
            found = self._network(image, present, more)
        return found.double().cpu().numpy()

    def scaled(self, logits: np.ndarray, temperature: float | None = None) -> np.ndarray:
        """(N, K) float64 probabilities of (N, outputs) logits; `temperature` in place of the version's own."""
        return probabilities(logits, self.recipe.kind, self.temperature if temperature is None else temperature)
