"""`changes.csv` of `radloop predict`: lesions of a patient's successive studies, matched, and how they changed."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.apps.terminal import NOTICE

if TYPE_CHECKING:
    from datetime import date

    from radloop.evaluation.lesion_changes import Lesions
    from radloop.recipes.recipe import Recipe
    from radloop.studies.folder import StudiesFolder, Study

CHANGES = "changes.csv"
_COLUMNS = (
    "patient", "label", "lesion", "earlier", "later", "days", "matched", "volume_ml_earlier", "volume_ml_later",
    "volume_change_ml", "diameter_mm_earlier", "diameter_mm_later", "diameter_change_mm", "notice",
)  # fmt: skip


def write_changes(folder: StudiesFolder, recipe: Recipe, out: Path, answered: Collection[str]) -> int:
    """Write the table next to the masks; 0 and no table where no patient has two dated studies with a mask.

    Args:
        folder: the studies, with `patient` and `date` in `answers.csv`.
        recipe: a mask recipe of three dimensions.
        out: where the masks are.
        answered: studies whose mask is of this version; that of another, of a study that failed since, is left out.

    Returns:
        Patients in the table.

    Raises:
        NoSpace: the table cannot be written.
    """
    from radloop.studies.files import write_whole
    from radloop.studies.folder import find_mask
    from radloop.studies.visits import Visits

    dated = {
        patient: [(when, one, mask) for when, one in of if one.id in answered and (mask := find_mask(out, one.id))]
        for patient, of in Visits(folder.studies()).dated().items()
    }
    several = {patient: of for patient, of in sorted(dated.items()) if len(of) > 1}
    if not several:
        (out / CHANGES).unlink(missing_ok=True)
        return 0
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for patient, of in several.items():
        for name, number in recipe.labels.items():
            table.writerows([patient, name, *line, NOTICE] for line in _lines(of, number))

    def write(temporary: Path) -> None:
        temporary.write_text(text.getvalue(), encoding="utf-8")

    write_whole(out / CHANGES, write)
    return len(several)


def _lines(of: Sequence[tuple[date, Study, Path]], number: int) -> Iterator[tuple[object, ...]]:
    """The lines of one label; a lesion keeps its number as long as it is found again."""
    from radloop.evaluation.lesion_changes import match

    before, known, count = None, dict[int, int](), 0
    for place, (when, study, mask) in enumerate(of):
        after = _read(mask, number)
        if before is None:
            before, known, count = after, {one.number: one.number for one in after.found}, len(after.found)
            continue
        then, earlier, _ = of[place - 1]
        now: dict[int, int] = {}
        for change in match(before, after):
            if change.before:
                name = known[change.before.number]
            else:
                count += 1
                name = count
            if change.after:
                now[change.after.number] = name
            sizes = [(one.volume_ml, one.diameter_mm) if one else (0.0, 0.0) for one in (change.before, change.after)]
            numbers = [
                part
                for one, two in zip(*sizes, strict=True)
                for part in (f"{one:.3f}", f"{two:.3f}", f"{two - one:+.3f}")
            ]
            yield name, earlier.id, study.id, (when - then).days, change.matched, *numbers
        before, known = after, now


def _read(mask: Path, number: int) -> Lesions:
    from radloop.evaluation.lesion_changes import lesions_of
    from radloop.studies.images import read_mask

    found = read_mask(mask)
    return lesions_of(found.array[0] == number, found.affine)
