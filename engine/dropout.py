"""Several looks of one network: dropout while it answers (Gal and Ghahramani, ICML 2016).

A network that was trained with dropout uses its own layers. The U-Nets and detectors have none: there whole channels
are dropped after each normalisation, which tells studies apart though the network was not trained so (Loquercio et al.,
A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

RATE = 0.05
_NORMALISING = (nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm)
Hook = Callable[[nn.Module, object, torch.Tensor], torch.Tensor]


@contextmanager
def dropping(network: nn.Module, seed: int, rate: float = RATE) -> Iterator[None]:
    """Within it the network drops; the same seed drops the same. Nobody else may ask this network meanwhile.

    Args:
        rate: share of the channels dropped in a network without dropout of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    own: list[tuple[nn.Module, float]] = [
        (layer, layer.p) for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0
    ]
    chosen = own or [(layer, rate) for layer in network.modules() if isinstance(layer, _NORMALISING)]
    handles = [layer.register_forward_hook(_dropper(p, generator, whole=not own)) for layer, p in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dropper(rate: float, generator: torch.Generator, *, whole: bool) -> Hook:
    def drop(_layer: nn.Module, _given: object, found: torch.Tensor) -> torch.Tensor:
        shape = (*found.shape[:2], *(1,) * (found.dim() - 2)) if whole else tuple(found.shape)
        kept = torch.rand(shape, generator=generator) >= rate
        return found * kept.to(found) / (1 - rate)

    return drop
