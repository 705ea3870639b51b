"""Who computes when: readers' answers one after another, work in the background only while no reader waits."""

from __future__ import annotations

import threading
import time

QUIET = 2.0
"""Seconds after an answer in which a reader often asks for the next."""


class Turns:
    """A lock for readers' answers, `with turns: ...`, that work in the background can give way to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._readers, self._last = 0, float("-inf")

    def __enter__(self) -> None:
        """Waits for the answers asked for before."""
        with self._changed:
            self._readers += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        with self._changed:
            self._readers -= 1
            self._last = time.monotonic()
            self._changed.notify_all()

    def give_way(self, quiet: float = QUIET) -> float:
        """Waits while an answer is computed or waited for, and so many seconds after it; gives the seconds waited."""
        begun = time.monotonic()
        with self._changed:
            while True:
                now = time.monotonic()
                rest = self._last + quiet - now
                if not self._readers and rest <= 0:
                    return now - begun
                self._changed.wait(None if self._readers else rest)
