"""An evaluation, written down: JSON for programs, HTML for readers, CSV for spreadsheets.

The HTML is one file that loads nothing from anywhere, so it can be mailed and opened years later.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

from radloop.evaluation.intervals import bootstrap_mean, paired_differences
from radloop.evaluation.summary import (
    StudyRow,
    intervals,
    metric_names,
    metric_of,
    patient_values,
    study_row,
    summarise,
)
from radloop.recipes.errors import NoSpace

__all__ = ["About", "StudyRow", "html_report", "study_row", "summarise", "write_csv", "write_html", "write_json"]

UNITS = {"hd95": "mm", "volume_ml": "ml", "seconds": "s"}


@dataclass(frozen=True)
class About:
    """What a report needs to be understood, and made again.

    Attributes:
        recipe: name of the recipe.
        version: the version that was measured.
        data: which studies, in words; never a path of the machine it ran on that should not be shown.
        split: which side or fold they are of, in words.
        command: the command that makes the report again.
        title: of the page; empty for one made of recipe and version.
        notes: further sentences, such as studies left out and why.
        baseline: patient -> score of the trivial method, compared with `compared`.
        baseline_name: what the trivial method is.
        compared: the metric that the baseline is in.
    """

    recipe: str
    version: int | str
    data: str
    split: str
    command: str
    title: str = ""
    notes: Sequence[str] = ()
    baseline: Mapping[str, float] = field(default_factory=dict)
    baseline_name: str = "trivial baseline"
    compared: str = "dice"


def write_json(path: Path, summary: Mapping[str, Any]) -> None:
    """Write what `summarise` gives."""
    _write_whole(path, json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[StudyRow]) -> None:
    """Write one line a study: `study, patient, blind, seconds`, then every metric; empty where there is no value."""
    names = [name for name in metric_names(rows) if any(name in row.scores for row in rows)]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["study", "patient", "blind", "seconds", *names])
    for row in rows:
        given = [row.study, row.patient, row.blind, row.seconds, *(row.scores.get(name) for name in names)]
        table.writerow(["" if value is None else value for value in given])
    _write_whole(path, out.getvalue())


def write_html(path: Path, rows: Sequence[StudyRow], about: About) -> None:
    """Write the report for readers."""
    _write_whole(path, html_report(rows, about))


def html_report(rows: Sequence[StudyRow], about: About) -> str:
    """The report for readers, one HTML page without anything outside it."""
    template = Template(resources.files("radloop.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(about.title or f"{about.recipe}, version {about.version}"),
        facts=_facts(rows, about),
        figures=_figures(rows),
        baseline=_baseline(rows, about),
        plots="\n".join(_plots(rows)),
        anchoring=_anchoring(rows, about),
        notes=_section("Notes", "".join(f"<p>{escape(note)}</p>" for note in about.notes)),
        count=len(rows),
        studies=_studies(rows),
    )


def _facts(rows: Sequence[StudyRow], about: About) -> str:
    facts = {
        "Recipe": about.recipe,
        "Version": str(about.version),
        "Studies": f"{len(rows)} studies of {len({row.patient for row in rows})} patients",
        "Data": about.data,
        "Split": about.split,
        "Made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by radloop {metadata.version('radloop')}",
    }
    lines = [f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()]
    lines.append(f"<tr><th>Command</th><td><code>{escape(about.command)}</code></td></tr>")
    return f"<table>{''.join(lines)}</table>"


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
            cells += [_number(f"{interval.value:.3f}"), _number(limits), _number(len(patient_values(rows, name)))]
        else:
            cells += [_number("-")] * 3
        cells.append(f"<td>{_without(rows, name)}</td>")
        lines.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    head = _head("metric", "mean", "95 % interval", "patients", "studies without a value")
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
    return _section(f"Against the {name}", text + _image(picture, f"{about.compared} of each patient under both"))


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
        yield _section(f"{escape(metric)}{_unit(metric)}", _image(picture, f"{metric}, a dot for each patient"))


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
            lines.append(f"<tr><td>{name}</td>{_number(len(part))}<td>{bootstrap_mean(values)}</td></tr>")
    if not lines:
        return ""
    head = _head("label given", "studies", escape(about.compared))
    text = "<p>A reader who has seen an answer tends towards it, so the second row flatters the model.</p>"
    return _section("Blind and anchored labels", f"<table>{head}{''.join(lines)}</table>{text}")


def _studies(rows: Sequence[StudyRow]) -> str:
    names = [name for name in metric_names(rows) if any(name in row.scores for row in rows)]
    lines = []
    for row in rows:
        values = [row.scores.get(name) for name in names]
        cells = "".join(_number("" if v is None else f"{v:.3f}") for v in values)
        lines.append(f"<tr><td>{escape(row.study)}</td><td>{escape(row.patient)}</td>{cells}</tr>")
    return f"<table>{_head('study', 'patient', *(escape(n) for n in names))}{''.join(lines)}</table>"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}" if content else ""


def _head(*names: str) -> str:
    return f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"


def _number(value: object) -> str:
    return f'<td class="number">{escape(str(value))}</td>'


def _unit(name: str) -> str:
    unit = UNITS.get(metric_of(name))
    return f", {unit}" if unit else ""


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _write_whole(path: Path, text: str) -> None:
    """Write a file complete or not at all, with the folders it needs.

    Raises:
        NoSpace: it cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}; choose a place that can be written"
        raise NoSpace(msg) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after the rename, or was never there
            temporary.unlink()
