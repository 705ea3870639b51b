"""What `radloop evaluate` says and writes, the same for every kind of answer."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.evaluate_groups import tell
from radloop.apps.terminal import NOTICE, plural, say, table

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.evaluation.groups import Grouping
    from radloop.evaluation.report import About


@dataclass(frozen=True)
class Told:
    """A version's figures and how they are written.

    Attributes:
        summary: for `--json`, with `n`, `patients` and `metrics`.
        html: writes the report.
        csv: writes a row a study.
        parts: figures by groups.
        first: sentences before the table.
        after: sentences after it.
        baseline_name: the trivial method, where its figures are in `summary`.
        baseline: patient -> score of the trivial method, for reports of masks.
    """

    summary: dict[str, Any]
    html: Callable[[Path, About], None]
    csv: Callable[[Path], None]
    parts: Sequence[Grouping]
    first: Sequence[str] = ()
    after: Sequence[str] = ()
    baseline_name: str = ""
    baseline: Mapping[str, float] = field(default_factory=dict)


def tell_all(options: argparse.Namespace, chosen: Measured, told: Told, left_out: Sequence[str]) -> None:
    """Says the figures and writes the files that were asked for."""
    from radloop.evaluation.report import About, write_json

    name, number, summary = chosen.version.recipe, chosen.version.number, told.summary
    say(f"{name} version {number} on {chosen.split} ({NOTICE})")
    counted = [f"{plural(summary['n'], 'study', 'studies')} of {plural(summary['patients'], 'patient')}"]
    counted += [plural(summary["events"], "event")] if "events" in summary else []
    say(f"{', '.join(counted)}; 95 % intervals over patients")
    for line in told.first:
        say(line)
    table(("metric", "value", "low", "high"), [(of, *limits(found)) for of, found in summary["metrics"].items()])
    for line in told.after:
        say(line)
    tell(told.parts, summary)
    notes = [*chosen.notes, *left_out, *_scaled(chosen)]
    for note in notes:
        say(note)
    if options.json:
        write_json(options.json, summary)
    if options.per_study:
        told.csv(options.per_study)
    if options.report:
        about = About(
            recipe=name,
            version=number,
            data=chosen.data,
            split=chosen.split,
            command=shlex.join(["radloop", *sys.argv[1:]]),
            notes=[*notes, f"{NOTICE.capitalize()}."],
            baseline=told.baseline,
            groupings=told.parts,
            **({"baseline_name": told.baseline_name} if told.baseline_name else {}),
        )
        told.html(options.report, about)
    for path in filter(None, (options.json, options.per_study, options.report)):
        say(f"wrote {path}")


def blind_rows(chosen: Measured) -> dict[int, bool]:
    """Label row -> whether it was given blind; empty where nobody knows."""
    return {case.row: case.blind for case in chosen.cases} if chosen.blindness_known else {}


def limits(figure: Mapping[str, float | None]) -> tuple[str, str, str]:
    """A figure and the ends of its interval, as text."""
    value, low, high = ("-" if figure[key] is None else f"{figure[key]:.3f}" for key in ("value", "low", "high"))
    return value, low, high


def _scaled(chosen: Measured) -> list[str]:
    """How sure of itself the version was made."""
    temperature = chosen.version.manifest.get("temperature")
    if not temperature:
        return []
    what = "scores" if chosen.recipe.kind == "detection" else "probabilities"
    if temperature.get("reason"):
        return [f"{what} are not scaled: {temperature['reason']}"]
    of = plural(temperature["patients"], "validation patient")
    return [f"{what} are scaled by a temperature of {temperature['value']:.2f}, fitted on {of}"]
