"""`radloop recipe new` and `radloop recipe check`."""

from __future__ import annotations

import argparse
import re
from itertools import takewhile
from pathlib import Path

from radloop.apps.place import open_folder
from radloop.apps.terminal import WrongUse, complain, say
from radloop.recipes.errors import NotFound


def new(options: argparse.Namespace) -> int:
    """Plans a recipe from the studies and their masks and writes it."""
    from radloop.engine.plan import plan_recipe
    from radloop.recipes.load import parse_recipe
    from radloop.studies.files import write_whole
    from radloop.studies.home import Home

    if options.answer and options.kind == "segmentation":
        msg = "--answer names a column of answers.csv, which a segmentation does not have; its answers are masks"
        raise WrongUse(msg)
    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    text = plan_recipe(
        folder,
        home,
        answer_seconds=options.answer_seconds,
        name=_name_from(options.out),
        kind=options.kind,
        progress=lambda step: say(f"  {step}"),
    )
    recipe = parse_recipe(text, options.out.name)
    write_whole(options.out, lambda path: _write(path, text), ".toml")
    say(f"wrote {options.out}: {recipe.title or recipe.name}, labels {', '.join(recipe.labels)}")
    for line in takewhile(lambda line: line.startswith("#"), text.splitlines()):
        say(f"  {line.lstrip('# ')}")
    say(f"next: radloop train {options.out} --studies {folder.path}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Says every mistake of a recipe with its line; 0 when there is none."""
    from radloop.recipes.load import load_recipe, mistakes

    if not options.file.is_file():
        msg = f"{options.file}: there is no such file"
        raise NotFound(msg)
    found = mistakes(options.file.read_text(encoding="utf-8-sig"))
    for mistake in found:
        complain(f"{options.file}:{mistake.line}: {mistake.message}")
    if found:
        return 1
    recipe = load_recipe(options.file)
    say(f"{options.file}: fine ({recipe.name}, {recipe.kind}, labels {', '.join(recipe.labels)}, hash {recipe.hash()})")
    return 0


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _name_from(out: Path) -> str | None:
    """A recipe's name from the name of its file: `Knee MR.toml` gives `knee_mr`; None where nothing is left of it."""
    name = re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_").lstrip("0123456789_")
    return name[:64] or None
