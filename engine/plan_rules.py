"""The parts of a plan that follow from the studies alone: voxels, patch, intensities, mirroring, name.

The rules are nnU-Net's (Isensee et al., Nature Methods 2021) where it has one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from radloop.recipes.recipe import Preprocess
from radloop.studies.fingerprint import Fingerprint

_ANISOTROPY = 3.0
_DIGITS = 4
_FINDINGS = re.compile(
    r"lesion|tumou?r|nodule|mass|metasta|oedema|edema|necro|enhanc|h(?:a)?emorrhage|bleed|stroke|infarct|plaque|cyst"
    r"|polyp|fracture|cancer|carcinoma|glioma|mening|effusion|consolidation|opacity|läsion|herd|lésion|病|瘤",
    re.IGNORECASE,
)
_SIDES = re.compile(
    r"(?:^|[^a-z])(?:left|right|links?|rechts?|gauche|droite?|izquierd[ao]|derech[ao]|[lr]|lt|rt)(?:[^a-z]|$)|左|右",
    re.IGNORECASE,
)


def full_spacing(seen: Fingerprint) -> tuple[float, ...]:
    """The target voxel size in mm along R, A, S (two numbers in 2D) where time does not matter.

    The median; where one axis is more than three times as coarse as the others, and has less than a third of their
    voxels, its 10th percentile, so that thin slices are not thrown away for the sake of thick ones.
    """
    axes = seen.dimension
    target = np.median(seen.spacings[:, :axes], axis=0)
    size = np.median(seen.shapes[:, :axes], axis=0)
    worst = int(target.argmax())
    others = [axis for axis in range(axes) if axis != worst]
    thick = target[worst] > _ANISOTROPY * target[others].max()
    if axes == 3 and thick and size[worst] * _ANISOTROPY < size[others].min():
        target[worst] = max(np.percentile(seen.spacings[:, worst], 10), target[others].max())
    return rounded(target)


def coarser(spacing: tuple[float, ...], floor: float) -> tuple[float, ...]:
    """`spacing` with no axis finer than `floor` mm: the finest axes give way first, then all alike."""
    return rounded(max(mm, floor) for mm in spacing)


def median_size(seen: Fingerprint, spacing: tuple[float, ...]) -> tuple[int, ...]:
    """Voxels of the median study at `spacing`."""
    axes = len(spacing)
    sizes = np.median(seen.shapes[:, :axes] * seen.spacings[:, :axes], axis=0) / spacing
    return tuple(max(1, round(float(n))) for n in sizes)


def patch_within(size: tuple[int, ...], spacing: tuple[float, ...], voxels: int) -> tuple[int, ...]:
    """A patch of at most about `voxels`: a cube in mm, cut where it is larger than the median study `size`."""
    low, high = 0.0, max(n * mm for n, mm in zip(size, spacing, strict=True))
    for _ in range(30):
        edge = (low + high) / 2
        low, high = (edge, high) if math.prod(_cut(edge, size, spacing)) <= voxels else (low, edge)
    return _cut(high, size, spacing) if math.prod(_cut(high, size, spacing)) <= voxels else _cut(low, size, spacing)


def _cut(edge: float, size: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(max(1, min(n, round(edge / mm))) for n, mm in zip(size, spacing, strict=True))


def intensities(seen: Fingerprint) -> tuple[Preprocess, str]:
    """How intensities are normalised, and why in words."""
    if seen.modality == "CT" and all(i.low < -200 for i in seen.intensities):
        first = seen.intensities[0]
        low, _, high = first.percentiles
        where = {"labels": "inside the labels", "body": "above -500 HU (no masks yet)", "image": "in the images"}
        high = max(high, low + 1.0)
        deviation = max(first.deviation, (high - low) / 100)
        why = (
            f"CT as nnU-Net does it: clip to the 0.5-99.5 percentiles {where[first.where]}, {low:.0f} to {high:.0f} "
            f"HU, then subtract the mean and divide by the deviation seen there."
        )
        low, high, mean, deviation = rounded((low, high, first.mean, deviation))
        return Preprocess(normalise="ct", window=(low, high), mean=mean, deviation=deviation), why
    if seen.modality == "XR":
        return Preprocess(normalise="rescale"), (
            "Radiographs have no unit: each image's 0.5-99.5 percentiles are mapped to 0-1."
        )
    return Preprocess(normalise="zscore"), (
        f"{seen.modality} values have no common unit: each image is set to mean 0 and deviation 1 by itself."
    )


def mirroring(names: Iterable[str], dimension: int) -> tuple[tuple[int, ...], str]:
    """RAS axes that augmentation may mirror, and why in words."""
    names = list(names)
    if any(_SIDES.search(name) for name in names):
        return (), "No mirroring: a label's name tells left from right, and a mirrored image would make it wrong."
    if dimension == 3 and all(_FINDINGS.search(name) for name in names):
        return (0,), "Left and right are mirrored: findings like these occur on both sides. [] where the side matters."
    return (), (
        "No mirroring: organs have a side (the liver is never on the left), and the names do not say that it does not "
        "matter here. Where it does not, [0] mirrors left and right and makes more of few labels."
    )


def channel_names(seen: Fingerprint) -> tuple[str, ...]:
    """Names of the channels: the folder's own, else numbers."""
    if len(seen.channel_names) == seen.channels:
        return tuple(seen.channel_names)
    return ("image",) if seen.channels == 1 else tuple(f"channel_{n}" for n in range(seen.channels))


def optional(seen: Fingerprint) -> tuple[str, ...]:
    """Names of the channels that some studies lack."""
    names = channel_names(seen)
    return tuple(names[number] for number in seen.lacking)


def recipe_name(words: str) -> str:
    """A recipe's name made of any words: lower-case ASCII letters, digits and underscores, a letter first."""
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:60]
    if not name:
        return "question"
    return name if name[0].isalpha() else f"q_{name}"


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Values with four significant digits, as a person reads them."""
    return tuple(float(f"{float(v):.{_DIGITS}g}") for v in values)
