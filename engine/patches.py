"""Random patches from prepared cases: a share of them centred on a labelled voxel, every label in turn alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from radloop.engine.losses import IGNORE
from radloop.engine.prepared import Prepared
from radloop.networks.topology import patch_shape
from radloop.recipes.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Patches as tensors: image (N, C, *patch) float32, label (N, *patch) uint8, known (N, 1 + labels) bool."""

    image: torch.Tensor
    label: torch.Tensor
    known: torch.Tensor


class PatchSource:
    """An endless, seeded stream of batches. A 2D recipe gets patches of single slices along the last axis."""

    def __init__(self, recipe: Recipe, cases: Sequence[Prepared], seed: int) -> None:
        self._cases = cases
        self._batch = recipe.fit.batch
        self._foreground = recipe.fit.foreground
        patch = patch_shape(recipe)
        self._patch = (*patch, 1) if recipe.dimension == 2 else patch
        self._flat = recipe.dimension == 2
        self._rng = np.random.default_rng(seed)
        self._left: list[int] = []

    def state(self) -> str:
        """Where in the stream it is, as JSON for `go_on`."""
        return json.dumps({"rng": self._rng.bit_generator.state, "left": self._left})

    def go_on(self, state: str) -> None:
        """Continue where another source of the same recipe and cases was."""
        found = json.loads(state)
        self._rng.bit_generator.state, self._left = found["rng"], found["left"]

    def _next_case(self) -> Prepared:
        """Every case once before any comes twice."""
        if not self._left:
            self._left = self._rng.permutation(len(self._cases)).tolist()
        return self._cases[self._left.pop(0)]

    def next(self) -> Batch:
        """The next batch."""
        cases = [self._next_case() for _ in range(self._batch)]
        pairs = [self._patch_of(case) for case in cases]
        return Batch(
            torch.from_numpy(np.stack([image for image, _ in pairs])),
            torch.from_numpy(np.stack([label for _, label in pairs])),
            torch.from_numpy(np.stack([case.known for case in cases])),
        )

    def _patch_of(self, case: Prepared) -> tuple[np.ndarray, np.ndarray]:
        image, label = case.image, case.label
        start = self._start(label.shape, self._centre(case))
        taken = tuple(
            slice(max(s, 0), min(s + size, n)) for s, size, n in zip(start, self._patch, label.shape, strict=True)
        )
        pad = [(max(-s, 0), max(s + size - n, 0)) for s, size, n in zip(start, self._patch, label.shape, strict=True)]
        every = (slice(None), *taken)
        # The edge is repeated, as prediction does; what lies outside the study is not in the loss.
        pixels = np.pad(image[every].astype(np.float32), [(0, 0), *pad], mode="edge")
        ids = np.pad(label[taken], pad, constant_values=IGNORE)
        return (pixels[..., 0], ids[..., 0]) if self._flat else (pixels, ids)

    def _centre(self, case: Prepared) -> np.ndarray | None:
        if self._rng.random() >= self._foreground:
            return None
        points = case.points
        present = np.unique(points[:, 0])
        if not len(present):
            return None
        rows = np.flatnonzero(points[:, 0] == self._rng.choice(present))
        return points[self._rng.choice(rows), 1:]

    def _start(self, shape: tuple[int, ...], centre: np.ndarray | None) -> list[int]:
        """The patch's first voxel by axis; negative where the study is smaller than the patch (then centred)."""
        starts = []
        for axis, (size, n) in enumerate(zip(self._patch, shape, strict=True)):
            if n <= size:
                starts.append(-((size - n) // 2))
            elif centre is None:
                starts.append(int(self._rng.integers(0, n - size + 1)))
            else:
                starts.append(int(np.clip(centre[axis] - size // 2, 0, n - size)))
        return starts
