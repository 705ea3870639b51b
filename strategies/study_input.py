"""What a predictor is given of a study: images, the region that its recipe looks at, covariates, earlier studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from radloop.engine.answer_data import earlier_volumes
from radloop.engine.regions import Regions, lesions_of
from radloop.recipes.recipe import MAX_LABELS, STUDY_KINDS, Recipe
from radloop.recipes.volume import Volume
from radloop.studies.folder import StudiesFolder, Study
from radloop.studies.images import read_study
from radloop.studies.ledger import Ledger
from radloop.studies.visits import earlier_of

if TYPE_CHECKING:
    from radloop.registry.version import Version


@dataclass(frozen=True)
class Given:
    """A study as `score_study` takes it; `beside` are its keywords."""

    volume: Volume
    beside: dict[str, Any] = field(default_factory=dict)


class StudyInput:
    """Reads studies for a predictor.

    Args:
        folder: the studies.
        ledger: readers' masks of regions.
        champion: the version of a recipe that serves, or None; it may draw a region.
        predictor: of a version.
    """

    def __init__(
        self,
        folder: StudiesFolder,
        ledger: Ledger,
        champion: Callable[[str], Version | None],
        predictor: Callable[[Version], Any],
    ) -> None:
        self._folder, self._regions = folder, Regions(folder, ledger, champion, predictor)

    def of(self, recipe: Recipe, study: Study) -> list[Given]:
        """What to ask about a study: once, or where the recipe answers by lesion once for each.

        Raises:
            BadImage: it cannot be read.
            NotFound: the region is not drawn yet, and no model draws it.
        """
        volume = read_study(study.first_channels(len(recipe.channels)), recipe.may_lack)
        if recipe.kind not in STUDY_KINDS:
            return [Given(volume)]
        region = self._regions.of(recipe, study.id, volume)
        beside = {
            "cells": study.answers,
            "earlier": earlier_volumes(recipe, earlier_of(self._folder, study.id, recipe)),
        }
        masks = [region.mask] if region else [None]
        if region and recipe.answer.per == "lesion":
            masks = list(lesions_of(region.mask)[:MAX_LABELS]) or masks
        return [Given(volume, {**beside, "region": mask}) for mask in masks]
