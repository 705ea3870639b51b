"""The whole loop without a network, in plain processes: what is installed needs no internet and asks for none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WATCH = """
import json, os, sys

LOCAL = ("127.", "::1", "localhost", "0.0.0.0")

def _watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not str(host).startswith(LOCAL):
        line = json.dumps([event, str(host), sys.argv[:4]]) + "\\n"
        with open(os.environ["WATCHED"], "a") as file:
            file.write(line)

sys.addaudithook(_watch)
"""


@pytest.fixture
def watched(installed: Any, tmp_path: Path) -> Iterator[Path]:
    """A file with one line for each attempt of any Python process of that environment to reach another machine."""
    hook = installed.packages / "sitecustomize.py"
    hook.write_text(WATCH)
    log = tmp_path / "attempts.jsonl"
    log.touch()
    yield log
    hook.unlink()


def test_the_watch_notices(installed: Any, watched: Path, tmp_path: Path) -> None:
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 9), 0.01)\nexcept OSError: pass"
    env = {**installed.env, "WATCHED": str(watched)}
    subprocess.run([str(installed.python), "-c", code], env=env, cwd=tmp_path, check=True)
    assert "192.0.2.1" in watched.read_text()


def test_the_loop_needs_no_network(
    installed: Any, watched: Path, require: Callable[[str], str], tmp_path: Path
) -> None:
    loopback_up = f'{require("ip")} link set lo up && exec "$@"'
    namespace = [require("unshare"), "-n"] if os.geteuid() == 0 else [require("unshare"), "-r", "-n"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        promised = "unshare" in os.environ.get("RADLOOP_REQUIRE", "").split(",")
        (pytest.fail if promised else pytest.skip)("this machine does not allow a network namespace")
    words = [str(installed.radloop), "demo", "--check", "--studies", str(tmp_path / "demo")]
    env = {**installed.env, "WATCHED": str(watched), "HOME": str(tmp_path)}
    done = subprocess.run(
        [*namespace, "sh", "-c", loopback_up, "sh", *words],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "once around the loop" in done.stdout
    assert [json.loads(line) for line in watched.read_text().splitlines()] == []
