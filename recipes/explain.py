"""What pydantic finds wrong with a recipe's values, in the words of the recipe's TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from radloop.recipes.errors import closest
from radloop.recipes.recipe import Answer, Fit, Gate, Network, Part, Preprocess, Recipe

TABLES: dict[str, type[Part]] = {
    "answer": Answer,
    "preprocess": Preprocess,
    "network": Network,
    "fit": Fit,
    "gate": Gate,
}

_EXAMPLES = {"name": 'name = "lesions"', "labels": "labels = { lesion = 1 }", "spacing": "spacing = [1.0, 1.0, 1.0]"}
_MUST_BE = {
    "string_type": "a text in straight quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list in [ ]",
    "dict_type": "a table, e.g. { lesion = 1 }",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def explain(item: Mapping[str, Any]) -> str:
    """One line that says what is wrong and what is allowed, for one of `ValidationError.errors()`."""
    kind, path, value = item["type"], item["loc"], item["input"]
    name = ".".join(f"[{part}]" if isinstance(part, int) else part for part in path).replace(".[", "[")
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing" and isinstance(path[-1], int):
        return f"{name.rpartition('[')[0]} = {_shown(value)} has too few numbers"
    if kind == "missing":
        return f"{name!r} is missing; add e.g. {_EXAMPLES.get(str(path[-1]), name + ' = ...')}"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{name} = {_shown(value)} must begin with a-z and go on with at most 63 of a-z, 0-9 and _"
    must = _MUST_BE.get(kind) or re.sub(r"^Input should be |^.* should be (?=at )", "", item["msg"])
    hint = closest(value, re.findall(r"'([^']+)'", must)) if kind == "literal_error" and isinstance(value, str) else ""
    if path[0] == "labels" and len(path) > 1 and path[-1] in Recipe.model_fields:
        hint = f"; if it is not a label, write {path[-1]!r} above [labels]"
    return f"{name} = {_shown(value)} must be {must}{hint}"


def _unknown_key(path: tuple[str | int, ...]) -> str:
    key, table = str(path[-1]), str(path[0]) if len(path) > 1 else ""
    allowed = TABLES.get(table, Recipe).model_fields
    where = f" in [{table}]" if table else ""
    hint = closest(key, allowed)
    if not hint and table and key in Recipe.model_fields:
        hint = "; write it at the top, above the first [table]"
    if not hint:
        homes = [name for name, model in TABLES.items() if key in model.model_fields]
        hint = f"; it belongs in [{homes[0]}]" if homes else f"; allowed are {', '.join(allowed)}"
    return f"unknown key {key!r}{where}{hint}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
