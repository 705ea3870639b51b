"""Answers in words about a whole study: probabilities, and a mask of where was looked, named by the answer.

Stock viewers show masks and their names only. So the reply is a mask with one name, such as `malignant 87 %`: the
region that was looked at, or nothing where that is the whole image.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from radloop.engine.answer_data import earlier_volumes
from radloop.engine.answer_predictor import AnswerPrediction
from radloop.engine.channels import lacking_words
from radloop.engine.regions import Region, Regions, lesions_of
from radloop.evaluation.class_answers import answered
from radloop.evaluation.lesion_sizes import lesion_sizes
from radloop.infers.segmentation import NOTICE, ONE_AT_A_TIME, Answer, Serving, paths_of, save_answer
from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import MAX_LABELS, Recipe
from radloop.recipes.volume import Volume
from radloop.registry.version import Version
from radloop.studies.blind import WITHHELD
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import mask_extension, read_header, read_study
from radloop.studies.ledger import Ledger
from radloop.studies.shown import ShownAnswers
from radloop.studies.visits import earlier_of

logger = logging.getLogger(__name__)


class AnswerInfer(InferTask):
    """The infer task of one recipe whose answers are words.

    Args:
        recipe: the question.
        folder: the studies.
        ledger: readers' masks of the region, and where it is written down who was shown which version.
        serving: the versions that serve, and their predictors.
        withholds: whether a study (first), for a recipe and a client, is to be read without an answer.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: StudiesFolder,
        ledger: Ledger,
        serving: Serving,
        withholds: Callable[[str, str, str], bool] = lambda *_: False,
    ) -> None:
        # No labels: viewers would make an empty segment of each class, and ask this task by itself for every study.
        super().__init__(InferType.SEGMENTATION, {}, recipe.dimension, recipe.title or recipe.name, {})
        self.recipe, self._folder, self._ledger = recipe, folder, ledger
        self._serving, self._withholds = serving, withholds
        self._regions = Regions(folder, ledger, serving.of, serving.predictor)

    def is_valid(self) -> bool:
        """Always: before the first model it answers that there is none."""
        return True

    def info(self) -> dict[str, Any]:
        """What viewers list, with the answers there can be and the version that serves."""
        version = self._serving.known(self.recipe.name)
        served = f"version {version.number}" if version else "no model yet"
        about = f"{self.description}: {', '.join(self.recipe.label_names)}; {served}; {NOTICE}"
        return {**super().info(), "description": about}

    def get_path(self, validate: bool = True) -> str | None:
        """The serving weights, for their checksum."""
        version = self._serving.of(self.recipe.name)
        return str(version.weights) if version else None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answers a viewer; see `SegmentationInfer` for the request.

        Raises:
            BadImage: the image cannot be read or does not fit the recipe.
            NotFound: the region is not drawn yet, and no model draws it.
        """
        study = request.get("study")
        paths = paths_of(self._folder, self.recipe, study, request.get("image"))
        client = str(request.get("client_id") or "unknown")
        version = self._serving.of(self.recipe.name)
        reads = bool(study) and not request.get("save_label")
        withheld = reads and self._withholds(str(study), self.recipe.name, client) and version is not None
        extension = request.get("result_extension") or mask_extension(paths[0])
        if version is None or withheld:
            shape, affine = read_header(paths[0])
            empty = Answer(np.zeros(shape, np.uint8), affine, {}, None, {})
            why = {"withheld": True, "message": WITHHELD} if withheld else {"message": self._no_model()}
            return save_answer(empty, extension), self._told(None, {}) | why
        started = time.monotonic()
        with ONE_AT_A_TIME:
            volume = read_study(paths, self.recipe.may_lack)
            region = self._regions.of(self.recipe, study, volume)
            cells = self._folder.study(study).answers if study else {}
            predictor = self._serving.predictor(version)
            earlier = earlier_volumes(predictor.recipe, earlier_of(self._folder, study, predictor.recipe))
            parts = lesions_of(region.mask) if region and predictor.recipe.answer.per == "lesion" else []
            each = [predictor.predict(volume, part, cells, earlier) for part in parts[:MAX_LABELS]]
            found = each[0] if each else predictor.predict(volume, region.mask if region else None, cells, earlier)
        mask = np.zeros(volume.shape, np.uint8) if region is None else (region.mask.array[0] > 0).astype(np.uint8)
        params = self._told(version, {"total": round(time.monotonic() - started, 3)})
        params |= self._answer(found, region)
        if each:
            mask, of_lesions = self._lesions(each, parts)
            params |= of_lesions
        params |= {"visits": 1 + len(earlier)} if predictor.recipe.answer.sequence else {}
        params["warnings"] += self._remember(study or request.get("shown_as"), client, version)
        return save_answer(Answer(mask, volume.affine, params["label_names"], version, {}), extension), params

    def _answer(self, found: AnswerPrediction, region: Region | None) -> dict[str, Any]:
        names = self.recipe.label_names
        says = [
            name
            for name, holds in zip(names, answered(found.probabilities[None], self.recipe.kind)[0], strict=True)
            if holds
        ]
        shown = {name: round(float(p), 4) for name, p in zip(names, found.probabilities, strict=True)}
        words = ", ".join(f"{name} {100 * shown[name]:.0f} %" for name in says) or "no finding"
        warnings = [f"{name} is not known; the training median stood for it" for name in found.missing]
        warnings += lacking_words(found.lacking)
        return {
            "answer": says,
            "probabilities": shown,
            "intervals": {name: [round(limit, 4) for limit in of] for name, of in found.limits.items()},
            "label_names": {words: 1},
            "message": f"{self.recipe.title or self.recipe.name}: {words}",
            "region": region.source if region else None,
            "slices": [of._asdict() for of in found.slices],
            "missing": [*found.missing, *found.lacking],
            "warnings": warnings,
        }

    def _lesions(self, each: Sequence[Any], parts: Sequence[Volume]) -> tuple[np.ndarray, dict[str, Any]]:
        """A mask with a number a lesion, the largest 1, and what the reply tells of each."""
        mask = np.zeros(parts[0].shape, np.uint8)
        told, names = [], dict[str, int]()
        for number, (found, part) in enumerate(zip(each, parts, strict=False), start=1):
            mask[part.array[0] > 0] = number
            answer = self._answer(found, None)
            size = lesion_sizes(part.array[0] > 0, part.affine)[0]
            lps = [round(v, 1) for v in np.multiply(size.centre, (-1, -1, 1)).tolist()]
            words = f"{number}: {next(iter(answer['label_names']))}"
            names[words] = number
            kept = {key: answer[key] for key in ("answer", "probabilities", "intervals", "slices")}
            told.append({"lesion": number, "centre_lps_mm": lps, "volume_ml": round(size.volume_ml, 3), **kept})
        message = f"{self.recipe.title or self.recipe.name}: {'; '.join(names)}"
        return mask, {"lesions": told, "label_names": names, "message": message}

    def _told(self, version: Version | None, latencies: dict[str, float]) -> dict[str, Any]:
        return {
            "label_names": {},
            "recipe": self.recipe.name,
            "version": version.number if version else None,
            "provisional": bool(version and version.state == "provisional"),
            "latencies": latencies,
            "warnings": [],
            "notice": NOTICE,
        }

    def _no_model(self) -> str:
        labels = len(self._ledger.current(self.recipe.name).keys() & self._folder.studies().keys())
        return f"no model yet: {labels} of {self.recipe.gate.first_model_after} labels"

    def _remember(self, study: str | None, client: str, version: Version, mask: np.ndarray | None = None) -> list[str]:
        if not study:
            return []
        try:
            if mask is None:
                self._ledger.record_shown(study, self.recipe.name, client, str(version.number))
            else:  # which may come back among the segments of another recipe
                ShownAnswers(self._ledger).record(study, self.recipe.name, client, str(version.number), mask)
        except RadloopError as error:
            logger.warning("%s was shown version %d, which is not written down: %s", study, version.number, error)
            return [f"an answer given after this one will count as blind: {error}"]
        return []
