"""Trainings that start by themselves: after so many new labels, or when the serving version learned from labels that
were retracted since, or was judged on them; never two at once, after a failure not at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from radloop.engine.running import is_training, learns_all, trainings
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, Training

WAIT = timedelta(minutes=10)  # after a first failure; doubled with each further one
LONGEST_WAIT = timedelta(days=1)


class Retraining:
    """Starts the trainings that recipes ask for with `gate.retrain_after`, and those that retracted labels call for.

    Args:
        folder: the studies.
        home: where it is seen whether a training runs.
        ledger: labels and trainings.
        serves: whether a version of a recipe serves.
        start: starts a training of a recipe.
        used_retracted: whether the version that serves learned from labels that were retracted since, or was judged on
            them.
    """

    def __init__(
        self,
        folder: StudiesFolder,
        home: Home,
        ledger: Ledger,
        serves: Callable[[str], bool],
        start: Callable[[str], Any],
        used_retracted: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._folder, self._home, self._ledger = folder, home, ledger
        self._serves, self._start, self._used_retracted = serves, start, used_retracted
        self._lock = threading.Lock()
        self._tried: dict[str, tuple[int, float]] = {}

    def look(self, recipe: Recipe) -> bool:
        """Starts a training where one is due; says whether it did."""
        with self._lock:
            before = trainings(self._ledger, recipe.name)
            newest = before[0].id if before else 0
            if self._just_tried(recipe.name, newest) or not self._due(recipe, before):
                return False
            self._tried[recipe.name] = (newest, time.monotonic())
            self._start(recipe.name)
            return True

    def _just_tried(self, name: str, newest: int) -> bool:
        """Whether one was started lately that has not even come as far as the ledger."""
        tried, when = self._tried.get(name, (-1, 0.0))
        return tried == newest and time.monotonic() - when < WAIT.total_seconds()

    def _due(self, recipe: Recipe, before: Sequence[Training]) -> bool:
        current = self._ledger.current(recipe.name)
        before = [one for one in before if learns_all(one)]  # what others learned is not what serves next
        counted = next((t.last_row for t in before if t.state in ("done", "running")), 0)
        retracted = self._ledger.last_retraction(recipe.name)
        wanted = 0 < recipe.gate.retrain_after <= sum(row.id > counted for row in current.values())
        if not wanted and not (retracted > counted and self._used_retracted(recipe.name)):
            return False
        newest = max([retracted, *(row.id for row in current.values())])
        if is_training(self._home, self._ledger, recipe.name) or not _rested(before, newest):
            return False
        enough = (
            self._serves(recipe.name) or labelled(self._folder, self._ledger, recipe) >= recipe.gate.first_model_after
        )
        return enough and bool(labelled_cases(self._folder, self._ledger, recipe))


def labelled(folder: StudiesFolder, ledger: Ledger, recipe: Recipe) -> int:
    """How many of the studies have a label of a recipe, whatever side their patients are on."""
    return len(ledger.current(recipe.name).keys() & folder.studies().keys())


def _rested(before: Sequence[Training], newest_label: int) -> bool:
    """Whether enough time has passed since trainings that failed, and a label came since one that was stopped."""
    failed = 0
    while failed < len(before) and before[failed].state not in ("done", "running"):
        failed += 1
    if not failed:
        return True
    last = before[0]
    if last.state == "cancelled":  # somebody stopped it, or the server ended: not again for its own sake
        return newest_label > last.last_row
    ended = datetime.fromisoformat(last.finished or last.started)
    rested = datetime.now(timezone.utc) - ended
    # a negative time: the clock was set back, which must not put trainings off
    return not timedelta(0) <= rested < min(WAIT * 2 ** min(failed - 1, 10), LONGEST_WAIT)
