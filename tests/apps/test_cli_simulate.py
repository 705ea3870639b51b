"""`radloop simulate` on tiny studies: strategies, corrections, budgets, and going on after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.apps.cli import main
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

MASKS = """
name = "bright"
labels = { blob = 1, dark = 2 }
[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
steps = 3
epochs = 2
[evaluate]
lesions = ["blob"]
"""
WORDS = """
name = "side"
kind = "classification"
labels = { left = 1, right = 2 }
[answer]
column = "side"
[network]
name = "cnn"
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]
[fit]
patch = [16, 16, 8]
steps = 4
epochs = 2
"""
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
PATIENTS = 24


def _write_study(folder: Path, number: int) -> str:
    rng = np.random.default_rng(number)
    image = rng.normal(0, 1, (18, 18, 10)).astype(np.float32)
    truth = np.zeros(image.shape, np.uint8)
    left = bool(number % 2)
    for value, x in ((1, 2 if left else 11), (2, 11 if left else 2)):
        y = int(rng.integers(2, 11))
        blob = (slice(x, x + 5), slice(y, y + 5), slice(3, 8))
        image[blob] += 8 if value == 1 else -8
        truth[blob] = value
    nib.save(nib.Nifti1Image(image, AFFINE), folder / f"case{number:02d}.nii.gz")
    nib.save(nib.Nifti1Image(truth, AFFINE), folder / "labels" / "final" / f"case{number:02d}.nii.gz")
    return f"case{number:02d},patient{number:02d},{'left' if left else 'right'}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `studies`, whose split is stored, and the recipes."""
    top = tmp_path_factory.mktemp("simulate")
    studies = top / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    lines = [_write_study(studies, number) for number in range(PATIENTS)]
    (studies / "answers.csv").write_text("image,patient,side\n" + "\n".join(lines) + "\n")
    (studies / "labels" / "names.json").write_text('{"blob": 1, "dark": 2}')
    (top / "bright.toml").write_text(MASKS)
    (top / "side.toml").write_text(WORDS)
    Split(Ledger(Home.find(studies)), "salt").assign(f"patient{number:02d}" for number in range(PATIENTS))
    return top


def _command(place: Path, recipe: str, out: Path, *words: str) -> list[str]:
    fixed = ["simulate", str(place / f"{recipe}.toml"), "--studies", str(place / "studies"), "--json", str(out)]
    return [*fixed, *words]


def _everything(folder: Path) -> dict[str, object]:
    """Every file, and of a database its rows: opening one moves its journal into it."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as database:
                found[name] = list(database.iterdump())
        elif path.is_file() and not name.endswith(("-wal", "-shm")):
            found[name] = path.read_bytes()
    return found


ROUNDS = ("--strategy", "random,coverage,entropy", "--rounds", "2", "--per-round", "3", "--seeds", "2")


@pytest.fixture(scope="module")
def curves(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a small comparison; its steps are beside it."""
    out = tmp_path_factory.mktemp("curves") / "masks.json"
    before = _everything(place / "studies")
    assert main(_command(place, "bright", out, *ROUNDS, "--picture", str(out.with_suffix(".png")))) == 0
    assert _everything(place / "studies") == before, "the studies or their home changed"
    return out


def test_curves_areas_and_leads_are_told(curves: Path, place: Path) -> None:
    told = json.loads(curves.read_text())
    sides = Split(Ledger(Home.find(place / "studies"))).stored()
    count = {side: sum(of == side for of in sides.values()) for side in ("train", "test")}
    assert (told["pool"]["studies"], told["n"], told["figure"]) == (count["train"], count["test"], "Dice")
    assert told["complete"]
    assert list(told["strategies"]) == ["random", "coverage", "entropy"]
    for name, of in told["strategies"].items():
        assert [entry["labels"] for entry in of["rounds"]] == [3, 6]
        assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in of["rounds"])
        assert all(entry["path_mm"]["value"] > 0 for entry in of["rounds"])
        assert 0 < of["rounds"][0]["foreground"] < of["rounds"][1]["foreground"] < 1
        assert ("random" in of["against"]) == (name != "random")
        assert "labels_to_95" in of
    assert told["full"]["value"] > 0
    assert told["machine_hours"] > 0
    assert curves.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_only_training_patients_are_drawn_and_none_twice(curves: Path, place: Path) -> None:
    told = json.loads(curves.read_text())
    sides = Split(Ledger(Home.find(place / "studies"))).stored()
    for seeds in told["chosen"].values():
        for rounds in seeds.values():
            every = [study for chosen in rounds for study in chosen]
            assert len(every) == len(set(every)) == 6
            assert {sides[study.replace("case", "patient")] for study in every} == {"train"}
    # those that need a model begin with the same draw; one that looks at images alone chooses itself
    chosen = told["chosen"]
    assert chosen["random"]["0"][0] == chosen["entropy"]["0"][0]
    assert chosen["random"]["0"][0] != chosen["random"]["1"][0]
    assert chosen["coverage"]["0"] == chosen["coverage"]["1"]


def test_what_is_done_is_not_done_again(curves: Path, place: Path) -> None:
    told = json.loads(curves.read_text())
    steps = sorted((curves.parent / "masks.steps" / "steps").glob("*.json"))
    # 2 with all labels; of each seed: 1 first step that two strategies share, and 1 of coverage; 3 second ones
    assert len(steps) == 2 + 2 * 2 + 2 * 3
    times = [file.stat().st_mtime_ns for file in steps[1:]]
    steps[0].unlink()
    assert main(_command(place, "bright", curves, *ROUNDS)) == 0
    assert steps[0].is_file()
    assert [file.stat().st_mtime_ns for file in steps[1:]] == times
    again = json.loads(curves.read_text())
    assert again["strategies"] == told["strategies"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_comes_to_the_same(curves: Path, place: Path, tmp_path: Path) -> None:
    words = _command(place, "bright", tmp_path / "masks.json", *ROUNDS, "--jobs", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "radloop.apps.cli", *words],
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    steps, until = tmp_path / "masks.steps" / "steps", time.monotonic() + 120
    while len(list(steps.glob("*.json")) if steps.is_dir() else []) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 30
    while _members(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _members(process.pid), "processes were left behind"
    there = {file.name: file.stat().st_mtime_ns for file in steps.glob("*.json")}
    assert 3 <= len(there) < 12
    assert main(words) == 0
    assert {name: (steps / name).stat().st_mtime_ns for name in there} == there
    told, other = (json.loads(file.read_text()) for file in (tmp_path / "masks.json", curves))
    assert told["complete"]
    assert told["chosen"] == other["chosen"]


def _members(group: int) -> list[int]:
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, its = rest.split()[:3]
        if int(its) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_classes_are_measured_by_their_roc_area(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "words.json"
    words = ("--strategy", "random", "--rounds", "2", "--per-round", "2", "--start", "1")
    assert main(_command(place, "side", out, *words)) == 0
    told = json.loads(out.read_text())
    assert told["figure"] == "ROC AUC"
    assert "one seed: intervals hold for other patients" in capsys.readouterr().out
    rounds = told["strategies"]["random"]["rounds"]
    assert [entry["labels"] for entry in rounds] == [1, 3]
    # one label says nothing to tell apart, so the answer is always the same
    assert rounds[0]["value"] == 0.5
    assert "path_mm" not in rounds[0]
    assert "foreground_efficiency" not in told["strategies"]["random"]


def test_corrections_are_given_back_round_by_round(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corrections.json"
    words = ("--corrections", "--rounds", "2", "--per-round", "4", "--picture", str(tmp_path / "c.png"))
    assert main(_command(place, "bright", out, *words)) == 0
    told = json.loads(out.read_text())
    assert told["damage"] == ["eroded", "missing", "shifted", "swapped"]
    assert set(told["ways"]) == {"fine-tuned", "afresh", "corrected-alone"}
    first = {of["rounds"][0]["value"] for of in told["ways"].values()}
    assert len(first) == 1, "all ways begin with the champion"
    for of in told["ways"].values():
        assert [entry["labels"] for entry in of["rounds"]] == [0, 4, 8]
        assert of["gain"]["value"] == pytest.approx(of["rounds"][-1]["value"] - of["rounds"][0]["value"], abs=1e-5)
        assert of["gain_per_case"]["value"] == pytest.approx(of["gain"]["value"] / 8)
        assert set(of["forgotten"]) == {"value", "low", "high"}
    assert told["ways"]["fine-tuned"]["against"]["afresh"]["area"]["seeds"] == 1
    assert (tmp_path / "c.png").is_file()
    assert "8 labels damaged (eroded, missing, shifted, swapped)" in capsys.readouterr().out


def test_a_budget_that_changes_nothing_when_doubled_is_enough(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow.toml").write_text(MASKS.replace("steps = 3", "steps = 1\nlearning_rate = 1e-9"))
    out = tmp_path / "budget.json"
    words = ["simulate", str(tmp_path / "slow.toml"), "--studies", str(place / "studies"), "--json", str(out)]
    assert main([*words, "--check-budget", "--epochs", "3"]) == 0
    told = json.loads(out.read_text())
    assert told["side"] == "validation"
    assert [entry["epochs"] for entry in told["budgets"]] == [3, 6]
    assert told["epochs"] == 3
    assert "--epochs 3 is enough" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--rounds", "2", "--per-round", "2"), 2, "--strategy"),
        (("--strategy", "random", "--rounds", "2"), 2, "--per-round"),
        (("--check-budget", "--rounds", "2"), 2, "--rounds"),
        (("--corrections", "--strategy", "random", "--rounds", "1", "--per-round", "1"), 2, "neither --strategy"),
        (("--strategy", "rondom", "--rounds", "1", "--per-round", "1"), 1, "did you mean 'random'"),
        (("--strategy", "random", "--rounds", "9", "--per-round", "9"), 1, "81 studies"),
        (("--corrections", "--rounds", "9", "--per-round", "9"), 1, "81 labels"),
    ],
)
def test_mistakes_are_told_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    assert main(_command(place, "bright", tmp_path / "x.json", *words)) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_two_at_once_in_one_folder_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from radloop.strategies.simulate import alone

    with alone(tmp_path / "x.steps"):
        assert main(_command(place, "bright", tmp_path / "x.json", "--check-budget")) == 1
    assert "another simulation works in" in capsys.readouterr().err
