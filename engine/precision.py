"""In how many bits a training multiplies; weights, gradients of weights, losses and answers stay in 32."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def training_precision(device: torch.device) -> torch.autocast:
    """A block for a network's forward pass: 16 bits where the device is made for them, else 32.

    float16 on CUDA; bfloat16 on processors with AVX-512 BF16 or AMX, where a step of a 3D network takes about half as
    long. bfloat16 has the range of 32 bits, so no loss has to be scaled.
    """
    if device.type == "cuda":
        return torch.autocast("cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu" and multiplies_bfloat16())


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them it would be slower than 32 bits."""
    told = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not told.is_file():
        return False
    flags = next((line for line in told.read_text(errors="replace").splitlines() if line.startswith("flags")), "")
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
