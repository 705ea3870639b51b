"""`kill -9` of server, training and both at random moments; what a killed or stopped training becomes. Minutes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from radloop.engine.running import LOST, trainings
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, Training

pytestmark = pytest.mark.slow
ROUNDS = 8
SEED = 15


@pytest.fixture(scope="module")
def crashes(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_driver", root / "benchmarks" / "crash_driver.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["crash_driver"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADLOOP_CHECKPOINT_SECONDS", "0.3")


def test_nothing_is_lost_or_doubled_whatever_is_killed(crashes: ModuleType, tmp_path: Path) -> None:
    driver = crashes.Crashes(tmp_path / "work", SEED)
    try:
        rounds = [driver.round(number) for number in range(ROUNDS)]
        end = driver.finish()
    finally:
        driver.stop()
    print(json.dumps([*rounds, end], indent=1))  # with the moments, should it fail
    assert [one["problems"] for one in [*rounds, end]] == [[]] * (ROUNDS + 1)
    assert {word for one in rounds for word in one["killed"]} == {"server", "training"}
    importing = [
        one for one in rounds if one["after"] == "start" and one["training"] == "started" and one["moment"] < 3
    ]
    assert any("training" not in one["killed"] for one in importing)  # an orphan that has not come to its first step
    assert end["labels"] > ROUNDS


class House:
    """A server with labels enough to train."""

    def __init__(self, kit: SimpleNamespace, folder: Path) -> None:
        self.server = kit.Server(folder / "own", studies=10)
        self.home = Home(self.server.home)
        self.ledger = Ledger(self.home)
        mask = kit.mask_file(folder / "m.nii.gz")
        for number in range(10):
            assert self.server.save(f"s{number:02d}", mask, json.dumps({"model": "tiny"})).status_code == 200

    @property
    def last(self) -> Training | None:
        return self.ledger.last_training("tiny")

    @property
    def checkpoint(self) -> Path:
        return self.home.path / "checkpoints" / "tiny.pt"

    def until(self, condition: Callable[[], object], seconds: float = 150) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{self.last}\n{self.server.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def train(self, **request: object) -> None:
        assert self.server.post("/train/tiny", json=request).status_code == 200
        self.until(self.checkpoint.is_file)


@pytest.fixture
def house(kit: SimpleNamespace, tmp_path: Path) -> House:
    made = House(kit, tmp_path)
    yield made
    made.server.stop()


def test_a_training_killed_with_its_server_goes_on_with_the_next_one(house: House) -> None:
    house.train(epochs=500, seed=5)
    begun = house.last
    house.server.stop(signal.SIGKILL)
    house.until(lambda: not psutil.pid_exists(begun.pid), 10)
    house.server.start()
    house.until(lambda: house.last.state == "done")
    (only,) = trainings(house.ledger, "tiny")
    assert (only.id, only.started, only.last_row) == (begun.id, begun.started, begun.last_row)
    assert only.pid != begun.pid
    assert "goes on at step" in house.server.log.read_text()
    (version,) = (house.home.versions / "tiny").glob("*/manifest.json")
    manifest = json.loads(version.read_text())
    assert (manifest["training"], manifest["seed"], manifest["steps"]) == (only.id, 5, 1000)
    assert not house.checkpoint.exists()


def test_a_training_whose_labels_were_retracted_does_not_go_on(house: House) -> None:
    house.train(epochs=100_000)
    house.server.stop(signal.SIGKILL)
    house.ledger.revoke(ids=[row.id for row in house.ledger.current("tiny").values()][:8])
    house.server.start()
    house.until(lambda: house.last.state == "failed" and house.last.note != LOST)
    assert "labels changed since" in house.last.note or "no label" in house.last.note
    assert len(trainings(house.ledger, "tiny")) == 1
    assert not house.checkpoint.exists()


def test_a_training_stopped_by_a_client_is_cancelled(house: House) -> None:
    house.train(epochs=100_000)
    assert house.server.delete("/train/").status_code == 200
    house.until(lambda: house.last.state == "cancelled", 10)
    assert "stopped by a client" in house.last.note
    assert not house.checkpoint.exists()
    house.server.stop(signal.SIGKILL)
    house.server.start()
    assert [t.state for t in trainings(house.ledger, "tiny")] == ["cancelled"]


def test_a_training_stopped_by_a_client_while_it_imports_is_cancelled(house: House) -> None:
    assert house.server.post("/train/tiny", json={}).status_code == 200
    house.until(lambda: house.server.get("/train/").json()["status"] == "RUNNING")
    assert house.server.delete("/train/").status_code == 200
    house.until(lambda: house.last is not None and house.last.state == "cancelled", 10)
    assert "stopped by a client" in house.last.note


def test_the_same_command_goes_on_where_it_was_killed(house: House) -> None:
    house.server.stop()
    command = [sys.executable, "-m", "radloop.apps.cli", "--home", str(house.home.path), "train", "tiny"]
    command += ["--studies", str(house.server.studies), "--epochs", "500"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    house.until(house.checkpoint.is_file)
    first.kill()
    first.wait()
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=180)
    assert again.returncode == 0, again.stderr
    assert "went on at step" in again.stdout
    assert [(t.state, t.note) for t in trainings(house.ledger, "tiny")] == [("done", ""), ("failed", LOST)]
    assert not house.checkpoint.exists()
