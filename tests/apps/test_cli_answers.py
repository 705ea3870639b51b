"""Labels that answer about whole studies, by the commands: taken over, listed, shown, revoked, exported, backed up."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest

from radloop.apps.cli import main
from radloop.studies.answers import said
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

GRADE = 'name = "grade"\nkind = "ordinal"\nlabels = { low = 1, high = 2 }\n'
CHEST = 'name = "chest"\nkind = "multilabel"\nlabels = { effusion = 1, mass = 2 }\n'


@pytest.fixture
def place(tmp_path: Path, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three studies with cells for two recipes; one cell is no label."""
    studies = tmp_path / "studies"
    studies.mkdir()
    recipes = Home.find(studies).recipes
    (recipes / "grade.toml").write_text(GRADE)
    (recipes / "chest.toml").write_text(CHEST)
    for study in ("a", "b", "c"):
        kit.make_study(studies, study)
    (studies / "answers.csv").write_text("image,grade,effusion,mass\na,low,1,0\nb,high,,\nc,hihg,,\n")
    return studies


def run(place: Path, *words: str) -> int:
    return main([*words, "--studies", str(place)])


def test_cells_become_labels_that_every_command_knows(place: Path, tmp_path: Path, capsys) -> None:
    assert run(place, "export", "--recipe", "grade", "--out", str(tmp_path / "out")) == 0
    err = capsys.readouterr().err
    assert "label answers.csv is not used: line 4: 'hihg' in column 'grade' is no label of recipe grade" in err
    with (tmp_path / "out" / "answers.csv").open() as handle:
        assert {row["image"]: row["grade"] for row in csv.DictReader(handle)} == {"a": "low", "b": "high"}
    assert run(place, "labels", "list") == 0
    assert 'from answers.csv: {"grade": "high"}' in capsys.readouterr().out
    assert run(place, "labels", "show", "a") == 0
    out = capsys.readouterr().out
    assert "  says low\n" in out
    assert "  says effusion, no mass\n" in out
    assert run(place, "status") == 0
    assert "2 studies, 2 new" in capsys.readouterr().out


def test_answers_are_revoked_and_restored(place: Path, tmp_path: Path, capsys) -> None:
    run(place, "export", "--recipe", "grade", "--out", str(tmp_path / "out"))
    assert run(place, "backup", "--out", str(tmp_path / "b.tar")) == 0
    assert run(place, "labels", "revoke", "--author", "import") == 0
    assert "took back 3 labels" in capsys.readouterr().out
    ledger = Ledger(Home.find(place))
    assert (ledger.current("grade"), ledger.current("chest")) == ({}, {})
    assert main(["restore", str(tmp_path / "b.tar"), "--studies", str(place), "--home", str(tmp_path / "home")]) == 0
    back = Ledger(Home(tmp_path / "home"))
    assert said(back.content(back.latest("b", "grade"))) == "high"


def test_a_forgotten_patient_has_no_answer_left(place: Path, tmp_path: Path, capsys) -> None:
    run(place, "export", "--recipe", "grade", "--out", str(tmp_path / "out"))
    assert run(place, "forget", "a", "--yes") == 0
    assert "a," not in (place / "answers.csv").read_text()
    ledger = Ledger(Home.find(place))
    assert [row.note for row in ledger.history() if row.study == "a" or "forgotten" in row.study] == ["", "", "", ""]
    assert [ledger.file(row).exists() for row in ledger.history(recipe="grade")] == [False, True, False]
    assert run(place, "labels", "show", "b") == 0
