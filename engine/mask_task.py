"""Learning to draw a mask: what `fit` needs of the kind segmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from radloop.engine.augment import Augment
from radloop.engine.channels import with_lacking
from radloop.engine.losses import deep_dice_ce, dice_ce
from radloop.engine.patches import Batch, PatchSource
from radloop.engine.precision import training_precision
from radloop.engine.prepared import Prepared, PreparedSet, prepare
from radloop.recipes.recipe import Recipe


class MaskTask:
    """One training's data and loss.

    Args:
        recipe: a recipe of this kind.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def prepare(self, cases: Sequence[Any], cache: Path, step: Callable[[int], None] | None) -> PreparedSet:
        """See `radloop.engine.prepared.prepare`."""
        return prepare(self._recipe, cases, cache, step)

    def source(self, cases: Sequence[Prepared], seed: int) -> PatchSource:
        """Patches of these cases."""
        return PatchSource(self._recipe, cases, seed)

    def loss(self, network: nn.Module, batch: Batch, augment: Augment, device: torch.device) -> torch.Tensor:
        """Of one batch; a scalar."""
        image, label = augment(batch.image.to(device), batch.label.to(device))
        with training_precision(device):
            logits = network(with_lacking(self._recipe, image))
        loss = deep_dice_ce if self._recipe.network.deep_supervision else dice_ce
        return loss(logits, label, batch.known.to(device), by_patch=self._recipe.fit.dice == "patch")

    def kept(self) -> dict[str, Any]:
        """What is saved beside the weights."""
        return {}
