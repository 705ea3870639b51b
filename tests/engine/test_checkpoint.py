"""A training that was killed goes on from its checkpoint to the weights that it would have had."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from radloop.engine.checkpoint import Checkpoint
from radloop.engine.fit import FitReport, Progress, fit
from radloop.engine.weights import save_weights
from radloop.recipes.errors import Conflict, NoSpace
from radloop.recipes.recipe import Recipe
from radloop.studies.cases import Case

MakeCase = Callable[..., Case]
STEPS = 30

KILLED = """
import os, pickle, signal, sys
from radloop.engine.checkpoint import Checkpoint
from radloop.engine.fit import fit

with open(sys.argv[1], "rb") as handle:
    recipe, cases, out, cache, checkpoint = pickle.load(handle)

def kill(progress):
    if progress.step == 17:
        os.kill(os.getpid(), signal.SIGKILL)

fit(recipe, cases, out, cache=cache, epochs=6, seed=3, threads=1, progress=kill, checkpoint=Checkpoint(checkpoint))
"""


class Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADLOOP_CHECKPOINT_SECONDS", "0")


@pytest.fixture
def cases(make_case: MakeCase) -> list[Case]:
    return [make_case(number) for number in range(5)]


class Desk:
    """Trains one job, undisturbed or stopped at a step."""

    def __init__(self, folder: Path, recipe: Recipe, cases: list[Case]) -> None:
        self.folder, self.recipe, self.cases = folder, recipe, cases
        self.out, self.path = folder / "out", folder / "checkpoints" / "toy.pt"
        self.out.mkdir()

    def fit(self, stop: int = 0, needed: bool = False, kept: bool = True, **more: object) -> FitReport:
        def look(progress: Progress) -> None:
            if progress.step and progress.step == stop:
                raise Stop

        given = {"recipe": self.recipe, "cases": self.cases, "epochs": 6, "seed": 3, "threads": 1, **more}
        checkpoint = Checkpoint(self.path, needed) if kept else None
        return fit(out=self.out, cache=self.folder / "c", progress=look, checkpoint=checkpoint, **given)

    def stop(self, step: int = 17, **more: object) -> None:
        with pytest.raises(Stop):
            self.fit(step, **more)
        assert self.path.is_file()

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.out / "model.pt", weights_only=True)["state_dict"]


@pytest.fixture
def desk(tmp_path: Path, toy_recipe: Recipe, cases: list[Case]) -> Desk:
    return Desk(tmp_path, toy_recipe, cases)


def test_a_killed_process_goes_on_to_the_same_bits(desk: Desk, tmp_path: Path) -> None:
    import pickle

    whole = desk.fit(kept=False)
    wanted = desk.weights()
    (tmp_path / "job").write_bytes(pickle.dumps((desk.recipe, desk.cases, desk.out, desk.folder / "c", desk.path)))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "job")], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    report = desk.fit(needed=True)
    assert 0 < report.resumed <= 17
    assert (report.steps, report.epochs, report.losses) == (whole.steps, whole.epochs, whole.losses)
    assert all(torch.equal(wanted[name], value) for name, value in desk.weights().items())


def test_it_goes_on_after_the_last_step_and_more_than_once(desk: Desk) -> None:
    desk.fit(kept=False)
    wanted = desk.weights()
    for step in (8, 23, STEPS):
        desk.stop(step)
    first = desk.fit()
    again = desk.fit()  # killed while it was measured
    assert 0 < first.resumed < STEPS == again.resumed
    assert again.losses == first.losses
    assert all(torch.equal(wanted[name], value) for name, value in desk.weights().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 4}, "seed changed"),
        ({"epochs": 7}, "budget changed"),
        ({"recipe": {"fit": {"learning_rate": 1e-3}}}, "recipe changed"),
        ({"cases": 4}, "labels changed"),
        ({"cases": "row"}, "labels changed"),
    ],
)
def test_a_checkpoint_of_another_job_is_not_gone_on_from(desk: Desk, change: dict, told: str) -> None:
    given = dict(change)
    if "recipe" in given:
        values = desk.recipe.model_dump()
        given["recipe"] = Recipe.model_validate(values | {"fit": values["fit"] | given["recipe"]["fit"]})
    if "cases" in given:
        newer = dataclasses.replace(desk.cases[-1], row=99)
        given["cases"] = desk.cases[:4] if given["cases"] == 4 else [*desk.cases[:4], newer]
    desk.stop()
    with pytest.raises(Conflict, match=f"cannot go on: .*{told} since"):
        desk.fit(needed=True, **given)
    assert not desk.path.exists()
    desk.stop()
    assert desk.fit(**given).resumed == 0


def test_a_damaged_or_missing_checkpoint_is_told_or_passed_over(desk: Desk) -> None:
    with pytest.raises(Conflict, match="there is no checkpoint"):
        desk.fit(needed=True)
    desk.stop()
    desk.path.write_bytes(desk.path.read_bytes()[:-400])
    assert desk.fit().resumed == 0
    desk.path.write_bytes(b"nothing")
    with pytest.raises(Conflict, match="cannot be read"):
        desk.fit(needed=True)


def test_minutes_used_before_count(desk: Desk) -> None:
    desk.stop(epochs=None, minutes=1 / 30)
    report = desk.fit(epochs=None, minutes=1 / 30)
    assert report.resumed
    assert report.seconds < 2.5


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that nobody can write")
def test_a_training_goes_on_where_no_checkpoint_can_be_written(desk: Desk) -> None:
    desk.path = Path("/sys/radloop/toy.pt")
    assert desk.fit().steps == STEPS
    assert not desk.path.exists()


def test_a_short_training_writes_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADLOOP_CHECKPOINT_SECONDS")
    desk.fit()
    assert not desk.path.exists()


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond the limit: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(tmp_path / "toy.pt")
    checkpoint.open({"seed": 1})
    checkpoint.save(lambda: {"weights": torch.ones(10)})
    with full_disk(100_000):
        checkpoint.save(lambda: {"weights": torch.zeros(1_000_000)})
    assert "no checkpoint of the training: cannot write toy.pt" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["toy.pt"]
    assert torch.equal(Checkpoint(tmp_path / "toy.pt").open({"seed": 1})["weights"], torch.ones(10))


def test_a_full_disk_refuses_weights_in_one_line(tmp_path: Path) -> None:
    with full_disk(100_000), pytest.raises(NoSpace, match=r"cannot write model\.pt"):
        save_weights(torch.nn.Linear(1000, 1000), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
