"""A home in one file, taken while it serves and trains, and a home made of such a file.

In it: the ledger, the contents of its labels and of files that came from elsewhere, the registry with every version
that it names, recipes, what is known of images, proposals of studies that are read-only. Not in it: the studies'
images, caches, sessions, logs, proposals that were replaced, and trainings that run.

The registry is copied before the ledger, so every label that a version names is in the ledger's copy. What both name
was written before they named it, and does not change.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from radloop.recipes.errors import BadInput, Conflict, NotFound
from radloop.registry import folders
from radloop.registry.registry import Registry
from radloop.studies.backup import pack, plain, read
from radloop.studies.contents import FORGOTTEN
from radloop.studies.database import Database
from radloop.studies.files import sync, writing
from radloop.studies.home import Home
from radloop.studies.ledger import LabelRow, Ledger, Original
from radloop.studies.rows import now
from radloop.studies.rows_copy import copy_from_file, copy_to_file, sqlite_file

LEDGER, REGISTRY, HOME = "ledger.db", "registry.db", "home.json"
_FOLDERS = ("labels", "versions", "recipes", "info", "view")
_TREES = ("recipes/*.toml", "info/*/*.json", "view/original/*")
_PARTS = 3  # <folder>/<recipe>/<number>/<file> at most, below the folder


@dataclass(frozen=True)
class Packed:
    """What went into a backup.

    Attributes:
        labels: rows of the ledger.
        versions: model versions.
        size: bytes.
        left_out: what could not go in, each with the reason.
    """

    labels: int
    versions: int
    size: int
    left_out: tuple[str, ...]


def backup(home: Home, out: Path, step: Callable[[int], None] = lambda _: None, *shown_in: Path) -> Packed:
    """Write a home into a file; servers and trainings go on.

    Args:
        home: what to keep.
        out: the file; there is none of that name yet.
        step: called with the number of bytes of each file, when it is written and when it is read back.
        shown_in: folders of final labels that may have a copy of a damaged one, such as `StudiesFolder.final_dir`.

    Raises:
        Conflict: the file is there already, the ledger is damaged, or what was written does not read back.
        NotFound: the folder for it is not there.
        NoSpace: the disk is full or read-only; nothing is left behind.
    """
    if out.exists():
        msg = f"{out} is there already and is not overwritten; give another name with --out"
        raise Conflict(msg)
    if not out.absolute().parent.is_dir():
        msg = f"{out}: there is no folder {out.absolute().parent}; make it first, or give another name with --out"
        raise NotFound(msg)
    registry, ledger = Registry(home), Ledger(home)
    with writing(out.name), tempfile.TemporaryDirectory(prefix=".radloop-backup-", dir=out.absolute().parent) as name:
        copies = Path(name)
        _copy_registry(home.registry_db, copies / REGISTRY)
        versions = _versions(registry)
        copy_to_file(ledger.database, copies / LEDGER)
        kept: list[LabelRow | Original] = [*ledger.history(), *ledger.every_original()]
        contents, left_out = _contents(ledger, kept, shown_in)
        files = {LEDGER: copies / LEDGER, REGISTRY: copies / REGISTRY, HOME: home.path / HOME, **versions, **contents}
        files |= _copied(home.path, copies)
        strange = sorted(file for file in files if not _belongs(file))
        left_out += [f"{file!r} has a name that no backup has; give the file another one" for file in strange]
        pack({file: path for file, path in files.items() if file not in strange}, out, step)
    rows = sum(isinstance(row, LabelRow) for row in kept)
    count = len({Path(file).parent for file in versions})
    return Packed(rows, count, out.stat().st_size, tuple(left_out))


def restore(archive: Path, home: Home, step: Callable[[int], None] = lambda _: None) -> str:
    """Make a home of a backup; gives the time it was taken.

    Everything is checked before anything shows at the home's place. With RADLOOP_LEDGER, the rows go there.

    Raises:
        NotFound: there is no such file.
        BadInput: it is damaged, cut, or no backup.
        Conflict: the home is not empty, the database has other rows, or the backup is of a newer radloop.
        NoSpace: the disk is full or read-only; nothing is left behind.
    """
    if not archive.is_file():
        msg = f"there is no backup {archive}; give the file that `radloop backup` wrote"
        raise NotFound(msg)
    place = home.path.resolve()  # what a link leads to is made, the link stays
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        msg = f"the home {home.path} is not empty, and nothing is overwritten; move it away, or give another --home"
        raise Conflict(msg)
    if place.is_mount():
        raise _mounted(home)
    with writing(str(place)):
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".radloop-restore-", dir=place.parent))
    try:
        said = read(archive, staged, step)
        _check(archive, staged, set(said["files"]))
        Home(staged).remember_restored(now())
        _place_ledger(staged, home)
        with writing(str(place)):
            folders.sync_tree(staged)
            staged.chmod(0o755)
            staged.replace(place)
            sync(place.parent)
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.EBUSY:  # a mount that does not look like one
            raise _mounted(home) from error
        raise
    return str(said["created"])


def _mounted(home: Home) -> Conflict:
    below = home.path / "home"
    return Conflict(
        f"{home.path} is a mount point, where a home cannot appear in one step; nothing was changed; restore into a "
        f"folder below it with --home {below}, then use that as the home (RADLOOP_HOME) or move what is in it up"
    )


def _copy_registry(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30)) as there,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        there.backup(copy)


def _versions(registry: Registry) -> dict[str, Path]:
    found = {}
    for version in (version for name in registry.recipes() for version in registry.versions(name)):
        for file in sorted(version.dir.iterdir()) if version.dir.is_dir() else ():
            if file.is_file() and not file.name.startswith("."):
                found[f"versions/{version.recipe}/{version.number}/{file.name}"] = file
    return found


def _contents(
    ledger: Ledger, kept: list[LabelRow | Original], shown_in: Collection[Path]
) -> tuple[dict[str, Path], list[str]]:
    """Contents by their names in the archive, and what is damaged with no copy left."""
    found: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for row in kept:
        name = f"labels/{ledger.file(row).name}"
        if name in found or row.study.startswith(FORGOTTEN):
            continue
        try:
            found[name] = ledger.content(row, *shown_in)
        except Conflict as error:
            left_out.setdefault(name, str(error))
    return found, list(left_out.values())


def _copied(top: Path, copies: Path) -> dict[str, Path]:
    """Copies of what may be removed or replaced while the backup is written, by their names in the archive."""
    found = {}
    for file in (file for pattern in _TREES for file in top.glob(pattern)):
        name = file.relative_to(top).as_posix()
        if file.is_file() and not file.name.startswith("."):
            (copies / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(file, copies / name)
                found[name] = copies / name
    return found


def _belongs(name: str) -> bool:
    """Whether a home has files of this name, and an archive may."""
    first, *rest = Path(name).parts
    inside = first in _FOLDERS and 0 < len(rest) <= _PARTS
    return (name in (LEDGER, REGISTRY, HOME) or inside) and plain(name) and name.isprintable()


def _check(archive: Path, staged: Path, names: set[str]) -> None:
    """That what was unpacked is a home, of this radloop or an older one."""
    for name in sorted(names):
        if not _belongs(name):
            msg = f"{archive} cannot be restored: it has {name!r}, which is no part of a home; nothing was changed"
            raise BadInput(msg)
    if lost := sorted({LEDGER, REGISTRY, HOME} - names):
        msg = f"{archive} cannot be restored: it has no {lost[0]}; nothing was changed, take another backup"
        raise BadInput(msg)
    Home(staged)
    ledger = sqlite_file(staged / LEDGER)
    ledger.bring_up_to_date(may_create=False)
    ledger.close()


def _place_ledger(staged: Path, home: Home) -> None:
    """Leave the ledger in the home, or put its rows where RADLOOP_LEDGER says."""
    if home.ledger_file == home.path / LEDGER:
        return
    copy_from_file(staged / LEDGER, Database(home.ledger_url))
    (staged / LEDGER).unlink()
