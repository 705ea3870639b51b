"""One training of a recipe at a time: a lock held for as long as it runs, so that a crash is known by its free lock.

A process id says little: after a crash in a container the next one has another host name, and its ids begin anew. The
system frees a lock (flock) with the process that held it, whatever the host is called. A training whose process was
killed is marked as failed by whoever looks next; the server that starts next lets it go on from its checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from radloop.engine.checkpoint import Checkpoint
from radloop.recipes.errors import Conflict, NoSpace
from radloop.registry.folders import MANIFEST, numbers
from radloop.registry.registry import Registry
from radloop.registry.version import CHALLENGER, INTERRUPTED
from radloop.studies import tables
from radloop.studies.files import writing
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, Training

LOST = "its process ended without a word"
"""Why a training failed whose process was killed."""
MOST_RESUMED = 5
"""How often one training goes on after a crash, which it may be the cause of."""
LOOK_FOR = 1.0  # seconds to try for a lock, which whoever looks whether it is free holds for a moment


@dataclass(frozen=True)
class Run:
    """A training under way.

    Attributes:
        id: in the ledger.
        last_row: the newest label row that it may learn from, the same when it goes on after a crash.
        request: what was asked for.
        checkpoint: where it keeps its state.
    """

    id: int
    last_row: int
    request: Mapping[str, Any]
    checkpoint: Checkpoint


@contextmanager
def training(
    home: Home, ledger: Ledger, recipe: str, request: Mapping[str, Any] | None = None, resume: int = 0
) -> Iterator[Run]:
    """A training in the ledger, and its lock until the block ends; the block itself writes down how it ended.

    Its checkpoint is gone after the block, unless the process was killed or the disk was full: then a training of the
    same job goes on from it.

    Args:
        request: what is asked for; kept in the ledger as JSON.
        resume: id of a training that was killed and goes on; see `resumable`.

    Raises:
        Conflict: the recipe is being trained, or the one to resume cannot go on.
        NoSpace: the disk is full or read-only.
    """
    lock = _open_lock(home, recipe)
    try:
        if not _lock(lock, LOOK_FOR):
            last = ledger.last_training(recipe)
            who = f" since {last.started} (process {last.pid} on {last.host})" if last else ""
            msg = f"{recipe} is being trained{who}; wait, or stop it"
            raise Conflict(msg)
        _end_lost(home, ledger, recipe)
        run = _resume(home, ledger, recipe, resume) if resume else _begin(home, ledger, recipe, dict(request or {}))
        try:
            yield run
        except NoSpace:
            raise
        except BaseException:
            run.checkpoint.remove()
            raise
        run.checkpoint.remove()
    finally:
        os.close(lock)


def resumable(home: Home, ledger: Ledger, recipe: str) -> Training | None:
    """The training of a recipe that a server began and that was killed, if it left a checkpoint."""
    last = ledger.last_training(recipe)
    if last is None or last.state != "failed" or last.note != LOST or not _checkpoint_file(home, recipe).is_file():
        return None
    asked = _asked(last)
    return last if asked.get("by") == "server" and asked.get("resumed", 0) < MOST_RESUMED else None


def cancel(home: Home, ledger: Ledger, recipe: str, note: str, pid: int, resume: int = 0, seconds: float = 5.0) -> None:
    """Called after a training's process was killed because somebody asked: marks it as cancelled, however far it was.

    Args:
        pid: of the process that was killed.
        resume: the training that it was to go on with; 0 for a new one.
        seconds: to wait for the process to be gone.
    """
    lock = _open_lock(home, recipe)
    try:
        if not _lock(lock, seconds):
            return
        last = ledger.last_training(recipe)
        if last is None or (last.id != resume and (last.pid, last.host) != (pid, socket.gethostname())):
            # killed before it was written down: the rule for retraining must know that somebody stopped it
            ledger.finish_training(ledger.start_training(recipe, pid, '{"by": "server"}'), "cancelled", note)
        elif last.state == "running" or (last.state == "failed" and last.note == LOST):
            ledger.finish_training(last.id, "cancelled", note)
            _checkpoint_file(home, recipe).unlink(missing_ok=True)
    finally:
        os.close(lock)


def is_training(home: Home, ledger: Ledger, recipe: str) -> bool:
    """Whether a recipe is being trained; a training whose process is gone is marked as failed."""
    last = ledger.last_training(recipe)
    if last is None or last.state != "running":
        return False
    try:
        lock = os.open(_lock_file(home, recipe), os.O_RDWR)
    except FileNotFoundError:
        _end_lost(home, ledger, recipe)
        return False
    try:
        free = _lock(lock, 0.0)
        if free:
            _end_lost(home, ledger, recipe)
        return not free
    finally:
        os.close(lock)


def mark_ended(home: Home, ledger: Ledger, recipes: Iterable[str]) -> list[Training]:
    """Marks trainings of these recipes whose process is gone as failed; gives them."""
    running = [t for t in map(ledger.last_training, recipes) if t and t.state == "running"]
    return [t for t in running if not is_training(home, ledger, t.recipe)]


def trainings(ledger: Ledger, recipe: str) -> list[Training]:
    """Every training of a recipe, the last one first."""
    table = tables.trainings
    query = sa.select(table).where(table.c.recipe == recipe).order_by(table.c.id.desc())
    with ledger.database.read() as connection:
        return [Training(**row._mapping) for row in connection.execute(query)]


def learns_all(training: Training) -> bool:
    """Whether a training is of every label: of no fold, and not of some images alone."""
    asked = _asked(training)
    return asked.get("fold") is None and asked.get("only") is None


def _lock_file(home: Home, recipe: str) -> Path:
    return home.path / f"train-{recipe}.lock"


def _open_lock(home: Home, recipe: str) -> int:
    file = _lock_file(home, recipe)
    with writing(file.name):
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def _lock(file: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        else:
            return True


def _checkpoint_file(home: Home, recipe: str) -> Path:
    return home.path / "checkpoints" / f"{recipe}.pt"


def _begin(home: Home, ledger: Ledger, recipe: str, request: dict[str, Any]) -> Run:
    ledger.start_training(recipe, os.getpid(), json.dumps(request))
    begun = trainings(ledger, recipe)[0]
    return Run(begun.id, begun.last_row, request, Checkpoint(_checkpoint_file(home, recipe)))


def _resume(home: Home, ledger: Ledger, recipe: str, number: int) -> Run:
    """The same row again; called with the lock held."""
    last = resumable(home, ledger, recipe)
    if last is None or last.id != number:
        msg = f"training {number} of {recipe} cannot go on: it was not the last one, or left no checkpoint; train again"
        raise Conflict(msg)
    asked = _asked(last)
    request = {**asked, "resumed": asked.get("resumed", 0) + 1}
    values = {"state": "running", "note": "", "finished": "", "pid": os.getpid(), "host": socket.gethostname()}
    with ledger.database.write() as connection:
        connection.execute(
            tables.trainings.update()
            .where(tables.trainings.c.id == number)
            .values(**values, request=json.dumps(request))
        )
    return Run(number, last.last_row, request, Checkpoint(_checkpoint_file(home, recipe), needed=True))


def _asked(training: Training) -> dict[str, Any]:
    asked = json.loads(training.request or "{}")
    return asked if isinstance(asked, dict) else {}


def _end_lost(home: Home, ledger: Ledger, recipe: str) -> None:
    """Called with the lock held, or where there is none: whatever the ledger says is running is not."""
    for one in trainings(ledger, recipe):
        if one.state != "running":
            continue
        number = _published(home, one)
        if not number:
            ledger.finish_training(one.id, "failed", LOST)
            continue
        # never published twice; the labels count as learned only where the gate's word was carried out
        _checkpoint_file(home, recipe).unlink(missing_ok=True)
        version = Registry(home).version(recipe, number)
        if version.state in (CHALLENGER, INTERRUPTED):
            why = f"its process ended after publishing version {number}, before the gate's word was carried out"
            ledger.finish_training(one.id, "failed", why)
        else:
            ledger.finish_training(one.id, "done", f"version {number}: {version.state}")


def _published(home: Home, training: Training) -> int:
    """The version that a training made; 0 where it made none."""
    folder = home.versions / training.recipe
    for number in reversed(numbers(folder)):
        try:
            manifest = json.loads((folder / str(number) / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if manifest.get("training") == training.id:
            return number
    return 0
