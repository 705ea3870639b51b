"""Labelled studies as training and assessment get them."""

from __future__ import annotations

import shutil

import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label
from radloop.studies.cases import labelled_cases
from radloop.studies.split import SIDES, Split


def test_each_side_gets_its_own_patients(folder, ledger, organs, draw):
    for study in "cab":
        accept_label(folder, ledger, organs, study, draw(1), author="Ada")
    sides = Split(ledger).assign("abc")
    everyone = labelled_cases(folder, ledger, organs, SIDES)
    assert [case.study for case in everyone] == ["a", "b", "c"]
    for side in SIDES:
        cases = labelled_cases(folder, ledger, organs, (side,))
        assert [case.study for case in cases] == [s for s in "abc" if sides[s] == side]
        assert {case.side for case in cases} <= {side}
    assert labelled_cases(folder, ledger, organs) == labelled_cases(folder, ledger, organs, ("train",))
    assert [case.study for case in labelled_cases(folder, ledger, organs, SIDES, only={"b", "zz"})] == ["b"]


@pytest.mark.parametrize("salt", [f"salt {n}" for n in range(8)])
def test_labelled_patients_are_spread_before_the_others(folder, ledger, organs, draw, salt):
    for number in range(30):
        shutil.copy(folder.path / "a.nii.gz", folder.path / f"more {number}.nii.gz")
    for study in "abc":
        accept_label(folder, ledger, organs, study, draw(1), author="Ada")
    Split(ledger, salt).assign(["somebody else"])
    assert len(labelled_cases(folder, ledger, organs, ("validation",))) == 1
    assert len(labelled_cases(folder, ledger, organs, SIDES)) == 3
    assert len(Split(ledger).stored()) == 34


def test_a_case_is_the_newest_label_with_its_names(folder, ledger, organs, bones, draw):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    info = [{"name": "spleen", "idx": 1}]
    row = accept_label(folder, ledger, organs, "a", draw(1), author="Ada", label_info=info, shown_version="2")
    accept_label(folder, ledger, bones, "a", draw(3), author="Ada")
    (case,) = labelled_cases(folder, ledger, organs, SIDES)
    assert (case.row, case.label, case.names, case.blind) == (row.id, ledger.file(row), ("spleen",), False)
    assert case.channels == folder.study("a").channels
    (other,) = labelled_cases(folder, ledger, bones, SIDES)
    assert (other.names, other.blind) == (("rib", "spine", "hip"), True)


def test_studies_of_a_patient_share_a_side(folder, ledger, organs, draw):
    (folder.path / "answers.csv").write_text("image,patient\na,P1\nb,P1\nc,P1\n")
    for study in "abc":
        accept_label(folder, ledger, organs, study, draw(1), author="Ada")
    cases = labelled_cases(folder, ledger, organs, SIDES)
    assert len({case.side for case in cases}) == 1
    assert {case.patient for case in cases} == {"P1"}
    assert Split(ledger).stored() == {"P1": cases[0].side}


def test_a_study_that_is_gone_is_left_out(folder, ledger, organs, draw, caplog):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    folder.study("a").channels[0].unlink()
    assert labelled_cases(folder, ledger, organs, SIDES) == []
    assert "study 'a' is not in" in caplog.text


def test_channels_are_as_many_as_the_recipe_names(folder, ledger, organs, draw):
    two = Recipe(name="organs", channels=("t1", "t2"), labels=organs.labels)
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    (case,) = labelled_cases(folder, ledger, two, SIDES)
    assert [path.name for path in case.channels] == ["a.nii.gz", "a_0001.nii.gz"]
