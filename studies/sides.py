"""Which side each study is on, also when its patient is known under another id by now.

A study's patient is its own id until `answers.csv` names one. A patient named later must not carry a study from one
side to the other: what a model has learned from would become held out. The ids under which a study was labelled are in
the ledger, so that its former sides are known for good, also when its image is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import sqlalchemy as sa

from radloop.studies import tables
from radloop.studies.folder import Study
from radloop.studies.ledger import Ledger
from radloop.studies.split import Side, Split, first_of

log = logging.getLogger(__name__)

TRAIN: Side = "train"
_said: set[tuple[str, str]] = set()


def study_sides(studies: Mapping[str, Study], ledger: Ledger, first: Collection[str] = ()) -> dict[str, Side]:
    """Study id -> side of its patient, drawn and stored where the patient is new.

    A new patient with a study that was on a side under another id gets that side; the training side, where his studies
    were on several. Left out, with a warning, is a labelled study that was on another side than its patient is now: it
    can be neither learned from nor measured on. So is every held-out study of a patient of whom another study was on
    the training side, also one whose image is gone.

    Args:
        studies: every study of the folder.
        first: study ids whose patients are drawn first, so that they fill every side among themselves; after them those
            of every study that ever had a label.
    """
    split = Split(ledger)
    every = _labelled_as(ledger)
    labelled_as = {study_id: patients for study_id, patients in every.items() if study_id in studies}
    before, learned = _before(studies, labelled_as, split), _learned_from(every, split.stored())
    inherit = _inherited(studies, before, split.stored()) | dict.fromkeys(learned, TRAIN)
    side_of = split.assign((studies[i].patient for i in first if i in studies), inherit)
    side_of |= split.assign((studies[i].patient for i in labelled_as), inherit)
    side_of |= split.assign((study.patient for study in studies.values()), inherit)
    learned |= {studies[i].patient for i, sides in before.items() if TRAIN in sides}
    found: dict[str, Side] = {}
    for study_id, study in studies.items():
        side = side_of[study.patient]
        if was := before.get(study_id, set()) - {side}:
            _warn(ledger, f"it was on the {', '.join(sorted(was))} side", study, side)
        elif side != TRAIN and study.patient in learned:
            _warn(ledger, "another study of the patient was on the train side", study, side)
        else:
            found[study_id] = side
    # An id that a label was given under before anybody was on a side: the study's side is known under it from now on.
    split.assign(*_unseen(labelled_as, found))
    return found


def former_sides(patient: str, studies: Collection[str], ledger: Ledger) -> dict[str, Side]:
    """The sides that a patient and their studies come back to, should they be forgotten.

    A study keeps the one on which it may have been used: that of when it was forgotten before, else of the first id
    that it was labelled under, since it is left out under another one. The patient's is the training side where
    anything may have been learned from them, else the one they were on.
    """
    split = Split(ledger)
    stored, labelled_as = split.stored(), _labelled_as(ledger)
    of_studies = split.forgotten(studies)
    for study in studies:
        used = [stored[one] for one in (*labelled_as.get(study, ()), study) if one in stored]
        of_studies |= {study: used[0]} if used and study not in of_studies else {}
    known = {*of_studies.values(), *split.forgotten([patient]).values()}
    known |= {side for one, side in stored.items() if one == patient}
    known |= {TRAIN} if patient in _learned_from(labelled_as, stored) else set()
    theirs = first_of(known) if known else split.side(patient)
    return dict.fromkeys(studies, theirs) | of_studies | {patient: theirs}


def _labelled_as(ledger: Ledger) -> dict[str, list[str]]:
    """Study id -> patient ids under which it was ever labelled, in the order of their first labels."""
    columns = (tables.labels.c.study, tables.labels.c.patient)
    query = sa.select(*columns).group_by(*columns).order_by(sa.func.min(tables.labels.c.id))
    found: dict[str, list[str]] = {}
    with ledger.database.read() as connection:
        for row in connection.execute(query):
            found.setdefault(str(row.study), []).append(str(row.patient))
    return found


def _learned_from(labelled_as: Mapping[str, Collection[str]], stored: Mapping[str, Side]) -> set[str]:
    """Patient ids of every study that was ever labelled under an id of the training side."""
    learned = (ids for ids in labelled_as.values() if any(stored.get(one) == TRAIN for one in ids))
    return set[str]().union(*learned)


def _before(
    studies: Mapping[str, Study], labelled_as: Mapping[str, Collection[str]], split: Split
) -> dict[str, set[Side]]:
    """Study id -> sides that it was on under other patient ids, or before it was forgotten."""
    stored = split.stored()
    found: dict[str, set[Side]] = {study_id: {side} for study_id, side in split.forgotten(studies).items()}
    for study_id, patients in labelled_as.items():
        for patient in set(patients) & stored.keys() - {studies[study_id].patient}:
            found.setdefault(study_id, set()).add(stored[patient])
    return found


def _inherited(
    studies: Mapping[str, Study], before: Mapping[str, Collection[Side]], stored: Mapping[str, Side]
) -> dict[str, Side]:
    """Patient -> side that one of his studies was on, also without a label under its own id."""
    patients = {study.patient for study in studies.values()}
    found: dict[str, Side] = {}
    for study_id, study in studies.items():
        own = {stored[study_id]} if study_id in stored and study_id not in patients else set()
        sides = {*before.get(study_id, ()), *own, *({found[study.patient]} if study.patient in found else ())}
        if sides:
            found[study.patient] = first_of(sides)
    return found


def _unseen(labelled_as: Mapping[str, Collection[str]], sides: Mapping[str, Side]) -> tuple[list[str], dict[str, Side]]:
    """Patient ids of labels, with the side of the study that each was given for."""
    found: dict[str, Side] = {}
    for study_id, patients in labelled_as.items():
        for patient in patients if study_id in sides else ():
            found[patient] = first_of({sides[study_id], *({found[patient]} if patient in found else ())})
    return list(found), found


def _warn(ledger: Ledger, why: str, study: Study, side: Side) -> None:
    """Says once a process that a study is left out."""
    text = f"{study.id} is left out: {why}, its patient {study.patient} is on {side}"
    if (str(ledger.home.path), text) not in _said:
        _said.add((str(ledger.home.path), text))
        log.warning("%s", text)
