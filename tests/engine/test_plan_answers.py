"""Planned recipes for answers in words: kind and labels from a column, a network that sees the whole study in time."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from radloop.engine.plan import plan_recipe
from radloop.engine.plan_answers import AnswerPlanner
from radloop.engine.speed import this_machine
from radloop.networks.registry import build
from radloop.recipes.errors import BadInput
from radloop.recipes.load import parse_recipe
from radloop.recipes.recipe import Recipe
from radloop.studies.answer_look import look_at_answers
from radloop.studies.answer_rows import take_cells
from radloop.studies.fingerprint import fingerprint
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

COLUMNS = {
    "diagnosis": lambda n: ("Benign", "benign ", "malign")[n % 3],
    "grade": lambda n: f"Grade {1 + (n * 7) % 4}",
    "score": lambda n: f"{1 + n % 3}.0",
    "size": lambda n: ("large", "small", "medium")[n % 3],
    "effusion": lambda n: str(n % 2),
    "mass": lambda n: "" if n % 5 == 0 else ("yes" if n == 3 else "No"),
    "age": lambda n: str(40 + n),
    "constant": lambda n: "same",
    "words": lambda n: ("left", "right", "both")[n % 3],
    "empty": lambda n: "",
}


def studies(folder: Path, count: int = 24, *, pictures: bool = False, patients: bool = True) -> StudiesFolder:
    folder.mkdir(parents=True)
    lines = [",".join(["image", *(["patient"] if patients else []), *COLUMNS])]
    for n in range(count):
        rng = np.random.default_rng(n)
        if pictures:
            Image.fromarray(rng.integers(0, 255, (300 + 4 * n, 200)).astype(np.uint8)).save(folder / f"p{n:02d}_a.png")
        else:
            array = rng.integers(-1000, 400, (40, 36, 20)).astype(np.int16)
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 4.0, 1.0])), folder / f"p{n:02d}_a.nii.gz")
        cells = [f"p{n:02d}_a", *([f"q{n // 2}"] if patients else []), *(say(n) for say in COLUMNS.values())]
        lines.append(",".join(cells))
    (folder / "answers.csv").write_text("\n".join(lines) + "\n")
    return StudiesFolder(folder)


def planned(folder: StudiesFolder, **how: object) -> tuple[Recipe, str]:
    text = plan_recipe(folder, device="cpu", **how)
    return parse_recipe(text), " ".join(line.removeprefix("# ") for line in text.splitlines() if line[:1] == "#")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> StudiesFolder:
    return studies(tmp_path_factory.mktemp("plan") / "ct")


@pytest.mark.parametrize(
    ("answer", "kind", "labels"),
    [
        ("diagnosis", "classification", ("Benign", "malign")),
        ("words", "classification", ("both", "left", "right")),
        ("grade", "ordinal", ("Grade 1", "Grade 2", "Grade 3", "Grade 4")),
        ("score", "ordinal", ("1", "2", "3")),
        ("size", "ordinal", ("small", "medium", "large")),
        ("effusion", "multilabel", ("effusion",)),
        ("effusion,mass", "multilabel", ("effusion", "mass")),
    ],
)
def test_kind_and_labels_are_what_the_column_holds(
    volumes: StudiesFolder, answer: str, kind: str, labels: tuple[str, ...]
) -> None:
    look = look_at_answers(volumes, answer, None)
    assert (look.kind, look.labels) == (kind, labels)
    assert "age" in look.numbers


def test_every_cell_is_read_by_the_recipe_that_was_planned_from_it(volumes: StudiesFolder) -> None:
    recipe, said = planned(volumes, answer="diagnosis", name="nodule")
    assert (recipe.kind, recipe.answer.column, recipe.modality) == ("classification", "diagnosis", "CT")
    assert recipe.preprocess.window[0] <= -1000
    assert recipe.preprocess.spacing == (2.0, 2.0, 4.0), "small enough to be seen whole as it is"
    assert recipe.fit.patch == (40, 36, 20)
    assert build(recipe) is not None
    assert "Patients: Benign: 12, malign: 8" in said
    assert "fewer than 10 patients have malign (8)" in said
    assert "age" in said
    ledger = Ledger(Home.find(volumes.path))
    assert take_cells(volumes, ledger, [recipe]) == []
    assert len(ledger.current("nodule")) == 24


def test_pictures_of_any_size_are_fitted_into_one(tmp_path: Path) -> None:
    folder = studies(tmp_path / "xr", 12, pictures=True)
    recipe, said = planned(folder, kind="multilabel", answer="effusion,mass")
    assert (recipe.modality, recipe.dimension, recipe.preprocess.spacing) == ("XR", 2, ())
    assert recipe.preprocess.size == recipe.fit.patch
    assert recipe.preprocess.size[0] < recipe.preprocess.size[1], "as the pictures stand"
    assert math.prod(recipe.preprocess.size) <= 256**2
    assert "do not say how large a pixel is" in said
    assert "mass (1)" in said


def test_large_studies_become_coarser_until_one_is_seen_whole(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for n in range(3):
        nib.save(nib.Nifti1Image(np.zeros((160, 160, 90), np.int16), np.eye(4)), folder / f"s{n}.nii.gz")
    (folder / "answers.csv").write_text("image,what\ns0,a\ns1,b\ns2,a\n")
    recipe, said = planned(StudiesFolder(folder), answer="what")
    assert min(recipe.preprocess.spacing) > 1
    seen = np.array(recipe.fit.patch) * recipe.preprocess.spacing
    assert (seen >= (160, 160, 90)).all()
    assert math.prod(recipe.fit.patch) <= 64**3
    assert "Made coarser" in said


def test_ids_that_look_like_one_patient_and_an_unknown_order_are_told(tmp_path: Path) -> None:
    folder = studies(tmp_path / "s", 6, patients=False)
    (folder.path / "p00_a.nii.gz").rename(folder.path / "p01_b.nii.gz")
    recipe, said = planned(folder, kind="ordinal", answer="words")
    assert recipe.kind == "ordinal"
    assert "nobody said which grade is higher" in said
    assert "look like one patient" in said


def test_a_constant_finding_is_told_and_all_yes_or_no_columns_are_found(volumes: StudiesFolder) -> None:
    table = volumes.path / "answers.csv"
    before = table.read_text()
    lines = before.splitlines()
    table.write_text("\n".join([f"{lines[0]},never", *(f"{line},0" for line in lines[1:])]) + "\n")
    try:
        recipe, said = planned(StudiesFolder(volumes.path), kind="multilabel")
    finally:
        table.write_text(before)
    assert recipe.label_names == ("effusion", "mass", "never")
    assert "never has the same answer in every study" in said


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"answer": "diagnos"}, "no such column; did you mean 'diagnosis'"),
        ({"answer": "age"}, "24 different values"),
        ({"answer": "constant"}, "says 'same' in every study"),
        ({"answer": "empty"}, "is empty in every study"),
        ({"kind": "classification"}, "needs --answer COLUMN"),
        ({"kind": "ordinal", "answer": "grade,size"}, "names 2 columns"),
        ({"kind": "multilabel", "answer": "size"}, "a finding's cells are 1, 0, yes"),
        ({"answer": "diagnosis", "answer_seconds": 1e-4}, "cannot be met"),
    ],
)
def test_wrong_wishes_are_refused(volumes: StudiesFolder, how: dict, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        plan_recipe(volumes, device="cpu", **how)


def test_every_mirroring_that_an_answer_is_the_mean_of_takes_its_time(volumes: StudiesFolder) -> None:
    look = look_at_answers(volumes, "mass", "multilabel")
    planner = AnswerPlanner(fingerprint(volumes), look, 60.0, this_machine("cpu"), lambda _: None)
    plan = planner.plan("mass")
    assert plan.recipe.fit.mirror == (0,)
    assert plan.network == 2 * planner._speed.forward(plan.recipe)  # measured once, so the same to the last bit
