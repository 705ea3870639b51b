"""Whether an event came and when: as a JSON file, as cells of answers.csv, in units, as labels of the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radloop.recipes.errors import BadLabel
from radloop.recipes.recipe import Recipe
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.answer_rows import cells_of
from radloop.studies.answers import fit_answer, read_answer, read_outcome, said, write_answer
from radloop.studies.cases import labelled_cases
from radloop.studies.outcomes import Outcome
from radloop.studies.split import SIDES

LIFE = Recipe(name="life", kind="risk", labels={"death": 1}, answer={"times": [365], "event": "dead", "time": "days"})
MONTHS = LIFE.model_copy(update={"answer": LIFE.answer.model_copy(update={"unit": "months"})})
KIND = Recipe(name="type", kind="classification", labels={"a": 1, "death": 2})


def put(folder: Path, told: object) -> Path:
    file = folder / "a.json"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    return file


def form(**told: object) -> dict[str, object]:
    return {"format": 1, "kind": "risk", **told}


def test_an_outcome_is_read_as_it_was_written_in_any_unit(tmp_path):
    write_answer(tmp_path / "a.json", "risk", Outcome(True, 730.5, "days"))
    assert read_outcome(tmp_path / "a.json", LIFE) == Outcome(True, 730.5, "days")
    assert read_outcome(tmp_path / "a.json", MONTHS) == Outcome(True, pytest.approx(24), "months")
    assert said(tmp_path / "a.json") == {"event": True, "time": 730.5, "unit": "days"}
    assert read_answer(tmp_path / "a.json", LIFE) == {"death": True}
    assert cells_of(MONTHS, tmp_path / "a.json") == {"dead": "1", "days": "24"}
    assert fit_answer(MONTHS, put(tmp_path, form(event=False, time=3))) == Outcome(False, 3.0, "months")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (form(event=True), "no key 'time'"),
        (form(time=3), "no key 'event'"),
        (form(event=1, time=3), "event 1; write true or false"),
        (form(event=True, time=-3), "time -3; write a number above 0"),
        (form(event=True, time="3"), "time '3'; write a number"),
        (form(event=True, time=True), "time True; write a number"),
        ('{"format": 1, "kind": "risk", "event": true, "time": NaN}', "time nan; write a number"),
        (form(event=True, time=3, unit="weeks"), "unit 'weeks'; allowed are days, months, years"),
        (form(event=True, time=3, tiem=4), "'tiem', which is not allowed.*did you mean 'time'"),
        ({"format": 2, "kind": "risk", "event": True, "time": 3}, "update radloop"),
    ],
)
def test_a_file_that_is_no_outcome_is_refused(tmp_path, told, reason):
    with pytest.raises(BadLabel, match=rf"^a\.json .*{reason}"):
        fit_answer(LIFE, put(tmp_path, told))


def test_kinds_are_not_mixed_up(tmp_path):
    with pytest.raises(BadLabel, match="takes answers of kind 'risk'"):
        fit_answer(LIFE, put(tmp_path, {"format": 1, "kind": "classification", "answer": "death"}))
    with pytest.raises(BadLabel, match="asks whether an event came"):
        read_outcome(tmp_path / "a.json", LIFE)
    with pytest.raises(BadLabel, match="takes answers of kind 'classification'"):
        fit_answer(KIND, put(tmp_path, form(event=True, time=3)))
    with pytest.raises(BadLabel, match=r"\(risk\); recipe type is of kind classification"):
        read_answer(tmp_path / "a.json", KIND)


def table(studies: Path, *lines: str) -> None:
    (studies / "answers.csv").write_text("\n".join(["image,dead,days", *lines]) + "\n")


def test_cells_become_labels_and_a_changed_cell_one_more(studies, folder, ledger):
    table(studies, "a,1,412.0", "b,,")
    assert sync_view(folder, ledger, [LIFE]) == []
    (row,) = ledger.history()
    assert (row.study, row.names, row.ext, row.author) == ("a", ("death",), ".json", "import")
    (case,) = labelled_cases(folder, ledger, LIFE, SIDES)
    assert read_outcome(case.label, LIFE) == Outcome(True, 412.0)
    sync_view(folder, ledger, [LIFE])
    assert len(ledger.history()) == 1
    table(studies, "a,0,900", "b,no,3")
    sync_view(folder, ledger, [LIFE])
    assert [r.study for r in ledger.history()] == ["a", "a", "b"]
    assert said(ledger.content(ledger.latest("a", "life"))) == {"event": False, "time": 900, "unit": "days"}


def test_a_cell_that_contradicts_a_reader_waits(studies, folder, ledger, tmp_path):
    accept_label(folder, ledger, LIFE, "a", put(tmp_path, form(event=True, time=10)), author="Ada")
    table(studies, "a,1,10")
    sync_view(folder, ledger, [LIFE])
    assert len(ledger.history()) == 1, "the reader has said so already"
    table(studies, "a,1,20")
    sync_view(folder, ledger, [LIFE])
    assert [row.state for row in ledger.history()] == ["final", "held"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,1,", "column 'dead' is filled and 'days' is empty"),
        ("a,,5", "column 'days' is filled and 'dead' is empty"),
        ("a,2,5", "'2' in column 'dead' is neither yes nor no"),
        ("a,1,-5", "'-5' in column 'days' is no time; write a number of days above 0"),
        ("a,1,0", "'0' in column 'days' is no time"),
        ("a,1,inf", "'inf' in column 'days' is no time"),
        ("a,1,soon", "'soon' in column 'days' is no time"),
    ],
)
def test_cells_that_are_no_outcome_are_said(studies, folder, ledger, line, reason):
    table(studies, line, "b,0,7")
    ((_, said_of),) = sync_view(folder, ledger, [LIFE])
    assert said_of.startswith("line 2: ")
    assert reason in said_of
    assert [row.study for row in ledger.history()] == ["b"]


def test_event_and_time_of_a_changed_line_are_taken_together(studies, folder, ledger, tmp_path):
    table(studies, "a,0,500", "b,0,500")
    sync_view(folder, ledger, [LIFE])
    accept_label(folder, ledger, LIFE, "a", put(tmp_path, form(event=True, time=700)), author="Ada")
    ledger.revoke(ids=[ledger.latest("b", "life").id])
    table(studies, "a,0,600", "b,0,900")
    assert sync_view(folder, ledger, [LIFE]) == []
    found = {study: said(ledger.content(ledger.latest(study, "life"))) for study in "ab"}
    assert found["a"] == {"event": False, "time": 600, "unit": "days"}, "not the reader's event at the table's time"
    assert found["b"] == {"event": False, "time": 900, "unit": "days"}
