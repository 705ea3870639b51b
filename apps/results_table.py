"""`results.csv` of `radloop predict`: one line a label of a study, and what an earlier run need not do again."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.apps.terminal import NOTICE

if TYPE_CHECKING:
    from radloop.registry.version import Version

RESULTS = "results.csv"


@dataclass(frozen=True)
class Job:
    """An image to answer: its id and the files of its channels."""

    study: str
    channels: tuple[Path, ...]


@dataclass(frozen=True)
class Source:
    """What an answer is made of; the answer of another source is no answer to this question.

    Attributes:
        recipe: its name.
        recipe_hash: of the recipe that the version was trained with.
        version: its number.
        trained: when it was published, since another home counts its versions from 1 too.
        input: of the channels' names, sizes and times.
    """

    recipe: str
    recipe_hash: str
    version: str
    trained: str
    input: str


@dataclass(frozen=True)
class Row:
    """One line of `results.csv`: a label of a study, or a box."""

    study: str
    label: str
    volume_ml: str
    probability: str
    seconds: str
    warnings: str
    recipe: str
    recipe_hash: str
    version: str
    trained: str
    input: str
    notice: str = NOTICE
    size_mm: str = ""
    centre_lps_mm: str = ""

    @property
    def source(self) -> Source:
        """What the answer was made of."""
        return Source(**{field.name: getattr(self, field.name) for field in fields(Source)})


def source_of(job: Job, version: Version, told: str = "") -> Source:
    """What the answer of a version to an image is made of.

    Args:
        told: what it is told beside the image.
    """
    recipe = version.load_recipe()
    digest = hashlib.sha256(told.encode())
    for channel in job.channels:
        for file in sorted(channel.iterdir()) if channel.is_dir() else [channel]:
            size, time = (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else (0, 0)
            digest.update(f"{file.name}/{size}/{time}\n".encode())
    return Source(recipe.name, recipe.hash(), str(version.number), version.created, digest.hexdigest()[:16])


def read_rows(out: Path) -> dict[str, list[Row]]:
    """Study -> its lines in the table of an earlier run; a line cut short by a crash is left out."""
    path = out / RESULTS
    if not path.is_file():
        return {}
    names = {field.name for field in fields(Row)}
    found: dict[str, list[Row]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for line in csv.DictReader(file):
            if set(line) == names and None not in line.values():
                found.setdefault(line["study"], []).append(Row(**line))
    return found


def is_answer(rows: Sequence[Row], source: Source, labels: Sequence[str]) -> bool:
    """Whether these lines are the whole answer made of that source."""
    return [row.label for row in rows] == list(labels) and all(row.source == source for row in rows)
