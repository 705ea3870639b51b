"""Convolutional networks: `unet` (plain) and `resunet` (residual) for masks, `cnn` for answers about a whole study.

The U-Nets are MONAI's DynUNet sized by the recipe, with instance normalisation and leaky ReLU as in nnU-Net (Isensee et
al., Nature Methods 2021).
"""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet
from torch import nn

from radloop.networks.blocks import LastLayer, Trunk, mean, mean_and_max, normalisation
from radloop.networks.registry import register
from radloop.networks.topology import topology
from radloop.recipes.recipe import STUDY_KINDS, Recipe

_FEWEST_RESOLUTIONS = 3  # DynUNet's own limit
_SMALLEST_BATCH = 8  # from which the mean of a batch tells enough about the mean of all


@register("unet", ("segmentation",))
def unet(recipe: Recipe) -> nn.Module:
    """A plain U-Net, two convolutions a resolution."""
    return dynunet(recipe, residual=False)


@register("resunet", ("segmentation",))
def resunet(recipe: Recipe) -> nn.Module:
    """A U-Net with residual blocks."""
    return dynunet(recipe, residual=True)


class Classifier(nn.Module):
    """A residual trunk, pooled: (N, C, *patch) to logits (N, outputs).

    Pictures in batches that are large enough get batch normalisation (Ioffe and Szegedy, ICML 2015) and are pooled by
    their mean, all else group normalisation, mean and largest value: of chest X-rays, on the fold that was hardest, the
    area under the ROC curve was .88 with one and .77 with the other (docs/benchmarks.md).
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        batches = recipe.dimension == 2 and recipe.fit.batch >= _SMALLEST_BATCH
        self.trunk = Trunk(recipe.inputs, topology(recipe), nn.BatchNorm2d if batches else normalisation)
        self.pool = mean if batches else mean_and_max
        self.last = LastLayer(self.trunk.width * (1 if batches else 2), recipe)

    def forward(self, image: torch.Tensor, present: None, extra: torch.Tensor | None) -> torch.Tensor:
        """Logits (N, outputs)."""
        return self.last(self.pool(self.trunk(image)), extra)


@register("cnn", STUDY_KINDS)
def cnn(recipe: Recipe) -> nn.Module:
    """A small residual network."""
    return Classifier(recipe)


def dynunet(recipe: Recipe, *, residual: bool, network: type[DynUNet] = DynUNet) -> nn.Module:
    """A DynUNet, or one derived from it, with the sizes of `topology(recipe)`."""
    sizes = topology(recipe)
    missing = max(0, _FEWEST_RESOLUTIONS - len(sizes.strides))
    flat = ((1,) * recipe.dimension,) * missing
    coarser = len(sizes.strides) + missing - 2  # all that DynUNet can supervise: none of its two coarsest
    strides = [list(row) for row in (*sizes.strides, *flat)]
    return network(
        spatial_dims=recipe.dimension,
        in_channels=recipe.inputs,
        out_channels=1 + len(recipe.labels),
        kernel_size=[list(row) for row in (*sizes.kernels, *sizes.kernels[-1:] * missing)],
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[*sizes.features, *sizes.features[-1:] * missing],
        res_block=residual,
        deep_supervision=recipe.network.deep_supervision,
        deep_supr_num=coarser,
    )
