"""Does the gate stop bad retrains and let good ones through? Real trainings on the hippocampus set.

A champion is trained on 16 labels and judged on 8 held-out patients, all read by an honest reader. Then 64 more
training patients and 12 more held-out ones are labelled, and each challenger is trained on all of it:

    honest        by the same honest reader (10 runs)
    rate          honest labels, learning rate times 1000 (5 runs)
    organ         new training labels show another organ: everything brighter than the rest of the crop (5 runs)
    shifted       a third of the new training masks lies 10 mm off (5 runs)
    swapped       anterior and posterior are swapped in the new training labels (5 runs)
    both          another organ, in the new held-out labels too (5 runs)

    python benchmarks/gate_retrains.py [--data DIR] [--work DIR] [--runs honest-0,rate-1,...] [--threads 2]

A challenger is bad if its mean Dice over all patients that nobody labelled is below the champion's by more than the
margin, whatever it was made from. Each run has its own draw of patients and its own seed. The recipe is the shipped
one at 2 mm, so that a retrain takes seconds instead of minutes. A run already in the result file is not made again.
Also writes the honest versions' scores for `gate_error_rates.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from prepare import prepare
from scipy import ndimage
from tqdm import tqdm

from radloop.engine.assess import CaseScore, label_scores, patient_scores, score_cases
from radloop.engine.predictor import Predictor
from radloop.engine.train import train_version
from radloop.evaluation.intervals import bootstrap_mean, paired_differences
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import Recipe
from radloop.registry.registry import Registry
from radloop.studies.accept import accept_label
from radloop.studies.cases import Case
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import read_mask, read_study, write_mask
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

HERE = Path(__file__).parent
SALT = "benchmark"  # the same split in every run and on every machine
KINDS = {"honest": 10, "rate": 5, "organ": 5, "shifted": 5, "swapped": 5, "both": 5}
RUNS = tuple(f"{kind}-{number}" for kind, count in KINDS.items() for number in range(count))
FIRST, LATER = {"train": 16, "validation": 8}, {"train": 64, "validation": 12}
EPOCHS = {"champion": 5, "challenger": 2}  # of 50 steps
CHAMPIONS = 5  # honest runs 5-9 start from the champions of 0-4, with other new labels
SHIFT_MM = 10


@dataclass(frozen=True)
class Place:
    """The studies, their true masks, and the sides of their patients."""

    folder: StudiesFolder
    truth: Path
    recipe: Recipe

    def mask(self, study: str) -> Path:
        """The true mask of a study."""
        return self.truth / f"{study}.nii.gz"

    def case(self, study: str) -> Case:
        """A study with its true mask, to measure on."""
        found = self.folder.study(study)
        names = self.recipe.label_names
        return Case(study, found.patient, "test", found.first_channels(1), self.mask(study), names, 0, blind=True)


def open_place(work: Path, data: Path) -> Place:
    """The prepared studies; their masks are kept apart, where no ledger looks."""
    studies, truth = work / "studies", work / "truth"
    if not truth.is_dir():
        shutil.rmtree(studies, ignore_errors=True)
        prepare("hippocampus", studies, data)
        (studies / "labels" / "final").rename(truth)
    shipped = load_recipe("hippocampus").model_dump()
    shipped["preprocess"]["spacing"] = (2.0, 2.0, 2.0)
    shipped["network"] |= {"features": (16, 32, 64), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2))}
    shipped["fit"] |= {"patch": (20, 28, 20)}
    return Place(StudiesFolder(studies), truth, Recipe.model_validate(shipped))


def draw(place: Place, ledger: Ledger, seed: int) -> tuple[list[str], list[str]]:
    """Studies of the first batch and of the later one; held-out ones are the same in every run."""
    studies = place.folder.studies()
    sides = Split(ledger, SALT).assign(study.patient for study in studies.values())
    first, later = [], []
    for side in ("train", "validation"):
        there = sorted(i for i, study in studies.items() if sides[study.patient] == side)
        random.Random(seed % CHAMPIONS if side == "train" else 0).shuffle(there)
        first += there[: FIRST[side]]
        rest = there[FIRST[side] :]
        random.Random(seed if side == "train" else 0).shuffle(rest)
        later += rest[: LATER[side]]
    return first, later


def label(place: Place, ledger: Ledger, study: str, author: str, wrong: str = "") -> None:
    """One reader's label of a study."""
    if not wrong:
        accept_label(place.folder, ledger, place.recipe, study, place.mask(study), author=author)
        return
    mask, image = read_mask(place.mask(study)), read_study(place.folder.study(study).first_channels(1))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "mask.nii.gz"
        write_mask(file, spoil(mask.array[0], image.array[0], image.spacing, wrong), mask.affine)
        accept_label(place.folder, ledger, place.recipe, study, file, author=author)


def spoil(mask: np.ndarray, image: np.ndarray, spacing: Sequence[float], wrong: str) -> np.ndarray:
    """(X, Y, Z) uint8: the mask as a mistaken reader gives it."""
    if wrong == "swapped":
        return np.choose(mask, (0, 2, 1)).astype(np.uint8)
    if wrong == "shifted":
        return ndimage.shift(mask, [SHIFT_MM / spacing[0], 0, 0], order=0).astype(np.uint8)
    # another organ: the brightest tissue in the crop, its front half called anterior
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 1)
    bright = smooth > np.quantile(smooth, 0.9)
    front = np.arange(mask.shape[1])[None, :, None] >= mask.shape[1] // 2
    return np.where(bright, np.where(front, 1, 2), 0).astype(np.uint8)


def champion_home(place: Place, work: Path, seed: int, threads: int) -> Path:
    """The home with the champion that a run starts from, made once for each draw of patients."""
    path = work / f"home-{seed % CHAMPIONS}"
    if (path / "ready").is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    home = Home(path)
    ledger = Ledger(home)
    for study in draw(place, ledger, seed)[0]:
        label(place, ledger, study, "ann")
    _train(place, home, place.recipe, EPOCHS["champion"], seed % CHAMPIONS, threads, "champion")
    champion = Registry(home).champion(place.recipe.name)
    if champion is None:
        msg = "the first model did not pass the gate, so there is no champion to start from"
        raise RuntimeError(msg)
    every = [place.case(study) for study in sorted(place.folder.studies())]
    scores = score_cases(Predictor(place.recipe, champion.weights), every, surfaces=False)
    (path / "ready").write_text(json.dumps([asdict(score) for score in scores]))
    return path


def measure(place: Place, work: Path, run: str, threads: int) -> dict[str, Any]:
    """One retrain: what the gate said, and what is true of it."""
    kind, number = run.rsplit("-", 1)
    seed = int(number)
    base = champion_home(place, work, seed, threads)
    home = Home(work / f"run-{run}")
    shutil.rmtree(home.path, ignore_errors=True)
    shutil.copytree(base, home.path)
    ledger = Ledger(home)
    first, later = draw(place, ledger, seed)
    sides = Split(ledger, SALT)
    for place_in_batch, study in enumerate(later):
        held_out = sides.side(place.folder.study(study).patient) == "validation"
        wrong = {"organ": "organ", "swapped": "swapped", "both": "organ"}.get(kind, "")
        if kind == "shifted" and place_in_batch % 3 == 0:
            wrong = "shifted"
        if held_out and kind != "both":
            wrong = ""
        label(place, ledger, study, "bob" if wrong else "ann", wrong)
    recipe = place.recipe
    if kind == "rate":
        fast = recipe.fit.model_copy(update={"learning_rate": 1000 * recipe.fit.learning_rate})
        recipe = recipe.model_copy(update={"fit": fast})
    outcome = _train(place, home, recipe, EPOCHS["challenger"], 100 + seed, threads, run)
    unused = [place.case(study) for study in sorted(set(place.folder.studies()) - {*first, *later})]
    known = {case.study for case in unused}
    theirs = [CaseScore(**s) for s in json.loads((base / "ready").read_text()) if s["study"] in known]
    ours = score_cases(Predictor(recipe, outcome.version.weights), unused, surfaces=False)
    gap = bootstrap_mean(paired_differences(patient_scores(ours), patient_scores(theirs)))
    result = {
        "seed": seed,
        "served": outcome.version.serves,
        "state": outcome.version.state,
        "reason": outcome.decision.reason if outcome.decision else "",
        "bad": gap.value < -recipe.gate.margin,
        "unused_patients": len(patient_scores(ours)),
        "dice": fmean(patient_scores(ours).values()),
        "champion_dice": fmean(patient_scores(theirs).values()),
        "difference": asdict(gap),
        "gate": outcome.version.manifest["gate"],
        "scores": {"challenger": _by_label(ours), "champion": _by_label(theirs)},
    }
    shutil.rmtree(home.path)
    return result


def _train(place: Place, home: Home, recipe: Recipe, epochs: int, seed: int, threads: int, name: str) -> Any:
    with tqdm(total=100, unit="%", desc=name) as bar:
        return train_version(
            place.folder,
            home,
            recipe,
            epochs=epochs,
            seed=seed,
            threads=threads,
            progress=lambda now: bar.update(round(100 * now.share) - bar.n),
        )


def _by_label(scores: Sequence[CaseScore]) -> dict[str, dict[str, float]]:
    return {name: {p: round(v, 5) for p, v in of.items()} for name, of in label_scores(scores).items()}


def gate_scores(runs: dict[str, Any], margin: float) -> dict[str, Any]:
    """Patient -> label -> score of each honest challenger, on the patients that none of them used."""
    honest = [run["scores"]["challenger"] for name, run in sorted(runs.items()) if name.startswith("honest")]
    names = list(honest[0])
    common = set.intersection(*(set(scores[names[0]]) for scores in honest))
    patients = {p: {name: [scores[name][p] for scores in honest] for name in names} for p in sorted(common)}
    return {"margin": margin, "patients": patients}


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """Kind -> how many runs, how many of them bad, and how many served; and bad ones that served."""
    found = {}
    for kind in KINDS:
        of = [run for name, run in runs.items() if name.startswith(f"{kind}-")]
        if of:
            found[kind] = {
                "runs": len(of),
                "bad": sum(run["bad"] for run in of),
                "served": sum(run["served"] for run in of),
                "bad_and_served": sum(run["bad"] and run["served"] for run in of),
                "held": sum(run["state"] == "held" for run in of),
                "mean_difference": fmean(run["difference"]["value"] for run in of),
            }
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, write the figures, and return 0 where no bad one served and 9 honest ones did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RADLOOP_DATA"), help="default: RADLOOP_DATA")
    parser.add_argument("--work", type=Path, default=Path("gate-work"), help="studies and versions go here")
    parser.add_argument("--runs", default=",".join(RUNS), help="some of the runs, such as honest-0,rate-1")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "gate_retrains.json")
    parser.add_argument("--scores", type=Path, default=HERE / "results" / "gate_scores.json")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    names = options.runs.split(",")
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        parser.error(f"--runs has {unknown[0]!r}; there are {', '.join(RUNS)}")
    if options.data is None:
        parser.error("say with --data or RADLOOP_DATA where the sets are")
    place = open_place(options.work, Path(options.data))
    for name in names:
        runs = _read(options.json).get("runs", {})
        if name not in runs:
            result = measure(place, options.work, name, options.threads)
            runs = _read(options.json).get("runs", {}) | {name: result}  # another process may have written meanwhile
            told = {"command": "python benchmarks/gate_retrains.py", "first": FIRST, "later": LATER, "epochs": EPOCHS}
            ordered = {run: runs[run] for run in RUNS if run in runs}
            _write(options.json, {**told, "summary": summary(ordered), "runs": ordered})
        print(name, runs[name]["state"], f"true difference {runs[name]['difference']['value']:+.3f}")
    figures = _read(options.json)
    if all(f"honest-{number}" in figures["runs"] for number in range(KINDS["honest"])):
        known = _read(options.scores)
        _write(options.scores, known | {"hippocampus": gate_scores(figures["runs"], place.recipe.gate.margin)})
    told = figures["summary"]
    print(json.dumps(told, indent=1))
    stopped = all(not of["bad_and_served"] for of in told.values())
    return 0 if stopped and told.get("honest", {}).get("served", 0) >= 9 else 1


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
