"""Removes a patient: images, labels and whatever was made of them go, rows of the ledger lose the name.

Only studies that are this patient's by now go; one that was theirs by mistake loses the name alone. Rows of the ledger
keep their ids, so that what a version learned from stays known. Each step can be done again, and what says that there
is something left to do goes last: after a crash the same call finishes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from radloop.recipes.errors import NoSpace, NotFound, closest
from radloop.studies import snapshots, tables, tombstones, traces
from radloop.studies.contents import FORGOTTEN
from radloop.studies.files import write_whole, writing
from radloop.studies.folder import StudiesFolder, split_ending
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, now
from radloop.studies.leftovers import is_left, remove, temporary
from radloop.studies.sides import former_sides

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What there is of a patient.

    Attributes:
        studies: ids of their studies.
        rows: ids of their labels in the ledger.
        images: files and folders of the studies folder, in the order in which they may go.
        others: files and folders with labels, proposals and what was made of them.
        elsewhere: what links among these lead to; it stays.
        known: whether the ledger or the studies still name the patient; else only what was forgotten before does.
        also: those of the studies' ids that are ids of other patients too.
        former: other patient ids under which the studies were labelled.
    """

    patient: str
    studies: tuple[str, ...]
    rows: tuple[int, ...]
    images: tuple[Path, ...]
    others: tuple[Path, ...]
    elsewhere: tuple[Path, ...]
    known: bool
    also: frozenset[str]
    former: frozenset[str]

    @property
    def people(self) -> frozenset[str]:
        """The patient, and the ids that their studies gave them before they were named."""
        return frozenset({self.patient, *self.studies}) - self.also


def find(folder: StudiesFolder, ledger: Ledger, patient: str) -> Found:
    """What there is of a patient.

    A study is of the patient that the folder says now; one without an image of whom `answers.csv` names last, else of
    whom its newest label names.

    Raises:
        NotFound: nobody of that id is known; names the closest, or whose study it is.
        NoSpace: the studies folder is read-only.
    """
    folder = StudiesFolder(folder.path)
    here = folder.studies()
    with ledger.database.read() as connection:
        columns = (tables.labels.c.id, tables.labels.c.study, tables.labels.c.patient)
        labelled = connection.execute(sa.select(*columns).order_by(tables.labels.c.id)).all()
        stored = set(connection.execute(sa.select(tables.patients.c.patient)).scalars())
        buried = tombstones.find(connection, _salt(connection), patient)
    whose = {row.study: row.patient for row in labelled} | dict(_answers(folder.path / "answers.csv"))
    whose |= {study.id: study.patient for study in here.values()}
    studies = {study for study, who in whose.items() if who == patient and not study.startswith(FORGOTTEN)}
    theirs = [row for row in labelled if row.study in studies]
    known = bool(studies) or patient in stored or any(row.patient == patient for row in labelled)
    if not studies and (patient in here or not (known or buried)):
        everybody = {study.patient for study in here.values()} | stored
        hint = f"; study {patient} is of patient {here[patient].patient!r}" if patient in here else ""
        msg = f"there is no patient {patient!r}{hint or closest(patient, _named(everybody))}"
        raise NotFound(msg)
    if not os.access(folder.path, os.W_OK):
        msg = f"studies folder {folder.path} is read-only, so nothing was removed; allow writing there, then try again"
        raise NoSpace(msg)
    also = studies & {study.patient for study in here.values()} - {patient}
    former = {row.patient for row in theirs} - {patient, *studies}
    ids = traces.file_ids(folder, studies)
    images, others = traces.images(folder, ids), list(traces.others(folder, ledger.home, studies, ids))
    return Found(
        patient=patient,
        studies=tuple(sorted(studies)),
        rows=tuple(row.id for row in theirs),
        images=tuple(images),
        others=tuple(others),
        elsewhere=tuple(traces.elsewhere([*images, *others])),
        known=known,
        also=frozenset(also),
        former=frozenset(_named(former)),
    )


def bury(ledger: Ledger, found: Found, versions: Collection[str], author: str) -> dict[str, str]:
    """Write the tombstones and take the labels back; gives the names of now for the patient and each study.

    Args:
        versions: what learned from the patient, such as `liver/3`.
        author: who asks for it.
    """
    side_of = former_sides(found.patient, found.studies, ledger) if found.known else {}
    names: dict[str, str] = {}
    table = tables.forgotten
    with ledger.database.write() as connection:
        salt = _salt(connection)
        for one in (found.patient, *(study for study in found.studies if study != found.patient)):
            row = tombstones.find(connection, salt, one)
            names[one] = row.name if row else _new_name(names.get(found.patient, ""), names)
            if row is None:
                values = {"name": names[one], "digest": tombstones.digest(salt, one), "time": now()}
                values |= {"side": side_of[one], "author": author, "rows": "[]", "versions": "[]"}
                connection.execute(table.insert().values(values))
            elif one in side_of:
                connection.execute(table.update().where(table.c.name == row.name).values(side=side_of[one]))
        first = connection.execute(sa.select(table).where(table.c.name == names[found.patient])).one()
        rows = json.dumps(sorted({*json.loads(first.rows), *found.rows}))
        learned = json.dumps(sorted({*json.loads(first.versions), *versions}))
        connection.execute(table.update().where(table.c.name == first.name).values(rows=rows, versions=learned))
    if found.rows:
        ledger.revoke(ids=found.rows, by=author)
    return names


def remove_files(folder: StudiesFolder, ledger: Ledger, found: Found) -> None:
    """Remove labels, what was made of them, what killed processes left, then images.

    Raises:
        NoSpace: something cannot be removed; what is left goes when it is called again.
    """
    contents = _contents(ledger, found)
    left = _left(folder, ledger.home, found, {path.name for path in contents})
    with writing(f"the studies of {found.patient}"):
        for path in (*found.others, *contents, *_made_again(ledger.home), *left, *found.images):
            remove(path)


def drop_answers(folder: StudiesFolder, found: Found) -> None:
    """Remove the patient's lines of `answers.csv`, after all else: they say whose the studies were.

    Raises:
        NoSpace: it cannot be written; it is as it was.
    """
    file = folder.path / "answers.csv"
    lines = list(_lines(file))
    kept = [raw for raw, image, who in lines if not image or (image not in found.studies and who != found.patient)]
    if len(kept) < len(lines):
        text = "".join(kept).encode("utf-8", "surrogateescape")
        write_whole(file, lambda temporary: _write(temporary, text), ".csv")


def rename_rows(ledger: Ledger, found: Found, names: Mapping[str, str]) -> None:
    """Put the new names for the patient and the studies into every table, and clear notes, in one transaction.

    A label under another patient's id keeps that id, since it says what was learned from that one.
    """
    labels, patients = tables.labels, tables.patients
    with ledger.database.write() as connection:
        connection.execute(labels.update().where(labels.c.study.in_(found.studies)).values(note=""))
        for one in found.people:
            connection.execute(labels.update().where(labels.c.patient == one).values(patient=names[one]))
        for study in found.studies:
            for table in (labels, tables.shown, tables.originals):
                connection.execute(table.update().where(table.c.study == study).values(study=names[study]))
        there = set(connection.execute(sa.select(patients.c.patient)).scalars())
        for one in there & found.people:
            row = patients.c.patient == one
            taken = names[one] in there
            change = patients.delete() if taken else patients.update().values(patient=names[one])
            connection.execute(change.where(row))
        _clear_trainings(connection, names)


def leave_no_copy(home: Home) -> None:
    """Make a fresh snapshot the only one, remove ledgers that were set aside, and give free pages of the file back."""
    if home.ledger_file is not None:
        _vacuum(home.ledger_file)
    _vacuum(home.registry_db)
    snapshots.take(home)
    there = sorted(home.snapshots.glob("ledger-*.db"), key=lambda file: int(file.stem.rpartition("-")[2]))
    for old in there[:-1]:
        old.unlink(missing_ok=True)
    for old in home.damaged.glob("ledger-*"):
        shutil.rmtree(old, ignore_errors=True)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Plain data with every key and text that is one of `names` replaced."""
    if isinstance(value, Mapping):
        return {names.get(key, key): renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _named(patients: Collection[str]) -> set[str]:
    return {one for one in patients if not one.startswith(FORGOTTEN)}


def _salt(connection: sa.Connection) -> str:
    query = sa.select(tables.settings.c.value).where(tables.settings.c.key == "salt")
    return str(connection.execute(query).scalar() or "")


def _new_name(of: str, taken: Mapping[str, str]) -> str:
    return f"{of}-{len(taken)}-{secrets.token_hex(2)}" if of else f"{FORGOTTEN}{secrets.token_hex(4)}"


def _contents(ledger: Ledger, found: Found) -> list[Path]:
    """Contents of their labels, and of files from elsewhere, that no other study's row has."""
    theirs: set[tuple[str, str]] = set()
    others: set[tuple[str, str]] = set()
    with ledger.database.read() as connection:
        for table in (tables.labels, tables.originals):
            for row in connection.execute(sa.select(table.c.study, table.c.checksum, table.c.ext)):
                (theirs if row.study in found.studies else others).add((row.checksum, row.ext))
    files = [ledger.home.labels / f"{checksum}{ext}" for checksum, ext in sorted(theirs - others)]
    damaged = ledger.home.labels / ".damaged"
    return [*files, *(path for file in files for path in damaged.glob(f"*-{file.name}"))]


def _left(folder: StudiesFolder, home: Home, found: Found, contents: Collection[str]) -> list[Path]:
    """Temporary files that are theirs by a name, or that nobody is at work on: those do not say whose they are."""
    ids = traces.file_ids(folder, found.studies)

    def theirs(path: Path) -> bool:
        return traces.holds(path, ids) or any(inner.name in contents for inner in path.rglob("*"))

    return [path for path in temporary(folder.path, home) if theirs(path) or is_left(path)]


def _made_again(home: Home) -> list[Path]:
    """Caches, which do not say whose they are, checkpoints, and how the last trainings went."""
    cached = (path for path in home.cache.iterdir() if path.is_dir() and not path.name.startswith("tmp"))
    return [*cached, *home.path.glob("progress/*"), *home.path.glob("checkpoints")]


def _answers(file: Path) -> list[tuple[str, str]]:
    """Study id and patient of every line of `answers.csv` that has both."""
    return [(image, who) for _, image, who in _lines(file) if image]


def _lines(file: Path) -> Iterator[tuple[str, str, str]]:
    """Every record of `answers.csv` as it is written, with its study id and patient; the header has neither."""
    if not file.is_file():
        return
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    physical = list(io.StringIO(text, newline=""))
    reader = csv.reader(io.StringIO(text, newline=""))
    header, at = None, 0
    for record in reader:
        raw, at = "".join(physical[at : reader.line_num]), reader.line_num
        if header is None:
            header = [name.strip().lstrip("\ufeff") for name in record]
            yield raw, "", ""
            continue
        cells = dict(zip(header, (cell.strip() for cell in record), strict=False))
        image = split_ending(cells.get("image", ""))[0]
        yield raw, image, cells.get("patient", "") or image


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _clear_trainings(connection: sa.Connection, names: Mapping[str, str]) -> None:
    table = tables.trainings
    word = re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w)" for one in names))
    for row in connection.execute(sa.select(table.c.id, table.c.note, table.c.request)).all():
        note = "" if word.search(row.note) else row.note
        with contextlib.suppress(ValueError):
            request = json.dumps(renamed(json.loads(row.request), names), ensure_ascii=False)
            if request != json.dumps(json.loads(row.request), ensure_ascii=False):
                connection.execute(table.update().where(table.c.id == row.id).values(request=request))
        if note != row.note:
            connection.execute(table.update().where(table.c.id == row.id).values(note=note))


def _vacuum(file: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        log.warning("free pages of %s may still hold old rows: %s", file.name, error)
