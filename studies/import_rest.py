"""The files of a source that no study and no exclusion speaks of, each with a reason: none is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from radloop.studies.folder import IMAGE_ENDINGS, MASK_ENDINGS, split_ending
from radloop.studies.incoming import ChannelOf4D, CopiedFile, Source

MASK_FOLDERS = ("labels/final", "labels", "masks")
"""Where a plain folder has its masks; an earlier one goes before a later one."""
_READ = frozenset({"dataset.json", "answers.csv", "labels/names.json", "labels/channels.json"})
_SIDES = frozenset({"splits_final.json", "sides.csv"})


def leftovers(src: Path, source: Source) -> list[tuple[str, str]]:
    """(file, reason) for every file below `src` that is not hidden and not accounted for, sorted by path."""
    told = {what for what, _ in source.excluded} | _READ
    used = _used(source)
    beside = {path.parent for path in used} | {src / "images", *(src / folder for folder in MASK_FOLDERS)}
    used |= set(source.accounted)
    named = [(path.relative_to(src).as_posix(), path) for path in _walk(src) if path not in used]
    return [(name, _reason(src, path, name, beside)) for name, path in named if name not in told]


def _used(source: Source) -> set[Path]:
    pictures = (picture for study in source.studies for picture in study.channels)
    images = {picture.path for picture in pictures if isinstance(picture, CopiedFile | ChannelOf4D)}
    return images | {study.mask for study in source.studies if study.mask}


def _walk(src: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(src):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _reason(src: Path, path: Path, name: str, beside: Collection[Path]) -> str:
    if not os.access(path, os.R_OK):
        return "cannot be opened; allow reading it"
    if name in _SIDES:
        return "its sides are not taken over; every patient's side is drawn here"
    if path.name in {"answers.csv", "names.json"}:
        return "a table that is not read here; put it beside the images of the source"
    if not split_ending(path.name, (*IMAGE_ENDINGS, *MASK_ENDINGS))[1]:
        return "neither an image nor a table that is read"
    if (src / "dataset.json").is_file():
        return "not where dataset.json's form has images and masks, or another file of its name goes before it"
    if path.parent in beside:
        return f"another file goes before it: masks in {', '.join(MASK_FOLDERS)}, then those beside the image"
    return "lies in a folder that is not read; import that folder by itself"
