"""Answers that nobody accepted yet: one mask a study, `labels/original` or its stand-in beside read-only studies."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from radloop.recipes.recipe import Recipe
from radloop.studies.files import write_whole, writing
from radloop.studies.fitting import LabelInfo, fit_mask, ids_in
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, find_mask, split_ending
from radloop.studies.home import Home
from radloop.studies.images import mask_extension, read_named_mask, write_mask
from radloop.studies.rows import checksum

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proposal:
    """A proposal as a viewer can show it.

    Attributes:
        file: the mask.
        names: what its ids mean, 1..N; empty where nobody knows.
        message: why nobody knows, or empty.
    """

    file: Path
    names: dict[str, int]
    message: str = ""


class Proposals:
    """The proposals of a studies folder.

    Args:
        folder: the studies.
        home: where proposals go when the studies are read-only, and those replaced or taken away always.
        hidden: which of these studies are to be read without a proposal; theirs stay where they lie.
    """

    def __init__(
        self,
        folder: StudiesFolder,
        home: Home,
        hidden: Callable[[Collection[str]], Collection[str]] = lambda _: (),
    ) -> None:
        self._folder, self._home, self._hidden = folder, home, hidden
        self._stand_in = home.path / "view" / "original"
        self._looked: dict[str, tuple[tuple[object, ...], Proposal]] = {}

    def find(self, study_id: str) -> Path | None:
        """The file of a study's proposal as it lies there; None where there is none, or it is hidden."""
        path = self._lying(study_id)
        return None if path is None or self._hidden([study_id]) else path

    def files(self) -> dict[str, Path]:
        """The file of every proposal that is not hidden, by study id."""
        found: dict[str, Path] = {}
        for folder in self._folders():
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                study_id, ending = split_ending(name, MASK_ENDINGS)
                if ending and not name.startswith("."):
                    found.setdefault(study_id, folder / name)
        hidden = set(self._hidden(found)) if found else set()
        return {study_id: path for study_id, path in found.items() if study_id not in hidden}

    def ids(self) -> set[str]:
        """Studies that have a proposal which is not hidden."""
        return set(self.files())

    def readable(self, study_id: str, recipes: Sequence[Recipe]) -> Proposal | None:
        """A study's proposal with its names, or None where there is none or it is hidden.

        A file that names its segments is given with the ids of the first recipe that has one of the names; else its
        values are ids of the first recipe that has them all.

        Args:
            recipes: the one it was made for first, where known.

        Raises:
            BadLabel: the file cannot be read, or names its segments and lies on another grid than its study.
        """
        path = self.find(study_id)
        if path is None:
            return None
        facts = path.stat()
        stamp = (path, facts.st_mtime_ns, facts.st_size, tuple(r.name for r in recipes))
        seen = self._looked.get(study_id)
        if seen is None or seen[0] != stamp or not seen[1].file.is_file():
            seen = self._looked[study_id] = (stamp, self._look(study_id, path, recipes))
        return seen[1]

    def save(
        self,
        study_id: str,
        recipe: Recipe,
        upload: Path,
        label_info: LabelInfo | None = None,
        others: Sequence[Recipe] = (),
    ) -> str:
        """Replaces a study's proposal; the one before goes to `<home>/removed` unless it is the same.

        Args:
            label_info: names and values as a viewer sends them; see `radloop.studies.fitting`.
            others: further recipes, whose names are left out.

        Returns:
            What was left out, or an empty text.

        Raises:
            BadLabel: the mask cannot be read, does not lie on its study's grid, or its values are not the recipe's.
            NoSpace: it cannot be written; the one before stays.
        """
        study = self._folder.study(study_id)
        fitted = fit_mask(study, recipe, upload, label_info, others, shown=True)
        folder, ending = self._folders()[0], mask_extension(study.channels[0])
        new, old = folder / f"{study_id}{ending}", self._lying(study_id)
        with (
            writing(f"the proposal of {study_id}"),
            tempfile.TemporaryDirectory(dir=self._home.cache, ignore_cleanup_errors=True) as scratch,
        ):
            made = Path(scratch) / new.name
            write_mask(made, fitted.mask, fitted.affine)
            if old == new and checksum(old) == checksum(made):
                return fitted.note
            if old:
                self._keep_copy(old)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(new, lambda temporary: _copy(made, temporary), ending)
            if old and old != new and old.parent == folder:
                old.unlink()
        return fitted.note

    def remove(self, study_id: str) -> None:
        """Moves a study's proposal to `<home>/removed`."""
        while path := self._lying(study_id):
            self._keep_copy(path)
            with writing(path.name):
                path.unlink()

    def _lying(self, study_id: str) -> Path | None:
        return next((path for folder in self._folders() if (path := find_mask(folder, study_id))), None)

    def _look(self, study_id: str, path: Path, recipes: Sequence[Recipe]) -> Proposal:
        mask, in_file = read_named_mask(path)
        if in_file is None:
            present = ids_in(mask.array[0])
            recipe = next((r for r in recipes if present <= set(r.labels.values())), None)
            if recipe:
                return Proposal(path, recipe.labels)
            message = f"{path.name} has the values {sorted(present)[:8]}, which are ids of no recipe served"
        else:
            recipe = next((r for r in recipes if set(in_file) & set(r.labels)), None)
            if recipe:
                return Proposal(self._with_ids(study_id, path, recipe, in_file, recipes), recipe.labels)
            message = f"{path.name} names {', '.join(sorted(in_file)[:8])}, none of a recipe served"
        logger.warning("the proposal of %s is shown without names: %s", study_id, message)
        return Proposal(path, {}, message)

    def _with_ids(
        self, study_id: str, path: Path, recipe: Recipe, names: dict[str, int], recipes: Sequence[Recipe]
    ) -> Path:
        """A copy of a file that names its segments, with the recipe's ids."""
        study = self._folder.study(study_id)
        ending = mask_extension(study.channels[0])
        copy = self._home.cache / "proposals" / f"{checksum(path)[:16]}-{recipe.name}" / f"{study_id}{ending}"
        if not copy.is_file():
            fitted = fit_mask(study, recipe, path, others=recipes, values=names)
            with writing(copy.name):
                copy.parent.mkdir(parents=True, exist_ok=True)
            write_mask(copy, fitted.mask, fitted.affine)
        return copy

    def _keep_copy(self, path: Path) -> None:
        aside = self._home.path / "removed"
        with writing(aside.name):
            aside.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y%m%dT%H%M%S')}-{checksum(path)[:8]}-{path.name}"
        write_whole(aside / name, lambda temporary: _copy(path, temporary), split_ending(path.name, MASK_ENDINGS)[1])

    def _folders(self) -> tuple[Path, Path]:
        """Where proposals lie: the folder that can be written to first."""
        folder = self._folder.proposal_dir
        above = next(p for p in (folder, *folder.parents) if p.exists())
        return (folder, self._stand_in) if os.access(above, os.W_OK) else (self._stand_in, folder)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
