"""Copies of the SQLite ledger, made whole while it is in use, and how one is put back.

PostgreSQL keeps its own (`pg_dump`); nothing here touches it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path

from radloop.recipes.errors import BadInput, Conflict, NoSpace, NotFound
from radloop.studies.files import write_whole, writing
from radloop.studies.home import Home
from radloop.studies.rows import checksum, now
from radloop.studies.tables import REVISION

log = logging.getLogger(__name__)

KEPT = 10
EVERY = 300.0  # seconds between two looks of a server
_NAME = re.compile(r"ledger-(\d{6,})\.db")
_SKIPPED_IDS = 1000  # more labels than a damaged ledger had since the newest snapshot


def take(home: Home) -> Path | None:
    """Copy the ledger into `<home>/snapshots`; None where it is as in the newest one, or is not SQLite.

    Raises:
        NoSpace: the disk is full or read-only; nothing is left behind.
        Conflict: the ledger is damaged.
    """
    ledger = home.ledger_file
    if ledger is None or not ledger.is_file():
        return None
    folder, there = home.snapshots, _all(home)
    number, last = next(iter(there.items()), (0, None))
    target = folder / f"ledger-{number + 1:06d}.db"
    same = False

    def copy(temporary: Path) -> None:
        nonlocal same
        _copy(ledger, temporary)
        same = last is not None and checksum(temporary) == checksum(last)
        if same:
            raise _SameError

    with contextlib.suppress(_SameError):
        write_whole(target, copy)
    if same:
        return None
    for old in list(_all(home).values())[KEPT:]:
        old.unlink(missing_ok=True)
    return target


def attempt(home: Home) -> Path | None:
    """As `take`, but a copy that cannot be made is only said: it must not cost what was asked for."""
    try:
        return take(home)
    except (NoSpace, Conflict) as error:
        log.warning("no snapshot of the ledger: %s", error)
        return None


def regularly(home: Home, every: float = EVERY) -> Callable[[], None]:
    """A server's chore: a snapshot every so many seconds, where the ledger's files changed."""
    last, seen = time.monotonic(), _stamp(home)

    def chore() -> None:
        nonlocal last, seen
        if time.monotonic() - last < every or _stamp(home) == seen:
            return
        last, seen = time.monotonic(), _stamp(home)
        attempt(home)

    return chore


def newest(home: Home) -> Path | None:
    """The newest snapshot that is whole."""
    return next((file for file in _all(home).values() if not damage(file)), None)


def naming(home: Home, contents: Collection[str]) -> tuple[Path | None, int]:
    """The snapshot that names most of these contents (checksums), the newest of several, and how many it names."""
    best: tuple[Path | None, int] = (None, 0)
    for file in _all(home).values():
        try:
            with contextlib.closing(_read_only(file)) as connection:
                found = connection.execute(
                    "SELECT checksum FROM labels UNION SELECT checksum FROM originals"
                ).fetchall()
        except sqlite3.DatabaseError:  # a damaged one is nothing to put back
            continue
        count = len({digest for (digest,) in found} & set(contents))
        best = (file, count) if count > best[1] else best
    return best


def advice(home: Home) -> str:
    """What to do about a damaged ledger, in words that name the snapshot."""
    file = newest(home)
    if file is None:
        return f"{home.path} has no snapshot of it; move {home.path} away and `radloop restore` a backup"
    made = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).isoformat(" ", "seconds")
    return f"put the snapshot of {made} back with `radloop restore {file} --studies DIR`; nothing was changed"


def put_back(home: Home, file: Path, named: int = 0) -> Path | None:
    """Make a snapshot the ledger; gives the folder in which the files that were there are kept, if there were any.

    Labels given since it was made are taken in again from `labels/final` at the next start; their row ids are not
    used a second time, since versions may name them. Nothing else may have the ledger open.

    Args:
        named: the largest row id that a version names.

    Raises:
        NotFound: there is no such file, or no home.
        BadInput: it is no whole ledger, or the ledger is not SQLite.
        Conflict: it is of another home or of a newer radloop.
        NoSpace: the disk is full or read-only; the ledger is as it was.
    """
    file, ledger = Path(file), home.ledger_file
    if ledger is None:
        msg = "the ledger is not SQLite (RADLOOP_LEDGER); restore it with its own tools, such as pg_restore"
        raise BadInput(msg)
    if not file.is_file():
        msg = f"there is no snapshot {file}; `ls {home.path / 'snapshots'}` shows those there are"
        raise NotFound(msg)
    if not (home.had_ledger or ledger.is_file()):
        msg = (
            f"there is no home at {home.path}, and a snapshot goes into the one that it is of; restore a backup there, "
        )
        msg += "or give the home with --home"
        raise NotFound(msg)
    _check(home, file)
    last = max(named, *map(_last_id, (file, ledger, *_all(home).values())))
    home.remember_restored(now())
    aside = None

    def copy(temporary: Path) -> None:
        nonlocal aside
        shutil.copyfile(file, temporary)
        _skip_ids(temporary, last + _SKIPPED_IDS)
        aside = _set_aside(home, ledger)

    write_whole(ledger, copy)
    return aside


def damage(file: Path) -> str:
    """What is wrong with an SQLite file, in the database's own words; "" where it is whole or cannot be opened.

    It is only read: nothing of a damaged file, or of the log beside it, is changed.
    """
    if file.stat().st_size == 0:
        return "it is empty"
    try:
        with contextlib.closing(_read_only(file)) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            page = connection.execute("PRAGMA page_size").fetchone()[0]
    except sqlite3.OperationalError as error:
        return "" if "malformed" not in str(error) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    log_file = file.with_name(file.name + "-wal")
    if said == "ok" and file.stat().st_size % page and not (log_file.is_file() and log_file.stat().st_size):
        return "its last page is cut"  # SQLite takes the missing bytes for zeros
    return "" if said == "ok" else " ".join(said.split())


class _SameError(Exception):
    """The copy is as the newest one."""


def _all(home: Home) -> dict[int, Path]:
    """Snapshots by number, the newest first; numbers, since a clock may be set back."""
    folder = home.path / "snapshots"
    files = folder.iterdir() if folder.is_dir() else ()
    found = {int(match[1]): file for file in files if (match := _NAME.fullmatch(file.name))}
    return dict(sorted(found.items(), reverse=True))


def _stamp(home: Home) -> list[tuple[int, int]]:
    return [(stat.st_size, stat.st_mtime_ns) for file in _files(home.ledger_file) if (stat := file.stat())]


def _files(ledger: Path | None) -> Iterator[Path]:
    """The ledger with its write-ahead log, those that are there."""
    for ending in ("", "-wal", "-shm"):
        if ledger is not None and (file := ledger.with_name(ledger.name + ending)).is_file():
            yield file


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=30)


def _copy(ledger: Path, target: Path) -> None:
    # VACUUM INTO sees one state, waits for no writer, and gives the same bytes for the same rows.
    try:
        with contextlib.closing(_read_only(ledger)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.OperationalError as error:
        msg = f"cannot write a snapshot of the ledger: {error}; free some space or allow writing"
        raise NoSpace(msg) from error
    except sqlite3.DatabaseError as error:
        msg = f"the ledger is damaged: {error}"
        raise Conflict(msg) from error


def _check(home: Home, file: Path) -> None:
    wrong = damage(file)
    if not wrong:
        try:
            with contextlib.closing(_read_only(file)) as connection:
                revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
                found = connection.execute("SELECT value FROM settings WHERE key = 'ledger'").fetchone()
        except sqlite3.DatabaseError as error:
            wrong = str(error)
    if wrong:
        msg = f"{file} is no whole ledger ({wrong}); take another snapshot or a backup"
        raise BadInput(msg)
    if revision > REVISION:
        msg = f"{file} is a ledger of revision {revision}, this radloop knows {REVISION}; update radloop"
        raise Conflict(msg)
    if found and home.ledger_id and found[0] != home.ledger_id:
        msg = f"{file} is the ledger of another home than {home.path}; take one from {home.path / 'snapshots'}"
        raise Conflict(msg)


def _last_id(ledger: Path) -> int:
    """The last row id that a ledger gave; 0 where it cannot say."""
    if not ledger.is_file():
        return 0
    try:
        with contextlib.closing(_read_only(ledger)) as connection:
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'labels'").fetchone()
    except sqlite3.DatabaseError:  # the damaged one that is put aside; the others are asked too
        return 0
    return int(found[0]) if found else 0


def _skip_ids(ledger: Path, last: int) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as connection, connection:
        there = connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'labels'", (last,)).rowcount
        if not there:  # no label was ever given
            connection.execute("INSERT INTO sqlite_sequence VALUES ('labels', ?)", (last,))


def _set_aside(home: Home, ledger: Path) -> Path | None:
    there = list(_files(ledger))
    if not there:
        return None
    time_now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    with writing("the damaged ledger"):
        folder = home.damaged / f"ledger-{time_now}"
        folder.mkdir()
        for file in there:
            file.replace(folder / file.name)
    return folder
