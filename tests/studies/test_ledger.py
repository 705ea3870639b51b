"""No label is lost, overwritten or reordered, whoever writes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from radloop.recipes.errors import BadInput, Conflict, NotFound
from radloop.studies import tables
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, checksum


@pytest.fixture
def give(ledger, tmp_path):
    """Add a label whose content is a text."""

    def add(text: str = "one", study: str = "a", recipe: str = "organs", author: str = "Ada", **more):
        path = tmp_path / "content.nii.gz"
        path.write_text(text)
        return ledger.add(study, f"patient {study}", recipe, author, path, ".nii.gz", ("liver",), **more)

    return add


def test_a_label_is_kept_under_its_checksum_and_read_back(ledger, give):
    row = give("one", shown_version="3", note="早")
    assert ledger.file(row).read_text() == "one"
    assert ledger.file(row).name == f"{checksum(ledger.file(row))}.nii.gz"
    assert ledger.row(row.id) == row
    assert (row.names, row.shown_version, row.note, row.patient) == (("liver",), "3", "早", "patient a")
    assert datetime.fromisoformat(row.time).utcoffset() == timedelta(0)


def test_a_correction_leaves_the_first_label(ledger, give):
    one = give("one")
    two = give("two", author="Ben")
    assert two.parent == one.id
    assert ledger.current("organs") == {"a": two}
    assert ledger.history(study="a") == [one, two]
    assert [ledger.file(row).read_text() for row in (one, two)] == ["one", "two"]


def test_drafts_and_held_labels_are_not_current(ledger, give):
    give(state="draft")
    held = give(state="held")
    assert ledger.current("organs") == {}
    assert ledger.latest("a", "organs") is None
    final = ledger.confirm(held.id, author="Ben")
    assert (final.state, final.parent, final.author, final.checksum) == ("final", held.id, "Ben", held.checksum)
    assert ledger.current("organs") == {"a": final}
    with pytest.raises(Conflict, match=f"label {held.id} is final"):
        ledger.confirm(held.id)
    with pytest.raises(Conflict, match="only a held label"):
        ledger.confirm(final.id)
    with pytest.raises(NotFound, match="label 99"):
        ledger.confirm(99)


def test_a_retracted_held_label_cannot_be_confirmed(ledger, give):
    held = give(state="held")
    ledger.revoke(ids=[held.id])
    with pytest.raises(Conflict, match="revoked"):
        ledger.confirm(held.id)


def test_a_held_label_is_not_confirmed_over_a_newer_one(ledger, give):
    held = give(state="held")
    right = give("right", author="Ben")
    with pytest.raises(Conflict, match=f"label {held.id} is older than label {right.id}, which stands"):
        ledger.confirm(held.id)
    assert ledger.latest("a", "organs") == right
    ledger.revoke(ids=[right.id])
    assert ledger.confirm(held.id).state == "final"


def test_a_held_label_is_taken_back_with_what_confirmed_it(ledger, give):
    before = give("before")
    held = give(state="held")
    confirmed = ledger.confirm(held.id, author="Ben")
    assert [row.parent for row in ledger.revoke(ids=[held.id])] == [held.id, confirmed.id]
    assert ledger.latest("a", "organs") == before


def test_retracting_brings_back_the_label_before(ledger, give):
    one = give("one", author="Ada")
    two = give("two", author="Ben")
    other = give("three", study="b", author="Ben")
    gone = ledger.revoke(author="Ben", note="wrong series")
    assert [(row.parent, row.state, row.note) for row in gone] == [
        (two.id, "revoked", "wrong series"),
        (other.id, "revoked", "wrong series"),
    ]
    assert ledger.current("organs") == {"a": one}
    assert ledger.file(two).read_text() == "two"
    assert ledger.revoke(author="Ben") == []
    # A later label of a retracted author counts again.
    three = give("three", author="Ben")
    assert (three.parent, ledger.latest("a", "organs")) == (one.id, three)


def test_retracting_by_time_and_by_id(ledger, give):
    one = give("one")
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    assert ledger.revoke(since=later) == []
    assert ledger.revoke(since=later.isoformat().replace("+00:00", "Z")) == []
    with pytest.raises(NotFound, match="label 7"):
        ledger.revoke(ids=[one.id, 7])
    assert ledger.current("organs") == {"a": one}
    assert len(ledger.revoke(since=one.time)) == 1
    with pytest.raises(BadInput, match="say which"):
        ledger.revoke()
    with pytest.raises(BadInput, match=r"'0001-01-01T00:00\+10:00' is no time"):
        ledger.history(since="0001-01-01T00:00+10:00")
    with pytest.raises(BadInput, match="'yesterday' is no time"):
        ledger.revoke(since="yesterday")


def test_history_by_whom_and_when(ledger, give):
    one = give("one")
    two = give("two", study="b", recipe="bones", author="Ben")
    assert ledger.history() == [one, two]
    assert ledger.history(author="Ben") == ledger.history(recipe="bones") == ledger.history(study="b") == [two]
    assert ledger.history(since=one.time) == [one, two]
    # The same moment, told in another zone.
    there = datetime.fromisoformat(one.time).astimezone(timezone(timedelta(hours=-8)))
    assert ledger.history(since=there) == [one, two]
    assert ledger.history(since=(there + timedelta(days=1)).isoformat()) == []


def test_what_a_reader_was_shown(ledger):
    assert ledger.shown("a", "organs", "slicer 1") == ""
    ledger.record_shown("a", "organs", "slicer 1", "3")
    ledger.record_shown("a", "organs", "slicer 1", "4")
    ledger.record_shown("a", "bones", "slicer 1", "9")
    assert ledger.shown("a", "organs", "slicer 1") == "4"
    assert ledger.shown("a", "organs", "slicer 2") == ""
    assert ledger.shown("b", "organs", "slicer 1") == ""


def test_new_labels_are_studies_labelled_since_the_training_began(ledger, give):
    give("one")
    give("two", study="b")
    assert ledger.new_labels_since_last_training("organs") == 2
    training = ledger.start_training("organs", os.getpid())
    assert ledger.new_labels_since_last_training("organs") == 0
    give("while it runs", study="a")
    give("again", study="a")
    give("other", study="c", recipe="bones")
    ledger.finish_training(training, "done", "served")
    assert ledger.new_labels_since_last_training("organs") == 1
    assert ledger.new_labels_since_last_training("bones") == 1
    ledger.revoke(author="Ada")
    assert ledger.new_labels_since_last_training("organs") == 0
    last = ledger.last_training("organs")
    assert (last.id, last.state, last.note, last.pid) == (training, "done", "served", os.getpid())
    assert last.finished >= last.started
    assert ledger.last_training("lungs") is None


def test_equal_content_is_kept_once_and_damaged_content_is_mended(ledger, give):
    one = give("one")
    two = give("one", study="b")
    assert ledger.file(one) == ledger.file(two)
    ledger.file(one).write_text("0ne")
    give("one", study="c")
    assert ledger.file(one).read_text() == "one"


def test_originals_are_kept_with_their_meaning(ledger, tmp_path):
    path = tmp_path / "m.nrrd"
    path.write_text("x")
    ledger.add_original("a", path, ".nrrd", {"肝": 1})
    newer = ledger.add_original("a", path, ".nrrd", None)
    ledger.add_original("b", path, ".nrrd", {"肝": 1})
    assert ledger.originals("a") == {"a": newer}
    assert ledger.originals()["b"].names == {"肝": 1}
    assert newer.names is None
    assert ledger.file(newer).read_text() == "x"
    assert ledger.knows(newer.checksum, "a")
    assert not ledger.knows(newer.checksum, "c")


def test_a_missing_content_file_adds_nothing(ledger, tmp_path):
    with pytest.raises(FileNotFoundError):
        ledger.add("a", "p", "organs", "Ada", tmp_path / "nowhere.nii.gz", ".nii.gz", ())
    assert ledger.history() == []


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="a file is in the way"):
        Ledger(Home(tmp_path / "file" / "home"))


ADD = """
import sys
from pathlib import Path
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
home, content, who, count = sys.argv[1:]
ledger = Ledger(Home(home))
sys.stdin.readline()
for number in range(int(count)):
    path = Path(content) / f"{who}-{number}"
    path.write_text(f"{who} {number}")
    ledger.add(f"study {number % 5}", "p", "organs", who, path, ".nii.gz", ("liver",))
"""


def test_processes_adding_at_once_lose_nothing(tmp_path):
    """Four processes make the ledger together, then write to it together; none sees the other's file half done."""
    count = 15
    command = [sys.executable, "-c", ADD, str(tmp_path / "home"), str(tmp_path)]
    crowd = [
        subprocess.Popen([*command, who, str(count)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for who in ("ada", "ben", "cyd", "dan")
    ]
    # All wait at the line until everyone is ready.
    threads = [threading.Thread(target=p.communicate, args=("go\n",)) for p in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [process.returncode for process in crowd] == [0, 0, 0, 0]
    ledger = Ledger(Home(tmp_path / "home"))
    rows = ledger.history()
    assert len(rows) == 4 * count
    assert [row.id for row in rows] == list(range(1, 4 * count + 1))
    assert [row.time for row in rows] == sorted(row.time for row in rows)
    for who in ("ada", "ben", "cyd", "dan"):
        mine = [ledger.file(row).read_text() for row in rows if row.author == who]
        assert mine == [f"{who} {number}" for number in range(count)]
    # Each correction's parent is the label that was current when it was given.
    newest = {}
    for row in rows:
        assert row.parent == newest.get(row.study)
        newest[row.study] = row.id
    assert {study: row.id for study, row in ledger.current("organs").items()} == newest


DIE = """
import os, sys
from pathlib import Path
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
home, content = sys.argv[1:]
row = Ledger(Home(home)).add("a", "p", "organs", "ada", Path(content), ".nii.gz", ())
print(row.id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_label_survives_a_process_killed_right_after(tmp_path):
    (tmp_path / "content").write_text("one")
    command = [sys.executable, "-c", DIE, str(tmp_path / "home"), str(tmp_path / "content")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == -9
    ledger = Ledger(Home(tmp_path / "home"))
    assert [str(row.id) for row in ledger.history()] == [told.stdout.strip()]
    assert ledger.file(ledger.history()[0]).read_text() == "one"


def test_sqlite_writes_ahead_and_waits_for_the_disk(ledger):
    with ledger.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30000


def test_migrations_lead_to_the_tables_that_the_code_knows(ledger):
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [tables.REVISION]
    with ledger.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_a_ledger_of_a_newer_radloop_is_left_alone(ledger):
    with ledger.database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="revision 9999"):
        Ledger(ledger.home)


def test_labels_are_never_updated_or_deleted():
    """The only statements on the labels table add rows."""
    room = Path(tables.__file__).parent
    for path in room.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "_LABELS.update" not in text, path
        assert "_LABELS.delete" not in text, path
        assert "DELETE FROM" not in text, path
        assert "UPDATE labels" not in text, path
