"""A reader's mask or answer becomes a label: checked against its study, named by its recipe, kept, then shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from radloop.recipes.errors import Conflict, RadloopError
from radloop.recipes.recipe import STUDY_KINDS, Recipe
from radloop.studies.answer_rows import keep_answer, keep_boxes
from radloop.studies.answers import fit_answer, is_answer, mask_recipes
from radloop.studies.box_files import fit_boxes
from radloop.studies.box_masks import mask_boxes
from radloop.studies.fitting import Fitted, LabelInfo, fit_mask
from radloop.studies.folder import StudiesFolder, Study
from radloop.studies.images import read_header, read_mask
from radloop.studies.intake import Problem, keep, rescue, show_newest, sync_view
from radloop.studies.ledger import Ledger
from radloop.studies.rows import AuthorKind, LabelRow, Origin, State

__all__ = ["Problem", "accept_label", "sync_view"]

log = logging.getLogger(__name__)


def accept_label(
    folder: StudiesFolder,
    ledger: Ledger,
    recipe: Recipe,
    study_id: str,
    file: Path,
    *,
    author: str,
    label_info: LabelInfo | None = None,
    shown_version: str = "",
    state: State = "final",
    origin: Origin = "reader",
    author_kind: AuthorKind = "self-declared",
    champion_found: Callable[[], bool] | None = None,
    others: Sequence[Recipe] = (),
    values: Mapping[str, int] | None = None,
    note: str = "",
) -> LabelRow:
    """Keep a mask, boxes, or an answer about the whole study, as a label of one recipe; when this returns, it is safe.

    Args:
        file: the mask, on the study's grid; or the answer, see `radloop.studies.answers`, or boxes, see
            `radloop.studies.box_files`.
        label_info: names and numbers as the viewer sends them; see `radloop.studies.fitting`.
        shown_version: the version whose answer the reader saw; "" means blind.
        champion_found: whether the serving version finds something here; asked only for an empty final mask,
            which is held where it does, or where it cannot say, until somebody confirms it or the author sends
            the same again.
        state: a `draft` is kept as it is: never held, never shown in `labels/final`.
        others: further recipes, whose names are left out with a note.
        values: the exact voxel value of every name, where known; goes before `label_info`.

    Raises:
        NotFound: there is no such study.
        BadLabel: the mask or answer does not fit the study or the recipe.
        BadImage: the study cannot be read.
        NoSpace: the disk is full or read-only; nothing was changed.
    """
    study = folder.study(study_id)
    if recipe.kind == "detection":
        names, drawn = recipe.label_names, ""
        if is_answer(file):
            boxes = fit_boxes(recipe, Path(file), *read_header(study.channels[0]))
        else:  # drawn in a viewer: a box around each part
            mask = fit_mask(study, recipe, Path(file), label_info, others, values, shown=bool(shown_version))
            names, drawn = mask.names, mask.note
            boxes = mask_boxes(mask.mask, recipe.labels, mask.affine)
        return keep_boxes(
            ledger,
            study,
            recipe,
            boxes,
            author,
            names,
            state=state,
            shown_version=shown_version,
            origin=origin,
            author_kind=author_kind,
            note="; ".join(text for text in (note, drawn) if text),
        )
    if recipe.kind in STUDY_KINDS or is_answer(file):
        return keep_answer(
            ledger,
            study,
            recipe,
            fit_answer(recipe, Path(file)),
            author,
            state=state,
            shown_version=shown_version,
            origin=origin,
            author_kind=author_kind,
            note=note,
        )
    fitted = fit_mask(study, recipe, Path(file), label_info, others, values, shown=bool(shown_version))
    said = None
    if state == "final" and champion_found is not None and not fitted.mask.any():
        said = _said_before(folder, ledger, study, recipe, author, fitted)
        doubt = "" if said else _doubt(champion_found, study.id)
        state, note = ("held", note or doubt) if doubt else (state, note)
    recipes = mask_recipes([recipe, *(r for r in others if r.name != recipe.name)])
    rescue(folder, ledger, recipes, study)
    row = _confirmed(ledger, said) if said and said.state == "held" else None
    if row is None:
        row = keep(
            ledger,
            study,
            recipe,
            fitted,
            author,
            state=state,
            shown_version=shown_version,
            origin=origin,
            author_kind=author_kind,
            note=note,
        )
    if row.state == "final":
        try:
            show_newest(folder, ledger, recipes, study)
        except RadloopError as error:
            # The label is safe; the view is made right at the next start.
            log.warning("label %d is kept, but labels/final does not show it yet: %s", row.id, error)
    return row


def _said_before(
    folder: StudiesFolder, ledger: Ledger, study: Study, recipe: Recipe, author: str, fitted: Fitted
) -> LabelRow | None:
    """The author's newest word on a study, if it is this same empty mask: held still, or final already."""
    rows = ledger.history(study.id, recipe.name)
    followed = {row.parent: row.state for row in rows if row.state in ("final", "revoked")}
    last = next((row for row in reversed(rows) if row.author == author), None)
    if last is None or last.state not in ("held", "final") or followed.get(last.id) == "revoked":
        return None
    if last.state == "held" and last.id in followed:  # somebody else confirmed it
        last = next(row for row in rows if row.parent == last.id and row.state == "final")
    try:
        before = read_mask(ledger.content(last, folder.final_dir))
    except Conflict:  # damaged: nobody knows any more what was said
        return None
    same = last.names == fitted.names and before.shape == fitted.mask.shape and not before.array.any()
    return last if same else None


def _confirmed(ledger: Ledger, said: LabelRow) -> LabelRow | None:
    """The held label made final; None where it cannot be any more, so that what was sent is a label of its own."""
    try:
        return ledger.confirm(said.id, note="confirmed by sending it again")
    except Conflict as error:
        log.info("sent again: %s", error)
        return None


def _doubt(champion_found: Callable[[], bool], study_id: str) -> str:
    """Why an empty mask is held, or "" where the serving version finds nothing either."""
    try:
        found = champion_found()
    except Exception as error:
        # Whatever keeps the model from answering must not cost a label.
        log.warning("the serving version cannot say what it finds in %s", study_id, exc_info=error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return f"empty, and the serving version could not say whether it finds something ({reason}); confirm it"
    return "empty, but the serving version finds something; confirm it or send a mask" if found else ""
