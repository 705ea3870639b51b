"""What a training has come to so far, kept on disk, so that one whose process was killed goes on from there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from radloop.engine.weights import save_tensors
from radloop.recipes.errors import Conflict, NoSpace
from radloop.studies.files import writing

logger = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two checkpoints, unless RADLOOP_CHECKPOINT_SECONDS says otherwise."""
_MOST = 0.05  # share of the time that may go into writing them


class Checkpoint:
    """The state of one training in one file, whole or not there at all; whoever ends the training in order removes it.

    Args:
        path: where it is kept.
        needed: this training only goes on from it; without it, or with one of another job, it does not begin.
    """

    def __init__(self, path: Path, needed: bool = False) -> None:
        self.path = path
        self._needed = needed
        self._every = float(os.environ.get("RADLOOP_CHECKPOINT_SECONDS") or EVERY)
        self._job: dict[str, Any] = {}
        self._begun = time.monotonic()
        self._next = self._begun + self._every

    def open(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state that was saved for this very job, or None; one of another job is removed.

        Args:
            job: everything that the result depends on: names with values that JSON can hold.

        Raises:
            Conflict: it is needed, and is not there or belongs to another job; the message names what differs.
        """
        self._job = dict(job)
        self._begun = time.monotonic()
        self._next = self._begun + self._every
        if not self.path.is_file():
            self._refuse("there is no checkpoint of it")
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            before, state = dict(saved["job"]), dict(saved["state"])
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            why = f"its checkpoint cannot be read ({type(error).__name__})"
        else:
            differ = [name for name in job if before.get(name) != job[name]]
            if not differ:
                return state
            why = f"{' and '.join(differ)} changed since"
        logger.info("the checkpoint %s is not used: %s", self.path.name, why)
        self.remove()
        self._refuse(why)
        return None

    def due(self, last: bool = False) -> bool:
        """Whether it is time for the next one, or for the last; a short training needs none."""
        return time.monotonic() >= (self._begun + self._every if last else self._next)

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Replace the checkpoint; on a full disk the one before stays, and the training goes on."""
        begun = time.monotonic()
        try:
            with writing(self.path.name):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors({"job": self._job, "state": state()}, self.path)
        except NoSpace as error:
            logger.warning("no checkpoint of the training: %s", error)
        took = time.monotonic() - begun
        self._next = begun + took + max(self._every, took / _MOST)

    def remove(self) -> None:
        """Take it away, where it is."""
        self.path.unlink(missing_ok=True)

    def _refuse(self, why: str) -> None:
        if self._needed:
            msg = f"the training that was ended cannot go on: {why}"
            raise Conflict(msg)


def digest(value: Any) -> str:
    """A short name for a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
