"""What the classifiers share: a small residual trunk, pooling, places on a grid, and the last layer.

Group normalisation (Wu and He, ECCV 2018), unless a network asks for another: what is learned does not depend on the
batch, and a batch of 1 trains.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, gcd

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from radloop.networks.topology import Topology
from radloop.recipes.recipe import Recipe

DROPOUT = 0.1
Normalise = Callable[[int], nn.Module]
_MOST_GROUPS = 8
_LONGEST_WAVE = 100.0  # voxels of the grid, over 2 pi


def convolution(channels: tuple[int, int], kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
    """A convolution without bias, in as many dimensions as the kernel has; at stride 1 it keeps the size."""
    # a kernel smaller than its stride would leave out voxels
    size = tuple(max(k, 2 * s - 1) for k, s in zip(kernel, stride, strict=True))
    return Conv["conv", len(size)](*channels, size, stride, tuple(k // 2 for k in size), bias=False)


def normalisation(channels: int) -> nn.GroupNorm:
    """Group normalisation over at most 8 groups, of at least 4 channels where there are as many."""
    return nn.GroupNorm(gcd(_MOST_GROUPS, channels, max(1, channels // 4)), channels)


class Residual(nn.Module):
    """Two convolutions and a shortcut (He et al., CVPR 2016), the second one silent at first."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        normalise: Normalise = normalisation,
    ) -> None:
        super().__init__()
        before, after = channels
        self.body = nn.Sequential(
            convolution((before, after), kernel, stride),
            normalise(after),
            nn.ReLU(inplace=True),
            convolution((after, after), kernel, (1,) * len(kernel)),
            normalise(after),
        )
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]
        same = before == after and set(stride) == {1}
        self.shortcut = nn.Identity() if same else convolution(channels, (1,) * len(kernel), stride)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, before, *space) to (N, after, *space over stride)."""
        return torch.relu(self.body(image) + self.shortcut(image))


class Trunk(nn.Sequential):
    """A residual encoder: a strided stem, then two residual blocks a resolution.

    Attributes:
        width: channels that come out.
    """

    def __init__(self, inputs: int, sizes: Topology, normalise: Normalise = normalisation) -> None:
        first = sizes.features[0]
        layers = [convolution((inputs, first), sizes.kernels[0], sizes.strides[0]), normalise(first), nn.ReLU()]
        before, flat = first, (1,) * len(sizes.strides[0])
        for number, (after, kernel, stride) in enumerate(
            zip(sizes.features, sizes.kernels, sizes.strides, strict=True)
        ):
            layers.append(Residual((before, after), kernel, stride if number else flat, normalise))
            layers.append(Residual((after, after), kernel, flat, normalise))
            before = after
        super().__init__(*layers)
        self.width = before


def mean(features: torch.Tensor) -> torch.Tensor:
    """(N, C, *space) to (N, C)."""
    return features.flatten(2).mean(2)


def mean_and_max(features: torch.Tensor) -> torch.Tensor:
    """(N, C, *space) to (N, 2 C): the mean, for what is everywhere, and the largest, for what is in one place."""
    flat = features.flatten(2)
    return torch.cat([flat.mean(2), flat.amax(2)], 1)


def places(shape: tuple[int, ...], width: int, device: torch.device) -> torch.Tensor:
    """(voxels of `shape`, width) sines and cosines of where each voxel lies; nothing is learned, so any size fits."""
    waves = ceil(width / (2 * len(shape)))
    rates = _LONGEST_WAVE ** -(torch.arange(waves, device=device) / waves)
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in shape), indexing="ij")
    angles = torch.stack(axes, -1).flatten(0, -2)[:, None, :] * rates[None, :, None]  # (voxels, waves, axes)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


class LastLayer(nn.Module):
    """Features of a study and what is known beside its image, to logits."""

    def __init__(self, width: int, recipe: Recipe) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.linear = nn.Linear(width + recipe.extras, recipe.outputs)

    def forward(self, features: torch.Tensor, extra: torch.Tensor | None) -> torch.Tensor:
        """(N, width) and (N, `recipe.extras`), or None where that is 0, to (N, outputs)."""
        features = self.dropout(features)
        return self.linear(features if extra is None else torch.cat([features, extra], 1))
