"""Channels that a study may lack: zeros stand for them, and the network is told which they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume


def lacking(recipe: Recipe, volume: Volume) -> tuple[str, ...]:
    """Names of the channels that a study lacks."""
    return tuple(recipe.channels[place] for place in volume.missing)


def lacking_words(names: Sequence[str]) -> list[str]:
    """A warning a channel."""
    return [f"channel {name} is missing; it counted as unknown" for name in names]


def with_lacking(recipe: Recipe, image: torch.Tensor) -> torch.Tensor:
    """(N, channels + optional, *space): an image, and after it a channel of ones for each optional one it lacks.

    A channel that is 0 throughout counts as lacking: there is nothing to see in it either way.
    """
    if not recipe.optional:
        return image
    gone = [_nothing(image[:, place]) for place in recipe.may_lack]
    told = torch.stack(gone, dim=1).to(image).reshape(len(image), len(gone), *(1,) * (image.dim() - 2))
    return torch.cat([image, told.expand(-1, -1, *image.shape[2:])], dim=1)


def _nothing(channel: torch.Tensor) -> torch.Tensor:
    """(N,) bool: whether it is 0 throughout."""
    return ~(channel != 0).flatten(1).any(dim=1)
