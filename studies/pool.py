"""Which studies have which labels and sides, looked at again only where something changed: for questions that are
asked at every click, also of ten thousand studies."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import sqlalchemy as sa

from radloop.studies import tables
from radloop.studies.folder import StudiesFolder, Study
from radloop.studies.ledger import Ledger
from radloop.studies.sides import study_sides
from radloop.studies.split import Side

_LABELS = tables.labels
LOOK_EVERY = 0.5  # seconds between two looks into the folder: listing many files takes longer than all the rest


@dataclass(frozen=True)
class Known:
    """The studies at one moment; nothing in it may be changed.

    Attributes:
        studies: every study of the folder, sorted by id.
        sides: of those that are on one.
        labelled: recipe -> ids with a current label.
    """

    studies: Mapping[str, Study]
    sides: Mapping[str, Side]
    labelled: Mapping[str, frozenset[str]]

    @cached_property
    def some(self) -> frozenset[str]:
        """Ids with a label of any recipe."""
        return frozenset().union(*self.labelled.values())

    @cached_property
    def every(self) -> frozenset[str]:
        """Ids with a label of each recipe."""
        return frozenset(self.studies).intersection(*self.labelled.values())

    @cached_property
    def learned_from(self) -> frozenset[str]:
        """Ids on the training side."""
        return frozenset(i for i, side in self.sides.items() if side == "train")


class Pool:
    """The studies of a folder with what the ledger knows of them; safe for several threads.

    Args:
        folder: the studies.
        ledger: labels and sides.
        recipes: names of those that count.
    """

    def __init__(self, folder: StudiesFolder, ledger: Ledger, recipes: Sequence[str]) -> None:
        self._folder, self._ledger, self._recipes = folder, ledger, tuple(recipes)
        self._lock = threading.Lock()
        self._seen, self._looked = (-1, -1), float("-inf")
        self._known = Known({}, {}, {})

    def look(self, *, fresh: bool = False) -> Known:
        """What there is now; a new image shows half a second later, a new label at once.

        Args:
            fresh: whether a new image is to show at once.
        """
        with self._lock:
            known, now = self._known, time.monotonic()
            studies: Mapping[str, Study] = known.studies
            if fresh or now - self._looked >= LOOK_EVERY:
                studies, self._looked = self._folder.studies(), now
            same = bool(known.labelled) and studies == known.studies
            sides = known.sides if same else study_sides(studies, self._ledger)
            seen = self._newest()
            labelled = known.labelled if same and seen == self._seen else self._labelled(seen, afresh=not same)
            if not same or labelled is not known.labelled:
                self._known = Known(known.studies if same else studies, sides, labelled)
            self._seen = seen
            return self._known

    def _newest(self) -> tuple[int, int]:
        """The ledger's newest row, and how many there are."""
        with self._ledger.database.read() as connection:
            row = connection.execute(sa.select(sa.func.max(_LABELS.c.id), sa.func.count())).one()
        return int(row[0] or 0), int(row[1])

    def _labelled(self, seen: tuple[int, int], *, afresh: bool) -> dict[str, frozenset[str]]:
        known, (before, count) = self._known.labelled, self._seen
        query = sa.select(_LABELS.c.recipe, _LABELS.c.study, _LABELS.c.state).where(_LABELS.c.id > before)
        if not afresh and seen[1] - count < 1000:
            with self._ledger.database.read() as connection:
                rows = connection.execute(query).all()
            if len(rows) == seen[1] - count and all(row.state == "final" for row in rows):
                new = {name: {row.study for row in rows if row.recipe == name} for name in self._recipes}
                return {name: known[name] | new[name] for name in self._recipes}
        return {name: frozenset(self._ledger.current(name)) for name in self._recipes}
