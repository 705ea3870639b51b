"""Which side of the split a patient is on: decided once, stored, never changed.

The side is drawn by a salted hash of the patient id, so it depends on nothing about the patient. Among patients
seen for the first time, some are moved from an over-full side to one that has fewer than its share, so that a
small set has held-out patients too, and one of its patients to learn from in any case. A patient already stored is
never moved.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args

import sqlalchemy as sa

from radloop.recipes.errors import BadInput
from radloop.studies import snapshots, tombstones
from radloop.studies.ledger import Ledger, now
from radloop.studies.tables import patients as PATIENTS
from radloop.studies.tables import settings as SETTINGS

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = get_args(Side)
#: Percent of patients on each side; whole numbers, so that shares of a total are exact.
PERCENT: dict[Side, int] = {"train": 65, "validation": 15, "test": 20}
#: So many new ones at once, or so many known in all, are spread over all three sides.
_A_FEW, _SMALL = 3, 5


class Split:
    """The stored split of one home, the same for all recipes and processes.

    Args:
        ledger: where sides are stored.
        salt: makes the draw, where none is stored yet; by default a random one.
    """

    def __init__(self, ledger: Ledger, salt: str | None = None) -> None:
        self._database = ledger.database
        self._home = ledger.home
        self._salt = salt

    def assign(self, patients: Iterable[str], inherit: Mapping[str, Side] | None = None) -> dict[str, Side]:
        """The sides of patients; those seen for the first time are drawn and stored.

        One who was forgotten and comes back is on the side of before.

        Args:
            inherit: sides of patients that were known under another id; used where they are not stored yet.

        Raises:
            NoSpace: a new side cannot be stored.
        """
        wanted = sorted(set(patients))
        known = self.stored()
        if any(patient not in known for patient in wanted):
            known = self._draw(wanted, inherit or {})
            snapshots.attempt(self._home)
        return {patient: known[patient] for patient in wanted}

    def side(self, patient: str) -> Side:
        """The side of one patient, drawn now if never seen; prefer `assign` for many new ones."""
        return self.assign([patient])[patient]

    def stored(self) -> dict[str, Side]:
        """Every patient ever seen with their side."""
        with self._database.read() as connection:
            return {row.patient: row.side for row in connection.execute(sa.select(PATIENTS))}

    def forgotten(self, ids: Iterable[str]) -> dict[str, Side]:
        """Those of these patients and studies that were forgotten, with the side that they were on."""
        with self._database.read() as connection:
            salt = connection.execute(sa.select(SETTINGS.c.value).where(SETTINGS.c.key == "salt")).scalar()
            return tombstones.sides(connection, str(salt or ""), ids)

    def folds(self, patients: Iterable[str], k: int) -> dict[str, int]:
        """See `folds`."""
        return folds(patients, k)

    def _draw(self, wanted: list[str], inherit: Mapping[str, Side]) -> dict[str, Side]:
        # One transaction from reading to storing: a second process waits and then finds these sides.
        with self._database.write() as connection:
            known: dict[str, Side] = {row.patient: row.side for row in connection.execute(sa.select(PATIENTS))}
            new = [patient for patient in wanted if patient not in known]
            if new:
                salt = self._stored_salt(connection)
                drawn = {patient: inherit[patient] for patient in new if patient in inherit}
                drawn |= tombstones.sides(connection, salt, new)
                counts = Counter([*known.values(), *drawn.values()])
                others = [patient for patient in new if patient not in drawn]
                drawn |= draw(others, counts, salt)
                time = now()
                rows = [{"patient": patient, "side": side, "time": time} for patient, side in drawn.items()]
                connection.execute(PATIENTS.insert(), rows)
                known |= drawn
        return known

    def _stored_salt(self, connection: sa.Connection) -> str:
        salt = connection.execute(sa.select(SETTINGS.c.value).where(SETTINGS.c.key == "salt")).scalar()
        if salt is None:
            salt = self._salt or secrets.token_hex(16)
            connection.execute(SETTINGS.insert().values(key="salt", value=salt))
        return str(salt)


def first_of(sides: Collection[Side]) -> Side:
    """The one of several former sides that decides: what may have been learned from is never held out."""
    return min(sides, key=SIDES.index)


def draw(new: Iterable[str], stored: Counter[Side], salt: str) -> dict[str, Side]:
    """Sides for patients seen for the first time.

    There is a training patient always; a patient on every side where three come at once or five are known.

    Args:
        new: their ids.
        stored: how many patients each side has already.
        salt: decides the draw.
    """
    order = sorted(new, key=lambda patient: (_hash(salt, patient), patient))
    sides = {patient: _side_of(_hash(salt, patient)) for patient in order}
    counts = Counter(stored)
    counts.update(sides.values())
    total = sum(counts.values())
    share = {side: PERCENT[side] * total // 100 for side in SIDES}

    def fill(short: Side, wanted: int, keep: dict[Side, int]) -> None:
        while counts[short] < wanted:
            donors = [side for side in SIDES if side != short and counts[side] > keep[side] and side in sides.values()]
            if not donors:
                break
            donor = max(donors, key=lambda side: counts[side] - share[side])
            moved = next(patient for patient in order if sides[patient] == donor)
            sides[moved] = short
            counts[donor] -= 1
            counts[short] += 1

    # Nothing can be learned without a training patient, and little be said without one on each held-out side.
    fill("train", 1, dict.fromkeys(SIDES, 0))
    if len(order) >= _A_FEW or total >= _SMALL:
        fill("validation", 1, dict.fromkeys(SIDES, 1))
        fill("test", 1, dict.fromkeys(SIDES, 1))
    # Held-out sides first: a set too small to measure on is worse than one training patient fewer.
    for side in ("validation", "test", "train"):
        fill(side, share[side], {side: max(share[side], 1) for side in SIDES})
    return sides


def folds(patients: Iterable[str], k: int) -> dict[str, int]:
    """Patients dealt into `k` folds of equal size (give or take one), the same on every machine.

    Raises:
        BadInput: `k` is under 2 or above the number of patients.
    """
    order = sorted(set(patients), key=lambda patient: (_hash("folds", patient), patient))
    if not 2 <= k <= max(len(order), 2):
        msg = f"{k} folds of {len(order)} patients; give 2 to {len(order)} folds"
        raise BadInput(msg)
    return {patient: place % k for place, patient in enumerate(order)}


def _hash(salt: str, patient: str) -> int:
    """A number from 0 to 2**64 - 1, even over patients."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{patient}".encode()).digest()[:8], "big")


def _side_of(number: int) -> Side:
    percent = math.floor(number * 100 / 2**64)
    for side in SIDES:
        percent -= PERCENT[side]
        if percent < 0:
            return side
    return SIDES[-1]
