"""A training's budget in processor time, so that what else runs on the machine does not change a result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from radloop.engine.fit import Progress, fit
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case
from radloop.studies.home import Home

_WARM = 5  # steps before the clock starts


def epochs_for(core_minutes: float, recipe: Recipe, cases: Sequence[Case], home: Home, threads: int) -> int:
    """Epochs of `recipe.fit.steps` steps that take so many minutes of one core, as the first epoch's steps do."""
    seen = dict[int, float]()

    def progress(now: Progress) -> None:
        seen.setdefault(now.step, time.process_time())

    with tempfile.TemporaryDirectory() as out:
        fit(recipe, cases, Path(out), cache=home.cache, epochs=1, threads=threads, progress=progress)
    first, last = min(step for step in seen if step >= min(_WARM, max(seen) - 1)), max(seen)
    a_step = (seen[last] - seen[first]) / (last - first)
    return max(1, round(60 * core_minutes / (a_step * recipe.fit.steps)))
