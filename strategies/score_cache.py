"""What was computed of studies, on disk: scores by version, embeddings by preprocessing.

An SQLite file among the caches of the home, which may be deleted at any time; then it is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from radloop.recipes.recipe import Recipe
from radloop.strategies.cache_file import drop_old, opened
from radloop.strategies.scores import Score
from radloop.studies.folder import Study
from radloop.studies.home import Home

_TABLES = """
create table if not exists scores (recipe text, version integer, study text, stamp text, looks integer, said text,
    primary key (recipe, version, study)) without rowid;
create table if not exists embeddings (recipe text, chain text, study text, stamp text, vector blob,
    primary key (recipe, chain, study)) without rowid;
"""


@dataclass(frozen=True)
class Kept:
    """A study's score on disk.

    Attributes:
        stamp: of the images that it was computed from.
        looks: with dropout.
        score: None where the study could not be scored.
    """

    stamp: str
    looks: int
    score: Score | None


class ScoreCache:
    """The scores and embeddings of a home.

    Args:
        home: whose cache.
    """

    def __init__(self, home: Home) -> None:
        self._file = home.cache / "scores" / "scores.db"

    def scores(self, recipe: str, version: int) -> dict[str, Kept]:
        """Study -> what a version said of it."""
        query = "select study, stamp, looks, said from scores where recipe = ? and version = ?"
        found = {}
        with self._open() as database:
            for study, stamp, looks, said in database.execute(query, (recipe, version)):
                score = Score(**json.loads(said)) if said else None
                found[study] = Kept(stamp, looks, score)
        return found

    def keep_score(self, recipe: str, version: int, study: str, kept: Kept) -> None:
        """Writes one down; those of all but the newest few versions go.

        Raises:
            NoSpace: the disk is full or read-only.
        """
        score = kept.score
        said = json.dumps({"scores": score.scores, "classes": score.classes}) if score else ""
        with self._open() as database:
            row = (recipe, version, study, kept.stamp, kept.looks, said)
            database.execute("insert or replace into scores values (?, ?, ?, ?, ?, ?)", row)
            drop_old(database, "scores", recipe, version)

    def embeddings(self, recipe: Recipe) -> dict[str, tuple[str, np.ndarray | None]]:
        """Study -> stamp of its images, and its embedding, None where it could not be made."""
        query = "select study, stamp, vector from embeddings where recipe = ? and chain = ?"
        with self._open() as database:
            rows = database.execute(query, (recipe.name, _chain(recipe))).fetchall()
        return {study: (stamp, np.frombuffer(raw, np.float32) if raw else None) for study, stamp, raw in rows}

    def keep_embedding(self, recipe: Recipe, study: str, stamp: str, vector: np.ndarray | None) -> None:
        """Writes one down; those of another preprocessing go.

        Raises:
            NoSpace: the disk is full or read-only.
        """
        raw, chain = b"" if vector is None else vector.astype(np.float32).tobytes(), _chain(recipe)
        with self._open() as database:
            database.execute("delete from embeddings where recipe = ? and chain != ?", (recipe.name, chain))
            database.execute(
                "insert or replace into embeddings values (?, ?, ?, ?, ?)", (recipe.name, chain, study, stamp, raw)
            )

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(self._file, _TABLES)


def stamp_of(study: Study) -> str:
    """Changes with a study's images."""
    parts = []
    for path in study.channels:
        with contextlib.suppress(OSError):
            found = path.stat()
            parts.append((path.name, found.st_mtime_ns, found.st_size))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _chain(recipe: Recipe) -> str:
    parts = recipe.model_dump(mode="json", include={"preprocess", "dimension", "channels", "optional"})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
