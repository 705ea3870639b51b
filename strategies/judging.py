"""What the version that serves says of held-out studies, compared with readers' labels while the server runs.

So its accuracy is known on labels that it was never judged by. One study after another, in the thread of the scores.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from radloop.engine.assess import assess
from radloop.engine.turns import Turns
from radloop.evaluation.drift import Judged
from radloop.recipes.recipe import Recipe
from radloop.strategies.judged import JudgedLabels, accuracy
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.ledger import Ledger
from radloop.studies.pool import Known, Pool

if TYPE_CHECKING:
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)


@dataclass
class _Of:
    """What is left to do for the version of a recipe that serves."""

    version: int
    known: Known
    pending: deque[Case] = field(default_factory=deque)


class Judging:
    """The held-out labels of the versions that serve.

    Args:
        pool: the studies of `folder`.
        folder, ledger: studies and labels.
        judged: where results are kept.
        recipes: those served.
        champion: the version of a recipe that served a moment ago, without waiting.
        predictor: of a version.
        turns: when readers' answers are computed.
    """

    def __init__(
        self,
        pool: Pool,
        folder: StudiesFolder,
        ledger: Ledger,
        judged: JudgedLabels,
        recipes: Sequence[Recipe],
        champion: Callable[[str], Version | None],
        predictor: Callable[[Version], Any],
        turns: Turns,
    ) -> None:
        self._pool, self._folder, self._ledger, self._judged = pool, folder, ledger, judged
        self._names, self._champion, self._predictor = [r.name for r in recipes], champion, predictor
        self._turns = turns
        self._of: dict[str, _Of] = {}
        self._alarmed = set[tuple[str, int]]()

    def step(self) -> bool:
        """Judges one label; False where all are judged. Never in two threads at once."""
        known = self._pool.look()
        for name in self._names:
            version = self._champion(name)
            if version is None:
                continue
            of = self._of.get(name)
            if of is None or of.version != version.number or (of.known is not known and not of.pending):
                of = self._of[name] = _Of(version.number, known, deque(self._missing(version, known)))
            if of.pending:
                self._judge(version, of.pending.popleft())
                return True
        return False

    def _missing(self, version: Version, known: Known) -> list[Case]:
        recipe = version.load_recipe()
        held_out = {i for i in known.labelled[recipe.name] if known.sides.get(i, "train") != "train"}
        done = {(one.study, one.row) for one in self._judged.of(recipe.name, version.number)}
        rows = self._ledger.current(recipe.name)
        missing = {i for i in held_out if i in rows and (i, rows[i].id) not in done}
        if not missing:
            return []
        return labelled_cases(self._folder, self._ledger, recipe, ("validation", "test"), only=missing)

    def _judge(self, version: Version, case: Case) -> None:
        self._turns.give_way()
        found = assess(self._predictor(version), [case], surfaces=False, during=lambda _: self._wait())
        values = [value for score in found.scores for value in score.compared.values() if value is not None]
        judged = Judged(case.study, case.patient, case.row, case.blind, fmean(values) if values else None)
        self._judged.keep(version.recipe, version.number, judged)
        if case.row > version.last_row:
            self._look(version)

    def _wait(self) -> None:
        self._turns.give_way()

    def _look(self, version: Version) -> None:
        """Warns once where the version's accuracy has fallen."""
        key = (version.recipe, version.number)
        for name, reading in accuracy(version, self._ledger).items():
            if reading.drift and key not in self._alarmed:
                self._alarmed.add(key)
                logger.warning("%s version %d: %s", *key, reading.alarm(name))
