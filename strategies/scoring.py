"""The scoring method `dice`: how far the serving version's answers are from the readers' labels, study by study."""

from __future__ import annotations

import logging
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from monailabel.interfaces.tasks.scoring import ScoringMethod

from radloop.evaluation.metrics import dice
from radloop.recipes.errors import RadloopError
from radloop.studies.cases import Case, labelled_cases, read_label
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.images import read_study
from radloop.studies.split import SIDES

if TYPE_CHECKING:
    from radloop.engine.predictor import Predictor
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)


class DiceScoring(ScoringMethod):
    """Writes `dice` (recipe -> value, version, side) into each labelled study's image info.

    Figures of training-side studies flatter the version; `side` says which is which.

    Args:
        champion: the version of a recipe that serves, or None.
        predictor: a version's predictor.
    """

    def __init__(self, champion: Callable[[str], Version | None], predictor: Callable[[Version], Predictor]) -> None:
        super().__init__("Dice of the serving version against the readers' latest labels")
        self._champion, self._predictor = champion, predictor

    def __call__(self, request: dict[str, Any], datastore: FolderDatastore) -> dict[str, dict[str, float]]:
        """Scores every labelled study.

        Args:
            request: `recipe` for one recipe only.
            datastore: the studies; a study that cannot be read is left out with a warning.

        Returns:
            study -> recipe -> mean Dice over the labels that the reader looked at.
        """
        found: dict[str, dict[str, float]] = {}
        for recipe in datastore.recipes:
            asked = request.get("recipe") in (None, recipe.name) and recipe.kind == "segmentation"
            version = self._champion(recipe.name) if asked else None
            if version is None:
                continue
            predictor = self._predictor(version)
            for case in labelled_cases(datastore.folder, datastore.ledger, recipe, SIDES):
                try:
                    value = _score(predictor, case)
                except RadloopError as error:
                    logger.warning("%s is not scored: %s", case.study, error)
                    continue
                if value is not None:
                    found.setdefault(case.study, {})[recipe.name] = value
                    entry = {"value": value, "version": version.number, "side": case.side}
                    known = datastore.get_image_info(case.study).get("dice", {})
                    datastore.update_image_info(case.study, {"dice": {**known, recipe.name: entry}})
        return found


def _score(predictor: Predictor, case: Case) -> float | None:
    answer = predictor.predict(read_study(case.channels, predictor.recipe.may_lack)).mask
    labels = predictor.recipe.labels  # of the version, which may be older than the recipe of now
    label = read_label(case, labels).array[0]
    ids = [labels[name] for name in case.names if name in labels]
    values = [v for v in dice(answer, label, ids).values() if v is not None]
    return round(fmean(values), 4) if values else None
