"""With how many bits a training computes: half of float32's where the machine is faster with them."""

from __future__ import annotations

from functools import cache

import torch


def mixed(device: torch.device) -> torch.autocast:
    """A block in which a network trains with float16 on CUDA, with bfloat16 on a CPU that has instructions for it.

    Weights, losses and running averages stay float32 (Micikevicius et al., ICLR 2018). On other CPUs nothing changes:
    there bfloat16 is slower.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=device.type == "cuda" or fast_bfloat16())


@cache
def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32; False where this torch cannot tell."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return bool(tell and tell().get("avx512_bf16"))
