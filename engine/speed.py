"""How fast this machine is, measured and not looked up: what a recipe may cost here before a reader waits too long.

Times are processor time on one thread less than there are cores, so that neither what else runs now nor a training that
runs later makes the figure too good. On CUDA they are wall-clock time.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import torch

from radloop.networks.registry import build
from radloop.networks.topology import min_multiple, patch_shape
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.studies.images import read_volume, write_mask

_PROBE_VOXELS = 48**3  # a patch is measured at most this large and scaled up
_MINI_FILE = (256, 256, 48)
_LIBRARIES = 700 << 20  # torch, MONAI and Python themselves


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
    cores = _cores()
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        return Machine(device, found.name, max(1, cores - 1), memory, found.total_memory)
    return Machine(device, f"{cores} processor cores", max(1, cores - 1), memory, memory)


def forward_seconds(recipe: Recipe, machine: Machine) -> float:
    """Seconds to send one patch of `recipe.fit.patch` through its network and to add it to the answer's scores."""
    shape, scale = _probe(recipe)
    net = build(recipe).eval().to(machine.device)
    patch = torch.randn(1, len(recipe.channels), *shape, device=machine.device)
    scores = torch.zeros(1, 1 + len(recipe.labels), *shape, device=machine.device)
    weight = torch.rand(shape, device=machine.device)

    def forward() -> None:
        scores.add_(net(patch) * weight)

    with torch.inference_mode(), _threads(machine.threads):
        return scale * _timed(forward, machine)


def training_cost(recipe: Recipe, machine: Machine) -> TrainingCost:
    """What one patch of `recipe.fit.patch` costs in a training step, measured with a real forward and backward pass."""
    shape, scale = _probe(recipe)
    net = build(recipe).train().to(machine.device)
    patch = torch.randn(1, len(recipe.channels), *shape, device=machine.device)
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
            loss = torch.nn.functional.cross_entropy(net(patch), target)
        loss.backward()

    with torch.enable_grad(), _threads(machine.threads):
        seconds = _timed(step, machine, repeats=2)
    return TrainingCost(scale * seconds, scale * sum(kept.values()), 5.0 * weights)


def path_seconds(
    recipe: Recipe, shape: tuple[int, ...], spacing: tuple[float, ...], machine: Machine, folder: Path | None = None
) -> PathSeconds:
    """Seconds to read, resample, restore and write a study, from a mini run on a smaller study of the same spacing.

    All four grow with the voxels of the file, so the mini run's figures are scaled by them.

    Args:
        recipe: decides the grid, the normalisation and the number of classes.
        shape: voxels of the study along R, A, S.
        spacing: its voxel size, mm.
        machine: where.
        folder: for the mini run's files; a temporary one by default.
    """
    small = tuple(min(n, most) for n, most in zip(shape, _MINI_FILE, strict=True))
    affine = np.diag([*spacing, 1.0])
    values = np.random.default_rng(0).normal(0, 300, small).astype(np.int16)  # noise: the hardest to unpack
    prepare = Preprocess(recipe)
    with tempfile.TemporaryDirectory(dir=folder) as temporary, _threads(machine.threads):
        source, target = Path(temporary) / "study.nii.gz", Path(temporary) / "mask.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), source)
        volume, read = _once(lambda: read_volume(source))
        channels = len(recipe.channels)
        stacked = type(volume)(np.repeat(volume.array, channels, axis=0), volume.affine)
        (image, grid), resampled = _once(lambda: prepare.image(stacked))
        scores = torch.zeros(1 + len(recipe.labels), *image.shape[1:])
        middle = tuple(slice(n // 3, n - n // 3) for n in image.shape[1:])
        scores[(1, *middle)] = 1.0
        mask, restored = _once(lambda: prepare.restore(scores, grid))
        _, written = _once(lambda: write_mask(target, mask, affine))
    factor = math.prod(shape) / math.prod(small)
    return PathSeconds(channels * read, resampled, restored, written).scaled(factor)


def windows(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> int:
    """Patches that MONAI's sliding window takes to cover `shape`, 2D ones slice by slice along the last axis."""
    steps = [max(1, int(size * (1 - overlap))) for size in patch]
    count = math.prod(
        math.ceil(max(0, n - size) / step) + 1 for n, size, step in zip(shape, patch, steps, strict=False)
    )
    return count * math.prod(shape[len(patch) :])


def _cores() -> int:
    """Cores that this process may use (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _probe(recipe: Recipe) -> tuple[tuple[int, ...], float]:
    """A shape to measure, no larger than about 48 voxels cubed, and how many times the patch is larger."""
    patch, multiple = patch_shape(recipe), min_multiple(recipe)
    shape = list(patch)
    while math.prod(shape) > _PROBE_VOXELS:
        axis = max(range(len(shape)), key=lambda i: shape[i] / multiple[i])
        smaller = max(multiple[axis], shape[axis] // 2 // multiple[axis] * multiple[axis])
        if smaller == shape[axis]:
            break
        shape[axis] = smaller
    return tuple(shape), math.prod(patch) / math.prod(shape)


def _timed(work: Callable[[], None], machine: Machine, repeats: int = 3) -> float:
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


def _once(work: Callable[[], object]) -> tuple[object, float]:
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
