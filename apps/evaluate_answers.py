"""`radloop evaluate` for answers in words: figures, report and table, beside the trivial method on the same studies."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radloop.apps.terminal import NOTICE, plural, say, table

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.assess import AnswerScore
    from radloop.evaluation.class_summary import ClassRow


def report_answers(
    options: argparse.Namespace, chosen: Measured, scores: Sequence[AnswerScore], left_out: Sequence[str]
) -> None:
    """Says the figures and writes the files that were asked for."""
    from radloop.apps.evaluate_groups import class_figures, groupings, tell
    from radloop.engine.answer_baseline import answer_baseline, floor_name
    from radloop.evaluation.class_report import write_class_csv, write_class_html
    from radloop.evaluation.class_summary import in_words, summarise_classes
    from radloop.evaluation.report import About, write_json

    version, recipe = chosen.version, chosen.recipe
    blind = {case.row: case.blind for case in chosen.cases} if chosen.blindness_known else {}
    rows = [_row(score, blind.get(score.row)) for score in scores]
    learned = chosen.learned
    floor = {s.study: s.probabilities for s in answer_baseline(recipe, learned, chosen.cases)} if learned else {}
    summary: dict[str, Any] = summarise_classes(recipe, version.number, rows, baseline=floor)
    say(f"{recipe.name} version {version.number} on {chosen.split} ({NOTICE})")
    studies, patients = plural(summary["n"], "study", "studies"), plural(summary["patients"], "patient")
    say(f"{studies} of {patients}; 95 % intervals over patients")
    say(in_words(recipe, rows, floor, floor_name(recipe)))
    table(("metric", "value", "low", "high"), [(name, *_limits(of)) for name, of in summary["metrics"].items()])
    parts = groupings(options.by, chosen.cases, scores, rows, class_figures(recipe))
    tell(parts, summary)
    notes = [*chosen.notes, *left_out, *_scaled(version.manifest.get("temperature"))]
    for note in notes:
        say(note)
    if options.json:
        write_json(options.json, summary)
    if options.per_study:
        write_class_csv(options.per_study, recipe, rows)
    if options.report:
        about = About(
            recipe=recipe.name,
            version=version.number,
            data=chosen.data,
            split=chosen.split,
            command=shlex.join(["radloop", *sys.argv[1:]]),
            notes=[*notes, f"{NOTICE.capitalize()}."],
            baseline_name=floor_name(recipe),
            groupings=parts,
        )
        write_class_html(options.report, recipe, rows, about, baseline=floor)
    for path in filter(None, (options.json, options.per_study, options.report)):
        say(f"wrote {path}")


def _row(score: AnswerScore, blind: bool | None) -> ClassRow:
    from radloop.evaluation.class_summary import ClassRow

    truth = {name: bool(value) for name, value in score.truth.items() if value is not None}
    return ClassRow(score.study, score.patient, truth, score.probabilities, blind, score.seconds)


def _scaled(temperature: Mapping[str, Any] | None) -> list[str]:
    if not temperature:
        return []
    if temperature.get("reason"):
        return [f"probabilities are not scaled: {temperature['reason']}"]
    of = plural(temperature["patients"], "validation patient")
    return [f"probabilities are scaled by a temperature of {temperature['value']:.2f}, fitted on {of}"]


def _limits(figure: Mapping[str, float | None]) -> tuple[str, str, str]:
    value, low, high = ("-" if figure[key] is None else f"{figure[key]:.3f}" for key in ("value", "low", "high"))
    return value, low, high
