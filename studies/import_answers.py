"""`answers.csv` filled by an import: rows and cells that are there stay as they are."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from pathlib import Path

from radloop.recipes.errors import BadInput
from radloop.studies.files import write_whole
from radloop.studies.folder import split_ending

Rows = Mapping[str, Mapping[str, str]]
FIRST = ("image", "patient", "date")


def merge_answers(path: Path, new: Rows) -> set[str]:
    """Adds rows (study id -> columns) to the table; a cell that is filled already keeps its value.

    Returns:
        The ids that had no row before and have one now.

    Raises:
        BadInput: the table there cannot be read.
        NoSpace: the disk is full or read-only; the table is as before.
    """
    columns, rows = _read(path)
    before = [list(columns), [dict(row) for row in rows]]
    wanted = {name for row in new.values() for name, value in row.items() if value}
    if not wanted and not rows:
        return set()
    order = (*FIRST, *sorted(wanted - set(FIRST)))
    columns += [name for name in order if name not in columns and name in {"image", *wanted}]
    known = {row.get("image", ""): row for row in rows}
    known |= {split_ending(name)[0]: row for name, row in list(known.items())}
    added = set(new) - set(known)
    for study, answers in new.items():
        row = known.get(study)
        if row is None:
            row = {"image": study}
            rows.append(row)
        row |= {name: row.get(name) or value for name, value in answers.items() if value}
    if [columns, rows] != before:
        _write(path, columns, rows)
    return added


def drop_answers(path: Path, ids: Collection[str]) -> None:
    """Takes the rows of some ids out again."""
    columns, rows = _read(path)
    kept = [row for row in rows if row.get("image", "") not in ids]
    if len(kept) < len(rows):
        _write(path, columns, kept)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.is_file():
        return [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            table = csv.DictReader(handle)
            rows = [{k: v or "" for k, v in row.items() if isinstance(k, str)} for row in table]
            return list(table.fieldnames or []), rows
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path.name} cannot be read as UTF-8 comma-separated text ({error}); save it as 'CSV UTF-8'"
        raise BadInput(msg) from error


def _write(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            table = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    write_whole(path, write)
