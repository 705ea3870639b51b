"""`labels/final`: what people find in the studies folder, made from the ledger and never trusted over it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from radloop.recipes.errors import BadLabel
from radloop.studies.files import write_whole, writing
from radloop.studies.folder import MASK_ENDINGS, StudiesFolder, split_ending
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.rows import LabelRow

#: `.seg.nrrd` before `.nrrd`, so that an ending is found whole.
VIEW_ENDINGS = (".seg.nrrd", *(ending for ending in MASK_ENDINGS if ending != ".seg.nrrd"))


class View:
    """The folder of final labels, `labels/final` or its stand-in in the home where the studies are read-only.

    A file from elsewhere stays as it came until a reader corrects its study.
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
        """The masks of one study."""
        paths = (self.path / f"{study_id}{ending}" for ending in VIEW_ENDINGS)
        return [path for path in paths if path.is_file()]

    def show(self, row: LabelRow) -> None:
        """Make a study's file the content of a row.

        Raises:
            BadLabel: a file that the ledger does not know is in the way; it is left there.
            Conflict: the row's content is damaged; what is shown stays.
            NoSpace: the view cannot be written; the ledger has the label all the same.
        """
        target = self.path / f"{row.study}{row.ext}"
        there = {file: checksum(file) for file in self.of_study(row.study)}
        if there == {target: row.checksum}:
            return
        original = self.ledger.originals(row.study).get(row.study) if there else None
        if row.origin == "import" and original is not None and original.checksum in there.values():
            return
        content = self.ledger.content(row, self.folder.final_dir, self.path)
        for file, digest in there.items():
            if not self.ledger.knows(digest, row.study):
                msg = f"{file.name} is not a label that the ledger has, and is left in the way; move it elsewhere"
                raise BadLabel(msg)
        with writing(f"labels/final/{target.name}"):
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(target, lambda temporary: _copy(content, temporary), row.ext)
            for file in there:
                if file != target:
                    file.unlink(missing_ok=True)

    def clear(self, shown: Collection[str]) -> None:
        """Take away the files of retracted labels; their content stays in the ledger.

        Args:
            shown: studies whose files stay in any case.
        """
        for study_id, file in _masks(self.path):
            if study_id in shown:
                continue
            rows = self.ledger.history(study_id)
            retracted = bool(rows) and not any(self.ledger.latest(study_id, name) for name in {r.recipe for r in rows})
            if retracted and self.ledger.knows(checksum(file), study_id):
                with writing(f"labels/final/{file.name}"):
                    file.unlink(missing_ok=True)


def unknown_masks(folder: StudiesFolder, ledger: Ledger) -> list[str]:
    """File names of the masks in `labels/final` that the ledger does not have yet; nothing is taken in."""
    known = ledger.contents()
    return [file.name for study_id, file in View(folder, ledger).files() if (study_id, checksum(file)) not in known]


def _masks(folder: Path) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        study_id, ending = split_ending(name, VIEW_ENDINGS)
        if ending and study_id and not name.startswith(".") and (folder / name).is_file():
            yield study_id, folder / name


def _copy(source: Path, target: Path) -> None:
    # Never a hard link: a program that writes into the view's file would write into the ledger's.
    shutil.copyfile(source, target)
