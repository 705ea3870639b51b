"""A training belongs to its server, a server to `radloop serve`: it ends at once with it, also after `kill -9`."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time

logger = logging.getLogger(__name__)
LOOK_EVERY = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Lifeline:
    """Watches the process that started this one; if that is gone already, this one ends.

    Args:
        parent: its process id, from itself: asked here, an orphan would be told that of whoever took it in. No other
            process can have that id and be the parent, so it need not be told from one that got the id later.

    Linux is asked to kill this process with its parent; elsewhere, and should that fail, a thread looks twice a
    second. What an ended training leaves (a staged folder, a running row in the ledger) is tidied when the registry
    and the server start next.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            logger.warning("Linux does not end this process with its parent; looking for it twice a second does")
        if self.broken():  # before Linux was asked
            os._exit(1)
        threading.Thread(target=self._watch, name="radloop-lifeline", daemon=True).start()

    def broken(self) -> bool:
        """Whether the parent is gone; asked before anything is published."""
        return os.getppid() != self._parent

    def _watch(self) -> None:
        while not self.broken():
            time.sleep(LOOK_EVERY)
        os._exit(1)  # without cleaning up, which could wait for a pipe that nobody reads
