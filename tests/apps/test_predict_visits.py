"""`radloop predict` of a recipe that looks at earlier visits: what is answered again, and what is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from radloop.apps.cli import main
from radloop.engine.fit import fit
from radloop.recipes.load import load_recipe
from radloop.registry.registry import Registry
from radloop.studies.answer_rows import take_cells
from radloop.studies.cases import labelled_cases
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES

RECIPE = """
name = "course"
kind = "classification"
labels = { better = 1, worse = 2 }
[answer]
sequence = "visits"
[network]
name = "cnn"
features = [4, 8]
[fit]
patch = [8, 8, 8]
batch = 2
steps = 1
"""


def test_a_changed_earlier_study_is_looked_at_again(
    tmp_path: Path, kit: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    home = Home.find(studies)
    (home.recipes / "course.toml").write_text(RECIPE)
    lines = ["image,patient,date,course"]
    for patient in range(6):
        for month in (1, 2):
            kit.make_study(studies, f"p{patient}_{month}")
            lines.append(f"p{patient}_{month},p{patient},2024-0{month}-01,{'worse' if patient % 2 else 'better'}")
    (studies / "answers.csv").write_text("\n".join(lines) + "\n")
    folder, ledger, recipe = StudiesFolder(studies), Ledger(home), load_recipe("course", home.path)
    take_cells(folder, ledger, [recipe])
    registry = Registry(home)
    staged = registry.stage(recipe)
    fit(recipe, labelled_cases(folder, ledger, recipe, SIDES), staged, cache=tmp_path / "c", epochs=1, threads=1)
    registry.promote(registry.publish(recipe, staged, {"held_out": {}, "state": "challenger", "labels": []}))
    words = ["predict", "course", "--studies", str(studies), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert main(words) == 0
    assert "12 are there already" in capsys.readouterr().out
    (studies / "p3_1.nii.gz").write_bytes((studies / "p4_2.nii.gz").read_bytes())
    assert main(words) == 0
    assert "10 are there already" in capsys.readouterr().out, "the changed study and the one that looks back at it"
