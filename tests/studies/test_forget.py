"""What goes with a patient, and whose it must be to go."""

from __future__ import annotations

from typing import Any

import pytest

from radloop.recipes.errors import NotFound
from radloop.studies import forget


def test_a_line_of_before_in_answers_takes_no_other_patients_study(house: Any) -> None:
    for study in ("s1", "s2"):
        house.arrive(study)
    (house.path / "answers.csv").write_text("image,patient\ns1,P\ns2,P\ns2,Q\n")
    house.label("s2")
    house.forget("P")
    assert house.folder.studies().keys() == {"s2"}
    assert house.ledger.current("one")["s2"].patient == "Q"
    assert (house.path / "answers.csv").read_text() == "image,patient\ns2,Q\n"


def test_a_label_from_when_the_study_was_named_wrongly_only_loses_the_name(house: Any) -> None:
    for study in ("s1", "s5"):
        house.arrive(study)
        house.name(study, "P")
        house.label(study)
    house.name("s5", "Q")
    house.forget("P")
    assert house.folder.studies().keys() == {"s5"}
    (row,) = house.ledger.history("s5")
    assert row.patient.startswith("forgotten-")
    assert house.ledger.current("one") == {"s5": row}
    assert house.ledger.content(row).is_file()


def test_the_label_of_a_study_that_is_another_patients_by_its_newest_label_stays(house: Any) -> None:
    house.arrive("s5")
    house.name("s5", "P")
    house.label("s5")
    house.name("s5", "Q")
    house.label("s5", "two")
    house.remove("s5")
    house.patients.clear()
    house.arrive("s1")
    house.name("s1", "P")
    house.forget("P")
    assert [row.patient for row in house.ledger.current("two").values()] == ["Q"]
    assert house.ledger.current("one").keys() == {"s5"}


def test_a_study_id_is_no_patient_where_the_study_is_named(house: Any) -> None:
    house.arrive("s1")
    house.label("s1")
    house.name("s1", "P")
    with pytest.raises(NotFound, match="no patient 's1'; study s1 is of patient 'P'"):
        house.forget("s1")
    assert house.ledger.current("one").keys() == {"s1"}
    assert house.ledger.content(house.ledger.row(1)).is_file()


def test_labels_from_before_the_patient_was_named_are_found_after_a_crash(house: Any) -> None:
    house.arrive("s1")
    house.label("s1")
    house.name("s1", "P")
    found = forget.find(house.folder, house.ledger, "P")
    forget.bury(house.ledger, found, (), "ann")
    forget.remove_files(house.folder, house.ledger, found)
    house.forget("P")
    assert not {"s1", "P"} & {word for row in house.ledger.history() for word in (row.study, row.patient)}
    assert (house.path / "answers.csv").read_text().split() == ["image,patient"]


def test_a_label_that_was_given_as_of_another_patient_still_says_so(house: Any) -> None:
    house.arrive("s1")
    house.name("s1", "R")
    house.label("s1")
    house.name("s1", "P")
    assert forget.find(house.folder, house.ledger, "P").former == {"R"}
    house.forget("P")
    assert {row.patient for row in house.ledger.history()} == {"R"}
    assert all(row.study.startswith("forgotten-") for row in house.ledger.history())
    house.forget("R")
    assert all(row.patient.startswith("forgotten-") for row in house.ledger.history())
