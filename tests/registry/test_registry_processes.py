"""Crashes, several processes, and what leaves the machine: each in real processes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from radloop.recipes.errors import Conflict
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home

CRASH = """
import os, signal, sys
from pathlib import Path
from radloop.recipes.recipe import Recipe
from radloop.registry import folders
from radloop.registry.registry import Registry
from radloop.studies.home import Home

home = Home(sys.argv[1])
registry = Registry(home)

def staged(name):
    folder = registry.stage(name)
    (folder / "model.pt").write_bytes(b"weights")
    return folder

def recipe(name):
    return Recipe(name=name, labels={"organ": 1})

# While writing: weights, but no manifest.
staged("writing")
# After claiming a number, before the rename.
(home.versions / "claimed" / "1").mkdir(parents=True)
# After the rename, before MLflow knows: publish elsewhere, take the folder over.
whole = registry.publish(recipe("donor"), staged("donor"), {})
(home.versions / "renamed").mkdir()
whole.dir.rename(home.versions / "renamed" / "1")
# Something that was never whole.
(home.versions / "broken" / "1").mkdir(parents=True)
(home.versions / "broken" / "1" / "model.pt").write_bytes(b"half")
# Published, not yet promoted, beside a champion.
registry.promote(registry.publish(recipe("served"), staged("served"), {}))
registry.publish(recipe("served"), staged("served"), {})
os.kill(os.getpid(), signal.SIGKILL)
"""

PUBLISH = """
import sys
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home

registry = Registry(Home(sys.argv[1]))
recipe = Recipe(name="liver", labels={"liver": 1})
for _ in range(4):
    staged = registry.stage(recipe)
    (staged / "model.pt").write_bytes(sys.argv[2].encode())
    print(registry.publish(recipe, staged, {"author": sys.argv[2]}).number)
"""

WAIT = """
import sys
from radloop.registry.registry import Registry
from radloop.studies.home import Home

print(Registry(Home(sys.argv[1])).stage("liver"), flush=True)
sys.stdin.read()
"""

QUIET = """
import json, sys, time
reached = []
sys.addaudithook(lambda event, args: event in ("socket.connect", "socket.getaddrinfo") and reached.append(str(args)))
if sys.argv[2] == "late":
    import mlflow
start = time.process_time()
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home

registry = Registry(Home(sys.argv[1]))
seconds = time.process_time() - start
recipe = Recipe(name="liver", labels={"liver": 1})
for _ in range(2):
    staged = registry.stage(recipe)
    (staged / "model.pt").write_bytes(b"weights")
    registry.promote(registry.publish(recipe, staged, {}))
number = registry.rollback("liver").number

from mlflow.telemetry import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled, _IS_IN_CI_ENV_OR_TESTING
print(json.dumps({
    "reached": reached, "seconds": seconds, "number": number, "client": str(get_telemetry_client()),
    "disabled": is_telemetry_disabled(), "excused": _IS_IN_CI_ENV_OR_TESTING,
}))
"""

EXCUSES = ("PYTEST", "CI", "GITHUB", "GITLAB", "JENKINS", "TRAVIS", "TF_BUILD", "BUILDKITE", "MLFLOW", "DO_NOT_TRACK")


def plain_environment(config: Path) -> dict[str, str]:
    """The environment of somebody who set nothing and runs no tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(EXCUSES)}
    return kept | {"XDG_CONFIG_HOME": str(config), "OMP_NUM_THREADS": "1"}


def without_network() -> list[str]:
    """The command prefix that cuts a process off, or none where the system forbids that."""
    tool = shutil.which("unshare")
    cut = [tool, "-rn"] if tool else []
    return cut if cut and subprocess.run([*cut, "true"], capture_output=True).returncode == 0 else []


@pytest.mark.parametrize("order", ["first", "late"])
def test_nothing_leaves_the_machine(tmp_path: Path, home: Home, order: str) -> None:
    """In a process that MLflow does not excuse, without a network; also where MLflow was imported before us."""
    config = tmp_path / "config"
    where = home.path if order == "first" else tmp_path / "new"
    done = subprocess.run(
        [*without_network(), sys.executable, "-c", QUIET, str(where), order],
        env=plain_environment(config),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("seconds") < 20  # of the processor; a slow machine takes 4, what retries takes minutes
    assert found == {"reached": [], "number": 1, "client": "None", "disabled": True, "excused": False}
    assert done.stderr == ""
    if order == "first":
        assert not (config / "mlflow").exists()


def test_a_killed_process_leaves_nothing_that_serves(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(home.path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    staging = home.versions / ".staging"
    assert any(path.is_dir() for path in staging.iterdir())

    with caplog.at_level(logging.WARNING, logger="radloop.registry"):
        registry = Registry(home)
    assert list(staging.iterdir()) == []
    assert "removed the unfinished version writing-" in caplog.text
    assert registry.versions("writing") == registry.versions("claimed") == registry.versions("broken") == []
    assert not (home.versions / "claimed" / "1").exists()
    assert (home.versions / "broken" / "1" / "model.pt").read_bytes() == b"half"
    assert "broken/1 is not a whole version" in caplog.text
    for name in ("writing", "claimed", "renamed", "broken"):
        assert registry.champion(name) is None
    assert registry.champion("served").number == 1
    assert [v.state for v in registry.versions("served")] == ["champion", "challenger"]

    (interrupted,) = registry.versions("renamed")
    assert interrupted.state == "interrupted"
    with pytest.raises(Conflict, match="interrupted"):
        registry.promote(interrupted)
    assert registry.rollback("renamed", 1).state == "champion"
    assert [v.state for v in Registry(home).versions("renamed")] == ["champion"]


def test_numbers_after_a_crash_go_on(home: Home, registry: Registry, publish, recipe: Recipe) -> None:
    """A broken folder keeps its number; MLflow's own count may fall behind ours without harm."""
    publish(b"one")
    (home.versions / "liver" / "2").mkdir()
    (home.versions / "liver" / "2" / "model.pt").write_bytes(b"half")
    third = publish(b"three")
    assert third.number == 3
    registry.promote(third)
    assert Registry(home).champion("liver").weights.read_bytes() == b"three"


def test_two_processes_never_publish_one_number(tmp_path: Path) -> None:
    """Three at once on a home that does not exist yet."""
    command = [sys.executable, "-c", PUBLISH, str(tmp_path / "home")]
    running = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in "abc"
    ]
    numbers = []
    for process in running:
        out, problem = process.communicate()
        assert process.returncode == 0, problem
        mine = [int(line) for line in out.split()]
        assert mine == sorted(mine)
        numbers += mine
    assert sorted(numbers) == list(range(1, 13))
    registry = Registry(Home(tmp_path / "home"))
    for version in registry.versions("liver"):
        assert version.weights.read_text() == version.manifest["author"]
    assert registry.promote(registry.version("liver", 7)).number == 7


def test_a_live_process_keeps_its_staging_folder(home: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, str(home.path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        staged = Path(process.stdout.readline().strip())
        Registry(home)
        assert staged.is_dir()
        process.kill()
        process.wait()
        Registry(home)
        assert not staged.exists()
