"""Lesions of successive studies of a patient, matched, and how their volume and longest diameter changed.

Two lesions are the same where they overlap most once the later mask lies on the earlier one's voxels, in world space;
else where their centres are nearest to each other, within a distance. Studies are not registered: a patient who lies
otherwise in the scanner is matched by distance at best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from radloop.evaluation.lesion_sizes import longest_diameter

WITHIN = 20.0
"""mm between centres at which lesions that do not overlap may still be the same."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """One connected component of a label; joined over faces, edges and corners.

    Attributes:
        number: its value in the components' array, from 1.
        volume_ml: its size.
        diameter_mm: the largest in any direction, as `lesion_sizes` measures it.
        centre: (3,) in RAS world mm.
    """

    number: int
    volume_ml: float
    diameter_mm: float
    centre: np.ndarray


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of one label in one study.

    Attributes:
        components: (X, Y, Z) numbers of lesions, 0 elsewhere.
        affine: 4x4, voxel -> RAS world in mm.
        found: the lesions in order of their numbers.
    """

    components: np.ndarray
    affine: np.ndarray
    found: tuple[Lesion, ...]


@dataclass(frozen=True)
class Change:
    """A lesion in two studies; None where it is not there.

    Attributes:
        before: in the earlier study.
        after: in the later one.
        matched: `overlap` or `distance`; `new` or `gone` where it is in one study only.
    """

    before: Lesion | None
    after: Lesion | None
    matched: str


def lesions_of(mask: np.ndarray, affine: np.ndarray) -> Lesions:
    """The lesions of a boolean mask (X, Y, Z)."""
    components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    found = []
    for number, box in enumerate(ndimage.find_objects(components, count), start=1):
        part = components[box] == number
        inside = np.argwhere(part) + [side.start for side in box]
        centre = affine[:3, :3] @ inside.mean(axis=0) + affine[:3, 3]
        found.append(Lesion(number, len(inside) * voxel_ml, longest_diameter(part, affine), centre))
    return Lesions(components, affine, tuple(found))


def match(before: Lesions, after: Lesions, within: float = WITHIN) -> list[Change]:
    """Every lesion of both studies once: those that are the same together, the earlier study's first.

    Args:
        before, after: of one label.
        within: mm between centres for those that do not overlap.
    """
    partner: dict[int, tuple[int, str]] = {}
    taken: set[int] = set()

    def take(pairs: Sequence[tuple[float, int, int]], how: str) -> None:
        for _, first, second in sorted(pairs):
            if first not in partner and second not in taken:
                partner[first] = (second, how)
                taken.add(second)

    take([(-size, first, second) for (first, second), size in _overlaps(before, after).items()], "overlap")
    apart = [
        (float(np.linalg.norm(one.centre - two.centre)), one.number, two.number)
        for one in before.found
        for two in after.found
    ]
    take([pair for pair in apart if pair[0] <= within], "distance")
    later = {lesion.number: lesion for lesion in after.found}
    found = []
    for lesion in before.found:
        second, how = partner.get(lesion.number, (0, "gone"))
        found.append(Change(lesion, later.get(second), how))
    return found + [Change(None, lesion, "new") for lesion in after.found if lesion.number not in taken]


def _overlaps(before: Lesions, after: Lesions) -> dict[tuple[int, int], int]:
    """(earlier, later) -> voxels of the earlier grid that lie in both; the nearest voxel of the later counts."""
    if not before.found or not after.found:
        return {}
    places = np.argwhere(before.components)
    there = np.linalg.inv(after.affine) @ before.affine
    nearest = np.rint(places @ there[:3, :3].T + there[:3, 3]).astype(int)
    inside = ((nearest >= 0) & (nearest < after.components.shape)).all(axis=1)
    first = before.components[tuple(places[inside].T)]
    second = after.components[tuple(nearest[inside].T)]
    pairs, counts = np.unique(np.stack([first, second])[:, second > 0], axis=1, return_counts=True)
    return {(int(one), int(two)): int(count) for one, two, count in zip(*pairs, counts, strict=True)}
