"""Readers' labels as viewers ask for them: of each study one row, with its file and its names.

Where several recipes have a label of one study, a viewer that asks for "the" label gets the newest mask; an answer
about the whole study only where there is no mask, or where it asks for that recipe.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radloop.recipes.errors import Conflict
from radloop.recipes.recipe import Recipe
from radloop.studies.answers import mask_recipes, said
from radloop.studies.archive import row_info
from radloop.studies.cases import renumbered, same_ids
from radloop.studies.files import write_whole, writing
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_mask, write_mask
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.rows import LabelRow
from radloop.studies.view import View

FINAL, DRAFT = "final", "draft"
log = logging.getLogger(__name__)


class GivenLabels:
    """The labels of the recipes that are served.

    Args:
        folder: the studies.
        ledger: every label ever given.
        recipes: those served, the main one first.
    """

    def __init__(self, folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe]) -> None:
        self._ledger, self._recipes = ledger, tuple(recipes)
        self._view = View(folder, ledger)

    def studies(self, recipe: str | None = None) -> set[str]:
        """Ids of studies with a current label, of one recipe or of any."""
        names = [recipe] if recipe else [r.name for r in self._recipes]
        return {study for name in names for study in self._ledger.current(name)}

    def shown(self) -> set[str]:
        """Ids of studies with a current mask; with an answer where no recipe that takes masks is served."""
        names = [r.name for r in mask_recipes(self._recipes) or self._recipes]
        return {study for name in names for study in self.studies(name)}

    def all(self) -> dict[str, list[LabelRow]]:
        """The current labels of every study, masks first, then the newest; one question a recipe."""
        rows = [row for r in self._recipes for row in self._ledger.current(r.name).values()]
        found: dict[str, list[LabelRow]] = {}
        for row in sorted(rows, key=_masks_first):
            found.setdefault(row.study, []).append(row)
        return found

    def of(
        self, study_id: str, tag: str = FINAL, author: str | None = None, recipe: str | None = None
    ) -> list[LabelRow]:
        """One study's current labels of a tag, one a recipe, or its drafts, not yet made final.

        Masks come first, then the newest.

        Args:
            author: only theirs; for drafts.
            recipe: only of this one.
        """
        if tag == FINAL:
            rows = [row for r in self._recipes if (row := self._ledger.latest(study_id, r.name))]
        else:
            rows = list({row.recipe: row for row in self._drafts(study_id, author)}.values())
        return sorted((row for row in rows if recipe in (None, row.recipe)), key=_masks_first)

    def file(self, row: LabelRow) -> Path:
        """The file of a row, its values the ids of the recipe of now, as `info` names them.

        It is that in `labels/final` if it shows this very content, else the ledger's own.
        """
        recipe = next((r for r in self._recipes if r.name == row.recipe), None)
        if recipe and not same_ids(row.ids, recipe.labels):
            return self._with_ids(row, recipe)
        there = self._view.of_study(row.study) if row.state == FINAL else []
        shown = next((file for file in there if checksum(file) == row.checksum), None)
        return shown or self._ledger.content(row, self._view.path)

    def _with_ids(self, row: LabelRow, recipe: Recipe) -> Path:
        """A copy of a label that was given before its recipe was renumbered, with the ids of now."""
        copy = self._ledger.home.cache / "renumbered" / f"{row.checksum[:16]}-{row.id}-{recipe.hash()}"
        copy /= f"{row.study}{row.ext}"
        if not copy.is_file():
            mask = renumbered(read_mask(self._ledger.content(row, self._view.path)), row.ids, recipe.labels)
            with writing(copy.name):
                copy.parent.mkdir(parents=True, exist_ok=True)
            write_whole(copy, lambda file: write_mask(file, mask.array[0], mask.affine), row.ext)
        return copy

    def files(self, rows: Sequence[LabelRow]) -> dict[str, Path]:
        """The files of a study's rows by recipe: of masks the first one's, as viewers get it, and of every answer."""
        return {row.recipe: self.file(row) for row in rows if row == rows[0] or row.is_answer}

    def seen(self) -> dict[str, str]:
        """Study -> name of its file in `labels/final`."""
        return {study_id: file.name for study_id, file in self._view.files()}

    def info(self, rows: Sequence[LabelRow]) -> dict[str, Any]:
        """What viewers are told of a study's labels: the names of the first, whose file they get, and each row."""
        names = next((r.labels for r in self._recipes if r.name == rows[0].recipe), {})
        return {
            "recipe": rows[0].recipe,
            "params": {"label_names": names},
            "labels": [row_info(row) | self._answer(row) for row in rows],
        }

    def _answer(self, row: LabelRow) -> dict[str, Any]:
        """What an answer says; None where its content is damaged."""
        if not row.is_answer:
            return {}
        try:
            return {"answer": said(self._ledger.content(row))}
        except Conflict as error:
            log.warning("%s", error)
            return {"answer": None}

    def retract(self, study_id: str, tag: str, *, by: str, recipe: str | None = None) -> None:
        """Takes back a study's labels of a tag by one more row each, of one recipe or of all served.

        Held ones go with the final ones.
        """
        states = (FINAL, "held") if tag == FINAL else (tag,)
        names = {recipe} if recipe else {r.name for r in self._recipes}
        rows = [r for r in self._ledger.history(study_id) if r.recipe in names and r.state in states]
        self._ledger.revoke(ids=[row.id for row in rows], by=by)

    def _drafts(self, study_id: str, author: str | None) -> list[LabelRow]:
        """Drafts that are neither retracted nor followed by a final label of the same author, oldest first."""
        rows = self._ledger.history(study_id)
        gone = {row.parent for row in rows if row.state == "revoked"}
        served = {r.name for r in self._recipes}
        done = {(row.recipe, row.author): row.id for row in rows if row.state == FINAL}
        return [
            row
            for row in rows
            if row.state == DRAFT
            and row.recipe in served
            and row.id not in gone
            and row.id > done.get((row.recipe, row.author), 0)
            and author in (None, row.author)
        ]


def _masks_first(row: LabelRow) -> tuple[bool, int]:
    return row.is_answer, -row.id
