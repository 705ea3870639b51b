"""The finest voxels and the widest network that answer in time on this machine."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from radloop.engine import plan_rules as rules
from radloop.engine.predictor import OVERLAP
from radloop.engine.speed import Machine, MiniRun, NetworkSpeed, PathSeconds, TrainingCost, windows
from radloop.networks.topology import patch_shape, topology
from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Network, Recipe
from radloop.studies.fingerprint import Fingerprint

log = logging.getLogger(__name__)

RESERVE = 0.8  # the share of the answer's seconds that the estimate may fill
LESION_VOXELS = 4.0  # fewer across, and the network gets narrower before voxels get coarser still
WIDTHS = {"cpu": (16, 12, 8), "cuda": (32, 24, 16)}
_MOST_FEATURES = 320  # nnU-Net's, in 3D
_PATCH_VOXELS = {("cpu", 3): 72**3, ("cuda", 3): 128**3, ("cpu", 2): 320**2, ("cuda", 2): 512**2}
_BATCHES = {3: (2, 8), 2: (4, 16)}  # fewest and most patches a step, by dimension
_STEP_SECONDS = 4.0  # on a CPU a step takes no longer, or twenty minutes teach nothing
_QUICK_STEP_SECONDS = 1.5  # patches beyond the fewest are for free only below this
_COARSER = 2 ** (1 / 12)
_MOST_STEPS = 48  # 16 times coarser
_MEMORY_SHARE = 0.5  # of the machine: the server, the viewer and the reader live there too
_LIBRARIES = 900 << 20


@dataclass(frozen=True)
class Estimate:
    """What one answer on the largest study costs here.

    Attributes:
        shape: the study on the network's grid.
        windows: patches that cover it.
        patch_seconds: each.
        path: everything between file and answer but the network.
        memory: bytes at the peak of an answer.
    """

    shape: tuple[int, ...]
    windows: int
    patch_seconds: float
    path: PathSeconds
    memory: float

    @property
    def seconds(self) -> float:
        """Seconds from the click to the written mask."""
        return self.path.total + self.windows * self.patch_seconds


@dataclass(frozen=True)
class Plan:
    """A recipe and the figures behind it.

    Attributes:
        recipe: what was found.
        full: voxel size in mm that the studies would deserve if time did not matter.
        budget: seconds that an answer may take.
        estimate: what an answer takes.
        training: what a patch takes in training.
        smallest: mm across the smallest tenth of the labelled things seen, or infinity.
        machine: where.
    """

    recipe: Recipe
    full: tuple[float, ...]
    budget: float
    estimate: Estimate
    training: TrainingCost
    smallest: float
    machine: Machine


class Search:
    """Looks for a plan.

    Args:
        seen: the fingerprint of the studies.
        base: a recipe with all that does not depend on speed: name, labels, channels, intensities.
        budget: seconds that an answer may take.
        machine: where.
        progress: called with a line that says what is being measured.
    """

    def __init__(
        self, seen: Fingerprint, base: Recipe, budget: float, machine: Machine, progress: Callable[[str], None]
    ) -> None:
        self._seen, self._base, self._budget, self._machine = seen, base, budget, machine
        self._speed = NetworkSpeed(machine, progress)
        self._shape = tuple(int(n) for n in seen.shapes[seen.largest])
        self._spacing = tuple(float(mm) for mm in seen.spacings[seen.largest])
        self._mini = MiniRun(self._shape, self._spacing, seen.channels, machine)

    def plan(self) -> Plan:
        """The plan.

        Raises:
            BadInput: nothing answers in time here; the message has the seconds that it would take.
        """
        full = rules.full_spacing(self._seen)
        diameters = self._seen.labels.diameters
        smallest = float(np.percentile(diameters, 10)) if diameters else math.inf
        best: tuple[Recipe, Estimate] | None = None
        for width in WIDTHS[self._machine.device]:
            found = self._finest(full, width)
            if found and (best is None or max(found[0].preprocess.spacing) < max(best[0].preprocess.spacing)):
                best = found
            if found and (found[0].preprocess.spacing == full or self._enough(found[0], smallest)):
                break
        if best is None:
            raise BadInput(self._too_slow(full))
        recipe = self._with_batch(best[0])
        return Plan(recipe, full, self._budget, best[1], self._speed.training(recipe), smallest, self._machine)

    def _enough(self, recipe: Recipe, smallest: float) -> bool:
        return smallest >= LESION_VOXELS * max(recipe.preprocess.spacing)

    def _finest(self, full: tuple[float, ...], width: int) -> tuple[Recipe, Estimate] | None:
        """The finest recipe of this width that answers in time and in memory, or None."""
        finest = self._at(full, width, 0)
        if self._fits(finest[1]):
            return finest
        low, high = 0, _MOST_STEPS
        best = self._at(full, width, high)
        if not self._fits(best[1]):
            return None
        while high - low > 1:  # low does not fit, high does
            middle = (low + high) // 2
            found = self._at(full, width, middle)
            if self._fits(found[1]):
                high, best = middle, found
            else:
                low = middle
        return best

    def _at(self, full: tuple[float, ...], width: int, step: int) -> tuple[Recipe, Estimate]:
        recipe = self._recipe(rules.coarser(full, min(full) * _COARSER**step), width)
        return recipe, self._estimate(recipe)

    def _fits(self, estimate: Estimate) -> bool:
        in_memory = estimate.memory <= _MEMORY_SHARE * self._machine.memory
        return in_memory and estimate.seconds <= RESERVE * self._budget

    def _recipe(self, spacing: tuple[float, ...], width: int) -> Recipe:
        """The recipe at one voxel size and width, its patch as large as training can afford."""
        voxels = _PATCH_VOXELS[self._machine.device, self._base.dimension]
        size = rules.median_size(self._seen, spacing)
        fewest = _BATCHES[self._base.dimension][0]
        while True:
            recipe = self._sized(spacing, rules.patch_within(size, spacing, voxels), width)
            if voxels < 16**self._base.dimension or self._affordable(self._speed.training(recipe), fewest):
                return recipe
            voxels = int(0.7 * voxels)

    def _sized(self, spacing: tuple[float, ...], patch: tuple[int, ...], width: int) -> Recipe:
        """The base recipe with a patch that its own network can take, strides and features written out."""
        preprocess = self._base.preprocess.model_copy(update={"spacing": spacing})
        fit = self._base.fit.model_copy(update={"patch": patch})
        recipe = self._base.model_copy(update={"preprocess": preprocess, "fit": fit, "network": Network()})
        fit = fit.model_copy(update={"patch": patch_shape(recipe)})
        strides = topology(recipe).strides
        features = tuple(min(width * 2**level, _MOST_FEATURES) for level in range(len(strides)))
        network = Network(name=self._base.network.name, features=features, strides=strides)
        return recipe.model_copy(update={"fit": fit, "network": network})

    def _affordable(self, cost: TrainingCost, batch: int, seconds: float = _STEP_SECONDS) -> bool:
        slow = self._machine.device == "cpu" and batch * cost.seconds > seconds
        return not slow and cost.memory(batch) <= _MEMORY_SHARE * self._machine.device_memory

    def _with_batch(self, recipe: Recipe) -> Recipe:
        """The recipe with as many patches a step as fill the voxels of two large patches."""
        fewest, most = _BATCHES[recipe.dimension]
        voxels = fewest * _PATCH_VOXELS[self._machine.device, recipe.dimension]
        batch = max(fewest, min(most, voxels // math.prod(recipe.fit.patch)))
        while batch > fewest and not self._affordable(self._speed.training(recipe), batch, _QUICK_STEP_SECONDS):
            batch -= 1
        return recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"batch": batch})})

    def _estimate(self, recipe: Recipe) -> Estimate:
        wanted = (*recipe.preprocess.spacing, *self._spacing[recipe.dimension :])
        sizes = zip(self._shape, self._spacing, wanted, strict=True)
        grid = tuple(max(1, round(n * old / new)) for n, old, new in sizes)
        return Estimate(
            shape=grid,
            windows=windows(grid, recipe.fit.patch, OVERLAP),
            patch_seconds=self._speed.forward(recipe),
            path=self._mini.path(recipe),
            memory=_answer_memory(recipe, math.prod(self._shape), math.prod(grid)),
        )

    def _too_slow(self, full: tuple[float, ...]) -> str:
        estimate = self._at(full, WIDTHS[self._machine.device][-1], _MOST_STEPS)[1]
        name = self._seen.ids[self._seen.largest]
        return (
            f"answer_seconds = {self._budget:g} cannot be met on {self._machine.name}: the largest study {name!r} "
            f"takes {estimate.path.total:.0f} s to read, resample and write, and at least {estimate.seconds:.0f} s in "
            f"all; give {math.ceil(estimate.seconds / RESERVE)} or more"
        )


def _answer_memory(recipe: Recipe, file_voxels: int, grid_voxels: int) -> float:
    """Bytes at the peak of an answer: the file as read and as float32, the grid's image and every class's scores."""
    channels, classes = len(recipe.channels), 1 + len(recipe.labels)
    return _LIBRARIES + file_voxels * (4.0 * channels + 10.0) + 4.0 * grid_voxels * (2 * channels + 3 * classes)
