"""Studies for an answer about the whole as tensors, and what a network is given of them beside their images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from radloop.engine.channels import with_lacking
from radloop.recipes.recipe import Recipe

_MIDDLE_SIZE = 7.0  # log of a thousand voxels


@dataclass(frozen=True)
class AnswerBatch:
    """Studies as tensors.

    Attributes:
        image: (N, channels, *space) float32, without the region's mask.
        region: (N, *space) uint8, zeros where the recipe names none.
        present: (N, z) bool for networks that take slices, else None.
        extra: (N, 2 * covariates) float32, or None where the recipe names none.
        truth: (N, K) float32, NaN where nobody looked; of kind `risk` (N, 2).
        gaps: (N, visits) time from each visit to the asked one, then NaN; `image`, `region` and `present` then have
            a row a visit. None where the recipe asks for no sequence.
    """

    image: torch.Tensor
    region: torch.Tensor
    present: torch.Tensor | None
    extra: torch.Tensor | None
    truth: torch.Tensor
    gaps: torch.Tensor | None = None


def takes_slices(recipe: Recipe) -> bool:
    """Whether the recipe's network takes a study as a sequence of slices, as many as there are."""
    return recipe.network.name.startswith("slices_")


def stack(
    recipe: Recipe,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    extra: np.ndarray | None = None,
    gaps: Sequence[Sequence[float]] | None = None,
) -> AnswerBatch:
    """A batch of studies that were cut; fewer slices are padded with zeros and told apart, fewer visits with NaN.

    Args:
        recipe: whose network.
        images: one a study, or of a sequence one a visit.
        truths: one a study.
        extra: (studies, 2 * covariates).
        gaps: of a sequence, of each study the time from each of its visits.
    """
    present = None
    if takes_slices(recipe):
        counts = [image.shape[3] for image in images]
        most = max(counts)
        images = [np.pad(i, [(0, 0)] * 3 + [(0, most - i.shape[3])]) for i in images]
        present = torch.tensor([[n < count for n in range(most)] for count in counts])
    whole = torch.from_numpy(np.stack(images).astype(np.float32))
    channels = len(recipe.channels)
    region = whole[:, channels] if recipe.answer.region else torch.zeros_like(whole[:, 0])
    return AnswerBatch(
        whole[:, :channels],
        region.to(torch.uint8),
        present,
        None if extra is None else torch.from_numpy(extra.astype(np.float32)),
        torch.from_numpy(np.stack(truths).astype(np.float32)),
        None if gaps is None else _padded(gaps),
    )


def _beside(
    recipe: Recipe, image: torch.Tensor, region: torch.Tensor, extra: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the network is given of a batch: (N, inputs, *space), and (N, `recipe.extras`) or None.

    Beside the study's channels these are the region's mask and the logarithm of its size, since pooling hides that,
    and which optional channels are lacking.
    """
    told, channels = with_lacking(recipe, image), len(recipe.channels)
    if not recipe.answer.region:
        return told, extra
    mask = region[:, None].to(image)
    size = mask.flatten(1).sum(1, keepdim=True).clamp(min=1).log() - _MIDDLE_SIZE
    extra = extra if extra is None else extra.to(size)
    whole = torch.cat([told[:, :channels], mask, told[:, channels:]], dim=1)
    return whole, size if extra is None else torch.cat([extra, size], dim=1)


def _padded(gaps: Sequence[Sequence[float]]) -> torch.Tensor:
    most = max(map(len, gaps))
    return torch.tensor([[*of, *[math.nan] * (most - len(of))] for of in gaps])


def network_inputs(recipe: Recipe, batch: AnswerBatch, device: torch.device) -> list[torch.Tensor | None]:
    """A batch as `radloop.networks.registry.build` says that networks take it, on a device."""
    image, extra = _beside(recipe, batch.image.to(device), batch.region.to(device), batch.extra)
    found = [image, *(None if of is None else of.to(device) for of in (batch.present, extra))]
    return found if batch.gaps is None else [*found, batch.gaps.to(device)]
