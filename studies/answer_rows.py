"""Answers about a whole study become labels: sent as a file, or typed into a column of `answers.csv`.

A cell becomes a label once: the note of its row says which cells were taken, so that an old cell never comes back over
what a reader said later. A cell that contradicts a reader and was never taken before waits for a person (`held`), since
nobody knows which of the two is the newer word.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from radloop.recipes.boxes import Box
from radloop.recipes.errors import BadLabel, NoSpace, RadloopError, closest
from radloop.recipes.recipe import STUDY_KINDS, Recipe
from radloop.studies.answers import ENDING, Said, check_answer, read_answer, read_outcome, write_answer
from radloop.studies.box_files import write_boxes
from radloop.studies.files import writing
from radloop.studies.folder import StudiesFolder, Study, answer_lines, table_id
from radloop.studies.ledger import Ledger
from radloop.studies.outcomes import Outcome, outcome_in_cells
from radloop.studies.rows import UNKNOWN, AuthorKind, LabelRow, Origin, State

log = logging.getLogger(__name__)

#: What cells say: column -> the label's name or a time, or whether a finding is there or an event came.
Cells = dict[str, "str | bool"]

_FROM = "from answers.csv: "
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
#: What the cell of a finding may say, as `plain` gives it.
YES, NO = ("1", "yes", "true"), ("0", "no", "false")


def keep_answer(
    ledger: Ledger,
    study: Study,
    recipe: Recipe,
    answer: Said,
    author: str,
    *,
    state: State = "final",
    shown_version: str = "",
    origin: Origin = "reader",
    author_kind: AuthorKind = "self-declared",
    note: str = "",
) -> LabelRow:
    """Put an answer that `check_answer` gave into the ledger.

    Raises:
        NoSpace: the disk is full or read-only; nothing was changed.
    """

    def write(file: Path) -> None:
        write_answer(file, recipe.kind, answer)

    return _keep(
        ledger,
        study,
        recipe,
        write,
        recipe.label_names if isinstance(answer, Outcome) else tuple(answer),
        author,
        state=state,
        shown_version=shown_version,
        origin=origin,
        author_kind=author_kind,
        note=note,
    )


def keep_boxes(
    ledger: Ledger,
    study: Study,
    recipe: Recipe,
    boxes: Sequence[Box],
    author: str,
    names: tuple[str, ...] = (),
    **more: Any,
) -> LabelRow:
    """Put boxes that `fit_boxes` gave into the ledger.

    Args:
        names: labels that were looked at; all of the recipe's by default.
        more: as of `keep_answer`.

    Raises:
        NoSpace: the disk is full or read-only; nothing was changed.
    """
    return _keep(ledger, study, recipe, partial(write_boxes, boxes=boxes), names or recipe.label_names, author, **more)


def _keep(
    ledger: Ledger,
    study: Study,
    recipe: Recipe,
    write: Callable[[Path], None],
    names: tuple[str, ...],
    author: str,
    **more: Any,
) -> LabelRow:
    with (
        writing(f"the label of {study.id}"),
        tempfile.TemporaryDirectory(dir=ledger.home.cache, ignore_cleanup_errors=True) as scratch,
    ):
        file = Path(scratch) / f"answer{ENDING}"
        write(file)
        return ledger.add(study.id, study.patient, recipe.name, author, file, ENDING, names, **more)


def take_cells(folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe]) -> list[tuple[Path, str]]:
    """Make labels of cells in `answers.csv` that are new or changed; gives what could not be taken, and why.

    Args:
        recipes: those served; only those whose answer is about the whole study have columns.

    Raises:
        BadInput: the table cannot be read.
        NoSpace: the disk is full or read-only.
    """
    asked = [recipe for recipe in recipes if recipe.kind in STUDY_KINDS]
    table = folder.path / "answers.csv"
    if not asked or not table.is_file():
        return []
    studies = folder.studies()
    lines = {study: (line, row) for line, image, row in answer_lines(table) if (study := table_id(image, studies))}
    seen = UNKNOWN if _may_be_lost(ledger, table) else ""
    problems = []
    for recipe in asked:
        taken = _taken(ledger, recipe)
        for study_id, (line, row) in lines.items():
            cells, wrong = _cells(recipe, row)
            problems += [f"line {line}: {reason}" for reason in wrong]
            try:
                _take(ledger, studies[study_id], recipe, cells, taken.get(study_id, {}), seen)
            except NoSpace:
                raise
            except RadloopError as error:
                problems.append(f"line {line}: {error}")
    return [(table, reason) for reason in problems]


def cells_of(recipe: Recipe, file: Path) -> dict[str, str]:
    """Column -> cell of `answers.csv`, of what an answer file says to a recipe.

    Raises:
        BadLabel: it says nothing of the recipe's labels.
    """
    cells = _in_cells(recipe, file)
    return {column: value if isinstance(value, str) else str(int(value)) for column, value in cells.items()}


def _may_be_lost(ledger: Ledger, table: Path) -> bool:
    """Whether cells may have had rows that were lost, so that nobody knows what their reader had seen."""
    restored = ledger.home.restored
    written = datetime.fromtimestamp(table.stat().st_mtime, timezone.utc)
    return bool(restored) and written <= datetime.fromisoformat(restored)


def _take(ledger: Ledger, study: Study, recipe: Recipe, cells: Cells, taken: Cells, seen: str) -> None:
    """Make a label of the cells that are not among those taken before."""
    new = {column: value for column, value in cells.items() if taken.get(column) != value}
    if recipe.kind == "risk" and new:
        new = cells  # event and time are one word: half of it beside a reader's other half is what nobody said
    if not new:
        return
    current = ledger.latest(study.id, recipe.name)
    said = _said(recipe, current, ledger) if current else {}
    if said | new == said and not taken:
        return  # a reader has said so already
    odds = [column for column in new if column not in taken and said.get(column, new[column]) != new[column]]
    doubt = f"; label {current.id} of {current.author} says otherwise" if current and odds else ""
    row = keep_answer(
        ledger,
        study,
        recipe,
        _as_answer(recipe, said | new),
        "import",
        state="held" if doubt else "final",
        shown_version=seen or (current.shown_version if current else ""),
        origin="import",
        author_kind="import",
        note=_FROM + json.dumps(taken | cells, ensure_ascii=False) + doubt,
    )
    log.info("label %d of study %s, recipe %s, is imported from answers.csv", row.id, study.id, recipe.name)


def _taken(ledger: Ledger, recipe: Recipe) -> dict[str, Cells]:
    """Study -> the cells that were taken last, as the notes of their rows say."""
    notes = {
        row.study: row.note.removeprefix(_FROM)
        for row in ledger.history(recipe=recipe.name)
        if row.origin == "import" and row.note.startswith(_FROM)
    }
    return {study: json.JSONDecoder().raw_decode(note)[0] for study, note in notes.items()}


def _column(recipe: Recipe) -> str:
    return recipe.answer.column or recipe.name


def _said(recipe: Recipe, row: LabelRow, ledger: Ledger) -> Cells:
    """What a label says to the recipe of now, as cells would."""
    try:
        return _in_cells(recipe, ledger.content(row))
    except BadLabel as error:
        log.info("label %d says nothing any more: %s", row.id, error)
        return {}


def _in_cells(recipe: Recipe, file: Path) -> Cells:
    if recipe.kind == "risk":
        return read_outcome(file, recipe).cells(recipe)
    answer = read_answer(file, recipe)
    if recipe.kind == "multilabel":
        return {**answer}
    return {_column(recipe): next(name for name, holds in answer.items() if holds)}


def _as_answer(recipe: Recipe, cells: Cells) -> Said:
    if recipe.kind == "risk":
        return Outcome(bool(cells[recipe.answer.event]), float(cells[recipe.answer.time]), recipe.answer.unit)
    if recipe.kind == "multilabel":
        return check_answer(recipe, {name: bool(value) for name, value in cells.items()})
    return check_answer(recipe, {str(cells[_column(recipe)]): True})


def _cells(recipe: Recipe, row: Mapping[str, str]) -> tuple[Cells, list[str]]:
    """What a row of the table says to a recipe, and what is wrong with it; an empty cell says nothing."""
    if recipe.kind == "risk":
        try:
            outcome = outcome_in_cells(recipe, row)
        except BadLabel as error:
            return {}, [str(error)]
        return outcome.cells(recipe) if outcome else {}, []
    columns = recipe.label_names if recipe.kind == "multilabel" else (_column(recipe),)
    cells: Cells = {}
    wrong = []
    for column in columns:
        text = row.get(column, "")
        if not text:
            continue
        try:
            cells[column] = _finding(column, text) if recipe.kind == "multilabel" else _label(recipe, text)
        except BadLabel as error:
            wrong.append(str(error))
    return cells, wrong


def _finding(column: str, text: str) -> bool:
    word = plain(text)
    if word not in (*YES, *NO):
        msg = f"{text[:80]!r} in column {column!r} is neither yes nor no; allowed are 1, 0, yes, no, true, false"
        raise BadLabel(msg)
    return word in YES


def _label(recipe: Recipe, text: str) -> str:
    fitting = [name for name in recipe.labels if name == text]
    fitting = fitting or [name for name in recipe.labels if plain(name) == plain(text)]
    if len(fitting) != 1:
        hint = closest(text, recipe.labels)
        listed = ", ".join(recipe.labels)
        msg = f"{text[:80]!r} in column {_column(recipe)!r} is no label of recipe {recipe.name}; "
        msg += f"allowed are {listed}{hint}"
        raise BadLabel(msg)
    return fitting[0]


def plain(text: str) -> str:
    """A text as it is compared: composed letters, no case, no outer spaces, 1.0 as 1."""
    word = unicodedata.normalize("NFC", text).strip().casefold()
    whole = _WHOLE.fullmatch(word)
    return whole[1] if whole else word
