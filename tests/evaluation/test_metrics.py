"""Every metric against a second, plain implementation, and its stated conventions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from radloop.evaluation.metrics import dice, hd95, one_sided, surface_dice, volume_ml
from radloop.recipes.errors import BadInput

SPACING = (0.8, 1.3, 2.5)


def blobs(seed: int, shape: tuple[int, ...] = (18, 15, 11), ids: int = 2) -> np.ndarray:
    """Smooth random blobs of several ids that touch the border now and then."""
    rng = np.random.default_rng(seed)
    fields = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(ids)])
    mask = (fields.argmax(axis=0) + 1).astype(np.uint8)
    return np.where(fields.max(axis=0) > 0.08, mask, 0).astype(np.uint8)


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask with a face neighbour outside it (outside the image counts)."""
    padded = np.pad(mask, 1)
    inside = padded.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)
    return (padded & ~inside)[tuple(slice(1, -1) for _ in mask.shape)]


def directed(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance of each surface voxel of a to the surface of b, mm, by comparing every pair."""
    here, there = (np.argwhere(surface(m)) * np.asarray(spacing) for m in (a, b))
    return np.sqrt(((here[:, None] - there[None]) ** 2).sum(axis=-1)).min(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_surfaces_agree_with_brute_force(seed: int) -> None:
    pred, true = blobs(seed), blobs(seed + 100)
    for i in (1, 2):
        there, back = directed(pred == i, true == i, SPACING), directed(true == i, pred == i, SPACING)
        both = np.concatenate([there, back])
        for tolerance in (1.0, 2.0):
            found = surface_dice(pred, true, [i], SPACING, tolerance)[i]
            assert found == pytest.approx((both <= tolerance).mean(), abs=1e-5)
        expected = max(np.percentile(there, 95), np.percentile(back, 95))
        assert hd95(pred, true, [i], SPACING)[i] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_surfaces_agree_with_scipy_distance_transforms(seed: int) -> None:
    pred, true = blobs(seed, (30, 28, 20), 1), blobs(seed + 7, (30, 28, 20), 1)
    edge = {name: m.astype(bool) & ~ndimage.binary_erosion(m) for name, m in (("pred", pred), ("true", true))}
    away = {name: ndimage.distance_transform_edt(~e, sampling=SPACING) for name, e in edge.items()}
    there, back = away["true"][edge["pred"]], away["pred"][edge["true"]]
    assert surface_dice(pred, true, [1], SPACING)[1] == pytest.approx((np.r_[there, back] <= 1.0).mean(), abs=1e-5)
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert hd95(pred, true, [1], SPACING)[1] == pytest.approx(expected, abs=1e-4)


def test_a_flat_picture_is_scored_in_its_plane() -> None:
    pred, true = blobs(1, (40, 30), 1), blobs(2, (40, 30), 1)
    flat = surface_dice(pred[..., None], true[..., None], [1], (0.5, 0.7, 1.0))[1]
    both = np.r_[directed(pred == 1, true == 1, (0.5, 0.7)), directed(true == 1, pred == 1, (0.5, 0.7))]
    assert flat == pytest.approx((both <= 1.0).mean(), abs=1e-5)
    assert flat < 0.999


@pytest.mark.parametrize("seed", range(4))
def test_dice_agrees_with_counting_voxels(seed: int) -> None:
    pred, true = blobs(seed), blobs(seed + 50)
    for i, found in dice(pred, true, [1, 2]).items():
        a, b = set(map(tuple, np.argwhere(pred == i))), set(map(tuple, np.argwhere(true == i)))
        assert found == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


def test_a_known_shift_gives_known_distances() -> None:
    true = np.zeros((20, 20, 20), np.uint8)
    true[5:10, 5:10, 5:10] = 1
    pred = np.roll(true, 2, axis=2)
    assert dice(pred, true, [1])[1] == pytest.approx(0.6)
    assert hd95(pred, true, [1], (1.0, 1.0, 3.0))[1] == pytest.approx(6.0)
    assert hd95(true, true, [1], SPACING)[1] == 0.0
    assert surface_dice(true, true, [1], SPACING)[1] == 1.0


def test_conventions_where_a_mask_is_empty() -> None:
    empty = np.zeros((6, 6, 6), np.uint8)
    full = empty.copy()
    full[2:4, 2:4, 2:4] = 1
    for pred, true, overlap, missed in ((empty, empty, 1.0, False), (full, empty, 0.0, True), (empty, full, 0.0, True)):
        assert dice(pred, true, [1])[1] == overlap
        assert surface_dice(pred, true, [1], SPACING)[1] == overlap
        assert hd95(pred, true, [1], SPACING)[1] is None
        assert one_sided(pred, true, [1])[1] is missed


def test_a_name_nobody_looked_at_scores_nothing() -> None:
    pred, true = blobs(3), blobs(4)
    for scores in (
        dice(pred, true, [1, 2], known={2}),
        surface_dice(pred, true, [1, 2], SPACING, known={2}),
        hd95(pred, true, [1, 2], SPACING, known={2}),
    ):
        assert scores[1] is None
        assert scores[2] is not None


def test_volume_is_in_millilitres() -> None:
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[:5] = 2
    assert volume_ml(mask, [1, 2], (1.0, 2.0, 3.0)) == {1: 0.0, 2: pytest.approx(500 * 6 / 1000)}


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(BadInput, match="one grid"):
        dice(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), [1])
    with pytest.raises(BadInput, match="spacing"):
        hd95(np.ones((2, 2, 2), int), np.ones((2, 2, 2), int), [1], (1.0, 1.0))
