"""Versions on disk: staged where nobody looks, synced, renamed into place; and who is still at work.

A staging folder belongs to the process that holds the lock on the file beside it. The operating system frees the lock
when that process ends, however it ends, so leftovers of a dead one are recognised without trusting process ids.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from radloop.studies.files import sync

STAGING = ".staging"
WEIGHTS = "model.pt"
RECIPE = "recipe.json"
MANIFEST = "manifest.json"

_held: dict[Path, IO[bytes]] = {}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A block that one process, and one thread of it, is in at a time."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def stage(versions: Path, recipe: str) -> Path:
    """A new, empty folder of this process under `versions/.staging`."""
    staging = versions / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    folder = staging / f"{recipe}-{secrets.token_hex(6)}"
    handle = _lock_file(folder).open("ab")
    fcntl.flock(handle, fcntl.LOCK_EX)
    _held[folder] = handle
    folder.mkdir()
    return folder


def release(folder: Path) -> None:
    """Give up a staging folder, with what is left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    handle = _held.pop(folder, None)
    _lock_file(folder).unlink(missing_ok=True)
    if handle:
        handle.close()


def remove_abandoned(versions: Path) -> list[str]:
    """Remove staging folders whose process is gone; their names."""
    removed = []
    staging = versions / STAGING
    names = {path.name.removesuffix(".lock") for path in staging.iterdir()} if staging.is_dir() else set()
    for folder in (staging / name for name in sorted(names)):
        if folder not in _held and _is_free(_lock_file(folder)):
            release(folder)
            removed.append(folder.name)
    return removed


def publish(staged: Path, target_parent: Path, taken: Iterable[int]) -> int:
    """Rename a staged and synced folder to the next number in `target_parent`, and sync that.

    Making the numbered folder is what claims the number: of two processes only one can. Renaming onto that empty folder
    replaces it in one step, so the number is either empty or complete.
    """
    target_parent.mkdir(parents=True, exist_ok=True)
    sync(target_parent.parent)
    number = 1 + max([*taken, *numbers(target_parent)], default=0)
    while True:
        try:
            (target_parent / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    staged.rename(target_parent / str(number))
    sync(target_parent)
    return number


def numbers(folder: Path) -> list[int]:
    """Numbers of the version folders in a recipe's folder, rising."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def is_complete(folder: Path) -> bool:
    """Whether a version folder holds all that a version needs."""
    return all((folder / name).is_file() for name in (WEIGHTS, RECIPE, MANIFEST))


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _is_free(lock: Path) -> bool:
    try:
        with lock.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
