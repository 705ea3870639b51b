"""Do strategies earn their labels, and how is a model best corrected? Replays on four public sets.

    python benchmarks/active_learning.py [--data DIR] [--work DIR] [--questions hippocampus,...] [--jobs 2] [--page]

    hippocampus             masks, MR          5 strategies, 5 seeds, 6 rounds of 4 studies
    lung_nodule_malignancy  two classes, CT    5 strategies, 5 seeds, 6 rounds of 10
    lung_nodule             masks, CT          3 strategies, 3 seeds, 4 rounds of 8
    brain_tumour            masks, MR          3 strategies, 3 seeds, 4 rounds of 6
    few                     hippocampus, from at most 15 % of the labels: 2 strategies, 10 seeds, 6 rounds of 3
    corrections             hippocampus and lung_nodule: 3 seeds, 3 rounds of 8 damaged labels

For each question the budget is doubled on the validation side until that moves the figure by less than a point
(`simulate --check-budget`), then `radloop simulate` replays it on the test side of one split. Everything goes on where
it was killed; results are written as they come, say whether they are complete, and how many machine hours they took.
Prints tables of what is there; `--page` puts them into docs/simulate.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepare import prepare

from radloop.apps.cli import main as radloop
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "simulate.md"
BEGIN, END = "<!-- active learning: begin -->\n", "<!-- active learning: end -->"
SALT = "benchmark"  # the same split in every run and on every machine
DEFAULT = "clasp_pe"
"""The strategy that is to be ahead of random."""
RIVALS = ("random", "foreground")
FIVE = ("random", "foreground", "entropy", "mix", DEFAULT)
THREE = ("random", "foreground", DEFAULT)


@dataclass(frozen=True)
class Question:
    """A replay.

    Attributes:
        recipe: a shipped one.
        data: the set it is asked of.
        strategies: what is compared; none where corrections are replayed.
        seeds, rounds, each: see `radloop simulate`.
    """

    recipe: str
    data: str
    strategies: tuple[str, ...]
    seeds: int
    rounds: int
    each: int


QUESTIONS = {
    "hippocampus": Question("hippocampus", "hippocampus", FIVE, 5, 6, 4),
    "lung_nodule_malignancy": Question("lung_nodule_malignancy", "lidc_nodules", FIVE, 5, 6, 10),
    "lung_nodule": Question("lung_nodule", "lidc_nodules", THREE, 3, 4, 8),
    "brain_tumour": Question("brain_tumour", "lgg_flair3d", THREE, 3, 4, 6),
    "few": Question("hippocampus", "hippocampus", ("random", DEFAULT), 10, 6, 3),
    "corrections-hippocampus": Question("hippocampus", "hippocampus", (), 3, 3, 8),
    "corrections-lung_nodule": Question("lung_nodule", "lidc_nodules", (), 3, 3, 8),
}


def replay(name: str, options: argparse.Namespace) -> None:
    """One question, from its budget to its picture; what is there is not done again."""
    question = QUESTIONS[name]
    studies, home = _place(question, options)
    common = ["--studies", str(studies), "--home", str(home), "--jobs", str(options.jobs)]
    epochs = options.epochs or _budget(question, common, options)
    rounds, seeds = options.rounds or question.rounds, options.seeds or question.seeds
    what = ["--strategy", ",".join(question.strategies)] if question.strategies else ["--corrections"]
    told = ["--rounds", str(rounds), "--per-round", str(question.each), "--seeds", str(seeds), "--epochs", str(epochs)]
    out = options.results / f"{name}.json"
    work = options.work / f"steps-{question.recipe}"  # shared, so that the same model is trained once
    files = ["--json", str(out), "--picture", str(out.with_suffix(".png")), "--work", str(work)]
    if radloop(["simulate", question.recipe, *common, *what, *told, *files]):
        msg = f"{name} could not be replayed; the lines above say why"
        raise SystemExit(msg)


def _budget(question: Question, common: Sequence[str], options: argparse.Namespace) -> int:
    """Epochs that twice as many do not beat, of the first seed alone; the most that were tried where none are."""
    out = options.results / f"budget-{question.recipe}.json"
    if not out.is_file() or not _read(out)["epochs"]:
        work = ["--work", str(options.work / f"steps-{question.recipe}")]
        radloop(["simulate", question.recipe, *common, "--check-budget", "--json", str(out), *work])
    found = _read(out)
    return int(found["epochs"] or found["budgets"][-1]["epochs"])


def _place(question: Question, options: argparse.Namespace) -> tuple[Path, Path]:
    """The set's studies, and a home with the benchmark's split."""
    studies, home = options.work / question.data, Home(options.work / f"home-{question.data}")
    if not (studies / ".prepared").is_file():
        prepare(question.data, studies, options.data)
        (studies / ".prepared").touch()
    Split(Ledger(home), SALT).assign(study.patient for study in StudiesFolder(studies).studies().values())
    return studies, home.path


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What is known of each question, as Markdown."""
    lines = [
        "| question | strategy | area | last round | labels to 95 % | 98 % | within a point | foreground efficiency | "
        "outline, mm | against random | against foreground | done | machine hours |",
        f"|{'---|' * 13}",
    ]
    for name, told in results.items():
        for strategy, of in told.get("strategies", {}).items():
            labels = [of.get(key, {}).get("value") for key in ("labels_to_95", "labels_to_98", "labels_within_a_point")]
            leads = [(of["against"].get(rival) or {}).get("area") for rival in RIVALS]
            cells = [name, strategy, _shown(of["area"]), _shown(of["rounds"][-1])]
            cells += ["-" if count is None else f"{count:.0f}" for count in labels]
            cells += [_shown(of.get("foreground_efficiency"), 1), _shown(of.get("path_mm"), 0)]
            cells += [_shown(lead, 3, "+") for lead in leads]
            cells += [told["done"], f"{told['machine_hours']:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def corrections_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What is known of corrections, as Markdown."""
    lines = [
        "| question | way | before | after | gain | gain a case | forgotten | against afresh | done | machine hours |"
    ]
    lines.append(f"|{'---|' * 10}")
    for name, told in results.items():
        for way, of in told.get("ways", {}).items():
            ends = [_shown(of["rounds"][0]), _shown(of["rounds"][-1]), _shown(of["gain"], 3, "+")]
            a_case, lead = of["gain_per_case"].get("value"), (of["against"].get("afresh") or {}).get("area")
            cells = [name, way, *ends, "-" if a_case is None else f"{a_case:+.5f}", _shown(of.get("forgotten"), 3, "+")]
            cells += [_shown(lead, 3, "+"), told["done"], f"{told['machine_hours']:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdict(results: Mapping[str, Mapping[str, Any]], default: str = DEFAULT) -> str:
    """Whether the default is ahead of random on two of four sets and behind foreground on none, and what is open."""
    four = {name: results.get(name, {}).get("strategies", {}).get(default) for name in list(QUESTIONS)[:4]}
    ahead = [name for name, of in four.items() if of and _end(of, "random", "low") > 0]
    behind = [name for name, of in four.items() if of and _end(of, "foreground", "high") < 0]
    open_ = [name for name in four if not results.get(name, {}).get("complete")]
    said = [f"{default} is above random on {len(ahead)} of 4 ({', '.join(ahead) or 'none'}); the goal is 2"]
    said.append(f"it is below foreground on {len(behind)} ({', '.join(behind) or 'none'}); the goal is none")
    few = results.get("few", {})
    if of := few.get("strategies", {}).get(default):
        count, most = of["labels_within_a_point"]["value"], int(0.15 * few["pool"]["studies"])
        sooner = of["against"]["random"].get("labels_within_a_point")
        reached = "no round" if count is None else f"{count:.0f} labels"
        said.append(
            f"few: within a point from {reached} (goal: at most {most}); less random's: {_shown(sooner, 1, '+')}"
        )
    return "; ".join(said) + (f"; not complete: {', '.join(open_)}" if open_ else "") + "."


def _end(of: Mapping[str, Any], rival: str, end: str) -> float:
    lead = (of["against"].get(rival) or {}).get("area") or {}
    return float(lead.get(end) or 0.0)


def _shown(of: Mapping[str, Any] | None, digits: int = 3, sign: str = "") -> str:
    if not of or of["value"] is None:
        return "-"
    ends = "" if of["low"] is None else f" ({of['low']:{sign}.{digits}f} to {of['high']:{sign}.{digits}f})"
    return f"{of['value']:{sign}.{digits}f}{ends}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Replay the questions that are asked for, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("active-work"), help="studies and steps go here")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "active_learning")
    parser.add_argument("--questions", default=",".join(QUESTIONS), help="which of them; empty prints what is there")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="in place of the budget that is found; not for reports")
    parser.add_argument("--rounds", type=int, help="in place of the question's; not for reports")
    parser.add_argument("--seeds", type=int, help="in place of the question's; not for reports")
    parser.add_argument("--page", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(argv)
    names = [name for name in options.questions.split(",") if name]
    if unknown := [name for name in names if name not in QUESTIONS]:
        parser.error(f"--questions has {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    if options.data is None and names:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    for folder in (options.results, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        replay(name, options)
    results = {name: _read(options.results / f"{name}.json") for name in QUESTIONS}
    told = f"{table(results)}\n{corrections_table(results)}\n{verdict(results)}\n"
    print(told)
    if options.page:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + told + END + rest.partition(END)[2], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
