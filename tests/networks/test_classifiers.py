"""What every network for answers about a whole study must do, whatever its name and the recipe's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from radloop.engine.weights import load_weights, save_weights
from radloop.networks import slices
from radloop.networks.registry import build, names
from radloop.recipes.recipe import CLASS_KINDS, Kind, Recipe

SLICES = tuple(name for name in names() if name.startswith("slices_"))
ALL = [
    (name, dimension)
    for name in names("classification")
    for dimension in (2, 3)
    if dimension == 3 or name not in SLICES
]
each = pytest.mark.parametrize(("name", "dimension"), ALL)
each_of_slices = pytest.mark.parametrize("name", SLICES)

Inputs = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def recipe(name: str, dimension: int = 3, kind: Kind = "classification", batch: int = 2, **answer: Any) -> Recipe:
    return Recipe(
        name="toy",
        kind=kind,
        dimension=dimension,
        labels={"a": 1, "b": 2, "c": 3},
        answer=answer,
        fit={"patch": (12,) * dimension, "batch": batch},
        network={"name": name, "features": (8, 16, 32, 64)},
    )


def default(name: str, dimension: int, patch: int) -> Recipe:
    """Of a classifier with the sizes that the network itself chooses."""
    return Recipe(
        name="toy",
        kind="classification",
        dimension=dimension,
        labels={"a": 1, "b": 2},
        fit={"patch": (patch,) * dimension},
        network={"name": name},
    )


def inputs(asked: Recipe, count: int, slices: int = 6) -> Inputs:
    """A batch; where the network takes slices, every second study has one slice less."""
    shape = asked.fit.patch
    present = None
    if asked.network.name in SLICES:
        shape = (*shape[:2], slices)
        present = torch.ones(count, slices, dtype=torch.bool)
        present[1::2, -1] = False
    width = asked.extras
    return torch.randn(count, asked.inputs, *shape), present, torch.randn(count, width) if width else None


@torch.enable_grad()
def ready(asked: Recipe) -> nn.Module:
    """A network after two steps, so that no layer is as silent as at its start."""
    torch.manual_seed(0)
    network = build(asked)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        network(*inputs(asked, 2)).square().sum().backward()
        optimiser.step()
    return network.eval()


def loss(kind: str, logits: torch.Tensor, grade: torch.Tensor) -> torch.Tensor:
    if kind == "classification":
        return functional.cross_entropy(logits, grade)
    if kind == "ordinal":
        target = (grade[:, None] > torch.arange(2)).float()
    else:
        target = (grade[:, None] == torch.arange(3)).float()
    return functional.binary_cross_entropy_with_logits(logits, target)


@each
@pytest.mark.parametrize("kind", CLASS_KINDS)
def test_a_few_steps_lower_the_loss(name: str, dimension: int, kind: Kind) -> None:
    asked = recipe(name, dimension, kind)
    torch.manual_seed(0)
    network = build(asked)
    image, present, extra = inputs(asked, 6)
    grade = torch.arange(6) % 3
    image = image + grade.view(-1, *[1] * (dimension + 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        logits = network(image, present, extra)
        assert logits.shape == (6, asked.outputs)
        assert logits.dtype == torch.float32
        each_loss = loss(kind, logits, grade)
        each_loss.backward()
        optimiser.step()
        losses.append(each_loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("kind", CLASS_KINDS)
def test_pictures_in_larger_batches_are_normalised_by_them_and_learned(kind: Kind) -> None:
    asked = recipe("cnn", 2, kind, batch=18)
    torch.manual_seed(0)
    network = build(asked)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    image, _, _ = inputs(asked, 18)
    grade = torch.arange(18) % 3
    image = image + grade.view(-1, 1, 1, 1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        each_loss = loss(kind, network(image, None, None), grade)
        each_loss.backward()
        optimiser.step()
        losses.append(each_loss.item())
    assert losses[-1] < 0.5 * losses[0]
    network.eval()
    with torch.no_grad():
        together = network(image, None, None)
        assert torch.allclose(network(image[:1], None, None), together[:1], atol=1e-5)


@each
@torch.no_grad()
def test_an_answer_is_the_same_again_alone_and_in_a_batch(name: str, dimension: int) -> None:
    asked = recipe(name, dimension, covariates=("age", "sex"))
    network = ready(asked)
    image, present, extra = inputs(asked, 3)
    together = network(image, present, extra)
    assert torch.equal(together, network(image, present, extra))
    for i in range(3):
        one = slice(i, i + 1)
        alone = network(image[one], None if present is None else present[one], extra[one])
        assert torch.allclose(alone, together[one], atol=1e-5)


@each
def test_a_batch_of_one_trains(name: str, dimension: int) -> None:
    asked = recipe(name, dimension)
    build(asked).train()(*inputs(asked, 1)).sum().backward()


@each
@torch.no_grad()
def test_covariates_and_the_region_are_seen(name: str, dimension: int) -> None:
    asked = recipe(name, dimension, covariates=("age",), region="lung")
    assert asked.inputs == 2
    network = ready(asked)
    image, present, extra = inputs(asked, 1)
    answer = network(image, present, extra)
    assert not torch.allclose(answer, network(image, present, extra + 1), atol=1e-4)
    without = image.clone()
    without[:, 1] = 0
    assert not torch.allclose(answer, network(without, present, extra), atol=1e-4)


@each
def test_weights_go_through_a_file_into_a_fresh_network(name: str, dimension: int, tmp_path: Path) -> None:
    asked = recipe(name, dimension, covariates=("age",))
    network, fresh = ready(asked), build(asked).eval()
    given = inputs(asked, 2)
    assert not torch.equal(network(*given), fresh(*given))
    save_weights(network, tmp_path / "model.pt")
    load_weights(fresh, tmp_path / "model.pt")
    assert torch.equal(network(*given), fresh(*given))


@each
def test_default_sizes_are_small(name: str, dimension: int) -> None:
    patch = 224 if dimension == 2 else 64
    assert sum(p.numel() for p in build(default(name, dimension, patch)).parameters()) < 4e6


@each_of_slices
@torch.no_grad()
def test_padding_changes_nothing(name: str) -> None:
    asked = recipe(name)
    network = ready(asked)
    image, present, extra = inputs(asked, 2)
    logits, evidence = network.slices(image, present, extra)
    padding = torch.full((*image.shape[:-1], 5), torch.nan)  # any value read from it would show
    padded = torch.cat([padding, image, padding], -1)
    none = torch.zeros(2, 5, dtype=torch.bool)
    answer, weights = network.slices(padded, torch.cat([none, present, none], 1), extra)
    assert torch.allclose(answer, logits, atol=1e-5)
    assert torch.allclose(weights[:, 5:-5], evidence, atol=1e-5)
    assert not weights[:, :5].any()
    assert not weights[:, -5:].any()


@each_of_slices
@torch.no_grad()
def test_evidence_is_a_share_of_each_slice(name: str) -> None:
    asked = recipe(name)
    network = ready(asked)
    image, present, extra = inputs(asked, 2)
    logits, evidence = network.slices(image, present, extra)
    assert torch.equal(logits, network(image, present, extra))
    assert evidence.shape == present.shape
    assert (evidence[present] > 0).all()
    assert not evidence[~present].any()
    assert torch.allclose(evidence.sum(1), torch.ones(2), atol=1e-5)


@each_of_slices
@torch.no_grad()
@pytest.mark.parametrize("count", [1, 200])
def test_one_slice_and_many_work(name: str, count: int) -> None:
    asked = recipe(name)
    logits, evidence = ready(asked).slices(
        torch.randn(1, 1, 12, 12, count), torch.ones(1, count, dtype=torch.bool), None
    )
    assert logits.isfinite().all()
    assert evidence.sum().item() == pytest.approx(1, abs=1e-4)


@each_of_slices
@torch.no_grad()
def test_place_and_number_of_slices_are_seen(name: str) -> None:
    """Slices that are all alike differ by nothing else."""
    network = ready(recipe(name))
    one, many = (network(torch.ones(1, 1, 12, 12, n), torch.ones(1, n, dtype=torch.bool), None) for n in (4, 40))
    assert not torch.allclose(one, many, atol=1e-4)
    ramp = torch.linspace(-1, 1, 6).expand(1, 1, 12, 12, 6)
    present = torch.ones(1, 6, dtype=torch.bool)
    assert not torch.allclose(network(ramp, present, None), network(ramp.flip(-1), present, None), atol=1e-4)


def test_all_heads_share_one_encoder() -> None:
    shapes = {
        name: {key: value.shape for key, value in build(recipe(name)).encoder.state_dict().items()} for name in SLICES
    }
    assert len(shapes) == 4
    assert all(shape == shapes["slices_pool"] for shape in shapes.values())


def test_a_study_without_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="no slice"):
        build(recipe("slices_pool"))(torch.zeros(1, 1, 12, 12, 2), torch.zeros(1, 2, dtype=torch.bool), None)


@torch.no_grad()
def test_many_large_slices_go_through_the_encoder_some_at_a_time() -> None:
    network = build(default("slices_pool", 3, 512)).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
    network(torch.zeros(2, 1, 512, 512, 10), torch.ones(2, 10, dtype=torch.bool), None)
    assert max(seen) <= 3 * 8 * 512 * 512


@each_of_slices
def test_parts_learn_the_same_as_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(name)
    network = ready(asked)
    given = inputs(asked, 2)
    gradients = []
    for pixels in (slices._PIXELS_AT_ONCE, 3 * 12 * 12):
        monkeypatch.setattr(slices, "_PIXELS_AT_ONCE", pixels)
        network.zero_grad()
        network(*given).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)
