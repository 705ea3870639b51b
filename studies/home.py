"""Where state lives: labels, ledger, versions and caches, beside the studies or where the user says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import sqlalchemy as sa

from radloop.recipes.errors import BadInput, Conflict, NoSpace, NotFound
from radloop.studies.files import write_whole, writing

#: Grows when an older radloop could not use the home any more; 1 had no `home.json`.
FORMAT = 2


def is_url(studies: Path | str) -> bool:
    """Whether studies are named by an address of a DICOMweb server instead of a folder."""
    return str(studies).lower().startswith(("http:/", "https:/"))


class Home:
    """The folder of everything radloop remembers; its parts are made when first asked for.

    Attributes:
        ledger_id: which ledger it had, as `home.json` says; "" before the first one.
        restored: when its ledger was last put back from a snapshot or a backup, UTC, ISO 8601; "" if never.

    Raises:
        NoSpace: a part cannot be made (disk full or read-only).
        BadInput: a file is where a folder must be.
        Conflict: a newer radloop made it, or its `home.json` cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.ledger_id, self.restored = self._remembered()

    @classmethod
    def find(cls, studies: Path | str, home: Path | str | None = None) -> Home:
        """The home of a studies folder: `home`, else RADLOOP_HOME, else `<studies>/.radloop`.

        Raises:
            BadInput: no home is given for a URL.
            NotFound: the studies folder does not exist.
            NoSpace: no home is given and the studies folder is read-only.
        """
        given = home or os.environ.get("RADLOOP_HOME")
        if given:
            return cls(given)
        if is_url(studies):
            msg = f"studies are at {studies}, where no state can be kept; say where with --home DIR or RADLOOP_HOME"
            raise BadInput(msg)
        folder = Path(studies).expanduser()
        if not folder.is_dir():
            msg = f"studies folder {folder} does not exist; give a folder with --studies DIR"
            raise NotFound(msg)
        beside = folder / ".radloop"
        if not os.access(beside if beside.is_dir() else folder, os.W_OK):
            msg = f"studies folder {folder} is read-only; say where state is kept with --home DIR or RADLOOP_HOME"
            raise NoSpace(msg)
        return cls(beside)

    @property
    def had_ledger(self) -> bool:
        """Whether there must be a ledger: it is remembered, or labels lie here that only a ledger can name."""
        labels = self.path / "labels"
        return bool(self.ledger_id) or (labels.is_dir() and any(not f.name.startswith(".") for f in labels.iterdir()))

    def remember(self, ledger_id: str) -> None:
        """Write down which ledger this home has, so that an empty one is never taken for it."""
        self._write_down(ledger_id, self.restored)

    def remember_restored(self, time: str) -> None:
        """Write down that the ledger is put back, so that it may lack rows of labels given before."""
        self._write_down(self.ledger_id, time)

    def _write_down(self, ledger_id: str, restored: str) -> None:
        said = {"format": FORMAT, "ledger": ledger_id} | ({"restored": restored} if restored else {})
        text = json.dumps(said) + "\n"
        write_whole(self._folder("") / "home.json", lambda file: _write(file, text))
        self.ledger_id, self.restored = ledger_id, restored

    def _remembered(self) -> tuple[str, str]:
        file = self.path / "home.json"
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            found, ledger_id, restored = int(said["format"]), str(said["ledger"]), str(said.get("restored", ""))
        except (FileNotFoundError, NotADirectoryError):
            return "", ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{file} cannot be read ({type(error).__name__}); put it back from a backup, or delete it if damaged"
            raise Conflict(msg) from error
        if found > FORMAT:
            msg = f"the home {self.path} is of format {found}, this radloop knows {FORMAT}; update radloop"
            raise Conflict(msg)
        return ledger_id, restored

    def _folder(self, name: str) -> Path:
        folder = self.path / name if name else self.path
        try:
            with writing(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            msg = f"state cannot be kept in {folder}: a file is in the way; give another folder with --home DIR"
            raise BadInput(msg) from error
        return folder

    @property
    def labels(self) -> Path:
        """Content of every label, one file a checksum."""
        return self._folder("labels")

    @property
    def versions(self) -> Path:
        """Model versions, one folder each."""
        return self._folder("versions")

    @property
    def cache(self) -> Path:
        """What can be made again: preprocessed studies, converted DICOM."""
        return self._folder("cache")

    @property
    def app(self) -> Path:
        """The copy of the app folder that MONAI Label writes into."""
        return self._folder("app")

    @property
    def recipes(self) -> Path:
        """The user's own recipes, one TOML each."""
        return self._folder("recipes")

    @property
    def sessions(self) -> Path:
        """Images that a viewer uploaded without putting them into the studies."""
        return self._folder("sessions")

    @property
    def logs(self) -> Path:
        """What the server and the trainings said."""
        return self._folder("logs")

    @property
    def view(self) -> Path:
        """Stands in for `labels/` of a studies folder that is read-only."""
        return self._folder("view")

    @property
    def snapshots(self) -> Path:
        """Copies of the ledger, the newest few."""
        return self._folder("snapshots")

    @property
    def damaged(self) -> Path:
        """Files of the ledger that were found damaged, kept when others took their place."""
        return self._folder("damaged")

    @property
    def ledger_file(self) -> Path | None:
        """The ledger's SQLite file, there or not; None where it is in another database."""
        given = os.environ.get("RADLOOP_LEDGER")
        if not given:
            return self.path / "ledger.db"
        url = database_url(given)
        return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger: RADLOOP_LEDGER, else SQLite in the home."""
        return os.environ.get("RADLOOP_LEDGER") or f"sqlite:///{self._folder('') / 'ledger.db'}"

    @property
    def registry_db(self) -> Path:
        """SQLite file of the model registry."""
        return self._folder("") / "registry.db"


def database_url(text: str) -> sa.URL:
    """An SQLAlchemy URL.

    Raises:
        BadInput: it is none.
    """
    try:
        return sa.make_url(text)
    except sa.exc.ArgumentError as error:
        # never the text: it may hold a password
        msg = "RADLOOP_LEDGER is no database URL; write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        raise BadInput(msg) from error


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
