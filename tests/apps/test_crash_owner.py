"""Who owns whom: a server ends with `radloop serve`, and a home has one server, however it was started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import radloop.apps.radiology
from radloop.apps.server_process import is_serving
from radloop.studies.home import Home

SERVER = """
import subprocess, sys
from pathlib import Path
from radloop.apps.server_process import claim
from radloop.studies.home import Home
claim(Home(Path(sys.argv[1])))
child = subprocess.Popen([sys.executable, "-c", *sys.argv[2:]], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""
TRAINING = """
import runpy, sys, time
from pathlib import Path
app, go, survived = map(Path, sys.argv[1:])
while not go.exists():
    time.sleep(0.02)
runpy.run_path(str(app))
survived.touch()
"""


def _serve(studies: Path, home: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "radloop.apps.cli", "--home", str(home), "serve", "--studies", str(studies)]
    with log.open("wb") as out:
        return subprocess.Popen([*command, "--port", str(port)], stdout=out, stderr=out)


def _until(condition, seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.slow
def test_kill_of_radloop_serve_ends_its_server_and_frees_the_home(kit: SimpleNamespace, tmp_path: Path) -> None:
    studies, home, log = tmp_path / "studies", tmp_path / "home", tmp_path / "serve.log"
    studies.mkdir()
    kit.make_study(studies, "s00")
    (Home(home).recipes / "tiny.toml").write_text(kit.tiny)
    owner = _serve(studies, home, kit.free_port(), log)
    try:
        assert _until(lambda: b"stop with Ctrl-C" in log.read_bytes() or owner.poll() is not None)
        assert owner.poll() is None, log.read_text()
        (server,) = psutil.Process(owner.pid).children()
        second = subprocess.run(
            [sys.executable, "-m", "radloop.apps.cli", "--home", str(home), "serve", "--studies", str(studies)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert f"process {server.pid}" in second.stderr
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        assert _until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 10)
        assert _until(lambda: not is_serving(Home(home)), 10)
    finally:
        if owner.poll() is None:
            owner.terminate()
            owner.wait(30)


def test_a_training_whose_server_was_killed_while_it_began_ends(tmp_path: Path) -> None:
    app = Path(next(iter(radloop.apps.radiology.__path__))) / "main.py"
    go, survived = tmp_path / "go", tmp_path / "survived"
    command = [sys.executable, "-c", SERVER, str(tmp_path / "home"), TRAINING, str(app), str(go), str(survived)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    training = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.communicate()
    go.touch()  # it was about to load the app
    assert _until(lambda: not training.is_running() or training.status() == psutil.STATUS_ZOMBIE, 30)
    assert not survived.exists()


@pytest.mark.slow
def test_a_second_server_of_a_home_is_refused_however_it_is_started(server: SimpleNamespace, tmp_path: Path) -> None:
    """The first was started by MONAI Label's own command."""
    home = Home(server.home)
    assert is_serving(home)
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(server.home / "app")]
    command += ["--studies", str(server.studies), "--port", "0", "--uvicorn_app", "radloop.apps.asgi:app"]
    second = subprocess.run(
        command, env=server._env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180
    )
    assert second.returncode != 0
    assert f"is running (process {server.process.pid})" in second.stdout + second.stderr
    assert server.get("/info/").ok
