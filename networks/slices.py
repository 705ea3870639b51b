"""Answers from a study's slices: one 2D encoder for all `slices_` networks, what looks across, and what is read out.

`slices_pool` looks across by nothing but pooling; rnn.py and transformer.py have the others. At equal features the
encoder is the same, so that they compare. Padding is left out before the first convolution: it cannot change an answer.
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from radloop.networks.blocks import LastLayer, Trunk, mean_and_max
from radloop.networks.registry import register
from radloop.networks.topology import topology
from radloop.recipes.recipe import STUDY_KINDS, Recipe

_PIXELS_AT_ONCE = 2**21  # 8 slices of 512 x 512
_WAVES = (1, 2, 4, 8)
_PLACE = 2 + 2 * len(_WAVES)
_MANY_SLICES = 200


class SliceEncoder(nn.Module):
    """Each slice with its two neighbours, and its place in the study, to a vector.

    Attributes:
        width: numbers in that vector.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.trunk = Trunk(3 * recipe.inputs, topology(recipe).in_plane)
        self.width = self.trunk.width
        self.join = nn.Sequential(nn.Linear(2 * self.width + _PLACE, self.width), nn.LayerNorm(self.width))

    def forward(self, image: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, C, x, y, z) and (N, z) to vectors (N, most slices, width), padding last and 0, and which are real."""
        lengths = present.sum(1)
        if int(lengths.min()) < 1:
            msg = "a study in the batch has no slice: present is False all along one row"
            raise ValueError(msg)
        real = torch.arange(int(lengths.max()), device=present.device) < lengths[:, None]
        place = _place(real)[real]
        vectors = self.join(torch.cat([self._encode(image, present), place], 1))
        sequence = vectors.new_zeros(*real.shape, self.width)
        sequence[real] = vectors
        return sequence, real

    def _encode(self, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """All real slices of all studies, some at a time; in training what a part needs is computed again later."""
        planes, neighbours = image.movedim(-1, 1), _neighbours(present)
        at_once = max(1, _PIXELS_AT_ONCE // image[0, 0, :, :, 0].numel())
        parts = neighbours.split(at_once)
        again = len(parts) > 1 and torch.is_grad_enabled()

        def encode(part: torch.Tensor) -> torch.Tensor:
            slices = planes[part // present.shape[1], part % present.shape[1]]  # (n, 3, C, x, y)
            return mean_and_max(self.trunk(slices.flatten(1, 2)))

        return torch.cat([checkpoint(encode, part, use_reentrant=False) if again else encode(part) for part in parts])


class SliceNetwork(nn.Module):
    """The encoder, a layer that looks across slices, and a readout: (N, C, x, y, z) to logits (N, outputs)."""

    def __init__(self, recipe: Recipe, encoder: SliceEncoder, across: nn.Module | None, readout: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.across = across
        self.readout = readout
        self.last = LastLayer(readout.width, recipe)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, present: torch.Tensor, extra: torch.Tensor | None) -> torch.Tensor:
        """Logits (N, outputs)."""
        return self.slices(image, present, extra)[0]

    def slices(
        self, image: torch.Tensor, present: torch.Tensor, extra: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, outputs), and what each slice weighed (N, z): 0 for padding, 1 in all."""
        sequence, real = self.encoder(image, present)
        if self.across is not None:
            sequence = self.across(sequence, real)
        pooled, weights = self.readout(sequence, real)
        evidence = weights.new_zeros(present.shape)
        evidence[present] = weights[real]
        return self.last(pooled, extra), evidence


class Readout(nn.Module):
    """The mean and the largest over slices; with `asks`, the mean of what answers a learned question best.

    A slice weighs its part of the mean and the share of maxima it holds, half and half.
    """

    def __init__(self, width: int, *, asks: bool) -> None:
        super().__init__()
        self.width = 2 * width
        self.question = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1)) if asks else None

    def forward(self, sequence: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, n, width) to (N, 2 width) and weights (N, n)."""
        score = (
            torch.zeros_like(real, dtype=torch.float32) if self.question is None else self.question(sequence)[..., 0]
        )
        weights = score.float().masked_fill(~real, -torch.inf).softmax(1)
        largest, holder = sequence.masked_fill(~real[..., None], -torch.inf).max(1)
        held = torch.zeros_like(weights).scatter_add_(1, holder, torch.ones_like(largest, dtype=weights.dtype))
        mean = (weights[..., None] * sequence).sum(1)
        return torch.cat([mean, largest], 1), (weights + held / holder.shape[1]) / 2


@register("slices_pool", STUDY_KINDS, dimensions=(3,))
def slices_pool(recipe: Recipe) -> nn.Module:
    """Slices are encoded one by one and pooled."""
    encoder = SliceEncoder(recipe)
    return SliceNetwork(recipe, encoder, None, Readout(encoder.width, asks=False))


def _neighbours(present: torch.Tensor) -> torch.Tensor:
    """(slices, 3) numbers of the real slice before, itself and the one after; at an end of a study itself again."""
    here = present.flatten().nonzero()[:, 0]
    study = here // present.shape[1]
    same = study[1:] == study[:-1]
    before, after = here.clone(), here.clone()
    before[1:] = torch.where(same, here[:-1], here[1:])
    after[:-1] = torch.where(same, here[1:], here[:-1])
    return torch.stack([before, here, after], 1)


def _place(real: torch.Tensor) -> torch.Tensor:
    """(N, n, _PLACE): where each slice lies between the ends of its study, 0..1, and how many slices there are."""
    count = real.sum(1, keepdim=True).float()
    place = (torch.arange(real.shape[1], device=real.device) + 0.5) / count
    angles = pi * place[..., None] * torch.tensor(_WAVES, device=real.device)
    size = (count.log() / log(_MANY_SLICES)).expand_as(place)
    return torch.cat([place[..., None], size[..., None], angles.sin(), angles.cos()], -1)
