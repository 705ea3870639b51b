"""What the commands write: lines on stdout, complaints on stderr, tables and progress bars."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

NOTICE = "not for clinical use"


def say(text: str = "") -> None:
    """Writes one line to stdout, at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Writes `radloop: <text>` to stderr: one line, and below it what else belongs to it, indented."""
    sys.stdout.flush()
    first, *more = text.strip().splitlines() or ["failed"]
    sys.stderr.write("\n".join([f"radloop: {first}", *(f"  {line}" for line in more)]) + "\n")
    sys.stderr.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes rows in columns as wide as their widest cell."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def bar(total: int | None, what: str, unit: str = "it") -> tqdm:
    """A progress bar on stderr; silent where stderr is not a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=not sys.stderr.isatty(), leave=False, dynamic_ncols=True)


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 label`, `3 labels`; `many` where an s does not do."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


class WrongUse(Exception):
    """The command line does not make sense; exit code 2."""
