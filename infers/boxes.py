"""Answers of a recipe of boxes: a mask of their frames, which every viewer shows, and the boxes with their scores.

Stock viewers show masks and their names only. So the reply is a mask with a frame around each box, and its params have
the boxes in the form in which they may be sent back as a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from radloop.engine.box_masks import framed_boxes
from radloop.engine.box_predictor import BoxPrediction
from radloop.engine.channels import lacking_words
from radloop.infers.answers import AnswerInfer
from radloop.infers.segmentation import ONE_AT_A_TIME, Answer, Serving, paths_of, save_answer
from radloop.recipes.recipe import Recipe
from radloop.studies.blind import WITHHELD
from radloop.studies.box_files import told_of
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import mask_extension, read_header, read_study
from radloop.studies.ledger import Ledger


class BoxInfer(AnswerInfer):
    """The infer task of one recipe whose answers are boxes; see `AnswerInfer` for its arguments."""

    def __init__(
        self,
        recipe: Recipe,
        folder: StudiesFolder,
        ledger: Ledger,
        serving: Serving,
        withholds: Callable[[str, str, str], bool] = lambda *_: False,
    ) -> None:
        super().__init__(recipe, folder, ledger, serving, withholds)
        self.labels = dict(recipe.labels)  # viewers make a segment of each, in which a reader draws what is missing

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answers a viewer; see `SegmentationInfer` for the request.

        Raises:
            BadImage: the image cannot be read or does not fit the recipe.
        """
        study = request.get("study")
        paths = paths_of(self._folder, self.recipe, study, request.get("image"))
        client = str(request.get("client_id") or "unknown")
        version = self._serving.of(self.recipe.name)
        reads = bool(study) and not request.get("save_label")
        withheld = reads and self._withholds(str(study), self.recipe.name, client) and version is not None
        extension = request.get("result_extension") or mask_extension(paths[0])
        names = dict(self.recipe.labels)
        if version is None or withheld:
            shape, affine = read_header(paths[0])
            empty = Answer(np.zeros(shape, np.uint8), affine, names, None, {})
            why = {"withheld": True, "message": WITHHELD} if withheld else {"message": self._no_model()}
            return save_answer(empty, extension), self._told(None, {}) | {"label_names": names, "boxes": []} | why
        started = time.monotonic()
        with ONE_AT_A_TIME:
            volume = read_study(paths, self.recipe.may_lack)
            predictor = self._serving.predictor(version)
            found = predictor.predict(volume)
        names = dict(predictor.recipe.labels)
        mask = framed_boxes(found.shown, names, volume.shape, volume.affine)
        params = self._told(version, {"total": round(time.monotonic() - started, 3)}) | {"label_names": names}
        params |= self._boxes(found)
        params["warnings"] += self._remember(study or request.get("shown_as"), client, version, mask)
        return save_answer(Answer(mask, volume.affine, names, version, {}), extension), params

    def _boxes(self, found: BoxPrediction) -> dict[str, Any]:
        words = ", ".join(f"{box.label} {100 * (box.score or 0):.0f} %" for box in found.shown) or "nothing found"
        return {
            "format": 1,
            "kind": self.recipe.kind,
            "coordinates": "LPS",
            "missing": list(found.lacking),
            "warnings": lacking_words(found.lacking),
            "boxes": [told_of(box) for box in found.shown],
            "message": f"{self.recipe.title or self.recipe.name}: {words}",
        }
