"""Rows of the ledger as values, and the questions asked of them as queries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from radloop.recipes.errors import BadInput
from radloop.studies import tables
from radloop.studies.answers import ENDING

State = Literal["final", "draft", "held", "revoked"]
Origin = Literal["reader", "import", "proposal-accepted"]
AuthorKind = Literal["self-declared", "import", "system"]
TrainingState = Literal["running", "done", "failed", "cancelled"]

_LABELS = tables.labels
#: What the reader had seen, where the row that said so is lost.
UNKNOWN = "unknown"
_SETTLED = ("final", "revoked")


@dataclass(frozen=True)
class LabelRow:
    """One line of the ledger.

    Attributes:
        id: grows with every row; the order in which labels were given.
        author_kind: how we know the author: by their own word, as the importer, or as radloop itself.
        time: UTC, ISO 8601.
        parent: the row that this one corrects, retracts or confirms.
        shown_version: the model version whose answer the reader had seen; "" means blind, `UNKNOWN` that nobody knows.
        checksum: SHA-256 of the content.
        ext: the content's file ending, such as `.nii.gz`.
        names: the recipe's labels that the reader looked at.
        ids: what the values 1..N in the content mean, in their order, whatever the recipe says by now; empty in rows of
            older releases, whose values are the ids of the recipe.
    """

    id: int
    study: str
    patient: str
    recipe: str
    author: str
    author_kind: str
    time: str
    parent: int | None
    shown_version: str
    checksum: str
    ext: str
    names: tuple[str, ...]
    ids: tuple[str, ...]
    state: str
    origin: str
    note: str

    @property
    def is_answer(self) -> bool:
        """Whether it answers about the whole study in words, and has no mask."""
        return self.ext == ENDING


@dataclass(frozen=True)
class Training:
    """One run of a training.

    Attributes:
        started: UTC, ISO 8601; so is `finished`, empty while it runs.
        last_row: id of the newest label row when it started.
        request: what was asked for (epochs, minutes, seed, ...), as JSON; empty in rows of older releases.
    """

    id: int
    recipe: str
    pid: int
    host: str
    started: str
    finished: str
    state: str
    note: str
    last_row: int
    request: str


@dataclass(frozen=True)
class Original:
    """A mask file that came from elsewhere, kept as it was.

    Attributes:
        names: what its voxel values mean; None where they are ids of the recipe it became a label of.
        time: UTC, ISO 8601.
    """

    id: int
    study: str
    checksum: str
    ext: str
    names: dict[str, int] | None
    time: str


def now() -> str:
    """The time in UTC, ISO 8601 to the millisecond; sorts as text."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def revocations() -> sa.Select[Any]:
    """Ids of the rows that were retracted."""
    return sa.select(_LABELS.c.parent).where(_LABELS.c.state == "revoked")


def current(recipe: str, study: str | None = None, until: int | None = None) -> sa.Select[Any]:
    """The newest final row of every study (or of one) that is not retracted, by study id.

    Args:
        until: only rows up to this id; a retraction counts whenever it came.
    """
    gone = _LABELS.alias("gone")
    newest = sa.select(sa.func.max(_LABELS.c.id)).where(
        _LABELS.c.recipe == recipe,
        _LABELS.c.state == "final",
        ~sa.exists().where(gone.c.parent == _LABELS.c.id, gone.c.state == "revoked"),
    )
    if study is not None:
        newest = newest.where(_LABELS.c.study == study)
    if until is not None:
        newest = newest.where(_LABELS.c.id <= until)
    return sa.select(_LABELS).where(_LABELS.c.id.in_(newest.group_by(_LABELS.c.study))).order_by(_LABELS.c.study)


def confirmations(held: Iterable[LabelRow]) -> sa.Select[Any]:
    """The final rows that confirmed these held ones."""
    return sa.select(_LABELS).where(_LABELS.c.state == "final", _LABELS.c.parent.in_([row.id for row in held]))


def not_waiting(row: LabelRow, found: Sequence[LabelRow]) -> str:
    """Why a label cannot be confirmed, to follow its name; "" where it is held and waits.

    Args:
        found: the rows of its study and recipe, oldest first.
    """
    after = [r.state for r in found if (r.parent, r.checksum) == (row.id, row.checksum) and r.state in _SETTLED]
    if row.state != "held" or after:
        return f"is {after[-1] if after else row.state}; only a held label can be confirmed"
    gone = {r.parent for r in found if r.state == "revoked"}
    newer = [r.id for r in found if r.state == "final" and r.id > row.id and r.id not in gone]
    return f"is older than label {newer[-1]}, which stands; send the mask again if it is right" if newer else ""


def matching(study: str | None, recipe: str | None, author: str | None, since: str | datetime | None) -> sa.Select[Any]:
    """Rows by study, recipe, author and earliest time, oldest first."""
    query = sa.select(_LABELS).order_by(_LABELS.c.id)
    for column, value in ((_LABELS.c.study, study), (_LABELS.c.recipe, recipe), (_LABELS.c.author, author)):
        if value is not None:
            query = query.where(column == value)
    return query if since is None else query.where(_LABELS.c.time >= utc(since))


def utc(when: str | datetime) -> str:
    """A time as the ledger writes it.

    Raises:
        BadInput: it is no time.
    """
    if isinstance(when, str):
        try:
            # Python 3.10 knows no Z.
            return utc(datetime.fromisoformat(when.strip().replace("Z", "+00:00")))
        except (ValueError, OverflowError) as error:  # or it lies outside the calendar in UTC
            msg = f"{when!r} is no time; write 2026-01-31 or 2026-01-31T09:30 (UTC unless it says otherwise)"
            raise BadInput(msg) from error
    aware = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return aware.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def insert(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> int:
    """Add a row to a table and give its id."""
    key = connection.execute(table.insert().values(dict(values))).inserted_primary_key
    if key is None:
        msg = f"the database gave no id for a row of {table.name}"
        raise RuntimeError(msg)
    return int(key[0])


def next_time(connection: sa.Connection) -> str:
    """The time of a row about to be added: now, or a millisecond after the newest row where a clock was set back.

    Asked inside the transaction that adds the row, so that times grow with ids.
    """
    newest = [
        connection.execute(sa.select(table.c.time).order_by(table.c.id.desc()).limit(1)).scalar() or ""
        for table in (_LABELS, tables.originals)
    ]
    last, time = max(newest), now()
    return time if time > last else utc(datetime.fromisoformat(last) + timedelta(milliseconds=1))


def append(connection: sa.Connection, values: dict[str, Any]) -> LabelRow:
    """Add a row, later than every other."""
    values = {**values, "time": next_time(connection)}
    row_id = insert(connection, _LABELS, values)
    return _as_row({**values, "id": row_id})


def follow(connection: sa.Connection, row: LabelRow, state: State, author: str, note: str) -> LabelRow:
    """Add a row that retracts or confirms another."""
    values = {name: getattr(row, name) for name in LabelRow.__dataclass_fields__ if name not in ("id", "time")}
    values |= {"parent": row.id, "state": state, "author": author, "note": note}
    return append(connection, {**values, "names": as_json(row.names), "ids": as_json(row.ids)})


def label_row(row: Any) -> LabelRow:
    """A row of the database as a value."""
    return _as_row(dict(row._mapping))


def as_json(names: Sequence[str]) -> str:
    """Names as the ledger writes them."""
    return json.dumps(list(names), ensure_ascii=False)


def _as_row(values: dict[str, Any]) -> LabelRow:
    lists = {key: tuple(json.loads(values[key] or "[]")) for key in ("names", "ids")}
    return LabelRow(**{**values, **lists})


def original(mapping: Mapping[Any, Any]) -> Original:
    """A row of the originals as a value."""
    names = json.loads(mapping["names"]) if mapping["names"] else None
    return Original(**{**mapping, "names": names})
