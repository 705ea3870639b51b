"""How often is the gate wrong? Resamplings of stored scores of honest models, through the gate's own rule.

    python benchmarks/gate_error_rates.py [--scores FILE] [--singles 5000] [--runs 2000]

Reads `results/gate_scores.json` (set -> margin, patient -> label -> score of each model), writes
`results/gate_error_rates.json`, the picture `docs/gate_error_rates.png` and the tables of `docs/gate.md`.

A resampling draws n patients with replacement, and for champion and challenger, patient by patient, the score of a
stored model, so that their paired spread is that of real retrains. Each label of a model is centred first, then
shifted until its mean over all stored patients, clipped to 0..1, is worse by exactly the loss asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, t

from radloop.evaluation.compare import ALPHA, FULL, SUPERIOR, WORST_FALL
from radloop.evaluation.gate_rule import SPENT, alpha_of

HERE = Path(__file__).parent
PATIENTS = (3, 6, 12, 25, 40)
LOSSES = (0.0, 1.0, 2.0, 3.0)  # in margins
GATINGS = 50
_EDGE = 1e-9


@dataclass(frozen=True)
class Variant:
    """A way of judging again and again: with the reference or not, and how fast alpha shrinks (0: not at all)."""

    reference: bool
    spent: float

    @property
    def name(self) -> str:
        """In words."""
        alpha = {0.0: "alpha .05", 0.5: "alpha .05/√k", 1.0: "alpha .05/k", 2.0: "alpha .05/k²"}[self.spent]
        return ("reference, " if self.reference else "champion only, ") + alpha


VARIANTS = [Variant(reference, spent) for reference in (False, True) for spent in (0.0, 0.5, 1.0, 2.0)]
CHOSEN = Variant(True, SPENT)


class Models:
    """Honest models to draw from, with exactly known losses.

    Args:
        values: (patients, models, labels) scores, 0..1.
        margin: of the gate.
    """

    def __init__(self, values: np.ndarray, margin: float) -> None:
        centred = values - values.mean(axis=0)
        self.margin = margin
        self.patients, self.count, self.labels = values.shape
        self._mean = centred.mean(axis=1) + values.mean(axis=(0, 1))
        # Two draws of few models are the same one too often; the factor gives the spread of two different ones.
        self._rest = (centred - centred.mean(axis=1, keepdims=True)) * np.sqrt(self.count / (self.count - 1))
        self._shifts = np.linspace(0, 1.2, 400)
        self._every = self._mean[:, None] + self._rest
        levels = np.array([np.clip(self._every - shift, 0, 1).mean(axis=(0, 1)) for shift in self._shifts])
        self._losses = levels[0] - levels

    @property
    def spread(self) -> float:
        """Deviation over patients of the difference of two honest models."""
        return float(np.sqrt(2 * self._rest.mean(axis=2).var(axis=1).mean()))

    def scores(self, rng: np.random.Generator, rows: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """(R, n, labels) scores of R models on their patients `rows` (R, n), worse by `loss` (R, labels)."""
        pick = rng.integers(self._rest.shape[1], size=rows.shape)
        columns = [np.interp(loss[:, i], self._losses[:, i], self._shifts) for i in range(self.labels)]
        shift = np.stack(columns, axis=1)[:, None]
        return np.clip(self._every[rows, pick] - shift, 0, 1)


def passes(new: np.ndarray, old: np.ndarray, margin: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """What `judge` says of R challengers at once: whether each serves, and whether it was shown better.

    Args:
        new: (R, n, labels) scores of the challengers; every patient has every label.
        old: the same of the champions.
        margin: of the mean and of each label.
        alpha: of this judgement.
    """
    differences = new - old
    mean_of_labels = differences.mean(axis=1)
    d = differences.mean(axis=2)
    n, mean = d.shape[1], d.mean(axis=1)
    guarded = (mean_of_labels >= -margin - _EDGE).all(axis=1)
    if n < FULL:
        serves = (mean >= -margin - _EDGE) & (d.min(axis=1) >= -WORST_FALL * margin - _EDGE)
        return serves & guarded, np.zeros(len(d), bool)
    error = d.std(axis=1, ddof=1) / np.sqrt(n)
    serves = (mean - _quantile(alpha, n) * error > -margin + _EDGE) & guarded
    return serves, serves & (mean - _quantile(SUPERIOR, n) * error > _EDGE)


@cache
def _quantile(alpha: float, n: int) -> float:
    return float(t.ppf(1 - alpha, n - 1))


def singles(models: Models, n: int, resamples: int, rng: np.random.Generator) -> dict[str, float]:
    """Share that serves, of one judgement, by true loss; of a challenger with one bad label; held for disagreement."""
    rows = rng.integers(models.patients, size=(resamples, n))
    none = np.zeros((resamples, models.labels))
    old = models.scores(rng, rows, none)
    found = {}
    for loss in LOSSES:
        new = models.scores(rng, rows, none + loss * models.margin)
        found[f"{loss:g}"] = float(passes(new, old, models.margin, alpha_of(0))[0].mean())
    one = none.copy()
    one[:, 0] = 2 * models.margin
    bad_label = models.scores(rng, rows, one)
    found["one label by 2"] = float(passes(bad_label, old, models.margin, alpha_of(0))[0].mean())
    equal, half = models.scores(rng, rows, none), max(1, n // 2)
    with_batch = passes(equal, old, models.margin, alpha_of(0))[0]
    without = passes(equal[:, :half], old[:, :half], models.margin, alpha_of(0))[0]
    found["equal, both ways"] = float((with_batch & without).mean())
    found["equal, held"] = float((with_batch != without).mean())
    return found


@dataclass
class Run:
    """Many houses that gate again and again on the patients they have; one row each."""

    models: Models
    variant: Variant
    rows: np.ndarray
    rng: np.random.Generator

    def judge_all(self, loss: float, against_champion: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """After each gating: who served, and the true loss of the version that serves then, in margins.

        Args:
            loss: true loss of each challenger, in margins.
            against_champion: the loss is against the champion of the moment, not against the first one.
        """
        margin, count = self.models.margin, len(self.rows)
        level = np.zeros((count, self.models.labels))
        champion = self.models.scores(self.rng, self.rows, level)
        reference = champion.copy()
        for looks in range(GATINGS):
            asked = (level if against_champion else 0 * level) + loss * margin
            new = self.models.scores(self.rng, self.rows, asked)
            alpha = alpha_of(looks, self.variant.spent)
            serves, better = passes(new, champion, margin, alpha)
            if self.variant.reference:
                also, too = passes(new, reference, margin, alpha)
                serves, better = serves & also, better & too & also
                reference[better] = new[better]
            champion[serves], level[serves] = new[serves], asked[serves]
            yield serves, level.mean(axis=1) / margin


def in_a_row(models: Models, n: int, runs: int, variant: Variant, rng: np.random.Generator) -> dict[str, float]:
    """Fifty gatings on the same patients: bad ones that pass, good ones that pass, and what is lost in the end."""

    def run(loss: float, against_champion: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = rng.integers(models.patients, size=(runs, n))
        return list(Run(models, variant, rows, rng).judge_all(loss, against_champion))

    bad, equal, half, whole = run(2), run(0, False), run(0.5), run(1)
    return {
        "any worse by 2 served": float(np.any([serves for serves, _ in bad], axis=0).mean()),
        "equal accepted": float(np.mean([serves for serves, _ in equal])),
        "equal accepted, last ten": float(np.mean([serves for serves, _ in equal[-10:]])),
        "loss after, each 0.5 worse": float(half[-1][1].mean()),
        "95th percentile, each 0.5 worse": float(np.quantile(half[-1][1], 0.95)),
        "loss after, each 1 worse": float(whole[-1][1].mean()),
        "95th percentile, each 1 worse": float(np.quantile(whole[-1][1], 0.95)),
    }


def read_models(entry: dict[str, Any]) -> Models:
    """A stored set; patients without a score of every label are left out."""
    labels = sorted({label for scores in entry["patients"].values() for label in scores})
    whole = [scores for _, scores in sorted(entry["patients"].items()) if len(scores) == len(labels)]
    values = np.array([[scores[label] for label in labels] for scores in whole], dtype=float)
    return Models(values.transpose(0, 2, 1), float(entry["margin"]))


def measure(stored: dict[str, Any], resamples: int, runs: int) -> dict[str, Any]:
    """Every figure, by set and number of patients."""
    sets = {}
    for name, entry in sorted(stored.items()):
        models, rng = read_models(entry), np.random.default_rng(0)
        sets[name] = {
            "patients": models.patients,
            "models": models.count,
            "labels": models.labels,
            "margin": models.margin,
            "spread": round(models.spread, 4),
            "single": {str(n): _round(singles(models, n, resamples, rng)) for n in PATIENTS},
            "fifty": {
                variant.name: {str(n): _round(in_a_row(models, n, runs, variant, rng)) for n in PATIENTS}
                for variant in VARIANTS
            },
        }
    return {"resamplings": resamples, "runs": runs, "gatings": GATINGS, "chosen": CHOSEN.name, "sets": sets}


def _round(found: dict[str, float]) -> dict[str, float]:
    return {what: round(value, 4) for what, value in found.items()}


def table(figures: dict[str, Any]) -> str:
    """The tables of docs/gate.md."""
    lines: list[str] = []
    shown = {Variant(False, 0.0).name, Variant(True, 0.0).name, figures["chosen"]}  # the others in brief
    for name, of in figures["sets"].items():
        lines += [
            f"**{name}**: {of['models']} models, {of['patients']} patients, {_labels(of['labels'])},",
            f"margin {of['margin']}; the difference of two honest models has a deviation of {of['spread']:.3f} over "
            "patients.",
            "",
            "| held-out patients | serves: equal | worse by 1 margin | by 2 | by 3 | one class by 2 | equal: held, the "
            "batch changes the result |",
            "|---|---|---|---|---|---|---|",
        ]
        for n, row in of["single"].items():
            cells = [row[f"{loss:g}"] for loss in LOSSES] + [row["one label by 2"], row["equal, held"]]
            lines.append(f"| {n} | " + " | ".join(_percent(cell) for cell in cells) + " |")
        lines += [
            "",
            f"Over {figures['gatings']} gatings in a row on the same patients:",
            "",
            "| rule | held-out patients | any worse by 2 margins served | equal ones accepted | the last ten | true "
            "loss if each is worse by ½ margin (95th percentile) | by 1 margin (95th percentile) |",
            "|---|---|---|---|---|---|---|",
        ]
        for variant, by_n in of["fifty"].items():
            for n, row in by_n.items():
                if variant not in shown and n not in ("12", "25"):
                    continue
                bold = "**" if variant == figures["chosen"] else ""
                cells = [_percent(row[what]) for what in list(row)[:3]]
                cells += [
                    f"{row[f'loss after, each {x} worse']:.1f} ({row[f'95th percentile, each {x} worse']:.1f}) margins"
                    for x in ("0.5", "1")
                ]
                lines.append(f"| {bold}{variant}{bold} | {n} | " + " | ".join(cells) + " |")
        lines += ["", *textwrap.wrap(targets(of, figures["chosen"]), 119), ""]
    return "\n".join(lines).rstrip()


def targets(of: dict[str, Any], chosen: str) -> str:
    """What was aimed at and what was found, in a sentence; how many patients it takes where it was not reached."""
    single, fifty = of["single"], of["fifty"][chosen]
    bad = max(max(single[n]["2"], fifty[n]["any worse by 2 served"]) for n in ("12", "25", "40"))
    good = min(min(single[n]["0"], fifty[n]["equal accepted"]) for n in ("25", "40"))
    told = (
        f"Aimed at: with 12 patients or more a challenger worse by 2 margins serves in at most 5 %; found at most "
        f"{_percent(bad)}, any of fifty included. With 25 or more an equal one is accepted in at least 80 %; found at "
        f"least {_percent(good)}, fifty in a row included."
    )
    if good >= 0.8:
        return told
    if min(single[n]["0"] for n in ("25", "40")) >= 0.8:
        return f"{told} One judgement reaches it; fifty on the same patients do not."
    needed = (sum(norm.ppf((1 - ALPHA, 0.8))) * of["spread"] / of["margin"]) ** 2
    return (
        f"{told} It is not reachable here: differences of honest models vary by {of['spread'] / of['margin']:.1f} "
        f"margins between patients, so already one judgement takes about {needed:.0f} patients for 80 %. A margin of "
        f"{of['spread'] / 2:.2f} would need about 25."
    )


def _labels(count: int) -> str:
    return f"{count} label{'s' if count > 1 else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what lies between the markers of a page."""
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- {name}: end -->"
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    if end not in rest:
        msg = f"{path} lacks {begin!r} followed by {end!r}"
        raise ValueError(msg)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def draw(figures: dict[str, Any], path: Path) -> None:
    """Share that serves by true loss, and the loss after fifty gatings."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = figures["sets"]
    figure, axes = plt.subplots(len(sets), 2, figsize=(8, 2.9 * len(sets)), squeeze=False, layout="constrained")
    shown = {Variant(False, 0.0).name: "tab:red", Variant(True, 0.0).name: "tab:orange", figures["chosen"]: "tab:blue"}
    for (left, right), (name, of) in zip(axes, sets.items(), strict=True):
        for n, row in of["single"].items():
            left.plot(LOSSES, [100 * row[f"{loss:g}"] for loss in LOSSES], marker="o", ms=3, label=f"{n} patients")
        left.axhline(5, color="grey", lw=0.8, ls=":")
        left.set(title=f"{name}: one judgement", xlabel="true loss, margins", ylabel="serves, %", xticks=LOSSES)
        left.legend(fontsize=7)
        for variant, colour in shown.items():
            losses = [of["fifty"][variant][str(n)]["loss after, each 0.5 worse"] for n in PATIENTS]
            right.plot(PATIENTS, losses, marker="o", ms=3, color=colour, label=variant)
        right.set(title="50 in a row, each worse by ½ margin", xlabel="held-out patients", ylabel="true loss, margins")
        right.legend(fontsize=7)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, default=HERE / "results" / "gate_scores.json")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "gate_error_rates.json")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    parser.add_argument("--singles", type=int, default=5000, help="resamplings of one judgement")
    parser.add_argument("--runs", type=int, default=2000, help="runs of fifty gatings")
    options = parser.parse_args(argv)
    stored = json.loads(options.scores.read_text(encoding="utf-8"))
    figures = {"command": "python benchmarks/gate_error_rates.py", **measure(stored, options.singles, options.runs)}
    options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_between(options.docs / "gate.md", "gate_error_rates", table(figures))
    draw(figures, options.docs / "gate_error_rates.png")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
