from __future__ import annotations

import numpy as np
import torch

from radloop.engine.augment import Augment, Strength
from radloop.engine.losses import IGNORE
from radloop.recipes.recipe import Recipe

STILL = Strength(affine=0, contrast=0, brightness=0, gamma=0, noise=0, coarse=0)


def recipe(dimension: int = 3, mirror: tuple[int, ...] = (), spacing: tuple[float, ...] = ()) -> Recipe:
    return Recipe(
        name="toy",
        dimension=dimension,
        labels={"one": 1},
        preprocess={"spacing": spacing},
        fit={"patch": (16,) * dimension, "mirror": mirror},
    )


def blob(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    places = np.indices(shape).reshape(len(shape), -1).T - [n / 2 + 2 for n in shape]
    label = torch.from_numpy((np.linalg.norm(places, axis=1) < 5).reshape(shape).astype(np.uint8))
    return label[None, None].float(), label[None]


def test_image_and_label_move_together() -> None:
    for dimension in (2, 3):
        image, label = blob((24,) * dimension)
        turn = Augment(recipe(dimension, (0, 1)), torch.Generator().manual_seed(1), Strength(affine=1.0))
        for _ in range(10):
            moved, known = turn(image, label)
            inside = known[0] == 1
            assert inside.any()
            assert moved[0, 0][inside].mean() > moved[0, 0][known[0] == 0].mean() + 0.5


def test_same_generator_same_batch() -> None:
    image, label = blob((16, 16, 16))
    found = [
        Augment(recipe(mirror=(0,)), torch.Generator().manual_seed(5), Strength(affine=1.0, noise=1.0))(image, label)
        for _ in range(2)
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_only_the_axes_that_may_be_mirrored_are() -> None:
    image = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    label = image[:, 0].byte()
    flip = Augment(recipe(mirror=(1,)), torch.Generator().manual_seed(0), STILL)
    seen = {tuple(flip(image, label)[0].flatten().tolist()) for _ in range(30)}
    assert seen == {tuple(image.flatten().tolist()), tuple(image.flip(3).flatten().tolist())}


def test_thick_slices_are_turned_in_their_plane_only() -> None:
    image = torch.zeros(1, 1, 8, 8, 8)
    image[..., 4] = 1.0  # one slice; only a turn out of the plane could spread it
    no_scale = Strength(**{**vars(STILL), "affine": 1.0, "scale": (1.0, 1.0)})
    turn = Augment(recipe(spacing=(1.0, 1.0, 5.0)), torch.Generator().manual_seed(0), no_scale)
    moved, _ = turn(image, torch.zeros(1, 8, 8, 8, dtype=torch.uint8))
    assert torch.allclose(moved, image, atol=1e-5)


def test_what_comes_from_outside_the_patch_is_not_in_the_loss() -> None:
    image, label = blob((16, 16, 16))
    shrink = Strength(**{**vars(STILL), "affine": 1.0, "scale": (0.5, 0.5), "degrees": 0.0})
    _, known = Augment(recipe(), torch.Generator().manual_seed(0), shrink)(image, label)
    assert (known[0, 0] == IGNORE).all()
    assert (known[0, 8, 8, 6:10] != IGNORE).all()


def test_intensities_stay_finite_on_a_constant_image() -> None:
    every = Strength(affine=1, contrast=1, brightness=1, gamma=1, noise=1, coarse=1)
    image, label = torch.ones(2, 1, 8, 8, 8), torch.zeros(2, 8, 8, 8, dtype=torch.uint8)
    assert torch.isfinite(Augment(recipe(), torch.Generator().manual_seed(0), every)(image, label)[0]).all()
