"""A patient who is named later, or comes back, takes no study from one side of the split to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radloop.studies.cases import labelled_cases
from radloop.studies.sides import study_sides
from radloop.studies.split import SIDES, Split


def filled(house: Any, number: int = 30) -> dict[str, str]:
    """So many labelled studies, each its own patient, and their sides."""
    for i in range(number):
        house.arrive(f"s{i:02d}")
        house.label(f"s{i:02d}")
    return study_sides(house.folder.studies(), house.ledger)


def one_of(sides: dict[str, str], side: str) -> str:
    return next(study for study, where in sides.items() if where == side)


def test_a_patient_named_later_stays_on_the_side_of_his_studies(house: Any) -> None:
    before = filled(house)
    for study in before:
        house.name(study, f"P{study}")
    assert study_sides(house.folder.studies(), house.ledger) == before


def test_studies_of_several_sides_become_one_patients_on_the_training_side(house: Any) -> None:
    before = filled(house)
    trained, held_out = one_of(before, "train"), one_of(before, "validation")
    house.name(trained, "P")
    house.name(held_out, "P")
    after = study_sides(house.folder.studies(), house.ledger)
    assert after[trained] == "train"
    assert held_out not in after, "it has judged versions, and must not be learned from now"
    assert Split(house.ledger).stored()["P"] == "train"


def test_a_held_out_patient_whom_a_training_study_joins_is_left_out(
    house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = filled(house)
    trained, held_out = one_of(before, "train"), one_of(before, "validation")
    house.name(trained, held_out)
    after = study_sides(house.folder.studies(), house.ledger)
    assert trained not in after, "versions have learned from it"
    assert held_out not in after, "versions have learned from its patient"
    assert [trained in text or held_out in text for text in caplog.messages] == [True, True]
    assert after == {study: side for study, side in before.items() if study not in (trained, held_out)}
    study_sides(house.folder.studies(), house.ledger)
    assert len(caplog.messages) == 2, "said once, not with every question"


@settings(max_examples=8)
@given(st.data())
def test_a_study_that_joins_a_patient_of_another_side_is_left_out(
    new_house: Callable[[], Any], data: st.DataObject
) -> None:
    house = new_house()
    before = filled(house, 12)
    joining, host = data.draw(st.lists(st.sampled_from(sorted(before)), min_size=2, max_size=2, unique=True))
    house.name(joining, host)
    after = study_sides(house.folder.studies(), house.ledger)
    assert after.get(joining) == (before[joining] if before[joining] == before[host] else None)


def test_a_study_without_a_label_follows_its_patient(house: Any) -> None:
    before = filled(house)
    for number in range(5):
        house.arrive(f"new{number}")
    study_sides(house.folder.studies(), house.ledger)
    host = one_of(before, "test")
    for number in range(5):
        house.name(f"new{number}", host)
    after = study_sides(house.folder.studies(), house.ledger)
    assert {after[f"new{number}"] for number in range(5)} == {"test"}, "nothing ever learned from them"
    assert after[host] == "test"


def test_patients_whose_ids_are_also_ids_of_studies_keep_all_their_studies(house: Any) -> None:
    ids = [str(number) for number in range(1, 21)]
    for study, patient in zip(ids, ids[1:] + ids[:1], strict=True):
        house.arrive(study)
        house.name(study, patient)
        house.label(study)
    first = study_sides(house.folder.studies(), house.ledger)
    assert first.keys() == set(ids)
    assert study_sides(house.folder.studies(), house.ledger) == first


def test_a_label_from_before_any_side_was_drawn_counts(house: Any) -> None:
    """Labelled as its own patient, learned from as P's, then said to be Q's: Q is on another side."""
    before = filled(house)
    house.arrive("late")
    house.label("late")
    house.name("late", one_of(before, "train"))
    assert study_sides(house.folder.studies(), house.ledger)["late"] == "train"
    house.name("late", one_of(before, "validation"))
    assert "late" not in study_sides(house.folder.studies(), house.ledger)


@pytest.mark.parametrize("named", [False, True])
def test_a_forgotten_patient_who_comes_back_is_on_the_side_of_before(house: Any, named: bool) -> None:
    before = filled(house)
    for study in list(before):
        if named:
            house.name(study, f"P{study}")
        study_sides(house.folder.studies(), house.ledger)
        house.forget(f"P{study}" if named else study)
    assert not set(Split(house.ledger).stored()) & {*before, *(f"P{study}" for study in before)}
    for study in before:
        house.arrive(study)
        if named:
            house.name(study, f"P{study}")
    assert study_sides(house.folder.studies(), house.ledger) == before


def test_the_file_of_a_forgotten_patient_keeps_its_side_under_another_name(house: Any) -> None:
    before = filled(house)
    trained, host = one_of(before, "train"), one_of(before, "test")
    house.forget(trained)
    house.arrive(trained)
    house.label(trained)
    house.name(trained, host)
    for recipe in house.recipes:
        assert trained not in {case.study for case in labelled_cases(house.folder, house.ledger, recipe, SIDES)}


def test_labelled_patients_fill_every_side_whoever_asks_first(house: Any) -> None:
    """Also where the next study is asked for before the first training."""
    for i in range(100):
        house.arrive(f"s{i:03d}")
    for i in range(6):
        house.label(f"s{i:03d}")
    found = study_sides(house.folder.studies(), house.ledger)
    assert {found[f"s{i:03d}"] for i in range(6)} == set(SIDES)


def known_too_late(house: Any) -> None:
    """P is held out with s3 when s1, of the training side, is said to be P's and labelled again."""
    house.arrive("s1")
    house.arrive("s3")
    house.name("s3", "P")
    house.put(s1="train", P="validation")
    house.label("s1")
    house.label("s3")
    house.name("s1", "P")
    house.label("s1")


def test_a_patient_learned_from_is_not_measured_on_when_that_image_is_gone(house: Any) -> None:
    known_too_late(house)
    house.remove("s1")
    assert study_sides(house.folder.studies(), house.ledger) == {}
    house.arrive("s4")
    house.name("s4", "Q")
    house.put(Q="test")
    assert study_sides(house.folder.studies(), house.ledger) == {"s4": "test"}


def test_a_new_patient_learned_from_is_on_the_training_side_when_that_image_is_gone(new_house: Any) -> None:
    for _ in range(4):
        house = new_house()
        filled(house, 6)
        house.arrive("s6")
        house.put(s6="train")
        house.label("s6")
        house.name("s6", "P")
        house.label("s6")
        house.remove("s6")
        house.arrive("s7")
        house.name("s7", "P")
        assert study_sides(house.folder.studies(), house.ledger)["s7"] == "train"


def test_who_was_learned_from_comes_back_to_the_training_side(house: Any) -> None:
    known_too_late(house)
    study_sides(house.folder.studies(), house.ledger)
    house.forget("P")
    house.arrive("s9")
    house.name("s9", "P")
    assert study_sides(house.folder.studies(), house.ledger) == {"s9": "train"}
    house.arrive("s3")
    house.name("s3", "P")
    assert "s3" not in study_sides(house.folder.studies(), house.ledger), "it has judged versions"


def test_who_is_forgotten_right_after_being_named_comes_back_to_the_side_of_his_studies(new_house: Any) -> None:
    for side in ("train", "validation", "test", "train", "train"):
        house = new_house()
        house.arrive("s1")
        house.put(s1=side)
        house.label("s1")
        house.name("s1", "P")
        house.forget("P")
        assert Split(house.ledger).assign(["P", "s1"]) == {"P": side, "s1": side}


def test_a_side_of_before_yields_to_what_was_learned_since(house: Any) -> None:
    """Forgotten as held out, back, said to have a study of the training side, and forgotten again."""
    house.arrive("s3")
    house.name("s3", "P")
    house.put(P="validation", s1="train")
    house.label("s3")
    house.forget("P")
    house.arrive("s1")
    house.label("s1")
    house.name("s1", "P")
    house.forget("P")
    assert Split(house.ledger).assign(["P", "s3"]) == {"P": "train", "s3": "validation"}
