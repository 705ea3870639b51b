"""`radloop demo`: sample studies, a first model and a server; with `--check` once around the loop, then done."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.apps.place import take_over_labels
from radloop.apps.serve import Terminated, say_what_to_open, server, terminable
from radloop.apps.server_process import Address
from radloop.apps.terminal import NOTICE, plural, say
from radloop.apps.training import say_outcome, train_with_bar
from radloop.recipes.errors import Conflict, NoSpace
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.registry.version import Version

RECIPE = "sample_lesions"
FOLDER = "radloop-demo"
SALT = "demo"
HOST = "127.0.0.1"


def run(options: argparse.Namespace) -> int:
    """The command; returns when the server is stopped, or after the check."""
    with terminable():
        try:
            return _check(options) if options.check else _demo(options)
        except Terminated:
            return 0


def _demo(options: argparse.Namespace) -> int:
    folder, home = prepare(_folder(options.studies), options)
    options.recipes = (RECIPE,)
    with server(folder, home, Address(HOST, options.port), options) as running:
        say_what_to_open(folder, running)
        running.wait()
    return 0


def _check(options: argparse.Namespace) -> int:
    from radloop.apps.demo_check import go_round

    if options.studies:
        return go_round(Path(options.studies).expanduser(), options)
    with tempfile.TemporaryDirectory(prefix="radloop-demo-") as folder:
        return go_round(Path(folder) / FOLDER, options)


def prepare(path: Path, options: argparse.Namespace) -> tuple[StudiesFolder, Home]:
    """The demo's studies with their labels in the ledger and a version that serves; what is there already is kept."""
    # looked at before minutes of work, not after; the server binds it later
    Address(HOST, options.port).check_free()
    folder = make_studies(path)
    home = Home.find(folder.path, options.home)
    say(f"{plural(len(folder.studies()), 'sample study', 'sample studies')} in {folder.path}: synthetic, {NOTICE}")
    first_model(folder, home)
    return folder, home


def make_studies(path: Path) -> StudiesFolder:
    """The folder of sample studies, made where it is not there yet.

    Raises:
        Conflict: the folder has other studies in it.
        NoSpace: it cannot be written.
    """
    from radloop.sample_studies.make import make_sample_studies
    from radloop.sample_studies.plan import plan_studies
    from radloop.studies.files import writing

    with writing(str(path)):
        path.mkdir(parents=True, exist_ok=True)
        ours = {study.id for study in plan_studies()}
        there = set(StudiesFolder(path).studies())
        if there - ours:
            msg = (
                f"{path} has studies of its own, such as {min(there - ours)!r}; give an empty folder with --studies DIR"
            )
            raise Conflict(msg)
        # the table is written last: without it an earlier run was interrupted
        if there != ours or not (path / "answers.csv").is_file():
            make_sample_studies(path)
    return StudiesFolder(path)


def first_model(folder: StudiesFolder, home: Home) -> Version | None:
    """The version that serves; trains a first one where there is none. None where the gate refuses it."""
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry
    from radloop.studies.ledger import Ledger
    from radloop.studies.split import Split

    recipe = load_recipe(RECIPE, home.path)
    ledger = Ledger(home)
    # fourteen patients are few: this salt puts labelled ones on every side, whoever is drawn by others may have none
    Split(ledger, salt=SALT).assign(study.patient for study in folder.studies().values())
    take_over_labels(folder, ledger, [recipe])
    version = Registry(home).champion(recipe.name)
    if version is None:
        say("training a first model, about a minute and a half on two cores")
        say_outcome(train_with_bar(folder, home, recipe))
        version = Registry(home).champion(recipe.name)
    else:
        say(f"{recipe.name} version {version.number} serves already")
    return version


def _folder(studies: str | None) -> Path:
    if studies:
        return Path(studies).expanduser().absolute()
    here = Path.cwd() / FOLDER
    try:  # permission bits do not tell: root has them all, also where nothing can be written
        here.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=here).close()
    except OSError as error:
        msg = f"{here} cannot be written ({error.strerror}); say where the sample studies go with --studies DIR"
        raise NoSpace(msg) from error
    return here
