"""A training as the commands show it: in the ledger, a bar while it runs, then what the gate decided."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any

from radloop.apps.server_process import is_serving
from radloop.apps.terminal import NOTICE, bar, complain, plural, rename, say
from radloop.recipes.errors import Conflict

if TYPE_CHECKING:
    from radloop.engine.fit import Progress
    from radloop.engine.running import Run
    from radloop.engine.train import TrainOutcome
    from radloop.recipes.recipe import Recipe
    from radloop.studies.folder import StudiesFolder
    from radloop.studies.home import Home


def train_with_bar(
    folder: StudiesFolder,
    home: Home,
    recipe: Recipe,
    *,
    epochs: int | None = None,
    minutes: float | None = None,
    only: Collection[str] | None = None,
    fold: tuple[int, int] | None = None,
    seed: int = 0,
) -> TrainOutcome:
    """`radloop.engine.train.train_version` with a progress bar; see there for arguments and errors.

    Raises:
        Conflict: the recipe is being trained by another process.
    """
    from radloop.engine.cores import training_cores
    from radloop.engine.train import train_version

    asked = {
        "by": "command",
        "epochs": epochs,
        "minutes": minutes,
        "seed": seed,
        "fold": list(fold) if fold else None,
        "only": None if only is None else sorted(only),
    }
    with _in_ledger(home, recipe.name, asked) as run, bar(100, f"train {recipe.name}", "%") as shown:

        def follow(progress: Progress) -> None:
            shown.set_postfix_str(f"epoch {progress.epoch}, loss {progress.loss:.3f}", refresh=False)
            shown.update(int(progress.share * 100) - shown.n)
            if progress.share >= 1:
                # what comes now takes as long as the answers to all held-out studies
                rename(shown, f"measure {recipe.name}")

        return train_version(
            folder,
            home,
            recipe,
            epochs=epochs,
            minutes=minutes,
            only=only,
            fold=fold,
            seed=seed,
            threads=training_cores(is_serving(home)),
            progress=follow,
            run=run,
        )


def say_outcome(outcome: TrainOutcome) -> None:
    """Writes what came of a training: the version, its held-out figure, the gate's decision."""
    version, report = outcome.version, outcome.report
    for skipped in version.manifest["skipped"]:
        complain(f"warning: {skipped['study']} was left out: {skipped['reason']}")
    if report.resumed:
        say(f"went on at step {report.resumed} of the same training, whose process was killed")
    rows = plural(len(report.used), "label")
    say(f"{version.recipe} version {version.number}: {report.epochs} epochs on {rows} in {report.seconds:.0f} s")
    scores = list(version.manifest["held_out"].values())
    if scores:
        figure = version.figure
        say(f"held out  {figure} {fmean(scores):.3f}, {plural(len(scores), 'patient')} ({NOTICE})")
    else:
        say("held out  no labelled patient, so there is no figure")
    if outcome.decision is None:
        say("gate      not asked: a version of a fold never serves")
    else:
        say(f"gate      {version.reason or outcome.decision.reason}")


@contextmanager
def no_training(home: Home, recipes: Iterable[str], then: str) -> Iterator[None]:
    """A block in which no training of these recipes starts; see `radloop.engine.running` for the locks.

    Args:
        then: what to do when the training is over, for the message.

    Raises:
        Conflict: one of them is being trained.
    """
    with ExitStack() as held:
        for recipe in sorted(recipes):
            lock = os.open(home.path / f"train-{recipe}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                msg = f"{recipe} is being trained; wait or stop it, then {then}"
                raise Conflict(msg) from error
        yield


@contextmanager
def _in_ledger(home: Home, recipe: str, asked: dict[str, Any]) -> Iterator[Run]:
    """Writes the training down, so that no second one of the recipe begins and a crash is known later."""
    from radloop.engine.running import training
    from radloop.studies.ledger import Ledger

    ledger = Ledger(home)
    with training(home, ledger, recipe, asked) as run:
        try:
            yield run
        except KeyboardInterrupt:
            ledger.finish_training(run.id, "cancelled", "stopped by its user")
            raise
        except BaseException as error:
            ledger.finish_training(run.id, "failed", str(error).partition("\n")[0])
            raise
        ledger.finish_training(run.id, "done")
