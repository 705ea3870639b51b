"""Answers of a segmentation recipe: a mask on the study's own voxels, by the version that serves now."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from radloop.engine.channels import lacking_words
from radloop.engine.turns import Turns
from radloop.recipes.boxes import Box
from radloop.recipes.errors import BadInput, NoSpace, RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies.blind import WITHHELD
from radloop.studies.box_files import told_of
from radloop.studies.files import writing
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, Study, split_ending
from radloop.studies.images import mask_extension, read_header, read_study, write_mask
from radloop.studies.ledger import Ledger
from radloop.studies.shown import ShownAnswers

if TYPE_CHECKING:
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)
SPARE = "/tmp"  # where an answer passes through when the home, which has the server's own folder for that, is full
NOTICE = "not for clinical use"
ONE_AT_A_TIME = Turns()  # two predictions at once would only halve each other's cores and double the memory


class Serving(Protocol):
    """The versions that serve."""

    def of(self, recipe: str) -> Version | None:
        """The version that serves now, or None."""

    def known(self, recipe: str) -> Version | None:
        """The version that served a moment ago, without waiting."""

    def predictor(self, version: Version) -> Any:
        """What answers for a version, loaded once: a `Predictor` of masks, or an `AnswerPredictor`."""


@dataclass(frozen=True)
class Answer:
    """A mask and where it came from.

    Attributes:
        mask: (X, Y, Z) uint8, axes as in the file, ids 0..N.
        affine: 4x4, voxel -> RAS world in mm.
        names: label -> id.
        version: the version that answered, or None for the empty mask before any model.
        seconds: wall clock by step.
        lacking: optional channels that the study lacks.
        boxes: around each connected part, with its mean probability.
    """

    mask: np.ndarray
    affine: np.ndarray
    names: dict[str, int]
    version: Version | None
    seconds: dict[str, float]
    lacking: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


class SegmentationInfer(InferTask):
    """The infer task of one recipe.

    Args:
        recipe: the question.
        folder: the studies.
        ledger: where it is written down who was shown which version.
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
        super().__init__(InferType.SEGMENTATION, dict(recipe.labels), recipe.dimension, recipe.title or recipe.name, {})
        self.recipe, self._folder, self._ledger = recipe, folder, ledger
        self._serving, self._shown, self._withholds = serving, ShownAnswers(ledger), withholds

    def is_valid(self) -> bool:
        """Always: before the first model it answers with an empty mask, so that viewers list it."""
        return True

    def info(self) -> dict[str, Any]:
        """What viewers list, with the version that serves."""
        version = self._serving.known(self.recipe.name)
        served = f"version {version.number}" if version else "no model yet"
        return {**super().info(), "description": f"{self.description}; {served}; {NOTICE}"}

    def get_path(self, validate: bool = True) -> str | None:
        """The serving weights, for their checksum."""
        version = self._serving.of(self.recipe.name)
        return str(version.weights) if version else None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answers a viewer.

        Args:
            request: `study` (an id of the studies folder) or `image` (a path that the app has checked), `shown_as`
                (what the viewer calls that image), and the viewer's `result_extension` and `client_id`.

        Returns:
            A temporary mask file, and what viewers are told with it.

        Raises:
            BadImage: the image cannot be read or does not fit the recipe.
        """
        study = request.get("study")
        paths = paths_of(self._folder, self.recipe, study, request.get("image"))
        client = str(request.get("client_id") or "unknown")
        # A batch asks for proposals, not for what somebody is about to read.
        reads = bool(study) and not request.get("save_label")
        withheld = reads and self._withholds(str(study), self.recipe.name, client) and bool(self.get_path())
        answer = self.nothing(paths) if withheld else self.answer(paths)
        started = time.monotonic()
        file = save_answer(answer, request.get("result_extension") or mask_extension(paths[0]))
        answer.seconds["write"] = time.monotonic() - started
        params = self._params(answer) | ({"withheld": True, "message": WITHHELD} if withheld else {})
        # A local volume that is uploaded later becomes a study of the name by which the viewer calls it.
        params["warnings"] += self._remember(study or request.get("shown_as"), client, answer)
        return file, params

    def _remember(self, study: str | None, client: str, answer: Answer) -> list[str]:
        """Writes down who was shown what; gives a warning where it cannot be, for the answer itself is good."""
        if not study or not answer.version:
            return []
        try:
            self._shown.record(study, self.recipe.name, client, str(answer.version.number), answer.mask)
        except RadloopError as error:
            logger.warning(
                "%s was shown version %d, which is not written down: %s", study, answer.version.number, error
            )
            return [f"a label made from this answer will count as blind: {error}"]
        return []

    def answer(self, paths: tuple[Path, ...]) -> Answer:
        """The mask of a study's channels; empty before the first model."""
        version = self._serving.of(self.recipe.name)
        if version is None:
            return self.nothing(paths)
        started = time.monotonic()
        with ONE_AT_A_TIME:  # also for reading: many who wait must not hold a CT each
            begun = time.monotonic()
            volume = read_study(paths, self.recipe.may_lack)
            read = time.monotonic()
            predictor = self._serving.predictor(version)
            found = predictor.predict(volume, boxes=True)
        seconds = {"wait": begun - started, "read": read - begun, "predict": time.monotonic() - read}
        names = dict(predictor.recipe.labels)
        return Answer(found.mask, found.affine, names, version, seconds, found.lacking, found.boxes)

    def nothing(self, paths: tuple[Path, ...]) -> Answer:
        """An empty mask on a study's voxels, of no version."""
        started = time.monotonic()
        shape, affine = read_header(paths[0])
        empty = np.zeros(shape, np.uint8)
        return Answer(empty, affine, dict(self.recipe.labels), None, {"read": time.monotonic() - started})

    def finds_something(self, study_id: str) -> bool:
        """Whether the serving version marks anything in a study; False before the first model."""
        answer = self.answer(paths_of(self._folder, self.recipe, study_id, None))
        return bool(answer.mask.any())

    def _params(self, answer: Answer) -> dict[str, Any]:
        version = answer.version
        seconds = {name: round(value, 3) for name, value in answer.seconds.items() if math.isfinite(value)}
        params: dict[str, Any] = {
            "label_names": dict(sorted(answer.names.items(), key=lambda item: item[1])),
            "recipe": self.recipe.name,
            "version": version.number if version else None,
            "provisional": bool(version and version.state == "provisional"),
            "latencies": {**seconds, "total": round(sum(seconds.values()), 3)},
            "warnings": [],
            "notice": NOTICE,
            "coordinates": "LPS",
            "boxes": [told_of(box) for box in answer.boxes],
        }
        if version is None:
            labels = len(self._ledger.current(self.recipe.name).keys() & self._folder.studies().keys())
            params["message"] = f"no model yet: {labels} of {self.recipe.gate.first_model_after} labels"
        elif version.manifest.get("recipe_hash") not in (None, self.recipe.hash()):
            params["warnings"] = [f"version {version.number} was trained with an earlier form of the recipe"]
        params["missing"] = list(answer.lacking)
        params["warnings"] = [*params["warnings"], *lacking_words(answer.lacking)]
        if params["provisional"]:
            params["warnings"].append("provisional: too few held-out labels for the full gate")
        return params


def paths_of(folder: StudiesFolder, recipe: Recipe, study: str | None, image: str | None) -> tuple[Path, ...]:
    """The files of what a request asks about: a study's channels, or the one image that was uploaded.

    Raises:
        BadInput: it names neither, or an upload where the recipe needs several channels.
    """
    channels = len(recipe.channels)
    if study:
        return folder.study(study).first_channels(channels)
    if not image:
        msg = "the request names no image"
        raise BadInput(msg)
    if channels - len(recipe.optional) > 1:
        msg = f"{recipe.name} needs {channels} channels; an uploaded image has one: put it into the studies"
        raise BadInput(msg)
    name = split_ending(Path(image).name)[0]
    return Study(name, name, (Path(image),)).first_channels(channels)


def save_answer(answer: Answer, extension: str) -> str:
    """The mask in a temporary file that the server deletes after the reply.

    Raises:
        BadInput: the extension is none of a mask.
    """
    if not split_ending(f"mask{extension}", MASK_ENDINGS)[1]:
        msg = f"result_extension {extension!r} is not known; use one of {', '.join(MASK_ENDINGS)}"
        raise BadInput(msg)
    try:
        return _write(answer, extension, tempfile.gettempdir())
    except NoSpace as error:  # the home is full, but the answer is there
        logger.warning("the answer goes through %s: %s", SPARE, error)
        return _write(answer, extension, SPARE)


def _write(answer: Answer, extension: str, folder: str) -> str:
    with (
        writing("the answer"),
        tempfile.NamedTemporaryFile(prefix="radloop-", suffix=extension, dir=folder, delete=False) as handle,
    ):
        path = Path(handle.name)
    try:
        write_mask(path, answer.mask, answer.affine, answer.names)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return str(path)
