"""Masks that lie in `labels/final` and are not in the ledger become labels of author `import`.

Answers about whole studies have no file there; they come from `answers.csv`, see `radloop.studies.answer_rows`. Boxes
have one, which is never written to, see `radloop.studies.box_rows`.

What the values of such a file mean:

1. its own names (`.seg.nrrd`);
2. where the study has a label already: what they meant in the file that the view showed, since somebody edited that,
   also where the recipe was renumbered since;
3. `labels/names.json`, for every recipe that has one of its names, and only for the names that they share;
4. without one, or where its names are `label_1`, `label_2`, ...: the ids of the first recipe that has them all.

Its reader counts as blind, or as the reader of the label that was edited; where it may be a label whose row was lost,
nobody knows what was seen.

A file is kept in the ledger as it came, so that a recipe served later finds its labels in it. Where nothing names its
values, that is the recipe asked for, the first one: see `Intake._guessed`.
"""

from __future__ import annotations

import fcntl
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

from radloop.recipes.errors import BadLabel, NoSpace, NotFound, RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies.answer_rows import take_cells
from radloop.studies.answers import mask_recipes
from radloop.studies.box_rows import take_box_files
from radloop.studies.cases import same_ids
from radloop.studies.contents import mend
from radloop.studies.files import writing
from radloop.studies.fitting import Fitted, fit_mask, ids_in
from radloop.studies.folder import StudiesFolder, Study, split_ending
from radloop.studies.images import mask_extension, read_named_mask, write_mask
from radloop.studies.import_names import read_names
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.rows import UNKNOWN, AuthorKind, LabelRow, Origin, Original, State
from radloop.studies.view import VIEW_ENDINGS, View, original_of

log = logging.getLogger(__name__)

_NO_NAME = re.compile(r"label_\d+")


class Problem(NamedTuple):
    """A file that could not become a label, and why."""

    file: Path
    reason: str


def sync_view(folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe]) -> list[Problem]:
    """Take in what the ledger does not know, then make the view show each study's newest label.

    Args:
        recipes: those served, the main one first; or the one asked for first, then all that are known.

    Returns:
        Files, and cells of `answers.csv`, that could not be taken in, each left untouched, with the reason.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    masks = mask_recipes(recipes)
    intake = Intake(folder, ledger, masks)
    with _one_at_a_time(ledger):
        problems = [Problem(file, reason) for file, reason in mend(ledger, folder.final_dir, intake.view.path)]
        problems += intake.take_all() if masks else []  # nobody asks for masks: those there wait for a recipe that does
        problems += [Problem(file, reason) for file, reason in take_cells(folder, ledger, recipes)]
        problems += [Problem(file, reason) for file, reason in take_box_files(folder, ledger, recipes)]
        shown = newest(ledger, masks)
        for row in shown.values():
            problems += _attempt(ledger.file(row), partial(intake.view.show, row))
        problems += [Problem(file, reason) for file, reason in intake.view.clear(shown)]
    return problems


def rescue(folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe], study: Study) -> None:
    """Take in a study's files that another program changed, before the view shows something newer."""
    intake = Intake(folder, ledger, mask_recipes(recipes))

    def unknown() -> list[Path]:
        return [file for file in intake.view.of_study(study.id) if not ledger.knows(checksum(file), study.id)]

    if not unknown():
        return
    with _one_at_a_time(ledger):
        # Asked again: whoever held the lock may have taken them in.
        for file in unknown():
            for problem in _attempt(file, partial(intake.take, study.id, file)):
                log.warning("%s cannot be taken in and stays: %s", file.name, problem.reason)


def show_newest(folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe], study: Study) -> None:
    """Make the view show a study's newest label, also where somebody else gave one a moment later.

    Raises:
        BadLabel: a file that the ledger does not know is in the way; it is left there.
        Conflict: the label's content is damaged; what is shown stays.
        NoSpace: the view cannot be written.
    """
    with _one_at_a_time(ledger):
        rows = [row for r in mask_recipes(recipes) if (row := ledger.latest(study.id, r.name)) and not row.is_answer]
        if rows:
            View(folder, ledger).show(max(rows, key=lambda row: row.id))


def keep(
    ledger: Ledger,
    study: Study,
    recipe: Recipe,
    fitted: Fitted,
    author: str,
    *,
    state: State = "final",
    shown_version: str = "",
    origin: Origin = "reader",
    author_kind: AuthorKind = "self-declared",
    note: str = "",
) -> LabelRow:
    """Put a mask that fits into the ledger.

    Raises:
        NoSpace: the disk is full or read-only; nothing was changed.
    """
    ext = mask_extension(study.channels[0])
    with (
        writing(f"the label of {study.id}"),
        tempfile.TemporaryDirectory(dir=ledger.home.cache, ignore_cleanup_errors=True) as scratch,
    ):
        file = Path(scratch) / f"{study.id}{ext}"
        write_mask(file, fitted.mask, fitted.affine)
        return ledger.add(
            study.id,
            study.patient,
            recipe.name,
            author,
            file,
            ext,
            fitted.names,
            ids=recipe.label_names,
            state=state,
            shown_version=shown_version,
            origin=origin,
            author_kind=author_kind,
            note="; ".join(text for text in (note, fitted.note) if text),
        )


def newest(ledger: Ledger, recipes: Sequence[Recipe]) -> dict[str, LabelRow]:
    """The newest current label of each study, of whichever of the recipes."""
    rows = [row for recipe in recipes for row in ledger.current(recipe.name).values()]
    return {row.study: row for row in sorted(rows, key=lambda row: row.id) if not row.is_answer}


class Intake:
    """Makes labels of files for the recipes that are served."""

    def __init__(self, folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe]) -> None:
        self.view = View(folder, ledger)
        self._ledger = ledger
        self._recipes = recipes
        self._names_file = folder.path / "labels" / "names.json"
        self._studies = folder.studies()

    def take_all(self) -> list[Problem]:
        """Take in every unknown file, and use kept ones for recipes that were not served when they came."""
        problems = []
        known = self._ledger.contents()
        for study_id, file in self.view.files():
            if (study_id, checksum(file)) not in known:
                problems += _attempt(file, partial(self.take, study_id, file))
        for study_id, original in self._ledger.originals().items():
            if study_id in self._studies:
                problems += _attempt(self._ledger.file(original), partial(self._reuse, study_id, original))
        return problems

    def take(self, study_id: str, file: Path) -> None:
        """Make labels of a file that the ledger does not know.

        Raises:
            NotFound: it is of no study.
            BadLabel: it fits no recipe, or not the study.
        """
        if study_id not in self._studies:
            msg = f"no study has the id {study_id!r}; name the file after its study"
            raise NotFound(msg)
        study = self._studies[study_id]
        shown = self._shown(study_id)
        seen = UNKNOWN if self._may_be_lost(file) else shown.shown_version if shown else ""
        values, recipes = self._meaning(file, shown)
        fits = [(r, fit_mask(study, r, file, others=self._recipes, values=values)) for r in recipes]
        # The labels first: a crash in between imports once more, never once less.
        for recipe, fitted in fits:
            self._import(study, recipe, fitted, file.name, seen)
        self._ledger.add_original(study_id, file, split_ending(file.name, VIEW_ENDINGS)[1].lower(), values)

    def _may_be_lost(self, file: Path) -> bool:
        """Whether a file may be a label whose row was lost, so that nobody knows what its reader had seen."""
        restored = self._ledger.home.restored
        written = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
        if restored and written <= datetime.fromisoformat(restored):
            return True
        digest = checksum(file)
        kept = self._ledger.home.labels / f"{digest}{split_ending(file.name, VIEW_ENDINGS)[1].lower()}"
        return kept.is_file() and digest not in {known for _, known in self._ledger.contents()}

    def _meaning(self, file: Path, shown: LabelRow | None) -> tuple[Mapping[str, int] | None, list[Recipe]]:
        """What a file's values mean (None: ids of the recipe), and the recipes it speaks for."""
        mask, in_file = read_named_mask(file)
        present = ids_in(mask.array[0])
        values: Mapping[str, int] | None
        if in_file is not None:
            values, fitting = in_file, [r for r in self._recipes if _shares(in_file, r)]
        elif shown is not None:
            original = original_of(self._ledger, shown)
            values = original.names if original else None
            fitting = [r for r in self._recipes if (_shares(values, r) if values else r.name == shown.recipe)]
            if values is None and fitting and not same_ids(shown.ids, fitting[0].labels):
                values = _numbered(shown.ids)  # the recipe was renumbered since the file was shown
        else:
            values = read_names(self._names_file) or None
            fitting = [r for r in self._recipes if _shares(values, r)]
            if not fitting and not _tells(values):
                values = None
                fitting = [r for r in self._recipes if present <= set(r.labels.values())][:1]
        if not fitting:
            served = "; ".join(f"{r.name} has {', '.join(r.labels)}" for r in self._recipes) or "none"
            if _tells(values):
                msg = f"its names {', '.join(values or ())} are of no recipe served ({served}); give one of these names"
            else:
                msg = f"its ids {sorted(present)[:8]} fit no recipe served ({served}); name them in labels/names.json"
            raise BadLabel(msg)
        return values, fitting

    def _shown(self, study_id: str) -> LabelRow | None:
        """The newest current label of a study, of any recipe ever asked."""
        recipes = {row.recipe for row in self._ledger.history(study_id) if not row.is_answer}
        rows = [row for name in recipes if (row := self._ledger.latest(study_id, name))]
        return max(rows, key=lambda row: row.id, default=None)

    def _reuse(self, study_id: str, original: Original) -> None:
        history = [row for row in self._ledger.history(study_id) if not row.is_answer]
        answered = {row.recipe for row in history}
        study = self._studies[study_id]
        for recipe in self._recipes:
            if recipe.name in answered:
                continue
            values = original.names
            if values is not None:
                fits = _shares(values, recipe)
            else:
                fits, values = self._guessed(recipe, original, history)
            if fits:
                file = self._ledger.content(original, self.view.path)
                fitted = fit_mask(study, recipe, file, others=self._recipes, values=values)
                unknown = {
                    of.id for r in history if r.shown_version == UNKNOWN and (of := original_of(self._ledger, r))
                }
                seen = UNKNOWN if original.id in unknown else ""
                self._import(study, recipe, fitted, f"original {original.id}", seen)

    def _guessed(
        self, recipe: Recipe, original: Original, history: Sequence[LabelRow]
    ) -> tuple[bool, dict[str, int] | None]:
        """Whether a file without names is the recipe's too, and what its values mean (None: the recipe's ids).

        Its first recipe was a guess by ids. The recipe asked for may have it as well: by the names that both
        share, or else by ids, unless a reader has labelled with the first one and so settled what the file shows.
        """
        if recipe != self._recipes[0]:
            return False, None
        first = [row for row in history if row.origin == "import" and row.time <= original.time][-1:]
        claimed = _numbered([name for row in first for name in row.ids or row.names])
        if _shares(claimed, recipe):
            return True, claimed
        if any(row.origin != "import" for one in first for row in self._ledger.history(recipe=one.recipe)):
            return False, None
        present = ids_in(read_named_mask(self._ledger.content(original, self.view.path))[0].array[0])
        return present <= set(recipe.labels.values()), None

    def _import(self, study: Study, recipe: Recipe, fitted: Fitted, source: str, seen: str) -> None:
        row = keep(
            self._ledger,
            study,
            recipe,
            fitted,
            "import",
            shown_version=seen,
            origin="import",
            author_kind="import",
            note=f"from {source}",
        )
        log.info("label %d of study %s, recipe %s, is imported from %s", row.id, study.id, recipe.name, source)


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names, start=1)}


def _shares(names: Mapping[str, int] | None, recipe: Recipe) -> bool:
    return names is not None and not set(names).isdisjoint(recipe.labels)


def _tells(names: Mapping[str, int] | None) -> bool:
    """Whether names say more than the numbers do."""
    return names is not None and not all(_NO_NAME.fullmatch(name) for name in names)


def _attempt(file: Path, step: Callable[[], None]) -> list[Problem]:
    try:
        step()
    except NoSpace:
        raise
    except RadloopError as error:
        return [Problem(file, str(error))]
    return []


@contextmanager
def _one_at_a_time(ledger: Ledger) -> Iterator[None]:
    """Two who look at the same files must not import one twice, nor show an older label over a newer one."""
    with writing("view.lock"):
        handle = (ledger.home.cache / "view.lock").open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
