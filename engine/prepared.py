"""Preprocessed cases on disk, so that a training reads patches and memory does not grow with the number of studies."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

import numpy as np

from radloop.recipes.errors import BadInput, NotFound
from radloop.recipes.preprocess import Preprocess
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case, read_label
from radloop.studies.files import writing
from radloop.studies.images import read_study

logger = logging.getLogger(__name__)
T = TypeVar("T")

_POINTS_A_LABEL = 4000
_HALF_MAX = 60000.0  # float16 ends at 65504


@dataclass(frozen=True)
class Prepared:
    """One case on the network's grid, on disk.

    Attributes:
        case: the study and label it was made from.
        folder: holds `image.npy` (C, x, y, z) float16, `label.npy` (x, y, z) uint8 and `points.npy` (n, 4) int32:
            label id and place of up to 4000 voxels a label.
        known: (1 + labels,) whether the label speaks for each class; background always.
    """

    case: Case
    folder: Path
    known: np.ndarray

    @property
    def image(self) -> np.ndarray:
        """(C, x, y, z) float16, mapped from disk."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @property
    def label(self) -> np.ndarray:
        """(x, y, z) uint8, mapped from disk."""
        return np.load(self.folder / "label.npy", mmap_mode="r")

    @property
    def points(self) -> np.ndarray:
        """(n, 4) int32: label id and voxel."""
        return np.load(self.folder / "points.npy")


@dataclass(frozen=True)
class PreparedSet:
    """The cases that could be prepared, and those that could not with the reason."""

    ready: tuple[Prepared, ...]
    skipped: tuple[tuple[str, str], ...]


def prepare(
    recipe: Recipe, cases: Iterable[Case], cache: Path, step: Callable[[int], None] | None = None
) -> PreparedSet:
    """Preprocess every case into `cache`, or find it there; a case that cannot be read is named and left out.

    Args:
        recipe: whose preprocessing and labels.
        cases: studies with a label each.
        cache: a folder that can be deleted at any time.
        step: called before each case with its number; may raise to stop.

    Raises:
        NoSpace: the cache cannot be written.
    """
    folder = cache / "prepared" / _preprocess_hash(recipe)
    ready, skipped = each(cases, folder, step, lambda case: _prepare(recipe, case, folder))
    return PreparedSet(tuple(ready), tuple(skipped))


def each(
    cases: Iterable[Case], folder: Path, step: Callable[[int], None] | None, make: Callable[[Case], T]
) -> tuple[list[T], list[tuple[str, str]]]:
    """What `make` gives of the cases, one after another, and (study, reason) of those that cannot be read.

    Args:
        cases: studies with a label each.
        folder: where they are cached; it is made.
        step: called before each case with its number; may raise to stop.
        make: of one case.

    Raises:
        NoSpace: the cache cannot be written.
    """
    with writing(f"the cache {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    ready, skipped = [], []
    for number, case in enumerate(cases):
        if step:
            step(number)
        try:
            ready.append(make(case))
        except (BadInput, NotFound) as error:
            logger.warning("skipped study %s: %s", case.study, error)
            skipped.append((case.study, str(error)))
    return ready, skipped


def _prepare(recipe: Recipe, case: Case, folder: Path) -> Prepared:
    known = np.array([True, *(name in case.names for name in recipe.label_names)])
    place = folder / case_digest(case)
    if not (place / "points.npy").is_file():
        _write(recipe, case, place)
    return Prepared(case, place, known)


def _write(recipe: Recipe, case: Case, place: Path) -> None:
    chain = Preprocess(recipe)
    image, grid = chain.image(read_study(case.channels, recipe.may_lack))
    label = chain.label(read_label(case, recipe.labels), grid).numpy()
    small = image.clamp(-_HALF_MAX, _HALF_MAX).half().numpy()
    keep_arrays(place, image=small, label=label, points=_points(label, len(recipe.labels)))


def keep_arrays(place: Path, **arrays: np.ndarray) -> None:
    """Write arrays as `<name>.npy` into a folder of the cache, which appears whole.

    Raises:
        NoSpace: the cache cannot be written.
    """
    with writing(f"the cache {place.parent}"):
        private = Path(mkdtemp(prefix=".making-", dir=place.parent))
        try:
            for name, array in arrays.items():
                np.save(private / f"{name}.npy", array)
            if place.exists():  # left incomplete by a crash, or made by another training meanwhile
                shutil.rmtree(place, ignore_errors=True)
            private.rename(place)
        finally:
            shutil.rmtree(private, ignore_errors=True)


def _points(label: np.ndarray, labels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = [np.empty((0, 4), np.int32)]
    for number in range(1, labels + 1):
        places = np.argwhere(label == number)
        if len(places) > _POINTS_A_LABEL:
            places = places[np.sort(rng.choice(len(places), _POINTS_A_LABEL, replace=False))]
        rows.append(np.column_stack([np.full(len(places), number), places]).astype(np.int32))
    return np.concatenate(rows)


def _preprocess_hash(recipe: Recipe) -> str:
    parts = recipe.model_dump(
        mode="json", include={"preprocess", "dimension", "channels", "optional", "labels", "format"}
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def case_digest(case: Case) -> str:
    """Changes with the content of the label and of the region, and with the size or time of the study's files.

    Raises:
        NotFound: one of them cannot be read.
    """
    digest = hashlib.sha256(case.study.encode())
    try:
        for path in case.channels:
            if not path.exists():  # a channel that the study lacks
                digest.update(f"{path.name}:missing".encode())
                continue
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                state = file.stat()
                digest.update(f"{file.name}:{state.st_size}:{state.st_mtime_ns}".encode())
        digest.update(case.label.read_bytes())
        digest.update(case.region.read_bytes() if case.region else b"")
        digest.update("\0".join(case.ids).encode())
    except OSError as error:
        msg = f"study {case.study}: {Path(error.filename or case.label).name} cannot be read ({error.strerror})"
        raise NotFound(msg) from error
    return digest.hexdigest()[:32]
