"""The ledger in PostgreSQL: the same rows, the same split, the same refusals."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from radloop.recipes.errors import BadInput, Conflict
from radloop.studies import rows_copy, snapshots, tables
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.cases import labelled_cases
from radloop.studies.database import Database
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES, Split


@pytest.fixture
def ledger(postgres, studies, monkeypatch):
    monkeypatch.setenv("RADLOOP_LEDGER", postgres())
    return Ledger(Home.find(studies))


def test_labels_split_and_view(folder, ledger, organs, draw):
    first = accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    second = accept_label(folder, ledger, organs, "a", draw(2), author="Bén 患者", shown_version="3")
    (folder.final_dir / "b.nii.gz").write_bytes(draw(1).read_bytes())
    assert sync_view(folder, ledger, [organs]) == []
    assert [(row.id, row.parent, row.author) for row in ledger.history()] == [
        (1, None, "Ada"),
        (2, 1, "Bén 患者"),
        (3, None, "import"),
    ]
    assert [case.study for case in labelled_cases(folder, ledger, organs, SIDES)] == ["a", "b"]
    assert Split(ledger).stored() == Split(Ledger(ledger.home)).stored()
    ledger.revoke(ids=[second.id])
    assert ledger.latest("a", "organs") == first
    ledger.record_shown("a", "organs", "viewer", "4")
    assert ledger.shown("a", "organs", "viewer") == "4"
    training = ledger.start_training("organs", 1, '{"epochs": 2}')
    assert ledger.last_training("organs").last_row == ledger.last_row() == 4
    ledger.finish_training(training, "done")
    assert ledger.last_training("organs").state == "done"
    assert snapshots.take(ledger.home) is None  # PostgreSQL has its own tools
    with pytest.raises(BadInput, match="not SQLite"):
        snapshots.put_back(ledger.home, Path("x.db"))


def test_a_text_that_is_too_long_is_refused(folder, ledger, organs, draw):
    with pytest.raises(BadInput, match="too long"):
        accept_label(folder, ledger, organs, "a", draw(1), author="A" * 300)
    assert ledger.history() == []


def test_a_ledger_of_0001_migrates(postgres, tmp_path, monkeypatch):
    from alembic import command
    from alembic.config import Config

    url = postgres()
    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        values = "1, 'organs', 4711, 'here', '2026-01-05', '2026-01-05', 'orphaned', '', 2"
        connection.execute(sa.text(f"INSERT INTO trainings VALUES ({values})"))
    engine.dispose()
    monkeypatch.setenv("RADLOOP_LEDGER", url)
    ledger = Ledger(Home(tmp_path))
    assert (ledger.last_training("organs").state, ledger.last_training("organs").request) == ("failed", "")


def test_two_that_start_at_once_make_the_tables_once(postgres, tmp_path, monkeypatch):
    monkeypatch.setenv("RADLOOP_LEDGER", postgres())
    ids = []

    def start():
        ids.append(Ledger(Home(tmp_path)).database.identify())

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert set(ids) == {Home(tmp_path).ledger_id}


def test_a_reader_sees_one_state(ledger):
    with ledger.database.read() as connection:
        count = sa.select(sa.func.count()).select_from(tables.shown)
        assert connection.execute(count).scalar() == 0
        ledger.record_shown("a", "organs", "viewer", "1")
        assert connection.execute(count).scalar() == 0


def test_one_writer_at_a_time(ledger):
    order = []

    def write():
        with ledger.database.write():
            order.append("second")

    with ledger.database.write():
        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_copy_goes_on_with_the_same_ids(ledger, folder, organs, draw, postgres, tmp_path):
    accept_label(folder, ledger, organs, "a", draw(1), author="Ada")
    with ledger.database.write() as connection:
        connection.execute(sa.text("SELECT setval('labels_id_seq', 500)"))
    rows_copy.copy_to_file(ledger.database, tmp_path / "copy.db")
    other = Database(postgres())
    rows_copy.copy_from_file(tmp_path / "copy.db", other)
    values = "'a', 'a', 'organs', 'Ada', '', '', NULL, '', '', '', '', '', '', '', ''"
    with other.write() as connection:
        into = (
            "study, patient, recipe, author, author_kind, time, parent, shown_version, checksum, ext, names, ids, state"
        )
        added = connection.execute(sa.text(f"INSERT INTO labels ({into}, origin, note) VALUES ({values}) RETURNING id"))
        assert added.scalar() == 501
    other.close()


def test_another_empty_database_is_not_taken_for_the_ledger(ledger, postgres, monkeypatch):
    monkeypatch.setenv("RADLOOP_LEDGER", postgres())
    with pytest.raises(Conflict, match="ledger is empty, but this home had one"):
        Ledger(Home(ledger.home.path))
