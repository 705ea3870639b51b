"""`retinanet` for boxes: MONAI's RetinaNet (Lin et al., ICCV 2017) on a small residual trunk with a feature pyramid.

Group normalisation in the trunk and in the heads, so that a batch of 2 trains. Anchors follow from the strides alone:
nothing about the size of what is looked for has to be said, as anchors are matched by their centres (ATSS, Zhang et
al., CVPR 2020) and boxes are regressed.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from math import prod

import torch
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.apps.detection.utils.anchor_utils import AnchorGenerator
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from torch import nn

from radloop.networks.blocks import Residual, Trunk
from radloop.networks.registry import register
from radloop.networks.topology import topology
from radloop.recipes.recipe import Recipe

_LEVELS = 3  # of the pyramid: the coarsest resolutions
_GROUPS = 8  # of the heads' normalisation
_ANCHOR = 3.0  # strides; an anchor's smallest size
_OCTAVES = {2: (1.0, 2 ** (1 / 2)), 3: (1.0, 2 ** (1 / 3), 2 ** (2 / 3))}
_SHAPES = {2: ((1.0, 1.0), (2**-0.5, 2**0.5), (2**0.5, 2**-0.5)), 3: ((1.0, 1.0, 1.0),)}


class Pyramid(nn.Module):
    """The trunk's coarsest resolutions, each told what the coarser ones see.

    Attributes:
        out_channels: of every level.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        sizes = topology(recipe)
        self.trunk = Trunk(recipe.inputs, sizes)
        self._levels = min(_LEVELS, len(sizes.features))
        self.out_channels = max(_GROUPS, sizes.features[-1] // 2 // _GROUPS * _GROUPS)
        self.pyramid = FeaturePyramidNetwork(
            recipe.dimension, list(sizes.features[-self._levels :]), self.out_channels, extra_blocks=None
        )

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, C, *space) to level -> (N, out_channels, *space over its stride), the finest first."""
        blocks, found = 0, []
        for layer in self.trunk:
            image = layer(image)
            if isinstance(layer, Residual):
                blocks += 1
                if blocks % 2 == 0:  # two a resolution
                    found.append(image)
        levels = found[-self._levels :]
        told: dict[str, torch.Tensor] = self.pyramid(OrderedDict((str(n), level) for n, level in enumerate(levels)))
        return told


class BoxNetwork(RetinaNet):
    """MONAI's RetinaNet with the anchors that its weights belong to.

    Attributes:
        anchors: boxes around every place of every level.
    """

    def __init__(self, recipe: Recipe) -> None:
        strides = topology(recipe).strides
        levels = min(_LEVELS, len(strides))
        shapes = anchor_shapes(recipe)
        total = tuple(prod(axis) for axis in zip(*strides, strict=True))
        super().__init__(recipe.dimension, len(recipe.labels), len(shapes[0]), Pyramid(recipe), total)
        ratio = 1.0 if recipe.dimension == 2 else (1.0, 1.0)
        self.anchors = AnchorGenerator(((1,),) * levels, ((ratio,),) * levels)
        # MONAI's anchors have one size for all axes; ours follow the strides, which are larger across thin slices
        self.anchors.cell_anchors = [torch.cat([-s / 2, s / 2], 1) for s in map(torch.tensor, shapes)]


@register("retinanet", ("detection",))
def retinanet(recipe: Recipe) -> nn.Module:
    """RetinaNet on a small trunk."""
    return BoxNetwork(recipe)


def anchor_shapes(recipe: Recipe) -> list[list[tuple[float, ...]]]:
    """Of every level of the pyramid, the finest first, the anchors' sizes in voxels."""
    strides = topology(recipe).strides
    totals = [tuple(prod(axis) for axis in zip(*strides[: n + 1], strict=True)) for n in range(len(strides))]
    octaves, shapes = _OCTAVES[recipe.dimension], _SHAPES[recipe.dimension]
    return [
        [
            tuple(_ANCHOR * scale * ratio * stride for ratio, stride in zip(shape, total, strict=True))
            for scale, shape in itertools.product(octaves, shapes)
        ]
        for total in totals[-_LEVELS:]
    ]
