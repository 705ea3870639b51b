"""A version and a study become an answer about the whole: probabilities over the recipe's labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import nn

from radloop.engine.answer_batch import network_inputs, stack
from radloop.engine.answer_data import cut, input_of, located_input
from radloop.engine.channels import lacking
from radloop.engine.covariates import Covariates
from radloop.engine.prior import as_seen_in_life
from radloop.engine.slice_weights import SliceWeight, heaviest, thinned
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
        slices: those that weighed most, where the network reads slices.
        missing: covariates that the study has no value of; the training median stood for them.
        seconds: wall clock.
        lacking: optional channels that the study lacks.
        limits: label -> lower and upper limit of its probability, see `radloop.evaluation.probability_interval`; of
            labels whose limits are not known nothing.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    slices: tuple[SliceWeight, ...]
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
        self.overseen = np.array(kept.get("overseen", []))
        self.temperature = float(kept.get("temperature", 1.0))
        self.band = Band.from_dict(kept["band"]) if "band" in kept else Band({})

    @property
    def network(self) -> nn.Module:
        """What answers."""
        return self._network

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
        logits, told = self._look(volume, region, cells or {}, earlier)
        found = self.scaled(logits[None])[0]
        missing = self.covariates.missing(cells or {})
        seconds = time.monotonic() - begun
        known = {
            name: limits
            for name, p in zip(self.recipe.label_names, found, strict=True)
            if (limits := self.band.of(name, float(p)))
        }
        return AnswerPrediction(found, logits, told, missing, seconds, lacking(self.recipe, volume), known)

    def _look(
        self,
        volume: Volume,
        region: Volume | None,
        cells: Mapping[str, str],
        earlier: Sequence[tuple[Volume, float]],
    ) -> tuple[np.ndarray, tuple[SliceWeight, ...]]:
        """(outputs,) logits of one study, with the visits before it, and the slices that weighed most."""
        whole, grid, first = located_input(self.recipe, volume, region)
        images = [cut(input_of(self.recipe, one, region).numpy(), self.recipe)[0] for one, _ in earlier]
        images.append(cut(whole.numpy(), self.recipe)[0])
        gaps = [[*(gap for _, gap in earlier), 0.0]]
        logits, weights = (of[0] for of in self._asked(images, [cells], gaps))
        places = first + thinned(whole.shape[3], len(weights))
        return logits, heaviest(weights, places.tolist(), grid) if len(weights) else ()

    def logits(
        self,
        images: Sequence[np.ndarray],
        cells: Sequence[Mapping[str, str]],
        gaps: Sequence[Sequence[float]] | None = None,
    ) -> np.ndarray:
        """(N, outputs) float64 of studies that were cut: the mean over the mirrorings that training was shown.

        Of a sequence there is one image a visit, and `gaps` of each study.
        """
        return self._asked(images, cells, gaps)[0]

    @torch.inference_mode()
    def _asked(
        self,
        images: Sequence[np.ndarray],
        cells: Sequence[Mapping[str, str]],
        gaps: Sequence[Sequence[float]] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, outputs), and what each slice weighed (N, slices); none but where slices are read."""
        extra = np.stack([self.covariates.row(of) for of in cells]) if self.covariates.names else None
        nothing = np.full(len(self.recipe.labels), np.nan, np.float32)
        gaps = (gaps or [[0.0]] * len(cells)) if self.recipe.answer.sequence else None
        batch = stack(self.recipe, images, [nothing] * len(cells), extra, gaps)
        image, present, *rest = network_inputs(self.recipe, batch, self._device)
        found, weights = [], []
        with torch.autocast(self._device.type, enabled=self._device.type == "cuda"):
            for axes in _mirrorings(self.recipe.fit.mirror):
                back = [1] if 2 in axes else []
                turned = image.flip([axis + 2 for axis in axes])  # type: ignore[union-attr]
                here = None if present is None else present.flip(back)
                if here is None or gaps:
                    found.append(self._network(turned, here, *rest).double())
                    continue
                one, told = self._network.slices(turned, here, *rest)  # type: ignore[operator]
                found.append(one.double())
                weights.append(told.flip(back).float())
        seen = torch.stack(weights).mean(0) if weights else torch.zeros(len(cells), 0)
        logits = torch.stack(found).mean(0).cpu().numpy()
        if self.overseen.any():
            logits = as_seen_in_life(self.recipe.kind, logits, self.overseen)
        return logits, seen.cpu().numpy()

    def scaled(self, logits: np.ndarray, temperature: float | None = None) -> np.ndarray:
        """(N, K) float64 probabilities of (N, outputs) logits; `temperature` in place of the version's own."""
        return probabilities(logits, self.recipe.kind, self.temperature if temperature is None else temperature)


def _mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every set of these axes, none of them first."""
    return [some for count in range(len(axes) + 1) for some in combinations(axes, count)]
