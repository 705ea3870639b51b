"""What every test may use: real data where it is there, system commands, and how long hypothesis may take."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: waiting threads sleep, see apps/cli.py

hypothesis.settings.register_profile(
    "radloop",
    deadline=None,  # the machine may be busy with a training
    max_examples=int(os.environ.get("RADLOOP_EXAMPLES", "50")),
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("radloop")


def _required() -> set[str]:
    """What this machine promises to have; where it is missing a test fails instead of being skipped."""
    return {name for name in os.environ.get("RADLOOP_REQUIRE", "").replace(" ", "").split(",") if name}


def _missing(name: str, reason: str) -> None:
    if name in _required():
        pytest.fail(f"RADLOOP_REQUIRE promises {name!r}, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def missing() -> Callable[[str, str], None]:
    """`missing("data", reason)` skips the test, and fails it where RADLOOP_REQUIRE promises that."""
    return _missing


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data: RADLOOP_DATA, by default `shared/data` beside the repository."""
    folder = Path(os.environ.get("RADLOOP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        _missing("data", f"there is no real data in {folder}; RADLOOP_DATA says where it is")
    return folder


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """`require("ip")` gives the path of a system command, or skips the test (see .ci/system-packages)."""

    def path_of(command: str) -> str:
        found = shutil.which(command)
        if found is None:
            _missing(command, f"the command {command!r} is not installed; .ci/system-packages installs it")
        return str(found)

    return path_of


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """`postgres()` gives the URL of a new, empty database of a server of its own on loopback."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    command = os.path.realpath(places[-1] if places else shutil.which("postgres") or "")
    if not os.path.isfile(command) or importlib.util.find_spec("psycopg") is None:
        _missing("postgres", "PostgreSQL or psycopg is not installed; .ci/system-packages and `.[dev]` install them")
    # Its programs refuse to run as root, and whom they run as cannot enter root's temporary folders.
    folder = Path(tempfile.mkdtemp(prefix="radloop-postgres-"))
    become = []
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, output = folder / "data", tmp_path_factory.mktemp("postgres") / "log"
    make = [*become, str(Path(command).with_name("initdb")), "-D", str(data), "-U", "radloop", "-A", "trust", "-N"]
    serve = [*become, command, "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    serve += ["-c", "fsync=off"]
    with output.open("wb") as log:
        subprocess.run([*make, "-E", "UTF8", "--locale=C.UTF-8"], check=True, cwd="/", stdout=log, stderr=log)
        process = subprocess.Popen(serve, cwd="/", stdout=log, stderr=log)
        count = itertools.count()

        def database() -> str:
            import psycopg

            name = f"ledger{next(count)}"
            with psycopg.connect(
                host="127.0.0.1", port=port, user="radloop", dbname="postgres", autocommit=True
            ) as one:
                one.execute(f"CREATE DATABASE {name}")
            return f"postgresql+psycopg://radloop@127.0.0.1:{port}/{name}"

        try:
            until = time.monotonic() + 60
            while subprocess.run(
                [Path(command).with_name("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            ).returncode:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"PostgreSQL did not start:\n{output.read_text()[-2000:]}")
                time.sleep(0.1)
            yield database
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Installed:
    """radloop's wheel in an environment of its own, beside the packages of this one.

    Attributes:
        python: its interpreter.
        radloop: its command.
        packages: where radloop is in it.
        env: an environment without what tells a program that it is being tested.
    """

    python: Path
    radloop: Path
    packages: Path
    env: dict[str, str]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built from a copy of the tracked and untracked files, installed without its dependencies."""
    top = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(ROOT, top / "source", ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(top), str(source)])
    (wheel,) = top.glob("radloop-*.whl")
    _run([sys.executable, "-m", "venv", "--without-pip", str(top / "venv")])
    python = top / "venv" / "bin" / "python"
    packages = Path(_run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    _run([*pip, f"--python={python}", "install", "--no-deps", "--no-compile", str(wheel)])
    # a plain line adds a folder without running the hooks in it, so this checkout's own editable install stays out
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    hidden = ("CI", "PYTEST", "PYTHON", "RADLOOP", "MLFLOW", "DO_NOT_TRACK", "GITHUB")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return Installed(python, python.with_name("radloop"), packages, env)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or touches the state of whoever runs it."""
    for name in ("RADLOOP_HOME", "RADLOOP_LEDGER", "RADLOOP_RECIPES"):
        monkeypatch.delenv(name, raising=False)
