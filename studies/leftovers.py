"""What killed processes leave behind: temporary files and folders, which no listing of studies or labels shows."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from radloop.studies.home import Home

OLD = 3600.0  # seconds
_PROCESS = re.compile(r"^\.tmp-(?P<pid>\d+)-")


def temporary(studies: Path, home: Home) -> Iterator[Path]:
    """Temporary files and folders of a studies folder and its home, whether somebody is at work on them or not."""
    for folder in (studies, studies / "labels", studies / "labels" / "final", studies / "labels" / "original"):
        yield from folder.glob(".tmp-*")
    yield from home.path.rglob(".tmp-*")
    yield from (home.path / "cache").glob("tmp*")
    yield from (home.path / "tmp").glob("*")
    yield from studies.glob(".import-*")
    for folder in {studies, home.path.parent}:
        yield from folder.glob(".radloop-restore-*")
        yield from folder.glob(".radloop-backup-*")


def is_left(path: Path, older_than: float = OLD) -> bool:
    """Whether nobody is at work on it: its process is gone, or nothing was written to it for so many seconds."""
    match = _PROCESS.match(path.name)
    return (match is not None and not _runs(int(match["pid"]))) or last_written(path) < time.time() - older_than


def last_written(path: Path) -> float:
    """When a file, or anything in a folder, was written last; infinity where it goes away while we look."""
    try:
        inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        return max(p.lstat().st_mtime for p in (path, *inner))
    except FileNotFoundError:
        return float("inf")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder; nothing where it is gone."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):  # whose it was may clear it at the same time
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
