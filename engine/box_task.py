"""Learning to draw boxes: what `fit` needs of the kind detection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radloop.engine.augment import Augment
from radloop.engine.box_data import BoxBatch, BoxSource, PreparedBoxes, PreparedBoxSet, prepare_boxes
from radloop.engine.box_detector import detector_of
from radloop.engine.channels import with_lacking
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe


class BoxTask:
    """One training's data and loss.

    Args:
        recipe: a recipe of this kind.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._detector: Any = None

    def prepare(self, cases: Sequence[Any], cache: Path, step: Callable[[int], None] | None) -> PreparedBoxSet:
        """See `prepare_boxes`."""
        return prepare_boxes(self._recipe, cases, cache, step)

    def source(self, cases: Sequence[PreparedBoxes], seed: int) -> BoxSource:
        """Patches of these cases.

        Raises:
            BadInput: there is no box to learn from.
        """
        if not any(len(case.labels) for case in cases):
            msg = f"none of the {len(cases)} studies that recipe {self._recipe.name!r} learns from has a box; draw some"
            raise BadInput(msg)
        return BoxSource(self._recipe, cases, seed)

    def loss(self, network: nn.Module, batch: BoxBatch, augment: Augment, device: torch.device) -> torch.Tensor:
        """Of one batch; a scalar: which anchors are boxes, and how far these are off."""
        if self._detector is None or self._detector.network is not network:
            self._detector = detector_of(self._recipe, network).train()
        targets = [
            {"boxes": boxes.to(device), "labels": labels.to(device)}
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        # in single precision: MONAI refuses a number that half precision cannot hold
        image = with_lacking(self._recipe, augment.intensity(batch.image.to(device)))
        found = self._detector(image, targets)
        return torch.stack(list(found.values())).sum()

    def kept(self) -> dict[str, Any]:
        """What is saved beside the weights."""
        return {}
