"""`radloop train`, `evaluate` and `model`: versions made, measured, listed and brought back."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING

from radloop.apps.place import open_folder, read_ids, recipes_asked, take_over_labels, take_recipe, with_own
from radloop.apps.terminal import NOTICE, bar, complain, say, table
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.apps.evaluate_told import Told
    from radloop.registry.version import Version


def train(options: argparse.Namespace) -> int:
    """Trains a version and says what the gate decided; 0 also when it does not serve."""
    from radloop.apps.training import say_outcome, train_with_bar
    from radloop.studies.ledger import Ledger

    home = Home.find(open_folder(options.studies).path, options.home)
    recipe = take_recipe(options.recipe, home)
    folder = open_folder(options.studies, len(recipe.channels))
    ledger = Ledger(home)
    take_over_labels(folder, ledger, with_own(recipe, recipes_asked(home, ledger)))
    outcome = train_with_bar(
        folder,
        home,
        recipe,
        epochs=options.epochs,
        minutes=options.minutes,
        only=read_ids(options.images, folder) if options.images else None,
        fold=options.fold,
        seed=options.seed,
    )
    if options.images:
        say(f"only      the images in {options.images}, as far as they are on the training side")
    say_outcome(outcome)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Measures a version on labelled studies it never learned from; 1 when none could be measured."""
    from radloop.apps.evaluate_answers import answer_told
    from radloop.apps.evaluate_boxes import box_told
    from radloop.apps.evaluate_groups import check_columns
    from radloop.apps.evaluate_masks import mask_told
    from radloop.apps.evaluate_risk import risk_told
    from radloop.apps.evaluate_told import tell_all
    from radloop.apps.measured import choose
    from radloop.engine.assess import assess
    from radloop.engine.predictor import PredictorCache

    chosen = choose(options)
    check_columns(options.by, chosen.cases)
    with bar(len(chosen.cases), "evaluate", "studies") as shown:
        found = assess(
            PredictorCache().get(chosen.version),
            chosen.cases,
            lambda share: shown.update(round(share * len(chosen.cases)) - shown.n),
            lesions=True,
        )
    left_out = [f"{study} was left out: {reason}" for study, reason in found.skipped]
    for line in left_out:
        complain(f"warning: {line}")
    if not found.scores:
        complain("no study could be measured")
        return 1
    of_kind: dict[str, Callable[..., Told]] = {"segmentation": mask_told, "detection": box_told, "risk": risk_told}
    told = of_kind.get(chosen.recipe.kind, answer_told)(options.by, chosen, found.scores)
    tell_all(options, chosen, told, left_out)
    return 0


def list_versions(options: argparse.Namespace) -> int:
    """Writes every version with its figure and the gate's decision; the one that serves is marked with a star."""
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry

    home = Home.find(open_folder(options.studies).path, options.home)
    registry = Registry(home)
    names = [load_recipe(options.recipe, home.path).name] if options.recipe else registry.recipes()
    rows = [_row(version) for name in names for version in registry.versions(name)]
    if rows:
        table(("", "recipe", "version", "state", "created", "labels", "held out", "why"), rows)
        say(NOTICE)
    else:
        say(f"no versions{f' of {names[0]}' if options.recipe else ''} in {home.path}")
    return 0


def _row(version: Version) -> tuple[object, ...]:
    manifest = version.manifest
    scores = list(manifest.get("held_out", {}).values())
    figure = f"{version.figure} {fmean(scores):.3f} (n = {len(scores)})" if scores else "-"
    why = version.reason or (manifest.get("gate") or {}).get("reason", "")
    star = "*" if version.state in ("champion", "provisional") else ""
    labels = len(manifest.get("labels", ()))
    return star, version.recipe, version.number, version.state, version.created, labels, figure, why


def rollback(options: argparse.Namespace) -> int:
    """Lets an earlier version serve; a running server follows within a second."""
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry

    home = Home.find(open_folder(options.studies).path, options.home)
    version = Registry(home).rollback(load_recipe(options.recipe, home.path).name, options.number)
    say(f"{version.recipe} version {version.number} serves now ({version.state})")
    return 0
