"""Where each key of a TOML text stands: tomllib gives the values without their lines."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Strings and comments first, so that brackets, `=` and line ends inside them are not taken for syntax.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|' + r"'''.*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'|#[^\n]*|[\[\]{}\n]", re.DOTALL
)
_ASSIGNED = re.compile(r"""\s*((?:"(?:\\.|[^"\\])*"|'[^']*'|[^="'])+?)\s*=""")
_HEADER = re.compile(r"\s*\[\[?(.*?)\]\]?\s*(?:#.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """One `key = value` or `[table]` of a TOML text.

    Attributes:
        first: its first line, from 1.
        last: its last line; an array may span several.
        path: the full path of the key or table; that of its table alone where the key cannot be read.
        table: whether it is a `[table]`.
    """

    first: int
    last: int
    path: tuple[str, ...]
    table: bool


def statements(text: str) -> list[Statement]:
    """The statements of a TOML text in order, as far as they can be told in a text that may hold mistakes."""
    found: list[Statement] = []
    prefix: tuple[str, ...] = ()
    for first, last, piece in _pieces(text):
        if not piece.strip() or piece.lstrip().startswith("#"):
            continue
        header = _HEADER.match(piece)
        if header:
            prefix = _path(header[1])
            found.append(Statement(first, last, prefix, table=True))
            continue
        assigned = _ASSIGNED.match(piece)
        key = _path(assigned[1]) if assigned else ()
        found.append(Statement(first, last, prefix + key, table=False))
    return found


def line_of(path: tuple[str | int, ...], known: list[Statement]) -> int:
    """The line of the longest part of `path` that is written in the text; 1 where nothing of it is."""
    lines: dict[tuple[str | int, ...], int] = {}
    for statement in known:
        lines.setdefault(statement.path, statement.first)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _pieces(text: str) -> list[tuple[int, int, str]]:
    """First line, last line and text of what lies between line ends that are not inside brackets or strings."""
    pieces, depth, start, first, line = [], 0, 0, 1, 1
    for token in _TOKEN.finditer(text):
        mark = token[0]
        depth += (mark in ("[", "{")) - (mark in ("]", "}"))
        line += mark.count("\n")
        if mark == "\n" and depth <= 0:
            pieces.append((first, line - 1, text[start : token.start()]))
            depth, start, first = 0, token.end(), line
    pieces.append((first, line, text[start:]))
    return pieces


def _path(key: str) -> tuple[str, ...]:
    """The parts of a key as it is written, dotted or quoted; empty where it is not a key."""
    try:
        inside = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(inside, dict) and inside:
        part, inside = next(iter(inside.items()))
        path.append(part)
    return tuple(path)
