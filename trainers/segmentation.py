"""The train task of a segmentation recipe: one training at a time, in a process of its own, gone with its server."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import psutil
from monailabel.interfaces.tasks.train import TrainTask

from radloop.engine.cores import training_cores
from radloop.engine.running import Run, is_training, training
from radloop.recipes.errors import NoSpace, RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.trainers.lifeline import Lifeline
from radloop.trainers.progress import read_progress, write_progress

if TYPE_CHECKING:
    from radloop.engine.fit import Progress
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)
WRITE_EVERY = 1.0  # seconds between two looks at how far a training is


class SegmentationTrain(TrainTask):
    """The train task of one recipe.

    Args:
        recipe: the question.
        folder: the studies.
        home: where versions are published.
        ledger: labels and trainings.
        champion: the version of a recipe that serves, or None.
        lifeline: what ends this process with its server; None in the server itself, which trains nothing.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: StudiesFolder,
        home: Home,
        ledger: Ledger,
        champion: Callable[[str], Version | None],
        lifeline: Lifeline | None = None,
    ) -> None:
        super().__init__(f"{recipe.title or recipe.name}: trains on every label; serves only if it passes the gate")
        self.recipe, self._folder, self._home, self._ledger = recipe, folder, home, ledger
        self._champion, self._lifeline = champion, lifeline
        self._file = home.path / "progress" / f"{recipe.name}.json"

    def config(self) -> dict[str, Any]:
        """What viewers may change: the budget (0 leaves it to the other, `epochs` goes first) and the seed."""
        minutes = float(self.recipe.fit.minutes)
        return {"minutes": minutes, "epochs": 0 if minutes else self.recipe.fit.epochs, "seed": 0}

    def stats(self) -> dict[str, Any]:
        """How far the training is, in the words that viewers know; finite numbers only."""
        known = read_progress(self._file)
        stats: dict[str, Any] = {"best_metric": held_out_dice(self._champion(self.recipe.name))}
        if not known:
            return {**stats, "epoch": 0, "total_epochs": 1, "total_time": 0.0}
        running = known.get("state") == "running" and psutil.pid_exists(int(known.get("pid", 0)))
        alive = running and is_training(self._home, self._ledger, self.recipe.name)
        stats |= {k: known[k] for k in ("epoch", "total_epochs", "state", "loss", "reason", "version") if k in known}
        if not alive:  # viewers take `total_time` for the sign that it ended
            ended = "stopped" if known.get("state") == "running" else known.get("state")
            stats |= {"state": ended, "total_time": float(known.get("seconds", 0.0))}
        return stats

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Trains, judges and, if it passes, serves a new version.

        Args:
            request: `epochs` or `minutes` (0 or absent takes the recipe's), `seed`; or `resume`, the id of a training
                that was killed and goes on as it was asked for.
            datastore: not used; cases come from the ledger.

        Raises:
            Conflict: the recipe is being trained, or has too few labels.
        """
        os.nice(10)
        asked = {
            "by": "server",
            "epochs": int(request.get("epochs") or 0),
            "minutes": float(request.get("minutes") or 0.0),
            "seed": int(request.get("seed") or 0),
        }
        resume = int(request.get("resume") or 0)
        with training(self._home, self._ledger, self.recipe.name, asked, resume) as run:
            return self._train(run)

    def _orphaned(self) -> bool:
        return self._lifeline is not None and self._lifeline.broken()

    def _train(self, run: Run) -> dict[str, Any]:
        from radloop.engine.train import train_version

        report, asked = _Report(self._file), run.request
        try:
            outcome = train_version(
                self._folder,
                self._home,
                self.recipe,
                epochs=asked["epochs"] or None,
                minutes=(asked["minutes"] or None) if not asked["epochs"] else None,
                seed=asked["seed"],
                threads=training_cores(serving=True),
                progress=report.step,
                cancelled=self._orphaned,
                run=run,
            )
        except BaseException as error:
            if self._orphaned():
                os._exit(1)  # as if killed, so that the next server lets it go on
            reason = str(error) or type(error).__name__
            with suppress(RadloopError):  # a full disk must not hide why the training ended
                self._ledger.finish_training(run.id, "failed", reason)
            report.end("failed", reason=reason)
            raise
        version = outcome.version
        reason = version.reason or (outcome.decision.reason if outcome.decision else "")
        self._ledger.finish_training(run.id, "done", f"version {version.number}: {version.state}")
        report.end(version.state, reason=reason, version=version.number)
        return {"version": version.number, "state": version.state, "reason": reason}


class _Report:
    """Writes how far a training is, at most once a second."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._started = time.monotonic()
        self._written = -WRITE_EVERY
        self._last: dict[str, Any] = {"epoch": 0, "total_epochs": 1}
        self._write("running")

    def step(self, progress: Progress) -> None:
        """Takes what `fit` says."""
        total = max(progress.epochs, progress.epoch, 1)
        self._last = {"epoch": progress.epoch, "total_epochs": total, "loss": progress.loss, "share": progress.share}
        if time.monotonic() - self._written >= WRITE_EVERY:
            self._write("running")

    def end(self, state: str, **more: Any) -> None:
        """Says how it ended."""
        self._write(state, **more)

    def _write(self, state: str, **more: Any) -> None:
        self._written = time.monotonic()
        seconds = round(self._written - self._started, 1)
        try:
            write_progress(self._file, {**self._last, "state": state, "pid": os.getpid(), "seconds": seconds, **more})
        except NoSpace as error:  # a training goes on without the bar
            logger.warning("how far the training is cannot be shown: %s", error)


def held_out_dice(version: Version | None) -> float:
    """Mean Dice of a version over its held-out patients, 0-1; 0 where there is none."""
    scores = (version.manifest.get("held_out") or {}) if version else {}
    numbers = [float(v) for v in scores.values() if isinstance(v, int | float) and math.isfinite(v)]
    return fmean(numbers) if numbers else 0.0
