"""What the commands write: lines on stdout, complaints on stderr, tables and progress bars."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

NOTICE = "not for clinical use"
LOG_SECONDS = 30.0
"""Between two lines of progress where no terminal shows a bar."""
LOG_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} [{remaining} to go]{postfix}"


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
    """A progress bar on stderr; where that is no terminal, a line every half minute, so that a log stays readable."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True)
    # the first line comes late too: what is done soon needs none
    rare = {"mininterval": LOG_SECONDS, "maxinterval": LOG_SECONDS, "delay": LOG_SECONDS, "miniters": 1}
    return tqdm(total=total, desc=what, unit=unit, leave=False, bar_format=LOG_LINE, file=_Lines(), **rare)


def rename(shown: tqdm, what: str) -> None:
    """Gives a bar another name, for another phase of the work, and shows it if the bar has been shown before."""
    shown.set_description_str(what, refresh=shown.last_print_t > shown.start_t or not shown.delay)


class _Lines:
    """A file for tqdm that writes each state of a bar as a line of its own."""

    def write(self, text: str) -> None:
        """Writes what is there to be read, without what moves the cursor."""
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Sends it on its way."""
        sys.stderr.flush()


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 label`, `3 labels`; `many` where an s does not do."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


class WrongUse(Exception):
    """The command line does not make sense; exit code 2."""
