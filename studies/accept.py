"""A reader's mask becomes a label: checked against its study, named by its recipe, kept, then shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from radloop.recipes.errors import RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies.fitting import LabelInfo, fit_mask
from radloop.studies.folder import StudiesFolder
from radloop.studies.intake import Problem, keep, rescue, sync_view
from radloop.studies.ledger import Ledger
from radloop.studies.rows import AuthorKind, LabelRow, Origin, State
from radloop.studies.view import View

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
    """Keep a mask as a label of one recipe; when this returns, it is safe.

    Args:
        file: the mask, on the study's grid.
        label_info: names and numbers as the viewer sends them; see `radloop.studies.fitting`.
        shown_version: the version whose answer the reader saw; "" means blind.
        champion_found: whether the serving version finds something here; asked only for an empty final mask,
            which is then held until someone confirms it.
        others: further recipes, whose names are left out with a note.
        values: the exact voxel value of every name, where known; goes before `label_info`.

    Raises:
        NotFound: there is no such study.
        BadLabel: the mask does not fit the study or the recipe.
        BadImage: the study cannot be read.
        NoSpace: the disk is full or read-only; nothing was changed.
    """
    study = folder.study(study_id)
    fitted = fit_mask(study, recipe, Path(file), label_info, others, values)
    if state == "final" and not fitted.mask.any() and champion_found is not None and champion_found():
        state, note = "held", note or "empty, but the serving version finds something; confirm it or send a mask"
    rescue(folder, ledger, [recipe, *(r for r in others if r.name != recipe.name)], study)
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
            View(folder, ledger).show(row)
        except RadloopError as error:
            # The label is safe; the view is made right at the next start.
            log.warning("label %d is kept, but labels/final does not show it yet: %s", row.id, error)
    return row
