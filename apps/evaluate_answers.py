"""What `radloop evaluate` has to say of answers in words, beside the trivial method on the same studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radloop.apps.evaluate_groups import class_figures, groupings
from radloop.apps.evaluate_told import Told, blind_rows

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.assess import AnswerScore
    from radloop.evaluation.class_summary import ClassRow


def answer_told(by: Sequence[str], chosen: Measured, scores: Sequence[AnswerScore]) -> Told:
    """Figures by the columns `by` too."""
    from radloop.engine.answer_baseline import answer_baseline, floor_name
    from radloop.evaluation.class_report import write_class_csv, write_class_html
    from radloop.evaluation.class_summary import in_words, summarise_classes

    recipe, blind = chosen.recipe, blind_rows(chosen)
    rows = [_row(score, blind.get(score.row)) for score in scores]
    learned, name = chosen.learned, floor_name(recipe)
    floor = {s.study: s.probabilities for s in answer_baseline(recipe, learned, chosen.cases)} if learned else {}
    return Told(
        summarise_classes(recipe, chosen.version.number, rows, baseline=floor),
        lambda path, about: write_class_html(path, recipe, rows, about, baseline=floor),
        lambda path: write_class_csv(path, recipe, rows),
        groupings(by, chosen.cases, scores, rows, class_figures(recipe)),
        [in_words(recipe, rows, floor, name)],
        baseline_name=name,
    )


def _row(score: AnswerScore, blind: bool | None) -> ClassRow:
    from radloop.evaluation.class_summary import ClassRow

    truth = {name: bool(value) for name, value in score.truth.items() if value is not None}
    return ClassRow(score.study, score.patient, truth, score.probabilities, blind, score.seconds)
