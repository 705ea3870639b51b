"""A copy of studies and their home: the same labels and split, and nothing done to it reaches the original."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies.accept import sync_view
from radloop.studies.cases import labelled_cases, read_label
from radloop.studies.copies import copy_of
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES, Split

RECIPE = Recipe(name="organs", labels={"organ": 1})


def _save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.uint8), np.eye(4)), path)


@pytest.fixture
def original(tmp_path: Path) -> StudiesFolder:
    for number in range(8):
        _save(tmp_path / "studies" / f"s{number}.nii.gz", number)
        _save(tmp_path / "studies" / "labels" / "final" / f"s{number}.nii.gz", 1)
    (tmp_path / "studies" / "labels" / "names.json").write_text('{"organ": 1}')
    return StudiesFolder(tmp_path / "studies")


def _known(folder: StudiesFolder, home: Home) -> dict[str, tuple[str, int]]:
    cases = labelled_cases(folder, Ledger(home), RECIPE, SIDES)
    return {case.study: (case.side, int(read_label(case, RECIPE.labels).array.sum())) for case in cases}


def test_a_copy_has_the_labels_and_the_split(original: StudiesFolder, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert not sync_view(original, Ledger(home), [RECIPE])
    known = _known(original, home)
    folder, copied = copy_of(original, home, tmp_path / "copy")
    assert _known(folder, copied) == known
    assert len(known) == 8
    assert folder.studies()["s3"].channels[0].resolve() == original.studies()["s3"].channels[0]


def test_nothing_done_to_a_copy_reaches_the_original(original: StudiesFolder, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    sync_view(original, Ledger(home), [RECIPE])
    folder, copied = copy_of(original, home, tmp_path / "copy")
    ledger = Ledger(copied)
    rows = Ledger(home).history()
    ledger.revoke(ids=[rows[0].id])
    Split(ledger).assign(["new"])
    sync_view(folder, ledger, [RECIPE])
    for file in copied.labels.iterdir():
        file.unlink()
    assert Ledger(home).history() == rows
    assert "new" not in Split(Ledger(home)).stored()
    assert len(_known(original, home)) == 8
    assert (original.final_dir / f"{rows[0].study}.nii.gz").is_file()
    # what is whole is not made again
    assert len(Ledger(copy_of(original, home, tmp_path / "copy")[1]).history()) == len(rows) + 1


def test_a_folder_without_a_home_stays_without_one(original: StudiesFolder, tmp_path: Path) -> None:
    folder, copied = copy_of(original, Home.find(original.path), tmp_path / "copy")
    assert not sync_view(folder, Ledger(copied), [RECIPE])
    assert len(_known(folder, copied)) == 8
    assert not (original.path / ".radloop").exists()


def test_a_copy_keeps_its_rows_to_itself_wherever_the_ledger_is(
    original: StudiesFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADLOOP_LEDGER", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    home = Home(tmp_path / "home")
    sync_view(original, Ledger(home), [RECIPE])
    folder, copied = copy_of(original, home, tmp_path / "copy")
    assert len(_known(folder, copied)) == 8
    Ledger(copied).revoke(author="import")
    assert not any(row.state == "revoked" for row in Ledger(home).history())
