from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.registry.version import Version
from radloop.studies.home import Home


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry has its tables and nothing in them; making those takes a second."""
    path = tmp_path_factory.mktemp("registry") / "home"
    Registry(Home(path))
    return path


@pytest.fixture
def home(empty_home: Path, tmp_path: Path) -> Home:
    return Home(shutil.copytree(empty_home, tmp_path / "home"))


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(name="liver", labels={"liver": 1})


@pytest.fixture
def publish(registry: Registry, recipe: Recipe):
    """Publish a version whose weights are the given bytes."""

    def make(content: bytes = b"weights", **manifest) -> Version:
        staged = registry.stage(recipe)
        (staged / "model.pt").write_bytes(content)
        return registry.publish(recipe, staged, manifest)

    return make
