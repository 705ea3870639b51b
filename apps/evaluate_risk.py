"""What `radloop evaluate` has to say of risks over time, beside covariates alone on the same studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radloop.apps.evaluate_groups import groupings, risk_figures
from radloop.apps.evaluate_told import Told, blind_rows

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.risk_score import RiskScore
    from radloop.recipes.recipe import Recipe


def risk_told(by: Sequence[str], chosen: Measured, scores: Sequence[RiskScore]) -> Told:
    """Figures by the columns `by` too."""
    from radloop.evaluation.risk import RiskRow, in_words, summarise_risks
    from radloop.evaluation.risk_report import write_risk_csv, write_risk_html

    recipe, blind = chosen.recipe, blind_rows(chosen)
    rows = [RiskRow(s.study, s.patient, s.event, s.time, s.told, blind.get(s.row), s.seconds) for s in scores]
    floor, name = {s.study: s.clinical for s in scores}, alone_name(recipe)
    return Told(
        summarise_risks(recipe, chosen.version.number, rows, floor=floor),
        lambda path, about: write_risk_html(path, recipe, rows, about, floor=floor),
        lambda path: write_risk_csv(path, recipe, rows, floor),
        groupings(by, chosen.cases, scores, rows, risk_figures(recipe)),
        [in_words(recipe, rows, floor, name)],
        baseline_name=name,
    )


def alone_name(recipe: Recipe) -> str:
    """What a version is compared with, in words."""
    known = recipe.answer.covariates
    return f"covariates alone ({', '.join(known)})" if known else "the same curve for everybody (Kaplan-Meier)"
