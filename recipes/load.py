"""Recipes from TOML, with every mistake told at once: its line, what is wrong, and the closest valid key."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from radloop.recipes.errors import BadRecipe, NotFound, closest
from radloop.recipes.explain import explain
from radloop.recipes.recipe import Recipe
from radloop.recipes.toml_lines import Statement, line_of, statements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent / "shipped"

_FOUND_IN = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One mistake in a recipe's TOML.

    Attributes:
        line: the line, from 1; where something is missing, the line of the table it is missing in.
        message: what is wrong and what is allowed, one line.
    """

    line: int
    message: str


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with radloop: name -> TOML file, sorted by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def load_recipe(name_or_path: str | Path, home: Path | None = None) -> Recipe:
    """The recipe of a TOML file or of a name.

    Args:
        name_or_path: a path (it ends in `.toml` or holds a slash), or a name. A name is looked for in
            `<home>/recipes` first, so that a recipe of one's own goes before the shipped one.
        home: the folder of radloop's state; None knows shipped names only.

    Raises:
        NotFound: there is no such file or name; the message has the closest name.
        BadRecipe: the file has mistakes; the message has all of them, one a line.
    """
    given = str(name_or_path)
    if isinstance(name_or_path, Path) or given.endswith(".toml") or any(s in given for s in (os.sep, os.altsep) if s):
        return _read(Path(name_or_path))
    own = {path.stem: path for path in sorted((home / "recipes").glob("*.toml"))} if home else {}
    known = {**shipped_recipes(), **own}
    if given not in known:
        msg = f"there is no recipe {given!r}{closest(given, known)}; known are {', '.join(sorted(known))}"
        raise NotFound(msg)
    recipe = _read(known[given])
    if recipe.name != given:
        msg = f"{known[given].name} holds name = {recipe.name!r}; in a folder of recipes file and name must agree"
        raise BadRecipe(msg)
    return recipe


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """The recipe in a TOML text.

    Args:
        text: the TOML.
        source: the file's name, for messages.

    Raises:
        BadRecipe: `source:line: message`, one line for each mistake.
    """
    recipe, found = _examine(text)
    if recipe is None or found:
        msg = "\n".join(f"{source}:{mistake.line}: {mistake.message}" for mistake in found)
        raise BadRecipe(msg)
    return recipe


def mistakes(text: str) -> list[Mistake]:
    """Every mistake in a recipe's TOML text, in the order of its lines; empty where there is none."""
    return _examine(text)[1]


def _read(path: Path) -> Recipe:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        msg = f"there is no recipe file {path}"
        raise NotFound(msg) from error
    except OSError as error:
        msg = f"recipe file {path} cannot be read ({error.strerror})"
        raise BadRecipe(msg) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        msg = f"{path.name}:{line}: the file is not UTF-8; save it with that encoding"
        raise BadRecipe(msg) from error
    return parse_recipe(text, path.name)


def _examine(text: str) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe, where it has no mistakes, and the mistakes."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    known = statements(text)
    data, lost, found = _values(text, known)
    recipe = None
    if data is not None:
        recipe, problems = _validate(data, lost)
        found += [Mistake(line_of(path, known), message) for path, message in problems]
    return recipe, sorted(set(found), key=lambda mistake: (mistake.line, mistake.message))


def _values(text: str, known: list[Statement]) -> tuple[dict[str, Any] | None, set[Path_], list[Mistake]]:
    """The values of a TOML, the paths that a syntax mistake hides, and these mistakes.

    A statement with a mistake is blanked and the rest is read again. After a mistake in a `[table]` line or an open
    bracket no one can say where the next keys belong: then the values are None.
    """
    lines, lost, found = text.split("\n"), set[Path_](), list[Mistake]()
    while True:
        try:
            return tomllib.loads("\n".join(lines)), lost, found
        except tomllib.TOMLDecodeError as error:
            where = _FOUND_IN.search(str(error))
            line, column = (int(where[1]), int(where[2])) if where and where[1] else (len(lines), len(lines[-1]) + 1)
            bad = next((s for s in known if s.first <= line <= s.last), None) or (known[-1] if known else None)
            reason = _FOUND_IN.sub("", str(error))
            found.append(_syntax_mistake(reason, line, lines[line - 1][column - 1 : column] or "\n", bad, known))
            blank = bad is None or not "".join(lines[bad.first - 1 : bad.last]).strip()
            if bad is None or bad.table or blank or (reason == "Unclosed array" and bad == known[-1]):
                return None, lost, found
            lost.add(bad.path)
            lines[bad.first - 1 : bad.last] = [""] * (bad.last - bad.first + 1)


def _syntax_mistake(reason: str, line: int, character: str, bad: Statement | None, known: list[Statement]) -> Mistake:
    """What to do about one mistake that tomllib found at a line and character, in a statement."""
    name = ".".join(bad.path) if bad else ""
    if bad and reason.startswith(("Cannot overwrite", "Cannot declare")):
        first = line_of(bad.path, known)
        return Mistake(bad.first, f"{name!r} is given twice, first in line {first}; keep one")
    if not character.isascii():
        return Mistake(
            line, f'{character!r} cannot stand here; texts and names in any script need straight quotes: "病灶"'
        )
    if bad and bad.last > bad.first and (character == "\n" or reason == "Unclosed inline table"):
        return Mistake(
            bad.first, f"what is in {{ }} must be on one line; or write a table [{name}] with a line for each"
        )
    if bad and character == "\n" and reason.startswith(("Illegal character", "Unterminated string")):
        return Mistake(bad.first, f"the text of {name!r} is not closed; end it with a quote")
    if bad and reason == "Invalid value":
        return Mistake(line, f"the value of {name!r} is not valid; texts need quotes, yes and no are true and false")
    where = bad.first if bad and reason.startswith("Unclosed") else line
    return Mistake(where, f"this is not TOML: {reason}")


def _validate(data: dict[str, Any], lost: Collection[Path_]) -> tuple[Recipe | None, list[tuple[Path_, str]]]:
    """The recipe, or what is wrong with its values: paths and messages."""
    problems: list[tuple[Path_, str]] = []
    try:
        return _strict(data), problems
    except ValidationError as error:
        found = [item for item in error.errors(include_url=False) if item["type"] != "disagreement"]
    hidden = {path[:1] if path[:1] == ("labels",) else path for path in lost}
    shown = [item for item in found if item["loc"] not in hidden]
    problems += [(item["loc"], explain(item)) for item in shown]
    return None, problems + _disagreements(data, {*lost, *(item["loc"][:2] for item in found)})


def _strict(data: Mapping[str, Any]) -> Recipe:
    """JSON's strict mode takes an array for a tuple and 1 for 1.0, but not "1" or true for 1."""
    return Recipe.model_validate_json(json.dumps(data, default=str), strict=True)


def _disagreements(data: dict[str, Any], wrong: Collection[Path_]) -> list[tuple[Path_, str]]:
    """What does not fit together among the values that are right by themselves; pydantic stops before that."""
    rest = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for head, *tail in filter(None, wrong):
        table = rest.get(str(head))
        if tail and isinstance(table, dict) and head != "labels":
            table.pop(tail[0], None)
        else:
            rest.pop(str(head), None)
    try:
        _strict({"name": "x", "labels": {"x": 1}, **rest})
    except ValidationError as error:
        groups = [item["ctx"]["problems"] for item in error.errors() if item["type"] == "disagreement"]
        return [(each.paths[0], each.message) for group in groups for each in group if not set(each.paths) & set(wrong)]
    return []
