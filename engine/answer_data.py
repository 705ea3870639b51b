"""Studies for an answer about the whole: preprocessed on disk, cut or thinned to what the network takes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from radloop.engine.answer_batch import AnswerBatch, stack, takes_slices
from radloop.engine.prepared import case_digest, each, keep_arrays
from radloop.engine.region_check import check_picture, check_region
from radloop.engine.slice_weights import thinned
from radloop.recipes.errors import NotFound
from radloop.recipes.preprocess import Grid, Preprocess
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.answers import read_answer, read_outcome
from radloop.studies.cases import Case
from radloop.studies.images import read_header, read_mask, read_study
from radloop.studies.outcomes import DAYS
from radloop.studies.visits import Earlier

logger = logging.getLogger(__name__)

_HALF_MAX = 60000.0  # float16 ends at 65504
_JITTER = 8  # in training a cut moves by up to this part of its size


@dataclass(frozen=True)
class PreparedAnswer:
    """One labelled study on the network's grid, on disk.

    Attributes:
        case: the study and label it was made from.
        folder: holds `image.npy`, (inputs, x, y, z) float16; where a region is named, the last channel is its mask.
        truth: see `truth_of`.
        before: of each earlier visit, oldest first, its folder and the time from it to this one.
    """

    case: Case
    folder: Path
    truth: np.ndarray
    before: tuple[tuple[Path, float], ...] = ()

    @property
    def image(self) -> np.ndarray:
        """(inputs, x, y, z) float16, mapped from disk."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @property
    def visits(self) -> list[np.ndarray]:
        """The image of every earlier visit, oldest first, and of this one."""
        folders = (*(folder for folder, _ in self.before), self.folder)
        return [np.load(folder / "image.npy", mmap_mode="r") for folder in folders]

    @property
    def gaps(self) -> list[float]:
        """Time from each visit to this one; 0 for this one."""
        return [*(gap for _, gap in self.before), 0.0]

    @property
    def known(self) -> np.ndarray:
        """(K,) whether the label speaks for each of the recipe's."""
        return ~np.isnan(self.truth)


@dataclass(frozen=True)
class PreparedAnswers:
    """The cases that could be prepared, and those that could not with the reason."""

    ready: tuple[PreparedAnswer, ...]
    skipped: tuple[tuple[str, str], ...]


def truth_of(recipe: Recipe, case: Case) -> np.ndarray:
    """(K,) float32 of a case's answer: 1, 0, or NaN where nobody looked; of kind `risk` event and time.

    Raises:
        BadLabel: the file is no answer.
    """
    if recipe.kind == "risk":
        outcome = read_outcome(case.label, recipe)
        return np.array([outcome.event, outcome.time], np.float32)
    answer = read_answer(case.label, recipe)
    return np.array([float(answer[n]) if n in answer else math.nan for n in recipe.label_names], np.float32)


def prepare_answers(
    recipe: Recipe, cases: Iterable[Case], cache: Path, step: Callable[[int], None] | None = None
) -> PreparedAnswers:
    """Preprocess every case into `cache`, or find it there; a case that cannot be read is named and left out.

    Args:
        recipe: whose preprocessing, region and labels.
        cases: studies with an answer each.
        cache: a folder that can be deleted at any time.
        step: called before each case with its number; may raise to stop.

    Raises:
        NoSpace: the cache cannot be written.
    """
    folder = cache / "prepared" / _hash(recipe)
    ready, skipped = each(cases, folder, step, lambda case: _prepare(recipe, case, folder))
    return PreparedAnswers(tuple(ready), tuple(skipped))


def _prepare(recipe: Recipe, case: Case, folder: Path) -> PreparedAnswer:
    truth = truth_of(recipe, case)
    earlier = ((replace(case, study=one.study, channels=one.channels), one.gap) for one in case.earlier)
    before = tuple((_kept(recipe, visit, folder), gap) for visit, gap in earlier)
    return PreparedAnswer(case, _kept(recipe, case, folder), truth, before)


def _kept(recipe: Recipe, case: Case, folder: Path) -> Path:
    place = folder / case_digest(case)
    if not (place / "image.npy").is_file():
        image = input_of(recipe, read_study(case.channels, recipe.may_lack), region_mask(case.region, recipe)).numpy()
        keep_arrays(place, image=image.clip(-_HALF_MAX, _HALF_MAX).astype(np.float16))
    return place


def earlier_volumes(recipe: Recipe, earlier: Iterable[Earlier]) -> list[tuple[Volume, float]]:
    """The studies before the asked one as a version takes them: none where its own recipe asks for no sequence.

    Args:
        recipe: the version's, which may be of another form than the one that the studies were gathered for.
        earlier: of a case.

    Raises:
        BadImage: one cannot be read.
        NotFound: one is gone.
    """
    if not recipe.answer.sequence:
        return []
    length = DAYS[recipe.answer.unit]
    return [(read_study(one.channels, recipe.may_lack), one.gap * DAYS[one.unit] / length) for one in earlier]


def region_mask(file: Path | None, recipe: Recipe) -> Volume | None:
    """The mask of a recipe's region; None where the recipe looks at the whole image.

    Raises:
        NotFound: the recipe names a region, and there is no mask of it.
        BadImage: it cannot be read.
    """
    if not recipe.answer.region:
        return None
    if file is None:
        msg = f"there is no mask of {recipe.answer.region!r} to say where to look; label it, or let a model answer"
        raise NotFound(msg)
    return read_mask(file)


def looked_at(recipe: Recipe, case: Case) -> Volume | None:
    """The mask of a case's region, None where the recipe names none, without reading the image.

    Raises:
        BadInput, NotFound: a network could not look at the case: its image is gone or no image, or its region's mask
            is missing or does not say where to look.
    """
    shape, affine = read_header(case.channels[0])
    check_picture(recipe, Preprocess(recipe).grid(Volume(np.broadcast_to(np.False_, (1, *shape)), affine)).shape[-1])
    region = region_mask(case.region, recipe)
    if region is not None:
        check_region(recipe, region, shape, affine)
    return region


def input_of(recipe: Recipe, volume: Volume, region: Volume | None) -> torch.Tensor:
    """What the network may see of a study: (inputs, x, y, z) float32 on the grid, cut around the region if any.

    Outside the region and its border everything is 0, so that neither the shape nor the extent of the file shows.

    Raises:
        BadImage: the study does not fit the recipe.
        BadLabel: the region lies on other voxels, or is empty.
    """
    return located_input(recipe, volume, region)[0]


def located_input(recipe: Recipe, volume: Volume, region: Volume | None) -> tuple[torch.Tensor, Grid, int]:
    """The same, the grid, and the first slice of that which is in it."""
    chain = Preprocess(recipe)
    image, grid = chain.image(volume)
    check_picture(recipe, image.shape[-1])
    if region is None:
        return image, grid, 0
    check_region(recipe, region, grid.source_shape, grid.source_affine)
    mask = _on_grid(region, grid)
    near = _near(mask, grid, recipe.answer.border)
    box = tuple(slice(int(places.min()), int(places.max()) + 1) for places in np.nonzero(near))
    whole = (slice(None), *box)
    found = torch.cat([image[whole] * torch.from_numpy(near[box]), torch.from_numpy(mask[box]).float()[None]])
    return found, grid, box[2].start


def _on_grid(region: Volume, grid: Grid) -> np.ndarray:
    """(x, y, z) bool: the region's mask, whatever its labels, nearest voxel."""
    from radloop.recipes.resample import resize_label

    found = np.array(resize_label(grid.to_ras(region.array[0] > 0), grid.shape), dtype=bool)
    if not found.any():  # smaller than a voxel of the grid
        centre = np.argwhere(grid.to_ras(region.array[0] > 0)).mean(axis=0)
        share = (centre + 0.5) / np.array(grid.oriented_shape)
        found[tuple(np.minimum((share * found.shape).astype(int), np.array(found.shape) - 1))] = True
    return found


def _near(mask: np.ndarray, grid: Grid, border: float) -> np.ndarray:
    """(x, y, z) bool: voxels at most `border` mm from the mask."""
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=grid.spacing)) <= border


def cut(
    image: np.ndarray | torch.Tensor, recipe: Recipe, shift: Sequence[float] = (0.0, 0.0, 0.0)
) -> tuple[np.ndarray, int]:
    """(inputs, *patch) float32 of a study for the network, and how many slices of it are the study's.

    The middle of the study is taken, the edge repeated where it is smaller (zeros around a region). A network of slices
    gets as many as there are, evenly thinned to the patch's third number.

    Args:
        image: (inputs, x, y, z).
        shift: -1..1 along each axis, how far off the middle, as a part of what the jitter allows.
    """
    array = np.asarray(image)
    sizes = (*recipe.fit.patch, 1)[:3]
    axes: Sequence[int] = (0, 1, 2)
    if takes_slices(recipe):
        array = array[..., thinned(array.shape[3], sizes[2])]
        axes = (0, 1)
    taken, pad = [slice(None)] * 4, [(0, 0)] * 4
    for axis in axes:
        n, size = array.shape[axis + 1], sizes[axis]
        start = round((n - size) / 2 + shift[axis] * size / _JITTER)
        if n > size:  # a cut stays inside the study where it can
            start = min(max(start, 0), n - size)
        taken[axis + 1] = slice(max(start, 0), min(start + size, n))
        pad[axis + 1] = (max(-start, 0), max(start + size - n, 0))
    mode = "constant" if recipe.answer.region else "edge"
    found = np.pad(np.asarray(array[tuple(taken)], np.float32), pad, mode=mode)  # type: ignore[call-overload]
    return (found[..., 0] if recipe.dimension == 2 else found), found.shape[3]


class AnswerSource:
    """An endless, seeded stream of batches; with `fit.balance = "sampler"` rare classes come as often as others."""

    def __init__(
        self, recipe: Recipe, cases: Sequence[PreparedAnswer], seed: int, extra: np.ndarray | None = None
    ) -> None:
        self._recipe, self._cases, self._extra = recipe, cases, extra
        self._rng = np.random.default_rng(seed)
        self._left: list[int] = []
        self.chances = _chances(cases) if recipe.fit.balance == "sampler" else None

    def state(self) -> str:
        """Where in the stream it is, as JSON for `go_on`."""
        return json.dumps({"rng": self._rng.bit_generator.state, "left": self._left})

    def go_on(self, state: str) -> None:
        """Continue where another source of the same recipe and cases was."""
        found = json.loads(state)
        self._rng.bit_generator.state, self._left = found["rng"], found["left"]

    def next(self) -> AnswerBatch:
        """The next batch."""
        chosen = [self._next() for _ in range(self._recipe.fit.batch)]
        images = []
        for case in (self._cases[i] for i in chosen):
            shift = self._rng.uniform(-1, 1, 3).tolist()
            images += [cut(visit, self._recipe, shift)[0] for visit in case.visits]
        extra = None if self._extra is None else self._extra[chosen]
        gaps = [self._cases[i].gaps for i in chosen] if self._recipe.answer.sequence else None
        return stack(self._recipe, images, [self._cases[i].truth for i in chosen], extra, gaps)

    def _next(self) -> int:
        """Every case once before any comes twice; by chance where classes are balanced."""
        if self.chances is not None:
            return int(self._rng.choice(len(self._cases), p=self.chances))
        if not self._left:
            self._left = self._rng.permutation(len(self._cases)).tolist()
        return self._left.pop(0)


def _chances(cases: Sequence[PreparedAnswer]) -> np.ndarray:
    """A case's chance: of each of its answers the inverse of how often it is given, the largest of them."""
    truth = np.stack([case.truth for case in cases])
    often = np.nansum(truth, axis=0)
    inverse = np.divide(1.0, often, out=np.zeros_like(often), where=often > 0)
    weights = np.nanmax(np.where(truth > 0, inverse, 0.0), axis=1)
    weights[weights == 0] = 1.0 / len(cases)  # nothing found, or nothing asked
    return weights / weights.sum()


def _hash(recipe: Recipe) -> str:
    parts = recipe.model_dump(mode="json", include={"preprocess", "dimension", "channels", "optional", "format"})
    parts |= {"region": recipe.answer.region, "border": recipe.answer.border, "answers": True}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
