"""Whether a training runs is what its lock says, whatever the host is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from radloop.engine.running import is_training, mark_ended, training, trainings
from radloop.recipes.errors import Conflict
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
with training(home, Ledger(home), "tiny"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_crash_in_another_container_leaves_the_recipe_free(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
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
        process.kill()
        process.communicate()
    assert [t.recipe for t in mark_ended(home, ledger, ["tiny"])] == ["tiny"]
    assert ledger.last_training("tiny").state == "orphaned"
    with training(home, ledger, "tiny") as number:
        ledger.finish_training(number, "done")
    assert [t.state for t in trainings(ledger, "tiny")] == ["done", "orphaned"]


def test_rows_of_crashes_before_are_orphaned_by_the_next_training(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ledger = Ledger(home)
    ledger.start_training("tiny", 1)
    with ledger.database.write() as connection:
        connection.execute(sa.update(tables.trainings).values(host="gone"))
    with training(home, ledger, "tiny") as number:
        assert {t.id: t.state for t in trainings(ledger, "tiny")} == {number: "running", number - 1: "orphaned"}
