"""Work spread over processes that end with the one that started them, also after `kill -9`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from types import TracebackType
from typing import Any

import torch

from radloop.engine.cores import usable_cores

_LOOK_EVERY = 0.5  # seconds

Task = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments."""


class Workers:
    """Processes for a while; with one job the work is done in this process.

    Args:
        jobs: processes, started when first needed.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """The place of each task and what it gave, as they end; an error is raised where it is met."""
        if self._jobs == 1:
            yield from ((place, function(*arguments)) for place, (function, arguments) in enumerate(tasks))
            return
        if self._pool is None:
            # spawned, not forked: torch's threads do not survive a fork
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._jobs, context, _begin, (os.getpid(), self._jobs))
        places = {self._pool.submit(function, *arguments): place for place, (function, arguments) in enumerate(tasks)}
        for done in as_completed(places):
            yield places[done], done.result()


def _begin(parent: int, jobs: int) -> None:
    torch.set_num_threads(max(1, usable_cores() // jobs))
    threading.Thread(target=_watch, args=(parent,), name="radloop-spread", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os._exit(1)  # without cleaning up, which could wait for the one that is gone
