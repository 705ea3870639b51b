"""The boxes of what a mask shows: so a reader can draw them in any viewer that draws masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from radloop.recipes.boxes import Box, boxes_of
from radloop.recipes.errors import BadLabel

MOST = 200
"""The most boxes that are made of one label of a mask; of a model's the largest parts, a reader's is refused."""


def mask_boxes(mask: np.ndarray, labels: Mapping[str, int], affine: np.ndarray) -> list[Box]:
    """A box around each connected part (touching at a corner is enough) of every label.

    Args:
        mask: (X, Y, Z) ids.
        labels: name -> id.
        affine: 4x4, its voxels -> RAS world in mm.

    Raises:
        BadLabel: a label has more parts than become boxes.
    """
    found = []
    for name, number in labels.items():
        places, _, parts = part_ends(mask == number)
        if (count := int(parts.max(initial=0))) > MOST:
            msg = f"{name!r} is drawn in {count} separate parts, of which at most {MOST} become boxes; "
            msg += "take specks away, or send a JSON file of boxes"
            raise BadLabel(msg)
        found += boxes_of(places, [name] * len(places), affine)
    return found


def part_ends(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the connected parts of a mask, the largest first: (n, 6) where they begin and end, and (n,) their numbers.

    The third is (x, y, z) with the number of its part in every voxel, 0 outside.
    """
    parts, count = ndimage.label(drawn, structure=np.ones((3, 3, 3)))
    spans = ndimage.find_objects(parts, count)
    ends = np.array([[*(s.start for s in span), *(s.stop for s in span)] for span in spans]).reshape(-1, 6)
    order = np.argsort(-np.prod(ends[:, 3:] - ends[:, :3], axis=1), kind="stable")[:MOST]
    return ends[order], order + 1, parts
