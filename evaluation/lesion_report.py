"""Lesions in a report: figures, the FROC curve, and the counts of each study for its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from radloop.evaluation.intervals import Interval
from radloop.evaluation.lesions import LesionScore, lesion_curves
from radloop.evaluation.page_parts import header, image, number, section

_HOW = """A lesion is a connected component of the reader's mask. It counts as found where the model's component, or
candidate, overlaps it by a ratio of intersection and union of .1. Lesions of all studies are taken together; intervals
draw patients. Candidates come from the probability map, also below the mask's one half; the curve shows what is found
if more or fewer of them are looked at. froc is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a
study."""


def lesion_counts(lesions: Mapping[str, LesionScore]) -> dict[str, int]:
    """The counts of one study: `lesions_<true, found, drawn, confirmed>.<label>` -> number."""
    return {
        f"lesions_{what}.{label}": value
        for label, score in lesions.items()
        for what, value in vars(score.counts).items()
    }


def lesion_section(found: Mapping[str, Sequence[LesionScore]], figures: Mapping[str, Interval]) -> str:
    """The part of the page about lesions, as markup; nothing where no study has a lesion.

    Args:
        found: label -> scores of its studies.
        figures: what `radloop.evaluation.lesions.lesion_figures` gives of them.
    """
    curves = lesion_curves(found)
    if not curves:
        return ""
    from radloop.evaluation.plots import froc_curves

    lines = []
    for name, of in figures.items():
        limits = "-" if of.low is None else f"{of.low:.3f} to {of.high:.3f}"
        kind = "label" if "." in name else "metric"
        cells = f"<td>{escape(name)}</td>{number(f'{of.value:.3f}')}{number(limits)}"
        lines.append(f'<tr class="{kind}">{cells}</tr>')
    count = sum(score.counts.true for scores in found.values() for score in scores)
    table = f"<table>{header('figure', 'value', '95 % interval')}{''.join(lines)}</table>"
    picture = image(froc_curves({label: (of.rate, of.sensitivity) for label, of in curves.items()}), "FROC curve")
    return section("Lesions", f"<p>{count} lesions. {_HOW}</p>{table}{picture}")


def curves_json(found: Mapping[str, Sequence[LesionScore]]) -> dict[str, Any]:
    """Label -> its FROC curve as lists, for `--json`."""
    return {
        label: {"false_positives_a_study": of.rate.tolist(), "sensitivity": of.sensitivity.tolist()}
        for label, of in lesion_curves(found).items()
    }
