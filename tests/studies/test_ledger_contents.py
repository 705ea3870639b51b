"""Labels altered behind our back: mended where a copy is left, never read where none is."""

from __future__ import annotations

import logging

import pytest

from radloop.recipes.errors import Conflict
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.cases import labelled_cases
from radloop.studies.contents import damaged
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.split import SIDES
from radloop.studies.view import View


@pytest.fixture
def label(folder, ledger, organs, draw):
    return accept_label(folder, ledger, organs, "a", draw(1), author="Ada")


@pytest.mark.parametrize("fault", ["altered", "missing", "empty"])
def test_it_is_mended_from_what_is_shown(folder, ledger, organs, label, fault, caplog):
    file = ledger.file(label)
    good = file.read_bytes()
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(good[:-1] + b"!" if fault == "altered" else b"")
    bad = file.read_bytes() if file.exists() else None
    assert damaged(ledger) == [label]
    (case,) = labelled_cases(folder, ledger, organs, SIDES)
    assert case.label == file
    assert file.read_bytes() == good
    assert "mended" in caplog.text
    kept = [path.read_bytes() for path in (ledger.home.labels / ".damaged").glob("*")]
    assert kept == ([] if bad is None else [bad])
    assert damaged(ledger) == []


def test_without_a_copy_its_study_is_left_out_and_the_reason_said(folder, ledger, organs, label, draw, caplog):
    other = accept_label(folder, ledger, organs, "b", draw(2), author="Ada")
    (folder.final_dir / "a.nii.gz").unlink()
    ledger.file(label).write_bytes(b"something else")
    with caplog.at_level(logging.WARNING):
        cases = labelled_cases(folder, ledger, organs, SIDES)
    assert [case.row for case in cases] == [other.id]
    assert "label 1 of study 'a' is damaged" in caplog.text
    assert "label the study again" in caplog.text
    with pytest.raises(Conflict, match="label 1 of study 'a'"):
        ledger.content(label)
    (problem,) = [p for p in sync_view(folder, Ledger(ledger.home), [organs]) if p.file == ledger.file(label)][:1]
    assert "backup" in problem.reason
    assert not (folder.final_dir / "a.nii.gz").exists()
    assert ledger.file(label).read_bytes() == b"something else"


def test_labelling_again_heals(folder, ledger, organs, label, draw):
    (folder.final_dir / "a.nii.gz").unlink()
    ledger.file(label).write_bytes(b"something else")
    again = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    assert again.checksum == label.checksum
    assert checksum(ledger.content(label)) == label.checksum
    assert [path.read_bytes() for path in (ledger.home.labels / ".damaged").glob("*")] == [b"something else"]


def test_every_start_looks_at_all(folder, ledger, organs, label, draw):
    """Also those that are not shown any more."""
    accept_label(folder, ledger, organs, "a", draw(2), author="Ada")
    ledger.file(label).write_bytes(b"x")
    assert [p.file for p in sync_view(folder, ledger, [organs])] == [ledger.file(label)]
    newest = ledger.latest("a", "organs")
    ledger.file(newest).write_bytes(b"y")
    assert [p.file for p in sync_view(folder, ledger, [organs])] == [ledger.file(label)]
    assert checksum(ledger.file(newest)) == newest.checksum


def test_an_altered_file_is_never_shown(folder, ledger, organs, label, draw):
    """What is shown is gone and the ledger's copy is wrong: the view stays empty instead of showing wrong bytes."""
    (folder.final_dir / "a.nii.gz").unlink()
    ledger.file(label).write_bytes(draw(2).read_bytes())
    with pytest.raises(Conflict):
        View(folder, ledger).show(label)
    assert not (folder.final_dir / "a.nii.gz").exists()
