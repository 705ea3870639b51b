from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from radloop.recipes.errors import BadInput, Conflict, NotFound, RadloopError
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home


def test_nothing_serves_before_a_promotion(registry: Registry, publish) -> None:
    assert registry.champion("liver") is None
    version = publish()
    time.sleep(1.05)
    assert registry.champion("liver") is None
    assert version.state == "challenger"
    assert registry.versions("unheard_of") == []
    assert registry.recipes() == ["liver"]


def test_a_promoted_version_serves_with_all_its_files(registry: Registry, publish, recipe: Recipe) -> None:
    version = publish(b"first", seed=3, labels=[4, 5], gate={"n": 7, "difference": 0.01, "reason": "serves: better"})
    registry.promote(version)
    champion = registry.champion("liver")
    assert champion is not None
    assert champion.number == 1
    assert champion.state == "champion"
    assert champion.weights.read_bytes() == b"first"
    assert champion.load_recipe() == recipe
    assert champion.manifest["recipe_hash"] == recipe.hash()
    assert champion.manifest["labels"] == [4, 5]
    assert champion.reason == "serves: better"


def test_a_provisional_version_stays_marked(registry: Registry, publish) -> None:
    assert registry.promote(publish(gate={"provisional": True})).state == "provisional"
    second = publish(state="provisional")
    assert not second.serves  # provisional is a way to serve, and it does not yet
    assert second.state == "challenger"
    assert registry.promote(second).state == "provisional"
    assert [v.state for v in registry.versions("liver")] == ["former", "provisional"]
    assert [v.serves for v in registry.versions("liver")] == [False, True]


def test_another_process_sees_a_change_within_a_second(registry: Registry, home: Home, publish) -> None:
    server, patient = Registry(home), Registry(home, look_every=3600)
    registry.promote(publish())
    assert server.champion("liver").number == patient.champion("liver").number == 1
    registry.promote(publish())
    time.sleep(1.05)
    assert server.champion("liver").number == 2
    assert patient.champion("liver").number == 1  # looked not long ago
    assert registry.champion("liver").number == 2
    assert patient.rollback("liver").number == 1
    assert registry.rollback("liver", 2).number == patient.rollback("liver", 2).number == 2
    assert patient.champion("liver").number == 2  # its own change shows at once


def test_rollback_walks_back_and_forth(registry: Registry, publish) -> None:
    for _ in range(3):
        registry.promote(publish())
    assert registry.rollback("liver").number == 2
    assert registry.rollback("liver").number == 1
    with pytest.raises(NotFound, match=r"first that served.*versions are 1, 2, 3"):
        registry.rollback("liver")
    assert registry.rollback("liver", 3).number == 3
    assert registry.rollback("liver").number == 1  # from where the person came
    assert registry.champion("liver").number == 1
    assert [v.state for v in registry.versions("liver")] == ["champion", "former", "former"]


def test_promoting_what_serves_changes_nothing(registry: Registry, publish) -> None:
    first, second = publish(), publish()
    registry.promote(first)
    registry.promote(second)
    registry.promote(second)
    assert registry.rollback("liver").number == 1


def test_an_unknown_version_is_answered_with_those_there_are(registry: Registry, publish) -> None:
    publish()
    publish()
    with pytest.raises(NotFound, match=r"no version 9 of 'liver'; versions are 1, 2"):
        registry.rollback("liver", 9)
    with pytest.raises(NotFound, match="no version of 'liver' serves"):
        registry.rollback("liver")
    with pytest.raises(NotFound, match="no versions yet"):
        registry.rollback("o'dd")


def test_a_rejected_version_serves_only_by_its_number(registry: Registry, publish) -> None:
    registry.promote(publish())
    bad = registry.reject(publish(), "rejected: fell by 0.100")
    assert (bad.state, bad.reason) == ("rejected", "rejected: fell by 0.100")
    with pytest.raises(Conflict, match=r"fell by 0\.100.*radloop model rollback liver 2"):
        registry.promote(bad)
    assert registry.champion("liver").number == 1
    assert registry.rollback("liver", 2).number == 2
    assert registry.rollback("liver").number == 1
    assert registry.versions("liver")[1].state == "rejected"


def test_a_fold_version_never_serves(registry: Registry, publish) -> None:
    fold = publish(state="fold")
    with pytest.raises(Conflict, match="fold"):
        registry.promote(fold)
    with pytest.raises(Conflict, match="fold"):
        registry.rollback("liver", fold.number)


def test_the_champion_cannot_be_rejected(registry: Registry, publish) -> None:
    version = registry.promote(publish())
    with pytest.raises(Conflict, match="serves now"):
        registry.reject(version, "on second thoughts")
    with pytest.raises(BadInput, match="state 'king'"):
        registry.set_state(version, "king")


def test_a_version_judged_against_another_champion_does_not_serve(registry: Registry, publish) -> None:
    """Two trainings at once: the second to finish was never compared with the first."""
    first, second, third = publish(), publish(), publish()
    registry.promote(first, over=None)
    registry.promote(second, over=first.number)
    with pytest.raises(Conflict, match="judged against version 1, but version 2 serves"):
        registry.promote(third, over=first.number)
    with pytest.raises(Conflict, match="judged against version None"):
        registry.promote(third, over=None)
    assert registry.champion("liver").number == 2


def test_recipes_do_not_mix(registry: Registry, publish) -> None:
    registry.promote(publish())
    lung = Recipe(name="lung", labels={"lung": 1})
    staged = registry.stage(lung)
    (staged / "model.pt").write_bytes(b"lung")
    registry.promote(registry.publish(lung, staged, {}))
    assert registry.champion("lung").weights.read_bytes() == b"lung"
    assert registry.champion("liver").weights.read_bytes() == b"weights"


@pytest.mark.parametrize("damage", ["flip", "truncate", "weights", "folder", "manifest"])
def test_a_damaged_version_is_refused_by_name(home: Home, registry: Registry, publish, damage: str) -> None:
    registry.promote(publish(b"good weights"))
    version = registry.promote(publish(b"better weights"))
    if damage == "flip":
        version.weights.write_bytes(b"bitter weights")
    elif damage == "truncate":
        version.weights.write_bytes(b"better")
    elif damage == "weights":
        version.weights.unlink()
    elif damage == "manifest":
        (version.dir / "manifest.json").write_text('{"checksum":')
    else:
        shutil.rmtree(version.dir)
    server = Registry(home)
    with pytest.raises(RadloopError, match=r"liver version 2 cannot serve: .*radloop model rollback liver"):
        server.champion("liver")
    with pytest.raises(RadloopError, match="liver version 2 cannot serve"):
        server.promote(version)
    assert len(server.versions("liver")) == 2
    assert server.rollback("liver").number == 1
    assert server.champion("liver").weights.read_bytes() == b"good weights"


def test_files_are_checked_once_a_version(home: Home, registry: Registry, publish) -> None:
    registry.promote(publish(b"a" * 100))
    server = Registry(home)
    champion = server.champion("liver")
    champion.weights.write_bytes(b"b" * 100)
    time.sleep(1.05)
    assert server.champion("liver").number == 1  # its bytes were right when they were loaded
    with pytest.raises(Conflict, match="damaged"):
        Registry(home).champion("liver")


def test_numbers_are_never_used_twice(home: Home, registry: Registry, publish) -> None:
    for _ in range(3):
        publish()
    shutil.rmtree(home.versions / "liver" / "3")
    shutil.rmtree(home.versions / "liver" / "1")
    assert publish().number == 4


def test_a_home_can_be_moved(home: Home, registry: Registry, publish, tmp_path: Path) -> None:
    registry.promote(publish(b"moved"))
    there = tmp_path / "Zürich #1 100% (copy)" / "höme"
    there.parent.mkdir()
    shutil.move(home.path, there)
    moved = Registry(Home(there))
    assert moved.champion("liver").weights.read_bytes() == b"moved"
    assert moved.champion("liver").dir.is_relative_to(there)
    staged = moved.stage("liver")
    (staged / "model.pt").write_bytes(b"next")
    assert moved.publish(moved.champion("liver").load_recipe(), staged, {}).number == 2


def test_what_cannot_be_published_is_refused(registry: Registry, recipe: Recipe, tmp_path: Path) -> None:
    staged = registry.stage(recipe)
    with pytest.raises(BadInput, match=r"no model\.pt"):
        registry.publish(recipe, staged, {})
    (staged / "model.pt").write_bytes(b"x")
    with pytest.raises(BadInput, match="JSON"):
        registry.publish(recipe, staged, {"held_out": {"a": float("nan")}})
    with pytest.raises(BadInput, match="state 'great'"):
        registry.publish(recipe, staged, {"state": "great"})
    with pytest.raises(BadInput, match="not a staged folder"):
        registry.publish(recipe, tmp_path, {})
    assert registry.versions("liver") == []
    registry.discard(staged)
    assert not staged.exists()


def test_the_manifest_on_disk_says_what_it_is(publish, recipe: Recipe) -> None:
    version = publish(state="champion", epochs=2)
    manifest = json.loads((version.dir / "manifest.json").read_text())
    assert manifest["recipe"] == "liver"
    assert manifest["recipe_hash"] == recipe.hash()
    assert len(manifest["checksum"]) == 64
    assert manifest["epochs"] == 2
    assert version.state == "challenger"  # being champion is the alias's matter


def test_the_registry_is_plain_mlflow(home: Home, registry: Registry, publish) -> None:
    """Another tool reads the same through MLflow's own client."""
    from mlflow.tracking import MlflowClient

    registry.promote(publish(labels=[1, 2, 3]))
    publish()
    client = MlflowClient(registry_uri=f"sqlite:///{home.registry_db}", tracking_uri=f"sqlite:///{home.registry_db}")
    champion = client.get_model_version_by_alias("liver", "champion")
    assert str(champion.version) == "1"
    assert champion.source == "liver/1"
    assert champion.tags["labels"] == "3"


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.registry_db.write_bytes(b"this is not a database, whatever its name says" * 100)
    start = time.monotonic()
    with pytest.raises(Conflict, match=r"registry\.db cannot be opened"):
        Registry(home)
    assert time.monotonic() - start < 10


def test_a_busy_database_is_waited_for(home: Home, registry: Registry, publish) -> None:
    version = publish()
    other = sqlite3.connect(home.registry_db, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    import threading

    threading.Timer(0.5, lambda: other.execute("COMMIT")).start()
    assert registry.promote(version).state == "champion"


def test_what_another_tool_registered_is_not_taken_for_a_version(home: Home, registry: Registry, publish) -> None:
    from mlflow.tracking import MlflowClient

    registry.promote(publish())
    client = MlflowClient(registry_uri=f"sqlite:///{home.registry_db}", tracking_uri=f"sqlite:///{home.registry_db}")
    foreign = client.create_model_version("liver", source="s3://elsewhere/model")
    server = Registry(home)
    assert [v.number for v in server.versions("liver")] == [1]
    client.set_registered_model_alias("liver", "champion", foreign.version)
    with pytest.raises(Conflict, match=r"another tool.*rollback liver VERSION.*versions are 1"):
        server.champion("liver")
    assert server.rollback("liver", 1).serves
    assert server.champion("liver").number == 1
