"""`radloop backup` and `restore`: a home in one file, taken while labels come in, and the same home from it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from radloop.apps.cli import main
from radloop.engine.running import training
from radloop.recipes.load import load_recipe
from radloop.registry.registry import Registry
from radloop.studies.accept import accept_label, sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.snapshots import take
from radloop.studies.split import Split


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace) -> Path:
    """Studies with labels by two readers, a version trained on some of them, and a backup; tests only read."""
    top = tmp_path_factory.mktemp("backup")
    studies = top / "studies"
    studies.mkdir()
    for number in range(4):
        kit.make_study(studies, f"s{number}", number)
    home = Home.find(studies)
    (home.recipes / "tiny.toml").write_text(kit.tiny)
    ledger, recipe, folder = Ledger(home), load_recipe("tiny", home.path), StudiesFolder(studies)
    for study, author in (("s0", "Ada"), ("s1", "Bén 患者"), ("s0", "Ada")):
        mask = kit.mask_file(top / f"{study}.nii.gz", 1 + len(ledger.history()) % 2)
        accept_label(folder, ledger, recipe, study, mask, author=author)
    ledger.add_original("s2", kit.mask_file(top / "other.nii.gz", 9), ".nii.gz", {"thing": 9})
    Split(ledger).assign(["s0", "s1", "s2", "s3"])
    kit.publish(home.path, labels=[1], held_out_labels=[2])
    assert main(["backup", "--studies", str(studies), "--out", str(top / "b.tar")]) == 0
    return top


def _restore(file: Path, studies: Path, home: Path | None = None) -> int:
    return main(["restore", str(file), "--studies", str(studies), *(["--home", str(home)] if home else [])])


def _state(home: Home) -> dict[str, object]:
    ledger, registry = Ledger(home), Registry(home)
    champion = registry.champion("tiny")
    assert champion
    rows = ledger.history()
    return {
        "rows": rows,
        "contents": [ledger.content(row).read_bytes() for row in [*rows, *ledger.originals().values()]],
        "sides": Split(ledger).stored(),
        "champion": (champion.number, champion.weights.read_bytes(), champion.manifest),
        "next": ledger.start_training("tiny", 1),
    }


def test_the_home_of_a_backup_is_the_same(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    assert "is as it was at 2" in capsys.readouterr().out
    assert _state(Home(tmp_path / "home")) == _state(Home.find(place / "studies"))
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_nothing_is_overwritten(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _restore(place / "b.tar", place / "studies") == 1
    assert "is not empty, and nothing is overwritten" in capsys.readouterr().err
    assert main(["backup", "--studies", str(place / "studies"), "--out", str(place / "b.tar")]) == 1
    assert "is there already and is not overwritten" in capsys.readouterr().err
    assert main(["backup", "--studies", str(place / "studies"), "--out", str(tmp_path / "no" / "b.tar")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def _with(source: Path, out: Path, change) -> Path:
    """A backup with other members; `change` gets name -> content, and its `backup.json` is made to fit."""
    with tarfile.open(source) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
    said = json.loads(members.pop("backup.json"))
    extra = change(members, said) or []
    said["files"] |= {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    with tarfile.open(out, "w") as archive:
        for name, content in [*members.items(), ("backup.json", json.dumps(said).encode())]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return out


def _link(_members, _said):
    member = tarfile.TarInfo("labels/link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [member]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, _: m.update({"../evil": b"x"}), "'../evil'"),
        (lambda m, _: m.update({"/tmp/evil": b"x"}), "'/tmp/evil'"),
        (lambda m, _: m.update({"labels/../../evil": b"x"}), "'labels/../../evil'"),
        (lambda m, _: m.update({"app/main.py": b"x"}), "no part of a home"),
        (_link, "'labels/link'"),
        (lambda _, said: said.update(format=99), "format 99, this radloop knows 1; update radloop"),
        (lambda m, _: m.pop("ledger.db") and None, "ledger.db is missing"),
        (lambda m, _: m.update({"home.json": b'{"format": 99, "ledger": "x"}'}), "of format 99"),
    ],
)
def test_an_archive_that_is_not_ours_leaves_nothing(place, tmp_path, capsys, change, says) -> None:
    file = _with(place / "b.tar", tmp_path / "bad.tar", change)
    _refused(file, place, tmp_path, capsys, says)


def test_a_damaged_archive_leaves_nothing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (place / "b.tar").read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 12000):
        file = tmp_path / "cut.tar"
        file.write_bytes(whole[:cut])
        _refused(file, place, tmp_path, capsys, "cannot be restored")
    flipped = bytearray(whole)
    flipped[whole.index(b"SQLite format 3") + 5000] ^= 1
    (tmp_path / "cut.tar").write_bytes(flipped)
    _refused(tmp_path / "cut.tar", place, tmp_path, capsys, "ledger.db is not what was written")
    _refused(tmp_path / "none.tar", place, tmp_path, capsys, "there is no backup")


def _refused(file: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], says: str) -> None:
    assert _restore(file, place / "studies", tmp_path / "new" / "home") == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists() or list((tmp_path / "new").iterdir()) == []


def test_a_newer_ledger_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def newer(members, _):
        file = tmp_path / "ledger.db"
        file.write_bytes(members["ledger.db"])
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        members["ledger.db"] = file.read_bytes()

    _refused(_with(place / "b.tar", tmp_path / "new.tar", newer), place, tmp_path, capsys, "update radloop")


def test_rows_go_to_the_database_that_is_named(place, tmp_path, monkeypatch, capsys) -> None:
    before = _rows(Home.find(place / "studies"))
    monkeypatch.setenv("RADLOOP_LEDGER", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    assert not (tmp_path / "home" / "ledger.db").exists()
    assert _rows(Home(tmp_path / "home")) == before
    Ledger(Home(tmp_path / "home")).revoke(author="Ada")
    assert _restore(place / "b.tar", place / "studies", tmp_path / "second") == 1
    assert "has rows already" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def _rows(home: Home) -> list[object]:
    return list(Ledger(home).history())


def test_rows_go_from_postgresql_to_postgresql(place, tmp_path, monkeypatch, postgres, kit) -> None:
    monkeypatch.setenv("RADLOOP_LEDGER", postgres())
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    home = Home(tmp_path / "home")
    Ledger(home).revoke(author="Ada")  # the next row has the next number
    rows = _rows(home)
    out = ["backup", "--studies", str(place / "studies"), "--home", str(home.path), "--out", str(tmp_path / "p.tar")]
    assert main(out) == 0
    monkeypatch.setenv("RADLOOP_LEDGER", postgres())
    assert _restore(tmp_path / "p.tar", place / "studies", tmp_path / "again") == 0
    assert _rows(Home(tmp_path / "again")) == rows
    assert [row.id for row in rows] == list(range(1, len(rows) + 1))


def test_labels_given_since_the_backup_are_never_taken_for_blind(place: Path, tmp_path: Path, kit) -> None:
    studies = Path(shutil.copytree(place / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns(".radloop")))
    kit.mask_file(studies / "labels" / "final" / "s3.nii.gz", 1)
    assert _restore(place / "b.tar", studies) == 0
    home = Home.find(studies)
    ledger = Ledger(home)
    sync_view(StudiesFolder(studies), ledger, [load_recipe("tiny", home.path)])
    row = ledger.latest("s3", "tiny")
    assert row
    assert (row.author, row.shown_version) == ("import", "unknown")


def test_a_damaged_label_is_named_and_the_rest_kept(place, tmp_path, capsys) -> None:
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    home = Home(tmp_path / "home")
    ledger = Ledger(home)
    lost = ledger.history()[0]
    ledger.file(lost).write_bytes(b"altered")
    capsys.readouterr()
    (tmp_path / "studies").mkdir()  # with no copy in labels/final
    out = ["backup", "--studies", str(tmp_path / "studies"), "--home", str(home.path), "--out", str(tmp_path / "b.tar")]
    assert main(out) == 0
    assert "left out: label 1 of study 's0' is damaged" in capsys.readouterr().err
    assert _restore(tmp_path / "b.tar", place / "studies", tmp_path / "again") == 0
    assert _rows(Home(tmp_path / "again")) == ledger.history()


def test_what_else_lies_in_a_home_is_no_part_of_a_backup(place, tmp_path, capsys) -> None:
    """A home that is kept in git, with a proposal of read-only studies, and a recipe that no archive can name."""
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    home = Home(tmp_path / "home")
    for name in ("recipes/.git/objects/ab/cd", "recipes/notes/a.txt", "recipes/a\\b.toml", "view/original/s3.nii.gz"):
        (home.path / name).parent.mkdir(parents=True, exist_ok=True)
        (home.path / name).write_bytes(b"x")
    out = ["backup", "--studies", str(place / "studies"), "--home", str(home.path), "--out", str(tmp_path / "b.tar")]
    assert main(out) == 0
    assert "left out: 'recipes/a\\\\b.toml' has a name that no backup has" in capsys.readouterr().err
    assert _restore(tmp_path / "b.tar", place / "studies", tmp_path / "again") == 0
    assert {path.name for path in (tmp_path / "again" / "recipes").iterdir()} == {"tiny.toml"}
    assert (tmp_path / "again" / "view" / "original" / "s3.nii.gz").read_bytes() == b"x"


def test_a_damaged_label_is_taken_from_the_studies_folder(place, tmp_path, capsys) -> None:
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    home, studies = Home(tmp_path / "home"), tmp_path / "studies"
    ledger = Ledger(home)
    row = ledger.history()[0]
    (studies / "labels" / "final").mkdir(parents=True)
    ledger.file(row).rename(studies / "labels" / "final" / f"{row.study}{row.ext}")
    capsys.readouterr()
    out = ["backup", "--studies", str(studies), "--home", str(home.path), "--out", str(tmp_path / "b.tar")]
    assert main(out) == 0
    assert "left out" not in capsys.readouterr().err


def test_a_link_to_an_empty_folder_becomes_a_home(place, tmp_path) -> None:
    for target in (tmp_path / "there", tmp_path / "not" / "yet"):
        link = tmp_path / f"to-{target.name}"
        link.symlink_to(target)
        (tmp_path / "there").mkdir(exist_ok=True)
        assert _restore(place / "b.tar", place / "studies", link) == 0
        assert link.is_symlink()
        assert (target / "ledger.db").is_file()


def test_a_mount_point_is_refused(place: Path, tmp_path: Path, require: Callable[[str], str]) -> None:
    """Also one that the system does not tell from a folder before something is to be put there."""
    home = tmp_path / "mnt"
    home.mkdir()
    restore = [sys.executable, "-m", "radloop.apps.cli", "restore", str(place / "b.tar")]
    restore += ["--studies", str(place / "studies"), "--home", str(home)]
    for mount in (["-t", "tmpfs", "none", str(home)], ["--bind", str(home), str(home)]):
        script = f"{shlex.join(['mount', *mount])} && exec {shlex.join(restore)}"
        command = [require("unshare"), "-rm", "sh", "-c", script]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if "mount:" in told.stderr or "unshare:" in told.stderr:
            promised = "unshare" in os.environ.get("RADLOOP_REQUIRE", "").split(",")
            (pytest.fail if promised else pytest.skip)("this machine allows no mount namespaces")
        assert told.returncode == 1
        assert f"radloop: {home} is a mount point" in told.stderr
    assert list(tmp_path.rglob("*")) == [home]


def test_a_snapshot_goes_only_into_the_home_it_is_of(place, tmp_path, capsys) -> None:
    snapshot = next((place / "studies" / ".radloop" / "snapshots").glob("ledger-*.db"))
    for home in ("none", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert _restore(snapshot, place / "studies", tmp_path / home) == 1
        assert f"there is no home at {tmp_path / home}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_no_snapshot_is_put_back_while_a_training_runs(place, tmp_path, capsys) -> None:
    assert _restore(place / "b.tar", place / "studies", tmp_path / "home") == 0
    home = Home(tmp_path / "home")
    snapshot = take(home)
    with training(home, Ledger(home), "tiny"):
        assert _restore(snapshot, place / "studies", home.path) == 1
        assert "tiny is being trained; wait or stop it, then restore again" in capsys.readouterr().err
    assert _restore(snapshot, place / "studies", home.path) == 0


def test_while_a_server_takes_labels(tmp_path: Path, kit: SimpleNamespace) -> None:
    """Every label acknowledged before the backup began is in it, and a server answers from what it restores."""
    server = kit.Server(tmp_path, studies=6)
    try:
        kit.publish(server.home)
        given: list[int] = []
        stop = threading.Event()

        def give() -> None:
            while not stop.is_set():
                mask = kit.mask_file(tmp_path / f"m{len(given)}.nii.gz", 1 + len(given) % 2)
                server.save(f"s{len(given) % 6:02d}", mask).raise_for_status()
                given.append(1)

        reader = threading.Thread(target=give)
        reader.start()
        while len(given) < 5 and reader.is_alive():
            stop.wait(0.05)
        before = len(given)
        command = [sys.executable, "-m", "radloop.apps.cli", "backup", "--studies", str(server.studies)]
        command += ["--home", str(server.home), "--out", str(tmp_path / "b.tar")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        after = len(given)
        stop.set()
        reader.join()
        assert done.returncode == 0, done.stderr
        assert after > before  # it was taken while labels came in
        answer = server.post("/infer/tiny", params={"image": "s00", "output": "image"}).content
        rows = Ledger(Home(server.home)).history()
    finally:
        server.stop()
    server.home.rename(tmp_path / "lost")
    assert _restore(tmp_path / "b.tar", server.studies, server.home) == 0
    kept = Ledger(Home(server.home))
    assert before <= len(kept.history()) <= len(rows)
    assert kept.history() == rows[: len(kept.history())]
    assert all(kept.whole(row) for row in kept.history())
    (server.home / "app").mkdir()
    (server.home / "app" / "main.py").write_bytes((tmp_path / "lost" / "app" / "main.py").read_bytes())
    server.start()
    try:
        assert server.post("/infer/tiny", params={"image": "s00", "output": "image"}).content == answer
    finally:
        server.stop()
