"""`radloop train`, `evaluate` and `model`: versions made, measured, listed and brought back."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from radloop.apps.place import open_folder, read_ids, recipes_asked, take_over_labels, take_recipe, with_own
from radloop.apps.terminal import NOTICE, bar, complain, plural, say, table
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.evaluation.groups import Grouping
    from radloop.evaluation.lesions import LesionScore
    from radloop.evaluation.summary import StudyRow
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
    from radloop.apps.evaluate_answers import report_answers
    from radloop.apps.evaluate_boxes import report_boxes
    from radloop.apps.evaluate_groups import check_columns, groupings, mask_figures
    from radloop.apps.evaluate_risk import report_risks
    from radloop.apps.measured import choose
    from radloop.engine.assess import assess
    from radloop.engine.predictor import PredictorCache
    from radloop.evaluation.lesion_report import lesion_counts
    from radloop.evaluation.report import study_row
    from radloop.recipes.recipe import CLASS_KINDS

    chosen = choose(options)
    check_columns(options.by, chosen.cases)
    blind = {case.study: case.blind for case in chosen.cases}
    with bar(len(chosen.cases), "evaluate", "study") as shown:
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
    if chosen.recipe.kind == "detection":
        report_boxes(options, chosen, found.scores, left_out)
        return 0
    if chosen.recipe.kind == "risk":
        report_risks(options, chosen, found.scores, left_out)
        return 0
    if chosen.recipe.kind in CLASS_KINDS:
        report_answers(options, chosen, found.scores, left_out)
        return 0
    rows = [
        study_row(
            score.study,
            score.patient,
            {"dice": score.dice, "surface_dice": score.surface_dice, "hd95": score.hd95},
            blind=blind[score.study] if chosen.blindness_known else None,
            seconds=score.seconds,
            counts=lesion_counts(score.lesions),
        )
        for score in found.scores
    ]
    lesions = {
        name: [score.lesions[name] for score in found.scores if name in score.lesions]
        for name in chosen.recipe.evaluate.lesions
    }
    parts = groupings(options.by, chosen.cases, found.scores, rows, mask_figures)
    _report(options, chosen, rows, lesions, left_out, parts)
    return 0


def _report(
    options: argparse.Namespace,
    chosen: Measured,
    rows: list[StudyRow],
    lesions: dict[str, list[LesionScore]],
    left_out: list[str],
    parts: Sequence[Grouping],
) -> None:
    """Says the figures and writes the files that were asked for."""
    from radloop.apps.evaluate_groups import tell
    from radloop.evaluation.intervals import bootstrap_mean, paired_differences
    from radloop.evaluation.lesion_report import curves_json, lesion_section
    from radloop.evaluation.lesions import lesion_figures
    from radloop.evaluation.report import About, summarise, write_csv, write_html, write_json
    from radloop.evaluation.summary import patient_values

    version, recipe = chosen.version, chosen.version.recipe
    summary: dict[str, Any] = summarise(recipe, version.number, rows)
    by_lesion = lesion_figures(lesions)
    summary["metrics"] |= {name: vars(interval) for name, interval in by_lesion.items()}
    if by_lesion:
        summary["froc"] = curves_json(lesions)
    floor = chosen.baseline()
    gain = paired_differences(patient_values(rows, "dice"), floor)
    say(f"{recipe} version {version.number} on {chosen.split} ({NOTICE})")
    studies, patients = plural(summary["n"], "study", "studies"), plural(summary["patients"], "patient")
    say(f"{studies} of {patients}; means and 95 % intervals")
    table(("metric", "mean", "low", "high"), [(name, *_limits(of)) for name, of in summary["metrics"].items()])
    if gain:
        trivial = {"trivial_dice": bootstrap_mean({p: floor[p] for p in gain}), "difference": bootstrap_mean(gain)}
        say(f"trivial method on the same patients: Dice {trivial['trivial_dice']}")
        say(f"difference: {trivial['difference']}")
        summary["metrics"] |= {name: vars(interval) for name, interval in trivial.items()}
    for name, part in summary.get("readings", {}).items():
        if "dice" in part["metrics"]:
            middle, low, high = _limits(part["metrics"]["dice"])
            say(f"{plural(part['patients'], 'patient')} with {name} labels: Dice {middle} ({low} to {high})")
    tell(parts, summary)
    for note in (*chosen.notes, *left_out):
        say(note)
    if options.json:
        write_json(options.json, summary)
    if options.per_study:
        write_csv(options.per_study, rows)
    if options.report:
        about = About(
            recipe=recipe,
            version=version.number,
            data=chosen.data,
            split=chosen.split,
            command=shlex.join(["radloop", *sys.argv[1:]]),
            notes=[*chosen.notes, *left_out, f"{NOTICE.capitalize()}."],
            baseline=floor,
            groupings=parts,
        )
        write_html(options.report, rows, about, lesion_section(lesions, by_lesion))
    for path in filter(None, (options.json, options.per_study, options.report)):
        say(f"wrote {path}")


def _limits(figure: dict[str, float | None]) -> tuple[str, str, str]:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return tuple("-" if number is None else f"{number:.3f}" for number in (value, low, high))  # type: ignore[return-value]


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
