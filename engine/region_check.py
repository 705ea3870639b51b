"""Whether a network can look at a study: a picture where it takes pictures, a region's mask that says where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.evaluation.lesion_sizes import count_lesions
from radloop.recipes.errors import BadImage, BadLabel
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume


def check_picture(recipe: Recipe, slices: int) -> None:
    """Refuse a study of several slices where a recipe looks at one picture.

    Raises:
        BadImage: it is one.
    """
    if recipe.dimension == 2 and slices > 1:
        msg = f"the study has {slices} slices; recipe {recipe.name!r} looks at one picture (dimension = 2)"
        raise BadImage(msg)


def check_region(recipe: Recipe, region: Volume, shape: Sequence[int], affine: np.ndarray) -> None:
    """Refuse a region's mask that a network of the recipe cannot go by.

    Args:
        recipe: whose region.
        region: the mask.
        shape: voxels of the study's file.
        affine: 4x4, its voxels -> RAS world in mm.

    Raises:
        BadLabel: it lies on other voxels than the study, is empty, or has several lesions where one is asked for.
    """
    same = region.same_grid(Volume(np.broadcast_to(np.False_, (1, *shape)), affine))
    if not same or not region.array.any():
        what = "is empty" if same else f"has {region.shape} voxels, the study {tuple(shape)}"
        msg = f"the region's mask {what}; it must show where to look"
        raise BadLabel(msg)
    if recipe.answer.per == "lesion" and (count := count_lesions(region.array[0] > 0)) > 1:
        msg = f"there are {count} lesions, and one answer does not say of which; leave this study out"
        raise BadLabel(msg)
