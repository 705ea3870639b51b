"""Small facts about images and proposals that viewers ask for and strategies leave: one JSON file each, never half."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radloop.studies.files import write_whole, writing

logger = logging.getLogger(__name__)


class InfoStore:
    """Facts by kind and study id under a folder; safe for several threads and processes.

    Args:
        folder: made when the first fact is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def get(self, kind: str, study_id: str) -> dict[str, Any]:
        """What is known, or an empty dict; numbers that are not finite, which JSON does not have, are None."""
        path = self._path(kind, study_id)
        try:
            return dict(_finite(json.loads(path.read_text(encoding="utf-8"))["info"]))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("what is known of %s %s cannot be read: %s", kind, study_id, error)
            return {}

    def update(self, kind: str, study_id: str, info: dict[str, Any]) -> dict[str, Any]:
        """Adds facts and replaces those of the same key.

        Returns:
            All facts.

        Raises:
            NoSpace: the disk is full or read-only; nothing was changed.
        """
        path = self._path(kind, study_id)
        with writing("what is known of images"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, (path.parent / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
            known = self.get(kind, study_id) | _finite(info)
            text = json.dumps({"study": study_id, "info": known}, ensure_ascii=False, default=str)
            write_whole(path, lambda temporary: _write(temporary, text), ".json")
        return known

    def _path(self, kind: str, study_id: str) -> Path:
        # An id may have 200 letters of four bytes, a file name only 255 bytes.
        return self._folder / kind / f"{hashlib.sha256(study_id.encode()).hexdigest()[:32]}.json"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
