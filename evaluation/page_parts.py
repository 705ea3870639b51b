"""What pages for readers are made of: the frame, its head, tables, pictures inside the page."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Protocol

from radloop.evaluation.groups import Grouping, as_html
from radloop.recipes.errors import NoSpace


@dataclass(frozen=True)
class About:
    """What a report needs to be understood, and made again.

    Attributes:
        recipe: name of the recipe.
        version: the version that was measured.
        data: which studies, in words; never a path of the machine it ran on that should not be shown.
        split: which side or fold they are of, in words.
        command: the command that makes the report again.
        title: of the page; empty for one made of recipe and version.
        notes: further sentences, such as studies left out and why.
        baseline: patient -> score of the trivial method, compared with `compared`.
        baseline_name: what the trivial method is.
        compared: the metric that the baseline is in.
        groupings: figures of parts of the studies.
    """

    recipe: str
    version: int | str
    data: str
    split: str
    command: str
    title: str = ""
    notes: Sequence[str] = ()
    baseline: Mapping[str, float] = field(default_factory=dict)
    baseline_name: str = "trivial baseline"
    compared: str = "dice"
    groupings: Sequence[Grouping] = ()


class _Row(Protocol):
    """A study of a report."""

    @property
    def patient(self) -> str: ...


def page(about: About, rows: Sequence[_Row], *, first: str, figures: str, how: str, sections: str, studies: str) -> str:
    """The whole page, without anything outside it.

    Args:
        about: its head and notes.
        rows: the studies.
        first: what stands before all figures, as markup.
        figures: the table of metrics.
        how: how they were computed, as markup.
        sections: what comes after them.
        studies: the table of studies.
    """
    template = Template(resources.files("radloop.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(about.title or f"{about.recipe}, version {about.version}"),
        first=first,
        facts=_facts(rows, about),
        figures=figures,
        how=how,
        sections="\n".join([sections, as_html(about.groupings)]),
        notes=section("Notes", "".join(f"<p>{escape(note)}</p>" for note in about.notes)),
        count=len(rows),
        studies=studies,
    )


def section(title: str, content: str) -> str:
    """A part of the page, or nothing without content."""
    return f"<h2>{title}</h2>{content}" if content else ""


def header(*names: str) -> str:
    """The first row of a table; the names are markup."""
    return f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"


def number(value: object) -> str:
    """A cell with a number."""
    return f'<td class="number">{escape(str(value))}</td>'


def image(png: bytes, alt: str) -> str:
    """A picture inside the page, with what it shows in words."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def write_whole(path: Path, text: str) -> None:
    """Write a file complete or not at all, with the folders it needs.

    Raises:
        NoSpace: it cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}; choose a place that can be written"
        raise NoSpace(msg) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after the rename, or was never there
            temporary.unlink()


def _facts(rows: Sequence[_Row], about: About) -> str:
    facts = {
        "Recipe": about.recipe,
        "Version": str(about.version),
        "Studies": f"{len(rows)} studies of {len({row.patient for row in rows})} patients",
        "Data": about.data,
        "Split": about.split,
        "Made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by radloop {metadata.version('radloop')}",
    }
    lines = [f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()]
    lines.append(f"<tr><th>Command</th><td><code>{escape(about.command)}</code></td></tr>")
    return f"<table>{''.join(lines)}</table>"
