"""What the registry keeps in MLflow: one registered model a recipe, one MLflow version a version, the alias `champion`.

A version's `source` is `<recipe>/<number>`, relative to the versions folder, so that a home can be moved. It is also
the link between our number and MLflow's own, which may differ after a crash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from radloop.recipes.errors import Conflict
from radloop.registry.quiet import silence

CHAMPION = "champion"
FOREIGN = 0
"""Stands for a version that another tool registered; ours are numbered from 1."""


@dataclass(frozen=True)
class Entry:
    """One version as MLflow knows it.

    Attributes:
        number: our number, the folder's name.
        key: MLflow's own version number, as text.
        tags: what is written on it.
    """

    number: int
    key: str
    tags: Mapping[str, str]


class Store:
    """MLflow's model registry in one SQLite file.

    Raises:
        Conflict: the file is not a database, or cannot be read or written.
    """

    def __init__(self, database: Path) -> None:
        _check_database(database)
        from mlflow.tracking import MlflowClient
        from sqlalchemy import URL

        silence()
        self._database = database
        url = URL.create("sqlite", database=str(database)).render_as_string()
        with self._spoken():
            self._client = MlflowClient(tracking_uri=url, registry_uri=url)
            self._client.search_registered_models(max_results=1)

    def recipes(self) -> list[str]:
        """Names of the recipes that have a registered model."""
        with self._spoken():
            names, token = [], None
            while True:
                page = self._client.search_registered_models(page_token=token)
                names += [model.name for model in page]
                token = page.token
                if not token:
                    return sorted(names)

    def entries(self, recipe: str) -> list[Entry]:
        """The recipe's versions by number; empty for a recipe without any."""
        with self._spoken():
            if not self._exists(recipe):
                return []
            found, token = [], None
            while True:
                page = self._client.search_model_versions(f"name = '{recipe}'", page_token=token)
                for version in page:
                    number = _number(recipe, version.source)
                    if number:  # what another tool registered under this name is not ours
                        found.append(Entry(number, str(version.version), dict(version.tags)))
                token = page.token
                if not token:
                    return sorted(found, key=lambda entry: entry.number)

    def champion(self, recipe: str) -> int | None:
        """The number of the version that the alias points at, None without one, `FOREIGN` where it is not ours."""
        with self._spoken():
            if not self._exists(recipe):
                return None
            key = self._client.get_registered_model(recipe).aliases.get(CHAMPION)
            if not key:
                return None
            return _number(recipe, self._client.get_model_version(recipe, key).source) or FOREIGN

    def add(self, recipe: str, number: int, tags: Mapping[str, str]) -> None:
        """Make a version known with its tags, in one transaction; nothing points at it yet."""
        with self._spoken():
            if not self._exists(recipe):
                self._client.create_registered_model(recipe)
            self._client.create_model_version(recipe, source=f"{recipe}/{number}", tags=dict(tags))

    def tag(self, recipe: str, key: str, tags: Mapping[str, str]) -> None:
        """Write tags on the version that MLflow calls `key`."""
        with self._spoken():
            for name, value in tags.items():
                self._client.set_model_version_tag(recipe, key, name, value)

    def point(self, recipe: str, key: str) -> None:
        """Move the alias `champion` to the version that MLflow calls `key`."""
        with self._spoken():
            self._client.set_registered_model_alias(recipe, CHAMPION, key)

    def _exists(self, recipe: str) -> bool:
        # What is no name of a recipe has no place in MLflow's filter.
        return recipe.isidentifier() and bool(
            self._client.search_registered_models(f"name = '{recipe}'", max_results=1)
        )

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """MLflow's failures as one line that names the file."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            what = str(error).splitlines()[0]
            msg = f"model registry {self._database} does not answer: {what}; check the disk and try again"
            raise Conflict(msg) from error


def _number(recipe: str, source: str | None) -> int | None:
    """Our number in `<recipe>/<number>`, or None for any other source."""
    name, _, number = (source or "").rpartition("/")
    return int(number) if name == recipe and number.isdecimal() else None


def _check_database(database: Path) -> None:
    """Refuse a file that is no database at once: MLflow would retry it for minutes."""
    try:
        with closing(sqlite3.connect(database, timeout=20)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        msg = (
            f"model registry {database} cannot be opened: {error}; restore it from a backup, or move it away: the "
            "versions on disk are then registered again, and one serves after `radloop model rollback RECIPE VERSION`"
        )
        raise Conflict(msg) from error
