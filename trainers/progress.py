"""How far a training is, as one small file that the training writes and the server reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from radloop.studies.files import write_whole, writing


def write_progress(path: Path, progress: dict[str, Any]) -> None:
    """Replaces the file as a whole; numbers that are not finite are left out, because viewers cannot read them.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    finite = {k: v for k, v in progress.items() if not isinstance(v, float) or math.isfinite(v)}
    with writing(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda temporary: _write(temporary, text), ".json")


def read_progress(path: Path) -> dict[str, Any]:
    """What the training wrote last, or an empty dict."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
