"""What `radloop evaluate` has to say of boxes, beside the trivial method on the same studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radloop.apps.evaluate_groups import box_figures, groupings
from radloop.apps.evaluate_told import Told, blind_rows

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.box_assess import BoxScore


def box_told(by: Sequence[str], chosen: Measured, scores: Sequence[BoxScore]) -> Told:
    """Figures by the columns `by` too."""
    from radloop.engine.box_assess import FLOOR, box_baseline
    from radloop.evaluation.box_report import in_words, summarise_boxes, write_box_csv, write_box_html

    recipe, names, blind = chosen.recipe, chosen.recipe.label_names, blind_rows(chosen)
    rows = [score.as_row(blind=blind.get(score.row)) for score in scores]
    floor = [s.as_row() for s in box_baseline(recipe, chosen.learned, chosen.cases)] if chosen.learned else []
    return Told(
        summarise_boxes(recipe.name, chosen.version.number, rows, names, floor),
        lambda path, about: write_box_html(path, rows, names, about, floor),
        lambda path: write_box_csv(path, rows, names),
        groupings(by, chosen.cases, scores, rows, box_figures(names)),
        [in_words(rows, floor, names, FLOOR)],
        baseline_name=FLOOR,
    )
