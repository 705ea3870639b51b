"""Studies that lack a channel or a covariate, from the command line: measured by part, answered with a warning."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.apps.champions import Champions
from radloop.apps.cli import main
from radloop.engine.covariates import Covariates
from radloop.engine.weights import save_weights
from radloop.evaluation.probability_interval import Band
from radloop.infers.answers import AnswerInfer
from radloop.infers.boxes import BoxInfer
from radloop.infers.segmentation import SegmentationInfer
from radloop.networks.registry import build
from radloop.recipes.boxes import boxes_of
from radloop.recipes.load import load_recipe, parse_recipe
from radloop.registry.registry import Registry
from radloop.studies.accept import accept_label
from radloop.studies.box_files import write_boxes
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

HEAD = """
channels = ["flair", "t1c"]
optional = ["t1c"]
modality = "MR"
[fit]
patch = [16, 16, 8]
"""
MASK = 'name = "spot"\nlabels = { spot = 1 }' + HEAD + "[network]\nfeatures = [4, 8]\nstrides = [[1,1,1],[2,2,2]]\n"
WORDS = (
    'name = "shade"\nkind = "classification"\nlabels = { dark = 1, bright = 2 }'
    + HEAD
    + '[network]\nname = "cnn"\nfeatures = [4, 8]\n[answer]\ncovariates = ["age"]\n'
)
BOXES = (
    'name = "frames"\nkind = "detection"\nlabels = { spot = 1 }'
    + HEAD
    + '[network]\nname = "retinanet"\nfeatures = [4, 8, 8]\n'
)
STUDIES = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve studies, of which half lack a channel and a third the age, and an untrained version of each recipe."""
    studies = tmp_path_factory.mktemp("incomplete") / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    lines = ["image,site,age,shade"]
    for number in range(STUDIES):
        image = np.random.default_rng(number).normal(0, 1, (16, 16, 8)).astype(np.float32)
        mask = np.zeros(image.shape, np.uint8)
        mask[4:9, 4:9, 2:5] = 1
        for channel in range(1 + number % 2):
            nib.save(nib.Nifti1Image(image, np.eye(4)), studies / f"s{number:02d}_{channel:04d}.nii.gz")
        nib.save(nib.Nifti1Image(mask, np.eye(4)), studies / "labels" / "final" / f"s{number:02d}.nii.gz")
        age = "" if number % 3 == 0 else str(40 + number)
        lines.append(f"s{number:02d},{'north' if number < 8 else 'south'},{age},{'dark' if number % 4 else 'bright'}")
    (studies / "answers.csv").write_text("\n".join(lines) + "\n")
    home = Home.find(studies)
    for number in range(STUDIES):
        box = boxes_of(np.array([[4.0, 4, 2, 9, 9, 5]]), ["spot"], np.eye(4))
        write_boxes(studies / "box.json", box)
        recipe = parse_recipe(BOXES)
        accept_label(StudiesFolder(studies), Ledger(home), recipe, f"s{number:02d}", studies / "box.json", author="r")
    (studies / "all.txt").write_text("".join(f"s{number:02d}\n" for number in range(STUDIES)))
    registry = Registry(home)
    for name, text in (("spot", MASK), ("shade", WORDS), ("frames", BOXES)):
        (home.recipes / f"{name}.toml").write_text(text)
        recipe = load_recipe(name, home.path)
        staged = registry.stage(recipe)
        age = Covariates(("age",), (50.0,), (50.0,), (5.0,)).as_dict()
        band = Band({"bright": [(-1.0, 1.0), (1.0, 1.0)]}, 20).as_dict()
        kept = {"covariates": age, "band": band} if name == "shade" else None
        save_weights(build(recipe), staged / "model.pt", kept)
        registry.promote(registry.publish(recipe, staged, {"labels": []}))
    return studies


def measured(place: Path, recipe: str, out: Path, *words: str) -> dict:
    files = ["--json", str(out / "f.json"), "--report", str(out / "f.html"), "--images", str(place / "all.txt")]
    assert main(["evaluate", recipe, "--studies", str(place), *files, *words]) == 0
    return json.loads((out / "f.json").read_text())


@pytest.mark.parametrize(("recipe", "metric"), [("spot", "dice"), ("shade", "accuracy"), ("frames", "ap50")])
def test_figures_by_site_and_by_what_was_missing(
    place: Path, recipe: str, metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = measured(place, recipe, tmp_path, "--by", "site")
    north, south = figures["groups"]["site"]["north"], figures["groups"]["site"]["south"]
    assert (north["n"], north["patients"]) == (8, 8)
    assert set(north["metrics"][metric]) == {"value", "low", "high"}
    assert south == {"n": 4, "patients": 4}
    counts = {value: part["n"] for value, part in figures["missing"].items()}
    both = {"age, t1c": 2, "t1c": 4, "age": 2, "nothing": 4}
    assert counts == (both if recipe == "shade" else {"t1c": 6, "nothing": 6})
    said = capsys.readouterr().out
    assert "By site:" in said
    assert "What was missing:" in said
    page = (tmp_path / "f.html").read_text()
    assert "<h2>By site</h2>" in page
    assert "<h2>What was missing</h2>" in page


def test_a_column_that_makes_no_groups_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "shade", "--studies", str(place), "--images", str(place / "all.txt"), "--by"]
    assert main([*words, "sit"]) == 2
    assert "--by sit: no such column in answers.csv; did you mean 'site'?" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["spot", "shade", "frames"])
def test_predict_names_what_was_missing(place: Path, recipe: str, tmp_path: Path) -> None:
    assert main(["predict", recipe, "--studies", str(place), "--out", str(tmp_path)]) == 0
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    warned = {row["study"]: "t1c" in row["warnings"] for row in rows if not row["lesion"]}
    assert warned == {f"s{number:02d}": number % 2 == 0 for number in range(STUDIES)}
    limits = {row["label"]: (row["low"] <= row["probability"] <= row["high"]) for row in rows if row["low"]}
    assert limits == ({"bright": True} if recipe == "shade" else {}), "where validation patients said something"
    one = ["--image", str(place / "s00_0000.nii.gz"), "--home", str(Home.find(place).path)]
    assert main(["predict", recipe, *one, "--out", str(tmp_path / "one")]) == 0


@pytest.mark.parametrize("recipe", ["spot", "shade", "frames"])
def test_a_viewer_is_told_what_was_missing(place: Path, recipe: str) -> None:
    home = Home.find(place)
    task = {"spot": SegmentationInfer, "shade": AnswerInfer, "frames": BoxInfer}[recipe](
        load_recipe(recipe, home.path), StudiesFolder(place), Ledger(home), Champions(home)
    )
    for study, missing in (("s00", ["age", "t1c"]), ("s01", [])):
        file, params = task({"study": study, "client_id": "r", "result_extension": ".nii.gz"})
        Path(file).unlink()
        assert params["missing"] == (missing if recipe == "shade" else missing[1:])
        assert any("channel t1c is missing" in warning for warning in params["warnings"]) == bool(missing)
    if recipe == "shade":
        assert set(params["intervals"]) == {"bright"}
