"""Intensities as a network likes them, in float32 and in place: a large CT is never copied for it."""

from __future__ import annotations

import torch

from radloop.recipes.recipe import Preprocess

# More voxels than this say nothing new about a percentile.
SAMPLE = 1_000_000


def normalise(image: torch.Tensor, how: Preprocess) -> torch.Tensor:
    """The image (C, x, y, z) float32, changed in place, each channel for itself.

    `zscore`: mean 0 and deviation 1; `ct`: clipped to the window (HU), minus mean, over deviation (nnU-Net, Isensee et
    al. 2021); `rescale`: 0.5-99.5 percentiles to 0-1, what lies beyond is clipped. A constant channel becomes 0.
    """
    if how.normalise == "ct":
        return image.clamp_(*how.window).sub_(how.mean).div_(how.deviation)
    change = _zscore if how.normalise == "zscore" else _rescale
    for channel in image:
        change(channel)
    return image


def _zscore(channel: torch.Tensor) -> None:
    low, high = torch.aminmax(channel)
    if low == high:
        channel.zero_()
        return
    # To 0-1 first: then neither a large offset nor a large range costs digits of the mean and the deviation.
    channel.sub_(low).div_(high - low)
    channel.sub_(channel.mean())
    channel.div_(channel.std(correction=0))


def _rescale(channel: torch.Tensor) -> None:
    flat = channel.flatten()
    sample = flat[:: max(1, flat.numel() // SAMPLE)]
    low, high = torch.quantile(sample, torch.tensor([0.005, 0.995], device=flat.device))
    if low == high:  # a picture that is nearly all background
        low, high = torch.aminmax(channel)
    if low == high:
        channel.zero_()
        return
    channel.sub_(low).div_(high - low).clamp_(0, 1)
