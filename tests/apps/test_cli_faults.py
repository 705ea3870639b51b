"""What the commands say of a damaged label, ledger or home, or of one that is too new: one line, nothing changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from radloop.studies import snapshots
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

COMMANDS = ["status", "labels list", "train sample_lesions", "serve", "model list", "export --out out"]


@pytest.fixture
def studies(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """Two studies with labels and a snapshot of the ledger."""
    folder = tmp_path / "studies"
    folder.mkdir()
    ledger = Ledger(Home.find(folder))
    for name in ("a", "b"):
        kit.make_study(folder, name)
        ledger.add(name, name, "tiny", "me", kit.mask_file(tmp_path / f"{name}.nii.gz"), ".nii.gz", ("lesion",))
    assert snapshots.take(ledger.home)
    ledger.database.close()
    return folder


def run(studies: Path, command: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "radloop.apps.cli", *command.split(), "--studies", str(studies)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=studies.parent)


def test_status_names_damaged_labels(studies: Path) -> None:
    ledger = Ledger(Home.find(studies))
    assert "damaged content" not in run(studies, "status").stdout
    ledger.file(ledger.row(2)).write_bytes(b"x")  # both rows have the same mask
    told = run(studies, "status")
    assert told.returncode == 0
    assert "2 labels with damaged content (row 1, 2)" in told.stdout


def test_status_counts_contents_whose_rows_were_lost(studies: Path) -> None:
    assert "no row names" not in run(studies, "status").stdout
    (studies / ".radloop" / "labels" / ("ab" * 32 + ".nii.gz")).write_bytes(b"x")
    assert "1 content of labels that no row names" in run(studies, "status").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_home_is_refused_by_every_command(studies: Path, command: str) -> None:
    file = studies / ".radloop" / "home.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 99'))
    before = sorted(studies.rglob("*"))
    told = run(studies, command)
    assert told.returncode == 1
    (said,) = told.stderr.splitlines()
    assert "is of format 99, this radloop knows 2; update radloop" in said
    assert sorted(studies.rglob("*")) == before


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("model")])
def test_an_emptied_ledger_is_refused_by_every_command(studies: Path, command: str) -> None:
    (studies / ".radloop" / "ledger.db").write_bytes(b"")
    told = run(studies, command)
    assert told.returncode == 1
    (said,) = told.stderr.splitlines()
    assert f"radloop restore {studies / '.radloop' / 'snapshots' / 'ledger-000001.db'} --studies DIR" in said
    assert (studies / ".radloop" / "ledger.db").read_bytes() == b""


def test_the_command_that_the_message_names_puts_the_snapshot_back(studies: Path) -> None:
    ledger = studies / ".radloop" / "ledger.db"
    whole = run(studies, "labels list").stdout
    ledger.write_bytes(b"")
    (said,) = run(studies, "labels list").stderr.splitlines()
    command = re.search(r"`radloop (restore \S+) --studies DIR`", said)
    assert command
    told = run(studies, command[1])
    assert told.returncode == 0, told.stderr
    assert run(studies, "labels list").stdout == whole
    bad = run(studies, f"restore {studies / 'a.nii.gz'}")
    assert bad.returncode == 1
    assert len(bad.stderr.splitlines()) == 1
    assert run(studies, "labels list").stdout == whole
