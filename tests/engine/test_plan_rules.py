"""The rules of a plan that follow from the studies alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radloop.engine import plan_rules as rules
from radloop.engine.speed import windows
from radloop.studies.fingerprint import Fingerprint
from radloop.studies.label_names import LabelLook


def seen(spacings: list[tuple[float, ...]], shapes: list[tuple[int, ...]], dimension: int = 3) -> Fingerprint:
    return Fingerprint(
        ids=tuple(f"s{n}" for n in range(len(spacings))),
        spacings=np.array(spacings),
        shapes=np.array(shapes),
        channels=1,
        dimension=dimension,
        modality="MR",
        modality_from="told",
        intensities=(),
        labels=LabelLook({}, "", {}),
        sampled=0,
    )


def test_target_is_the_median_spacing():
    folder = seen([(0.5, 0.5, 1.0), (0.8, 0.8, 2.0), (1.0, 1.0, 2.2)], [(400, 400, 300)] * 3)
    assert rules.full_spacing(folder) == (0.8, 0.8, 2.0)


def test_a_thick_axis_takes_its_tenth_percentile():
    thick = [(0.5, 0.5, float(mm)) for mm in range(1, 12)]
    assert rules.full_spacing(seen(thick, [(400, 400, 20)] * 11)) == (0.5, 0.5, 2.0)
    assert rules.full_spacing(seen(thick, [(400, 400, 300)] * 11)) == (0.5, 0.5, 6.0)  # many slices: no thick ones


def test_the_finest_axes_give_way_first():
    assert rules.coarser((0.8, 0.8, 1.5), 1.2) == (1.2, 1.2, 1.5)
    assert rules.coarser((0.8, 0.8, 1.5), 2.0) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("size", "spacing", "voxels"),
    [((512, 512, 300), (0.8, 0.8, 1.5), 72**3), ((36, 52, 36), (1.0, 1.0, 1.0), 72**3), ((400, 400), (1.0, 2.0), 9999)],
)
def test_a_patch_is_a_cube_in_mm_within_the_study(size, spacing, voxels):
    patch = rules.patch_within(size, spacing, voxels)
    assert math.prod(patch) <= voxels
    assert all(p <= n for p, n in zip(patch, size, strict=True))
    free = [p * mm for p, n, mm in zip(patch, size, spacing, strict=True) if p < n]
    assert not free or max(free) - min(free) <= 2 * max(spacing)
    if math.prod(size) <= voxels:
        assert patch == size


@pytest.mark.parametrize(
    ("names", "dimension", "axes"),
    [
        (["left hippocampus", "right hippocampus"], 3, ()),
        (["kidney_l"], 3, ()),
        (["lesion left"], 3, ()),
        (["liver", "spleen"], 3, ()),
        (["label_1"], 3, ()),
        (["tumour", "oedema"], 3, (0,)),
        (["病灶"], 3, (0,)),
        (["nodule"], 2, ()),
    ],
)
def test_sides_are_mirrored_only_where_they_do_not_matter(names, dimension, axes):
    found, why = rules.mirroring(names, dimension)
    assert found == axes
    assert why


@pytest.mark.parametrize(
    ("words", "name"),
    [("Knee MR (2024)", "knee_mr_2024"), ("3D brain", "q_3d_brain"), ("Läsion", "lasion"), ("病灶", "question")],
)
def test_names_are_made_of_any_words(words, name):
    assert rules.recipe_name(words) == name


@pytest.mark.parametrize(
    ("shape", "patch", "overlap", "count"),
    [
        ((64, 64, 64), (64, 64, 64), 0.25, 1),
        ((65, 64, 10), (64, 64, 64), 0.25, 2),
        ((160, 160, 64), (64, 64, 64), 0.25, 9),
        ((128, 64, 7), (64, 64), 0.25, 21),
    ],
)
def test_windows_are_counted_as_monai_does(shape, patch, overlap, count):
    from monai.data.utils import dense_patch_slices

    assert windows(shape, patch, overlap) == count
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=False))
    steps = tuple(int(p * (1 - overlap)) if n > p else p for n, p in zip(padded, patch, strict=True))
    assert count == len(dense_patch_slices(padded, patch, steps)) * math.prod(shape[len(patch) :])
