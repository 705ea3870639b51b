"""`radloop model show`, `labels show` and `labels revoke`: from a version to its labels, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from radloop.apps.cli import main
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.accept import accept_label
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace) -> Path:
    """Labels by two readers, the second correcting the first; a version, one that started from it, and a held one."""
    top = tmp_path_factory.mktemp("lineage")
    studies = top / "studies"
    studies.mkdir()
    home = Home.find(studies)
    (home.recipes / "tiny.toml").write_text(kit.tiny)
    for study in ("a", "b", "c"):
        kit.make_study(studies, study)
    ledger, recipe, folder = Ledger(home), load_recipe("tiny", home.path), StudiesFolder(studies)
    for number, (study, author, seen) in enumerate((("a", "Ada", ""), ("b", "Bob", ""), ("a", "Bob", "1"))):
        mask = kit.mask_file(top / f"{number}.nii.gz", 1 + number % 2)
        accept_label(folder, ledger, recipe, study, mask, author=author, shown_version=seen)
    kit.publish(home.path, labels=[1], held_out_labels=[2], seed=7)
    without = {"reason": "not worse without them"}
    gate = {"reason": "better by far", "without": without}
    kit.publish(home.path, labels=[3], started_from=1, gate=gate, torch="2.0", last_row=3)
    registry = Registry(home)
    staged = registry.stage(recipe)
    (staged / "model.pt").write_bytes(b"weights")
    registry.hold(registry.publish(recipe, staged, {"labels": [2]}), "Bob's labels change the judgement")
    return studies


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "studies")


def _run(place: Path, *words: str) -> int:
    return main([*words, "--studies", str(place)])


def test_a_version_says_what_it_was_made_of(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.json"
    assert _run(place, "model", "show", "tiny", "--json", str(out)) == 0
    said = capsys.readouterr().out
    for part in ("tiny version 2", "better by far", "not worse without them", "version 1", "Bob", "2.0", "0.750"):
        assert part in said
    told = json.loads(out.read_text())
    assert (told["version"], told["started_from"], told["ancestors"], told["last_row"]) == (2, 1, [1], 3)
    assert [(row["id"], row["use"], row["author"], row["seen"]) for row in told["labels"]] == [
        (1, "learned before", "Ada", ""),
        (3, "learned", "Bob", "1"),
    ]
    assert told["recipe_hash"]
    assert told["code_version"]
    assert _run(place, "model", "show", "tiny", "1") == 0
    assert "judged on" in capsys.readouterr().out
    assert _run(place, "model", "show", "tiny", "9") == 1
    assert "versions are 1, 2, 3" in capsys.readouterr().err


def test_a_version_names_the_labels_that_the_ledger_lacks(
    place: Path, kit: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit.publish(Home.find(place).path, labels=[1, 77], held_out_labels=[78])
    assert _run(place, "model", "show", "tiny", "--json", str(tmp_path / "v.json")) == 0
    said = capsys.readouterr().out
    assert "label 77 (learned) is not in the ledger" in said
    assert "label 78 (judged on) is not in the ledger" in said
    told = json.loads((tmp_path / "v.json").read_text())
    assert [row["id"] for row in told["lost_labels"]] == [77, 78]


def test_a_version_that_waits_for_a_person_says_why(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(place, "model", "list") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:2] == ["tiny", "3"])
    assert line.split()[2] == "held"
    assert "Bob's labels change the judgement" in line
    assert _run(place, "model", "rollback", "tiny", "3") == 0
    assert Registry(Home.find(place)).champion("tiny").number == 3


def test_a_label_says_what_became_of_it(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "l.json"
    assert _run(place, "labels", "show", "1", "b", "--json", str(out)) == 0
    said = capsys.readouterr().out
    assert "followed by label 3, final, by Bob" in said
    first, second = json.loads(out.read_text())["labels"]
    assert (first["id"], first["content"], first["parent"]) == (1, "whole", None)
    assert [(use["version"], use["use"]) for use in first["versions"]] == [
        (1, "trained"),
        (2, "trained, through what it started from,"),
    ]
    assert [(use["version"], use["use"]) for use in second["versions"]] == [(1, "judged"), (3, "trained")]
    ledger = Ledger(Home.find(place))
    ledger.file(ledger.row(1)).write_bytes(b"altered")
    assert _run(place, "labels", "show", "1") == 0
    assert "damaged" in capsys.readouterr().out
    for word in ("99", "9" * 20, "9" * 5000, "nobody"):
        assert _run(place, "labels", "show", word) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_taking_back_names_the_versions_and_what_follows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(place, "labels", "revoke", "--id", "1") == 0
    said = capsys.readouterr().out
    cells = [line.split() for line in said.splitlines()]
    assert ["tiny", "1", "former", "1", "0", "0"] in cells
    assert ["*", "tiny", "2", "champion", "0", "1", "0"] in cells
    assert "the next `radloop serve` trains anew by itself, from other weights, or now: radloop train tiny" in said
    assert _run(place, "labels", "revoke", "--id", "1") == 0
    assert "took back 0 labels" in capsys.readouterr().out
    assert _run(place, "labels", "revoke") == 2
    assert _run(place, "labels", "revoke", "--author", "Ada", "--id", "2") == 1
    assert "label 2 is not in the ledger, or is none of the author" in capsys.readouterr().err


def test_taking_back_what_the_version_that_serves_was_judged_on_is_followed_up(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(place, "model", "rollback", "tiny", "1") == 0
    assert _run(place, "labels", "revoke", "--id", "2") == 0
    said = capsys.readouterr().out
    assert (
        "the version of tiny that serves was judged on them; the next `radloop serve` trains once more by itself"
        in said
    )
    assert "from other weights" not in said


def test_with_train_a_version_from_other_weights_follows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(place, "labels", "revoke", "--id", "1", "--train") == 0
    said = capsys.readouterr().out
    assert "training anew, from other weights" in said
    newest = Registry(Home.find(place)).versions("tiny")[-1]
    assert newest.number == 4
    assert newest.manifest["started_from"] is None
    assert not {1} & set(newest.manifest["labels"])


def test_an_outcome_is_said_with_its_time(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    life = Recipe(name="life", kind="risk", labels={"death": 1}, answer={"times": [365]})
    folder, ledger = StudiesFolder(place), Ledger(Home.find(place))
    for study, event in (("a", True), ("b", False)):
        told = {"format": 1, "kind": "risk", "event": event, "time": 412, "unit": "days"}
        (tmp_path / "o.json").write_text(json.dumps(told))
        row = accept_label(folder, ledger, life, study, tmp_path / "o.json", author="Ada")
        assert _run(place, "labels", "show", str(row.id)) == 0
        words = "event at 412 days" if event else "no event until 412 days"
        assert f"says {words}" in capsys.readouterr().out
