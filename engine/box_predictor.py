"""A version and a study become boxes in the study's own place in the world."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from radloop.engine.box_data import Frame, framed
from radloop.engine.box_detector import detector_of
from radloop.engine.channels import lacking, with_lacking
from radloop.engine.weights import default_device, load_weights, read_kept
from radloop.networks.registry import build
from radloop.networks.topology import patch_shape
from radloop.recipes.boxes import Box
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume

SHOWN = 0.5
"""Boxes from this probability on are shown: they are more likely right than not."""

_THINNEST = 0.5  # voxels of the network


@dataclass(frozen=True, eq=False)
class BoxPrediction:
    """The boxes of a study.

    Attributes:
        boxes: from the most probable to the least, each with its probability; also those too improbable to show.
        logits: (n,) of each before scaling by the version's temperature.
        grid: 4x4 affine of the voxels in which boxes are compared.
        seconds: wall clock.
        lacking: optional channels that the study lacks.
    """

    boxes: tuple[Box, ...]
    logits: np.ndarray
    grid: np.ndarray
    seconds: float
    lacking: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Box, ...]:
        """Those that are shown."""
        return tuple(box for box in self.boxes if box.score is not None and box.score >= SHOWN)


class BoxPredictor:
    """A version's weights, ready to answer; the same study always gets the same boxes.

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
        network = build(recipe)
        load_weights(network, weights)
        self._detector = detector_of(recipe, network).to(self._device).eval()
        self._lock = threading.Lock()  # MONAI's detector keeps the anchors of the last image
        self.temperature = float(read_kept(weights).get("temperature", 1.0))

    @property
    def network(self) -> nn.Module:
        """What answers."""
        return self._detector.network

    @torch.inference_mode()
    def predict(self, volume: Volume, progress: Callable[[float], None] | None = None) -> BoxPrediction:
        """The boxes of a study.

        Args:
            volume: the study's channels as read from its files.
            progress: called with the share done, 0..1.

        Raises:
            BadImage: the volume does not fit the recipe.
        """
        begun = time.monotonic()
        image, frame = framed(self.recipe, volume)
        with self._lock:
            found, labels, scores = self._detect(image, frame)
        if progress:
            progress(1.0)
        logits = np.log(scores) - np.log1p(-scores)
        order = np.argsort(-logits, kind="stable")
        scaled = 1 / (1 + np.exp(-logits[order] / self.temperature))
        names = [self.recipe.label_names[number] for number in labels[order]]
        boxes = frame.boxes(found[order], names, scaled.tolist())
        seconds = time.monotonic() - begun
        return BoxPrediction(tuple(boxes), logits[order], frame.grid.affine, seconds, lacking(self.recipe, volume))

    def _detect(self, image: torch.Tensor, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes in the network's voxels, the places of their labels, and scores inside 0..1."""
        patch = patch_shape(self.recipe)
        short = [max(0, size - n) for n, size in zip(image.shape[1:], patch, strict=True)]
        after = [side for n in reversed(short) for side in (0, n)]
        padded = functional.pad(image[None], after, mode="replicate") if any(short) else image[None]
        padded = with_lacking(self.recipe, padded)
        slides = any(n > size for n, size in zip(padded.shape[2:], patch, strict=True))
        (told,) = self._detector(padded.to(self._device), use_inferer=slides)
        boxes, labels, scores = (told[key].double().cpu().numpy() for key in ("boxes", "labels", "labels_scores"))
        boxes, d = frame.cut(boxes), self.recipe.dimension
        whole = (boxes[:, d:] - boxes[:, :d] >= _THINNEST).all(axis=1)  # none of what was padded
        return boxes[whole], labels[whole].astype(int), scores[whole].clip(1e-6, 1 - 1e-6)
