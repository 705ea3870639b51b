"""A mask made to fit: on its study's grid, with its recipe's ids, naming only what its recipe asks.

Which voxel value has which name
--------------------------------
1. The file says it (`.seg.nrrd`).
2. Else `label_info` says it, a list of `{"name", "idx"}`. Slicer's MONAI Label module numbers the voxels of the
   segments that it exports 1..N in their order, but counts in `idx` the segments that it leaves out (background and
   scribbles) too. So a list is read in two ways: by `idx`, and by position among the entries that are exported; the
   second only where `idx` grows down the list and never lags behind the position, as Slicer's does. A reading is
   possible if it has a name for every value in the voxels. If both are possible and disagree about a value that is
   there, nobody can tell, and the mask is refused.
3. Else the values are the recipe's own ids, and all of its labels were looked at.

Which names were looked at
--------------------------
A mask speaks for the names it shows. Slicer makes an empty segment of every name that the server has and sends all of
them, so a name that is listed and has no voxels, beside others of the recipe that have, says "not there" only where

- the reader was shown an answer or a proposal, and so left it out or took it away; or
- its entry in `label_info` says so, `{"name": ..., "idx": ..., "absent": true}`.

Else nobody knows whether it was looked at, and it is left out. In a mask without any voxels, every name that is listed
is said to be absent. Masks from elsewhere, whose values are known (`values`), speak for every name that they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from radloop.recipes.errors import BadLabel, closest
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.studies.folder import Study
from radloop.studies.images import describe, read_header, read_named_mask, same_place
from radloop.studies.itk_files import is_picture

LabelInfo = Sequence[Mapping[str, Any]]
#: Segments of Slicer's that are no answer.
LEFT_OUT = frozenset({"background", "foreground_scribbles", "background_scribbles"})


@dataclass(frozen=True)
class Fitted:
    """A mask that can be kept.

    Attributes:
        mask: (X, Y, Z) uint8, ids of the recipe.
        affine: the study's, voxel -> RAS mm.
        names: the recipe's labels that were looked at, in the order of their ids.
        note: what was left out, or empty.
    """

    mask: np.ndarray
    affine: np.ndarray
    names: tuple[str, ...]
    note: str


def fit_mask(
    study: Study,
    recipe: Recipe,
    file: Path,
    label_info: LabelInfo | None = None,
    others: Sequence[Recipe] = (),
    values: Mapping[str, int] | None = None,
    *,
    shown: bool = False,
) -> Fitted:
    """The mask of a file, as the recipe keeps it.

    Args:
        label_info: names and numbers as a viewer sends them.
        others: further recipes, whose names are left out with a note instead of refused.
        values: the exact voxel value of every name, where known; goes before `label_info`, and names of no
            recipe are then left out.
        shown: whether the reader saw an answer or a proposal first; decides what an empty segment says.

    Raises:
        BadLabel: the mask lies on another grid than the study, or its voxels cannot be named.
        BadImage: the study cannot be read.
    """
    mask, in_file = read_named_mask(file)
    affine = check_grid(study, recipe, mask, Path(file).name)
    array = mask.array[0]
    present = ids_in(array)
    named = _name_voxels(present, values or in_file, label_info, Path(file).name)
    if named is None:
        strange = sorted(present - set(recipe.labels.values()))
        if strange:
            msg = f"{Path(file).name} has voxels of value {strange[:8]}; recipe {recipe.name} has {_listed(recipe)}"
            raise BadLabel(msg)
        return Fitted(array.astype(np.uint8, copy=False), affine, recipe.label_names, "")
    name_of, looked_at = named
    dropped = _dropped(looked_at, recipe, others, lenient=values is not None)
    names = tuple(name for name in recipe.label_names if name in looked_at)
    if not names:
        msg = (
            f"{Path(file).name} names none of recipe {recipe.name}'s labels; it has {_listed(recipe)}: "
            "send an empty segment of that name to say that nothing is there"
        )
        raise BadLabel(msg)
    if values is None and not shown:
        names = _spoken_for(names, {name_of[value] for value in present}, label_info)
    table = np.zeros(max(present, default=0) + 1, np.uint8)
    for value in present:
        table[value] = recipe.labels.get(name_of[value], 0)
    note = f"left out, not of recipe {recipe.name}: {', '.join(sorted(dropped))}" if dropped else ""
    return Fitted(table[array], affine, names, note)


def check_grid(study: Study, recipe: Recipe, mask: Volume, name: str) -> np.ndarray:
    """The study's affine, if the mask lies on the study's grid.

    Raises:
        BadLabel: it does not; the message has both grids.
        BadImage: the study cannot be read.
    """
    channel = study.channels[min(recipe.display_channel, len(study.channels) - 1)]
    shape, affine = read_header(channel)
    grid = Volume(np.broadcast_to(np.uint8(0), (1, *shape)), affine)
    # A picture has no place in the world, so only its size can be compared.
    fits = mask.shape == shape if is_picture(channel) else same_place(mask, grid)
    if not fits:
        msg = f"{name} has {describe(mask)}, study {study.id!r} {describe(grid)}; draw it on that study"
        raise BadLabel(msg)
    return affine


def ids_in(mask: np.ndarray) -> set[int]:
    """The values of a mask, without 0."""
    counts = np.zeros(int(mask.max(initial=0)) + 1, np.int64)
    # Counting is many times faster than sorting as np.unique does, but widens its input: one slice at a time.
    for z in range(mask.shape[2]):
        counts += np.bincount(mask[:, :, z].ravel(), minlength=len(counts))
    return {int(value) for value in np.flatnonzero(counts)} - {0}


def name_values(present: set[int], label_info: LabelInfo, file: str) -> dict[int, str]:
    """The name of every voxel value by a viewer's list; rule 2 of this module.

    Args:
        present: the values in the voxels, without 0.
        label_info: `{"name", "idx"}` in the viewer's order; `idx` may be missing.
        file: its name, for messages.

    Raises:
        BadLabel: the list is not usable, does not name every value, or can be read in two ways.
    """
    entries = [_entry(entry, file) for entry in label_info]
    exported = [(name, idx) for name, idx in entries if name not in LEFT_OUT]
    names = [name for name, _ in exported]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{file} names {twice[0]!r} twice; give each segment its own name"
        raise BadLabel(msg)
    by_idx = {idx: name for name, idx in entries if idx is not None}
    if len(by_idx) < len(entries):
        by_idx = {}
    by_place = dict(enumerate(names, start=1)) if _like_slicer([idx for _, idx in exported]) else {}
    readings = [reading for reading in (by_idx, by_place) if present <= set(reading)]
    if not readings:
        msg = (
            f"{file} has voxels of value {sorted(present)[:8]}, but names only {_pairs(by_idx or by_place)}; "
            "name every segment that is sent"
        )
        raise BadLabel(msg)
    for value in sorted(present):
        one, other = readings[0][value], readings[-1][value]
        if one != other:
            msg = (
                f"{file}: value {value} is {one!r} by its idx but {other!r} by its place in the list; "
                "remove background and scribble segments, or send .seg.nrrd, which says which"
            )
            raise BadLabel(msg)
    return {value: readings[0][value] for value in present}


def _like_slicer(numbers: list[int | None]) -> bool:
    """Whether the numbers of exported segments are as Slicer counts them: growing, never behind the position."""
    known = [number for number in numbers if number is not None]
    if not known:
        return True
    rising = all(a < b for a, b in pairwise(known))
    return len(known) == len(numbers) and rising and known[0] >= 1


def _name_voxels(
    present: set[int], known: Mapping[str, int] | None, label_info: LabelInfo | None, file: str
) -> tuple[dict[int, str], set[str]] | None:
    """The name of every value and the names looked at; None where the values are the recipe's own ids."""
    if known is not None:
        name_of = {value: name.strip() for name, value in known.items()}
        unknown = sorted(present - set(name_of))
        if unknown:
            msg = f"{file} has voxels of value {unknown[:8]}, but names only {_pairs(name_of)}; name every value"
            raise BadLabel(msg)
        return name_of, {name.strip() for name in known} - LEFT_OUT
    if label_info is None or (not label_info and present):
        return None
    name_of = name_values(present, label_info, file)
    return name_of, {_entry(entry, file)[0] for entry in label_info} - LEFT_OUT


def _spoken_for(names: tuple[str, ...], drawn: set[str], label_info: LabelInfo | None) -> tuple[str, ...]:
    """Those of the names listed that a reader who saw no answer speaks for."""
    if not drawn & set(names):
        return names
    absent = {str(entry["name"]).strip() for entry in label_info or () if entry.get("absent") is True}
    return tuple(name for name in names if name in drawn or name in absent)


def _entry(entry: Mapping[str, Any], file: str) -> tuple[str, int | None]:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    idx = entry.get("idx") if isinstance(entry, Mapping) else None
    if not isinstance(name, str) or not name.strip() or not (idx is None or type(idx) is int):
        msg = f'{file}: label_info has the entry {entry!r}; each must be {{"name": text, "idx": whole number}}'
        raise BadLabel(msg)
    return name.strip(), idx


def _dropped(names: set[str], recipe: Recipe, others: Sequence[Recipe], *, lenient: bool) -> set[str]:
    """Names that are not the recipe's."""
    foreign = names - set(recipe.labels)
    elsewhere = {name for other in others for name in other.labels}
    unknown = sorted(foreign - elsewhere)
    if unknown and not lenient:
        hint = closest(unknown[0], recipe.labels)
        msg = f"label name {unknown[0]!r} is not of recipe {recipe.name}, which has {_listed(recipe)}{hint}"
        raise BadLabel(msg)
    return foreign


def _listed(recipe: Recipe) -> str:
    return _pairs({value: name for name, value in recipe.labels.items()})


def _pairs(named: Mapping[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(named.items())) or "nothing"
