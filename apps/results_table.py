"""`results.csv` of `radloop predict`: a line a label and a lesion, and what an earlier run need not do again."""

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
MOST_LESIONS = 50
"""So many of a label have a line of their own, the largest first."""


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
    """One line of `results.csv`: a label of a study, one lesion of that label, or a box.

    Attributes:
        lesion: 1 for the largest; empty in the label's own line.
        lesions: how many the label has, in its own line.
        volume_ml: of all that is marked, or of the lesion.
        axial_mm: the largest diameter within one axial slice (RECIST 1.1), of the largest lesion.
        longest_mm: the largest diameter in any direction.
        probability: of the label, for answers in words.
        low, high: its 95 % interval.
        size_mm, centre_lps_mm: of a box, along its axes.
    """

    study: str
    label: str
    lesion: str = ""
    lesions: str = ""
    volume_ml: str = ""
    axial_mm: str = ""
    longest_mm: str = ""
    probability: str = ""
    low: str = ""
    high: str = ""
    seconds: str = ""
    warnings: str = ""
    recipe: str = ""
    recipe_hash: str = ""
    version: str = ""
    trained: str = ""
    input: str = ""
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
    digest = hashlib.sha256((told + stamps(job.channels)).encode())
    return Source(recipe.name, recipe.hash(), str(version.number), version.created, digest.hexdigest()[:16])


def stamps(channels: Sequence[Path]) -> str:
    """Names, sizes and times of the files of an image."""
    found = []
    for channel in channels:
        for file in sorted(channel.iterdir()) if channel.is_dir() else [channel]:
            size, time = (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else (0, 0)
            found.append(f"{file.name}/{size}/{time}\n")
    return "".join(found)


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
    own = [row for row in rows if not row.lesion]
    listed = sum(min(int(row.lesions), MOST_LESIONS) for row in own if row.lesions.isdigit())
    whole = [row.label for row in own] == list(labels) and len(rows) == len(own) + listed
    return whole and all(row.source == source for row in rows)
