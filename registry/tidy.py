"""What a crash leaves behind, put in order when a registry is opened.

staging folder of a process that is gone    removed
numbered folder without a file              removed (a number was claimed, nothing was published)
numbered folder, complete, not registered   registered as `interrupted`: kept, serves only by explicit number
numbered folder, incomplete                 left alone with a warning; never serves
"""

from __future__ import annotations

import logging
from pathlib import Path

from radloop.registry import folders
from radloop.registry.store import Store
from radloop.registry.version import INTERRUPTED

logger = logging.getLogger(__name__)


def tidy(versions: Path, store: Store) -> None:
    """Clear `versions` of what no live process needs; call it while nobody else publishes."""
    for name in folders.remove_abandoned(versions):
        logger.warning("removed the unfinished version %s: its process ended before publishing it", name)
    for parent in sorted(path for path in versions.iterdir() if path.name.isidentifier() and path.is_dir()):
        known = {entry.number for entry in store.entries(parent.name)}
        for number in folders.numbers(parent):
            if number not in known:
                _adopt(parent, number, store)


def _adopt(parent: Path, number: int, store: Store) -> None:
    folder = parent / str(number)
    if not any(folder.iterdir()):
        folder.rmdir()
    elif folders.is_complete(folder):
        reason = "found on disk but not registered: its process ended between publishing and registering it"
        store.add(parent.name, number, {"state": INTERRUPTED, "reason": reason})
        logger.warning("%s version %d is registered as interrupted: %s", parent.name, number, reason)
    else:
        logger.warning("%s is not a whole version and is left alone; remove it if nobody needs it", folder)
