"""`labels/final`: what people find in the studies folder, made from the ledger and never trusted over it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path

from radloop.recipes.errors import BadLabel
from radloop.studies.files import write_whole, writing
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, split_ending
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.rows import LabelRow, Original

#: `.seg.nrrd` before `.nrrd`, so that an ending is found whole.
VIEW_ENDINGS = (".seg.nrrd", *(ending for ending in MASK_ENDINGS if ending != ".seg.nrrd"))

#: The note of a label that a recipe got from a file kept earlier, as `Intake` writes it.
_REUSED = re.compile(r"from original (\d+)(;|$)")


class View:
    """The folder of final labels, `labels/final` or its stand-in in the home where the studies are read-only.

    A label that was imported is shown as the file that it came from.
    """

    def __init__(self, folder: StudiesFolder, ledger: Ledger) -> None:
        self.folder = folder
        self.ledger = ledger
        above = next(path for path in (folder.final_dir, *folder.final_dir.parents) if path.exists())
        self.path = folder.final_dir if os.access(above, os.W_OK) else ledger.home.view / "final"

    def files(self) -> list[tuple[str, Path]]:
        """Study id and path of every mask, also of those in a read-only `labels/final`."""
        folders = dict.fromkeys((self.folder.final_dir, self.path))
        return [found for folder in folders for found in _masks(folder)]

    def of_study(self, study_id: str) -> list[Path]:
        """The masks of one study, their endings in whatever case."""
        return [path for name, path in _masks(self.path, f"{study_id}.") if name == study_id]

    def show(self, row: LabelRow) -> None:
        """Make a study's file the content of a row.

        Raises:
            BadLabel: a file that the ledger does not know is in the way; it is left there.
            Conflict: the row's content is damaged; what is shown stays.
            NoSpace: the view cannot be written; the ledger has the label all the same.
        """
        original = original_of(self.ledger, row)
        kept = original or row
        target = self.path / f"{row.study}{kept.ext}"
        there = {file: checksum(file) for file in self.of_study(row.study)}
        if there == {target: kept.checksum} or (original and original.checksum in there.values()):
            return
        content = self.ledger.content(kept, self.folder.final_dir, self.path)
        for file, digest in there.items():
            if not self.ledger.knows(digest, row.study):
                msg = f"{file.name} is not a label that the ledger has, and is left in the way; move it elsewhere"
                raise BadLabel(msg)
            if said := self._taken_back(row.study, file, digest):
                raise BadLabel(said)
        with writing(f"labels/final/{target.name}"):
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(target, lambda temporary: _copy(content, temporary), kept.ext)
            for file in there:
                if file != target:
                    file.unlink(missing_ok=True)

    def clear(self, shown: Collection[str]) -> list[tuple[Path, str]]:
        """Take away the files of retracted labels; their content stays in the ledger.

        Args:
            shown: studies whose files stay in any case.

        Returns:
            Files that were put there after their label was taken back, left untouched, with the reason.
        """
        put_back = []
        for study_id, file in _masks(self.path):
            if study_id in shown:
                continue
            rows = [row for row in self.ledger.history(study_id) if not row.is_answer]
            retracted = bool(rows) and not any(self.ledger.latest(study_id, name) for name in {r.recipe for r in rows})
            digest = checksum(file) if retracted else ""
            if not self.ledger.knows(digest, study_id):
                continue
            if said := self._taken_back(study_id, file, digest):
                put_back.append((file, said))
                continue
            with writing(f"labels/final/{file.name}"):
                file.unlink(missing_ok=True)
        return put_back

    def _taken_back(self, study_id: str, file: Path, digest: str) -> str:
        """What to say of a file that somebody put there after its label was taken back; "" of any other."""
        rows = self.ledger.history(study_id)
        gone = {row.parent: row for row in rows if row.state == "revoked"}
        made = [row for row in rows if row.state != "revoked" and digest in self._checksums(row)]
        if not made or any(row.id not in gone for row in made):
            return ""
        last = max((gone[row.id] for row in made), key=lambda row: row.id)
        # The time of the inode: no copy can bring an older one along.
        put_there = datetime.fromtimestamp(file.stat().st_ctime, timezone.utc)
        if put_there <= datetime.fromisoformat(last.time):
            return ""
        return f"this mask was taken back as row {last.id}; delete the file, or save it in a viewer if it is right"

    def _checksums(self, row: LabelRow) -> set[str]:
        original = original_of(self.ledger, row)
        return {row.checksum, original.checksum} if original else {row.checksum}


def original_of(ledger: Ledger, row: LabelRow) -> Original | None:
    """The file from elsewhere that a label was made of; None where the label came otherwise."""
    if row.origin != "import":
        return None
    kept = ledger.every_original(row.study)
    if reused := _REUSED.match(row.note):
        return next((original for original in kept if original.id == int(reused[1])), None)
    # It is kept right after the labels made of it, and before the next import of its recipe.
    later = [one.time for one in ledger.history(row.study, row.recipe) if one.id > row.id and one.origin == "import"]
    found = next((original for original in kept if original.time >= row.time), None)
    return found if found and all(found.time <= time for time in later) else None


def unknown_masks(folder: StudiesFolder, ledger: Ledger) -> list[str]:
    """File names of the masks in `labels/final` that the ledger does not have yet; nothing is taken in."""
    known = ledger.contents()
    return [file.name for study_id, file in View(folder, ledger).files() if (study_id, checksum(file)) not in known]


def _masks(folder: Path, beginning: str = "") -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        return
    for name in sorted(name for name in os.listdir(folder) if name.startswith(beginning)):
        study_id, ending = split_ending(name, VIEW_ENDINGS)
        if ending and study_id and not name.startswith(".") and (folder / name).is_file():
            yield study_id, folder / name


def _copy(source: Path, target: Path) -> None:
    # Never a hard link: a program that writes into the view's file would write into the ledger's.
    shutil.copyfile(source, target)
