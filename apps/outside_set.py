"""Labelled studies of an outside set, for `radloop evaluate --images`: nothing of them enters the model's ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from radloop.recipes.errors import BadLabel, NotFound
from radloop.recipes.recipe import JSON_KINDS, Recipe
from radloop.studies.answer_rows import take_cells
from radloop.studies.box_rows import take_box_files
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.folder import StudiesFolder, find_mask
from radloop.studies.home import Home
from radloop.studies.images import read_header
from radloop.studies.ledger import Ledger
from radloop.studies.split import SIDES


def outside_cases(folder: StudiesFolder, recipe: Recipe, ids: Sequence[str], cache: Path) -> tuple[list[Case], object]:
    """The studies with their masks in `labels/final`, cells of `answers.csv` or files of boxes.

    Args:
        folder: the outside set; nothing in it is changed.
        ids: which of its studies.
        cache: where answers are kept for the time being.

    Returns:
        The cases, and what they last as long as.

    Raises:
        NotFound: a study has no label.
        BadLabel: its label does not fit the study or the recipe.
    """
    if recipe.kind not in JSON_KINDS:
        return [_masked(folder, recipe, study) for study in ids], None
    place = TemporaryDirectory(dir=cache, ignore_cleanup_errors=True)
    ledger = Ledger(Home(Path(place.name)))
    wrong = [*take_cells(folder, ledger, [recipe]), *take_box_files(folder, ledger, [recipe])]
    found = {case.study: case for case in labelled_cases(folder, ledger, recipe, SIDES, only=set(ids))}
    for study in ids:
        if study not in found:
            why = f" ({wrong[0][1]})" if wrong else ""
            where = "file of boxes in labels/final" if recipe.kind == "detection" else "answer in answers.csv"
            msg = f"{study} has no {where} that recipe {recipe.name} can be measured on{why}; take it off the list"
            raise NotFound(msg)
    region = folder.final_dir if recipe.answer.region else None
    cases = (replace(found[study], side="test", row=0, blind=False) for study in ids)
    return [replace(case, region=find_mask(region, case.study)) if region else case for case in cases], place


def _masked(folder: StudiesFolder, recipe: Recipe, study_id: str) -> Case:
    study, mask = folder.study(study_id), find_mask(folder.final_dir, study_id)
    if mask is None:
        msg = f"{study_id} has no mask in labels/final, so nothing can be measured on it; take it off the list"
        raise NotFound(msg)
    listing = folder.final_dir.parent / "names.json"
    names = json.loads(listing.read_text(encoding="utf-8")) if listing.is_file() else recipe.labels
    known = tuple(name for name in recipe.label_names if names.get(name) == recipe.labels[name])
    if len(known) < len(recipe.labels):
        msg = f"labels/names.json says {names}, but recipe {recipe.name} has {dict(recipe.labels)}; renumber the masks"
        raise BadLabel(msg)
    channels = study.first_channels(len(recipe.channels))
    if read_header(mask)[0] != read_header(channels[0])[0]:
        msg = f"{mask.name} has {read_header(mask)[0]} voxels, its image {read_header(channels[0])[0]}"
        raise BadLabel(msg)
    return Case(study_id, study.patient, "test", channels, mask, known, 0, blind=False, answers=study.answers)
