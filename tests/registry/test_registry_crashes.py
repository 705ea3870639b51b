"""A process that is killed between two steps of promote, rollback, hold or reject; each in a real process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from radloop.recipes.errors import Conflict
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.home import Home

CASES = {
    # recipe: what is done, and the call to MLflow that is never made: the n-th of those that write
    "promote_at_once": ("registry.promote(registry.version(recipe, 3))", 1),
    "promote_before_alias": ("registry.promote(registry.version(recipe, 3))", 2),
    "back_before_alias": ("registry.rollback(recipe)", 1),
    "back_to_a_number": ("registry.rollback(recipe, 3)", 2),
    "hold_before_reason": ("registry.hold(registry.version(recipe, 3), 'two judgements')", 2),
}
MOVED = {"promote_after_alias": ("registry.promote(registry.version(recipe, 3))", 3)}

DIE = """
import json, os, signal, sys
import mlflow.tracking  # once for all of them
from mlflow.tracking import MlflowClient
from radloop.registry.registry import Registry
from radloop.studies.home import Home

def die_at(number):
    made = 0
    def counted(real):
        def call(*args, **more):
            nonlocal made
            made += 1
            if made == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)
        return call
    for name in ("set_model_version_tag", "set_registered_model_alias"):
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))

for recipe, (what, number) in json.loads(sys.argv[2]).items():
    child = os.fork()
    if not child:
        registry = Registry(Home(sys.argv[1]))
        die_at(number)
        exec(what)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def killed(home: Home, registry: Registry, cases: dict[str, tuple[str, int]]) -> Registry:
    """Versions 1 and 2 served, 2 serves, 3 waits; then the process of each case is killed."""
    for recipe in cases:
        for content in (b"one", b"two", b"three"):
            staged = registry.stage(recipe)
            (staged / "model.pt").write_bytes(content)
            version = registry.publish(Recipe(name=recipe, labels={"organ": 1}), staged, {})
            if content != b"three":
                registry.promote(version)
    command = [sys.executable, "-c", DIE, str(home.path), json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["-9"] * len(cases), done.stderr
    return Registry(home, look_every=0)


def test_the_version_that_served_goes_on_serving_and_every_way_stays_open(home: Home, registry: Registry) -> None:
    registry = killed(home, registry, CASES)
    for recipe in CASES:
        champion = registry.champion(recipe)
        assert (champion.number, champion.weights.read_bytes()) == (2, b"two"), recipe
        third = registry.version(recipe, 3)
        assert third.state == ("held" if recipe.startswith("hold") else "challenger"), recipe
        if third.state == "held":
            with pytest.raises(Conflict, match="is held"):
                registry.promote(third)
        assert registry.rollback(recipe).number == 1, recipe
        assert registry.rollback(recipe, 3).weights.read_bytes() == b"three", recipe
        assert registry.rollback(recipe).number in (1, 2), recipe


def test_what_serves_after_the_alias_moved_is_known_to_have_served(home: Home, registry: Registry) -> None:
    registry = killed(home, registry, MOVED)
    (recipe,) = MOVED
    assert registry.champion(recipe).number == 3
    assert registry.rollback(recipe).number == 2
    assert [version.state for version in registry.versions(recipe)] == ["former", "champion", "former"]
