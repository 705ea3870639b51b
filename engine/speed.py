"""How fast this machine is, measured and not looked up: what a recipe may cost here before a reader waits too long.

Times are processor time on one thread less than there are cores, so that neither what else runs now nor a training that
runs later makes the figure too good. On CUDA they are wall-clock time.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np
import psutil
import torch

from radloop.engine.cores import usable_cores
from radloop.networks.registry import build
from radloop.networks.topology import min_multiple, patch_shape, topology
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import CLASS_KINDS, Recipe
from radloop.recipes.volume import Volume
from radloop.studies.images import read_volume, write_mask

T = TypeVar("T")

_PROBE_EDGE = {3: 48, 2: 256}  # by dimension; a patch is measured at most this large and scaled up
_MINI_FILE = (192, 192, 48)
_LIBRARIES = 1150 << 20  # torch, MONAI, Python and the augmentation, as measured with batches of 1, 2 and 4


@dataclass(frozen=True)
class Machine:
    """What a plan may use.

    Attributes:
        device: `cpu` or `cuda`.
        name: for a comment.
        threads: processor threads that answer while a training runs.
        memory: bytes of main memory.
        device_memory: bytes where the network runs; main memory on a CPU.
    """

    device: str
    name: str
    threads: int
    memory: int
    device_memory: int


@dataclass(frozen=True)
class TrainingCost:
    """One patch through one training step.

    Attributes:
        seconds: forward and backward.
        activations: bytes kept for the backward pass.
        weights: bytes of the weights, their gradients, the optimiser's two moments and the averaged copy.
    """

    seconds: float
    activations: float
    weights: float

    def memory(self, batch: int) -> float:
        """Bytes that a step of `batch` patches takes; half as much again for gradients and workspace."""
        return _LIBRARIES + self.weights + 1.5 * batch * self.activations


@dataclass(frozen=True)
class PathSeconds:
    """Everything between the file and the answer but the network, for one study."""

    read: float
    image: float
    restore: float
    write: float

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.read + self.image + self.restore + self.write

    def scaled(self, factor: float) -> PathSeconds:
        """The same for `factor` times the voxels."""
        return PathSeconds(self.read * factor, self.image * factor, self.restore * factor, self.write * factor)


def this_machine(device: str | None = None) -> Machine:
    """This machine; `device` is `cpu` or `cuda`, by default CUDA where there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    memory = psutil.virtual_memory().total
    cores = usable_cores()
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        return Machine(device, found.name, max(1, cores - 1), memory, found.total_memory)
    return Machine(device, f"{cores} processor cores", max(1, cores - 1), memory, memory)


class NetworkSpeed:
    """Times networks on small patches and scales by voxels; what was measured once is not measured again.

    Args:
        machine: where.
        progress: called with a line that says what is being measured.
    """

    def __init__(self, machine: Machine, progress: Callable[[str], None]) -> None:
        self._machine = machine
        self._progress = progress
        self._forwards: dict[object, float] = {}
        self._trainings: dict[object, TrainingCost] = {}

    def forward(self, recipe: Recipe) -> float:
        """Seconds to send one patch of `recipe.fit.patch` through its network and to add it to the answer's scores."""
        shape, scale = _probe(recipe)
        key = _same_speed(recipe, shape)
        if key not in self._forwards:
            self._progress(f"measuring an answer of a network with {topology(recipe).features[0]} features")
            self._forwards[key] = _forward_seconds(recipe, shape, self._machine)
        return scale * self._forwards[key]

    def training(self, recipe: Recipe) -> TrainingCost:
        """What one patch of `recipe.fit.patch` costs in a training step."""
        shape, scale = _probe(recipe)
        key = _same_speed(recipe, shape)
        if key not in self._trainings:
            self._progress(f"measuring a training step of a network with {topology(recipe).features[0]} features")
            self._trainings[key] = _training_cost(recipe, shape, self._machine)
        cost = self._trainings[key]
        return TrainingCost(scale * cost.seconds, scale * cost.activations, cost.weights)


def _same_speed(recipe: Recipe, shape: tuple[int, ...]) -> object:
    return recipe.network.name, topology(recipe), recipe.inputs, len(recipe.labels), shape


def _forward_seconds(recipe: Recipe, shape: tuple[int, ...], machine: Machine) -> float:
    net = build(recipe).eval().to(machine.device)
    patch = torch.randn(1, recipe.inputs, *shape, device=machine.device)
    scores = torch.zeros(1, 1 + len(recipe.labels), *shape, device=machine.device)
    weight = torch.rand(shape, device=machine.device)

    def forward() -> None:
        if recipe.kind in CLASS_KINDS:
            net(patch, None, None)
        else:
            scores.add_(net(patch) * weight)

    with torch.inference_mode(), _threads(machine.threads):
        return _timed(forward, machine)


def _training_cost(recipe: Recipe, shape: tuple[int, ...], machine: Machine) -> TrainingCost:
    """A real forward and backward pass; what autograd keeps for the way back is counted as it is kept."""
    net = build(recipe).train().to(machine.device)
    patch = torch.randn(1, recipe.inputs, *shape, device=machine.device)
    target = torch.randint(0, 1 + len(recipe.labels), (1, *shape), device=machine.device)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if recipe.kind in CLASS_KINDS:
                loss = net(patch, None, None).square().mean()
            else:
                loss = torch.nn.functional.cross_entropy(net(patch), target)
        loss.backward()

    with torch.enable_grad(), _threads(machine.threads):
        seconds = _timed(step, machine, repeats=1)
    return TrainingCost(seconds, sum(kept.values()), 5.0 * weights)


class MiniRun:
    """A small study of the same spacing as a large one, on which the way from file to answer is timed.

    All four parts of the way grow with the voxels of the file, so what the small study takes is scaled by them.

    Args:
        shape: voxels of the large study along R, A, S.
        spacing: its voxel size, mm.
        channels: its images.
        machine: where.
    """

    def __init__(self, shape: tuple[int, ...], spacing: tuple[float, ...], channels: int, machine: Machine) -> None:
        small = tuple(min(n, most) for n, most in zip(shape, _MINI_FILE, strict=True))
        self._factor = math.prod(shape) / math.prod(small)
        self._machine = machine
        affine = np.diag([*spacing, 1.0])
        values = np.random.default_rng(0).normal(0, 300, small).astype(np.int16)  # noise: the hardest to unpack
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "study.nii.gz", Path(folder) / "mask.nii.gz"
            nib.save(nib.Nifti1Image(values, affine), source)
            volume, read = _once(lambda: read_volume(source))
            _, self._write = _once(lambda: write_mask(target, (values > 600).astype(np.uint8), affine))
        self._read = channels * read
        self._volume = Volume(np.repeat(volume.array, channels, axis=0), volume.affine)

    def path(self, recipe: Recipe) -> PathSeconds:
        """Seconds on the large study with this recipe."""
        prepare = Preprocess(recipe)
        with torch.inference_mode(), _threads(self._machine.threads):
            (image, grid), resampled = _once(lambda: prepare.image(self._volume))
            if recipe.kind in CLASS_KINDS:  # which gives no mask back
                return PathSeconds(self._read, resampled, 0.0, 0.0).scaled(self._factor)
            scores = torch.zeros(1 + len(recipe.labels), *image.shape[1:])
            scores[1, image.shape[1] // 3 :] = 1.0
            _, restored = _once(lambda: prepare.restore(scores, grid))
        return PathSeconds(self._read, resampled, restored, self._write).scaled(self._factor)


def windows(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> int:
    """Patches that MONAI's sliding window takes to cover `shape`, 2D ones slice by slice along the last axis."""
    steps = [max(1, int(size * (1 - overlap))) for size in patch]
    count = math.prod(
        math.ceil(max(0, n - size) / step) + 1 for n, size, step in zip(shape, patch, steps, strict=False)
    )
    return count * math.prod(shape[len(patch) :])


def _probe(recipe: Recipe) -> tuple[tuple[int, ...], float]:
    """A shape to measure, about 48 voxels a side (256 in 2D), and how many times the patch is larger."""
    patch, multiple = patch_shape(recipe), min_multiple(recipe)
    edge = _PROBE_EDGE[recipe.dimension]
    shape = tuple(min(p, max(m, edge // m * m)) for p, m in zip(patch, multiple, strict=True))
    return shape, math.prod(patch) / math.prod(shape)


def _timed(work: Callable[[], None], machine: Machine, repeats: int = 2) -> float:
    """Seconds of the fastest of `repeats` after one that warms up."""
    work()
    return min(_seconds(work, machine) for _ in range(repeats))


def _seconds(work: Callable[[], None], machine: Machine) -> float:
    if machine.device == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    work()
    return (time.process_time() - start) / machine.threads


def _once(work: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch on `count` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
