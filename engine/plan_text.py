"""A recipe as a TOML that a person reads: every value under a comment that says why it is so."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH = 110
_BARE_KEY = re.compile(r"^[A-Za-z0-9_-]+$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Entry:
    """A key, its value (text, number, truth or a sequence of these) and why it has that value."""

    key: str
    value: object
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A `[name]` with its entries; an empty name stands for the keys at the top."""

    name: str
    entries: Sequence[Entry]
    why: str = ""


def toml_text(heading: Sequence[str], tables: Sequence[Table]) -> str:
    """The TOML text of `tables` under comments made of `heading`, one paragraph each."""
    lines = [line for paragraph in heading for line in _comment(paragraph)]
    for table in tables:
        lines += ["", *_comment(table.why)]
        lines += [f"[{table.name}]"] if table.name else []
        for entry in table.entries:
            lines += [*_comment(entry.why), f"{_key(entry.key)} = {toml_value(entry.value)}"]
    return "\n".join(lines).lstrip("\n") + "\n"


def toml_value(value: object) -> str:
    """A value as TOML writes it; texts are quoted as JSON does, any script left as it is.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    msg = f"{value!r} cannot be written as TOML; give a text, number, truth or a sequence of these"
    raise TypeError(msg)


def _key(key: str) -> str:
    return key if _BARE_KEY.match(key) else toml_value(key)


def _comment(text: str) -> list[str]:
    """`text` as comment lines; what TOML forbids in a comment becomes a space."""
    return [f"# {line}" for line in textwrap.wrap(_CONTROL.sub(" ", text), _WIDTH, break_long_words=False)]
