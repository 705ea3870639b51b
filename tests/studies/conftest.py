"""A studies folder with real files, its home and its ledger."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.recipe import Recipe
from radloop.studies import forget, tables
from radloop.studies.accept import sync_view
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home
from radloop.studies.images import write_mask
from radloop.studies.ledger import Ledger
from radloop.studies.split import Split

SHAPE = (9, 8, 7)
# Oblique axes, one of them flipped, so that a mixed-up axis or sign shows.
AFFINE = np.array([[0.0, 0.1, 3.0, 10.0], [-1.5, 0.0, 0.0, 20.0], [0.0, 0.7, 0.1, -5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def shape() -> tuple[int, int, int]:
    return SHAPE


@pytest.fixture
def affine() -> np.ndarray:
    return AFFINE.copy()


@pytest.fixture
def organs() -> Recipe:
    return Recipe(name="organs", labels={"liver": 1, "spleen": 2})


@pytest.fixture
def bones() -> Recipe:
    return Recipe(name="bones", labels={"rib": 1, "spine": 2, "hip": 3})


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three CT-like volumes `a`, `b`, `c`."""
    folder = tmp_path / "studies"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for study_id in "abc":
        voxels = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, AFFINE), folder / f"{study_id}.nii.gz")
    return folder


@pytest.fixture
def folder(studies: Path) -> StudiesFolder:
    return StudiesFolder(studies)


@pytest.fixture
def ledger(studies: Path) -> Ledger:
    return Ledger(Home.find(studies))


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Write a mask with one voxel of each value asked for; value v is at (v, 1, 2)."""

    def write(*values: int, name: str = "mask.nii.gz", affine: np.ndarray = AFFINE, names: dict | None = None) -> Path:
        mask = np.zeros(SHAPE, np.uint8)
        for value in values:
            mask[value, 1, 2] = value
        path = tmp_path / "drawn" / name
        path.parent.mkdir(exist_ok=True)
        write_mask(path, mask, affine, names)
        return path

    return write


class House:
    """A folder of small studies, patients in `answers.csv`, a ledger, and two recipes."""

    recipes = tuple(Recipe(name=name, labels={name: 1}) for name in ("one", "two"))

    def __init__(self, top: Path) -> None:
        self.path, self.patients, self.home = top / "studies", {}, Home(top / "home")
        self.path.mkdir()
        self.mask = top / "mask.nii.gz"
        nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), self.mask)
        self.open()

    def open(self) -> None:
        """As a server that starts."""
        self.ledger = Ledger(self.home)

    @property
    def folder(self) -> StudiesFolder:
        return StudiesFolder(self.path)

    def arrive(self, study: str) -> None:
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), self.path / f"{study}.nii.gz")

    def name(self, study: str, patient: str) -> None:
        self.patients[study] = patient
        with (self.path / "answers.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows([("image", "patient"), *self.patients.items()])

    def label(self, study: str, recipe: str = "one") -> None:
        patient = self.folder.study(study).patient
        self.ledger.add(study, patient, recipe, "ann", self.mask, ".nii.gz", [recipe], ids=[recipe])

    def put(self, **sides: str) -> None:
        """Patients on sides, as if drawn."""
        Split(self.ledger).assign(["somebody"])  # makes the salt
        with self.ledger.database.write() as connection:
            rows = [{"patient": patient, "side": side, "time": "t"} for patient, side in sides.items()]
            connection.execute(tables.patients.insert(), rows)

    def remove(self, study: str) -> None:
        """An image that somebody takes away."""
        (self.path / f"{study}.nii.gz").unlink()

    def drop(self, study: str) -> None:
        """A mask from elsewhere put into `labels/final`."""
        self.folder.final_dir.mkdir(parents=True, exist_ok=True)
        (self.folder.final_dir / f"{study}.nii.gz").write_bytes(self.mask.read_bytes())
        sync_view(self.folder, self.ledger, self.recipes)

    def forget(self, patient: str) -> None:
        found = forget.find(self.folder, self.ledger, patient)
        names = forget.bury(self.ledger, found, (), "ann")
        forget.remove_files(self.folder, self.ledger, found)
        forget.rename_rows(self.ledger, found, names)
        forget.drop_answers(self.folder, found)
        self.patients = {study: who for study, who in self.patients.items() if study not in found.studies}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(scope="session")
def new_house(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], House]:
    return lambda: House(tmp_path_factory.mktemp("house"))
