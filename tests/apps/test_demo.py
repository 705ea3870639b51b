"""`radloop demo`: its folder, what it keeps, and once around the loop on a real server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from radloop.apps.cli import main
from radloop.apps.demo import make_studies
from radloop.recipes.errors import Conflict

COMMAND = [sys.executable, "-m", "radloop.apps.cli"]


def test_the_sample_studies_are_made_once(tmp_path: Path) -> None:
    folder = make_studies(tmp_path / "demo")
    assert len(folder.studies()) == 20
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    make_studies(folder.path)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == before


def test_an_interrupted_start_is_completed(tmp_path: Path) -> None:
    folder = make_studies(tmp_path / "demo")
    (folder.path / "answers.csv").unlink()
    next(folder.path.glob("*.nii.gz")).unlink()
    assert len(make_studies(folder.path).studies()) == 20
    assert (folder.path / "answers.csv").is_file()


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), mine / "knee.nii.gz")
    with pytest.raises(Conflict, match="knee"):
        make_studies(mine)
    assert [path.name for path in mine.iterdir()] == ["knee.nii.gz"]


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.chdir("/sys" if os.geteuid() == 0 else tmp_path)  # root may write everywhere else
    assert main(["demo"]) == 1
    assert "--studies" in capsys.readouterr().err


def test_a_taken_port_is_said_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["demo", "--studies", str(tmp_path / "demo"), "--port", port]) == 1
    assert port in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_once_around_the_loop_then_serve_and_stop(tmp_path: Path) -> None:
    """The check leaves a demo folder; a second start keeps its model, serves it, and ends in order."""
    folder, port = tmp_path / "demo", _free_port()
    words = ["demo", "--studies", str(folder), "--port", str(port)]
    done = subprocess.run([*COMMAND, *words, "--check"], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("studies ", "held-out Dice", "answer ", "correction ", "gate ", "serves ", "not for clinical use"):
        assert said in done.stdout
    assert re.search(r"correction +\S+ by .*\(final\), seen version 1", done.stdout)
    assert not _answers(port), "the check left its server behind"

    # a shell's background job ignores SIGINT and hands that on to its children
    demo = subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        lines = _read_until(demo, "stop with Ctrl-C")
        assert any("serves already" in line for line in lines)
        assert _answers(port)
        second = [*COMMAND, "serve", "--studies", str(folder), "--port", str(_free_port())]
        refused = subprocess.run(second, capture_output=True, text=True, check=False, timeout=120)
        assert refused.returncode == 1
        assert "is running" in refused.stderr
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 130
        assert demo.stderr is not None
        assert demo.stderr.read() == ""
    finally:
        demo.kill()
    assert not _answers(port)


def _read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    until = time.monotonic() + 300
    while time.monotonic() < until:
        line = process.stdout.readline()
        lines.append(line)
        if text in line:
            return lines
        if not line:
            break
    pytest.fail(f"the demo said {lines}")


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/info/", timeout=30).ok
    except requests.ConnectionError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
