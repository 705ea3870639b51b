"""The content of labels, checked against its checksum before anybody reads it, and mended from `labels/final`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.recipes.errors import Conflict, NoSpace
from radloop.studies import snapshots
from radloop.studies.answers import found_again
from radloop.studies.files import write_whole, writing
from radloop.studies.home import Home
from radloop.studies.rows import LabelRow, Original, checksum

if TYPE_CHECKING:
    from radloop.studies.ledger import Ledger

log = logging.getLogger(__name__)

_DAMAGED = ".damaged"
#: How the name of a forgotten patient, and of their studies, begins.
FORGOTTEN = "forgotten-"


class Contents:
    """Files by checksum, `<home>/labels/<SHA-256><ending>`.

    A file is read through once by each process, and again when its size, time or inode changed.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._checked: dict[Path, tuple[int, int, int, int]] = {}

    def path(self, row: LabelRow | Original) -> Path:
        """Where the content of a row lies, whatever is there."""
        return self._home.labels / f"{row.checksum}{row.ext}"

    def whole(self, row: LabelRow | Original) -> bool:
        """Whether the content is there as it was given."""
        file = self.path(row)
        try:
            stat = file.stat()
            stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            if self._checked.get(file) == stamp:
                return True
            if checksum(file) != row.checksum:
                return False
        except OSError:
            return False
        self._checked[file] = stamp
        return True

    def find(self, row: LabelRow | Original, shown_in: Iterable[Path] = ()) -> Path:
        """A file with the content as it was given, mended where it was not.

        Args:
            shown_in: folders of final labels, which may have a copy; that of the home's own studies is looked into
                in any case.

        Raises:
            Conflict: it is damaged or missing, and there is no copy.
        """
        target = self.path(row)
        if self.whole(row):
            return target
        copy = self._copy_of(row, shown_in)
        if copy is None and isinstance(row, LabelRow) and row.is_answer and self._find_again(row, target):
            return target
        if copy is None:
            what = f"label {row.id}" if isinstance(row, LabelRow) else f"file {row.id} from elsewhere"
            how = "is not what was given" if target.is_file() else "is missing"
            msg = f"{what} of study {row.study!r} is damaged: its content labels/{target.name} {how}; "
            msg += "put that file back from a backup, or label the study again"
            raise Conflict(msg)
        try:
            put_aside(target)
            write_whole(target, lambda temporary: _copy(copy, temporary), row.ext)
        except NoSpace as error:
            log.warning("labels/%s is damaged; %s is read instead: %s", target.name, copy.name, error)
            return copy
        log.warning("labels/%s was damaged or missing and is mended from %s", target.name, copy)
        return target

    def _find_again(self, row: LabelRow, target: Path) -> bool:
        """Many studies have the same answer and so the same file: one that is damaged must not cost them all."""
        text = found_again(row.names, row.checksum)
        if text is None:
            return False
        put_aside(target)
        write_whole(target, lambda temporary: _write(temporary, text), row.ext)
        log.warning("labels/%s was damaged or missing and is written anew from its checksum", target.name)
        return True

    def _copy_of(self, row: LabelRow | Original, shown_in: Iterable[Path]) -> Path | None:
        places = [*shown_in, self._home.path / "view" / "final", self._home.path.parent / "labels" / "final"]
        for place in places:
            for file in (place / f"{row.study}{row.ext}", place / f"{row.study}{row.ext.upper()}"):
                if file.is_file() and checksum(file) == row.checksum:
                    return file
        return None


def put_aside(file: Path) -> None:
    """Move a damaged file into `.damaged` beside it; nothing where there is none.

    Raises:
        NoSpace: it cannot be moved.
    """
    if not os.path.lexists(file):
        return
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    with writing(file.name):
        folder = file.parent / _DAMAGED
        folder.mkdir(exist_ok=True)
        file.replace(folder / f"{stamp}-{file.name}")


def damaged(ledger: Ledger) -> list[LabelRow | Original]:
    """The rows whose content is not as it was given, labels first; nothing is mended, see `mend`.

    Rows of studies that were forgotten have no content.
    """
    found: list[LabelRow | Original] = [row for row in ledger.history() if not row.study.startswith(FORGOTTEN)]
    found += [row for row in ledger.originals().values() if not row.study.startswith(FORGOTTEN)]
    return [row for row in found if not ledger.whole(row)]


def mend(ledger: Ledger, *shown_in: Path) -> list[tuple[Path, str]]:
    """Mend what can be mended; gives the files that cannot, each with the reason."""
    lost = {}
    for row in damaged(ledger):
        try:
            ledger.content(row, *shown_in)
        except Conflict as error:
            lost[ledger.file(row)] = str(error)
    return list(lost.items())


def unnamed(ledger: Ledger) -> list[str]:
    """Checksums of the contents in `<home>/labels` that no row names.

    Their rows were lost, as with the end of a write-ahead log, or were never written, so that nobody was told that the
    label is kept.
    """
    there = {file.name.partition(".")[0] for file in ledger.home.labels.iterdir() if not file.name.startswith(".")}
    return sorted(there - {digest for _, digest in ledger.contents()})


def about_unnamed(ledger: Ledger) -> str:
    """What to say and do about contents that no row names, in one line; "" where there are none."""
    lost = unnamed(ledger)
    if not lost:
        return ""
    file, count = snapshots.naming(ledger.home, lost)
    do = "no snapshot names them; if labels are missing, `radloop restore` a backup"
    if file:
        do = f"a snapshot names {count}: stop the server, then `radloop restore {file} --studies DIR`"
    what = f"files in {ledger.home.labels} that no row of the ledger names: {len(lost)}"
    return f"{what}; they were never acknowledged, or rows were lost, as with a cut ledger.db-wal; {do}"


def _write(target: Path, content: bytes) -> None:
    target.write_bytes(content)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
