"""`radloop forget`: a patient's images and labels go, rows and versions lose the name."""

from __future__ import annotations

import argparse
import getpass
import os
from typing import TYPE_CHECKING

from radloop.apps.place import open_folder
from radloop.apps.terminal import complain, plural, say, table
from radloop.apps.training import no_training
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.registry.lineage import Use
    from radloop.studies.forget import Found


def forget(options: argparse.Namespace) -> int:
    """Removes what there is of a patient, with --yes; without, says what that is, and ends with 1.

    Raises:
        NotFound: there is no such patient.
        Conflict: a training runs.
        NoSpace: the studies cannot be written; nothing was removed.
    """
    from radloop.registry.forget import rename_in_manifests, rename_in_reasons
    from radloop.registry.lineage import uses
    from radloop.registry.registry import Registry
    from radloop.studies.forget import bury, drop_answers, find, leave_no_copy, remove_files, rename_rows
    from radloop.studies.ledger import Ledger

    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    ledger, registry = Ledger(home), Registry(home)
    found = find(folder, ledger, options.patient)
    used = uses(registry, found.rows)
    if not options.yes:
        _say_found(found, used)
        complain(f"nothing was removed; to remove it for good say: radloop forget {found.patient} ... --yes")
        return 1
    recipes = {row.recipe for row in ledger.history()} | set(registry.recipes())
    with no_training(home, recipes, "forget again"):
        found = find(folder, ledger, options.patient)
        learned = [f"{use.version.recipe}/{use.version.number}" for use in used if use.learned]
        names = bury(ledger, found, learned, _user())
        remove_files(folder, ledger, found)
        people = {one: names[one] for one in found.people}
        rename_in_manifests(home, people)
        rename_in_reasons(registry, people)
        rename_rows(ledger, found, names)
        drop_answers(folder, found)
        leave_no_copy(home)
    _say_done(found, names[found.patient], used)
    return 0


def _user() -> str:
    """Who asks: the login name, or the number of a user who has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return str(os.getuid())


def _say_found(found: Found, used: list[Use]) -> None:
    say(f"patient {found.patient}: {plural(len(found.studies), 'study', 'studies')}, {_counts(found)}")
    for path in (*found.images, *found.others):
        say(f"  {path}")
    say("  and every cache: what is made from images is made again when needed")
    _say_elsewhere(found)
    _say_versions(used)


def _counts(found: Found) -> str:
    return f"{plural(len(found.rows), 'ledger row')}, {plural(len(found.images) + len(found.others), 'file')}"


def _say_done(found: Found, name: str, used: list[Use]) -> None:
    if found.known:
        say(f"{plural(len(found.studies), 'study', 'studies')} removed ({_counts(found)})")
    else:
        say("this patient was forgotten before; nothing was left")
    _say_elsewhere(found)
    say(f"the patient is {name} in the ledger and in versions now")
    _say_versions(used)
    if found.former:
        who = ", ".join(sorted(found.former))
        say(f"labels of these studies were also given as of {who}; if that is the same person, forget that id too")
    say("logs of the server, earlier backups and exports may still name the patient; remove those yourself")


def _say_elsewhere(found: Found) -> None:
    for path in found.elsewhere:
        say(f"  {path} stays: only links to it are removed; remove it yourself, if it is of this patient")


def _say_versions(used: list[Use]) -> None:
    if not used:
        say("no version learned from this patient or was judged on them")
        return
    rows = [
        (use.version.recipe, use.version.number, use.version.state, "yes" if use.learned else "no", len(use.judged))
        for use in used
    ]
    table(("recipe", "version", "state", "learned from", "judged on"), rows)
    if any(use.learned for use in used):
        say("weights that learned from the patient stay; a new training starts without them, from other weights")
