"""Convolutional U-Nets: `unet` (plain) and `resunet` (residual), MONAI's DynUNet sized by the recipe.

Instance normalisation and leaky ReLU as in nnU-Net (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

from monai.networks.nets import DynUNet
from torch import nn

from radloop.networks.registry import register
from radloop.networks.topology import topology
from radloop.recipes.recipe import Recipe

_FEWEST_RESOLUTIONS = 3  # DynUNet's own limit


@register("unet")
def unet(recipe: Recipe) -> nn.Module:
    """A plain U-Net, two convolutions a resolution."""
    return _dynunet(recipe, residual=False)


@register("resunet")
def resunet(recipe: Recipe) -> nn.Module:
    """A U-Net with residual blocks."""
    return _dynunet(recipe, residual=True)


def _dynunet(recipe: Recipe, *, residual: bool) -> nn.Module:
    sizes = topology(recipe)
    missing = max(0, _FEWEST_RESOLUTIONS - len(sizes.strides))
    flat = ((1,) * recipe.dimension,) * missing
    strides = [list(row) for row in (*sizes.strides, *flat)]
    return DynUNet(
        spatial_dims=recipe.dimension,
        in_channels=len(recipe.channels),
        out_channels=1 + len(recipe.labels),
        kernel_size=[list(row) for row in (*sizes.kernels, *sizes.kernels[-1:] * missing)],
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[*sizes.features, *sizes.features[-1:] * missing],
        res_block=residual,
    )
