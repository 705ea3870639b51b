"""Cells of `answers.csv` become labels once, never over what a reader said later."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.answers import read_answer, said
from radloop.studies.rows import now as utc_now

GRADE = Recipe(name="grade", kind="ordinal", labels={"1": 1, "2": 2, "3": 3}, answer={"column": "who"})
KIND = Recipe(name="type", kind="classification", labels={"none": 1, "Glioma": 2, "Größe": 3})
CHEST = Recipe(name="chest", kind="multilabel", labels={"effusion": 1, "mass": 2, "nodule": 3})


@pytest.fixture
def cells(studies) -> Callable[..., None]:
    """Write `answers.csv`: study -> cells."""

    def write(**rows: dict[str, str]) -> None:
        columns = ["image", *dict.fromkeys(name for row in rows.values() for name in row)]
        with (studies / "answers.csv").open("w", newline="", encoding="utf-8") as handle:
            table = csv.DictWriter(handle, columns, restval="")
            table.writeheader()
            table.writerows({"image": study, **row} for study, row in rows.items())

    return write


@pytest.fixture
def tell(folder, ledger, tmp_path) -> Callable[..., object]:
    """A reader's answer."""

    def send(recipe: Recipe, answer: object, study: str = "a", **more: object):
        file = tmp_path / "told.json"
        file.write_text(json.dumps({"format": 1, "kind": recipe.kind, "answer": answer}))
        return accept_label(folder, ledger, recipe, study, file, author="Ada", **more)

    return send


def now(ledger, recipe: Recipe, study: str = "a"):
    """What the current label says, and who said so."""
    row = ledger.latest(study, recipe.name)
    return (said(ledger.content(row)), row.author) if row else None


@pytest.mark.parametrize(
    ("recipe", "column", "cell", "meant"),
    [
        (GRADE, "who", "1", "1"),
        (GRADE, "who", "2.0", "2"),
        (GRADE, "who", " 3.00 ", "3"),
        (KIND, "type", "glioma", "Glioma"),
        (KIND, "type", "NONE", "none"),
        (KIND, "type", "gro\u0308\u00dfe", "Größe"),
        (CHEST, "mass", "1", {"mass": True}),
        (CHEST, "mass", "0.0", {"mass": False}),
        (CHEST, "mass", "Yes", {"mass": True}),
        (CHEST, "mass", "FALSE", {"mass": False}),
    ],
)
def test_a_cell_becomes_a_label(folder, ledger, cells, recipe, column, cell, meant):
    cells(a={column: cell}, b={column: " "})
    assert sync_view(folder, ledger, [recipe]) == []
    (row,) = ledger.history()
    assert (said(ledger.content(row)), row.study, row.recipe) == (meant, "a", recipe.name)
    assert (row.author, row.author_kind, row.origin, row.state, row.ext) == (
        "import", "import", "import", "final", ".json",
    )  # fmt: skip
    assert (row.ids, row.names) == ((), tuple(read_answer(ledger.content(row), recipe)))
    sync_view(folder, ledger, [recipe])
    assert ledger.history() == [row]


def test_every_recipe_has_its_column(folder, ledger, cells):
    cells(a={"who": "1", "type": "none", "mass": "1", "nodule": "no"}, c={"type": "glioma"})
    assert sync_view(folder, ledger, [GRADE, KIND, CHEST]) == []
    assert now(ledger, GRADE) == ("1", "import")
    assert now(ledger, KIND, "c") == ("Glioma", "import")
    assert now(ledger, CHEST) == ({"mass": True, "nodule": False}, "import")
    assert len(ledger.history()) == 4


def test_what_is_no_label_is_reported_and_the_others_go_on(folder, ledger, cells):
    cells(a={"who": "4", "mass": "maybe", "nodule": "1"}, b={"who": "2", "type": "gliom"}, zz={"who": "9"})
    problems = sync_view(folder, ledger, [GRADE, KIND, CHEST])
    assert [problem.file.name for problem in problems] == ["answers.csv"] * 3
    reasons = [problem.reason for problem in problems]
    assert reasons == [
        "line 2: '4' in column 'who' is no label of recipe grade; allowed are 1, 2, 3",
        "line 3: 'gliom' in column 'type' is no label of recipe type; allowed are none, Glioma, Größe; "
        "did you mean 'Glioma'?",
        "line 2: 'maybe' in column 'mass' is neither yes nor no; allowed are 1, 0, yes, no, true, false",
    ]
    assert now(ledger, GRADE, "b") == ("2", "import")
    assert now(ledger, CHEST) == ({"nodule": True}, "import")


def test_a_changed_cell_is_a_correction_and_an_emptied_one_retracts_nothing(folder, ledger, cells):
    for cell in ("1", "3", "", "3.0"):
        cells(a={"who": cell})
        sync_view(folder, ledger, [GRADE])
    assert now(ledger, GRADE) == ("3", "import")
    assert [row.parent for row in ledger.history()] == [None, 1]


def test_an_old_cell_never_comes_back_over_a_reader(folder, ledger, cells, tell):
    cells(a={"who": "1"})
    sync_view(folder, ledger, [GRADE])
    tell(GRADE, "2", shown_version="5")
    sync_view(folder, ledger, [GRADE])
    assert now(ledger, GRADE) == ("2", "Ada")
    cells(a={"who": "3"})  # somebody changed it
    sync_view(folder, ledger, [GRADE])
    assert now(ledger, GRADE) == ("3", "import")
    assert ledger.latest("a", "grade").shown_version == "5"  # not blind for that
    tell(GRADE, "2")
    sync_view(folder, ledger, [GRADE])
    assert now(ledger, GRADE) == ("2", "Ada")


def test_a_cell_that_agrees_with_a_reader_is_no_label_of_its_own(folder, ledger, cells, tell):
    row = tell(GRADE, "2")
    cells(a={"who": "2"})
    sync_view(folder, ledger, [GRADE])
    assert ledger.history() == [row]


def test_a_first_cell_that_contradicts_a_reader_waits_for_a_person(folder, ledger, cells, tell):
    row = tell(GRADE, "2")
    cells(a={"who": "1"})
    sync_view(folder, ledger, [GRADE])
    sync_view(folder, ledger, [GRADE])
    (held,) = ledger.history()[1:]
    assert (held.state, held.note.split("; ")[1]) == ("held", f"label {row.id} of Ada says otherwise")
    assert now(ledger, GRADE) == ("2", "Ada")
    ledger.confirm(held.id)
    sync_view(folder, ledger, [GRADE])
    assert now(ledger, GRADE) == ("1", "import")
    assert len(ledger.history()) == 3


def test_a_retracted_cell_stays_retracted(folder, ledger, cells):
    cells(a={"who": "1"})
    sync_view(folder, ledger, [GRADE])
    ledger.revoke(author="import")
    sync_view(folder, ledger, [GRADE])
    assert now(ledger, GRADE) is None


def test_findings_are_taken_one_by_one(folder, ledger, cells, tell):
    cells(a={"effusion": "1", "mass": "0"})
    sync_view(folder, ledger, [CHEST])
    tell(CHEST, {"effusion": True, "mass": True, "nodule": False})
    cells(a={"effusion": "0", "mass": "0"})
    sync_view(folder, ledger, [CHEST])
    assert now(ledger, CHEST) == ({"effusion": False, "mass": True, "nodule": False}, "import")
    sync_view(folder, ledger, [CHEST])
    assert len(ledger.history()) == 3
    cells(a={"effusion": "1", "mass": ""})
    sync_view(folder, ledger, [CHEST])
    assert now(ledger, CHEST) == ({"effusion": True, "mass": True, "nodule": False}, "import")


def test_an_emptied_finding_stays_and_may_be_filled_again(folder, ledger, cells):
    for effusion, mass in (("1", "0"), ("0", ""), ("0", "0"), ("0", "1")):
        cells(a={"effusion": effusion, "mass": mass})
        sync_view(folder, ledger, [CHEST])
    assert now(ledger, CHEST) == ({"effusion": False, "mass": True}, "import")
    assert [row.state for row in ledger.history()] == ["final"] * 3


def test_a_recipe_of_masks_has_no_column(folder, ledger, organs, cells):
    cells(a={"organs": "liver", "liver": "1"})
    assert sync_view(folder, ledger, [organs]) == []
    assert ledger.history() == []


def test_a_table_with_several_lines_in_a_cell_names_the_line(folder, ledger, studies: Path):
    (studies / "answers.csv").write_text('image,note,who\na.nii.gz,"one\ntwo",1\nb,,7\n')
    (problem,) = sync_view(folder, ledger, [GRADE])
    assert problem.reason.startswith("line 4: '7'")
    assert now(ledger, GRADE) == ("1", "import")


def test_cells_older_than_a_restored_ledger_are_not_taken_for_blind(folder, ledger, studies, cells):
    ledger.home.remember_restored(utc_now())
    for study, age in (("a", 60), ("b", -60)):
        cells(**{study: {"who": "1"}})
        os.utime(studies / "answers.csv", (time.time() - age,) * 2)
        sync_view(folder, ledger, [GRADE])
    assert {row.study: row.shown_version for row in ledger.history()} == {"a": "unknown", "b": ""}
