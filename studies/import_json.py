"""Sources described by a `dataset.json`: nnU-Net raw (v1 and v2) and the Medical Segmentation Decathlon (MSD).

nnU-Net: Isensee et al., Nature Methods 2021, and its `documentation/dataset_format.md`; files `<id>_0000.nii.gz`.
MSD: Antonelli et al., Nature Communications 2022; files `<id>.nii.gz`, several sequences as one 4D file.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import nibabel as nib

from radloop.recipes.errors import BadInput
from radloop.studies.folder import MASK_ENDINGS, read_answers, split_ending
from radloop.studies.incoming import ChannelOf4D, CopiedFile, Incoming, Picture, Source

_CHANNEL = re.compile(r"^(?P<id>.+)_(?P<channel>\d{4})$")


def read_json_source(src: Path) -> Source:
    """The studies of a dataset with `dataset.json`: `imagesTr`, `imagesTs`, and masks in `labelsTr`, `labelsTs`.

    Raises:
        BadInput: `dataset.json` cannot be used.
    """
    told = _load(src / "dataset.json")
    names = _names(told)
    nnunet = "channel_names" in told or "file_ending" in told or _numbered(src, told)
    answers = read_answers(src / "answers.csv")
    studies: list[Incoming] = []
    excluded: list[tuple[str, str]] = []
    for part in ("Tr", "Ts"):
        channels, odd = _images(src / f"images{part}", nnunet)
        excluded += odd
        masks = {split_ending(p.name, MASK_ENDINGS)[0]: p for p in _files(src / f"labels{part}")}
        for study, pictures in sorted(channels.items()):
            source = f"images{part}/{study}"
            mask = masks.pop(study, None)
            studies.append(Incoming(study, source, pictures, mask, names, answers.get(study, {})))
        excluded += [(f"labels{part}/{p.name}", "a mask without an image of its name") for p in masks.values()]
    found = {study.id for study in studies}
    excluded += [(what, "listed in dataset.json, not there") for what in _listed(told) if _bare(what) not in found]
    return Source(studies, excluded, _channel_names(told))


def _numbered(src: Path, told: dict[str, Any]) -> bool:
    """Whether files are named `<id>_NNNN` for the ids of masks or of the list: raw v1, which says nothing else."""
    known = {split_ending(p.name, MASK_ENDINGS)[0] for p in _files(src / "labelsTr")} | set(map(_bare, _listed(told)))
    names = {split_ending(p.name)[0] for part in ("Tr", "Ts") for p in _files(src / f"images{part}")}
    matches = (match for match in map(_CHANNEL.match, names) if match)
    return names.isdisjoint(known) and any(match["id"] in known for match in matches)


def _load(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path.name} cannot be read as JSON ({error}); give the one of nnU-Net or the Decathlon"
        raise BadInput(msg) from error
    if not isinstance(told, dict) or not isinstance(told.get("labels"), dict):
        msg = f"{path.name} has no table 'labels'; give the one of nnU-Net or the Decathlon"
        raise BadInput(msg)
    return told


def _names(told: dict[str, Any]) -> dict[str, int]:
    """Name -> value, from `"1": "liver"` (MSD) or `"liver": 1` (nnU-Net); background and `ignore` are left out."""
    names: dict[str, int] = {}
    for key, value in told["labels"].items():
        name, number = (value, key) if str(key).isdigit() else (key, value)
        if isinstance(number, list):
            msg = f"dataset.json has the region {name!r} = {number}; give each label one number and no regions"
            raise BadInput(msg)
        if not str(number).isdigit() or not isinstance(name, str):
            msg = f"dataset.json has the label {key!r}: {value!r}; give a name and a whole number"
            raise BadInput(msg)
        # "ignore" marks voxels nobody looked at; a mask that has them is left out, as its values then have no name
        if int(number) != 0 and name != "ignore":
            names[name] = int(number)
    return names


def _channel_names(told: dict[str, Any]) -> tuple[str, ...]:
    table = told.get("channel_names") or told.get("modality") or {}
    if not isinstance(table, dict):
        return ()
    return tuple(str(name) for _, name in sorted(table.items(), key=lambda item: int(item[0])))


def _listed(told: dict[str, Any]) -> list[str]:
    entries = [*(told.get("training") or []), *(told.get("test") or [])]
    return [str(e.get("image", "")) if isinstance(e, dict) else str(e) for e in entries]


def _bare(listed: str) -> str:
    return split_ending(listed.replace("\\", "/").rsplit("/", 1)[-1])[0]


def _files(folder: Path) -> list[Path]:
    """Image and mask files; hidden ones, among them the `._*` of macOS archives, are no files of the set."""
    if not folder.is_dir():
        return []
    files = (p for p in sorted(folder.iterdir()) if not p.name.startswith("."))
    return [p for p in files if (p.is_file() and split_ending(p.name, MASK_ENDINGS)[1]) or split_ending(p.name)[1]]


def _images(folder: Path, nnunet: bool) -> tuple[dict[str, tuple[Picture, ...]], list[tuple[str, str]]]:
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    plain: dict[str, Path] = {}
    excluded = []
    for path in _files(folder):
        name = split_ending(path.name)[0]
        match = _CHANNEL.match(name) if nnunet else None
        if match:
            grouped[match["id"]][int(match["channel"])] = path
        elif nnunet:
            excluded.append((f"{folder.name}/{path.name}", "has no channel number as in <id>_0000; add one"))
        else:
            plain[name] = path
    found: dict[str, tuple[Picture, ...]] = {name: _channels(path) for name, path in plain.items()}
    for study, channels in grouped.items():
        missing = sorted(set(range(max(channels) + 1)) - set(channels))
        if missing:
            reason = f"channel {missing[0]:04d} of {study} is missing"
            excluded += [(f"{folder.name}/{path.name}", reason) for _, path in sorted(channels.items())]
        else:
            found[study] = tuple(CopiedFile(channels[c]) for c in sorted(channels))
    return found, excluded


def _channels(path: Path) -> tuple[Picture, ...]:
    """One file's channels: those of a 4D NIfTI, or itself (also where it cannot be opened: that is said later)."""
    try:
        nifti = path.name.lower().endswith((".nii", ".nii.gz"))
        shape: tuple[int, ...] = cast("nib.Nifti1Image", nib.load(path)).shape if nifti else ()
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError):
        shape = ()
    if len(shape) == 4 and shape[3] > 1:
        return tuple(ChannelOf4D(path, c) for c in range(shape[3]))
    return (CopiedFile(path),)
