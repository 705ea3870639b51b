"""A version and a study become an answer: pad, slide, average, back to the file's voxels."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import nn
from torch.nn import functional

from radloop.engine.answer_predictor import AnswerPredictor
from radloop.engine.box_masks import probable_boxes
from radloop.engine.box_predictor import BoxPredictor
from radloop.engine.channels import lacking, with_lacking
from radloop.engine.risk_predictor import RiskPredictor
from radloop.engine.weights import default_device, load_weights
from radloop.networks.registry import build
from radloop.networks.topology import patch_shape
from radloop.recipes.boxes import Box
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.recipes.volume import Volume

if TYPE_CHECKING:
    from radloop.registry.registry import Version

# MONAI 1.5 indexes with lists, which torch announces to refuse one day; a reader can do nothing about it.
warnings.filterwarnings("ignore", message="Using a non-tuple sequence for multidimensional indexing")

OVERLAP = 0.25
_WINDOWS_AT_ONCE = {2: 8, 3: 1}  # by dimension; more cost memory and gain nothing on a CPU


@dataclass(frozen=True, eq=False)
class Prediction:
    """An answer on the study's own voxels.

    Attributes:
        mask: (X, Y, Z) uint8 ids, axes as in the file.
        affine: 4x4, voxel -> RAS world in mm.
        seconds: wall clock of the prediction.
        probabilities: id -> (X, Y, Z) float32 on the same voxels, of the ids asked for.
        lacking: optional channels that the study lacks.
        boxes: around each connected part, with its mean probability, where they were asked for.
    """

    mask: np.ndarray
    affine: np.ndarray
    seconds: float
    probabilities: dict[int, np.ndarray] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


class Predictor:
    """A version's weights, ready to answer; the same volume always gets the same answer.

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
        self._patch = patch_shape(recipe)
        self._chain = Preprocess(recipe)
        self._network = build(recipe)
        load_weights(self._network, weights)
        self._network.to(self._device).eval()

    @torch.inference_mode()
    def predict(
        self,
        volume: Volume,
        progress: Callable[[float], None] | None = None,
        *,
        keep: Collection[int] = (),
        boxes: bool = False,
    ) -> Prediction:
        """The mask of a study.

        Args:
            volume: the study's channels as read from its files.
            progress: called with the share done, 0..1.
            keep: label ids whose probabilities are given too; each takes four bytes a voxel.
            boxes: whether to tell the connected parts too.

        Raises:
            BadImage: the volume does not fit the recipe.
        """
        begun = time.monotonic()
        image, grid = self._chain.image(volume)
        found = self._probabilities(image, progress)
        mask, seconds = self._chain.restore(found, grid), time.monotonic() - begun
        kept = {number: self._chain.restore_values(found[number], grid) for number in keep}
        parts = tuple(probable_boxes(found.numpy(), self.recipe.labels, grid.affine)) if boxes else ()
        return Prediction(mask, volume.affine, seconds, kept, lacking(self.recipe, volume), parts)

    @property
    def network(self) -> nn.Module:
        """What answers."""
        return self._network

    @torch.inference_mode()
    def probabilities(self, image: torch.Tensor, progress: Callable[[float], None] | None = None) -> torch.Tensor:
        """(1 + labels, x, y, z) probabilities of a preprocessed image (C, x, y, z); see `predict` for `progress`."""
        return self._probabilities(image, progress)

    def _probabilities(self, image: torch.Tensor, progress: Callable[[float], None] | None) -> torch.Tensor:
        """The mean over the image and its mirrors, where the recipe asks for them."""
        mirrors = _mirrors(self.recipe)
        count = 1 + len(mirrors)
        found = self._once(image, progress and _part(progress, 0, count))
        for number, axes in enumerate(mirrors, start=1):
            found += self._once(image.flip(axes), progress and _part(progress, number, count)).flip(axes)
        return found.div_(count) if mirrors else found

    def _once(self, image: torch.Tensor, progress: Callable[[float], None] | None) -> torch.Tensor:
        if self.recipe.dimension == 3:
            return self._slide(image[None], progress)[0]
        slices = self._slide(image.movedim(-1, 0), progress)
        return slices.movedim(0, -1)

    def _slide(self, images: torch.Tensor, progress: Callable[[float], None] | None) -> torch.Tensor:
        """(N, C, *space) images to (N, K, *space) probabilities, N images one after another."""
        padded, inside = self._pad(with_lacking(self.recipe, images))
        windows = len(padded) * _count_windows(tuple(padded.shape[2:]), self._patch)
        done = 0

        def network(window: torch.Tensor) -> torch.Tensor:
            nonlocal done
            with torch.autocast(self._device.type, enabled=self._device.type == "cuda"):
                logits = self._network(window)
            done += len(window)
            if progress:
                progress(min(1.0, done / windows))
            return functional.softmax(logits.float(), dim=1)

        found: torch.Tensor = sliding_window_inference(
            padded,
            roi_size=self._patch,
            sw_batch_size=_WINDOWS_AT_ONCE[self.recipe.dimension],
            predictor=network,
            overlap=OVERLAP,
            mode="gaussian",
            sw_device=self._device,
            device=torch.device("cpu"),
        )  # type: ignore[assignment]
        return found[inside]

    def _pad(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[slice, ...]]:
        """Images of at least the patch's size, the edge repeated as in training, and where the originals lie."""
        pads, inside = [], [slice(None), slice(None)]
        for n, size in zip(images.shape[2:], self._patch, strict=True):
            before = max(0, size - n) // 2
            pads.append((before, max(0, size - n) - before))
            inside.append(slice(before, before + n))
        flat = [side for pair in reversed(pads) for side in pair]
        return (functional.pad(images, flat, mode="replicate") if any(flat) else images), tuple(inside)


def predictor_of(
    recipe: Recipe, weights: Path, device: str | torch.device | None = None
) -> Predictor | AnswerPredictor | BoxPredictor:
    """What answers for a recipe's kind; see the classes for errors."""
    if recipe.kind == "detection":
        return BoxPredictor(recipe, weights, device)
    if recipe.kind == "risk":
        return RiskPredictor(recipe, weights, device)
    return (AnswerPredictor if recipe.kind in CLASS_KINDS else Predictor)(recipe, weights, device)


class PredictorCache:
    """The predictors used last, by their version's folder; safe for several threads.

    Args:
        size: most predictors kept.
        device: where they run.
    """

    def __init__(self, size: int = 4, device: str | torch.device | None = None) -> None:
        self._size, self._device = size, device
        self._kept: OrderedDict[Path, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version: Version) -> Any:
        """The predictor of a registered version, loaded when first asked for.

        Raises:
            NotFound: its files are gone.
            BadInput: its files cannot be used.
        """
        with self._lock:
            if version.dir not in self._kept:
                recipe = Recipe.model_validate_json((version.dir / "recipe.json").read_text(encoding="utf-8"))
                self._kept[version.dir] = predictor_of(recipe, version.dir / "model.pt", self._device)
                if len(self._kept) > self._size:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(version.dir)
            return self._kept[version.dir]


def _mirrors(recipe: Recipe) -> list[list[int]]:
    """Axes of an image (C, x, y, z) to mirror, in every combination but none."""
    axes = [axis + 1 for axis in recipe.fit.mirror] if recipe.network.mirror else []
    return [list(some) for count in range(1, len(axes) + 1) for some in combinations(axes, count)]


def _part(progress: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    return lambda share: progress((number + share) / count)


def _count_windows(shape: tuple[int, ...], patch: tuple[int, ...]) -> int:
    steps = [max(1, int(size * (1 - OVERLAP))) if n > size else n for n, size in zip(shape, patch, strict=True)]
    return max(1, len(dense_patch_slices(shape, patch, tuple(steps))) if math.prod(shape) else 1)
