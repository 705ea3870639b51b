"""Every kind of answer and every family of networks, out of fold: trains what is missing, writes docs/benchmarks.md.

    python benchmarks/every_answer.py [--run] [--data DIR] [--work DIR] [--threads N]

With --run the benchmarks of masks, boxes, questions and survival go on where they stopped, the rows without any fold
first; each fold is written as soon as it is done. Without, only the page is written, from benchmarks/results/*.json.
Tables: what must be reached, beside the trivial method on the same patients; whether probabilities mean what they say;
the families of networks with equal budgets, each less the recipe's own on the studies that both have.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boxes
import masks
import numpy as np
import questions
import survival
from fold_answers import FoldAnswers
from out_of_fold import FOLDS, shown

from radloop.evaluation.intervals import bootstrap_mean, paired_differences
from radloop.recipes.load import load_recipe

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- answers: begin -->\n", "<!-- answers: end -->"
SLICES = ("slices_pool", "slices_gru", "slices_attention")
Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        recipe: a shipped one.
        file: of the results, without its ending.
        core_minutes: of a training.
        goals: part of the studies, or figure of a mask -> what must be reached; `above` the trivial method where None.
        families: other networks, measured with the same budget.
    """

    recipe: str
    file: str
    core_minutes: float
    goals: Mapping[str, float | None]
    families: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """The recipe's own."""
        return load_recipe(self.recipe).network.name


MAINS: dict[str, Main] = {
    "questions": questions.main,
    "masks": masks.main,
    "boxes": boxes.main,
    "survival": survival.main,
}
ROWS = (
    Row("lung_nodule", "masks", 12, {"dice": 0.84}),
    Row("lung_nodule_malignancy", "questions", 4, {"all": 0.95, "diameter_mm 6 to 12": 0.88}, (*SLICES, "cnn", "vit")),
    Row("lung_nodule_grade", "questions", 3, {"all": None}),
    Row("lung_nodule_attributes", "questions", 3, {"all": None}),
    Row(
        "brain_tumour", "masks", 10, {"dice": 0.78, "sensitivity_at_1_fp": 0.90}, ("unet", "resunet", "unet_attention")
    ),
    Row("brain_tumour_grade", "questions", 2, {"all": 0.65}, (*SLICES, "cnn", "vit")),
    Row("glioma_survival", "survival", 2, {"c_index": -0.05}),
    Row("chest_xray", "questions", 8, {"all": 0.92}),
    Row("chest_lungs", "boxes", 3, {"ap50": 0.90}),
)
NAMES = {"roc_auc": "ROC AUC", "kappa": "quadratic kappa", "dice": "mean Dice", "ap50": "AP at IoU .5"}
NAMES |= {"sensitivity_at_1_fp": "lesions found at 1 false positive a volume", "c_index": "Harrell's C"}


def reached(row: Row, found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a row in the first table."""
    run = found.get(row.file, {}).get(f"{row.recipe}/{row.network}")
    for part, goal in row.goals.items():
        wanted = "above the trivial method" if goal is None else f"{goal:.2f}"
        if not run:
            yield f"| {row.recipe} | {row.network} | {part} | - | {wanted} | - | - | - | missing |"
            continue
        name, ours, floor, gap = _figure(row.file, part, run["figures"])
        if row.file == "survival":
            wanted = "at most .05 below covariates"
        which = row.recipe + (f", {part}" if " " in part else "")
        of = run["figures"].get(part, run["figures"])
        cells = [which, row.network, name, shown(ours), wanted, shown(floor), shown(gap), str(of.get("studies", "-"))]
        yield f"| {' | '.join(cells)} | {_folds(run)} |"


def _figure(file: str, part: str, of: Mapping[str, Any]) -> tuple[str, Any, Any, Any]:
    """What a figure is called, ours, the trivial method's and the difference."""
    if file == "questions":
        inside = of[part]
        return NAMES[inside["metric"]], inside[inside["metric"]], inside["trivial"], inside["difference"]
    if file == "survival":
        return NAMES[part], of["metrics"][part], of["clinical"][part], of["difference"]
    if file == "boxes":
        return NAMES[part], of["radloop"][part], of["floor"][part], of["difference"]
    best = max(masks.FLOORS, key=lambda name: of[name]["dice"]["value"])
    floor = of[best] if part == "dice" else of["blob"]
    return NAMES[part], of["radloop"][part], floor[part], floor["difference"] if part == "dice" else None


def _folds(run: Mapping[str, Any]) -> str:
    lacking = [str(n) for n in range(1, FOLDS + 1) if str(n) not in run["folds"]]
    return "all" if not lacking else f"missing: {', '.join(lacking)}"


def honest(row: Row, found: Mapping[str, Any]) -> Iterator[str]:
    """The line of a row in the second table: do probabilities mean what they say?"""
    run = found.get(row.file, {}).get(f"{row.recipe}/{row.network}")
    if row.file != "questions" or not run:
        return
    of = run["figures"]["all"]
    slope, ece, most = of["slope"], of["ece"], of["ece_perfect"]
    holds = slope and slope["low"] is not None and slope["low"] <= 1 <= slope["high"]
    scaled = [of["scaling"].get(name) for name in ("brier", "log_loss")]
    worse = any(gap and gap["low"] is not None and gap["low"] > 0 for gap in scaled)
    said = [f"slope {'holds' if holds else 'does not hold'} 1", f"ECE {'below' if ece['value'] < most else 'above'}"]
    said.append("scaling makes worse" if worse else "scaling not worse")
    cells = [row.recipe, *map(_signed, scaled), shown(slope), f"{ece['value']:.3f}", f"{most:.3f}", "; ".join(said)]
    yield f"| {' | '.join(cells)} | {_folds(run)} |"


def _signed(of: Mapping[str, float] | None) -> str:
    return f"{of['value']:+.4f} ({of['low']:+.4f} to {of['high']:+.4f})" if of else "-"


def families(row: Row, found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a row in the third table."""
    runs = {name: found.get(row.file, {}).get(f"{row.recipe}/{name}") for name in row.families}
    own = runs[row.network]
    for name, run in runs.items():
        if not run:
            yield f"| {row.recipe} | {name} | - | - | - | - | - | missing |"
            continue
        part = next(iter(row.goals))
        title, ours, _, _ = _figure(row.file, part, run["figures"])
        told = list(run["folds"].values())
        size = f"{max(fold['parameters'] for fold in told) / 1e6:.2f} M"
        minutes = f"{np.mean([fold['core_minutes'] for fold in told]):.1f}"
        gap = "-" if name == row.network or not own else shown(_against(row, run, own))
        yield f"| {row.recipe} | {name} | {size} | {minutes} | {title} {shown(ours)} | {gap} | {_folds(run)} |"


def _against(row: Row, run: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any] | None:
    """A network less the recipe's own, on the studies that both were asked about."""
    shared = [number for number in run["folds"] if number in own["folds"]]
    if not shared:
        return None
    if row.file == "masks":
        values = [
            masks.patient_dice({i: of for n in shared for i, of in one["folds"][n]["studies"]["radloop"].items()})
            for one in (run, own)
        ]
        return asdict(bootstrap_mean(paired_differences(*values)))
    recipe = load_recipe(row.recipe)
    first, second = (FoldAnswers.read(one["folds"][number] for number in shared) for one in (run, own))
    first, second = first.only(second.studies), second.only(first.studies)
    found = first.against(second.p, questions.QUESTIONS[row.recipe].metric, recipe)
    return asdict(found.difference) if found else None


def page(found: Mapping[str, Any]) -> str:
    """The three tables."""
    lines = ["| question | network | figure | radloop | must reach | trivial method | difference | studies | folds |"]
    lines += ["|---" * 9 + "|", *(line for row in ROWS for line in reached(row, found)), ""]
    names = ["question", "Brier score, scaled less unscaled", "log loss, the same", "calibration slope", "ECE"]
    names += ["95 % point of a perfect model's", "in words", "folds"]
    lines += [f"| {' | '.join(names)} |"]
    lines += ["|---" * 8 + "|", *(line for row in ROWS for line in honest(row, found)), ""]
    lines += ["| question | network | parameters | core minutes a fold | figure | less the recipe's own | folds |"]
    lines += ["|---" * 7 + "|", *(line for row in ROWS if row.families for line in families(row, found))]
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> None:
    """Train what is missing: every row's own network, then the families."""
    common = ["--data", str(options.data), "--work", str(options.work), "--threads", str(options.threads)]
    wanted = [(row, row.network) for row in ROWS]
    wanted += [(row, name) for row in ROWS for name in row.families if name != row.network]
    for row, network in wanted:
        asked = ["--questions", row.recipe, "--networks", network, "--core-minutes", str(row.core_minutes)]
        MAINS[row.file]([*common, *asked])


def main(argv: Sequence[str] | None = None) -> int:
    """Run where asked, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", action="store_true", help="train what is missing first")
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("folds-work"), help="studies and versions go here")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    if options.run:
        if options.data is None:
            parser.error("say with --data or RADLOOP_DATA where the sets are")
        run(options)
    files = {name: HERE / "results" / f"{name}.json" for name in MAINS}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.is_file()}
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + page(found) + END + rest.partition(END)[2], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
