"""Which study ids look like one patient: the check behind a warning, never a decision.

Two studies of one patient on two sides of the split make every held-out figure too good. `answers.csv` says who is who
with its `patient` column; without one, each id is taken for a patient and this is the only safety net.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_SEP = r"[ ._-]+"
_DATE = re.compile(rf"^(?P<who>.+?){_SEP}(?:19|20)\d\d[._-]?[01]\d[._-]?[0-3]\d$")
_WORD = re.compile(
    rf"^(?P<who>.+?){_SEP}(?:pre|post|baseline|base|bl|follow-?up|fu\d*|before|after|first|second|early|late"
    rf"|(?:visit|scan|ses|session|time|tp|exam|study|t|v)[ ._-]?\d+|left|right|ap|pa|lat|lateral)$",
    re.IGNORECASE,
)
_COUNT = re.compile(rf"^(?P<who>.*\d.*?)(?:{_SEP}(?:[a-z]|\d+)|(?<=\d)[a-z])$", re.IGNORECASE)


def look_alike(ids: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of ids, two or more each, that look like several studies of one patient.

    Taken for one patient: the same beginning followed by different dates (`LUNG-001_20200101`), by words of time or
    side (`anna_pre`, `anna_post`), or by a letter or number when the beginning itself has a number (`p01_a`,
    `00013_001`). A beginning that all ids share (`hippocampus_001`) is the name of the set, not a patient.
    """
    ids = sorted(set(ids))
    groups: dict[str, list[str]] = defaultdict(list)
    for study in ids:
        who = _who(study)
        if who:
            groups[who].append(study)
    several = [tuple(group) for group in groups.values() if len(group) > 1]
    if len(several) == 1 and len(several[0]) == len(ids) > 2:
        return ()
    return tuple(several)


def _who(study: str) -> str:
    """The part of an id that seems to name the patient, or an empty string."""
    for pattern in (_DATE, _WORD, _COUNT):
        found = pattern.match(study)
        if found:
            return found["who"]
    return ""
