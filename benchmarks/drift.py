"""How often the drift alarm is false when every label is a look, and how often it notices a fall.

    python benchmarks/drift.py [--runs 1000]

Scores are drawn, not measured: of masks (normal, deviation .04), of masks of which one in ten is missed, of answers in
words of which 15 % are wrong. `before` patients were labelled when the version was made, then come 60 more; an alarm at
any of them counts. Writes benchmarks/results/drift.json and prints the table of docs/active-learning.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from radloop.evaluation.compare import FULL
from radloop.evaluation.drift import NEWEST, drifted

OUT = Path(__file__).parent / "results" / "drift.json"
MARGIN, LABELS = 0.02, 60
BEFORE, FALLS = (10, 25), (0.0, 0.05, 0.1)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def masks(rng: np.random.Generator, n: int) -> np.ndarray:
    """Dice of an organ."""
    return np.clip(rng.normal(0.87, 0.04, n), 0, 1)


def lesions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Dice of lesions, some of which are missed."""
    return np.where(rng.random(n) < 0.1, rng.uniform(0, 0.5, n), np.clip(rng.normal(0.85, 0.05, n), 0, 1))


def answers(rng: np.random.Generator, n: int) -> np.ndarray:
    """1 minus the Brier score of answers, some of which are wrong."""
    return 1 - np.where(rng.random(n) < 0.15, rng.uniform(0.3, 1, n), rng.uniform(0, 0.1, n))


def alarm(draw: Draw, before: int, fall: float, rng: np.random.Generator) -> int | None:
    """Labels until the alarm, or None."""
    old, new = draw(rng, before).tolist(), (draw(rng, LABELS) - fall).tolist()
    looks = range(FULL, LABELS + 1)
    return next((n for n in looks if drifted(old, new[max(0, n - NEWEST) : n], MARGIN)), None)


def measure(runs: int) -> list[dict[str, object]]:
    """One row for each kind of score, patients before, and fall."""
    rows = []
    for draw in (masks, lesions, answers):
        for before in BEFORE:
            for fall in FALLS:
                rng = np.random.default_rng(0)
                after = [n for n in (alarm(draw, before, fall, rng) for _ in range(runs)) if n is not None]
                row = {"scores": draw.__name__, "before": before, "fall": fall, "alarms": len(after) / runs}
                rows.append({**row, "labels": float(np.median(after)) if after else None})
    return rows


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """In Markdown."""
    lines = ["| scores of | labelled before | falls by | alarm within 60 labels | after, median |", f"|{'---|' * 5}"]
    for row in rows:
        after = "-" if row["labels"] is None else f"{row['labels']:.0f} labels"
        lines.append(f"| {row['scores']} | {row['before']} | {row['fall']} | {row['alarms']:.1%} | {after} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args(argv)
    rows = measure(options.runs)
    options.json.write_text(json.dumps({"runs": options.runs, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
