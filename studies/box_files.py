"""Boxes as small JSON files: written, read, and held against a study and a recipe.

    {"format": 1, "kind": "detection", "coordinates": "LPS",
     "boxes": [{"label": "lung", "center": [120.5, 200, 0], "size": [90, 180, 1]}]}

`center` is a place in the world in mm, in `LPS` as DICOM and 3D Slicer have it or in `RAS` as NIfTI has it; of a
picture without a spacing LPS is column and row of its pixels. `size` is in mm along the study's axes nearest to the
world's. An empty list says that there is none. A file speaks for every label of its recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radloop.recipes.boxes import Box, boxes_of, edges
from radloop.recipes.errors import BadLabel, closest
from radloop.recipes.recipe import Recipe
from radloop.studies.answers import FORMAT, is_answer, load_json

LIMIT = 1024 * 1024
"""The largest file, bytes."""
MOST = 5000
"""Boxes of a study."""
COORDINATES = ("LPS", "RAS")
_KEYS = ("format", "kind", "coordinates", "boxes")
_BOX_KEYS = ("label", "center", "size")
_FORM = '{"format": 1, "kind": "detection", "coordinates": "LPS", "boxes": [...]}'
_BOX_FORM = '{"label": ..., "center": [x, y, z], "size": [x, y, z]}'
_TURN = (-1.0, -1.0, 1.0)  # RAS to LPS and back


def write_boxes(path: Path, boxes: Sequence[Box]) -> None:
    """Writes a file of boxes, in LPS; with the score of those that have one."""
    path.write_bytes(content(boxes))


def content(boxes: Sequence[Box]) -> bytes:
    """What such a file holds."""
    told = {"format": FORMAT, "kind": "detection", "coordinates": "LPS", "boxes": [told_of(box) for box in boxes]}
    return (json.dumps(told, ensure_ascii=False) + "\n").encode()


def told_of(box: Box) -> dict[str, Any]:
    """One box as such a file holds it."""
    place = [round(value * turn, 4) + 0.0 for value, turn in zip(box.centre, _TURN, strict=True)]
    told: dict[str, Any] = {"label": box.label, "center": place, "size": [round(value, 4) for value in box.size]}
    return told if box.score is None else told | {"score": round(box.score, 4)}


def read_boxes(path: Path, recipe: Recipe | None = None) -> list[Box]:
    """The boxes of a file, those of a recipe's labels of now where one is given.

    Raises:
        NotFound: there is no such file.
        BadLabel: it holds no boxes.
    """
    told = load_json(path, LIMIT)
    if reason := _wrong(told):
        msg = f"{path.name} {reason}"
        raise BadLabel(msg)
    turn = _TURN if told["coordinates"] == "LPS" else (1.0, 1.0, 1.0)
    boxes = [
        Box(
            one["label"],
            tuple(float(value) * sign for value, sign in zip(one["center"], turn, strict=True)),  # type: ignore[arg-type]
            tuple(map(float, one["size"])),  # type: ignore[arg-type]
        )
        for one in told["boxes"]
    ]
    return [box for box in boxes if recipe is None or box.label in recipe.labels]


def fit_boxes(recipe: Recipe, file: Path, shape: Sequence[int], affine: np.ndarray) -> list[Box]:
    """The boxes of a file that somebody sent, as the recipe keeps them: cut to the study, of its labels.

    Args:
        shape: voxels of the study's file.
        affine: 4x4, its voxels -> RAS world in mm.

    Raises:
        NotFound: there is no such file.
        BadLabel: it holds no boxes, names what is no label, or a box lies outside the study.
    """
    if not is_answer(file):
        msg = (
            f"{file.name} holds no boxes; recipe {recipe.name} is of kind {recipe.kind} and takes a JSON file of boxes"
        )
        raise BadLabel(msg)
    boxes = read_boxes(file)
    for box in boxes:
        if box.label not in recipe.labels:
            hint = closest(box.label, recipe.labels)
            msg = (
                f"{box.label[:80]!r} is no label of recipe {recipe.name}; allowed are {', '.join(recipe.labels)}{hint}"
            )
            raise BadLabel(msg)
    limits = np.array(shape, float)
    inside = edges(boxes, affine)
    if recipe.dimension == 2:  # a picture has one slice: how thick a box is says nothing
        thin = int(np.argmin(shape))
        inside[:, thin], inside[:, thin + 3] = 0.0, limits[thin]
    cut = np.hstack([inside[:, :3].clip(0, limits), inside[:, 3:].clip(0, limits)])
    for number, box in enumerate(boxes):
        if (cut[number, 3:] <= cut[number, :3]).any():
            msg = f"box {number + 1} of {file.name}, {_words(box)}, lies outside the study, {_reach(shape, affine)}"
            raise BadLabel(msg)
    return boxes_of(cut, [box.label for box in boxes], affine)


def _words(box: Box) -> str:
    told = told_of(box)
    return f"{box.label[:80]!r} at {told['center']} (LPS, mm)"


def _reach(shape: Sequence[int], affine: np.ndarray) -> str:
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1)
    world = (affine[:3, :3] @ corners + affine[:3, 3:]) * np.array(_TURN)[:, None]
    spans = (f"{low:.0f}..{high:.0f}" for low, high in zip(world.min(1), world.max(1), strict=True))
    return f"which reaches over {', '.join(spans)}; places are in mm, of a picture without a spacing in pixels"


def _wrong(told: Any) -> str:
    """Why a JSON value holds no boxes, or ""."""
    if not isinstance(told, dict):
        return f"holds no boxes; write {_FORM}"
    version = told.get("format")
    if type(version) is not int or version < 1:
        return f"has format {version!r}; write {_FORM}"
    if version > FORMAT:
        return f"is of format {version}, this radloop knows {FORMAT}; update radloop"
    if reason := _wrong_keys(told, _KEYS, (), _FORM):
        return reason
    if told["kind"] != "detection":
        return f"has kind {told['kind']!r:.80}; boxes have kind 'detection'"
    if told["coordinates"] not in COORDINATES:
        return f"has coordinates {told['coordinates']!r:.80}; allowed are {', '.join(COORDINATES)}"
    boxes = told["boxes"]
    if not isinstance(boxes, list) or len(boxes) > MOST:
        return f"has boxes {boxes!r:.80}; write a list of at most {MOST}, an empty one where there is none"
    reasons = (f"says of box {n}: it {why}" for n, box in enumerate(boxes, start=1) if (why := _wrong_box(box)))
    return next(reasons, "")


def _wrong_box(box: Any) -> str:
    if not isinstance(box, dict):
        return f"is {box!r:.80}; write {_BOX_FORM}"
    if reason := _wrong_keys(box, _BOX_KEYS, ("score",), _BOX_FORM):  # what was answered may be sent back as it is
        return reason
    if not isinstance(box["label"], str):
        return f"has label {box['label']!r:.80}; write the name of a label"
    for key in ("center", "size"):
        numbers = box[key]
        right = isinstance(numbers, list) and len(numbers) == 3 and all(map(_finite, numbers))
        if not right or (key == "size" and min(numbers) <= 0):
            what = "three numbers above 0" if key == "size" else "three numbers"
            return f"has {key} {numbers!r:.80}; write {what}, in mm"
    return ""


def _wrong_keys(told: dict[str, Any], keys: Sequence[str], more: Sequence[str], form: str) -> str:
    for key in told:
        if key not in (*keys, *more):
            return f"has the key {key[:80]!r}, which is not allowed; allowed are {', '.join(keys)}{closest(key, keys)}"
    missing = next((key for key in keys if key not in told), None)
    return "" if missing is None else f"has no key {missing!r}; write {form}"


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
