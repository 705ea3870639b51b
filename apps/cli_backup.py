"""`radloop backup` and `restore`: a home in one file and back; a snapshot of the ledger made the ledger again."""

from __future__ import annotations

import argparse
from pathlib import Path

from radloop.apps.place import open_folder
from radloop.apps.server_process import is_serving
from radloop.apps.terminal import bar, complain, plural, say
from radloop.apps.training import no_training
from radloop.recipes.errors import Conflict
from radloop.studies.home import Home

_SQLITE = b"SQLite format 3\0"
SINCE = "labels given since are taken in again from labels/final at the next start, as author import and never as blind"


def backup(options: argparse.Namespace) -> int:
    """Writes the home into a file and reads that back; servers and trainings go on meanwhile."""
    from radloop.registry.backup import backup as write

    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    with bar(None, "backup", "B") as shown:
        packed = write(home, options.out.expanduser(), shown.update, folder.final_dir)
    for reason in packed.left_out:
        complain(f"warning: left out: {reason}")
    rows, versions = plural(packed.labels, "ledger row"), plural(packed.versions, "version")
    say(f"{options.out}: {rows} with their contents, {versions}, {packed.size / 1e6:.1f} MB, read back and whole")
    say(f"the images in {options.studies} are not in it; copy that folder by other means")
    return 0


def restore(options: argparse.Namespace) -> int:
    """Makes a home of a backup, or puts a snapshot of the ledger into the home that is there.

    Raises:
        Conflict: a server of this home is running, the home is not empty, or a snapshot is to go in while a training
            runs.
    """
    file = options.file.expanduser()
    home = Home.find(open_folder(options.studies).path, options.home)
    if is_serving(home):
        msg = f"a server of {home.path} is running; stop it, then restore again"
        raise Conflict(msg)
    if file.suffix == ".db" or _begins(file) == _SQLITE:
        return _put_back(home, file)
    from radloop.registry.backup import restore as unpack

    with bar(None, "restore", "B") as shown:
        taken = unpack(file, home, shown.update)
    say(f"{home.path} is as it was at {taken}; what serves, the labels and the split are the same")
    say(SINCE)
    return 0


def _begins(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as handle:
        return handle.read(len(_SQLITE))


def _put_back(home: Home, file: Path) -> int:
    from radloop.registry.lineage import last_row_named
    from radloop.studies.snapshots import put_back

    recipes = [lock.stem.removeprefix("train-") for lock in home.path.glob("train-*.lock")]
    with no_training(home, recipes, "restore again"):
        aside = put_back(home, file, last_row_named(home))
    say(f"{file.name} is the ledger of {home.path} now")
    if aside:
        say(f"the one that was there is kept in {aside}")
    say(SINCE)
    return 0
