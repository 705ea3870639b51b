"""`radloop import`, `export`, `status` and `labels`: what is there, what comes in and goes out."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.place import open_folder, recipes_asked, recipes_known, take_over_labels, take_recipe, with_own
from radloop.apps.terminal import NOTICE, WrongUse, bar, complain, plural, say, table
from radloop.recipes.errors import Conflict, NotFound
from radloop.studies.home import Home, is_url

if TYPE_CHECKING:
    from tqdm import tqdm

    from radloop.recipes.recipe import Recipe
    from radloop.registry.registry import Registry
    from radloop.registry.version import Version
    from radloop.studies.folder import StudiesFolder
    from radloop.studies.ledger import LabelRow, Ledger


SHOWN = 20
"""Exclusions said on the terminal; all of them are in the listing."""


def import_(options: argparse.Namespace) -> int:
    """Takes studies over into the studies folder; says what was left out and why."""
    from radloop.studies.transfer import import_studies

    if is_url(options.studies):
        msg = f"--studies {options.studies}: DICOMweb comes later; give a folder"
        raise WrongUse(msg)
    into = Path(options.studies).expanduser()
    with bar(None, "import", "studies") as progress:
        report = import_studies(options.source.expanduser(), into, progress=_follow(progress))
    listing = Home.find(into, options.home).logs / "import.csv"
    report.write_csv(listing)
    for what, reason in report.excluded[:SHOWN]:
        complain(f"left out: {what}: {reason}")
    if len(report.excluded) > SHOWN:
        complain(f"and {len(report.excluded) - SHOWN} more, see {listing}")
    say(f"{plural(len(report.imported), 'study', 'studies')} in {into}, {plural(len(report.labels), 'mask')}")
    if report.names:
        say(f"labels: {', '.join(f'{number} {name}' for name, number in report.names.items())}")
    say(f"every file is accounted for in {listing}")
    say(f"next: radloop recipe new --studies {into} --out RECIPE.toml")
    return 0 if report.imported else 1


def export(options: argparse.Namespace) -> int:
    """Writes the labelled studies of a recipe for another tool."""
    from radloop.studies.ledger import Ledger
    from radloop.studies.transfer import export_studies

    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    ledger = Ledger(home)
    recipe = take_recipe(options.recipe, home) if options.recipe else _only_recipe(folder, ledger)
    folder = open_folder(options.studies, len(recipe.channels))
    take_over_labels(folder, ledger, with_own(recipe, recipes_asked(home, ledger)))
    with bar(None, "export", "studies") as progress:
        report = export_studies(folder, ledger, recipe, options.out, options.format, progress=_follow(progress))
    for study, reason in report.left_out:
        complain(f"left out: {study}: {reason}")
    sides = Counter(report.exported.values())
    split = ", ".join(f"{count} {side}" for side, count in sorted(sides.items()))
    say(f"{plural(len(report.exported), 'study', 'studies')} ({split}) in {report.out} ({NOTICE})")
    return 0 if report.exported else 1


def _only_recipe(folder: StudiesFolder, ledger: Ledger) -> Recipe:
    """The recipe that has labels, masks in the folder taken over by those asked for."""
    from radloop.recipes.load import load_recipe

    asked = recipes_asked(ledger.home, ledger)
    if asked:
        take_over_labels(folder, ledger, asked)
    labelled = sorted(name for name in {row.recipe for row in ledger.history()} if ledger.current(name))
    if len(labelled) != 1:
        what = f"labels of {', '.join(labelled)}" if labelled else "no labels"
        msg = f"there are {what}; say whose to export with --recipe RECIPE"
        raise WrongUse(msg)
    return load_recipe(labelled[0], ledger.home.path)


def _follow(progress: tqdm) -> Callable[[int, int, str], None]:
    def follow(done: int, total: int, what: str) -> None:
        progress.total = total or None
        progress.set_postfix_str(what, refresh=False)
        progress.update(done - progress.n)

    return follow


def status(options: argparse.Namespace) -> int:
    """Says what is in the studies folder and its home; changes nothing."""
    from radloop.evaluation.report import write_json
    from radloop.registry.registry import Registry
    from radloop.studies.ledger import Ledger

    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    facts = _facts(folder, home, Ledger(home), Registry(home))
    if options.json:
        write_json(options.json, facts)
    _say_facts(facts)
    return 0


def _facts(folder: StudiesFolder, home: Home, ledger: Ledger, registry: Registry) -> dict[str, Any]:
    from radloop.studies.contents import damaged, unnamed
    from radloop.studies.ledger import LabelRow
    from radloop.studies.split import Split
    from radloop.studies.view import unknown_masks

    studies = folder.studies()
    patients = {study.patient for study in studies.values()}
    sides = Counter(side for patient, side in Split(ledger).stored().items() if patient in patients)
    recipes = {recipe.name: recipe for recipe in recipes_known(home)}
    used = {row.recipe for row in ledger.history()} | set(registry.recipes())
    return {
        "studies": len(studies),
        "patients": len(patients),
        "sides": {**dict.fromkeys(("train", "validation", "test"), 0), **sides},
        "home": str(home.path),
        "unknown_masks": len(unknown_masks(folder, ledger)),
        "damaged_labels": [row.id for row in damaged(ledger) if isinstance(row, LabelRow)],
        "unnamed_contents": len(unnamed(ledger)),
        "recipes": {name: _recipe_facts(name, recipes.get(name), ledger, registry) for name in sorted(used)},
        "notice": NOTICE,
    }


def _recipe_facts(name: str, recipe: Recipe | None, ledger: Ledger, registry: Registry) -> dict[str, Any]:
    versions = registry.versions(name)
    serving = next((version for version in versions if version.state in ("champion", "provisional")), None)
    training = ledger.last_training(name)
    return {
        "title": recipe.title if recipe else "",
        "labelled": len(ledger.current(name)),
        "held": _count_held(ledger.history(recipe=name)),
        "new_labels": ledger.new_labels_since_last_training(name),
        "versions": len(versions),
        "serves": _version_facts(serving) if serving else None,
        "running": _running(serving, ledger) if serving else {},
        "last_version": _version_facts(versions[-1]) if versions else None,
        "last_training": {"started": training.started, "state": training.state, "note": training.note}
        if training
        else None,
    }


def _count_held(rows: list[LabelRow]) -> int:
    """Labels of a recipe that wait for a second look."""
    from radloop.studies.rows import not_waiting

    held = [row for row in rows if row.state == "held"]
    return sum(not not_waiting(row, [one for one in rows if one.study == row.study]) for row in held)


def _version_facts(version: Version) -> dict[str, Any]:
    return {"version": version.number, "state": version.state, "created": version.created, "reason": version.reason}


def _running(serving: Version, ledger: Ledger) -> dict[str, Any]:
    """What the version's answers were worth on held-out labels, as the server found: blind and anchored apart."""
    from dataclasses import asdict

    from radloop.strategies.judged import accuracy

    found = accuracy(serving, ledger)
    said = {name: {"told": of.told(name, serving.figure)} | asdict(of) for name, of in found.items()}
    for name, of in found.items():
        if of.drift:
            said[name]["alarm"] = of.alarm(name)
    return said


def _say_facts(facts: dict[str, Any]) -> None:
    sides = ", ".join(f"{count} {side}" for side, count in facts["sides"].items() if count) or "not split yet"
    say(f"{plural(facts['studies'], 'study', 'studies')} of {plural(facts['patients'], 'patient')} ({sides})")
    say(f"state is in {facts['home']}")
    for name, recipe in facts["recipes"].items():
        serves, training = recipe["serves"], recipe["last_training"]
        say(f"{name}{': ' + recipe['title'] if recipe['title'] else ''}")
        held = f", {recipe['held']} held for a second look" if recipe["held"] else ""
        say(f"  labels    {plural(recipe['labelled'], 'study', 'studies')}, {recipe['new_labels']} new{held}")
        say("  serves    " + (f"version {serves['version']} ({serves['state']})" if serves else "nothing yet"))
        for of in recipe["running"].values():
            say(f"  accuracy  {of['told']}")
            if "alarm" in of:
                say(f"  DRIFT     {of['alarm']}")
        if training:
            say(f"  training  {training['state']}, begun {training['started']} {training['note']}".rstrip())
    if bad := facts["damaged_labels"]:
        rows = ", ".join(map(str, bad[:SHOWN])) + (", ..." if len(bad) > SHOWN else "")
        say(f"{plural(len(bad), 'label')} with damaged content (row {rows}); the next start mends what has a copy")
    if lost := facts["unnamed_contents"]:
        say(f"{plural(lost, 'content')} of labels that no row names; the next `radloop serve` says what to do")
    masks = facts["unknown_masks"]
    if masks:
        are = "is no label yet; it becomes one" if masks == 1 else "are no labels yet; they become some"
        say(f"{plural(masks, 'mask')} in labels/final {are} with `radloop train` or `radloop serve` for a recipe")
    if not facts["recipes"]:
        say("no versions yet" if masks else "no labels and no versions yet")
    say(NOTICE)


def list_labels(options: argparse.Namespace) -> int:
    """Writes the ledger's rows, oldest first."""
    folder, ledger = _opened(options)
    rows = ledger.history(author=options.author, since=options.since)
    _say_rows(rows)
    say(f"{plural(len(rows), 'row')} in the ledger of {folder.path}")
    return 0


def confirm(options: argparse.Namespace) -> int:
    """Makes held labels final and `labels/final` follow; 1 when one could not be, the others are all the same."""
    folder, ledger = _opened(options)
    rows, failed = [], 0
    for number in dict.fromkeys(options.ids):
        try:
            rows.append(ledger.confirm(number))
        except (NotFound, Conflict) as error:
            failed += 1
            complain(str(error))
    if rows:
        take_over_labels(folder, ledger, recipes_asked(ledger.home, ledger))
    _say_rows(rows)
    say(f"confirmed {plural(len(rows), 'label')}; trainings use what was confirmed")
    return 1 if failed else 0


def _opened(options: argparse.Namespace) -> tuple[StudiesFolder, Ledger]:
    from radloop.studies.ledger import Ledger

    folder = open_folder(options.studies)
    return folder, Ledger(Home.find(folder.path, options.home))


def _say_rows(rows: list[LabelRow]) -> None:
    if rows:
        header = ("id", "time", "study", "recipe", "author", "state", "origin", "seen", "names", "note")
        table(header, [_cells(row) for row in rows])


def _cells(row: LabelRow) -> tuple[object, ...]:
    seen, names = row.shown_version or "-", ",".join(row.names)
    return row.id, row.time, row.study, row.recipe, row.author, row.state, row.origin, seen, names, row.note
