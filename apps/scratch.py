"""The server's own folder for passing files: uploads that ended in an error do not stay on the disk for ever."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

from radloop.studies.files import writing
from radloop.studies.home import Home

logger = logging.getLogger(__name__)
OLD = 3600.0  # seconds


def scratch_folder(home: Home) -> Path:
    """`<home>/tmp`, made if it is not there; the server's processes have it as TMPDIR.

    Raises:
        NoSpace: it cannot be made.
    """
    folder = home.path / "tmp"
    with writing(str(folder)):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def sweep(home: Home, older_than: float = OLD) -> int:
    """Deletes what nobody has written to for so many seconds; gives the number of files and folders."""
    until, count = time.time() - older_than, 0
    for entry in os.scandir(scratch_folder(home)):
        if _written(Path(entry.path)) >= until:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
        count += 1
    if count:
        logger.info("%d passing files and folders are gone from %s", count, home.path / "tmp")
    return count


def _written(path: Path) -> float:
    """When a file, or anything in a folder, was written last; infinity where it goes away while we look."""
    try:
        inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        return max(p.lstat().st_mtime for p in (path, *inner))
    except FileNotFoundError:
        return float("inf")
