"""A patient's earlier studies: what a recipe with `answer.sequence = "visits"` looks at beside the asked one."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from radloop.recipes.recipe import Recipe, Unit
from radloop.studies.folder import StudiesFolder, Study
from radloop.studies.outcomes import DAYS

log = logging.getLogger(__name__)

MOST = 8
"""Visits of a sequence, the asked one included; of more the latest."""


@dataclass(frozen=True)
class Earlier:
    """A study before the asked one.

    Attributes:
        study: its id.
        channels: as many as the recipe names.
        gap: time from it to the asked one; more than 0.
        unit: of the gap, the recipe's.
    """

    study: str
    channels: tuple[Path, ...]
    gap: float
    unit: Unit


class Visits:
    """The dated studies of every patient.

    Args:
        studies: by id.
    """

    def __init__(self, studies: Mapping[str, Study]) -> None:
        self._dated: dict[str, list[tuple[date, Study]]] = defaultdict(list)
        for study in studies.values():
            when = day(study)
            if when:
                self._dated[study.patient].append((when, study))
        for of in self._dated.values():
            of.sort(key=lambda pair: (pair[0], pair[1].id))

    def dated(self) -> dict[str, list[tuple[date, Study]]]:
        """Patient -> dated studies, oldest first."""
        return dict(self._dated)

    def before(self, study: Study, recipe: Recipe) -> tuple[Earlier, ...]:
        """The patient's studies of earlier days, oldest first; none where the recipe asks for no sequence."""
        now = day(study) if recipe.answer.sequence else None
        if now is None:
            return ()
        length, count = DAYS[recipe.answer.unit], len(recipe.channels)
        found = [
            Earlier(one.id, one.first_channels(count), (now - then).days / length, recipe.answer.unit)
            for then, one in self._dated[study.patient]
            if then < now
        ]
        return tuple(found[-(MOST - 1) :])


def earlier_of(folder: StudiesFolder, study: str | None, recipe: Recipe) -> tuple[Earlier, ...]:
    """The studies before one of a folder; none of an image that is not in it.

    Raises:
        NotFound: there is no such study.
    """
    if not study or not recipe.answer.sequence:
        return ()
    return Visits(folder.studies()).before(folder.study(study), recipe)


def day(study: Study) -> date | None:
    """The study's `date` in `answers.csv`, as 2024-01-31 or 20240131; None where there is none that can be read."""
    text = study.date.strip()
    for form in ("%Y-%m-%d", "%Y%m%d"):
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    if text:
        log.warning("study %s has date %r, which is no day such as 2024-01-31; it is in no sequence", study.id, text)
    return None
