"""`radloop evaluate --by COLUMN`, and figures by what studies lacked; for every kind of answer alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radloop.apps.terminal import WrongUse, say, table
from radloop.recipes.errors import closest

if TYPE_CHECKING:
    from radloop.evaluation.boxes import BoxRow
    from radloop.evaluation.class_summary import ClassRow
    from radloop.evaluation.groups import Grouping
    from radloop.evaluation.intervals import Interval
    from radloop.evaluation.risk import RiskRow
    from radloop.evaluation.summary import StudyRow
    from radloop.recipes.recipe import Recipe
    from radloop.studies.cases import Case

MOST = 20
"""More values than these are no groups."""
EMPTY = "(empty)"


def check_columns(columns: Sequence[str], cases: Sequence[Case]) -> None:
    """Refuses a column that makes no groups, before anything is measured.

    Raises:
        WrongUse: `answers.csv` has no such column, or each study has a value of its own.
    """
    known = {name for case in cases for name in case.answers}
    for column in columns:
        if column not in known:
            listed = ", ".join(sorted(known)) or "none"
            msg = f"--by {column}: no such column in answers.csv{closest(column, known)}; there are {listed}"
            raise WrongUse(msg)
        values = Counter(_value(case, column) for case in cases)
        if len(values) > MOST:
            msg = f"--by {column}: {len(values)} different values; give a column with at most {MOST}, such as a site"
            raise WrongUse(msg)


def groupings(
    columns: Sequence[str],
    cases: Sequence[Case],
    scores: Sequence[Any],
    rows: Sequence[Any],
    figures: Callable[[list[Any]], Mapping[str, Interval | None]],
) -> list[Grouping]:
    """The rows by each column and by what their studies lacked.

    Args:
        columns: as asked for with `--by`.
        cases: the studies, with their cells.
        scores: with `study` and `missing`.
        rows: with `study` and `patient`.
        figures: the main figures of some rows, such as `class_figures(recipe)` or `mask_figures`.
    """
    from radloop.evaluation.groups import by_missing, group

    by_column = [
        group(column, rows, {case.study: _value(case, column) for case in cases}, figures)
        for column in dict.fromkeys(columns)
    ]
    lacking = by_missing(rows, {score.study: score.missing for score in scores}, figures)
    return [*by_column, *([lacking] if lacking else [])]


def tell(found: Sequence[Grouping], summary: dict[str, Any]) -> None:
    """Says the figures of every part, and adds them to what `--json` writes: `groups` and `missing`."""
    from radloop.evaluation.groups import MISSING, as_json, as_table

    for of in found:
        say(f"{of.title}:")
        table(*as_table(of))
    told = as_json(found)
    missing = told.pop(MISSING, None)
    summary |= ({"groups": told} if told else {}) | ({"missing": missing} if missing else {})


def mask_figures(rows: list[StudyRow]) -> Mapping[str, Interval | None]:
    """Every metric over all labels."""
    from radloop.evaluation.summary import intervals

    return {name: interval for name, interval in intervals(rows).items() if "." not in name}


def class_figures(recipe: Recipe) -> Callable[[list[ClassRow]], Mapping[str, Interval | None]]:
    """What a recipe's answers are compared in, and how often and how closely they are right."""

    def figures(rows: list[ClassRow]) -> Mapping[str, Interval | None]:
        from radloop.evaluation.class_summary import compared_in, matrices
        from radloop.evaluation.classification import measure

        read = [row for row in rows if row.truth]
        found = measure(*matrices(recipe, read), kind=recipe.kind, labels=recipe.label_names) if read else {}
        return {name: found.get(name) for name in (compared_in(recipe), "accuracy", "balanced_accuracy", "brier")}

    return figures


def box_figures(labels: Sequence[str]) -> Callable[[list[BoxRow]], Mapping[str, Interval | None]]:
    """Every metric over all labels."""

    def figures(rows: list[BoxRow]) -> Mapping[str, Interval | None]:
        from radloop.evaluation.boxes import measure_boxes

        found = measure_boxes(rows, labels)
        return {name: found.get(name) for name in ("ap50", "box_f1", "froc")}

    return figures


def risk_figures(recipe: Recipe) -> Callable[[list[RiskRow]], Mapping[str, Interval | None]]:
    """Every metric, of whichever times."""

    def figures(rows: list[RiskRow]) -> Mapping[str, Interval | None]:
        from radloop.evaluation.risk import measure

        return {name: interval for name, interval in measure(recipe, rows).items() if "." not in name}

    return figures


def _value(case: Case, column: str) -> str:
    return case.answers.get(column, "").strip() or EMPTY
