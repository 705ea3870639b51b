"""An evaluation, written down: JSON for programs, HTML for readers, CSV for spreadsheets.

The HTML is one file that loads nothing from anywhere, so it can be mailed and opened years later.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from radloop.evaluation.intervals import bootstrap_mean, paired_differences
from radloop.evaluation.page_parts import About, header, image, number, page, section, write_whole
from radloop.evaluation.summary import (
    StudyRow,
    intervals,
    metric_names,
    metric_of,
    patient_values,
    study_row,
    summarise,
)

__all__ = ["About", "StudyRow", "html_report", "study_row", "summarise", "write_csv", "write_html", "write_json"]

UNITS = {"hd95": "mm", "volume_ml": "ml", "seconds": "s"}
_HOW = """Mean over patients with its 95 % interval (bootstrap over patients, 2000 draws, percentiles). A patient
with several studies counts once. With few patients the interval is too narrow rather than too wide."""


def write_json(path: Path, summary: Mapping[str, Any]) -> None:
    """Write what `summarise` gives."""
    write_whole(path, json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[StudyRow]) -> None:
    """Write one line a study: `study, patient, blind, seconds`, every metric, counts; empty where there is no value."""
    names = [name for name in metric_names(rows) if any(name in row.scores for row in rows)]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    counted = list(dict.fromkeys(name for row in rows for name in row.counts))
    table.writerow(["study", "patient", "blind", "seconds", *names, *counted])
    for row in rows:
        given = [row.study, row.patient, row.blind, row.seconds, *(row.scores.get(name) for name in names)]
        given += [row.counts.get(name) for name in counted]
        table.writerow(["" if value is None else value for value in given])
    write_whole(path, out.getvalue())


def write_html(path: Path, rows: Sequence[StudyRow], about: About, more: str = "") -> None:
    """Write the report for readers."""
    write_whole(path, html_report(rows, about, more))


def html_report(rows: Sequence[StudyRow], about: About, more: str = "") -> str:
    """The report for readers, one HTML page without anything outside it.

    Args:
        rows: the studies.
        about: head and notes.
        more: sections after the comparison with the trivial method, as markup.
    """
    return page(
        about,
        rows,
        first="",
        figures=_figures(rows),
        how=_HOW,
        sections="\n".join([_baseline(rows, about), more, *_plots(rows), _anchoring(rows, about)]),
        studies=_studies(rows),
    )


def _figures(rows: Sequence[StudyRow]) -> str:
    """Metric by metric: mean, interval, patients, and how many studies have no value."""
    found = intervals(rows)
    lines = []
    for name in metric_names(rows):
        kind = "metric" if name == metric_of(name) else "label"
        cells = [f"<td>{escape(name)}{_unit(name)}</td>"]
        if name in found:
            interval = found[name]
            limits = "-" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
            cells += [number(f"{interval.value:.3f}"), number(limits), number(len(patient_values(rows, name)))]
        else:
            cells += [number("-")] * 3
        cells.append(f"<td>{_without(rows, name)}</td>")
        lines.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    head = header("metric", "mean", "95 % interval", "patients", "studies without a value")
    return f"<table>{head}{''.join(lines)}</table>"


def _without(rows: Sequence[StudyRow], name: str) -> str:
    """How many studies have no value of a label's metric, by reason where Dice tells it."""
    missing = [row for row in rows if name in row.scores and row.scores[name] is None]
    overlap = f"dice.{name.partition('.')[2]}"
    reasons = {None: "not looked at", 0.0: "in one mask only", 1.0: "in neither mask"}
    told = [reasons.get(row.scores[overlap], "") for row in missing if overlap in row.scores]
    counted = [f"{told.count(reason)} {reason}" for reason in reasons.values() if reason in told]
    if not missing or len(told) < len(missing) or "" in told:
        return str(len(missing) or "")
    return ", ".join(counted)


def _baseline(rows: Sequence[StudyRow], about: About) -> str:
    """The same patients under the trivial method, and the interval of the difference."""
    mine = patient_values(rows, about.compared)
    differences = paired_differences(mine, about.baseline)
    if not differences:
        return ""
    from radloop.evaluation.plots import paired_lines

    floor = bootstrap_mean({p: about.baseline[p] for p in differences})
    gain = bootstrap_mean(differences)
    name = escape(about.baseline_name)
    text = (
        f"<p>{escape(about.compared)} of the {name} on the same {len(differences)} patients: {floor}.<br>"
        f"Difference of each patient, averaged: {gain}.</p>"
    )
    picture = paired_lines(mine, about.baseline, [about.baseline_name, f"version {about.version}"])
    return section(f"Against the {name}", text + image(picture, f"{about.compared} of each patient under both"))


def _plots(rows: Sequence[StudyRow]) -> Iterable[str]:
    """One picture a metric, a dot a patient."""
    from radloop.evaluation.plots import patient_dots

    found = intervals(rows)
    for metric in dict.fromkeys(metric_of(name) for name in metric_names(rows)):
        names = [n for n in found if metric_of(n) == metric]
        labels = [n for n in names if n != metric] or names
        if not labels:
            continue
        values = {n.removeprefix(f"{metric}."): patient_values(rows, n) for n in labels}
        means = {n.removeprefix(f"{metric}."): found[n] for n in labels}
        ratio = all(0 <= v <= 1 for patients in values.values() for v in patients.values()) and metric not in UNITS
        picture = patient_dots(values, means, unit=UNITS.get(metric, ""), ratio=ratio)
        yield section(f"{escape(metric)}{_unit(metric)}", image(picture, f"{metric}, a dot for each patient"))


def _anchoring(rows: Sequence[StudyRow], about: About) -> str:
    """Labels given blind and labels given after a model's answer, apart; nothing where that is not known."""
    groups: dict[str, Callable[[StudyRow], bool]] = {
        "before any model's answer was seen (blind)": lambda row: row.blind is True,
        "after a model's answer was seen": lambda row: row.blind is False,
    }
    lines = []
    for name, belongs in groups.items():
        part = [row for row in rows if belongs(row)]
        values = patient_values(part, about.compared)
        if values:
            lines.append(f"<tr><td>{name}</td>{number(len(part))}<td>{bootstrap_mean(values)}</td></tr>")
    if not lines:
        return ""
    head = header("label given", "studies", escape(about.compared))
    text = "<p>A reader who has seen an answer tends towards it, so the second row flatters the model.</p>"
    return section("Blind and anchored labels", f"<table>{head}{''.join(lines)}</table>{text}")


def _studies(rows: Sequence[StudyRow]) -> str:
    names = [name for name in metric_names(rows) if any(name in row.scores for row in rows)]
    lines = []
    for row in rows:
        values = [row.scores.get(name) for name in names]
        cells = "".join(number("" if v is None else f"{v:.3f}") for v in values)
        lines.append(f"<tr><td>{escape(row.study)}</td><td>{escape(row.patient)}</td>{cells}</tr>")
    return f"<table>{header('study', 'patient', *(escape(n) for n in names))}{''.join(lines)}</table>"


def _unit(name: str) -> str:
    unit = UNITS.get(metric_of(name))
    return f", {unit}" if unit else ""
