"""`radloop recipe new` and `radloop recipe check`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.apps.place import open_folder
from radloop.apps.terminal import WrongUse, complain, say
from radloop.recipes.errors import BadRecipe, Conflict, NotFound, RadloopError

if TYPE_CHECKING:
    from radloop.recipes.recipe import Recipe


def new(options: argparse.Namespace) -> int:
    """Plans a recipe from the studies and their masks or answers and writes it."""
    from radloop.engine.plan import plan_recipe
    from radloop.recipes.load import parse_recipe
    from radloop.studies.files import write_whole, writing
    from radloop.studies.home import Home

    if options.answer and options.kind == "segmentation":
        msg = "--answer names a column of answers.csv, which a segmentation does not have; its answers are masks"
        raise WrongUse(msg)
    folder = open_folder(options.studies)
    if options.out.exists():
        msg = f"{options.out} is there already and may hold changes by hand; give another name or move it away"
        raise Conflict(msg)
    with writing(str(options.out)):
        # before images are measured for minutes
        options.out.parent.mkdir(parents=True, exist_ok=True)
    home = Home.find(folder.path, options.home)
    text = plan_recipe(
        folder,
        home,
        answer_seconds=options.answer_seconds,
        name=_name_from(options.out),
        kind=options.kind,
        answer=options.answer,
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
    """Says every mistake of a recipe with its line, and what of it cannot be built; 0 when there is none."""
    from radloop.recipes.load import load_recipe
    from radloop.recipes.toml_lines import line_of, statements

    if not options.file.is_file():
        msg = f"{options.file}: there is no such file"
        raise NotFound(msg)
    try:
        recipe = load_recipe(options.file)
    except BadRecipe as error:
        for line in str(error).splitlines():
            complain(line)
        return 1
    known = statements(options.file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    found = sorted((line_of(("network", key), known), message) for key, message in _not_built(recipe))
    for number, message in found:
        complain(f"{options.file.name}:{number}: {message}")
    if found:
        return 1
    say(f"{options.file}: fine ({recipe.name}, {recipe.kind}, labels {', '.join(recipe.labels)}, hash {recipe.hash()})")
    return 0


def _not_built(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What stands between a recipe and its network: the key of `[network]`, and what is wrong with it."""
    from radloop.engine.weights import load_weights
    from radloop.networks.registry import build, check_name, names
    from radloop.networks.topology import topology

    weights, right = Path(recipe.network.weights), True
    try:
        check_name(recipe)
    except BadRecipe as error:
        yield "name", str(error)
        if not names(recipe.kind):
            return
        right = False
    name = recipe.network.name if right else names(recipe.kind)[0]
    mended = recipe.model_copy(update={"network": recipe.network.model_copy(update={"name": name})})
    try:
        total, patch = topology(mended).total_stride, list(recipe.fit.patch)
        if any(size < step for size, step in zip(patch, total, strict=True)):
            text = (
                f"network.strides shrink by {list(total)}, beyond fit.patch = {patch}; drop a row or enlarge fit.patch"
            )
            yield "strides", text
            return
        network = build(mended)
    except BadRecipe as error:
        yield "strides", str(error)
        return
    except (AssertionError, ValueError, RuntimeError) as error:  # MONAI's and torch's, of sizes that do not go together
        yield "strides", f"network.strides and features cannot be built: {error}"
        return
    if recipe.network.weights and (right or not weights.is_file()):
        try:
            load_weights(network, weights)
        except RadloopError as error:
            yield "weights", f"network.weights: {error}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _name_from(out: Path) -> str | None:
    """A recipe's name from the name of its file: `Knee MR.toml` gives `knee_mr`; None where nothing is left of it."""
    name = re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_").lstrip("0123456789_")
    return name[:64] or None
