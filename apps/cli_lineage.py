"""`radloop model show`, `labels show` and `labels revoke`: from a version to its labels, and back."""

from __future__ import annotations

import argparse
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from radloop.apps.place import open_folder, recipes_asked, take_over_labels
from radloop.apps.terminal import NOTICE, WrongUse, plural, say, table
from radloop.recipes.errors import NotFound
from radloop.studies.answers import said
from radloop.studies.contents import FORGOTTEN
from radloop.studies.home import Home
from radloop.studies.rows import UNKNOWN

if TYPE_CHECKING:
    from radloop.registry.lineage import Use
    from radloop.registry.registry import Registry
    from radloop.registry.version import Version
    from radloop.studies.ledger import LabelRow, Ledger

HEADER = ("id", "time", "study", "patient", "author", "names", "seen", "state", "use")
_FACTS = ("state", "reason", "created", "recipe_hash", "code_version", "torch", "monai", "seed", "epochs_done", "steps")
_DIGITS = 19  # of a number that no database can hold
_LINEAGE = ("started_from", "weights_of", "judged_against", "reference", "last_row", "checksum")


def show_version(options: argparse.Namespace) -> int:
    """Says what a version is made of: how it was trained and judged, and every label behind it."""
    from radloop.evaluation.report import write_json
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry
    from radloop.studies.ledger import Ledger

    home = Home.find(open_folder(options.studies).path, options.home)
    registry, ledger = Registry(home), Ledger(home)
    name = load_recipe(options.recipe, home.path).name
    version = registry.version(name, options.number) if options.number else registry.champion(name)
    if version is None:
        msg = f"no version of {name} serves; say which one to show, `radloop model list` has them"
        raise NotFound(msg)
    facts = _facts(registry, ledger, version)
    _say_version(facts)
    if options.json:
        write_json(options.json, facts)
    return 0


def _facts(registry: Registry, ledger: Ledger, version: Version) -> dict[str, Any]:
    from radloop.registry.lineage import ancestors, judged_labels, own_labels

    manifest, before = version.manifest, ancestors(version, cache(registry.versions))
    inherited = set[int]().union(*map(own_labels, before)) - own_labels(version)
    use = dict.fromkeys(sorted(judged_labels(version)), "judged on")
    use |= dict.fromkeys(sorted(inherited), "learned before") | dict.fromkeys(sorted(own_labels(version)), "learned")
    gone = ledger.retracted()
    rows = {row.id: row for row in ledger.history() if row.id in use}
    return {
        "recipe": version.recipe,
        "version": version.number,
        **{key: manifest.get(key) for key in (*_FACTS, *_LINEAGE)},
        "ancestors": [one.number if one.recipe == version.recipe else [one.recipe, one.number] for one in before],
        "gate": manifest.get("gate") or {},
        "held_out": manifest.get("held_out") or {},
        "figure": version.figure,
        "labels": [_label(rows[i], gone) | {"use": use[i]} for i in sorted(use) if i in rows],
        "lost_labels": [{"id": i, "use": use[i]} for i in sorted(use) if i not in rows],
        "notice": NOTICE,
    }


def _label(row: LabelRow, gone: set[int]) -> dict[str, Any]:
    return {
        "id": row.id,
        "time": row.time,
        "study": row.study,
        "patient": row.patient,
        "recipe": row.recipe,
        "author": row.author,
        "names": list(row.names),
        "seen": row.shown_version,
        "state": "retracted" if row.id in gone else row.state,
        "checksum": row.checksum,
        "parent": row.parent,
        "note": row.note,
    }


def _say_version(facts: dict[str, Any]) -> None:
    say(f"{facts['recipe']} version {facts['version']} ({NOTICE})")
    for key in (*_FACTS, *_LINEAGE):
        if facts[key] not in (None, ""):
            say(f"  {key.replace('_', ' '):15} {facts[key]}")
    for number in facts["ancestors"]:
        say(f"  {'learned through':15} version {number if isinstance(number, int) else ' '.join(map(str, number))}")
    for name, decision in (("gate", facts["gate"]), ("without new", facts["gate"].get("without") or {})):
        if decision.get("reason"):
            say(f"  {name:15} {decision['reason']}")
    if facts["held_out"]:
        scores = list(facts["held_out"].values())
        say(f"  {'held out':15} {facts['figure']} {fmean(scores):.3f}, {plural(len(scores), 'patient')}")
    if facts["labels"]:
        table(HEADER, [_cells(label) for label in facts["labels"]])
    for lost in facts["lost_labels"]:
        say(
            f"label {lost['id']} ({lost['use']}) is not in the ledger: its row was lost, as when a snapshot is put back"
        )
    say(plural(len(facts["labels"]), "label"))


def _cells(label: dict[str, Any]) -> tuple[object, ...]:
    shown = label | {"names": ",".join(label["names"]), "seen": label["seen"] or "-"}
    return tuple(shown[key] for key in HEADER)


def show_labels(options: argparse.Namespace) -> int:
    """Says what became of labels: each row of a study, or of an id, and the versions that used it."""
    from radloop.evaluation.report import write_json
    from radloop.registry.registry import Registry
    from radloop.studies.ledger import Ledger

    home = Home.find(open_folder(options.studies).path, options.home)
    registry, ledger = Registry(home), Ledger(home)
    rows = _asked(ledger, options.labels)
    gone = ledger.retracted()
    shown = [_label(row, gone) | _story(ledger, registry, row) for row in rows]
    for label in shown:
        say(f"label {label['id']} of {label['study']} ({label['recipe']}) by {label['author']}, {label['time']}")
        names = ",".join(label["names"]) or "-"
        if label["answer"] is not None:
            say(f"  says {_spoken(label['answer'])}")
        say(f"  {label['state']}, names {names}, {_blindness(label)}, {label['checksum'][:12]} {label['content']}")
        for row in label["followed_by"]:
            say(f"  followed by label {row['id']}, {row['state']}, by {row['author']}")
        if label["parent"]:
            say(f"  follows label {label['parent']}")
        for use in label["versions"]:
            say(f"  {use['use']} version {use['version']} ({use['state']})")
        if not label["versions"]:
            say("  no version used it")
    if options.json:
        write_json(options.json, {"labels": shown, "notice": NOTICE})
    return 0


def _content(ledger: Ledger, row: LabelRow) -> str:
    return "forgotten" if row.study.startswith(FORGOTTEN) else "whole" if ledger.whole(row) else "damaged"


def _story(ledger: Ledger, registry: Registry, row: LabelRow) -> dict[str, Any]:
    """What became of a row: its content, the rows that correct, confirm or retract it, the versions that used it."""
    after = [one for one in ledger.history(row.study, row.recipe) if one.parent == row.id]
    return {
        "content": _content(ledger, row),
        "answer": said(ledger.file(row)) if row.is_answer and _content(ledger, row) == "whole" else None,
        "followed_by": [{"id": one.id, "state": one.state, "author": one.author} for one in after],
        "versions": _used_by(registry, row),
    }


def _spoken(answer: str | dict[str, Any] | list[Any]) -> str:
    if isinstance(answer, str):
        return answer
    if isinstance(answer, dict) and "time" in answer and not isinstance(answer["time"], bool):  # an outcome
        return f"{'event at' if answer['event'] else 'no event until'} {answer['time']:g} {answer['unit']}"
    if isinstance(answer, list):
        return f"{len(answer)} boxes" if len(answer) != 1 else "1 box"
    return ", ".join(name if holds else f"no {name}" for name, holds in answer.items())


def _blindness(label: dict[str, Any]) -> str:
    if label["seen"] == UNKNOWN:
        return "not known what its reader had seen"
    return f"given after version {label['seen']} was seen" if label["seen"] else "given blind"


def _asked(ledger: Ledger, wanted: list[str]) -> list[LabelRow]:
    found: dict[int, LabelRow] = {}
    for word in wanted:
        rows = ledger.history(word)
        if not rows and word.isdecimal() and len(word) < _DIGITS:
            rows = [ledger.row(int(word))]
        if not rows:
            msg = f"{word!r} is neither a label's id nor a study with labels; `radloop labels list` shows both"
            raise NotFound(msg)
        found |= {row.id: row for row in rows}
    return [found[i] for i in sorted(found)]


def _used_by(registry: Registry, row: LabelRow) -> list[dict[str, Any]]:
    from radloop.registry.lineage import uses

    return [
        {"version": use.version.number, "state": use.version.state, "use": _how(use)}
        for use in uses(registry, [row.id], row.recipe)
    ]


def _how(use: Use) -> str:
    return "trained" if use.trained else "trained, through what it started from," if use.inherited else "judged"


def revoke(options: argparse.Namespace) -> int:
    """Takes labels back, makes `labels/final` follow, says which versions used them, and trains if asked."""
    from radloop.registry.lineage import uses
    from radloop.registry.registry import Registry
    from radloop.studies.ledger import Ledger

    if not (options.author or options.since or options.ids):
        msg = "labels revoke: say which labels, with --author A, --since T or --id N (several: those that fit all)"
        raise WrongUse(msg)
    folder = open_folder(options.studies)
    home = Home.find(folder.path, options.home)
    ledger = Ledger(home)
    rows = ledger.revoke(author=options.author, since=options.since, ids=options.ids)
    take_over_labels(folder, ledger, recipes_asked(home, ledger))
    for row in rows:
        say(f"label {row.parent} of {row.study} ({row.recipe}) by {row.author} is taken back")
    say(f"took back {plural(len(rows), 'label')}; they stay in the ledger, no training uses them")
    found = uses(Registry(home), [row.parent for row in rows if row.parent])
    if rows:
        _say_uses(found)
    for use in found:
        if use.version.serves:
            _follow_up(options, home, use)
    return 0


def _say_uses(found: list[Use]) -> None:
    """Versions that used retracted labels, the one that serves with a star."""
    if not found:
        say("no version learned from them or was judged on them")
        return
    header = ("", "recipe", "version", "state", "learned from", "through others", "judged on")
    lines = [
        ("*" if v.serves else "", v.recipe, v.number, v.state, len(use.trained), len(use.inherited), len(use.judged))
        for use in found
        for v in (use.version,)
    ]
    table(header, lines)


def _follow_up(options: argparse.Namespace, home: Home, use: Use) -> None:
    """What follows where the version that serves has learned from labels taken back, or was judged on them."""
    from radloop.apps.server_process import is_serving

    recipe = use.version.recipe
    used, again, how = (
        ("has learned from", "anew", "from other weights")
        if use.learned
        else ("was judged on", "once more", "and the gate judges on the labels that are left")
    )
    what = f"the version of {recipe} that serves {used} them"
    if not options.train:
        when = "the running server" if is_serving(home) else "the next `radloop serve`"
        now = "" if is_serving(home) else f", or now: radloop train {recipe}"
        say(f"{what}; {when} trains {again} by itself, {how}{now}")
        return
    from radloop.apps.training import say_outcome, train_with_bar
    from radloop.recipes.load import load_recipe

    say(f"{what}; training {again}, {how}")
    asked = load_recipe(recipe, home.path)
    say_outcome(train_with_bar(open_folder(options.studies, len(asked.channels)), home, asked))
