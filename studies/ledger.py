"""Every label ever given, in the order given: content by checksum, rows that are only ever added.

A label is safe when `add` returns: its content is on the disk under its checksum, then its row is committed.
Retracting and confirming are further rows.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from radloop.recipes.errors import BadInput, Conflict, NotFound
from radloop.studies import rows, tables
from radloop.studies.contents import Contents, put_aside
from radloop.studies.database import open_ledger
from radloop.studies.files import sync, write_whole, writing
from radloop.studies.home import Home
from radloop.studies.rows import (
    AuthorKind,
    LabelRow,
    Origin,
    Original,
    State,
    Training,
    TrainingState,
    checksum,
    now,
)

__all__ = [
    "AuthorKind",
    "LabelRow",
    "Ledger",
    "Origin",
    "Original",
    "State",
    "Training",
    "TrainingState",
    "checksum",
    "now",
]

_LABELS = tables.labels
_SHOWN = tables.shown
_TRAININGS = tables.trainings
_ORIGINALS = tables.originals


class Ledger:
    """The labels of one home; any number of processes may use it at once.

    Args:
        home: where the content lies and which database holds the rows.

    Raises:
        NoSpace: the ledger cannot be made for want of space or permission.
        Conflict: it is missing, damaged, another home's, or newer than this radloop.
        BadInput: RADLOOP_LEDGER is no address of a database that can be used.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.database = open_ledger(home)
        self._contents = Contents(home)

    # Labels

    def add(
        self,
        study: str,
        patient: str,
        recipe: str,
        author: str,
        content: Path,
        ext: str,
        names: Sequence[str],
        *,
        ids: Sequence[str] = (),
        state: State = "final",
        shown_version: str = "",
        origin: Origin = "reader",
        author_kind: AuthorKind = "self-declared",
        note: str = "",
    ) -> LabelRow:
        """Keep a label for good and give its row.

        Args:
            content: the mask; it is copied.
            ext: its file ending, such as `.nii.gz`.
            names: the recipe's labels that were looked at.
            ids: what the values 1..N in it mean, in their order: the recipe's labels of now.

        Raises:
            NoSpace: the disk is full or read-only; the ledger is as it was.
        """
        digest = self._store(Path(content), ext)
        values = {
            "study": study,
            "patient": patient,
            "recipe": recipe,
            "author": author,
            "author_kind": author_kind,
            "shown_version": shown_version,
            "checksum": digest,
            "ext": ext,
            "names": rows.as_json(names),
            "ids": rows.as_json(ids),
            "state": state,
            "origin": origin,
            "note": note,
        }
        with self.database.write() as connection:
            parent = connection.execute(rows.current(recipe, study)).first()
            return rows.append(connection, {**values, "parent": parent.id if parent else None})

    def current(self, recipe: str, until: int | None = None) -> dict[str, LabelRow]:
        """The newest final label of every study that is not retracted, by study id.

        Args:
            until: as if no row after this id had been given, but without what was retracted since.
        """
        with self.database.read() as connection:
            found = connection.execute(rows.current(recipe, until=until)).all()
        return {row.study: rows.label_row(row) for row in found}

    def latest(self, study: str, recipe: str) -> LabelRow | None:
        """The newest final label of a study that is not retracted, or None."""
        with self.database.read() as connection:
            row = connection.execute(rows.current(recipe, study)).first()
        return rows.label_row(row) if row else None

    def history(
        self,
        study: str | None = None,
        recipe: str | None = None,
        author: str | None = None,
        since: str | datetime | None = None,
    ) -> list[LabelRow]:
        """Every row that fits, oldest first.

        Raises:
            BadInput: `since` is no time.
        """
        with self.database.read() as connection:
            return [rows.label_row(row) for row in connection.execute(rows.matching(study, recipe, author, since))]

    def row(self, row_id: int) -> LabelRow:
        """One row by its id.

        Raises:
            NotFound: there is none.
        """
        with self.database.read() as connection:
            found = connection.execute(sa.select(_LABELS).where(_LABELS.c.id == row_id)).first()
        if found is None:
            msg = f"label {row_id} is not in the ledger; `radloop labels list` shows the ids"
            raise NotFound(msg)
        return rows.label_row(found)

    def file(self, row: LabelRow | Original) -> Path:
        """Where the content of a row lies, whatever became of it; read what `content` gives."""
        return self._contents.path(row)

    def content(self, row: LabelRow | Original, *shown_in: Path) -> Path:
        """The content of a row, as it was given; mended where it was altered or is gone and a copy is left.

        Args:
            shown_in: folders of final labels that may have a copy, such as `StudiesFolder.final_dir`.

        Raises:
            Conflict: it is damaged and there is no copy; names the study, the row and what to do.
        """
        return self._contents.find(row, shown_in)

    def whole(self, row: LabelRow | Original) -> bool:
        """Whether the content of a row is there as it was given; nothing is mended."""
        return self._contents.whole(row)

    def revoke(
        self,
        author: str | None = None,
        since: str | datetime | None = None,
        ids: Iterable[int] | None = None,
        *,
        by: str = "",
        note: str = "",
    ) -> list[LabelRow]:
        """Retract labels by appending one row each; the content stays. A held one takes what confirmed it along.

        Args:
            author: only labels of this author.
            since: only labels given at this time or later.
            ids: only these rows.
            by: who retracts; "" takes the label's own author.

        Raises:
            BadInput: nothing says which labels, or `since` is no time.
            NotFound: one of `ids` is not there.
        """
        if author is None and since is None and ids is None:
            msg = "say which labels to retract: an author, a time or row ids"
            raise BadInput(msg)
        wanted = None if ids is None else set(ids)
        with self.database.write() as connection:
            found = [rows.label_row(row) for row in connection.execute(rows.matching(None, None, author, since))]
            gone = {row.parent for row in connection.execute(rows.revocations())}
            chosen = [row for row in found if wanted is None or row.id in wanted]
            missing = sorted((wanted or set()) - {row.id for row in chosen})
            if missing:
                msg = f"label {missing[0]} is not in the ledger, or is none of the author and time asked for"
                raise NotFound(msg)
            held = rows.confirmations(row for row in chosen if row.state == "held")
            both = {row.id: row for row in [*chosen, *map(rows.label_row, connection.execute(held))]}
            live = [row for i, row in sorted(both.items()) if row.state != "revoked" and i not in gone]
            return [rows.follow(connection, row, "revoked", by or row.author, note) for row in live]

    def retracted(self, recipe: str | None = None) -> set[int]:
        """Ids of the rows that were retracted, of one recipe or of all."""
        query = rows.revocations()
        if recipe is not None:
            query = query.where(_LABELS.c.recipe == recipe)
        with self.database.read() as connection:
            return {int(row.parent) for row in connection.execute(query)}

    def last_retraction(self, recipe: str) -> int:
        """Id of the newest row that retracts a label of a recipe; 0 where none does."""
        query = sa.select(sa.func.max(_LABELS.c.id)).where(_LABELS.c.recipe == recipe, _LABELS.c.state == "revoked")
        with self.database.read() as connection:
            return connection.execute(query).scalar() or 0

    def confirm(self, row_id: int, author: str = "", note: str = "") -> LabelRow:
        """Make a held label final by appending a row.

        Args:
            author: who confirms; "" takes the label's own author.

        Raises:
            NotFound: there is no such row.
            Conflict: the label is not held, was confirmed or retracted already, or a newer one stands.
        """
        row = self.row(row_id)
        with self.database.write() as connection:
            found = connection.execute(rows.matching(row.study, row.recipe, None, None))
            if reason := rows.not_waiting(row, [rows.label_row(one) for one in found]):
                msg = f"label {row_id} {reason}"
                raise Conflict(msg)
            return rows.follow(connection, row, "final", author or row.author, note or "confirmed")

    # What a reader was shown

    def record_shown(self, study: str, recipe: str, client: str, version: str) -> None:
        """Remember that a viewer was given a version's answer for a study."""
        values = {"study": study, "recipe": recipe, "client": client, "version": version, "time": now()}
        with self.database.write() as connection:
            connection.execute(_SHOWN.insert().values(values))

    def shown(self, study: str, recipe: str, client: str) -> str:
        """The version whose answer a viewer was given last for a study; "" means none, blind."""
        query = sa.select(_SHOWN.c.version).where(
            _SHOWN.c.study == study, _SHOWN.c.recipe == recipe, _SHOWN.c.client == client
        )
        with self.database.read() as connection:
            return connection.execute(query.order_by(_SHOWN.c.id.desc()).limit(1)).scalar() or ""

    # Trainings

    def last_row(self) -> int:
        """Id of the newest label row; 0 in an empty ledger."""
        with self.database.read() as connection:
            return connection.execute(sa.select(sa.func.max(_LABELS.c.id))).scalar() or 0

    def start_training(self, recipe: str, pid: int, request: str = "") -> int:
        """Write down that a training began, up to which label, and what was asked for (JSON); gives its id."""
        with self.database.write() as connection:
            last = connection.execute(sa.select(sa.func.max(_LABELS.c.id))).scalar() or 0
            values = {"recipe": recipe, "pid": pid, "host": socket.gethostname(), "started": now()}
            values |= {"finished": "", "state": "running", "note": "", "last_row": last, "request": request}
            return rows.insert(connection, _TRAININGS, values)

    def finish_training(self, training_id: int, state: TrainingState, note: str = "") -> None:
        """Write down how a training ended."""
        with self.database.write() as connection:
            connection.execute(
                _TRAININGS.update().where(_TRAININGS.c.id == training_id).values(state=state, note=note, finished=now())
            )

    def last_training(self, recipe: str) -> Training | None:
        """The training of a recipe that began last, or None."""
        query = sa.select(_TRAININGS).where(_TRAININGS.c.recipe == recipe).order_by(_TRAININGS.c.id.desc()).limit(1)
        with self.database.read() as connection:
            row = connection.execute(query).first()
        return Training(**row._mapping) if row else None

    def new_labels_since_last_training(self, recipe: str) -> int:
        """Studies whose current label is newer than the start of the recipe's last training."""
        training = self.last_training(recipe)
        last = training.last_row if training else 0
        return sum(row.id > last for row in self.current(recipe).values())

    # Files that came from elsewhere

    def add_original(self, study: str, content: Path, ext: str, names: Mapping[str, int] | None) -> Original:
        """Keep a mask file that came from elsewhere as it was, beside the labels made from it.

        Args:
            names: what its voxel values mean; None where they are ids of the recipe it became a label of.

        Raises:
            NoSpace: the disk is full or read-only; the ledger is as it was.
        """
        values = {
            "study": study,
            "checksum": self._store(Path(content), ext),
            "ext": ext,
            "names": "" if names is None else json.dumps(dict(names), ensure_ascii=False),
        }
        with self.database.write() as connection:
            values["time"] = rows.next_time(connection)
            return rows.original({**values, "id": rows.insert(connection, _ORIGINALS, values)})

    def originals(self, study: str | None = None) -> dict[str, Original]:
        """The newest file from elsewhere of every study (or of one), by study id."""
        return {original.study: original for original in self.every_original(study)}

    def every_original(self, study: str | None = None) -> list[Original]:
        """Every file from elsewhere (of one study), oldest first."""
        query = sa.select(_ORIGINALS).order_by(_ORIGINALS.c.id)
        if study is not None:
            query = query.where(_ORIGINALS.c.study == study)
        with self.database.read() as connection:
            return [rows.original(dict(row._mapping)) for row in connection.execute(query)]

    def contents(self) -> set[tuple[str, str]]:
        """Study id and checksum of everything that is kept; see `knows`."""
        with self.database.read() as connection:
            return {
                (row.study, row.checksum)
                for table in (_LABELS, _ORIGINALS)
                for row in connection.execute(sa.select(table.c.study, table.c.checksum))
            }

    def knows(self, digest: str, study: str) -> bool:
        """Whether this content is kept as a study's label, of whatever recipe and state, or as its original."""
        with self.database.read() as connection:
            return any(
                connection.execute(
                    sa.select(table.c.id).where(table.c.checksum == digest, table.c.study == study).limit(1)
                ).first()
                for table in (_LABELS, _ORIGINALS)
            )

    def _store(self, content: Path, ext: str) -> str:
        digest = checksum(content)
        target = self.home.labels / f"{digest}{ext}"
        with writing(target.name):
            if target.is_file():
                if checksum(target) == digest:
                    sync(target)
                    return digest
                put_aside(target)
            write_whole(target, lambda temporary: _copy(content, temporary), ext)
        return digest


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
