"""How much do anchored labels favour the champion? A replay of a reader who mends only the big errors of its answer.

Three models learn from the same 16 hippocampus labels at 2 mm with different seeds, so none is better by design. In
each of the six ordered pairs one is the champion, whose answers the reader is shown, and one its challenger. Held-out
labels are

    blind      the true masks
    anchored   the champion's answer, in which a connected region of error (face to face) is mended only where it is
               larger than so many mm3, or, for another reader, deeper than so many mm

    python benchmarks/anchored.py [--data DIR] [--work DIR] [--threads 1]

The favour is (champion - challenger) on anchored labels minus the same on blind ones: mean Dice over both labels, mean
over patients, in margins of the recipe's gate; its interval is drawn over patients. The gate is asked about draws of 12
and of 25 held-out patients, each pair as often. What is in the work folder is not made again. Writes the table in
docs/blind-reading.md too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from gate_retrains import SALT, Place, open_place
from scipy import ndimage
from tqdm import tqdm

from radloop.engine.fit import fit
from radloop.engine.predictor import Predictor
from radloop.evaluation.gate_rule import judge
from radloop.evaluation.intervals import bootstrap_mean
from radloop.evaluation.metrics import dice
from radloop.recipes.recipe import Recipe
from radloop.registry.folders import WEIGHTS
from radloop.studies.cases import Case, read_label
from radloop.studies.home import Home
from radloop.studies.images import read_study
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "blind-reading.md"
BEGIN, END = "<!-- anchored: begin -->\n", "<!-- anchored: end -->"
LABELS, EPOCHS, SEEDS = 16, 5, (0, 1, 2)  # epochs of 50 steps
VOLUMES, DEPTHS = (0.0, 5.0, 20.0, 50.0, 100.0, 200.0), (1.0, 1.5, 2.0, 3.0)
DRAWN, DRAWS = (12, 25), 500

Scores = dict[str, dict[str, float]]  # label -> patient -> Dice


def cases_of(place: Place, home: Home) -> tuple[list[Case], list[Case]]:
    """The cases to learn from, and all held-out ones, with their true masks."""
    studies = place.folder.studies()
    sides = Split(Ledger(home), SALT).assign(study.patient for study in studies.values())
    train = [place.case(i) for i, study in studies.items() if sides[study.patient] == "train"]
    return random.Random(0).sample(train, LABELS), [
        place.case(i) for i, study in studies.items() if sides[study.patient] != "train"
    ]


def answers(
    recipe: Recipe, train: list[Case], held_out: list[Case], work: Path, seed: int, threads: int
) -> dict[str, np.ndarray]:
    """Study -> a model's answer, (X, Y, Z) uint8; trained and predicted once."""
    file = work / f"answers-{seed}.npz"
    if not file.is_file():
        model = work / f"model-{seed}"
        if not (model / "done").is_file():
            model.mkdir(parents=True, exist_ok=True)
            with tqdm(total=100, unit="%", desc=f"model {seed}") as bar:

                def progress(now: Any) -> None:
                    bar.update(round(100 * now.share) - bar.n)

                fit(recipe, train, model, cache=work / "cache", epochs=EPOCHS, seed=seed, threads=threads,
                    progress=progress)  # fmt: skip
            (model / "done").touch()
        predictor = Predictor(recipe, model / WEIGHTS)
        found = {case.study: predictor.predict(read_study(case.channels)).mask for case in tqdm(held_out, "answers")}
        np.savez_compressed(file, **found)
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


def anchored(answer: np.ndarray, true: np.ndarray, voxel: Sequence[float], kind: str, threshold: float) -> np.ndarray:
    """(X, Y, Z) uint8: the answer with the errors that a reader mends who lets small ones pass.

    Args:
        voxel: mm along the axes.
        kind: `volume` or `depth`.
        threshold: mm3, or mm from the region's inside to its border; what is larger is mended.
    """
    regions, count = ndimage.label(answer != true)
    numbers = np.arange(1, count + 1)
    if kind == "volume":
        size = ndimage.sum_labels(np.ones_like(regions), regions, numbers) * float(np.prod(voxel))
    else:
        size = ndimage.maximum(ndimage.distance_transform_edt(regions > 0, sampling=voxel), regions, numbers)
    mended = np.isin(regions, numbers[np.asarray(size) > threshold])
    return np.where(mended, true, answer).astype(np.uint8)


def score(
    recipe: Recipe, cases: Sequence[Case], masks: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> Scores:
    """Label -> patient -> Dice; each patient of this set has one study."""
    found: Scores = {name: {} for name in recipe.labels}
    for case in cases:
        values = dice(masks[case.study], labels[case.study], list(recipe.labels.values()))
        for name, number in recipe.labels.items():
            value = values[number]
            if value is not None:
                found[name][case.patient] = value
    return found


def means(scores: Scores) -> dict[str, float]:
    """Patient -> mean over labels."""
    patients = sorted({patient for of in scores.values() for patient in of})
    return {p: fmean(of[p] for of in scores.values() if p in of) for p in patients}


def refused(pairs: Iterable[tuple[Scores, Scores]], margin: float, count: int) -> float:
    """Share of judgements that keep a challenger out; pairs of champion's and challenger's scores."""
    chance, told = random.Random(count), []
    for champion, challenger in pairs:
        patients = sorted(means(champion))
        for _ in range(DRAWS):
            drawn = set(chance.sample(patients, count))
            ours, theirs = (
                {name: {p: v for p, v in of.items() if p in drawn} for name, of in scores.items()}
                for scores in (challenger, champion)
            )
            decision = judge(means(ours), means(theirs), None, margin, challenger_labels=ours, champion_labels=theirs)
            told.append(not decision.serves)
    return round(fmean(told), 4)


def measure(
    recipe: Recipe, cases: Sequence[Case], models: Mapping[int, Mapping[str, np.ndarray]], kind: str, threshold: float
) -> dict[str, Any]:
    """What anchored labels of one reader do, over every ordered pair of models."""
    true = {case.study: read_label(case, recipe.labels).array[0] for case in cases}
    voxel = {case.study: read_study(case.channels).spacing for case in cases}
    margin, pairs, favour, kept = recipe.gate.margin, [], [], []
    blind = {seed: score(recipe, cases, found, true) for seed, found in models.items()}
    for champion, challenger in itertools.permutations(models, 2):
        labels = {s: anchored(models[champion][s], true[s], voxel[s], kind, threshold) for s in true}
        ours, theirs = (score(recipe, cases, models[seed], labels) for seed in (champion, challenger))
        pairs.append((ours, theirs))
        kept.append(means(score(recipe, cases, labels, true)))
        gaps = [means(one) for one in (ours, theirs, blind[champion], blind[challenger])]
        favour.append({p: (gaps[0][p] - gaps[1][p]) - (gaps[2][p] - gaps[3][p]) for p in gaps[0]})
    over = {p: fmean(one[p] for one in favour) / margin for p in favour[0]}
    return {
        "kind": kind,
        "threshold": threshold,
        "favour_in_margins": asdict(bootstrap_mean(over)),
        "label_dice": round(fmean(v for one in kept for v in one.values()), 4),
        "refused": {str(count): refused(pairs, margin, count) for count in DRAWN},
        "pairs": [
            {"champion": a, "challenger": b, "favour_in_margins": round(fmean(one.values()) / margin, 3)}
            for (a, b), one in zip(itertools.permutations(models, 2), favour, strict=True)
        ],
    }


def table(figures: Mapping[str, Any]) -> str:
    """The results in Markdown, one row a reader."""
    lines = [
        "| errors that the reader lets pass | Dice with the true labels | favour in margins (95 % interval) "
        "| refused, n = 12 | refused, n = 25 |",
        "|---|---|---|---|---|",
    ]
    for run in figures["runs"]:
        unit = "mm³" if run["kind"] == "volume" else "mm deep"
        what = f"up to {run['threshold']:g} {unit}" if run["threshold"] else "none (blind labels)"
        of, share = run["favour_in_margins"], [f"{100 * run['refused'][str(n)]:.0f} %" for n in DRAWN]
        middle = f"{of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f})"
        lines.append(f"| {what} | {run['label_dice']:.3f} | {middle} | {share[0]} | {share[1]} |")
    dices = ", ".join(f"{value:.3f}" for value in figures["dice"].values())
    lines.append("")
    lines.append(
        f"Models: {figures['labels']} labels, {figures['epochs']} epochs each, Dice {dices} on the true masks of "
        f"{figures['patients']} held-out patients; margin {figures['margin']:g}. Command: `{figures['command']}`."
    )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Train, replay, write the figures and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("anchored-work"), help="studies and models go here")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "anchored.json")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    place = open_place(options.work, Path(options.data))
    recipe = place.recipe
    train, held_out = cases_of(place, Home(options.work / "home"))
    models = {seed: answers(recipe, train, held_out, options.work, seed, options.threads) for seed in SEEDS}
    true = {case.study: read_label(case, recipe.labels).array[0] for case in held_out}
    figures = {
        "command": "python benchmarks/anchored.py",
        "labels": LABELS,
        "epochs": EPOCHS,
        "patients": len({case.patient for case in held_out}),
        "margin": recipe.gate.margin,
        "dice": {str(s): round(fmean(means(score(recipe, held_out, m, true)).values()), 4) for s, m in models.items()},
    }
    readers = [*(("volume", v) for v in VOLUMES), *(("depth", d) for d in DEPTHS)]
    figures["runs"] = [measure(recipe, held_out, models, *reader) for reader in tqdm(readers, "readers")]
    options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    start = page.index(BEGIN) + len(BEGIN)
    PAGE.write_text(page[:start] + table(figures) + page[page.index(END) :], encoding="utf-8")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
