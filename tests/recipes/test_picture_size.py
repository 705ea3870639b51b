"""`preprocess.size`: pictures of any size fit one grid, proportions kept, and answers go back to their own pixels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from radloop.recipes.errors import BadImage
from radloop.recipes.load import mistakes
from radloop.recipes.preprocess import Preprocess, fitted_shape
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume

sides = st.integers(2, 60)


def chain(*size: int) -> Preprocess:
    return Preprocess(
        Recipe(
            name="test",
            dimension=len(size),
            labels={"ball": 1},
            preprocess={"size": size, "normalise": "ct", "window": (-1e6, 1e6), "deviation": 1.0},
            fit={"patch": (8,) * len(size)},
        )
    )


def test_the_longest_side_fits_and_the_others_follow() -> None:
    assert fitted_shape((400, 200, 1), (1, 1, 1), (100, 100)) == (100, 50, 1)
    assert fitted_shape((40, 20, 3), (1, 1, 5), (100, 100)) == (100, 50, 3), "a small picture grows"
    assert fitted_shape((400, 200, 1), (0.5, 1, 1), (100, 100)) == (100, 100, 1), "proportions are those of the body"
    assert fitted_shape((200, 200, 40), (1, 1, 5), (64, 64, 64)) == (64, 64, 64)
    assert fitted_shape((300, 300, 10), (1, 1, 5), (64, 64, 64)) == (64, 64, 11)
    assert fitted_shape((500, 1, 1), (1, 1, 1), (20, 20)) == (20, 1, 1), "no side is lost"


@given(st.tuples(sides, sides, sides), st.tuples(*[st.floats(0.2, 5)] * 3), st.tuples(sides, sides, sides))
def test_it_fills_the_size_and_never_passes_it(shape, spacing, size) -> None:
    found = fitted_shape(shape, spacing, size)
    assert all(1 <= n <= most for n, most in zip(found, size, strict=True))
    assert any(n == most for n, most in zip(found, size, strict=True))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL"])
@pytest.mark.parametrize("shape", [(90, 60, 1), (31, 77, 1)])
def test_a_ball_in_a_picture_comes_back_to_its_own_pixels(codes: str, shape: tuple[int, int, int]) -> None:
    x, y, _ = np.indices(shape)
    ball = ((x - 0.6 * shape[0]) ** 2 + (y - 0.4 * shape[1]) ** 2 < 64)[None]
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    array = nib.orientations.apply_orientation(ball[0], change)[None]
    affine = np.eye(4) @ nib.orientations.inv_ornt_aff(change, shape)
    way = chain(40, 40)
    image, grid = way.image(Volume(array.astype(np.float32), affine))
    assert max(image.shape[1:3]) == 40
    assert image.shape[3] == 1
    found = way.restore(torch.stack([0.5 - image[0], image[0] - 0.5]), grid)
    assert found.shape == array.shape[1:]
    both = 2 * (found & array[0]).sum() / (found.sum() + array[0].sum())
    assert both > 0.9
    on_grid = way.label(Volume(array.astype(np.uint8), affine), grid)
    assert on_grid.shape == grid.shape
    centres = [
        nib.affines.apply_affine(at, np.argwhere(of).mean(axis=0))
        for at, of in ((affine, array[0]), (grid.affine, on_grid.numpy()))
    ]
    assert np.linalg.norm(centres[0] - centres[1]) < 1.0, "the grid knows where its voxels are"


def test_a_volume_fits_too_with_voxels_as_long_as_wide() -> None:
    _, grid = chain(32, 32, 32).image(Volume(np.zeros((1, 64, 48, 8), np.float32), np.diag([1.0, 1.0, 5.0, 1.0])))
    assert grid.shape == (32, 24, 20)
    assert np.allclose(grid.spacing, 2.0)


def test_mistakes_are_told() -> None:
    text = 'name = "x"\nlabels = { x = 1 }\n[preprocess]\nspacing = [1, 1, 1]\nsize = [10, 10, 10]'
    assert [(m.line, "spacing and size" in m.message) for m in mistakes(text)] == [(5, True)]
    (wrong,) = mistakes('name = "x"\nlabels = { x = 1 }\n[preprocess]\nsize = [10, 10]')
    assert "preprocess.size has 2 numbers" in wrong.message
    (wrong,) = mistakes('name = "x"\nlabels = { x = 1 }\n[preprocess]\nsize = [10, 0, 10]')
    assert wrong.line == 4
    with pytest.raises(BadImage, match=r"lower preprocess\.size"):
        chain(4000, 4000, 4000).grid(Volume(np.zeros((1, 9, 9, 9)), np.eye(4)))
