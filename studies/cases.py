"""What a training or an assessment is given: a study's channels with the label that speaks for it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from radloop.recipes.errors import BadLabel, Conflict
from radloop.recipes.recipe import CLASS_KINDS, JSON_KINDS, Recipe
from radloop.recipes.volume import Volume
from radloop.studies.answers import read_answer
from radloop.studies.folder import StudiesFolder
from radloop.studies.images import read_mask
from radloop.studies.ledger import LabelRow, Ledger
from radloop.studies.sides import study_sides
from radloop.studies.split import Side
from radloop.studies.visits import Earlier, Visits

log = logging.getLogger(__name__)

_TRAINING: tuple[Side, ...] = ("train",)


@dataclass(frozen=True)
class Case:
    """A labelled study.

    Attributes:
        channels: as many as the recipe names, in its order.
        label: mask on the study's grid, read it with `read_label`; or of a recipe whose answer is about the whole
            study the JSON file, read it with `radloop.studies.answers.read_answer(case.label, recipe)`.
        names: the recipe's labels that this label speaks for; another's absence means "not looked at".
        row: the ledger row of the label.
        blind: whether the reader gave it before seeing any model's answer.
        ids: what the label's values 1..N mean, in their order; empty where they are the recipe's ids of now.
        author: who gave it.
        region: mask of the recipe that `answer.region` names, where the study has a label of it.
        answers: the study's cells of `answers.csv`.
        earlier: the patient's studies before it, oldest first, where `answer.sequence` asks for them.
    """

    study: str
    patient: str
    side: Side
    channels: tuple[Path, ...]
    label: Path
    names: tuple[str, ...]
    row: int
    blind: bool
    ids: tuple[str, ...] = ()
    author: str = ""
    region: Path | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    earlier: tuple[Earlier, ...] = ()


def labelled_cases(
    folder: StudiesFolder,
    ledger: Ledger,
    recipe: Recipe,
    sides: Collection[Side] = _TRAINING,
    only: Collection[str] | None = None,
    until: int | None = None,
) -> list[Case]:
    """The studies with a current label of a recipe, sorted by study id.

    Args:
        sides: which sides of the patient split.
        only: at most these study ids.
        until: with the labels as they were when the ledger's newest row was this one; what was retracted since is
            left out.
    """
    studies = folder.studies()
    rows = ledger.current(recipe.name, until)
    regions = ledger.current(recipe.answer.region, until) if recipe.answer.region else {}
    # Those with a label first: among themselves they fill every side, so that held-out ones can be measured on.
    side_of = study_sides(studies, ledger, rows)
    visits = Visits(studies if recipe.answer.sequence else {})
    cases = []
    for study_id, row in sorted(rows.items()):
        if only is not None and study_id not in only:
            continue
        study = studies.get(study_id)
        if study is None:
            log.warning("label %d is left out: study %r is not in %s", row.id, study_id, folder.path.name)
            continue
        side = side_of.get(study_id)
        if side is None or side not in sides:
            continue
        try:
            label = ledger.content(row, folder.final_dir)
            names = _names(recipe, row, label)
            region = ledger.content(regions[study_id], folder.final_dir) if study_id in regions else None
        except (Conflict, BadLabel) as error:
            log.warning("study %s is left out: %s", study_id, error)
            continue
        cases.append(
            Case(
                study=study_id,
                patient=study.patient,
                side=side,
                channels=study.first_channels(len(recipe.channels)),
                label=label,
                ids=row.ids,
                names=names,
                row=row.id,
                blind=not row.shown_version,
                author=row.author,
                region=region,
                answers=study.answers,
                earlier=visits.before(study, recipe),
            )
        )
    return cases


def _names(recipe: Recipe, row: LabelRow, label: Path) -> tuple[str, ...]:
    """The recipe's labels that a row speaks for.

    Raises:
        BadLabel: it was given when the recipe was of another kind, or answers with a label that is gone.
    """
    if row.is_answer != (recipe.kind in JSON_KINDS):
        what = "an answer" if row.is_answer else "a mask"
        msg = f"label {row.id} is {what}, but recipe {recipe.name} is of kind {recipe.kind} now; label the study again"
        raise BadLabel(msg)
    known = read_answer(label, recipe) if recipe.kind in CLASS_KINDS else recipe.labels
    return tuple(name for name in recipe.label_names if name in row.names and name in known)


def read_label(case: Case, labels: Mapping[str, int]) -> Volume:
    """A case's mask with the ids of `labels`, whatever ids it was written with; names that are not among them become 0.

    Args:
        labels: name -> id.

    Raises:
        BadImage: it cannot be read.
        NotFound: it is gone.
    """
    return renumbered(read_mask(case.label), case.ids, labels)


def same_ids(ids: Sequence[str], labels: Mapping[str, int]) -> bool:
    """Whether values 1..N that mean `ids` are the ids of `labels`, or nobody knows what they mean."""
    return all(labels.get(name) == value for value, name in enumerate(ids, start=1))


def renumbered(mask: Volume, ids: Sequence[str], labels: Mapping[str, int]) -> Volume:
    """A mask whose values 1..N mean `ids`, with the ids of `labels`; as it is where nobody knows what they mean."""
    if same_ids(ids, labels):
        return mask
    table = np.zeros(256, np.uint8)
    table[1 : len(ids) + 1] = [labels.get(name, 0) for name in ids]
    return Volume(table[mask.array.astype(np.uint8)], mask.affine)
