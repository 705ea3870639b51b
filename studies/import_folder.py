"""A plain folder of images, with masks beside them or in `labels/`; or such folders, one a patient, in a folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from radloop.recipes.boxes import Box
from radloop.studies.box_files import read_boxes
from radloop.studies.folder import MASK_ENDINGS, read_answers, split_ending
from radloop.studies.import_names import read_channels, read_names
from radloop.studies.import_rest import MASK_FOLDERS
from radloop.studies.incoming import CopiedFile, Incoming, Source

_BESIDE = re.compile(r"^(?P<id>.+?)[-_.](?:seg|segmentation|label|labels|mask)(?:-manual)?$", re.IGNORECASE)
_ALONE = re.compile(r"^(?:seg|segmentation|labels?|masks?)$", re.IGNORECASE)
_CHANNEL = re.compile(r"^(?P<id>.+)_(?P<channel>\d{4})$")


def image_folder(src: Path) -> Path | None:
    """Where the images of a plain folder lie: in it or in its `images/`; None where there are none."""
    for folder in (src, src / "images"):
        if folder.is_dir() and any(_is_image(p) for p in folder.iterdir()):
            return folder
    return None


def read_folder_source(src: Path, folder: Path) -> Source:
    """The studies of a plain folder.

    A mask is `labels/final/<id>`, `labels/<id>` or `masks/<id>` with any mask ending, or beside the image
    `<id>_seg`, `<id>-label`, `<id>_mask` or `<id>.seg.nrrd`. Names come from the mask or from `labels/names.json`.

    Raises:
        BadInput: `answers.csv` cannot be read.
        BadLabel: `labels/names.json` cannot be read.
    """
    files = {p.name: p for p in sorted(folder.iterdir()) if _is_image(p) or _is_segmentation(p)}
    excluded: list[tuple[str, str]] = []
    masks = _in_mask_folders(src)
    images, beside = _split(src, files, set(masks), excluded)
    masks = beside | masks
    names = read_names(src / "labels" / "names.json") or None
    channel_names = read_channels(src / "labels" / "channels.json")
    answers = read_answers(src / "answers.csv", {i: () for i in images})
    boxes = _box_files(src, images)
    studies = [
        Incoming(
            study,
            _relative(channels[0], src) if len(channels) == 1 else f"{study}_0000..{len(channels) - 1:04d}",
            tuple(CopiedFile(path) for path in channels),
            masks.pop(study, None),
            names,
            answers.get(study, {}),
            boxes=_reads(boxes.get(study)),
        )
        for study, channels in sorted(images.items())
    ]
    excluded += [(_relative(p, src), "a mask without an image of its name") for p in masks.values()]
    return Source(studies, excluded, channel_names, accounted=frozenset(boxes.values()))


def read_nested_source(src: Path) -> Source:
    """The studies of folders below a folder without images of its own.

    Each folder is read as a plain one. An id is the path with `_` for `/` (`p1/ct.nii.gz` is `p1_ct`), the patient
    the first folder, unless an `answers.csv` says otherwise. A lone image's mask may be called `mask` or `seg`.

    Raises:
        BadInput, BadLabel: as of `read_folder_source`.
    """
    studies: list[Incoming] = []
    excluded: list[tuple[str, str]] = []
    tables: list[Path] = []
    names = read_names(src / "labels" / "names.json") or None
    for folder, images in _nested(src):
        below = folder.relative_to(src)
        prefix = "_".join(below.parts)
        part = read_folder_source(folder, images)
        tables += [folder / "answers.csv", folder / "labels" / "names.json"]
        excluded += [(f"{below.as_posix()}/{what}", reason) for what, reason in part.excluded]
        for study in part.studies:
            told = {"patient": below.parts[0], **{k: v for k, v in study.answers.items() if v}}
            source = f"{below.as_posix()}/{study.source}"
            study = replace(study, id=f"{prefix}_{study.id}", source=source, names=study.names or names, answers=told)
            studies.append(study)
    answers = read_answers(src / "answers.csv", {study.id: () for study in studies})
    studies = [replace(s, answers=s.answers | {k: v for k, v in answers.get(s.id, {}).items() if v}) for s in studies]
    return Source(
        sorted(studies, key=lambda study: study.id), excluded, read_channels(src / "labels" / "channels.json")
    )


def _nested(src: Path) -> Iterator[tuple[Path, Path]]:
    """Every folder below with images in it or in its `images/`, and where they lie."""
    for folder in sorted(p for p in src.iterdir() if p.is_dir() and not p.name.startswith(".") and not p.is_symlink()):
        if folder.name in ("labels", "masks"):
            continue
        images = image_folder(folder)
        if images is not None:
            yield folder, images
        yield from (found for found in _nested(folder) if found[0] != images)


def _split(
    src: Path, files: dict[str, Path], masked: set[str], excluded: list[tuple[str, str]]
) -> tuple[dict[str, tuple[Path, ...]], dict[str, Path]]:
    """Images grouped by id, and the masks that lie beside them."""
    by_id: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in files.values():
        if _is_segmentation(path):
            masks[split_ending(path.name, (".seg.nrrd",))[0]] = path
            continue
        study = split_ending(path.name)[0]
        if study in by_id:
            excluded.append((_relative(path, src), f"{by_id[study].name} has the same id; keep one of the two"))
        else:
            by_id[study] = path
    for study in list(by_id):
        match = _BESIDE.match(study)
        if match and (match["id"] in by_id or f"{match['id']}_0000" in by_id):
            masks.setdefault(match["id"], by_id.pop(study))
    alone = [study for study in by_id if _ALONE.match(study)]
    if 0 < len(alone) < len(by_id):
        found = [by_id.pop(study) for study in alone]
        if len(found) == len(by_id) == 1:
            masks.setdefault(next(iter(by_id)), found[0])
        else:
            excluded += [(_relative(p, src), "a mask of nobody knows which image; name it <image>_mask") for p in found]
    return _grouped(src, by_id, masked, excluded), masks


def _grouped(
    src: Path, by_id: dict[str, Path], masked: set[str], excluded: list[tuple[str, str]]
) -> dict[str, tuple[Path, ...]]:
    """Channels `_0000`, `_0001` brought together; files with masks of their own names are studies of their own."""
    images: dict[str, tuple[Path, ...]] = {}
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    own = {match["id"] for match in map(_CHANNEL.match, masked) if match}
    for name, path in by_id.items():
        match = _CHANNEL.match(name)
        if match and match["id"] not in own and f"{match['id']}_0000" in by_id:
            numbered[match["id"]][int(match["channel"])] = path
        else:
            images[name] = (path,)
    for study, channels in numbered.items():
        missing = sorted(set(range(max(channels) + 1)) - set(channels))
        files = [_relative(path, src) for _, path in sorted(channels.items())]
        if missing:
            excluded += [(file, f"channel {missing[0]:04d} of {study} is missing") for file in files]
        elif study in images:
            excluded += [(file, f"{images[study][0].name} has the same id; keep one of the two") for file in files]
        else:
            images[study] = tuple(channels[c] for c in sorted(channels))
    return images


def _in_mask_folders(src: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for name in MASK_FOLDERS:
        folder = src / name
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            study, ending = split_ending(path.name, (".seg.nrrd", *MASK_ENDINGS))
            if path.is_file() and ending and not path.name.startswith("."):
                masks.setdefault(study, path)
    return masks


def _box_files(src: Path, studies: Collection[str]) -> dict[str, Path]:
    """Study -> the file of its boxes, `<id>.json` where masks lie; of studies that have one."""
    found = {}
    for study in studies:
        files = (src / name / f"{study}.json" for name in MASK_FOLDERS)
        if file := next((file for file in files if file.is_file()), None):
            found[study] = file
    return found


def _reads(file: Path | None) -> Callable[[np.ndarray], list[Box]] | None:
    """What gives the boxes of a file, whatever the study's affine: they lie in the world."""
    return None if file is None else lambda _: read_boxes(file)


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and not _is_segmentation(path) and bool(split_ending(path.name)[1]) and path.is_file()


def _is_segmentation(path: Path) -> bool:
    return path.name.lower().endswith(".seg.nrrd") and not path.name.startswith(".") and path.is_file()


def _relative(path: Path, src: Path) -> str:
    return path.relative_to(src).as_posix()
