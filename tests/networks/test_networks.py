"""Networks for masks, and the sizes of all networks."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from radloop.networks.registry import build, names
from radloop.networks.topology import Topology, min_multiple, patch_shape, topology
from radloop.recipes.errors import BadRecipe
from radloop.recipes.recipe import Recipe


def recipe(dimension: int = 3, patch: tuple[int, ...] = (), **network: object) -> Recipe:
    return Recipe(
        name="toy",
        dimension=dimension,
        channels=("a", "b"),
        labels={"one": 1, "two": 2},
        fit={"patch": patch or (16,) * dimension},
        network=network,
    )


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", names("segmentation"))
def test_every_network_keeps_the_shape_and_learns(name: str, dimension: int) -> None:
    torch.manual_seed(0)
    asked = recipe(dimension, name=name)
    network = build(asked)
    larger = [2 * m if i else 3 * m for i, m in enumerate(min_multiple(asked))]
    assert network.eval()(torch.zeros(1, 2, *larger)).shape == (1, 3, *larger)

    network.train()
    image = torch.randn(2, 2, *asked.fit.patch)
    target = (image[:, 0] > 0).long() + (image[:, 0] > 1).long()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(image), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

    network.eval()
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        assert torch.allclose(network(image)[:1], network(image[:1]), atol=1e-5)
    fresh = build(asked)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh.eval()(image), network(image))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", names("segmentation"))
def test_deep_supervision_gives_coarser_levels_in_training_alone(name: str, dimension: int) -> None:
    torch.manual_seed(0)
    sizes = {"features": (4, 8, 8, 8), "strides": ((1,) * dimension, *((2,) * dimension,) * 3)}
    asked = recipe(dimension, name=name, deep_supervision=True, **sizes)
    network, image = build(asked), torch.randn(2, 2, *asked.fit.patch)
    levels = network.train()(image)
    assert levels.shape == (2, 3, 3, *asked.fit.patch)
    # a level that is blown up from half the voxels knows no finer detail
    assert (levels[:, 1] - levels[:, 1].roll(1, -1)).abs().mean() < (
        levels[:, 0] - levels[:, 0].roll(1, -1)
    ).abs().mean()
    levels[:, 2].sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert network.eval()(image).shape == (2, 3, *asked.fit.patch)


def test_deep_supervision_of_the_smallest_network_still_builds() -> None:
    small = recipe(2, features=(4, 8), strides=((1, 1), (2, 2)), deep_supervision=True)
    assert build(small).train()(torch.zeros(1, 2, 16, 16)).shape == (1, 2, 3, 16, 16)


@pytest.mark.parametrize("name", names("segmentation"))
def test_masks_do_not_take_long_to_load(name: str) -> None:
    assert sum(p.numel() for p in build(recipe(patch=(64, 64, 64), name=name)).parameters()) < 8e6


def test_the_bottleneck_of_unet_attention_sees_from_one_end_to_the_other() -> None:
    """The last voxel of an image far wider than what convolutions reach changes the first one's answer."""
    wide = {"features": (4, 8, 8), "strides": ((1, 1), (2, 2), (2, 2))}
    reached = {}
    for name in ("unet", "unet_attention"):
        torch.manual_seed(0)
        network = build(recipe(2, name=name, **wide)).double().eval()
        for module in network.modules():
            if isinstance(module, torch.nn.InstanceNorm2d):  # it looks at the whole image too, if only at its mean
                module.forward = lambda image: image  # type: ignore[method-assign]
        image = torch.zeros(1, 2, 256, 8, dtype=torch.float64, requires_grad=True)
        network(image)[0, :, 0].sum().backward()
        reached[name] = bool(image.grad[0, :, -1].any())
    assert reached == {"unet": False, "unet_attention": True}


def test_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(torch.cat([p.flatten() for p in build(recipe()).parameters()]))
    assert torch.equal(*weights)


def test_sizes_are_derived_from_the_patch() -> None:
    sizes = topology(recipe(patch=(40, 56, 40)))
    assert sizes.features == (16, 32, 64, 128)
    assert sizes.total_stride == (8, 8, 8)


def test_coarse_axis_is_not_halved_until_the_others_catch_up() -> None:
    thick = Recipe(name="toy", labels={"one": 1}, preprocess={"spacing": (1.0, 1.0, 5.0)}, fit={"patch": (64, 64, 16)})
    sizes = topology(thick)
    assert sizes.strides[1] == (2, 2, 1)
    assert sizes.kernels[0] == (3, 3, 1)
    assert sizes.kernels[-1] == (3, 3, 3)


def test_patch_is_rounded_up_to_the_total_stride() -> None:
    assert patch_shape(recipe(patch=(36, 52, 9))) == (40, 56, 10)


def test_channels_have_a_cap() -> None:
    assert max(topology(recipe(2, patch=(512, 512))).features) == 256


def test_a_tiny_patch_still_builds() -> None:
    asked = recipe(2, patch=(8, 8))
    assert build(asked)(torch.zeros(1, 2, 8, 8)).shape == (1, 3, 8, 8)


def test_own_sizes_are_taken() -> None:
    asked = recipe(features=(4, 8, 8), strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)))
    assert min_multiple(asked) == (4, 4, 2)
    assert build(asked)(torch.zeros(1, 2, 8, 8, 4)).shape == (1, 3, 8, 8, 4)


def test_mistyped_name_is_refused_with_a_hint() -> None:
    with pytest.raises(BadRecipe, match="did you mean 'unet'"):
        build(recipe(name="unett"))


@pytest.mark.parametrize("strides", [((1, 1), (2, 2)), ((1, 1, 1), (0, 2, 2))])
def test_strides_that_are_none_are_refused_by_the_recipe(strides: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValidationError, match=r"network\.strides"):
        recipe(features=(4, 8), strides=strides)


def test_strides_beyond_the_patch_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"network\.strides"):
        build(recipe(features=(4, 8), strides=((1, 1, 1), (16, 16, 16))))


def sizes_of(name: str, patch: tuple[int, ...], **network: object) -> Topology:
    return topology(classes(name, patch, **network))


def classes(name: str, patch: tuple[int, ...], **network: object) -> Recipe:
    return Recipe(
        name="toy",
        kind="classification",
        dimension=len(patch),
        labels={"a": 1, "b": 2},
        fit={"patch": patch},
        network={"name": name, **network},
    )


def test_classifiers_halve_at_once_and_end_coarse() -> None:
    assert sizes_of("cnn", (64, 64, 64)).total_stride == (16, 16, 16)
    assert sizes_of("cnn", (64, 64, 64)).strides[0] == (2, 2, 2)
    assert sizes_of("cnn", (224, 224)).strides == ((4, 4), (2, 2), (2, 2), (2, 2))
    assert sizes_of("cnn", (16, 16, 16)).strides == ((2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1))
    assert sizes_of("slices_gru", (64, 64, 8)).total_stride == (16, 16, 1)


def test_a_vision_transformer_has_at_most_256_tokens() -> None:
    for patch in ((64, 64, 64), (48, 48, 48), (96, 96, 32), (224, 224), (512, 512)):
        tokens = [-(-n // s) for n, s in zip(patch, sizes_of("vit", patch).total_stride, strict=True)]
        assert 60 <= torch.tensor(tokens).prod() <= 256


def test_classifiers_take_their_patch_as_it_is() -> None:
    asked = classes("cnn", (37, 21, 9))
    assert patch_shape(asked) == (37, 21, 9)
    assert build(asked)(torch.zeros(1, 1, 37, 21, 9), None, None).shape == (1, 2)


def test_features_of_a_classifier_need_no_strides() -> None:
    assert sizes_of("cnn", (64, 64, 64), features=(4, 8)).strides == ((4, 4, 4), (2, 2, 2))
    own = ((1, 1, 1), (2, 2, 1))
    assert sizes_of("slices_pool", (64, 64, 64), features=(4, 8), strides=own).strides == own


def test_slices_are_never_merged() -> None:
    with pytest.raises(BadRecipe, match="third number"):
        build(classes("slices_pool", (64, 64, 64), features=(4, 8), strides=((1, 1, 1), (2, 2, 2))))
