"""Answers that nobody accepted yet: one mask a study, `labels/original` or its stand-in beside read-only studies."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from radloop.recipes.recipe import Recipe
from radloop.studies.files import writing
from radloop.studies.fitting import check_grid
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, find_mask, split_ending
from radloop.studies.home import Home
from radloop.studies.images import mask_extension, read_named_mask, write_mask


class Proposals:
    """The proposals of a studies folder.

    Args:
        folder: the studies.
        home: where proposals go when the studies are read-only, and those taken away always.
    """

    def __init__(self, folder: StudiesFolder, home: Home) -> None:
        self._folder, self._home = folder, home
        self._stand_in = home.path / "view" / "original"

    def find(self, study_id: str) -> Path | None:
        """The file of a study's proposal, or None."""
        return self._folder.proposal(study_id) or find_mask(self._stand_in, study_id)

    def ids(self) -> set[str]:
        """Studies that have a proposal."""
        found: set[str] = set()
        for folder in (self._folder.proposal_dir, self._stand_in):
            if folder.is_dir():
                parts = (split_ending(name, MASK_ENDINGS) for name in os.listdir(folder) if not name.startswith("."))
                found |= {study_id for study_id, ending in parts if ending}
        return found

    def save(self, study_id: str, recipe: Recipe, upload: Path) -> None:
        """Replaces a study's proposal.

        Raises:
            BadLabel: the mask cannot be read or lies on another grid than its study.
            NoSpace: it cannot be written; the one before stays.
        """
        study = self._folder.study(study_id)
        mask, names = read_named_mask(upload)
        affine = check_grid(study, recipe, mask, upload.name)
        folder = self._writable()
        with writing(folder.name):
            folder.mkdir(parents=True, exist_ok=True)
        old, new = self.find(study_id), folder / f"{study_id}{mask_extension(study.channels[0])}"
        write_mask(new, mask.array[0].astype("uint8"), affine, names)
        if old and old != new:
            self._put_aside(old)

    def remove(self, study_id: str) -> None:
        """Moves a study's proposal to `<home>/removed`."""
        path = self.find(study_id)
        if path:
            self._put_aside(path)

    def _put_aside(self, path: Path) -> None:
        aside = self._home.path / "removed"
        with writing(aside.name):
            aside.mkdir(parents=True, exist_ok=True)
            shutil.move(path, aside / f"{time.strftime('%Y%m%dT%H%M%S')}-{path.name}")

    def _writable(self) -> Path:
        folder = self._folder.proposal_dir
        above = next(p for p in (folder, *folder.parents) if p.exists())
        return folder if os.access(above, os.W_OK) else self._stand_in
