"""Answers about a whole study as small JSON files: written, read, and held against a recipe.

    {"format": 1, "kind": "classification", "answer": "malignant"}
    {"format": 1, "kind": "ordinal", "answer": "grade 3"}
    {"format": 1, "kind": "multilabel", "answer": {"effusion": true, "mass": false}}
    {"format": 1, "kind": "risk", "event": true, "time": 412, "unit": "days"}

A finding that is left out was not looked at. In memory an answer is a dict: label name -> whether it holds; of kind
`risk` an `Outcome`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radloop.recipes.errors import BadLabel, NotFound, closest
from radloop.recipes.recipe import CLASS_KINDS, JSON_KINDS, STUDY_KINDS, Recipe
from radloop.studies.outcomes import Outcome, outcome_of, wrong_outcome

FORMAT = 1
"""Grows when an older radloop could not read the file any more."""
ENDING = ".json"
LIMIT = 64 * 1024
"""The largest answer file, bytes."""
_LARGEST = 1024 * 1024  # of boxes, see `radloop.studies.box_files`
Said = Mapping[str, bool] | Outcome
_KEYS = ("format", "kind", "answer")
_MOST = 16  # findings whose answer is found again from its checksum: 65536 are tried


def is_answer(file: Path | str) -> bool:
    """Whether a file is an answer by its name, and not a mask."""
    return Path(file).name.lower().endswith(ENDING)


def mask_recipes(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Those of the recipes whose labels are masks, not JSON files."""
    return [recipe for recipe in recipes if recipe.kind not in JSON_KINDS]


def drawn_recipes(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Those of the recipes that a reader may answer by drawing a mask: first those of masks, then those of boxes."""
    recipes = list(recipes)
    return [*mask_recipes(recipes), *(recipe for recipe in recipes if recipe.kind == "detection")]


def write_answer(path: Path, kind: str, answer: Said) -> None:
    """Writes an answer file.

    Args:
        kind: the recipe's.
        answer: what was looked at; of `classification` and `ordinal` the one that holds is written.
    """
    path.write_bytes(answer.content(FORMAT) if isinstance(answer, Outcome) else _content(kind, answer))


def read_answer(path: Path, recipe: Recipe | None = None) -> dict[str, bool]:
    """What an answer file says: label name -> whether it holds, only of names that were looked at.

    Args:
        recipe: whose labels of now are told, all of them where they exclude each other; names that it no longer has
            are left out. Without one, of `classification` and `ordinal` only the name that holds is known.

    Raises:
        NotFound: there is no such file.
        BadLabel: it is no answer, or says nothing of the recipe's labels.
    """
    kind, answer = _load(path)
    if isinstance(answer, Outcome):
        if recipe is not None and recipe.kind != "risk":
            msg = f"{path.name} says when an event came (risk); recipe {recipe.name} is of kind {recipe.kind}"
            raise BadLabel(msg)
        return {name: answer.event for name in recipe.label_names} if recipe else {"event": answer.event}
    if recipe is None:
        return answer
    known = {name: answer[name] for name in recipe.label_names if name in answer}
    if not known or (kind == "multilabel") != (recipe.kind == "multilabel"):
        msg = f"{path.name} says {_spoken(answer)} ({kind}); recipe {recipe.name} ({recipe.kind}) has {_listed(recipe)}"
        raise BadLabel(msg)
    return known if kind == "multilabel" else _one_of(recipe, next(iter(known)))


def read_outcome(path: Path, recipe: Recipe) -> Outcome:
    """What an answer file of kind `risk` says, in the recipe's unit.

    Raises:
        NotFound: there is no such file.
        BadLabel: it is no answer, or of another kind.
    """
    kind, answer = _load(path, recipe)
    if not isinstance(answer, Outcome):
        msg = f"{path.name} says {_spoken(answer)} ({kind}); recipe {recipe.name} asks whether an event came, and when"
        raise BadLabel(msg)
    return answer.within(recipe.answer.unit)


def said(path: Path) -> str | dict[str, Any] | list[Any]:
    """What an answer file says, as it is written there: a label's name, findings, event and time, or boxes.

    Raises:
        NotFound: there is no such file.
        BadLabel: it is no answer.
    """
    told = load_json(path, _LARGEST)
    if isinstance(told, dict) and told.get("kind") == "detection" and isinstance(told.get("boxes"), list):
        return list(told["boxes"])
    kind, answer = _load(path)
    if isinstance(answer, Outcome):
        return answer.told()
    return answer if kind == "multilabel" else next(iter(answer))


def check_answer(recipe: Recipe, answer: Mapping[str, bool]) -> dict[str, bool]:
    """An answer as the recipe keeps it, in the order of its labels.

    Of `classification` and `ordinal` all labels are told, and exactly one holds.

    Raises:
        BadLabel: the recipe takes masks, the answer names what is no label, or says nothing, or too much.
    """
    if recipe.kind not in CLASS_KINDS:
        msg = f"recipe {recipe.name} is of kind {recipe.kind} and takes a mask, not an answer; send a mask file"
        raise BadLabel(msg)
    for name in answer:
        if name not in recipe.labels:
            hint = closest(name, recipe.labels)
            msg = f"{name[:80]!r} is no label of recipe {recipe.name}; allowed are {_listed(recipe)}{hint}"
            raise BadLabel(msg)
    if recipe.kind == "multilabel":
        if not answer:
            msg = f"the answer names no finding; say true or false for some of {_listed(recipe)}"
            raise BadLabel(msg)
        return {name: answer[name] for name in recipe.label_names if name in answer}
    holding = [name for name, holds in answer.items() if holds]
    if len(holding) != 1:
        msg = f"the answer is {', '.join(holding) or 'none of the labels'}; say exactly one of {_listed(recipe)}"
        raise BadLabel(msg)
    return _one_of(recipe, holding[0])


def fit_answer(recipe: Recipe, file: Path) -> Said:
    """The answer of a file that somebody sent, as the recipe keeps it.

    Raises:
        NotFound: there is no such file.
        BadLabel: it is a mask, no answer, of another kind, or does not fit the recipe.
    """
    if recipe.kind in STUDY_KINDS and not is_answer(file):
        msg = f"{file.name} is no answer; recipe {recipe.name} is of kind {recipe.kind} and takes a JSON answer file"
        raise BadLabel(msg)
    kind, answer = _load(file, recipe)
    if recipe.kind in STUDY_KINDS and kind != recipe.kind:
        msg = f"{file.name} has kind {kind!r}; recipe {recipe.name} takes answers of kind {recipe.kind!r}"
        raise BadLabel(msg)
    return answer if isinstance(answer, Outcome) else check_answer(recipe, answer)


def found_again(names: Sequence[str], digest: str) -> bytes | None:
    """The content of an answer that was lost, from its SHA-256: there are few that it can have been; None where many.

    Args:
        names: the labels that were looked at, in the recipe's order.
    """
    return next((text for text in _possible(names) if hashlib.sha256(text).hexdigest() == digest), None)


def _possible(names: Sequence[str]) -> Iterator[bytes]:
    for kind in ("classification", "ordinal"):
        yield from (_content(kind, {name: True}) for name in names)
    if len(names) <= _MOST:
        for values in itertools.product((False, True), repeat=len(names)):
            yield _content("multilabel", dict(zip(names, values, strict=True)))


def _content(kind: str, answer: Mapping[str, bool]) -> bytes:
    told = dict(answer) if kind == "multilabel" else next(name for name, holds in answer.items() if holds)
    return (json.dumps({"format": FORMAT, "kind": kind, "answer": told}, ensure_ascii=False) + "\n").encode()


def load_json(path: Path, limit: int) -> Any:
    """The value in a JSON file of at most `limit` bytes, no key of it twice.

    Raises:
        NotFound: there is no such file.
        BadLabel: it is larger, or not JSON.
    """
    try:
        with path.open("rb") as handle:
            content = handle.read(limit + 1)
    except FileNotFoundError as error:
        msg = f"there is no answer file {path.name}"
        raise NotFound(msg) from error
    if len(content) > limit:
        msg = f"{path.name} is larger than {limit} bytes; an answer is small: names of labels only"
        raise BadLabel(msg)
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        msg = f"{path.name} is not JSON: {error}"
        raise BadLabel(msg) from error


def _load(path: Path, recipe: Recipe | None = None) -> tuple[str, dict[str, bool] | Outcome]:
    """Kind and answer of a file, to a recipe; what is wrong with it is said under its name."""
    told = load_json(path, LIMIT)
    if reason := _wrong(told):
        msg = f"{path.name} {reason}"
        raise BadLabel(msg)
    if told["kind"] == "risk":
        return "risk", outcome_of(told, recipe.answer.unit if recipe else "days")
    answer = told["answer"]
    return told["kind"], answer if told["kind"] == "multilabel" else {answer: True}


def _wrong(told: Any) -> str:
    """Why a JSON value is no answer, or ""."""
    form = '{"format": 1, "kind": ..., "answer": ...}'
    if not isinstance(told, dict):
        return f"is no answer; write {form}"
    version = told.get("format")
    if type(version) is not int or version < 1:
        return f"has format {version!r}; write {form}"
    if version > FORMAT:
        return f"is an answer of format {version}, this radloop knows {FORMAT}; update radloop"
    if told.get("kind") == "risk":
        return wrong_outcome(told)
    for key in (*told, *_KEYS):
        if key not in _KEYS:
            return (
                f"has the key {key[:80]!r}, which is not allowed; allowed are {', '.join(_KEYS)}{closest(key, _KEYS)}"
            )
        if key not in told:
            return f"has no key {key!r}; write {form}"
    kind, answer = told["kind"], told["answer"]
    if kind not in CLASS_KINDS:
        hint = closest(kind, STUDY_KINDS) if isinstance(kind, str) else ""
        return f"has kind {_short(kind)}; allowed are {', '.join(STUDY_KINDS)}{hint}"
    if kind != "multilabel":
        return "" if isinstance(answer, str) else f"has answer {_short(answer)}; write the name of a label"
    if not isinstance(answer, dict):
        return f"has answer {_short(answer)}; write {{finding: true or false}} for those that were looked at"
    bad = next((name for name, holds in answer.items() if not isinstance(holds, bool)), None)
    return "" if bad is None else f"says {_short(answer[bad])} of {bad[:80]!r}; write true or false, or leave it out"


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"{key[:80]!r} is there twice"
            raise ValueError(msg)
        found[key] = value
    return found


def _one_of(recipe: Recipe, name: str) -> dict[str, bool]:
    return {each: each == name for each in recipe.label_names}


def _listed(recipe: Recipe) -> str:
    return ", ".join(recipe.labels)


def _spoken(answer: Mapping[str, bool]) -> str:
    return ", ".join(f"{'' if holds else 'no '}{name}" for name, holds in answer.items()) or "nothing"


def _short(value: Any) -> str:
    return repr(value)[:80]
