"""Networks with self-attention: `slices_attention`, `vit` and, for masks, `unet_attention`.

Positions are fixed sines, so that weights fit any size. The vision transformer begins with convolutions and ends with
pooling, which little data asks for (Xiao et al., NeurIPS 2021; Beyer et al., arXiv 2205.01580).
"""

from __future__ import annotations

from math import gcd

import torch
from monai.networks.nets import DynUNet
from torch import nn

from radloop.networks.blocks import DROPOUT, LastLayer, convolution, mean_and_max, normalisation, places
from radloop.networks.cnn import dynunet
from radloop.networks.registry import register
from radloop.networks.slices import Readout, SliceEncoder, SliceNetwork
from radloop.networks.topology import topology
from radloop.recipes.recipe import STUDY_KINDS, Recipe

_HEAD = 32  # numbers of a token that one attention head sees
_LAYERS = {"slices": 2, "vit": 4, "bottleneck": 2}


class Attention(nn.ModuleList):
    """Transformer layers, normalised first: every token looks at every real one."""

    def __init__(self, width: int, layers: int) -> None:
        heads = gcd(width, max(1, width // _HEAD))
        super().__init__(_layer(width, heads) for _ in range(layers))

    def forward(self, tokens: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(N, n, width) to the same; `real` (N, n) is False where there is only padding."""
        hidden = None if real is None else ~real
        for layer in self:
            tokens = layer(tokens, src_key_padding_mask=hidden)
        return tokens


def _layer(width: int, heads: int) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, DROPOUT, activation="gelu", batch_first=True, norm_first=True
    )
    layer.self_attn.dropout = 0.0  # on attention itself it takes a third of a step and most of the memory
    return layer


class GridAttention(nn.Module):
    """Attention between all voxels of a coarse grid, which know where they lie."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = Attention(width, layers)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, width, *space) to the same."""
        width, *shape = features.shape[1:]
        tokens = features.flatten(2).movedim(1, 2)
        tokens = self.layers(tokens + places(tuple(shape), width, tokens.device))
        return tokens.movedim(1, 2).unflatten(2, shape)


class VisionTransformer(nn.Module):
    """A convolutional stem makes tokens, attention relates them, pooling reads them: (N, C, *patch) to (N, outputs)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        sizes = topology(recipe)
        stem: list[nn.Module] = []
        before, width = recipe.inputs, sizes.features[-1]
        for after, kernel, stride in zip(sizes.features, sizes.kernels, sizes.strides, strict=True):
            stem += [convolution((before, after), kernel, stride), normalisation(after), nn.GELU()]
            before = after
        point = (1,) * recipe.dimension
        self.stem = nn.Sequential(*stem, convolution((width, width), point, point))
        self.attention = GridAttention(width, _LAYERS["vit"])
        self.norm = nn.LayerNorm(2 * width)
        self.last = LastLayer(2 * width, recipe)

    def forward(self, image: torch.Tensor, present: None, extra: torch.Tensor | None) -> torch.Tensor:
        """Logits (N, outputs)."""
        return self.last(self.norm(mean_and_max(self.attention(self.stem(image)))), extra)


class AttentionUNet(DynUNet):
    """MONAI's DynUNet with self-attention after its coarsest convolutions."""

    def get_bottleneck(self) -> nn.Module:
        """The coarsest convolutions, then attention."""
        return nn.Sequential(super().get_bottleneck(), GridAttention(self.filters[-1], _LAYERS["bottleneck"]))


@register("slices_attention", STUDY_KINDS, dimensions=(3,))
def slices_attention(recipe: Recipe) -> nn.Module:
    """Self-attention over slices."""
    encoder = SliceEncoder(recipe)
    return SliceNetwork(recipe, encoder, Attention(encoder.width, _LAYERS["slices"]), Readout(encoder.width, asks=True))


@register("vit", STUDY_KINDS)
def vit(recipe: Recipe) -> nn.Module:
    """A small vision transformer."""
    return VisionTransformer(recipe)


@register("unet_attention", ("segmentation",))
def unet_attention(recipe: Recipe) -> nn.Module:
    """The plain U-Net with self-attention in the bottleneck."""
    return dynunet(recipe, residual=False, network=AttentionUNet)
