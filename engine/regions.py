"""Where a recipe looks: the mask of the recipe that `answer.region` names, as a reader gave it or a model draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from radloop.engine.predictor import Predictor
from radloop.evaluation.lesions import components
from radloop.recipes.errors import NotFound
from radloop.recipes.recipe import Recipe
from radloop.recipes.volume import Volume
from radloop.registry.version import Version
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_mask
from radloop.studies.ledger import Ledger


@dataclass(frozen=True, eq=False)
class Region:
    """A mask that says where to look.

    Attributes:
        mask: (1, X, Y, Z) uint8 on the study's voxels.
        source: whose it is, in words.
    """

    mask: Volume
    source: str


def lesions_of(mask: Volume) -> list[Volume]:
    """Each connected component of a region's mask (1, X, Y, Z) as a mask of its own, from the largest down."""
    parts = components(mask.array[0] > 0)
    order = np.argsort(-np.bincount(parts.ravel(), minlength=1)[1:], kind="stable") + 1
    return [Volume((parts == number).astype(np.uint8)[None], mask.affine) for number in order]


class Regions:
    """The masks of regions by study.

    Args:
        folder: the studies.
        ledger: readers' masks.
        champion: the version of a recipe that serves, or None.
        predictor: of a version.
    """

    def __init__(
        self,
        folder: StudiesFolder,
        ledger: Ledger,
        champion: Callable[[str], Version | None],
        predictor: Callable[[Version], Predictor],
    ) -> None:
        self._folder, self._ledger, self._champion, self._predictor = folder, ledger, champion, predictor

    def of(self, recipe: Recipe, study: str | None, volume: Volume) -> Region | None:
        """The region of a recipe in a study; None where the recipe looks at the whole image.

        Args:
            study: its id; None for an image that is not in the studies.
            volume: the study as read, for a model to draw the region in.

        Raises:
            NotFound: nobody has drawn it, and no model of that recipe serves or finds anything.
            Conflict: the reader's mask, or the version, is damaged.
        """
        name = recipe.answer.region
        if not name:
            return None
        row = self._ledger.latest(study, name) if study else None
        if row is not None:
            return Region(read_mask(self._ledger.content(row, self._folder.final_dir)), f"label {row.id}")
        version = self._champion(name)
        if version is None:
            msg = f"{recipe.name} looks at {name!r}: label that in this study first, or train a model of it"
            raise NotFound(msg)
        mask = self._predictor(version).predict(volume).mask
        if not mask.any():
            msg = (
                f"{recipe.name} looks at {name!r}, and version {version.number} of that finds none here; draw it first"
            )
            raise NotFound(msg)
        return Region(Volume(np.asarray(mask)[None], volume.affine), f"{name} version {version.number}")
