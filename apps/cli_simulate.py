"""`radloop simulate`: what strategies, corrections and budgets would have brought, on studies that have labels.

It works on a copy beside its result, so nothing of the home or the studies changes, and goes on there after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.place import open_folder, recipes_asked, take_over_labels, with_own
from radloop.apps.terminal import NOTICE, WrongUse, bar, complain, plural, say, table
from radloop.recipes.errors import NotFound
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.strategies.replay import Replay
    from radloop.studies.split import Side

Row = tuple[object, ...]


def simulate(options: argparse.Namespace) -> int:
    """Replays, writes the figures as they come, and says them; 1 where no budget was found to be enough."""
    _check(options)
    from radloop.strategies.simulate import alone

    for file in filter(None, (options.json, options.picture)):
        if not file.expanduser().absolute().parent.is_dir():
            msg = f"{file}: there is no folder {file.expanduser().absolute().parent}; make it first"
            raise NotFound(msg)
    work = options.work or options.json.with_suffix(".steps")
    with alone(work):
        replay = _prepared(options, work)
        say(f"{replay.recipe.name}: {plural(len(replay.pool), 'study', 'studies')} to draw from, measured on "
            f"{plural(len(replay.held_out), 'study', 'studies')} of the {replay.held_out[0].side} side; steps are "
            f"in {work}")  # fmt: skip
        run = _budget if options.check_budget else _corrections if options.corrections else _strategies
        return run(options, replay)


def _check(options: argparse.Namespace) -> None:
    """That what was asked for makes sense.

    Raises:
        WrongUse: it does not.
    """
    asked = {"--rounds": options.rounds, "--per-round": options.per_round}
    if options.check_budget:
        wrong = [name for name, value in {**asked, "--strategy": options.strategy}.items() if value]
        if wrong or options.start or options.picture:
            msg = f"--check-budget trains on all labels and takes no {(wrong or ['--start or --picture'])[0]}"
            raise WrongUse(msg)
        return
    if lacking := [name for name, value in asked.items() if not value]:
        msg = f"say with {lacking[0]} how readers label; see radloop simulate --help"
        raise WrongUse(msg)
    if options.corrections and (options.strategy or options.start):
        msg = "--corrections damages labels at random and takes neither --strategy nor --start"
        raise WrongUse(msg)
    if not options.corrections and not options.strategy:
        msg = "say with --strategy which are compared, such as random,entropy"
        raise WrongUse(msg)


def _prepared(options: argparse.Namespace, work: Path) -> Replay:
    """The copy, with its labels taken in and its studies preprocessed."""
    from radloop.recipes.load import load_recipe
    from radloop.strategies.simulate import replay_of
    from radloop.studies.copies import copy_of
    from radloop.studies.ledger import Ledger

    home = Home.find(open_folder(options.studies).path, options.home)
    recipe = load_recipe(options.recipe, home.path)
    folder, copied = copy_of(open_folder(options.studies, len(recipe.channels)), home, work / "copy")
    ledger = Ledger(copied)
    region = [load_recipe(recipe.answer.region, home.path)] if recipe.answer.region else []
    asked = [*region, *(one for one in recipes_asked(copied, ledger) if one.name != recipe.answer.region)]
    take_over_labels(folder, ledger, with_own(recipe, asked))
    side: Side = "validation" if options.check_budget else "test"
    with bar(None, "preprocess", "studies") as shown:

        def step(_: int) -> None:
            shown.update(1)

        return replay_of(
            folder,
            copied,
            recipe,
            work,
            epochs=options.epochs,
            side=side,
            jobs=options.jobs,
            step=step,
        )


def _strategies(options: argparse.Namespace, replay: Replay) -> int:
    from radloop.strategies.replay import Rounds
    from radloop.strategies.simulate import RIVALS, Plan, simulate

    rounds = Rounds(options.rounds, options.start or options.per_round, options.per_round)
    plan = Plan(options.strategy, rounds, options.seeds, options.jobs)
    parts = plan.seeds * (1 + len(plan.strategies))
    told = _followed(options, parts, lambda tell: simulate(replay, plan, tell))
    _picture(options, told, "strategies", "labelled studies")
    full = told["full"]
    say(f"{told['figure']} with all {told['pool']['studies']} labels: {_limits(full)}; {_hours(told)}")
    if not (full["value"] or 0.0) > 0:
        say("that is nothing to compare curves with: train longer with --epochs; --check-budget finds how long")
    header = ("strategy", f"area ({told['figure']})", "last round", "labels to 95 %", "to 98 %",
              *(f"area against {rival}" for rival in RIVALS))  # fmt: skip
    table(header, [_strategy_row(name, of, RIVALS) for name, of in told["strategies"].items()])
    return _ended(options)


def _strategy_row(name: str, of: Mapping[str, Any], rivals: tuple[str, ...]) -> Row:
    against = ((of["against"].get(rival) or {}).get("area") for rival in rivals)
    labels = (of[f"labels_to_{share}"]["value"] for share in (95, 98))
    counts = ("not reached" if count is None else f"{count:.0f}" for count in labels)
    return name, _limits(of["area"]), _limits(of["rounds"][-1]), *counts, *(_limits(one, "+") for one in against)


def _corrections(options: argparse.Namespace, replay: Replay) -> int:
    from radloop.strategies.corrections import CorrectionPlan, correct

    plan = CorrectionPlan(options.rounds, options.per_round, options.seeds, options.jobs)
    parts = plan.seeds * len(plan.ways)
    told = _followed(options, parts, lambda tell: correct(replay, plan, tell))
    _picture(options, told, "ways", "corrected studies")
    say(f"{options.rounds * options.per_round} labels damaged ({', '.join(told['damage'])}); {_hours(told)}")
    header = ("way", f"{told['figure']} before", "after", "gain", "gain a case", "forgotten", "area against afresh")
    rows = []
    for way, of in told["ways"].items():
        against = (of["against"].get("afresh") or {}).get("area")
        a_case = f"{of['gain_per_case']['value']:+.5f}" if of["gain_per_case"] else "-"
        rows.append((way, _limits(of["rounds"][0]), _limits(of["rounds"][-1]), _limits(of["gain"], "+"), a_case,
                     _limits(of.get("forgotten"), "+"), _limits(against, "+")))  # fmt: skip
    table(header, rows)
    return _ended(options)


def _budget(options: argparse.Namespace, replay: Replay) -> int:
    from radloop.strategies.simulate import MOST_DOUBLINGS, check_budget

    parts = 1 + MOST_DOUBLINGS
    told = _followed(options, parts, lambda tell: check_budget(replay, options.seeds, options.jobs, tell=tell))
    rows = [
        (one["epochs"], _limits(one), "-" if one["moved"] is None else f"{one['moved']:+.3f}")
        for one in told["budgets"]
    ]
    table(("epochs", f"{told['figure']} on the validation side", "moved by"), rows)
    if not told["epochs"]:
        complain(f"doubling {told['budgets'][-1]['epochs'] // 2} epochs still moves it by {rows[-1][2]}; begin higher")
    else:
        say(f"--epochs {told['epochs']} is enough: twice as many move it by less than {told['enough']:g}")
    _ended(options)
    return 0 if told["epochs"] else 1


def _followed(
    options: argparse.Namespace, parts: int, work: Callable[[Callable[[dict[str, Any]], None]], dict[str, Any]]
) -> dict[str, Any]:
    """The result of some work, which is also written whenever there is more of it."""
    from radloop.evaluation.report import write_json

    with bar(parts, f"simulate {Path(options.recipe).stem}", "parts") as shown:

        def tell(told: dict[str, Any]) -> None:
            write_json(options.json, {**told, "notice": NOTICE})
            shown.set_postfix_str(str(told.get("done", "")), refresh=False)
            shown.update(1)

        told = work(tell)
    write_json(options.json, {**told, "notice": NOTICE})
    return told


def _picture(options: argparse.Namespace, told: Mapping[str, Any], what: str, x: str) -> None:
    if not options.picture:
        return
    from radloop.evaluation.learning_plots import learning_curves
    from radloop.studies.files import write_whole

    png = learning_curves({**told, "strategies": told[what]}, figure=told["figure"], x=x)
    write_whole(options.picture, lambda path: _write(path, png), ".png")


def _write(path: Path, png: bytes) -> None:
    path.write_bytes(png)


def _limits(of: Mapping[str, Any] | None, sign: str = "") -> str:
    """A figure with its interval; a dash where there is none."""
    if not of or of["value"] is None:
        return "-"
    ends = "" if of["low"] is None or of["high"] is None else f" ({of['low']:{sign}.3f} to {of['high']:{sign}.3f})"
    return f"{of['value']:{sign}.3f}{ends}"


def _hours(told: Mapping[str, Any]) -> str:
    return f"{told['machine_hours']:.2f} machine hours, {told['core_hours']:.2f} of cores"


def _ended(options: argparse.Namespace) -> int:
    if options.seeds == 1:
        say("one seed: intervals hold for other patients, not for other draws; ask for more with --seeds")
    for path in filter(None, (options.json, options.picture)):
        say(f"wrote {path}")
    say(NOTICE)
    return 0
