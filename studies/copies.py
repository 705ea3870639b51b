"""Studies and their home once more, for work that must change nothing: images by link, labels and ledger as copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from radloop.studies.files import sync, writing
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.rows_copy import copy_to_file

_STUDIES, _HOME, _LEDGER = "studies", "home", "ledger.db"
_KEPT = ("names.json",)  # of `labels/`, beside `final`


class CopiedHome(Home):
    """The home of a copy: its ledger is the SQLite file in it, whatever RADLOOP_LEDGER says."""

    @property
    def ledger_file(self) -> Path:
        """The ledger's file."""
        return self.path / _LEDGER

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of that file."""
        return f"sqlite:///{self._folder('') / _LEDGER}"


def copy_of(folder: StudiesFolder, home: Home, into: Path) -> tuple[StudiesFolder, CopiedHome]:
    """Studies with a home of their own in `into`; what a killed process left is made anew, a whole copy is found again.

    In the copy are the ledger with its split and contents, the home's recipes, `labels/final` and `answers.csv`; not
    the versions. Labels given after it was made are not in it.

    Raises:
        NoSpace: the disk is full or read-only; nothing is left behind.
        Conflict: the ledger is damaged.
    """
    if not into.is_dir():
        with writing(str(into)):
            into.parent.mkdir(parents=True, exist_ok=True)
            private = Path(mkdtemp(prefix=".making-", dir=into.parent))
        try:
            with writing(str(into)):
                _copy_studies(folder, private / _STUDIES)
                _copy_home(home, private / _HOME)
                private.rename(into)
                sync(into.parent)
        except BaseException:
            shutil.rmtree(private, ignore_errors=True)
            raise
    return StudiesFolder(into / _STUDIES, folder.channels), CopiedHome(into / _HOME)


def _copy_studies(folder: StudiesFolder, into: Path) -> None:
    into.mkdir()
    for study in folder.studies().values():
        for channel in study.channels:
            if channel.exists():
                (into / channel.name).symlink_to(channel)
    if (folder.path / "answers.csv").is_file():
        shutil.copy2(folder.path / "answers.csv", into)
    labels = into / "labels"
    labels.mkdir()
    for name in _KEPT:
        if (folder.path / "labels" / name).is_file():
            shutil.copy2(folder.path / "labels" / name, labels)
    if folder.final_dir.is_dir():
        shutil.copytree(folder.final_dir, labels / "final", ignore=lambda _, names: _hidden(names))


def _copy_home(home: Home, into: Path) -> None:
    into.mkdir()
    if home.had_ledger:
        copy_to_file(Ledger(home).database, into / _LEDGER)
        _copy_files(home.path / "labels", into / "labels")
        if (home.path / "home.json").is_file():
            shutil.copy2(home.path / "home.json", into)
    _copy_files(home.path / "recipes", into / "recipes")


def _copy_files(source: Path, into: Path) -> None:
    into.mkdir()
    for name in sorted(os.listdir(source)) if source.is_dir() else ():
        if not name.startswith(".") and (source / name).is_file():
            shutil.copy2(source / name, into)


def _hidden(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".")]
