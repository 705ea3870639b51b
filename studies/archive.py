"""The labelled studies as one ZIP, and what is said of their labels."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radloop.studies.answers import ENDING
from radloop.studies.files import writing
from radloop.studies.folder import MASK_ENDINGS, split_ending
from radloop.studies.rows import LabelRow

_SHOWN = ("recipe", "author", "author_kind", "time", "shown_version", "checksum", "names", "state", "origin", "note")


def row_info(row: LabelRow) -> dict[str, Any]:
    """What viewers are told of a label."""
    return {name: getattr(row, name) for name in _SHOWN}


def write_archive(
    path: Path, files: Mapping[str, tuple[Path, Mapping[str, Path]]], metadata: Mapping[str, Any]
) -> None:
    """Writes images, masks, answers and `metadata.json` into a ZIP, without compressing what is compressed already.

    Masks go to `labels/final/`, answers to `labels/answers/RECIPE/`.

    Args:
        path: where the ZIP goes.
        files: study -> image, and the labels by recipe.
        metadata: what is known of them; `files` is added to it, the recipe of each label.

    Raises:
        NoSpace: the disk is full.
    """
    recipes = {}
    with writing("the archive"), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for study_id, (image, labels) in files.items():
            archive.write(image, f"{study_id}{split_ending(image.name)[1]}")
            for recipe, label in labels.items():
                ending = split_ending(label.name, (*MASK_ENDINGS, ENDING))[1]
                inside = f"labels/{f'answers/{recipe}' if ending == ENDING else 'final'}/{study_id}{ending}"
                archive.write(label, inside)
                recipes[inside] = recipe
        told = json.dumps({**metadata, "files": recipes}, ensure_ascii=False, indent=2)
        archive.writestr("metadata.json", told)
