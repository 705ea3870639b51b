"""Which labels the masks of a studies folder hold: names and ids, and how small the labelled things are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from radloop.recipes.errors import BadLabel, RadloopError
from radloop.recipes.volume import Volume
from radloop.studies.folder import StudiesFolder, find_mask
from radloop.studies.images import read_named_mask
from radloop.studies.import_names import read_names


@dataclass(frozen=True)
class LabelLook:
    """Labels found in a studies folder.

    Attributes:
        names: name -> id, ids 1..N; empty where there are no masks and no names.
        names_from: how the names are known, a phrase for a comment.
        masks: study -> mask file.
        diameters: mm, of single labelled things in the masks read (that of a ball of equal volume); may be empty.
        share: labelled part of the voxels in the masks read, 0-1.
        unreadable: (study, reason) of masks left out.
    """

    names: dict[str, int]
    names_from: str
    masks: dict[str, Path]
    diameters: tuple[float, ...] = ()
    share: float = 0.0
    unreadable: tuple[tuple[str, str], ...] = ()

    def read(self, study: str, image: Volume) -> np.ndarray | None:
        """The study's mask (X, Y, Z) where there is one on the image's grid, else None."""
        if study not in self.masks or study in dict(self.unreadable):
            return None
        mask, _ = read_named_mask(self.masks[study])
        return mask.array[0] if mask.same_grid(image) else None


def look_at_labels(folder: StudiesFolder, ids: list[str], sample: int) -> LabelLook:
    """The labels of `folder`: readers' masks in labels/final, else the proposals in labels/original.

    Names come from labels/names.json (name -> id), else from the masks (.seg.nrrd), else they are `label_1`, ...

    Args:
        folder: the studies.
        ids: study ids whose masks count.
        sample: masks read; all are read before a gap in the ids is called one.

    Raises:
        BadLabel: names.json cannot be used, ids have gaps, or masks disagree on names.
    """
    masks = _masks(folder, ids)
    told = read_names(folder.path / "labels" / "names.json")
    seen = _Seen()
    order = sorted(masks)
    step = max(1, len(order) // max(sample, 1))
    first, later = order[::step][:sample], [i for i in order if i not in set(order[::step][:sample])]
    for study in first:
        seen.add(study, masks[study])
    if told:
        _refuse_strangers(seen.ids, told)
        names, names_from = told, "labels/names.json"
    else:
        if _gaps(seen.ids):
            for study in later:
                seen.add(study, masks[study])
        _refuse_gaps(seen.ids)
        names, names_from = _names(seen)
    return LabelLook(
        names=names,
        names_from=names_from,
        masks=masks,
        diameters=tuple(seen.diameters),
        share=seen.labelled / seen.voxels if seen.voxels else 0.0,
        unreadable=tuple(seen.unreadable),
    )


class _Seen:
    """What the masks read so far show."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.names: dict[str, int] = {}
        self.diameters: list[float] = []
        self.labelled = 0
        self.voxels = 0
        self.unreadable: list[tuple[str, str]] = []

    def add(self, study: str, path: Path) -> None:
        try:
            mask, names = read_named_mask(path)
        except RadloopError as error:
            self.unreadable.append((study, str(error)))
            return
        array = mask.array[0]
        self.ids |= {int(i) for i in np.unique(array) if i}
        for name, value in (names or {}).items():
            if self.names.setdefault(name, value) != value:
                msg = (
                    f"{path.name} has {name!r} as {value}, another mask as {self.names[name]}; "
                    "write one numbering to labels/names.json and the masks"
                )
                raise BadLabel(msg)
        self.labelled += int((array > 0).sum())
        self.voxels += array.size
        self.diameters += _diameters(array, float(np.prod(mask.spacing)), flat=min(array.shape) == 1)


def _diameters(array: np.ndarray, voxel: float, *, flat: bool) -> list[float]:
    """Diameters in mm of balls (2D: discs) as large as each connected piece of a label; specks of 3 voxels left out."""
    found: list[float] = []
    for box_id, box in enumerate(ndimage.find_objects(array.astype(np.int32)), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(array[box] == box_id)
        counts = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        volumes = counts[counts > 3] * voxel
        found += [float(d) for d in (2 * np.sqrt(volumes / np.pi) if flat else np.cbrt(6 * volumes / np.pi))]
    return found


def _masks(folder: StudiesFolder, ids: list[str]) -> dict[str, Path]:
    for directory in (folder.final_dir, folder.proposal_dir):
        found = {i: path for i in ids if (path := find_mask(directory, i))}
        if found:
            return found
    return {}


def _refuse_strangers(ids: set[int], names: dict[str, int]) -> None:
    strangers = sorted(ids - set(names.values()))
    if strangers:
        msg = (
            f"masks hold the ids {_brief(strangers)}, which labels/names.json does not name (it has 1..{len(names)}); "
            "name them there or remap the masks"
        )
        raise BadLabel(msg)


def _gaps(ids: set[int]) -> bool:
    return bool(ids) and sorted(ids) != list(range(1, max(ids) + 1))


def _refuse_gaps(ids: set[int]) -> None:
    if not _gaps(ids):
        return
    seen = sorted(ids)
    wrong = [(old, new) for new, old in enumerate(seen, start=1) if old != new]
    remap = ", ".join(f"{old} -> {new}" for old, new in wrong[:8]) + (", ..." if len(wrong) > 8 else "")
    missing = sorted(set(range(1, max(seen))) - ids)
    msg = (
        f"masks hold the ids {_brief(seen)} without {_brief(missing)}; ids must be 1..N: either write the masks anew "
        f"with {remap}, or, where labels are only missing so far, name all of them in labels/names.json as "
        '{"name": 1, ...}'
    )
    raise BadLabel(msg)


def _brief(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")


def _names(seen: _Seen) -> tuple[dict[str, int], str]:
    if not seen.ids:
        return {}, "no masks yet"
    named = {value: name for name, value in seen.names.items()}
    if set(named) >= seen.ids:
        ordered = dict(sorted(seen.names.items(), key=lambda item: item[1]))
        if sorted(ordered.values()) == list(range(1, len(ordered) + 1)):
            return ordered, "the names inside the masks"
    return {f"label_{i}": i for i in sorted(seen.ids)}, "the ids in the masks; rename them as you like, the ids stay"
