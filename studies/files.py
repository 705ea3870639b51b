"""Files written whole or not at all, and what a full or read-only disk is called."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from radloop.recipes.errors import NoSpace

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


def no_space(error: OSError, what: str) -> NoSpace | None:
    """The `NoSpace` that an operating system's error stands for, or None for another kind of error."""
    if error.errno not in _NO_SPACE:
        return None
    return NoSpace(f"cannot write {what}: {error.strerror}; free some space or allow writing, then send it again")


@contextmanager
def writing(what: str) -> Iterator[None]:
    """A block whose full-disk and read-only errors become `NoSpace` naming `what`."""
    try:
        yield
    except OSError as error:
        known = no_space(error, what)
        if known is None:
            raise
        raise known from error


def write_whole(path: Path, write: Callable[[Path], None], ending: str = "") -> None:
    """Put a file at `path` so that it is there complete, or not at all, whatever happens.

    Args:
        path: where the file goes; its folder exists.
        write: writes the content to the path it is given.
        ending: how the temporary name must end for `write` to choose the format, such as `.nii.gz`.

    Raises:
        NoSpace: the disk is full or read-only; nothing is left behind.
    """
    # The leading dot hides the file from every listing of studies and labels.
    temporary = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(6)}{ending}"
    try:
        with writing(path.name):
            write(temporary)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    except BaseException:
        # Where nothing can be written, nothing can be taken away either; the first error is the one to tell.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
