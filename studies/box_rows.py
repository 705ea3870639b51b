"""Boxes that lie in `labels/final` as `<id>.json` become labels of author `import`.

A file becomes a label once: the note of its row has its checksum, so that an old file never comes back over what a
reader said later. The file stays as it is; viewers get labels from the ledger.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from radloop.recipes.errors import BadLabel, NoSpace, NotFound, RadloopError
from radloop.recipes.recipe import Recipe
from radloop.studies.answer_rows import keep_boxes
from radloop.studies.answers import ENDING
from radloop.studies.box_files import fit_boxes, read_boxes
from radloop.studies.folder import StudiesFolder, Study
from radloop.studies.images import read_header
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.rows import UNKNOWN

log = logging.getLogger(__name__)

_NOTE = re.compile(r"^from (?P<file>.+) \(sha256 (?P<digest>[0-9a-f]{64})\)$")


def take_box_files(folder: StudiesFolder, ledger: Ledger, recipes: Sequence[Recipe]) -> list[tuple[Path, str]]:
    """Make labels of files of boxes that are new or changed; gives those that could not be taken, and why.

    Args:
        recipes: those served; a file is for the only one of kind `detection`, or the only one that has its labels.

    Raises:
        NoSpace: the disk is full or read-only.
    """
    asked = [recipe for recipe in recipes if recipe.kind == "detection"]
    files = sorted(folder.final_dir.glob(f"*{ENDING}")) if asked and folder.final_dir.is_dir() else []
    if not files:
        return []
    studies, problems = folder.studies(), []
    taken = {(row.study, found["digest"]) for r in asked for row in ledger.history(recipe=r.name)
             if (found := _NOTE.match(row.note))}  # fmt: skip
    for file in files:
        try:
            digest = checksum(file)
            if (file.stem, digest) not in taken:
                _take(ledger, studies, asked, file, digest)
        except NoSpace:
            raise
        except RadloopError as error:
            problems.append((file, str(error)))
    return problems


def _take(ledger: Ledger, studies: dict[str, Study], asked: Sequence[Recipe], file: Path, digest: str) -> None:
    if file.stem not in studies:
        msg = f"no study has the id {file.stem!r}; name the file after its study"
        raise NotFound(msg)
    study, recipe = studies[file.stem], _recipe_of(file, asked)
    boxes = fit_boxes(recipe, file, *read_header(study.channels[0]))
    restored = ledger.home.restored
    written = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    current = ledger.latest(study.id, recipe.name)
    lost = bool(restored) and written <= datetime.fromisoformat(str(restored))
    row = keep_boxes(
        ledger,
        study,
        recipe,
        boxes,
        "import",
        shown_version=UNKNOWN if lost else current.shown_version if current else "",
        origin="import",
        author_kind="import",
        note=f"from {file.name} (sha256 {digest})",
    )
    log.info("label %d of study %s, recipe %s, is imported from %s", row.id, study.id, recipe.name, file.name)


def _recipe_of(file: Path, asked: Sequence[Recipe]) -> Recipe:
    labels = {box.label for box in read_boxes(file)}
    fitting = [recipe for recipe in asked if len(asked) == 1 or (labels and labels <= set(recipe.labels))]
    if len(fitting) != 1:
        served = "; ".join(f"{r.name} has {', '.join(r.labels)}" for r in asked)
        msg = (
            f"its boxes ({', '.join(sorted(labels)) or 'none'}) may be of several recipes ({served}); serve one of them"
        )
        raise BadLabel(msg)
    return fitting[0]
