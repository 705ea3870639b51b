"""An evaluation of boxes, written down: a sentence, JSON for programs, HTML for readers, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from radloop.evaluation.boxes import (
    RATES,
    SAME,
    THRESHOLDS,
    BoxRow,
    average_precision,
    box_f1,
    froc_curve,
    hits,
    interval_of,
    mean_of,
    measure_boxes,
    patient_weights,
    precision_recall,
)
from radloop.evaluation.intervals import Interval
from radloop.evaluation.page_parts import About, header, image, number, page, section, write_whole

WORDS = {
    "ap50": "AP at IoU .5",
    "ap": "AP, mean of IoU .5 to .95",
    "box_f1": "box F1",
    "recall": "recall of the boxes shown",
    "precision": "precision of the boxes shown",
    "froc": "FROC, mean sensitivity",
}
_HOW = """AP is the mean precision over 101 points of recall, of each label, then their mean. Box F1 is of each study,
2 x the IoU of pairs / (true + found boxes). FROC is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms a
study. The 95 % interval is a bootstrap over patients, each drawn with all of their studies (2000 draws,
percentiles). With few patients it is too narrow rather than too wide."""


def summarise_boxes(
    recipe: str,
    version: int | str,
    rows: Sequence[BoxRow],
    labels: Sequence[str],
    baseline: Sequence[BoxRow] = (),
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """What `--json` writes, in the form of `summary.summarise`; metrics without a value are left out."""
    parts = {"blind": [row for row in rows if row.blind], "anchored": [row for row in rows if row.blind is False]}
    readings = {name: _figures(part, labels, seed) for name, part in parts.items() if part}
    summary = {"recipe": recipe, "version": version, **_figures(rows, labels, seed)}
    if found := against(rows, baseline, labels, seed=seed):
        summary["metrics"] |= {"trivial_ap50": vars(found[1]), "difference": vars(found[2])}
    return summary | ({"readings": readings} if readings else {})


def _figures(rows: Sequence[BoxRow], labels: Sequence[str], seed: int) -> dict[str, Any]:
    found = measure_boxes(rows, labels, seed=seed)
    return {
        "n": len(rows),
        "patients": len({row.patient for row in rows}),
        "metrics": {name: vars(interval) for name, interval in found.items() if interval is not None},
    }


def against(
    rows: Sequence[BoxRow], baseline: Sequence[BoxRow], labels: Sequence[str], *, seed: int = 0
) -> tuple[Interval, Interval, Interval] | None:
    """AP at IoU .5 of both on the studies that both answered, and the difference; None where there is none."""
    theirs = {row.study: row for row in baseline}
    mine = [row for row in rows if row.study in theirs]
    weights = patient_weights(mine, seed)
    draws = [_ap50(of, labels, weights) for of in (mine, [theirs[row.study] for row in mine])]
    if draws[0] is None or draws[1] is None:
        return None
    alone = len({row.patient for row in mine}) < 2
    first, second, both = (interval_of(of, alone=alone) for of in (draws[0], draws[1], draws[0] - draws[1]))
    return first, second, both


def in_words(
    rows: Sequence[BoxRow], baseline: Sequence[BoxRow], labels: Sequence[str], name: str, *, seed: int = 0
) -> str:
    """A sentence: is the version better than the trivial method of that name on the same patients?"""
    found = against(rows, baseline, labels, seed=seed)
    if found is None:
        return f"Not compared with a trivial method ({name}): no study has a true box and both answers."
    first, second, both = found
    theirs = {row.study for row in baseline}
    shared = [row for row in rows if row.study in theirs]
    verdict, limits = "Not shown to be better than", "no interval: it hangs on one patient"
    if both.low is not None and both.high is not None:
        verdict = "Better than" if both.low > 0 else "Worse than" if both.high < 0 else verdict
        limits = f"95 % interval {both.low:+.3f} to {both.high:+.3f}"
    return (
        f"{verdict} the trivial method ({name}): AP at IoU .5 {first.value:.3f} against {second.value:.3f} on the same "
        f"{len(shared)} studies of {len({row.patient for row in shared})} patients, "
        f"difference {both.value:+.3f} ({limits})."
    )


def _ap50(rows: Sequence[BoxRow], labels: Sequence[str], weights: np.ndarray) -> np.ndarray | None:
    each = [average_precision(rows, name, THRESHOLDS[0], weights) for name in labels]
    return mean_of([of for of in each if of is not None])


def write_box_csv(path: Path, rows: Sequence[BoxRow], labels: Sequence[str]) -> None:
    """Write one line a study: `study, patient, blind, seconds`, then of each label its boxes and their F1."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    told = [f"{what}.{name}" for name in labels for what in ("true", "shown", "right", "box_f1")]
    table.writerow(["study", "patient", "blind", "seconds", *told])
    for row in rows:
        cells = [value for name in labels for value in _counts(row, name)]
        given = [row.study, row.patient, row.blind, row.seconds, *cells]
        table.writerow(["" if value is None else value for value in given])
    write_whole(path, out.getvalue())


def _counts(row: BoxRow, label: str) -> tuple[int, int, int, float]:
    true, shown = row.truth[label], row.shown_boxes(label)
    return len(true), len(shown), int(hits(true, shown, SAME[row.dimension]).sum()), box_f1(true, shown)


def write_box_html(
    path: Path, rows: Sequence[BoxRow], labels: Sequence[str], about: About, baseline: Sequence[BoxRow] = ()
) -> None:
    """Write the report for readers."""
    write_whole(path, box_html(rows, labels, about, baseline))


def box_html(rows: Sequence[BoxRow], labels: Sequence[str], about: About, baseline: Sequence[BoxRow] = ()) -> str:
    """The report for readers, one HTML page; `about.baseline_name` is the trivial method."""
    found = measure_boxes(rows, labels)
    first = in_words(rows, baseline, labels, about.baseline_name)
    limit = SAME[rows[0].dimension]
    return page(
        about,
        rows,
        first=f'<p class="first">{escape(first)}</p>',
        figures=_table(found),
        how=f"{_HOW} Recall, precision and FROC count a box as right from an IoU of {limit} on.",
        sections="\n".join([_curves(rows, labels), _anchoring(rows, labels)]),
        studies=_studies(rows, labels),
    )


def _table(found: Mapping[str, Interval | None]) -> str:
    lines = []
    for name, interval in found.items():
        metric, _, part = name.partition(".")
        word = f"sensitivity at {part} false alarms a study" if metric == "froc" and part else WORDS.get(metric, metric)
        kind = "label" if part else "metric"
        told = f"{word}, {part}" if part and metric != "froc" else word
        limits = "-" if interval is None or interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
        value = "-" if interval is None else f"{interval.value:.3f}"
        lines.append(f'<tr class="{kind}"><td>{escape(told)}</td>{number(value)}{number(limits)}</tr>')
    return f"<table>{header('metric', 'value', '95 % interval')}{''.join(lines)}</table>"


def _curves(rows: Sequence[BoxRow], labels: Sequence[str]) -> str:
    from radloop.evaluation.box_plots import froc_plot, precision_recall_plot

    curves = {name: precision_recall(rows, name) for name in labels[:5] if any(len(row.truth[name]) for row in rows)}
    if not curves:
        return ""
    pictures = [
        image(froc_plot(*froc_curve(rows, labels), RATES), "Sensitivity over false alarms a study"),
        image(precision_recall_plot(curves), "Precision over recall"),
    ]
    text = '<p class="small">Left: sensitivity over false alarms a study. Right: precision over recall at IoU .5.</p>'
    return section("Boxes found", "".join(pictures) + text)


def _anchoring(rows: Sequence[BoxRow], labels: Sequence[str]) -> str:
    """Labels given blind and labels given after a model's answer, apart; nothing where that is not known."""
    groups = {"before any model's answer was seen (blind)": True, "after a model's answer was seen": False}
    lines = []
    for name, blind in groups.items():
        part = [row for row in rows if row.blind is blind]
        if part:
            found = measure_boxes(part, labels)
            lines.append(f"<tr><td>{name}</td>{number(len(part))}<td>{found['ap50'] or '-'}</td></tr>")
    if not lines:
        return ""
    text = "<p>A reader who has seen an answer tends towards it, so labels given after one flatter the model.</p>"
    head = header("label given", "studies", WORDS["ap50"])
    return section("Blind and anchored labels", f"<table>{head}{''.join(lines)}</table>{text}")


def _studies(rows: Sequence[BoxRow], labels: Sequence[str]) -> str:
    lines = []
    for row in rows:
        cells = []
        for name in labels:
            true, shown, right, close = _counts(row, name)
            cells += [number(true), number(shown), number(right), number(f"{close:.3f}")]
        lines.append(f"<tr><td>{escape(row.study)}</td><td>{escape(row.patient)}</td>{''.join(cells)}</tr>")
    names = [f"{escape(name)}: {what}" for name in labels for what in ("true", "shown", "right", "box F1")]
    return f'<div class="scroll"><table>{header("study", "patient", *names)}{"".join(lines)}</table></div>'
