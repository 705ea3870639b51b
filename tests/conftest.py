"""What every test may use: real data where it is there, system commands, and how long hypothesis may take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]

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


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or touches the state of whoever runs it."""
    for name in ("RADLOOP_HOME", "RADLOOP_LEDGER", "RADLOOP_RECIPES"):
        monkeypatch.delenv(name, raising=False)
