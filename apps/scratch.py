"""The server's own folder for passing files: uploads that ended in an error do not stay on the disk for ever."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from radloop.studies.files import writing
from radloop.studies.home import Home
from radloop.studies.leftovers import OLD, last_written, remove, temporary

logger = logging.getLogger(__name__)


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
    return _sweep((Path(entry.path) for entry in os.scandir(scratch_folder(home))), older_than, home)


def sweep_leftovers(studies: Path, home: Home) -> int:
    """Deletes temporary files of processes that are gone, older than an hour; gives the number of files and folders.

    Args:
        studies: the studies folder.
    """
    return _sweep(temporary(studies, home), OLD, home)


def _sweep(paths: Iterable[Path], older_than: float, home: Home) -> int:
    until, count = time.time() - older_than, 0
    for path in list(paths):
        if last_written(path) < until:
            with suppress(OSError):  # read-only studies, or somebody else's file
                remove(path)
                count += 1
    if count:
        logger.info("%d passing files and folders are gone from %s and its studies", count, home.path)
    return count
