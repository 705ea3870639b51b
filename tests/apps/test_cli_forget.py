"""`radloop forget`: nothing on the disk names the patient any more, everything of the others stays."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from radloop.apps.cli import main
from radloop.recipes.load import load_recipe
from radloop.registry.registry import Registry
from radloop.studies import tables
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.contents import damaged
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.info_store import InfoStore
from radloop.studies.ledger import Ledger
from radloop.studies.snapshots import take
from radloop.studies.split import Split

GONE = "Erna Müller-1950"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace) -> Path:
    """Two studies of one patient, two of others, a version that learned from her and one judged on her."""
    tmp_path = tmp_path_factory.mktemp("forget")
    studies = tmp_path / "studies"
    studies.mkdir()
    for study in ("erna_a", "erna_b", "otto", "ida"):
        kit.make_study(studies, study)
    lines = ["\ufeffimage,patient,note", f'erna_a,{GONE},"two\r\nlines"', f"erna_b,{GONE},", "otto,Otto,ä;b", ""]
    (studies / "answers.csv").write_bytes("\r\n".join(lines).encode())
    home = Home.find(studies)
    (home.recipes / "tiny.toml").write_text(kit.tiny)
    ledger, recipe, folder = Ledger(home), load_recipe("tiny", home.path), StudiesFolder(studies)
    Split(ledger).assign([GONE, "Otto", "ida"])
    for number, (study, value) in enumerate((("erna_a", 1), ("otto", 1), ("erna_b", 2), ("ida", 2))):
        mask = kit.mask_file(tmp_path / f"{number}.nii.gz", value)
        accept_label(folder, ledger, recipe, study, mask, author="Ada", note=f"of {GONE}" if "erna" in study else "")
    ledger.add_original("erna_a", kit.mask_file(tmp_path / "o.nii.gz", 7), ".nii.gz", {"thing": 7})
    ledger.record_shown("erna_a", "tiny", "viewer", "1")
    training = ledger.start_training("tiny", 1, json.dumps({"only": ["erna_a", "otto"]}))
    ledger.finish_training(training, "failed", "erna_a!")
    folder.proposal_dir.mkdir(parents=True)
    kit.mask_file(folder.proposal_dir / "erna_a.nii.gz")
    (home.cache / "prepared" / "x").mkdir(parents=True)
    InfoStore(home.path / "info").update("image", "erna_a", {"name": GONE})
    InfoStore(home.path / "info").update("image", "otto", {"name": "Otto"})
    (home.sessions / "0000").mkdir()
    kit.make_study(home.sessions / "0000", "erna_b")
    scores = {"held_out": {GONE: 0.5, "Otto": 0.6}, "patients": {"train": [GONE], "validation": ["Otto"]}}
    kit.publish(home.path, labels=[1, 2], skipped=[{"study": "erna_b", "reason": "erna_b is odd"}], **scores)
    reason = f"rejected: patient {GONE!r} fell by 0.6"  # as older releases wrote it
    gate = {"reason": reason, "without": {"reason": f"the score of patient {GONE!r} is nan"}}
    kit.publish(home.path, labels=[2], held_out_labels=[3], started_from=None, gate=gate)
    (home.path / "progress").mkdir()
    (home.path / "progress" / "tiny.json").write_text(json.dumps({"reason": reason}, ensure_ascii=False))
    kit.publish(home.path, labels=[4], gate={"per": {GONE: 1.0}, "reason": "good"}, started_from=1)
    take(home)
    return studies


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "studies")


def _forget(studies: Path, *more: str) -> int:
    return main(["forget", GONE, "--studies", str(studies), *more])


def _naming(top: Path) -> list[str]:
    """Files under a folder that name the patient or a study of hers, by name or in their bytes."""
    words = (GONE.encode(), b"erna_a", b"erna_b", json.dumps(GONE)[1:-1].encode())
    return [
        str(path.relative_to(top))
        for path in top.rglob("*")
        if "erna" in path.name or (path.is_file() and any(word in path.read_bytes() for word in words))
    ]


def test_without_yes_it_says_what_would_go(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in place.rglob("*"))
    assert _forget(place) == 1
    said = capsys.readouterr()
    assert "2 studies, 2 ledger rows" in said.out
    assert str(place / "erna_a.nii.gz") in said.out
    assert said.err.count("\n") == 1
    assert "--yes" in said.err
    assert sorted(path for path in place.rglob("*")) == before


def test_nothing_names_the_patient_and_the_others_stay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home.find(place)
    side = Split(Ledger(home)).stored()[GONE]
    weights = {v.number: v.weights.read_bytes() for v in Registry(home).versions("tiny")}
    assert _forget(place, "--yes") == 0
    said = capsys.readouterr().out
    assert _naming(place) == []
    assert "2 studies removed" in said
    lines = {line.split()[1]: line for line in said.splitlines() if line.startswith("tiny")}
    assert {number: line.split()[3] for number, line in lines.items()} == {"1": "yes", "2": "no", "3": "yes"}

    ledger = Ledger(home)
    assert ledger.current("tiny").keys() == {"otto", "ida"}
    assert damaged(ledger) == []
    assert [row.id for row in ledger.history()] == [1, 2, 3, 4, 5, 6]
    name = ledger.row(1).patient
    assert name.startswith("forgotten-")
    assert ledger.row(1).study.startswith(name)
    assert ledger.row(1).study != ledger.row(3).study
    assert Split(ledger).stored() == {name: side, "Otto": Split(ledger).side("Otto"), "ida": Split(ledger).side("ida")}
    assert StudiesFolder(place).studies().keys() == {"otto", "ida"}
    assert sync_view(StudiesFolder(place), ledger, [load_recipe("tiny", home.path)]) == []
    assert (place / "answers.csv").read_bytes() == "\ufeffimage,patient,note\r\notto,Otto,ä;b\r\n".encode()
    assert InfoStore(home.path / "info").get("image", "otto") == {"name": "Otto"}
    versions = Registry(home).versions("tiny")
    assert {v.number: v.weights.read_bytes() for v in versions} == weights
    assert versions[0].manifest["held_out"] == {name: 0.5, "Otto": 0.6}
    reason = f"rejected: patient {name!r} fell by 0.6"
    assert (versions[1].reason, versions[1].manifest["gate"]["reason"]) == (reason, reason)
    assert Registry(home).champion("tiny").number == 3
    with ledger.database.read() as connection:
        stones = connection.execute(sa.select(tables.forgotten)).all()
    (hers,) = [stone for stone in stones if stone.name == name]
    assert (hers.side, json.loads(hers.rows), json.loads(hers.versions)) == (side, [1, 3], ["tiny/1", "tiny/3"])


def test_again_it_finishes_what_a_crash_left(place: Path, monkeypatch, capsys) -> None:
    """Killed after each step, the same command finishes, with the same name."""
    import radloop.registry.forget as versions
    from radloop.studies import forget as steps

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    names = set()
    for module, step in (
        (steps, "remove_files"),
        (versions, "rename_in_manifests"),
        (versions, "rename_in_reasons"),
        (steps, "rename_rows"),
        (steps, "drop_answers"),
        (steps, "leave_no_copy"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, kill)
            with pytest.raises(Killed):
                _forget(place, "--yes")
        with Ledger(Home.find(place)).database.read() as connection:
            names.add(min(connection.execute(sa.select(tables.forgotten.c.name)).scalars(), key=len))
    assert _forget(place, "--yes") == 0
    assert _naming(place) == []
    assert {min(names, key=len)} == names
    capsys.readouterr()
    assert _forget(place, "--yes") == 0
    assert "forgotten before; nothing was left" in capsys.readouterr().out


def test_who_is_unknown_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hints = {"Erna Muller-1950": f"did you mean {GONE!r}", "erna_a": f"study erna_a is of patient {GONE!r}"}
    for word, hint in hints.items():
        assert main(["forget", word, "--studies", str(place), "--yes"]) == 1
        assert hint in capsys.readouterr().err
    assert (place / "erna_a.nii.gz").is_file()


def test_not_while_a_training_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = os.open(Home.find(place).path / "train-tiny.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert _forget(place, "--yes") == 1
        assert "tiny is being trained" in capsys.readouterr().err
        assert Ledger(Home.find(place)).row(1).patient == GONE
    finally:
        os.close(lock)
    assert _forget(place, "--yes") == 0


def test_a_user_without_a_name_is_written_down_by_number(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: {}["no such user"])
    assert _forget(place, "--yes") == 0
    with Ledger(Home.find(place)).database.read() as connection:
        assert set(connection.execute(sa.select(tables.forgotten.c.author)).scalars()) == {str(os.getuid())}


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_who_comes_back_is_on_the_same_side(place: Path, kit: SimpleNamespace, side: str) -> None:
    home = Home.find(place)
    with Ledger(home).database.write() as connection:
        connection.execute(tables.patients.update().where(tables.patients.c.patient == GONE).values(side=side))
    assert _forget(place, "--yes") == 0
    kit.make_study(place, "erna_b")
    assert Split(Ledger(home)).assign([GONE, "erna_b"]) == {GONE: side, "erna_b": side}
    with (place / "answers.csv").open("a") as table:
        table.write(f"erna_b,{GONE},\r\n")
    assert _forget(place, "--yes") == 0
    assert _naming(place) == []
    assert Split(Ledger(home)).side(GONE) == side


def test_in_postgresql(place: Path, tmp_path: Path, monkeypatch, postgres) -> None:
    assert main(["backup", "--studies", str(place), "--out", str(tmp_path / "b.tar")]) == 0
    shutil.rmtree(place / ".radloop")
    monkeypatch.setenv("RADLOOP_LEDGER", postgres())
    again = place / ".again"  # another path, since MLflow keeps a database open for as long as its process runs
    assert main(["restore", str(tmp_path / "b.tar"), "--studies", str(place), "--home", str(again)]) == 0
    assert _forget(place, "--home", str(again), "--yes") == 0
    assert _naming(place) == []
    with Ledger(Home(again)).database.read() as connection:
        told = str([connection.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables])
    assert GONE not in told
    assert "erna" not in told
    assert "Otto" in told
