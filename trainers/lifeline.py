"""A training belongs to its server: it ends within a second when the server is gone, also after `kill -9`."""

from __future__ import annotations

import logging
import os
import threading
import time

logger = logging.getLogger(__name__)
LOOK_EVERY = 0.5


class Lifeline:
    """Watches the process that started this one.

    A thread ends the whole process, without cleaning up, as soon as its parent changes. What an ended training
    leaves (a staged folder, a running row in the ledger) is tidied when the registry and the server start next.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        threading.Thread(target=self._watch, name="radloop-lifeline", daemon=True).start()

    def broken(self) -> bool:
        """Whether the parent is gone; asked before anything is published."""
        return os.getppid() != self._parent

    def _watch(self) -> None:
        while not self.broken():
            time.sleep(LOOK_EVERY)
        logger.error("the server is gone; this training ends with it")
        os._exit(1)
