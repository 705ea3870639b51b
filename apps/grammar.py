"""The grammar of the `radloop` command: one parser, one function a command, nothing heavy imported."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
KINDS = ("segmentation", "detection", "classification", "multilabel", "ordinal", "risk")
FORMATS = ("nnunet", "msd", "folder")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; parsed options carry `run`, the command as `module:function` of `radloop.apps`."""
    parser = argparse.ArgumentParser(
        prog="radloop",
        description="One click, one correction, a better model that serves. Not for clinical use.",
        parents=[_everywhere(first=True)],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"radloop {installed_version('radloop')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(Level(commands))
    return parser


class Level:
    """One level of commands; `add` makes a parser that knows what is accepted everywhere."""

    def __init__(self, commands: argparse._SubParsersAction) -> None:
        self._commands = commands

    def add(self, name: str, run: str, summary: str) -> argparse.ArgumentParser:
        """A command that runs `run`."""
        parser = self._commands.add_parser(
            name, help=summary, description=summary, parents=[_everywhere()], allow_abbrev=False
        )
        parser.set_defaults(run=run)
        return parser

    def group(self, name: str, summary: str) -> Level:
        """A command of commands, such as `model list`."""
        parser = self._commands.add_parser(name, help=summary, description=summary, parents=[_everywhere()])
        return Level(parser.add_subparsers(dest=f"{name}_command", metavar="COMMAND", required=True))


def _everywhere(first: bool = False) -> argparse.ArgumentParser:
    """Options of every command. Those of an inner parser stay absent when not given, so as not to undo the outer's."""
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    shared.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        default=None if first else argparse.SUPPRESS,
        help="where state lives (default: RADLOOP_HOME, else <studies>/.radloop)",
    )
    shared.add_argument(
        "--verbose",
        action="store_true",
        default=False if first else argparse.SUPPRESS,
        help="say more, and show the traceback of an unexpected error",
    )
    return shared


def _demo(level: Level) -> None:
    demo = level.add("demo", "demo:run", "sample studies, a first model, a server; says what to open where")
    _address(demo, host=False)
    demo.add_argument("--studies", metavar="DIR", help="where the sample studies go (default: ./radloop-demo)")
    demo.add_argument("--check", action="store_true", help="go once around the loop as a client would, then end")


def _import(level: Level) -> None:
    command = level.add("import", "cli_studies:import_", "take over nested DICOM, MSD, nnU-Net or plain folders")
    command.add_argument("source", type=Path, metavar="SRC", help="the folder to take over")
    _studies(command)


def _export(level: Level) -> None:
    command = level.add("export", "cli_studies:export", "write studies and labels for other tools")
    _studies(command)
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--format", choices=FORMATS, default="nnunet")
    command.add_argument("--recipe", metavar="RECIPE", help="whose labels (default: the one that has labels)")


def _serve(level: Level) -> None:
    command = level.add("serve", "serve:run", "start the MONAI Label server for 3D Slicer and OHIF")
    _studies(command)
    command.add_argument("--app", type=Path, metavar="DIR", help="an app folder of your own (default: radiology)")
    command.add_argument("--recipes", type=_names, metavar="R,...", help="questions to serve (default: the home's own)")
    command.add_argument("--strategy", metavar="NAME", help="what to read next once a model serves (default: clasp_pe)")
    command.add_argument(
        "--held-out-every",
        type=_count,
        metavar="N",
        help="one study in N is drawn from the held-out sides (default: 5)",
    )
    command.add_argument("--write-back", metavar="URL", help="a PACS for accepted labels (comes later)")
    _address(command)


def _train(level: Level) -> None:
    command = level.add("train", "cli_models:train", "train a version; it serves only if it passes the gate")
    _recipe_of(command)
    _studies(command)
    budget = command.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=_positive, metavar="M", help="stop after M minutes")
    budget.add_argument("--epochs", type=_count, metavar="E", help="train E epochs")
    _which(command)
    command.add_argument("--seed", type=_seed, default=0, metavar="S", help="default: 0")


def _evaluate(level: Level) -> None:
    command = level.add("evaluate", "cli_models:evaluate", "measure a version on held-out patients (the test side)")
    _recipe_of(command)
    _studies(command)
    command.add_argument("--version", dest="number", type=_count, metavar="V", help="default: the one that serves")
    _which(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="figures with their intervals")
    command.add_argument("--report", type=Path, metavar="FILE.html", help="a page to read and send")
    command.add_argument("--per-study", type=Path, metavar="FILE.csv", help="one row a study")
    command.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="figures by a column of answers.csv; repeatable"
    )


def _predict(level: Level) -> None:
    command = level.add("predict", "cli_predict:predict", "answers for many studies or one image; resumable")
    _recipe_of(command)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--studies", metavar="DIR")
    source.add_argument("--image", type=Path, metavar="FILE", help="one image; needs --home for the model")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="masks and results.csv")


def _status(level: Level) -> None:
    command = level.add("status", "cli_studies:status", "studies, labels, versions and what serves")
    _studies(command)
    command.add_argument("--json", type=Path, metavar="FILE")


def _model(level: Level) -> None:
    group = level.group("model", "versions: list them, show what they are made of, go back to one")
    listing = group.add("list", "cli_models:list_versions", "every version, its figure and the gate's decision")
    _recipe_of(listing, optional=True)
    _studies(listing)
    shown = group.add(
        "show", "cli_lineage:show_version", "how a version was made and judged, with every label behind it"
    )
    _recipe_of(shown)
    shown.add_argument("number", nargs="?", type=_count, metavar="VERSION", help="default: the one that serves")
    _studies(shown)
    shown.add_argument("--json", type=Path, metavar="FILE")
    back = group.add("rollback", "cli_models:rollback", "let an earlier version serve")
    _recipe_of(back)
    back.add_argument("number", nargs="?", type=_count, metavar="VERSION", help="default: the one that served before")
    _studies(back)


def _labels(level: Level) -> None:
    group = level.group("labels", "the ledger: list labels, take some back, confirm held ones")
    for name, run, summary in (
        ("list", "cli_studies:list_labels", "every label ever given"),
        ("revoke", "cli_lineage:revoke", "take labels back; nothing is deleted, no training uses them again"),
    ):
        command = group.add(name, run, summary)
        _studies(command)
        command.add_argument("--author", metavar="A")
        command.add_argument(
            "--since", type=_moment, metavar="T", help="a day or time, such as 2026-11-23 or 2026-11-23T14:00"
        )
    command.add_argument("--id", dest="ids", type=_count, nargs="+", metavar="N", help="these labels")
    command.add_argument("--train", action="store_true", help="train anew at once what learned from them and serves")
    command = group.add(
        "show", "cli_lineage:show_labels", "what became of labels, and which versions learned from them"
    )
    command.add_argument("labels", nargs="+", metavar="ID|STUDY", help="a label's id, or a study for all of its labels")
    _studies(command)
    command.add_argument("--json", type=Path, metavar="FILE")
    command = group.add("confirm", "cli_studies:confirm", "make held labels final; `labels list` shows them and why")
    command.add_argument("ids", nargs="+", type=_count, metavar="ID", help="of a held label, as `labels list` shows it")
    _studies(command)


def _simulate(level: Level) -> None:
    command = level.add("simulate", "cli_simulate:simulate", "replay labelled studies in rounds, to compare strategies")
    _recipe_of(command)
    _studies(command)
    command.add_argument("--strategy", type=_names, metavar="S,...", help="what is compared; always add random")
    command.add_argument("--rounds", type=_count, metavar="R", help="a model is trained after each")
    command.add_argument("--per-round", type=_count, metavar="K", help="studies that readers label in a round")
    command.add_argument(
        "--start", type=_count, metavar="K", help="studies of the first round (default: as the others)"
    )
    command.add_argument("--seeds", type=_count, default=1, metavar="N", help="repetitions (default: 1)")
    command.add_argument("--epochs", type=_count, metavar="E", help="of each training (default: the recipe's)")
    command.add_argument("--jobs", type=_count, default=1, metavar="J", help="processes that share the cores")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--corrections", action="store_true", help="damage labels, and give the true ones back in rounds")
    what.add_argument("--check-budget", action="store_true", help="find the epochs from which doubling changes nothing")
    command.add_argument("--json", type=Path, required=True, metavar="FILE", help="figures with their intervals")
    command.add_argument("--picture", type=Path, metavar="FILE.png", help="learning curves")
    command.add_argument("--work", type=Path, metavar="DIR", help="what it goes on from (default: FILE.steps)")


def _recipe(level: Level) -> None:
    group = level.group("recipe", "clinical questions: plan one from studies, check one")
    new = group.add("new", "cli_recipes:new", "plan a recipe from studies and their masks or answers")
    _studies(new)
    new.add_argument("--kind", choices=KINDS, help="default: segmentation, and with --answer a guess")
    new.add_argument("--answer", metavar="COLUMN", help="the answer in answers.csv; of several findings COLUMN,COLUMN")
    new.add_argument("--answer-seconds", type=_positive, metavar="S", help="how long an answer may take here")
    new.add_argument("--out", type=Path, required=True, metavar="FILE.toml")
    check = group.add("check", "cli_recipes:check", "say every mistake in a recipe with its line")
    check.add_argument("file", type=Path, metavar="FILE.toml")


def _forget(level: Level) -> None:
    command = level.add("forget", "cli_forget:forget", "remove a patient's images, labels and what was made of them")
    command.add_argument("patient", metavar="PATIENT", help="as in answers.csv; a study's id where that names none")
    _studies(command)
    command.add_argument("--yes", action="store_true", help="do it; else only what would go is said")


def _backup(level: Level) -> None:
    command = level.add("backup", "cli_backup:backup", "labels, versions and settings in one file, also while serving")
    _studies(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE.tar", help="a file that is not there yet")


def _restore(level: Level) -> None:
    command = level.add(
        "restore", "cli_backup:restore", "make a home of a backup, or put a snapshot of the ledger back"
    )
    command.add_argument("file", type=Path, metavar="FILE", help="of `radloop backup`, or of <home>/snapshots")
    _studies(command)


_COMMANDS = (
    *(_demo, _import, _export, _serve, _train, _evaluate, _predict, _status, _model, _labels, _simulate, _recipe),
    *(_forget, _backup, _restore),
)


def _studies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--studies", required=True, metavar="DIR", help="the studies folder")


def _recipe_of(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    parser.add_argument("recipe", nargs="?" if optional else None, metavar="RECIPE", help="a shipped name or a TOML")


def _address(parser: argparse.ArgumentParser, host: bool = True) -> None:
    if host:
        parser.add_argument("--host", default="127.0.0.1", help="only loopback, until there is access control")
    parser.add_argument("--port", type=_port, default=8000, metavar="N")


def _which(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--images", type=Path, metavar="FILE", help="exactly the image ids in FILE, one a line")
    chosen.add_argument("--fold", type=_fold, metavar="I/K", help="fold I of K, not the stored split; never serves")


def _checked(allowed: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Turns a ValueError of a converter into argparse's own message with what is allowed."""

    def decorate(convert: Callable[[str], T]) -> Callable[[str], T]:
        def converted(text: str) -> T:
            try:
                return convert(text)
            except (ValueError, OverflowError):  # a time may lie outside the calendar in UTC
                msg = f"{text!r}: give {allowed}"
                raise argparse.ArgumentTypeError(msg) from None

        return converted

    return decorate


@_checked("a whole number from 1, below 2**63")
def _count(text: str) -> int:
    return _require(int(text), 1 <= int(text) < 2**63)


@_checked("a whole number from 0, below 2**63")
def _seed(text: str) -> int:
    return _require(int(text), 0 <= int(text) < 2**63)


@_checked("a number above 0")
def _positive(text: str) -> float:
    return _require(float(text), math.isfinite(float(text)) and float(text) > 0)


@_checked("a port, 1 to 65535")
def _port(text: str) -> int:
    return _require(int(text), 1 <= int(text) <= 65535)


@_checked("a fold as I/K with 1 <= I <= K and K >= 2, such as 1/5")
def _fold(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    return _require((int(index), int(count)), 1 <= int(index) <= int(count) >= 2)


@_checked("a day or a time, such as 2026-11-23 or 2026-11-23T14:00; UTC unless it says otherwise")
def _moment(text: str) -> str:
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))  # Python 3.10 knows no Z
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc).isoformat()


@_checked("names with commas between them")
def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return _require(names, bool(names))


def _require(value: T, allowed: bool) -> T:
    if not allowed:
        raise ValueError(value)
    return value
