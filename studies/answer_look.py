"""What a column of `answers.csv` asks: which kind of answer it holds, its labels, and who has which."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from radloop.recipes.errors import BadInput, closest
from radloop.recipes.recipe import Kind
from radloop.studies.answer_rows import NO, YES, plain
from radloop.studies.folder import StudiesFolder, Study

MOST_LABELS = 20
"""More values than these are no classes."""
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi")
_SCALES = (
    ("none", "minimal", "mild", "moderate", "severe"),
    ("absent", "mild", "moderate", "severe"),
    ("low", "middle", "high"),
    ("low", "medium", "high"),
    ("low", "intermediate", "high"),
    ("small", "medium", "large"),
    _ROMAN,
)


@dataclass(frozen=True)
class AnswerLook:
    """What the answers of a folder are.

    Attributes:
        kind: `classification`, `multilabel` or `ordinal`.
        kind_from: how that is known, in words.
        column: the column that holds them; empty for findings, which have one each.
        labels: what can be said; grades from the lowest, classes from the most to the least frequent.
        ordered: whether the order of grades is known, and not only alphabetical.
        patients: label -> patients who have it.
        without: finding -> patients in whom it was looked for and is not there.
        answered: studies with an answer.
        studies: studies in all.
        numbers: further columns that hold numbers.
    """

    kind: Kind
    kind_from: str
    column: str
    labels: tuple[str, ...]
    ordered: bool
    patients: Mapping[str, int]
    without: Mapping[str, int] = field(default_factory=dict)
    answered: int = 0
    studies: int = 0
    numbers: tuple[str, ...] = ()


def look_at_answers(folder: StudiesFolder, answer: str | None, kind: str | None) -> AnswerLook:
    """What the answers are.

    Args:
        folder: the studies, with their `answers.csv`.
        answer: the column, or for findings several with commas between them; None takes, for findings alone, every
            column of yes and no.
        kind: one of the three; None guesses it.

    Raises:
        BadInput: there is no such column, or it holds nothing that can be told apart.
    """
    studies = list(folder.studies().values())
    known = list(dict.fromkeys(name for study in studies for name in study.answers))
    columns = _columns(answer, kind, known, studies)
    texts = {column: {s.id: s.answers[column] for s in studies if s.answers.get(column)} for column in columns}
    for column, cells in texts.items():
        if not cells:
            msg = f"column {column!r} of answers.csv is empty in every study here; fill it, or name another"
            raise BadInput(msg)
    found: Kind
    found, why = (kind, "as asked for") if kind else _guess(texts)  # type: ignore[assignment]
    if found != "multilabel" and len(columns) > 1:
        msg = (
            f"--answer names {len(columns)} columns; kind = {found!r} has one (findings, kind multilabel, have several)"
        )
        raise BadInput(msg)
    look = _findings(texts, studies) if found == "multilabel" else _classes(columns[0], texts, studies, found)
    labels, ordered, patients, without = look
    numbers = [name for name in known if name not in columns and _holds_numbers(name, studies)]
    return AnswerLook(
        kind=found,
        kind_from=why,
        column="" if found == "multilabel" else columns[0],
        labels=labels,
        ordered=ordered,
        patients=patients,
        without=without,
        answered=len({study for cells in texts.values() for study in cells}),
        studies=len(studies),
        numbers=tuple(numbers),
    )


Look = tuple[tuple[str, ...], bool, dict[str, int], dict[str, int]]


def _columns(answer: str | None, kind: str | None, known: Sequence[str], studies: Sequence[Study]) -> list[str]:
    listed = f"answers.csv has {', '.join(known) or 'no further columns'}"
    if answer is None and kind == "multilabel":
        found = [name for name in known if _says_yes_or_no(name, studies)]
        if not found:
            msg = f"no column of answers.csv says yes or no (1 or 0) throughout; name some with --answer; {listed}"
            raise BadInput(msg)
        return found
    if answer is None:
        msg = f"kind = {kind!r} needs --answer COLUMN, the column with the answer; {listed}"
        raise BadInput(msg)
    names = [answer] if answer in known else [name.strip() for name in answer.split(",") if name.strip()]
    for name in names or [answer]:
        if name not in known:
            msg = f"--answer {name}: there is no such column{closest(name, known)}; {listed}"
            raise BadInput(msg)
    return list(dict.fromkeys(names))


def _guess(texts: Mapping[str, Mapping[str, str]]) -> tuple[Kind, str]:
    """The kind that cells look like, and why in words."""
    if len(texts) > 1:
        return "multilabel", "a guess: several columns, so several findings"
    (cells,) = texts.values()
    values = {plain(text) for text in cells.values()}
    if values <= {*YES, *NO}:
        return "multilabel", "a guess: the column says yes or no, so it is one finding"
    if len(values) > 2 and _in_order(sorted(values)) is not None:
        return "ordinal", "a guess: the values have an order"
    return "classification", "a guess: the values are words without a known order"


def _findings(texts: Mapping[str, Mapping[str, str]], studies: Sequence[Study]) -> Look:
    """One label a column, whether or not it tells anything apart."""
    there, absent = {}, {}
    for column, cells in texts.items():
        wrong = next((text for text in cells.values() if plain(text) not in (*YES, *NO)), None)
        if wrong is not None:
            msg = f"column {column!r} says {wrong[:40]!r}; a finding's cells are 1, 0, yes, no, true, false or empty"
            raise BadInput(msg)
        said = {study.id: plain(cells[study.id]) in YES for study in studies if study.id in cells}
        there[column] = len({study.patient for study in studies if said.get(study.id) is True})
        absent[column] = len({study.patient for study in studies if said.get(study.id) is False})
    if not any(there[name] and absent[name] for name in texts):
        msg = f"{', '.join(map(repr, texts))}: no column has both yes and no; nothing can be learned from that"
        raise BadInput(msg)
    return tuple(texts), True, there, absent


def _classes(column: str, texts: Mapping[str, Mapping[str, str]], studies: Sequence[Study], kind: Kind) -> Look:
    """One label a value; values that differ in case or spaces alone are one, written as most are."""
    cells = texts[column]
    spelled: dict[str, Counter[str]] = defaultdict(Counter)
    owners: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        if study.id in cells:
            spelled[plain(cells[study.id])][cells[study.id].strip()] += 1
            owners[plain(cells[study.id])].add(study.patient)
    if len(spelled) < 2:
        only = next(iter(cells.values()))
        msg = f"column {column!r} says {only!r} in every study that has an answer; nothing can be told apart"
        raise BadInput(msg)
    if len(spelled) > MOST_LABELS:
        msg = f"column {column!r} has {len(spelled)} different values; classes are at most {MOST_LABELS}"
        raise BadInput(msg)
    order = _in_order(sorted(spelled)) if kind == "ordinal" else None
    keys = order or sorted(spelled, key=(None if kind == "ordinal" else lambda key: (-len(owners[key]), key)))
    names = {key: _spelling(spelled[key]) for key in keys}
    return (
        tuple(names.values()),
        order is not None or kind != "ordinal",
        {names[key]: len(owners[key]) for key in keys},
        {},
    )


def _spelling(seen: Counter[str]) -> str:
    """As most are written; 3.0 is 3."""
    best = min(seen, key=lambda text: (-seen[text], text))
    return plain(best) if plain(best).lstrip("+-").isdigit() else best


def _in_order(values: Sequence[str]) -> list[str] | None:
    """Values from the lowest: with a number after the same beginning, or words of a known scale; else None."""
    numbered = [_NUMBERED.fullmatch(value) for value in values]
    if all(numbered) and len({match["before"] for match in numbered if match}) == 1:
        return sorted(values, key=lambda value: int(re.findall(r"\d+", value)[-1]))
    for scale in _SCALES:
        if set(values) <= set(scale):
            return sorted(values, key=scale.index)
    return None


def _says_yes_or_no(name: str, studies: Sequence[Study]) -> bool:
    cells = [study.answers[name] for study in studies if study.answers.get(name)]
    return bool(cells) and all(plain(text) in (*YES, *NO) for text in cells)


def _holds_numbers(name: str, studies: Sequence[Study]) -> bool:
    cells = [study.answers[name] for study in studies if study.answers.get(name)]
    return bool(cells) and all(re.fullmatch(r"[+-]?\d+(\.\d+)?", text.strip()) for text in cells)
