"""What a training or an assessment is given: a study's channels with the label that speaks for it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from radloop.recipes.recipe import Recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.ledger import Ledger
from radloop.studies.split import Side, Split

log = logging.getLogger(__name__)

_TRAINING: tuple[Side, ...] = ("train",)


@dataclass(frozen=True)
class Case:
    """A labelled study.

    Attributes:
        channels: as many as the recipe names, in its order.
        label: mask with ids 1..N of the recipe, on the study's grid.
        names: the recipe's labels that this label speaks for; another's absence means "not looked at".
        row: the ledger row of the label.
        blind: whether the reader gave it before seeing any model's answer.
    """

    study: str
    patient: str
    side: Side
    channels: tuple[Path, ...]
    label: Path
    names: tuple[str, ...]
    row: int
    blind: bool


def labelled_cases(
    folder: StudiesFolder,
    ledger: Ledger,
    recipe: Recipe,
    sides: Collection[Side] = _TRAINING,
    only: Collection[str] | None = None,
) -> list[Case]:
    """The studies with a current label of a recipe, sorted by study id.

    Args:
        sides: which sides of the patient split.
        only: at most these study ids.
    """
    studies = folder.studies()
    rows = ledger.current(recipe.name)
    split = Split(ledger)
    # Those with a label first: among themselves they fill every side, so that held-out ones can be measured on.
    side_of = split.assign(studies[study_id].patient for study_id in rows if study_id in studies)
    side_of |= split.assign(study.patient for study in studies.values())
    cases = []
    for study_id, row in sorted(rows.items()):
        if only is not None and study_id not in only:
            continue
        study = studies.get(study_id)
        if study is None:
            log.warning("label %d is left out: study %r is not in %s", row.id, study_id, folder.path.name)
            continue
        side = side_of[study.patient]
        if side not in sides:
            continue
        names = tuple(name for name in recipe.label_names if name in row.names)
        cases.append(
            Case(
                study=study_id,
                patient=study.patient,
                side=side,
                channels=study.first_channels(len(recipe.channels)),
                label=ledger.file(row),
                names=names,
                row=row.id,
                blind=not row.shown_version,
            )
        )
    return cases
