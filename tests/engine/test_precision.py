from __future__ import annotations

from pathlib import Path

import pytest
import torch

from radloop.engine import precision
from radloop.engine.losses import dice_ce
from radloop.networks.registry import build
from radloop.recipes.recipe import Recipe


def gradient(network: torch.nn.Module, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    network.zero_grad()
    with precision.training_precision(torch.device("cpu")):
        logits = network(image)
    dice_ce(logits, label, torch.ones(len(image), 3, dtype=torch.bool)).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def test_a_step_in_16_bits_goes_where_one_in_32_goes(toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, image = build(toy_recipe), torch.randn(2, 1, 16, 16, 16)
    label = (image[:, 0] > 0.5).to(torch.uint8)
    found = []
    for fast in (False, True):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda fast=fast: fast)
        found.append(gradient(network, image, label))
    assert found[0].dtype == found[1].dtype == torch.float32
    assert not torch.equal(*found)
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99


def test_16_bits_are_used_where_the_processor_says_so() -> None:
    told = Path("/proc/cpuinfo")
    if not told.is_file():
        pytest.skip("this system does not list its processor's instructions")
    assert precision.multiplies_bfloat16() == any(name in told.read_text() for name in ("avx512_bf16", "amx_bf16"))
