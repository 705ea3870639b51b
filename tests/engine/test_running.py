"""Whether a training runs is what its lock says, whatever the host is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from radloop.engine.running import LOST, cancel, is_training, mark_ended, resumable, training, trainings
from radloop.recipes.errors import Conflict, NoSpace
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies import tables
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

HOLD = """
import sys
from pathlib import Path
from radloop.engine.running import training
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
home = Home(Path(sys.argv[1]))
with training(home, Ledger(home), "tiny", {"by": sys.argv[2], "epochs": 7}, int(sys.argv[3])) as run:
    run.checkpoint.save(dict)
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path, by: str = "server", resume: int = 0) -> subprocess.Popen[str]:
    """A process that trains, with a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), by, str(resume)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_crash_in_another_container_leaves_the_recipe_free(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    process = hold(tmp_path)
    try:
        with ledger.database.write() as connection:
            connection.execute(tables.trainings.update().values(host="container-of-yesterday"))
        assert is_training(home, ledger, "tiny")
        assert mark_ended(home, ledger, ["tiny", "other"]) == []
        with (
            pytest.raises(Conflict, match=r"tiny is being trained since .* on container-of-yesterday"),
            training(home, ledger, "tiny"),
        ):
            pass
        with training(home, ledger, "other"):
            assert is_training(home, ledger, "other")
    finally:
        kill(process)
    assert [t.recipe for t in mark_ended(home, ledger, ["tiny"])] == ["tiny"]
    assert ledger.last_training("tiny").state == "failed"
    with training(home, ledger, "tiny") as run:
        ledger.finish_training(run.id, "done")
    assert [t.state for t in trainings(ledger, "tiny")] == ["done", "failed"]


def test_rows_of_crashes_before_are_marked_by_the_next_training(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    ledger.start_training("tiny", 1)
    with ledger.database.write() as connection:
        connection.execute(sa.update(tables.trainings).values(host="gone"))
    with training(home, ledger, "tiny") as run:
        assert {t.id: t.state for t in trainings(ledger, "tiny")} == {run.id: "running", run.id - 1: "failed"}


def test_a_killed_training_goes_on_as_the_same_row(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger, file = Ledger(home), tmp_path / "checkpoints" / "tiny.pt"
    first = hold(tmp_path)
    assert resumable(home, ledger, "tiny") is None  # it runs
    kill(first)
    mark_ended(home, ledger, ["tiny"])
    assert (ledger.last_training("tiny").state, ledger.last_training("tiny").note) == ("failed", LOST)
    assert file.is_file()
    for _ in range(5):
        lost = resumable(home, ledger, "tiny")
        again = hold(tmp_path, resume=lost.id)
        assert is_training(home, ledger, "tiny")
        with pytest.raises(Conflict), training(home, ledger, "tiny", resume=lost.id):
            pass
        kill(again)
        mark_ended(home, ledger, ["tiny"])
    assert len(trainings(ledger, "tiny")) == 1
    assert resumable(home, ledger, "tiny") is None  # it may be what kills
    with pytest.raises(Conflict, match="cannot go on"), training(home, ledger, "tiny", resume=lost.id):
        pass
    assert ledger.last_training("tiny").state == "failed"
    with training(home, ledger, "tiny", {"by": "server"}) as run:
        ledger.finish_training(run.id, "done")
    assert not file.exists()


def test_a_training_of_a_command_waits_for_its_user(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    kill(hold(tmp_path, by="command"))
    assert len(mark_ended(home, ledger, ["tiny"])) == 1
    assert resumable(home, ledger, "tiny") is None
    assert (tmp_path / "checkpoints" / "tiny.pt").is_file()


@pytest.mark.parametrize("looked_at", [False, True])  # between the kill and the note
def test_a_stopped_training_is_cancelled_and_does_not_go_on(tmp_path: Path, looked_at: bool) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    process = hold(tmp_path)
    cancel(home, ledger, "tiny", "too early", process.pid, seconds=0)
    assert is_training(home, ledger, "tiny")
    kill(process)
    if looked_at:
        assert not is_training(home, ledger, "tiny")
    cancel(home, ledger, "tiny", "stopped", process.pid)
    assert (ledger.last_training("tiny").state, ledger.last_training("tiny").note) == ("cancelled", "stopped")
    assert not (tmp_path / "checkpoints" / "tiny.pt").exists()
    assert mark_ended(home, ledger, ["tiny"]) == []


def test_a_training_stopped_before_it_was_written_down_is_cancelled_all_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    cancel(home, ledger, "tiny", "stopped", pid=1)
    assert [(t.state, t.note) for t in trainings(ledger, "tiny")] == [("cancelled", "stopped")]
    kill(hold(tmp_path))
    mark_ended(home, ledger, ["tiny"])
    cancel(home, ledger, "tiny", "stopped", pid=1)  # another one: the killed one keeps its word
    assert [t.state for t in trainings(ledger, "tiny")] == ["cancelled", "failed", "cancelled"]


def test_a_training_stopped_before_it_goes_on_does_not_go_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    kill(hold(tmp_path))
    mark_ended(home, ledger, ["tiny"])
    cancel(home, ledger, "tiny", "stopped", pid=1, resume=resumable(home, ledger, "tiny").id)
    assert [t.state for t in trainings(ledger, "tiny")] == ["cancelled"]
    assert not (tmp_path / "checkpoints" / "tiny.pt").exists()
    assert resumable(home, ledger, "tiny") is None


def test_a_training_that_ended_as_it_was_stopped_keeps_its_end(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    with training(home, ledger, "tiny") as run:
        ledger.finish_training(run.id, "done")
    cancel(home, ledger, "tiny", "stopped", os.getpid())
    assert [t.state for t in trainings(ledger, "tiny")] == ["done"]


@pytest.mark.parametrize(("error", "kept"), [(NoSpace("cannot write model.pt"), True), (Conflict("no label"), False)])
def test_only_a_full_disk_leaves_the_checkpoint_of_a_training_that_failed(
    tmp_path: Path, error: Exception, kept: bool
) -> None:
    home = Home(tmp_path)

    def train() -> None:
        with training(home, Ledger(home), "tiny") as run:
            run.checkpoint.save(dict)
            raise error

    with pytest.raises(type(error)):
        train()
    assert (tmp_path / "checkpoints" / "tiny.pt").exists() == kept


@pytest.mark.parametrize("promoted", [True, False])
def test_a_training_killed_after_publishing_publishes_no_second_time(tmp_path: Path, promoted: bool) -> None:
    home = Home(tmp_path)
    ledger, registry = Ledger(home), Registry(home)
    process = hold(tmp_path)
    recipe = Recipe(name="tiny", labels={"organ": 1})
    staged = registry.stage(recipe)
    (staged / "model.pt").write_bytes(b"weights")
    version = registry.publish(recipe, staged, {"training": ledger.last_training("tiny").id})
    if promoted:
        registry.promote(version)
    kill(process)
    mark_ended(home, ledger, ["tiny"])
    last = ledger.last_training("tiny")
    assert last.state == ("done" if promoted else "failed")
    assert "version 1" in last.note
    assert resumable(home, ledger, "tiny") is None
    assert not (tmp_path / "checkpoints" / "tiny.pt").exists()
