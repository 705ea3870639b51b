"""What is kept of patients who were forgotten: a salted hash each, so that one who comes back is on the same side.

The salt is the split's. Who has the ledger and guesses an id can check the guess, so this hides an id from reading, not
from a search over every possible one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import sqlalchemy as sa

from radloop.studies.tables import forgotten

if TYPE_CHECKING:
    from radloop.studies.split import Side


def digest(salt: str, patient: str) -> str:
    """The hash that stands for a patient."""
    return hashlib.sha256(f"{salt}\0{patient}".encode()).hexdigest()


def find(connection: sa.Connection, salt: str, patient: str) -> sa.Row[tuple[str, ...]] | None:
    """The row of `forgotten` that stands for a patient (or a study that was one's), or None."""
    return connection.execute(sa.select(forgotten).where(forgotten.c.digest == digest(salt, patient))).first()


def sides(connection: sa.Connection, salt: str, ids: Iterable[str]) -> dict[str, Side]:
    """Those of these patients and studies that were forgotten, with the side that they were on."""
    side_of = {row.digest: row.side for row in connection.execute(sa.select(forgotten.c.digest, forgotten.c.side))}
    return {one: side_of[key] for one in ids if (key := digest(salt, one)) in side_of} if side_of else {}
