"""An evaluation of answers about a whole study, written down: HTML for readers, CSV for spreadsheets.

The JSON is `class_summary.summarise_classes`, written by `report.write_json`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from radloop.evaluation.class_summary import (
    OTHERWISE,
    WORDS,
    ClassRow,
    Probabilities,
    answer_of,
    class_intervals,
    compared_in,
    in_words,
    matrices,
)
from radloop.evaluation.classification import confusion, measure, roc_curves
from radloop.evaluation.intervals import Interval
from radloop.evaluation.page_parts import About, header, image, number, page, section, write_whole
from radloop.evaluation.reliability import MOST_PROBABLE, reliability
from radloop.recipes.recipe import Recipe

_HOW = """Studies count one by one; the 95 % interval is a bootstrap over patients, each drawn with all of their studies
(2000 draws, percentiles). With few patients it is too narrow rather than too wide. A figure of all labels is the mean
over those that have a value. A label that no study has is left without: nothing is guessed."""
_LINES = 5  # more curves than these cannot be told apart
_BY_LABEL = ("recall", "specificity", "precision", "f1", "roc_auc", "average_precision")
_KNOWN = ("ece_perfect", "slope", "intercept")


def write_class_html(
    path: Path,
    recipe: Recipe,
    rows: Sequence[ClassRow],
    about: About,
    *,
    baseline: Mapping[str, Probabilities] | None = None,
    metric: str = "",
) -> None:
    """Write the report for readers."""
    write_whole(path, class_html(recipe, rows, about, baseline=baseline, metric=metric))


def class_html(
    recipe: Recipe,
    rows: Sequence[ClassRow],
    about: About,
    *,
    baseline: Mapping[str, Probabilities] | None = None,
    metric: str = "",
) -> str:
    """The report for readers, one HTML page without anything outside it.

    Args:
        recipe: the question.
        rows: the studies.
        about: its head; `baseline_name` names the trivial method.
        baseline: study -> probabilities of the trivial method.
        metric: what the two are compared in; empty takes quadratic kappa for grades, else ROC AUC.
    """
    read = [row for row in rows if row.truth]
    found = class_intervals(recipe, read)
    first = in_words(recipe, rows, baseline or {}, about.baseline_name, metric=metric)
    parts = [_roc(recipe, read, found), _confusion(recipe, read), _reliability(recipe, read, found)]
    return page(
        about,
        rows,
        first=f'<p class="first">{escape(first)}</p>',
        figures=_figures(recipe, read, found),
        how=_HOW,
        sections="\n".join([*parts, _anchoring(recipe, read)]),
        studies=_studies(recipe, rows),
    )


def write_class_csv(path: Path, recipe: Recipe, rows: Sequence[ClassRow]) -> None:
    """Write one line a study: `study, patient, blind, seconds`, truth and answer, `p.<label>`; empty where unknown.

    Truth and answer are a label each, or of `multilabel` 1 or 0 in columns `truth.<label>` and `answer.<label>`.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    names = recipe.label_names
    several = recipe.kind == "multilabel"
    told = [f"{what}.{name}" for what in ("truth", "answer") for name in names] if several else ["truth", "answer"]
    table.writerow(["study", "patient", "blind", "seconds", *told, *(f"p.{name}" for name in names)])
    for row in rows:
        said = answer_of(recipe, row.probabilities)
        if several:
            cells: list[object] = [int(row.truth[name]) if name in row.truth else None for name in names]
            cells += [int(name in said) for name in names]
        else:
            cells = [_truth(row), said[0]]
        given = [row.study, row.patient, row.blind, row.seconds, *cells, *(row.probabilities[name] for name in names)]
        table.writerow(["" if value is None else value for value in given])
    write_whole(path, out.getvalue())


def _figures(recipe: Recipe, rows: Sequence[ClassRow], found: Mapping[str, Interval | None]) -> str:
    """Metric by metric over all labels, then label by label."""
    lines = [
        f"<tr><td>{_word(name)}</td>{_cells(interval)}</tr>"
        for name, interval in found.items()
        if "." not in name and name not in _KNOWN
    ]
    table = f"<table>{header('metric', 'value', '95 % interval')}{''.join(lines)}</table>"
    return table + f'<div class="scroll">{_labels(recipe, rows, found)}</div>'


def _labels(recipe: Recipe, rows: Sequence[ClassRow], found: Mapping[str, Interval | None]) -> str:
    """Label by label: studies that have it, and each metric of it against all others."""
    lines = []
    for name in recipe.label_names:
        truth = [row.truth[name] for row in rows if name in row.truth]
        cells = "".join(_stacked(found[f"{metric}.{name}"]) for metric in _BY_LABEL)
        lines.append(f"<tr><td>{escape(name)}</td><td>{sum(truth)} of {len(truth)}</td>{cells}</tr>")
    return f"<table>{header('label', 'studies', *map(_word, _BY_LABEL))}{''.join(lines)}</table>"


def _stacked(interval: Interval | None) -> str:
    if interval is None:
        return "<td>-</td>"
    limits = "no interval" if interval.low is None else f"{interval.low:.2f} to {interval.high:.2f}"
    return f'<td>{interval.value:.3f}<br><span class="small">{limits}</span></td>'


def _cells(interval: Interval | None) -> str:
    if interval is None:
        return number("-") * 2
    limits = "-" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
    return number(f"{interval.value:.3f}") + number(limits)


def _word(name: str) -> str:
    """The name of a metric as readers know it."""
    return WORDS.get(name, name.replace("_", " "))


def _roc(recipe: Recipe, rows: Sequence[ClassRow], found: Mapping[str, Interval | None]) -> str:
    from radloop.evaluation import plots

    p, y, _ = matrices(recipe, rows)
    curves = roc_curves(p, y, kind=recipe.kind, labels=recipe.label_names)
    parts = []
    for some in _some(list(curves)):
        areas = {name: found[f"roc_auc.{name}"] for name in some}
        named = {f"{area.value:.2f}  {name}": curves[name] for name, area in areas.items() if area}
        parts.append(image(plots.roc_curves(named), f"ROC curve of {', '.join(some)}"))
    text = '<p class="small">The number beside each name is the area under its curve; the dotted line is a coin.</p>'
    return section("ROC curve", "".join(parts) + text if parts else "")


def _confusion(recipe: Recipe, rows: Sequence[ClassRow]) -> str:
    p, y, _ = matrices(recipe, rows)
    if not rows:
        return ""
    counts = confusion(p, y, kind=recipe.kind)
    names = [escape(name) for name in recipe.label_names]
    if recipe.kind == "multilabel":
        head = header("finding", "present, found", "present, missed", "absent, called present", "absent, not called")
        cells = ((of[1, 1], of[1, 0], of[0, 1], of[0, 0]) for of in counts)
        lines = [f"<tr><td>{n}</td>{''.join(map(number, of))}</tr>" for n, of in zip(names, cells, strict=True)]
        text = '<p class="small">Studies; a finding counts as called from a probability of 0.5.</p>'
        return section("Confusion", f"<table>{head}{''.join(lines)}</table>{text}")
    lines = [
        f"<tr><th>{name}</th>{''.join(_shaded(count, line.sum()) for count in line)}{number(line.sum())}</tr>"
        for name, line in zip(names, counts, strict=True)
    ]
    head = header("truth / answer", *names, "studies")
    rule = "The answer is the median grade" if recipe.kind == "ordinal" else "The answer is the most probable label"
    text = f'<p class="small">Studies by truth (rows) and answer (columns). {rule}.</p>'
    return section(
        "Confusion", f'<div class="scroll"><table class="confusion">{head}{"".join(lines)}</table></div>{text}'
    )


def _shaded(count: int, total: int) -> str:
    """The darker, the larger its share of the row."""
    share = count / total if total else 0.0
    return f'<td style="background: rgba(43, 108, 176, {0.6 * share:.2f})">{count}</td>'


def _reliability(recipe: Recipe, rows: Sequence[ClassRow], found: Mapping[str, Interval | None]) -> str:
    from radloop.evaluation import plots

    p, y, _ = matrices(recipe, rows)
    curves = reliability(p, y, kind=recipe.kind, labels=recipe.label_names)
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return ""
    parts = []
    for some in _some(list(curves)):
        picture = plots.reliability_curves({name: curves[name] for name in some})
        parts.append(image(picture, f"Reliability curve of {', '.join(some)}"))
    what = "that the most probable label holds" if MOST_PROBABLE in curves else "of the label"
    counts = [point.studies for points in curves.values() for point in points]
    text = f"<p>{_calibrated(found)}</p>" + (
        f'<p class="small">Probability {what}. A point is a bin of {_range(counts)} studies; the dotted '
        "line is a model whose probabilities are right.</p>"
    )
    return section("Are the probabilities right?", "".join(parts) + text)


def _calibrated(found: Mapping[str, Interval | None]) -> str:
    """Calibration error, slope and intercept in words."""
    error, limit, slope, intercept = (found[name] for name in ("ece", *_KNOWN))
    told = []
    if error and limit:
        where = "below" if error.value < limit.value else "not below"
        told.append(
            f"Calibration error {error.value:.3f}, {where} {limit.value:.3f}, which a perfectly calibrated model stays "
            "under in 95 of 100 sets of as many studies."
        )
    told.append(f"Slope {slope} (1 is right, under 1: too sure)." if slope else "The slope has no value.")
    if intercept:
        told.append(f"Intercept {intercept} (0 is right, under 0: probabilities too high).")
    return " ".join(told)


def _anchoring(recipe: Recipe, rows: Sequence[ClassRow]) -> str:
    """Labels given blind and labels given after a model's answer, apart; nothing where that is not known."""
    groups = {"before any model's answer was seen (blind)": True, "after a model's answer was seen": False}
    shown = (compared_in(recipe), OTHERWISE)
    lines = []
    for name, blind in groups.items():
        part = [row for row in rows if row.blind is blind]
        if part:
            found = measure(*matrices(recipe, part), kind=recipe.kind, labels=recipe.label_names)
            cells = "".join(f"<td>{found[metric] or '-'}</td>" for metric in shown)
            lines.append(f"<tr><td>{name}</td>{number(len(part))}{cells}</tr>")
    if not lines:
        return ""
    text = "<p>A reader who has seen an answer tends towards it, so labels given after one flatter the model.</p>"
    head = header("label given", "studies", *map(_word, shown))
    return section("Blind and anchored labels", f"<table>{head}{''.join(lines)}</table>{text}")


def _studies(recipe: Recipe, rows: Sequence[ClassRow]) -> str:
    lines = []
    for row in rows:
        said = ", ".join(answer_of(recipe, row.probabilities)) or "none"
        cells = "".join(number(f"{row.probabilities[name]:.3f}") for name in recipe.label_names)
        told = "".join(f"<td>{escape(text)}</td>" for text in (row.study, row.patient, _truth(row) or "", said))
        lines.append(f"<tr>{told}{cells}</tr>")
    names = (f"p({escape(name)})" for name in recipe.label_names)
    table = f"<table>{header('study', 'patient', 'truth', 'answer', *names)}{''.join(lines)}</table>"
    return f'<div class="scroll">{table}</div>'


def _truth(row: ClassRow) -> str | None:
    """The labels that hold; `none` where those looked at do not, None where nobody looked."""
    return ", ".join(name for name, holds in row.truth.items() if holds) or ("none" if row.truth else None)


def _some(names: Sequence[str]) -> Iterable[Sequence[str]]:
    """The names in pictures of a few each, as even as can be."""
    pictures = -(-len(names) // _LINES)
    return (names[place * len(names) // pictures : (place + 1) * len(names) // pictures] for place in range(pictures))


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
