"""`radloop evaluate` for risks over time: figures, report and table, beside covariates alone on the same studies."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from radloop.apps.evaluate_answers import _limits, _scaled
from radloop.apps.terminal import NOTICE, plural, say, table

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.risk_score import RiskScore
    from radloop.recipes.recipe import Recipe


def report_risks(
    options: argparse.Namespace, chosen: Measured, scores: Sequence[RiskScore], left_out: Sequence[str]
) -> None:
    """Says the figures and writes the files that were asked for."""
    from radloop.apps.evaluate_groups import groupings, risk_figures, tell
    from radloop.evaluation.report import About, write_json
    from radloop.evaluation.risk import RiskRow, in_words, summarise_risks
    from radloop.evaluation.risk_report import write_risk_csv, write_risk_html

    version, recipe = chosen.version, chosen.recipe
    blind = {case.row: case.blind for case in chosen.cases} if chosen.blindness_known else {}
    rows = [RiskRow(s.study, s.patient, s.event, s.time, s.told, blind.get(s.row), s.seconds) for s in scores]
    floor, name = {s.study: s.clinical for s in scores}, alone_name(recipe)
    summary: dict[str, Any] = summarise_risks(recipe, version.number, rows, floor=floor)
    say(f"{recipe.name} version {version.number} on {chosen.split} ({NOTICE})")
    studies, patients = plural(summary["n"], "study", "studies"), plural(summary["patients"], "patient")
    say(f"{studies} of {patients}, {plural(summary['events'], 'event')}; 95 % intervals over patients")
    say(in_words(recipe, rows, floor, name))
    table(("metric", "value", "low", "high"), [(of, *_limits(found)) for of, found in summary["metrics"].items()])
    parts = groupings(options.by, chosen.cases, scores, rows, risk_figures(recipe))
    tell(parts, summary)
    notes = [*chosen.notes, *left_out, *_scaled(version.manifest.get("temperature"))]
    for note in notes:
        say(note)
    if options.json:
        write_json(options.json, summary)
    if options.per_study:
        write_risk_csv(options.per_study, recipe, rows, floor)
    if options.report:
        about = About(
            recipe=recipe.name,
            version=version.number,
            data=chosen.data,
            split=chosen.split,
            command=shlex.join(["radloop", *sys.argv[1:]]),
            notes=[*notes, f"{NOTICE.capitalize()}."],
            baseline_name=name,
            groupings=parts,
        )
        write_risk_html(options.report, recipe, rows, about, floor=floor)
    for path in filter(None, (options.json, options.per_study, options.report)):
        say(f"wrote {path}")


def alone_name(recipe: Recipe) -> str:
    """What a version is compared with, in words."""
    known = recipe.answer.covariates
    return f"covariates alone ({', '.join(known)})" if known else "the same curve for everybody (Kaplan-Meier)"
