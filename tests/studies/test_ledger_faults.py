"""A ledger that is damaged, emptied, gone, old, new, or written with a clock that went back."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from radloop.recipes.errors import BadInput, Conflict, NotFound
from radloop.recipes.recipe import Recipe
from radloop.studies import rows, rows_copy, snapshots
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.contents import about_unnamed
from radloop.studies.files import write_whole
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

OLD = Path(__file__).with_name("ledger_0001.sql")


@pytest.fixture
def filled(folder, ledger, organs, draw):
    """Labels of two studies, and a snapshot."""
    for study in "ab":
        accept_label(folder, ledger, organs, study, draw(1), author="Ada")
    assert snapshots.take(ledger.home)
    ledger.database.close()
    return ledger


def damage(home: Home, fault: str) -> bytes | None:
    file = home.path / "ledger.db"
    for ending in ("-wal", "-shm"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    whole = file.read_bytes()
    if fault == "gone":
        file.unlink()
        return None
    content = {
        "truncated": whole[: len(whole) // 2],
        "cut by a byte": whole[:-1],
        "emptied": b"",
        "no database": b"something else entirely" * 99,
        "overwritten": whole[:8192] + b"\0" * 8192 + whole[16384:],
        "an empty database": None,
    }[fault]
    if content is None:
        file.unlink()
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        connection.close()
    else:
        file.write_bytes(content)
    return file.read_bytes()


def tree(home: Home) -> dict[str, bytes]:
    """All files, less the empty log and the index of it that SQLite makes for whoever only reads."""
    files = [p for p in home.path.rglob("*") if p.is_file() and not p.name.endswith("-shm")]
    return {str(p.relative_to(home.path)): p.read_bytes() for p in files if p.stat().st_size or p.suffix != ".db-wal"}


FAULTS = ["truncated", "cut by a byte", "emptied", "no database", "overwritten", "gone"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_ledger_is_refused_untouched_and_its_snapshot_put_back(filled, fault):
    home, before = filled.home, filled.history()
    (snapshot,) = home.snapshots.iterdir()
    bad = damage(home, fault)
    was = tree(home)
    with pytest.raises(Conflict, match="ledger") as error:
        Ledger(Home(home.path))
    assert f"radloop restore {snapshot} --studies DIR" in str(error.value)
    assert "\n" not in str(error.value)
    assert tree(home) == was
    aside = snapshots.put_back(home, snapshot)
    assert (aside is None) == (bad is None)
    if aside is not None:
        assert (aside / "ledger.db").read_bytes() == bad
    assert Ledger(Home(home.path)).history() == before


def test_an_empty_database_is_not_taken_for_the_ledger(filled):
    damage(filled.home, "an empty database")
    with pytest.raises(Conflict, match="ledger is empty, but this home had one"):
        Ledger(Home(filled.home.path))
    (filled.home.path / "home.json").unlink()  # as a home of an older release, which remembers nothing but its labels
    with pytest.raises(Conflict, match="ledger is empty"):
        Ledger(Home(filled.home.path))
    (filled.home.path / "ledger.db").unlink()
    with pytest.raises(Conflict, match="is gone"):
        Ledger(Home(filled.home.path))


def test_without_a_snapshot_a_backup_is_asked_for(ledger, organs, folder, draw):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    ledger.database.close()
    damage(ledger.home, "truncated")
    for file in (ledger.home.path / "snapshots").glob("*"):
        file.unlink()
    with pytest.raises(Conflict, match=r"no snapshot of it; move .* and `radloop restore`"):
        Ledger(Home(ledger.home.path))


def test_a_ledger_that_breaks_while_it_is_open(filled):
    with filled.database.read():
        pass
    damage(filled.home, "no database")
    filled.database.close()
    with pytest.raises(Conflict, match=r"ledger is damaged.*radloop restore"):
        filled.history()


def test_the_ledger_of_another_home_is_refused(filled, tmp_path):
    other = Ledger(Home(tmp_path / "other"))
    other.database.close()
    (filled.home.path / "ledger.db").write_bytes((tmp_path / "other" / "ledger.db").read_bytes())
    with pytest.raises(Conflict, match="not the ledger that"):
        Ledger(Home(filled.home.path))
    taken = snapshots.take(other.home)
    with pytest.raises(Conflict, match="another home"):
        snapshots.put_back(filled.home, taken)


def test_labels_given_since_the_snapshot_come_back_as_imports(folder, filled, organs, draw):
    later = [accept_label(folder, filled, organs, study, draw(2), author="Ben") for study in "bc"]
    filled.database.close()
    damage(filled.home, "truncated")
    snapshots.put_back(filled.home, snapshots.newest(filled.home))
    ledger = Ledger(Home(filled.home.path))
    assert sync_view(folder, ledger, [organs]) == []
    current = ledger.current("organs")
    assert {study: row.checksum for study, row in current.items() if study != "a"} == {
        row.study: row.checksum for row in later
    }
    assert [current[study].author for study in "abc"] == ["Ada", "import", "import"]
    # versions trained in between name the lost rows: no other label gets their ids
    assert not {current[study].id for study in "bc"} & {row.id for row in later}


def put_back(ledger: Ledger, snapshot: Path, **more) -> Ledger:
    ledger.database.close()
    snapshots.put_back(Home(ledger.home.path), snapshot, **more)
    return Ledger(Home(ledger.home.path))


def test_row_ids_are_not_used_again_however_often_a_snapshot_is_put_back(folder, filled, organs, draw):
    (snapshot,) = filled.home.snapshots.iterdir()
    first = accept_label(folder, filled, organs, "c", draw(2), author="Ben")
    second = accept_label(folder, ledger := put_back(filled, snapshot), organs, "b", draw(2), author="Ben")
    third = accept_label(folder, ledger := put_back(ledger, snapshot), organs, "c", draw(1), author="Ben")
    assert first.id < second.id < third.id
    (ledger.home.path / "ledger.db").write_bytes(b"gone")  # and no other snapshot knows
    ledger = put_back(ledger, snapshot, named=12345)
    assert accept_label(folder, ledger, organs, "c", draw(2), author="Ben").id > 12345


def test_an_empty_snapshot_skips_ids_too(folder, ledger, organs, draw):
    snapshot = snapshots.take(ledger.home)
    row = accept_label(folder, ledger, organs, "c", draw(2), author="Ben")
    ledger = put_back(ledger, snapshot)
    assert accept_label(folder, ledger, organs, "a", draw(1), author="Ben").id > row.id


def test_a_copy_of_the_rows_goes_on_with_the_same_ids(filled, draw, tmp_path):
    (snapshot,) = filled.home.snapshots.iterdir()
    ledger = put_back(filled, snapshot)
    rows_copy.copy_to_file(ledger.database, tmp_path / "copy.db")
    (tmp_path / "other").mkdir()
    rows_copy.copy_from_file(tmp_path / "copy.db", rows_copy.sqlite_file(tmp_path / "other" / "ledger.db"))
    copy = Ledger(Home(tmp_path / "other"))
    assert copy.history() == ledger.history()
    ids = [one.add("c", "c", "organs", "Ben", draw(2), ".nii.gz", ["liver"]).id for one in (ledger, copy)]
    assert ids[0] == ids[1] > 1000


def test_what_comes_back_after_a_snapshot_is_not_taken_for_blind(folder, filled, organs, draw):
    (snapshot,) = filled.home.snapshots.iterdir()
    accept_label(folder, filled, organs, "b", draw(2), author="Ben", shown_version="3")
    ledger = put_back(filled, snapshot)
    assert sync_view(folder, ledger, [organs]) == []
    assert (ledger.latest("b", "organs").author, ledger.latest("b", "organs").shown_version) == ("import", rows.UNKNOWN)
    # neither for a recipe that is served later, whose reader is the same
    spleen = Recipe(name="spleen", labels={"lung": 1, "spleen": 2})
    sync_view(folder, ledger, [spleen, organs])
    assert ledger.latest("b", "spleen").shown_version == rows.UNKNOWN
    write_whole(folder.final_dir / "c.nii.gz", lambda file: file.write_bytes(draw(1).read_bytes()))
    sync_view(folder, ledger, [organs])
    assert ledger.latest("c", "organs").shown_version == ""


@pytest.fixture
def cut(folder, filled, organs, draw, tmp_path) -> Callable[[], Ledger]:
    """A home like that of `filled` after a further label, its write-ahead log then cut off."""

    def make() -> Ledger:
        home = Path(shutil.copytree(filled.home.path, tmp_path / "cut"))
        assert (home / "ledger.db-wal").stat().st_size
        (home / "ledger.db-wal").write_bytes(b"")
        return Ledger(Home(home))

    accept_label(folder, filled, organs, "c", draw(2), author="Ada", shown_version="3")
    return make


def test_rows_that_a_cut_log_lost_are_missed(filled, cut):
    assert about_unnamed(filled) == ""
    ledger = cut()
    assert len(ledger.history()) == 2
    said = about_unnamed(ledger)
    assert re.search(r"that no row of the ledger names: 1; .*ledger\.db-wal; no snapshot names them", said)


def test_the_snapshot_that_has_lost_rows_is_named(filled, cut):
    snapshots.take(filled.home)
    ledger = cut()
    for number in range(2):  # what was taken since lacks them
        ledger.record_shown("a", "organs", "viewer", str(number))
        snapshots.take(ledger.home)
    (command,) = re.findall(r"`radloop restore (\S+) --studies DIR`", about_unnamed(ledger))
    assert len(put_back(ledger, Path(command)).history()) == 3


def test_a_label_that_a_cut_log_lost_comes_back_and_not_as_blind(folder, cut, organs):
    ledger = cut()
    assert sync_view(folder, ledger, [organs]) == []
    assert ledger.latest("c", "organs").shown_version == rows.UNKNOWN
    assert about_unnamed(ledger) == ""


def test_snapshots_only_of_what_changed_and_the_newest_ten(filled, organs, folder, draw):
    home = filled.home
    assert snapshots.take(home) is None
    for number in range(12):
        filled.record_shown("a", "organs", "viewer", str(number))
        assert snapshots.take(home)
    names = sorted(path.name for path in home.snapshots.iterdir())
    assert names == [f"ledger-{number:06d}.db" for number in range(4, 14)]
    newest = snapshots.newest(home)
    newest.write_bytes(newest.read_bytes()[:5000])
    assert snapshots.newest(home).name == names[-2]
    with pytest.raises(BadInput, match="no whole ledger"):
        snapshots.put_back(home, newest)
    with pytest.raises(NotFound, match="no snapshot"):
        snapshots.put_back(home, home.path / "nothing.db")
    assert len(filled.history()) == 2


def test_a_server_takes_one_when_something_changed(filled):
    chore = snapshots.regularly(filled.home, every=0.0)
    count = len(list(filled.home.snapshots.iterdir()))
    chore()
    assert len(list(filled.home.snapshots.iterdir())) == count
    filled.record_shown("a", "organs", "viewer", "1")
    chore()
    assert len(list(filled.home.snapshots.iterdir())) == count + 1


def test_a_snapshot_follows_new_patients(ledger):
    Split(ledger).assign(["p1", "p2"])
    Split(ledger).assign(["p1"])
    assert [path.name for path in ledger.home.snapshots.iterdir()] == ["ledger-000001.db"]


@pytest.fixture
def old_home(tmp_path) -> Home:
    """A home of radloop 0.1.0: its ledger, and nothing that says so."""
    home = Home(tmp_path / "old")
    (home.labels / ("ab" * 32 + ".nii.gz")).write_bytes(b"content")
    connection = sqlite3.connect(home.path / "ledger.db")
    connection.executescript(OLD.read_text())
    connection.close()
    return home


def test_an_older_home_migrates_and_what_was_is_kept(old_home):
    ledger = Ledger(Home(old_home.path))
    assert [(row.id, row.study, row.author, row.ids, row.names) for row in ledger.history()] == [
        (1, "a", "Ada", (), ("liver",)),
        (2, "b", "Ben", (), ("liver", "spleen")),
    ]
    training = ledger.last_training("organs")
    assert (training.state, training.request) == ("failed", "")
    assert Split(ledger).stored() == {"pa": "train", "pb": "test"}
    assert Home(old_home.path).ledger_id == ledger.database.identify()
    (snapshot,) = old_home.snapshots.iterdir()
    connection = sqlite3.connect(snapshot)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert connection.execute("SELECT state FROM trainings").fetchall() == [("orphaned",)]
    connection.close()
    ledger.database.close()
    snapshots.put_back(old_home, snapshot)
    assert len(Ledger(Home(old_home.path)).history()) == 2


def test_a_migration_that_fails_changes_nothing(old_home):
    connection = sqlite3.connect(old_home.path / "ledger.db")
    connection.execute("CREATE TABLE forgotten (x)")  # the last step of 0002 stumbles over it
    connection.commit()
    connection.close()
    with pytest.raises(Exception, match="forgotten"):
        Ledger(Home(old_home.path))
    connection = sqlite3.connect(old_home.path / "ledger.db")
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert "ids" not in {row[1] for row in connection.execute("PRAGMA table_info(labels)")}
    assert connection.execute("SELECT state FROM trainings").fetchall() == [("orphaned",)]
    connection.close()


def test_a_newer_home_is_refused(filled):
    text = (filled.home.path / "home.json").read_text()
    (filled.home.path / "home.json").write_text(text.replace('"format": 2', '"format": 99'))
    was = tree(filled.home)
    with pytest.raises(Conflict, match="format 99, this radloop knows 2; update radloop"):
        Home(filled.home.path)
    assert tree(filled.home) == was


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x", "ledger": ""}'])
def test_a_damaged_home_file_is_named(filled, text):
    (filled.home.path / "home.json").write_text(text)
    with pytest.raises(Conflict, match=r"home\.json cannot be read"):
        Home(filled.home.path)
    (filled.home.path / "home.json").unlink()
    assert len(Ledger(Home(filled.home.path)).history()) == 2


def test_a_home_killed_before_it_remembered(tmp_path):
    """Between the ledger and `home.json`, and before the ledger has a byte."""
    home = Home(tmp_path)
    (tmp_path / "ledger.db").touch()
    first = Ledger(home).database.identify()
    (tmp_path / "home.json").unlink()
    assert Ledger(Home(tmp_path)).database.identify() == first == Home(tmp_path).ledger_id


def test_times_grow_with_ids_when_the_clock_is_set_back(folder, ledger, organs, draw, monkeypatch):
    first = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    then = datetime.now(timezone.utc) - timedelta(days=400)
    monkeypatch.setattr(rows, "now", lambda: then.isoformat(timespec="milliseconds"))
    write_whole(folder.final_dir / "b.nii.gz", lambda file: file.write_bytes(draw(2).read_bytes()))
    assert sync_view(folder, ledger, [organs]) == []
    last = accept_label(folder, ledger, organs, "a", draw(2), author="Ada")
    (original,) = ledger.originals().values()
    imported = ledger.latest("b", "organs")
    times = [first.time, imported.time, original.time, last.time]
    assert times == sorted(set(times))
    assert ledger.latest("a", "organs") == last
    assert [row.id for row in ledger.revoke(since=imported.time)] == [4, 5]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+nothing://h/d", "which is not there"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/d", "database does not answer.*start it"),
        ("no url", "is no database URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_clear_line(tmp_path, monkeypatch, url, said):
    if "psycopg" in url:
        pytest.importorskip("psycopg")
    monkeypatch.setenv("RADLOOP_LEDGER", url)
    with pytest.raises((BadInput, Conflict), match=said) as error:
        Ledger(Home(tmp_path))
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
