"""An evaluation of risks over time, written down: HTML for readers, CSV for spreadsheets.

The JSON is `risk.summarise_risks`, written by `report.write_json`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from radloop.evaluation.intervals import Interval
from radloop.evaluation.page_parts import About, header, image, number, page, section, write_whole
from radloop.evaluation.risk import RiskRow, Told, alone_rows, in_words, measure, risks_of
from radloop.evaluation.risk_plots import calibration_at, groups_of, survival_by_group
from radloop.evaluation.risk_scores import Risks, kaplan_meier
from radloop.recipes.recipe import Recipe

WORDS = {
    "c_index": "Harrell's C",
    "uno_c": "Uno's C",
    "auc": "time-dependent ROC AUC, mean",
    "integrated_brier": "integrated Brier score",
}
_PARTS = {"auc": "ROC AUC", "brier": "Brier score", "excess_risk": "mean risk less what came"}
_HOW = """Studies count one by one; the 95 % interval is a bootstrap over patients, each drawn with all of their studies
(2000 draws, percentiles). With few events it is too narrow rather than too wide. Harrell's C is the share of pairs
whose order is known that are ranked rightly, 0.5 for a coin; patients are ranked by the time they are expected to lose
to the event before the last named time. Uno's C, ROC AUC and Brier scores weigh patients by the inverse of the chance
not to be lost before. The lower a Brier score, the better; 0 is right for mean risk less what came (Kaplan-Meier)."""


def write_risk_html(
    path: Path, recipe: Recipe, rows: Sequence[RiskRow], about: About, *, floor: Mapping[str, Told]
) -> None:
    """Write the report for readers."""
    write_whole(path, risk_html(recipe, rows, about, floor=floor))


def risk_html(recipe: Recipe, rows: Sequence[RiskRow], about: About, *, floor: Mapping[str, Told]) -> str:
    """The report for readers, one HTML page without anything outside it.

    Args:
        recipe: the question.
        rows: the studies.
        about: its head; `baseline_name` names what the version is compared with.
        floor: study -> what covariates alone say.
    """
    found, alone = measure(recipe, rows), measure(recipe, alone_rows(rows, floor))
    risks = risks_of(recipe, rows)
    parts = [_by_group(recipe, risks), _calibration(recipe, risks), _anchoring(recipe, rows)]
    return page(
        about,
        rows,
        first=f'<p class="first">{escape(in_words(recipe, rows, floor, about.baseline_name))}</p>',
        figures=_figures(recipe, found, alone),
        how=_HOW,
        sections="\n".join(parts),
        studies=_studies(recipe, rows, floor),
    )


def write_risk_csv(path: Path, recipe: Recipe, rows: Sequence[RiskRow], floor: Mapping[str, Told]) -> None:
    """Write one line a study: `study, patient, blind, seconds, event, time`, `risk.<time>` and `clinical.<time>`."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    names = [f"{time:g}" for time in recipe.answer.times]
    columns = [f"{what}.{name}" for what in ("risk", "clinical") for name in names]
    table.writerow(["study", "patient", "blind", "seconds", "event", "time", *columns])
    for row in rows:
        alone = floor[row.study].risks if row.study in floor else [None] * len(names)
        given = [row.study, row.patient, row.blind, row.seconds, int(row.event), f"{row.time:.10g}"]
        table.writerow(["" if value is None else value for value in [*given, *row.told.risks, *alone]])
    write_whole(path, out.getvalue())


def _figures(recipe: Recipe, found: Mapping[str, Interval | None], alone: Mapping[str, Interval | None]) -> str:
    lines = [
        f"<tr><td>{escape(_word(recipe, name))}</td>{_cells(interval)}{_cells(alone.get(name))}</tr>"
        for name, interval in found.items()
    ]
    head = header("metric", "value", "95 % interval", "covariates alone", "95 % interval")
    return f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'


def _word(recipe: Recipe, name: str) -> str:
    base, _, time = name.partition(".")
    return f"{_PARTS[base]} at {time} {recipe.answer.unit}" if time else WORDS[base]


def _cells(interval: Interval | None) -> str:
    if interval is None:
        return number("-") * 2
    limits = "-" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
    return number(f"{interval.value:.3f}") + number(limits)


def _by_group(recipe: Recipe, risks: Risks) -> str:
    groups = groups_of(risks.rank, risks.event)
    event = recipe.label_names[0]
    picture = survival_by_group(risks.event, risks.time, groups, unit=recipe.answer.unit, without=event)
    counts = [
        f"<tr><td>{name}</td>{number(int(of.sum()))}{number(int(risks.event[of].sum()))}</tr>"
        for name, of in groups.items()
    ]
    table = f"<table>{header('group', 'studies', escape(event))}{''.join(counts)}</table>"
    text = (
        '<p class="small">Groups of equal size by the risk that was told; Kaplan-Meier, a tick is a patient lost.</p>'
    )
    return section("What became of each risk group", image(picture, "Kaplan-Meier curves by risk group") + table + text)


def _calibration(recipe: Recipe, risks: Risks) -> str:
    """At each named time that somebody was followed for, the mean risk of each group and what came there."""
    points: dict[str, list[tuple[float, float]]] = {}
    for column, time in enumerate(risks.times):
        told = risks.risks[:, column]
        of = [here for here in groups_of(told, risks.event).values() if here.any() and risks.time[here].max() >= time]
        came = [1 - kaplan_meier(risks.event[here], risks.time[here], np.array([time]))[0, 0] for here in of]
        if of:
            pairs = [(float(told[here].mean()), float(share)) for here, share in zip(of, came, strict=True)]
            points[f"{time:g} {recipe.answer.unit}"] = pairs
    if not points:
        return ""
    text = '<p class="small">A point is a risk group; the dotted line is a model whose risks are right.</p>'
    return section("Are the risks right?", image(calibration_at(points), "Calibration at the named times") + text)


def _anchoring(recipe: Recipe, rows: Sequence[RiskRow]) -> str:
    groups = {"before any model's answer was seen (blind)": True, "after a model's answer was seen": False}
    lines = []
    for name, blind in groups.items():
        part = [row for row in rows if row.blind is blind]
        if part:
            found = measure(recipe, part)["c_index"]
            lines.append(f"<tr><td>{name}</td>{number(len(part))}<td>{found or '-'}</td></tr>")
    if not lines:
        return ""
    head = header("label given", "studies", WORDS["c_index"])
    return section("Blind and anchored labels", f"<table>{head}{''.join(lines)}</table>")


def _studies(recipe: Recipe, rows: Sequence[RiskRow], floor: Mapping[str, Told]) -> str:
    lines = []
    for row in rows:
        alone: Sequence[float | None] = floor[row.study].risks if row.study in floor else [None] * len(row.told.risks)
        cells = "".join(number("-" if value is None else f"{value:.3f}") for value in (*row.told.risks, *alone))
        came = recipe.label_names[0] if row.event else "not so far"
        told = "".join(f"<td>{escape(text)}</td>" for text in (row.study, row.patient, came))
        lines.append(f"<tr>{told}{number(f'{row.time:g}')}{cells}</tr>")
    names = [f"{what} {time:g}" for what in ("risk", "covariates alone") for time in recipe.answer.times]
    head = header("study", "patient", "what came", escape(recipe.answer.unit), *names)
    return f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'
