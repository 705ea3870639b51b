"""A recipe planned from what a studies folder holds and what this machine can do.

The rules are nnU-Net's fingerprint and plans (Isensee et al., Nature Methods 2021), with one more limit: an answer must
come back within the seconds a reader waits. Where it would not, voxels become coarser and the network narrower, and the
recipe says what that cost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import get_args

from pydantic import ValidationError

from radloop.engine import plan_rules as rules
from radloop.engine.plan_answers import AnswerPlanner
from radloop.engine.plan_search import Search
from radloop.engine.plan_text import toml_text
from radloop.engine.plan_words import heading, tables
from radloop.engine.speed import this_machine
from radloop.recipes.errors import BadInput, closest
from radloop.recipes.load import parse_recipe, shipped_recipes
from radloop.recipes.recipe import CLASS_KINDS, Fit, Kind, Recipe
from radloop.studies.answer_look import look_at_answers
from radloop.studies.fingerprint import Fingerprint, fingerprint
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home

log = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MINUTES = {"cpu": 20.0, "cuda": 60.0}
_STEPS = {"cpu": 50, "cuda": 250}


def plan_recipe(
    folder: StudiesFolder,
    home: Home | None = None,
    *,
    answer_seconds: float | None = None,
    name: str | None = None,
    kind: str | None = None,
    answer: str | None = None,
    labels: Mapping[str, int] | None = None,
    device: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> str:
    """The TOML text of a recipe for `folder`, each choice under a comment that says why; it passes `parse_recipe`.

    Args:
        folder: the studies.
        home: where recipes are kept; a name taken there gets a number. None looks at the shipped names only.
        answer_seconds: how long a reader waits for one answer on the largest study; 60 by default.
        name: the recipe's name; the folder's by default.
        kind: `segmentation`, or one whose answer is words; by default `segmentation`, and with `answer` guessed.
        answer: the column of `answers.csv` that holds the answer; for several findings columns with commas between.
        labels: name -> id, where there are no masks to tell; `{"lesion": 1}` by default.
        device: `cpu` or `cuda`; CUDA where there is one by default.
        progress: called with a line that says what is being read or measured.

    Raises:
        BadInput: another kind, no readable study, no such column or nothing in it that can be told apart, or seconds
            that this machine cannot meet.
        BadLabel: the masks' ids have gaps or do not fit the names.
    """
    _check(kind, answer_seconds, name)
    say = progress or log.info
    in_words = kind in CLASS_KINDS or (kind is None and answer is not None)
    look = look_at_answers(folder, answer, kind) if in_words else None

    def reading(done: int, total: int, study: str) -> None:
        if done % 10 == 0 or done == total:
            say(f"read {done} of {total} studies, the last {study}")

    seen = fingerprint(folder, progress=reading)
    for group in seen.same_patient:
        log.warning("%s look like one patient; name patients in answers.csv", ", ".join(group[:4]))
    machine = this_machine(device)
    if look:
        plan_of = AnswerPlanner(seen, look, answer_seconds or ANSWER_SECONDS, machine, say)
        text = plan_of.text(_free_name(name, folder.path.name, home), folder.path.name)
        parse_recipe(text, "the planned recipe")
        return text
    base = _base(seen, _free_name(name, folder.path.name, home), _named(seen, labels), machine.device)
    plan = Search(seen, base, answer_seconds or ANSWER_SECONDS, machine, say).plan()
    text = toml_text(heading(seen, plan, folder.path.name), tables(seen, plan, labels))
    parse_recipe(text, "the planned recipe")
    return text


def _check(kind: str | None, answer_seconds: float | None, name: str | None) -> None:
    kinds = get_args(Kind)
    if kind is not None and kind not in kinds:
        msg = f"kind = {kind!r} is not known{closest(kind, kinds)}; known: {', '.join(kinds)}"
        raise BadInput(msg)
    if kind not in (None, "segmentation", *CLASS_KINDS):
        msg = f"kind = {kind!r} cannot be planned yet; segmentation, {', '.join(CLASS_KINDS)} can, others come later"
        raise BadInput(msg)
    if answer_seconds is not None and not 0 < answer_seconds < float("inf"):
        msg = f"answer_seconds = {answer_seconds:g} must be above 0"
        raise BadInput(msg)
    if name is not None and not _NAME.fullmatch(name):
        msg = f"name = {name!r} must be lower-case letters, digits and _, e.g. {rules.recipe_name(name)!r}"
        raise BadInput(msg)


def _named(seen: Fingerprint, labels: Mapping[str, int] | None) -> dict[str, int]:
    if labels is None:
        return seen.labels.names or {"lesion": 1}
    unknown = sorted(set(seen.labels.names.values()) - set(labels.values()))
    if unknown:
        msg = f"labels name the ids {sorted(labels.values())}, but the masks hold {unknown} besides; name these too"
        raise BadInput(msg)
    return dict(labels)


def _base(seen: Fingerprint, name: str, labels: dict[str, int], device: str) -> Recipe:
    """The recipe with all that does not depend on speed."""
    try:
        return Recipe(
            name=name,
            modality=seen.modality,
            dimension=seen.dimension,
            channels=rules.channel_names(seen),
            optional=rules.optional(seen),
            labels=labels,
            preprocess=rules.intensities(seen)[0],
            fit=Fit(
                patch=(16,) * seen.dimension,
                minutes=_MINUTES[device],
                steps=_STEPS[device],
                mirror=rules.mirroring(labels, seen.dimension)[0],
            ),
        )
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        msg = f"a recipe cannot be made of these labels: {reason}; change them in labels/names.json"
        raise BadInput(msg) from error


def _free_name(given: str | None, folder: str, home: Home | None) -> str:
    """The name given; else the folder's, or where that is taken the first of `name_2`, `name_3`, ... that is free."""
    if given is not None:
        return given
    name = rules.recipe_name(folder)
    taken = set(shipped_recipes()) | ({path.stem for path in home.recipes.glob("*.toml")} if home else set())
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)
