"""Parts of the server without a server: sessions on disk, passing files, the background look, the strategy."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from radloop.apps.champions import Champions
from radloop.apps.scratch import scratch_folder, sweep, sweep_leftovers
from radloop.apps.sessions import SafeSessions
from radloop.evaluation.gate_rule import FULL
from radloop.recipes.load import parse_recipe
from radloop.strategies.desk import Desk
from radloop.strategies.next_study import NextStudy
from radloop.studies.datastore_folder import FolderDatastore
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

DAY = 86_400


def random_study(recipes: list[str], store: FolderDatastore, **more: Any) -> NextStudy:
    return NextStudy(Desk(store.pool, recipes, **more), "random")


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def session(store: Path, upload: Path) -> Path:
    upload.write_bytes(b"image")
    name, _ = SafeSessions(str(store)).add_session(str(upload), 100)
    return store / name


def test_clean_up_leaves_young_folders_and_survives_unreadable_ones(tmp_path: Path) -> None:
    store = tmp_path / "sessions"
    store.mkdir()
    good, broken, over = (session(store, tmp_path / f"{n}.nii.gz") for n in "abc")
    young, old = store / "11111111-being-made", store / "22222222-left-behind"
    for folder in (young, old):
        folder.mkdir()
    (broken / "meta.info").write_text("")
    for folder in (broken, old):
        age(folder, DAY)
    meta = over / "meta.info"
    meta.write_text(meta.read_text().replace('"last_access_ts": ', '"last_access_ts": -'))
    sessions = SafeSessions(str(store))
    assert sessions.get_session(broken.name) is None
    assert sessions.remove_expired() == 3
    assert {p.name for p in store.iterdir()} == {good.name, young.name}
    assert sessions.get_session(good.name)


def test_passing_files_go_when_they_are_old(tmp_path: Path) -> None:
    home = Home(tmp_path)
    scratch = scratch_folder(home)
    for name in ("old.nii.gz", "new.nii.gz", "old/a", "filling/a"):
        (scratch / name).parent.mkdir(exist_ok=True)
        (scratch / name).write_bytes(b"")
    for name in ("old.nii.gz", "old/a", "old", "filling"):
        age(scratch / name, DAY)
    assert sweep(home) == 2
    assert {p.name for p in scratch.iterdir()} == {"new.nii.gz", "filling"}
    assert sweep(home, older_than=-1) == 2


def test_what_killed_processes_left_is_swept_after_an_hour(tmp_path: Path) -> None:
    home, studies = Home(tmp_path / "studies" / ".radloop"), tmp_path / "studies"
    left = [home.labels / ".tmp-1-a.nii.gz", studies / ".import-a" / "s.nii.gz", home.cache / "tmpa" / "s.nii.gz"]
    kept = [home.labels / ".tmp-1-b.nii.gz", studies / "s.nii.gz", home.cache / "prepared" / "s"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (*left, *(path.parent for path in left), *kept[1:]):
        os.utime(path, (1, 1))
    assert sweep_leftovers(studies, home) == 3
    assert [path.exists() for path in (*left, *kept)] == [False] * 3 + [True] * 3


def test_looking_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radloop.apps.champions.CHORES_EVERY", 0.0)
    monkeypatch.setattr("radloop.apps.champions.LOOK_EVERY", 0.01)
    twice, calls = threading.Event(), []

    def chore() -> None:
        calls.append(1)
        if len(calls) > 1:
            twice.set()
        raise ZeroDivisionError

    (tmp_path / "registry.db").mkdir()  # cannot be opened: an error that is none of ours
    Champions(Home(tmp_path)).watch(["tiny"], [chore])
    assert twice.wait(60)


def test_next_sample_prefers_studies_without_any_label(tmp_path: Path, kit: SimpleNamespace) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in "abc":
        kit.make_study(studies, name)
    home = Home(tmp_path / "home")
    recipes = [parse_recipe(f'name = "{n}"\nlabels = {{ {n} = 1 }}\n') for n in ("one", "two")]
    store = FolderDatastore(StudiesFolder(studies), home, Ledger(home), recipes)
    mask = kit.mask_file(tmp_path / "m.nii.gz")
    for study, recipe in (("a", "one"), ("a", "two"), ("b", "one")):
        store.ledger.add(study, study, recipe, "x", mask, ".nii.gz", [recipe])

    def draw(times: int, **request: str) -> list[str]:
        strategy = random_study(["one", "two"], store)
        return [strategy({"client_id": f"r{n}", **request}, store).get("id", "") for n in range(times)]

    assert draw(3) == ["c", "b", ""]
    assert draw(2, recipe="one") == ["c", ""]
    assert sorted(draw(2, recipe="two")) == ["b", "c"]
    assert random_study(["one", "two"], store).info()["config"] == {"recipe": ["any", "one", "two"]}
    assert draw(1, recipe="any") == ["c"]


def test_the_next_study_is_a_held_out_one_while_the_gate_cannot_judge(tmp_path: Path, kit: SimpleNamespace) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    for number in range(60):
        (studies / f"s{number:02d}.nii.gz").touch()
    home = Home(tmp_path / "home")
    recipe = parse_recipe('name = "one"\nlabels = { one = 1 }\n')
    store = FolderDatastore(StudiesFolder(studies), home, Ledger(home), [recipe])
    sides = Split(store.ledger).assign(store.folder.studies())
    validation = {study for study, side in sides.items() if side == "validation"}
    assert len(validation) > FULL
    mask, given = kit.mask_file(tmp_path / "m.nii.gz"), []
    strategy = random_study(["one"], store, needed=lambda name: 4)
    for number in range(FULL):
        reply = strategy({"client_id": f"r{number}"}, store)
        assert reply["id"] in validation - set(given)
        assert "held-out labels of one" in reply["reason"]
        given.append(reply["id"])
        store.ledger.add(reply["id"], reply["id"], "one", "x", mask, ".nii.gz", ["one"])
    drawn = [random_study(["one"], store, seed=n, needed=lambda name: 4)({}, store) for n in range(20)]
    assert all("reason" not in reply for reply in drawn), "there are enough by now"
    unasked = [random_study(["one"], store, seed=n)({}, store)["id"] for n in range(20)]
    assert not set(unasked) <= validation


def test_a_needed_study_is_offered_though_others_have_no_label_at_all(tmp_path: Path, kit: SimpleNamespace) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    for number in range(40):
        (studies / f"s{number:02d}.nii.gz").touch()
    home = Home(tmp_path / "home")
    recipes = [parse_recipe(f'name = "{n}"\nlabels = {{ {n} = 1 }}\n') for n in ("one", "two")]
    store = FolderDatastore(StudiesFolder(studies), home, Ledger(home), recipes)
    sides = Split(store.ledger).assign(store.folder.studies())
    validation = {study for study, side in sides.items() if side == "validation"}
    mask = kit.mask_file(tmp_path / "m.nii.gz")
    for study in validation:  # every study that recipe two needs is read already, for recipe one
        store.ledger.add(study, study, "one", "x", mask, ".nii.gz", ["one"])
    strategy = random_study(["one", "two"], store, needed=lambda name: 4 if name == "two" else 0)
    reply = strategy({"client_id": "r"}, store)
    assert reply["id"] in validation
    assert "held-out labels of two" in reply["reason"]
