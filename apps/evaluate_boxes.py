"""`radloop evaluate` for boxes: figures, report and table, beside the trivial method on the same studies."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radloop.apps.evaluate_answers import _limits
from radloop.apps.terminal import NOTICE, plural, say, table

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.box_assess import BoxScore


def report_boxes(
    options: argparse.Namespace, chosen: Measured, scores: Sequence[BoxScore], left_out: Sequence[str]
) -> None:
    """Says the figures and writes the files that were asked for."""
    from radloop.apps.evaluate_groups import box_figures, groupings, tell
    from radloop.engine.box_assess import FLOOR, box_baseline
    from radloop.evaluation.box_report import in_words, summarise_boxes, write_box_csv, write_box_html
    from radloop.evaluation.report import About, write_json

    version, recipe, names = chosen.version, chosen.recipe, chosen.recipe.label_names
    blind = {case.row: case.blind for case in chosen.cases} if chosen.blindness_known else {}
    rows = [score.as_row(blind=blind.get(score.row)) for score in scores]
    floor = [s.as_row() for s in box_baseline(recipe, chosen.learned, chosen.cases)] if chosen.learned else []
    summary: dict[str, Any] = summarise_boxes(recipe.name, version.number, rows, names, floor)
    parts = groupings(options.by, chosen.cases, scores, rows, box_figures(names))
    say(f"{recipe.name} version {version.number} on {chosen.split} ({NOTICE})")
    studies, patients = plural(summary["n"], "study", "studies"), plural(summary["patients"], "patient")
    say(f"{studies} of {patients}; 95 % intervals over patients")
    say(in_words(rows, floor, names, FLOOR))
    table(("metric", "value", "low", "high"), [(name, *_limits(of)) for name, of in summary["metrics"].items()])
    tell(parts, summary)
    notes = [*chosen.notes, *left_out, *_scaled(version.manifest.get("temperature"))]
    for note in notes:
        say(note)
    if options.json:
        write_json(options.json, summary)
    if options.per_study:
        write_box_csv(options.per_study, rows, names)
    if options.report:
        about = About(
            recipe=recipe.name,
            version=version.number,
            data=chosen.data,
            split=chosen.split,
            command=shlex.join(["radloop", *sys.argv[1:]]),
            notes=[*notes, f"{NOTICE.capitalize()}."],
            baseline_name=FLOOR,
            groupings=parts,
        )
        write_box_html(options.report, rows, names, about, floor)
    for path in filter(None, (options.json, options.per_study, options.report)):
        say(f"wrote {path}")


def _scaled(temperature: Mapping[str, Any] | None) -> list[str]:
    if not temperature:
        return []
    if temperature.get("reason"):
        return [f"scores are not scaled: {temperature['reason']}"]
    of = plural(temperature["patients"], "validation patient")
    return [f"scores are scaled by a temperature of {temperature['value']:.2f}, fitted on {of}"]
