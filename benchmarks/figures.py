"""Writes the table of figures in README.md from benchmarks/results/*.json.

python benchmarks/figures.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radloop.recipes.load import load_recipe

HERE = Path(__file__).parent
BEGIN, END = "<!-- figures: begin", "<!-- figures: end -->"
HEAD = """
| data | split | figure | radloop (95 % interval) | trivial method | command |
|---|---|---|---|---|---|
"""


def _interval(figure: dict[str, float]) -> str:
    limits = "" if figure["low"] is None else f" ({figure['low']:.3f}-{figure['high']:.3f})"
    return f"{figure['value']:.3f}{limits}"


def _lead(gap: dict[str, float]) -> str:
    limits = "" if gap["low"] is None else f" ({gap['low']:+.3f} to {gap['high']:+.3f})"
    return f"difference {gap['value']:+.3f}{limits}"


def _hippocampus(result: dict[str, Any]) -> Iterator[str]:
    for name, run in result["runs"].items():
        data = f"hippocampus MR (MSD Task04, 193 crops), {run['trained_on']} labels, {run['minutes']} min on 2 cores"
        split = f"test side, {run['patients']} patients"
        figure, trivial = _interval(run["dice"]), f"{run['trivial_dice']['value']:.3f}"
        yield f"| {data} | {split} | mean Dice | {figure} | {trivial} | `{result['command']} --runs {name}` |"


def _large_ct(result: dict[str, Any]) -> Iterator[str]:
    shape = "x".join(str(n) for n in result["study"]["shape"])
    for key, what in (("alone", "one answer"), ("while_training", "the same while a training runs")):
        run = result[key]
        figure = f"{run['seconds']:.0f} s, peak {run['peak_gb']:.1f} GB"
        yield f"| synthetic CT {shape}, 2 cores | - | {what} | {figure} | - | `{result['command']}` |"


def _retrains(result: dict[str, Any]) -> Iterator[str]:
    runs = result["runs"].values()
    fewest = min(run["unused_patients"] for run in runs)
    split = f"truth: at least {fewest} patients nobody labelled"
    honest = [run for name, run in result["runs"].items() if name.startswith("honest")]
    others = [run for run in runs if run not in honest]
    bad = [run for run in runs if run["bad"]]
    for what, of in (
        (f"{len(honest)} honest retrains with five times the labels", honest),
        (f"{len(bad)} bad ones among {len(others)} retrains spoilt in five ways", bad),
    ):
        served = f"{sum(run['served'] for run in of)} of {len(of)}"
        yield f"| hippocampus MR at 2 mm, {what} | {split} | served | {served} | - | `{result['command']}` |"


def _own(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Question, network and run of those with the recipe's own network; docs/benchmarks.md has the others."""
    for key, run in result.items():
        question, network = key.split("/")
        if network == load_recipe(question).network.name:
            yield question, network, run


def _questions(result: dict[str, Any]) -> Iterator[str]:
    for question, network, run in _own(result):
        minutes = max(fold["core_minutes"] for fold in run["folds"].values())
        for part, of in run["figures"].items():
            which = f"{question}, {network}" + ("" if part == "all" else f", {part}")
            data = (
                f"{which}: {of['studies']} studies of {of['patients']} patients, {minutes:.0f} min of one core a fold"
            )
            gap, floor = of["difference"], of["trivial"]["value"]
            trivial = f"{floor:.3f}; {_lead(gap)}"
            split = f"out of fold, {len(run['folds'])} of 5 patient-level folds"
            figure, name = _interval(of[of["metric"]]), {"roc_auc": "ROC AUC"}.get(of["metric"], of["metric"])
            yield f"| {data} | {split} | {name} | {figure} | {trivial} | `python benchmarks/questions.py` |"


def _masks(result: dict[str, Any]) -> Iterator[str]:
    for question, network, run in _own(result):
        of = run["figures"]
        mine, floor = of["radloop"], max((of["threshold"], of["blob"]), key=lambda one: one["dice"]["value"])
        data = f"{question}, {network}: {of['studies']} studies of {of['patients']} patients"
        data += f", {of['core_minutes']:.0f} min of one core a fold"
        split = f"out of fold, {len(run['folds'])} of 5 patient-level folds"
        gap = floor["difference"]
        trivial = f"{floor['dice']['value']:.3f}; {_lead(gap)}"
        command = "`python benchmarks/masks.py`"
        yield f"| {data} | {split} | mean Dice | {_interval(mine['dice'])} | {trivial} | {command} |"
        found, blob = mine["sensitivity_at_1_fp"], of["blob"]["sensitivity_at_1_fp"]["value"]
        what = "lesions found at 1 false positive a volume"
        yield f"| the same | {split} | {what} | {_interval(found)} | {blob:.3f} | {command} |"


def _survival(result: dict[str, Any]) -> Iterator[str]:
    for question, network, run in _own(result):
        of = run["figures"]
        minutes = max(fold["minutes"] for fold in run["folds"].values())
        data = f"{question}, {network}: {of['studies']} studies, {of['events']} events, {minutes:.0f} min a fold"
        split = f"out of fold, {len(run['folds'])} of 5 patient-level folds"
        gap, floor = of["difference"], of["clinical"]["c_index"]["value"]
        alone = f"{floor:.3f} covariates alone; {_lead(gap)}"
        figure = _interval(of["metrics"]["c_index"])
        yield f"| {data} | {split} | Harrell's C | {figure} | {alone} | `python benchmarks/survival.py` |"


def _boxes(result: dict[str, Any]) -> Iterator[str]:
    for question, network, run in _own(result):
        of = run["figures"]
        minutes = max(fold["core_minutes"] for fold in run["folds"].values())
        data = f"{question}, {network}: {of['studies']} studies of {of['patients']} patients"
        data += f", {minutes:.0f} min of one core a fold"
        split = f"out of fold, {len(run['folds'])} of 5 patient-level folds"
        gap, floor = of["difference"], of["floor"]["ap50"]["value"]
        trivial = f"{floor:.3f} mean boxes; {_lead(gap)}"
        figure = _interval(of["radloop"]["ap50"])
        yield f"| {data} | {split} | AP at IoU .5 | {figure} | {trivial} | `python benchmarks/boxes.py` |"


def table() -> str:
    """The table in Markdown, one row a measurement."""
    rows: list[str] = []
    makers = {
        "hippocampus": _hippocampus,
        "questions": _questions,
        "masks": _masks,
        "boxes": _boxes,
        "survival": _survival,
        "gate_retrains": _retrains,
        "large_ct": _large_ct,
    }
    for name, maker in makers.items():
        path = HERE / "results" / f"{name}.json"
        if path.exists():
            rows += maker(json.loads(path.read_text(encoding="utf-8")))
    return HEAD + "\n".join(rows) + "\n\n"


def main() -> None:
    """Replaces what stands between the two marks."""
    readme = HERE.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    start = text.index("\n", text.index(BEGIN)) + 1
    readme.write_text(text[:start] + table() + text[text.index(END) :], encoding="utf-8")


if __name__ == "__main__":
    main()
