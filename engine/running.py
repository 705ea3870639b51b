"""One training of a recipe at a time: a lock held for as long as it runs, so that a crash is known by its free lock.

A process id says little: after a crash in a container the next one has another host name, and its ids begin anew. The
system frees a lock (flock) with the process that held it, whatever the host is called.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from radloop.recipes.errors import Conflict
from radloop.studies import tables
from radloop.studies.files import writing
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, Training

LOOK_FOR = 1.0  # seconds to try for a lock, which whoever looks whether it is free holds for a moment


@contextmanager
def training(home: Home, ledger: Ledger, recipe: str) -> Iterator[int]:
    """A training in the ledger, and its lock until the block ends; the block itself writes down how it ended.

    Returns:
        The training's id in the ledger.

    Raises:
        Conflict: the recipe is being trained.
        NoSpace: the disk is full or read-only.
    """
    with writing(_lock_file(home, recipe).name):
        lock = os.open(_lock_file(home, recipe), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(lock, LOOK_FOR):
            last = ledger.last_training(recipe)
            who = f" since {last.started} (process {last.pid} on {last.host})" if last else ""
            msg = f"{recipe} is being trained{who}; wait, or stop it"
            raise Conflict(msg)
        _orphan(ledger, recipe)
        yield ledger.start_training(recipe, os.getpid())
    finally:
        os.close(lock)


def is_training(home: Home, ledger: Ledger, recipe: str) -> bool:
    """Whether a recipe is being trained; a training whose process is gone is marked as orphaned."""
    last = ledger.last_training(recipe)
    if last is None or last.state != "running":
        return False
    try:
        lock = os.open(_lock_file(home, recipe), os.O_RDWR)
    except FileNotFoundError:
        _orphan(ledger, recipe)
        return False
    try:
        free = _lock(lock, 0.0)
        if free:
            _orphan(ledger, recipe)
        return not free
    finally:
        os.close(lock)


def mark_ended(home: Home, ledger: Ledger, recipes: Iterable[str]) -> list[Training]:
    """Marks trainings of these recipes whose process is gone as orphaned; gives them."""
    running = [t for t in map(ledger.last_training, recipes) if t and t.state == "running"]
    return [t for t in running if not is_training(home, ledger, t.recipe)]


def trainings(ledger: Ledger, recipe: str) -> list[Training]:
    """Every training of a recipe, the last one first."""
    table = tables.trainings
    query = sa.select(table).where(table.c.recipe == recipe).order_by(table.c.id.desc())
    with ledger.database.read() as connection:
        return [Training(**row._mapping) for row in connection.execute(query)]


def _lock_file(home: Home, recipe: str) -> Path:
    return home.path / f"train-{recipe}.lock"


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


def _orphan(ledger: Ledger, recipe: str) -> None:
    """Called with the lock held, or where there is none: whatever the ledger says is running is not."""
    for one in trainings(ledger, recipe):
        if one.state == "running":
            ledger.finish_training(one.id, "orphaned", "its process ended without a word")
