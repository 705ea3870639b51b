"""From boxes to a mask that viewers show, and from probabilities to the boxes of what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from radloop.recipes.boxes import Box, boxes_of, edges
from radloop.studies.box_masks import part_ends

_PART = 200  # a frame is at least this part of the study's longer side wide, or nobody sees it


def framed_boxes(
    boxes: Sequence[Box], labels: Mapping[str, int], shape: Sequence[int], affine: np.ndarray
) -> np.ndarray:
    """(X, Y, Z) uint8 with a frame around each box in every slice it reaches through; the surest lie on top.

    Args:
        boxes: the surest first.
        labels: name -> id.
        shape: voxels of the study's file.
        affine: 4x4, its voxels -> RAS world in mm.
    """
    mask = np.zeros(tuple(shape), np.uint8)
    limits = np.array(shape)
    thin = np.flatnonzero(limits == 1)
    # across slices: of a picture its one, else the axis nearest to foot-head
    through = (
        int(thin[0]) if len(thin) == 1 else int(np.abs(affine[2, :3] / np.linalg.norm(affine[:3, :3], axis=0)).argmax())
    )
    flat = [axis for axis in range(3) if axis != through]
    width = max(1, int(max(limits[flat]) // _PART))
    for box, ends in zip(reversed(boxes), reversed(edges(boxes, affine)), strict=True):
        low = np.floor(ends[:3] + 1e-6).clip(0, limits - 1).astype(int)
        high = np.ceil(ends[3:] - 1e-6).clip(low + 1, limits).astype(int)
        part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        frame = np.zeros(part.shape, bool)
        for axis in flat:
            sides = np.moveaxis(frame, axis, 0)
            sides[:width], sides[-width:] = True, True
        part[frame] = labels[box.label]
    return mask


def probable_boxes(probabilities: np.ndarray, labels: Mapping[str, int], affine: np.ndarray) -> list[Box]:
    """A box around each connected part of what is drawn, with the mean probability inside it, the surest first.

    Args:
        probabilities: (1 + labels, x, y, z); a voxel is drawn as the most probable.
        labels: name -> id.
        affine: 4x4, these voxels -> RAS world in mm.
    """
    winner = np.empty(probabilities.shape[1:], np.uint8)
    for place in range(len(winner)):  # slice by slice: all at once would take eight bytes a voxel
        winner[place] = probabilities[:, place].argmax(0)
    found = []
    spans = ndimage.find_objects(winner, len(labels))
    for name, number in labels.items():
        if (span := spans[number - 1]) is None:
            continue
        places, numbers, parts = part_ends(winner[span] == number)
        scores = [float(mean) for mean in ndimage.mean(probabilities[number][span], parts, numbers)]
        start = np.array([axis.start for axis in span])
        found += boxes_of(places + np.tile(start, 2), [name] * len(places), affine, scores)
    return sorted(found, key=lambda box: -(box.score or 0.0))
