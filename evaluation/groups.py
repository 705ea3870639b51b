"""Figures of parts of the studies: by a column such as site or sex, or by what a study lacked.

Works for every kind of answer: what is measured of a part is given as a function of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol, TypeVar

from radloop.evaluation.intervals import Interval

FEWEST = 5
"""Parts of fewer patients are counted and not measured: an interval over them says nothing."""
MISSING, COMPLETE = "missing", "nothing"


class Row(Protocol):
    """What was measured of one study."""

    @property
    def study(self) -> str:
        """Its id."""

    @property
    def patient(self) -> str:
        """Whose it is."""


R = TypeVar("R", bound=Row)
Figures = Callable[[list[R]], Mapping[str, "Interval | None"]]


@dataclass(frozen=True)
class Group:
    """One part of the studies.

    Attributes:
        value: what they have in common.
        studies, patients: how many.
        figures: metric -> its value and interval; empty where the patients are too few.
    """

    value: str
    studies: int
    patients: int
    figures: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Grouping:
    """All studies in parts.

    Attributes:
        name: a column of `answers.csv`, or `missing`.
        groups: the parts, the largest first.
    """

    name: str
    groups: tuple[Group, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that some part has, in the order of first sight."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.figures))

    @property
    def title(self) -> str:
        """For readers."""
        return "What was missing" if self.name == MISSING else f"By {self.name}"


def group(name: str, rows: Sequence[R], value_of: Mapping[str, str], figures: Figures[R]) -> Grouping:
    """The rows in parts, with the figures of each part.

    Args:
        name: of the grouping.
        rows: what was measured, a row a study.
        value_of: study -> what it has in common with others.
        figures: the main figures of some rows, with intervals over patients; None where one has no value.
    """
    parts: dict[str, list[R]] = {}
    for row in rows:
        parts.setdefault(value_of[row.study], []).append(row)
    found = []
    for value, part in parts.items():
        patients = len({row.patient for row in part})
        known = figures(part) if patients >= FEWEST else {}
        told = {metric: interval for metric, interval in known.items() if interval is not None}
        found.append(Group(value, len(part), patients, told))
    return Grouping(name, tuple(sorted(found, key=lambda one: (-one.patients, -one.studies, one.value))))


def by_missing(rows: Sequence[R], missing: Mapping[str, Sequence[str]], figures: Figures[R]) -> Grouping | None:
    """The rows by what their studies lacked, each pattern apart; None where none lacked anything.

    Args:
        rows: what was measured.
        missing: study -> names of the covariates and channels that it lacked.
        figures: see `group`.
    """
    if not any(missing.get(row.study) for row in rows):
        return None
    value_of = {row.study: ", ".join(missing.get(row.study, ())) or COMPLETE for row in rows}
    return group(MISSING, rows, value_of, figures)


def as_json(groupings: Iterable[Grouping]) -> dict[str, dict[str, Any]]:
    """`{name: {value: {"n", "patients", "metrics"}}}`, without `metrics` where the patients are too few."""
    return {
        of.name: {
            one.value: {"n": one.studies, "patients": one.patients}
            | ({"metrics": {name: vars(interval) for name, interval in one.figures.items()}} if one.figures else {})
            for one in of.groups
        }
        for of in groupings
    }


def as_table(of: Grouping) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the lines of a table of one grouping."""
    head = (of.name, "studies", "patients", *of.metrics)
    lines = [
        (one.value, str(one.studies), str(one.patients), *(_words(one.figures.get(name)) for name in of.metrics))
        for one in of.groups
    ]
    return head, lines


def as_html(groupings: Iterable[Grouping]) -> str:
    """A part of the page for each grouping; nothing where there is none."""
    parts = []
    for of in groupings:
        head, lines = as_table(of)
        first = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in head)
        rest = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        few = any(one.patients < FEWEST for one in of.groups)
        note = f'<p class="small">Parts of fewer than {FEWEST} patients are only counted.</p>' if few else ""
        table = f'<div class="scroll"><table><tr>{first}</tr>{rest}</table></div>'
        parts.append(f"<h2>{escape(of.title)}</h2>{table}{note}")
    return "\n".join(parts)


def _words(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
