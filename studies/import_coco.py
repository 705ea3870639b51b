"""Pictures with boxes in COCO's form (Lin et al., ECCV 2014): images and an `annotations.json` beside or above them.

Boxes are x, y (top left), width and height in pixels. A listed picture without any is labelled: nothing is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radloop.recipes.boxes import Box, boxes_of
from radloop.recipes.errors import BadInput, BadLabel
from radloop.studies.folder import read_answers, split_ending
from radloop.studies.incoming import CopiedFile, Incoming, Source

ANNOTATIONS = "annotations.json"


def read_coco_source(src: Path) -> Source:
    """The studies of a folder with `annotations.json`: listed pictures that are there, each with its boxes.

    Raises:
        BadInput: `annotations.json` or `answers.csv` cannot be used.
    """
    told = _load(src / ANNOTATIONS)
    by_image: dict[Any, list[tuple[str, Sequence[float]]]] = {}
    try:
        files = {image["id"]: str(image["file_name"]) for image in told["images"]}
        names = {category["id"]: str(category["name"]) for category in told["categories"]}
        for one in told["annotations"]:
            x, y, width, height = map(float, one["bbox"])
            by_image.setdefault(one["image_id"], []).append((names[one["category_id"]], (x, y, width, height)))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{ANNOTATIONS} is not in COCO's form ({type(error).__name__}: {error}); write images, categories and "
        msg += "annotations, each of these with image_id, category_id and bbox = [x, y, width, height]"
        raise BadInput(msg) from error
    answers = read_answers(src / "answers.csv")
    studies, excluded = [], []
    for number, name in files.items():
        path = next((p for p in (src / name, src / "images" / Path(name).name) if p.is_file()), None)
        if path is None:
            excluded.append((name, f"listed in {ANNOTATIONS}, not there"))
            continue
        study = split_ending(path.name)[0]
        boxes = from_pixels(by_image.get(number, []))
        studies.append(Incoming(study, name, (CopiedFile(path),), answers=answers.get(study, {}), boxes=boxes))
    excluded += [
        (f"boxes of image {one}", f"no image of {ANNOTATIONS} has this id") for one in by_image.keys() - files.keys()
    ]
    return Source(studies, excluded, accounted=[src / ANNOTATIONS])


def from_pixels(rows: Sequence[tuple[str, Sequence[float]]]) -> Callable[[np.ndarray], list[Box]]:
    """What makes boxes of labels and x, y, width, height in pixels, once the picture's affine is known.

    It raises `BadLabel` for a box without width or height.
    """

    def made(affine: np.ndarray) -> list[Box]:
        for label, (x, y, width, height) in rows:
            if not np.isfinite((x, y, width, height)).all() or width <= 0 or height <= 0:
                msg = f"its box of {label!r} has bbox {[x, y, width, height]}; write [x, y, width, height] in pixels, "
                msg += "width and height above 0"
                raise BadLabel(msg)
        ends = [(x, y, 0.0, x + width, y + height, 1.0) for _, (x, y, width, height) in rows]
        return boxes_of(np.array(ends).reshape(-1, 6), [label for label, _ in rows], affine)

    return made


def _load(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path.name} cannot be read as JSON ({error}); save it again"
        raise BadInput(msg) from error
    if not isinstance(told, dict):
        msg = f"{path.name} holds no table; write images, categories and annotations"
        raise BadInput(msg)
    return told
