"""Studies with boxes: on the network's grid, on disk, in batches with the boxes moved along.

A picture (`dimension = 2`) is put whole on `fit.patch`, its sides in proportion; volumes give patches of that size.
Boxes are (n, 2 * dimension): where they begin along each axis, then where they end; voxel i reaches from i to i + 1.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from radloop.engine.prepared import case_digest, each, keep_arrays
from radloop.engine.region_check import check_picture
from radloop.networks.topology import patch_shape
from radloop.recipes.boxes import Box, boxes_of, edges
from radloop.recipes.errors import BadLabel
from radloop.recipes.preprocess import Grid, Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.box_files import read_boxes
from radloop.studies.cases import Case
from radloop.studies.images import read_study

logger = logging.getLogger(__name__)

_HALF_MAX = 60000.0  # float16 ends at 65504
_SCALE = (0.8, 1.25)  # in training
_SHIFT = 0.1  # of the patch
_KEPT = 0.4  # of a box that must be left where it is cut by the patch's edge, else it is none


@dataclass(frozen=True)
class Frame:
    """How a study lies before the network.

    Attributes:
        grid: of the preprocessing.
        scale: of the grid's voxels to the network's, along each of its axes.
        offset: where the grid begins, in the network's voxels.
    """

    grid: Grid
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def edges(self, boxes: Sequence[Box]) -> np.ndarray:
        """Boxes in the network's voxels."""
        d = len(self.scale)
        found = edges(boxes, self.grid.affine)
        both = np.hstack([found[:, :d], found[:, 3 : 3 + d]])
        return both * np.tile(self.scale, 2) + np.tile(self.offset, 2)

    def cut(self, found: np.ndarray) -> np.ndarray:
        """Boxes in the network's voxels, cut to where the study lies among them; what lies beyond has no size left."""
        d = len(self.scale)
        low = np.array(self.offset)
        high = low + np.array(self.grid.shape[:d]) * self.scale
        return np.hstack([found[:, :d].clip(low, high), found[:, d:].clip(low, high)])

    def boxes(self, found: np.ndarray, labels: Sequence[str], scores: Sequence[float]) -> list[Box]:
        """Boxes from the network's voxels; a picture's reach through its one slice."""
        d = len(self.scale)
        whole = np.tile(np.concatenate([np.zeros(3), self.grid.shape]), (len(found), 1))
        back = (found - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        whole[:, :d], whole[:, 3 : 3 + d] = back[:, :d], back[:, d:]
        return boxes_of(whole, labels, self.grid.affine, scores)


@dataclass(frozen=True)
class PreparedBoxes:
    """One labelled study on the network's grid, on disk.

    Attributes:
        case: the study and label it was made from.
        folder: holds `image.npy` (C, *space) float16, `boxes.npy` (n, 2 * dimension) float32 and `labels.npy` (n,).
    """

    case: Case
    folder: Path

    @property
    def image(self) -> np.ndarray:
        """(C, *space) float16, mapped from disk."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @property
    def boxes(self) -> np.ndarray:
        """(n, 2 * dimension) float32."""
        return np.load(self.folder / "boxes.npy")

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, 0 is the recipe's first."""
        return np.load(self.folder / "labels.npy")

    @property
    def known(self) -> np.ndarray:
        """Boxes speak for every label."""
        return np.ones(1, bool)


@dataclass(frozen=True)
class PreparedBoxSet:
    """The cases that could be prepared, and those that could not with the reason."""

    ready: tuple[PreparedBoxes, ...]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BoxBatch:
    """Patches as tensors.

    Attributes:
        image: (N, C, *patch) float32.
        boxes: of each, (n, 2 * dimension) float32 in its voxels.
        labels: of each, (n,) int64.
    """

    image: torch.Tensor
    boxes: tuple[torch.Tensor, ...]
    labels: tuple[torch.Tensor, ...]


def true_boxes(recipe: Recipe, case: Case) -> list[Box]:
    """A case's boxes.

    Raises:
        BadLabel: the file is none of boxes, or does not speak for one of the recipe's labels.
    """
    missing = [name for name in recipe.label_names if name not in case.names]
    if missing:
        msg = f"its boxes do not say whether there is {missing[0]!r}, a label of recipe {recipe.name}; label it again"
        raise BadLabel(msg)
    return read_boxes(case.label, recipe)


def framed(recipe: Recipe, volume: Volume) -> tuple[torch.Tensor, Frame]:
    """What the network may see of a study, (C, *space) float32, and how it lies there.

    Raises:
        BadImage: the study does not fit the recipe.
    """
    image, grid = Preprocess(recipe).image(volume)
    patch = patch_shape(recipe)
    if recipe.dimension == 3:
        return image, Frame(grid, (1.0,) * 3, (0.0,) * 3)
    check_picture(recipe, image.shape[-1])
    picture = image[..., 0]
    sides = np.array(picture.shape[1:]) * grid.spacing[:2]
    size = np.maximum(np.round(sides * (np.array(patch) / sides).min()), 1).astype(int)
    small = functional.interpolate(
        picture[None], size=size.tolist(), mode="bilinear", antialias=True, align_corners=False
    )[0]
    before = (np.array(patch) - size) // 2
    after = np.array(patch) - size - before
    whole = functional.pad(small[None], [int(before[1]), int(after[1]), int(before[0]), int(after[0])], "replicate")[0]
    scale = tuple(float(value) for value in size / np.array(picture.shape[1:]))
    return whole, Frame(grid, scale, tuple(float(value) for value in before))


def prepare_boxes(
    recipe: Recipe, cases: Iterable[Case], cache: Path, step: Callable[[int], None] | None = None
) -> PreparedBoxSet:
    """Preprocess every case into `cache`, or find it there; a case that cannot be read is named and left out.

    Raises:
        NoSpace: the cache cannot be written.
    """
    folder = cache / "prepared" / _hash(recipe)
    ready, skipped = each(cases, folder, step, lambda case: _prepare(recipe, case, folder))
    return PreparedBoxSet(tuple(ready), tuple(skipped))


def _prepare(recipe: Recipe, case: Case, folder: Path) -> PreparedBoxes:
    boxes = true_boxes(recipe, case)
    place = folder / case_digest(case)
    if not (place / "labels.npy").is_file():
        image, frame = framed(recipe, read_study(case.channels, recipe.may_lack))
        keep_arrays(
            place,
            image=image.clamp(-_HALF_MAX, _HALF_MAX).half().numpy(),
            boxes=frame.edges(boxes).astype(np.float32),
            labels=np.array([recipe.labels[box.label] - 1 for box in boxes], np.int64),
        )
    return PreparedBoxes(case, place)


class BoxSource:
    """An endless, seeded stream of batches, scaled, shifted and mirrored with their boxes."""

    def __init__(self, recipe: Recipe, cases: Sequence[PreparedBoxes], seed: int) -> None:
        self._recipe, self._cases, self._patch = recipe, cases, patch_shape(recipe)
        self._rng = np.random.default_rng(seed)
        self._left: list[int] = []

    def state(self) -> str:
        """Where in the stream it is, as JSON for `go_on`."""
        return json.dumps({"rng": self._rng.bit_generator.state, "left": self._left})

    def go_on(self, state: str) -> None:
        """Continue where another source of the same recipe and cases was."""
        found = json.loads(state)
        self._rng.bit_generator.state, self._left = found["rng"], found["left"]

    def next(self) -> BoxBatch:
        """The next batch."""
        patches = [self._one(self._cases[self._next()]) for _ in range(self._recipe.fit.batch)]
        images, boxes, labels = zip(*patches, strict=True)
        return BoxBatch(torch.stack(images), boxes, labels)

    def _next(self) -> int:
        """Every case once before any comes twice."""
        if not self._left:
            self._left = self._rng.permutation(len(self._cases)).tolist()
        return self._left.pop(0)

    def _one(self, case: PreparedBoxes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        patch = np.array(self._patch)
        boxes, labels, d = case.boxes.astype(float), case.labels, len(patch)
        image = case.image
        scale = self._rng.uniform(*_SCALE)
        middle = self._middle(np.array(image.shape[1:]), boxes, patch / scale)
        mirror = np.array([axis in self._recipe.fit.mirror and self._rng.random() < 0.5 for axis in range(d)])
        sign = np.where(mirror, -1.0, 1.0)
        found = _resampled(image, middle, scale, sign, self._patch)
        ends = (np.stack([boxes[:, :d], boxes[:, d:]]) - middle) * scale * sign + patch / 2
        inside, left = _kept(ends.min(0), ends.max(0), labels, patch)
        return found, inside, left

    def _middle(self, shape: np.ndarray, boxes: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Where in the study a patch's middle comes to lie: near a box in `fit.foreground` of the cases."""
        if self._recipe.dimension == 2:
            return shape / 2 + self._rng.uniform(-_SHIFT, _SHIFT, 2) * shape
        room = np.maximum(shape - reach, 0) / 2
        if len(boxes) and self._rng.random() < self._recipe.fit.foreground:
            box = boxes[self._rng.integers(len(boxes))]
            near = (box[:3] + box[3:]) / 2 + self._rng.uniform(-0.3, 0.3, 3) * reach
            return np.clip(near, shape / 2 - room, shape / 2 + room)
        return shape / 2 + self._rng.uniform(-1, 1, 3) * room


def _resampled(
    image: np.ndarray, middle: np.ndarray, scale: float, sign: np.ndarray, patch: Sequence[int]
) -> torch.Tensor:
    """(C, *patch) float32 around a place of a study, the edge repeated beyond it."""
    shape, size = np.array(image.shape[1:]), np.array(patch)
    low = np.floor(middle - size / scale / 2 - 1).clip(0, shape - 1).astype(int)
    high = np.ceil(middle + size / scale / 2 + 1).clip(low + 1, shape).astype(int)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    part = np.stack([channel[inside] for channel in image])
    theta = np.zeros((len(size), len(size) + 1))
    extent = high - low
    np.fill_diagonal(theta, size / scale / extent * sign)
    theta[:, -1] = 2 * (middle - low) / extent - 1
    order = [*range(len(size) - 1, -1, -1), len(size)]
    turned = torch.from_numpy(theta[::-1][:, order].copy()).float()
    grid = functional.affine_grid(turned[None], [1, 1, *patch], align_corners=False)
    given = torch.from_numpy(np.array(part, np.float32))[None]
    return functional.grid_sample(given, grid, padding_mode="border", align_corners=False)[0]


def _kept(
    low: np.ndarray, high: np.ndarray, labels: np.ndarray, patch: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes cut to the patch, without those of which too little is left."""
    inside = np.hstack([low.clip(0, patch), high.clip(0, patch)])
    d = len(patch)
    size = inside[:, d:] - inside[:, :d]
    left = np.prod(size, axis=1) / np.maximum(np.prod(high - low, axis=1), 1e-9)
    keep = (left >= _KEPT) & (size > 0.5).all(axis=1)
    return torch.from_numpy(inside[keep].astype(np.float32)), torch.from_numpy(labels[keep])


def _hash(recipe: Recipe) -> str:
    parts = recipe.model_dump(
        mode="json", include={"preprocess", "dimension", "channels", "optional", "labels", "format"}
    )
    parts |= {"boxes": True, "patch": patch_shape(recipe) if recipe.dimension == 2 else None}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
