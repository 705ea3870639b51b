"""What an image looks like in a few numbers, without any model: for strategies that spread over images.

A coarse picture of it, how its intensities are distributed, and how large it is, on the grid and with the intensities
of the recipe. Strategies put every number on one scale over all studies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume

_COARSE = (4, 4, 3)
_SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_MOST = 100_000  # voxels that quantiles are taken of
_LARGEST = 5.0  # an intensity beyond that is metal, or noise


def image_embedding(recipe: Recipe, volume: Volume) -> np.ndarray:
    """(D,) float32, the same D for all studies of a recipe.

    Raises:
        BadImage: the study does not fit the recipe.
    """
    image, grid = Preprocess(recipe).image(volume)
    image = image.clamp(-_LARGEST, _LARGEST)
    coarse = functional.adaptive_avg_pool3d(image[None], _COARSE)[0]
    step = max(1, image[0].numel() // _MOST)
    spread = torch.quantile(image.flatten(1)[:, ::step], torch.tensor(_SHARES), dim=1)
    size = torch.tensor([n * mm for n, mm in zip(grid.shape, grid.spacing, strict=True)]).log()
    return torch.cat([coarse.flatten(), spread.flatten(), size]).numpy().astype(np.float32)
