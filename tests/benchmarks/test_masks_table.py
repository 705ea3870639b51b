"""What benchmarks/masks.py makes of folds, without training any."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from radloop.recipes.load import load_recipe
from radloop.studies.cases import Case


@pytest.fixture
def masks(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("masks")


def fold(*patients: str, mine: float, theirs: float) -> dict[str, Any]:
    def of(patient: str, dice: float, score: float) -> dict[str, Any]:
        kept = {"scores": [score], "overlaps": [[float(dice > 0.5)]], "lesions": 1}
        return {"patient": patient, "dice": dice, **kept}

    return {
        "steps": 10,
        "minutes": 2.5,
        "threads": 2,
        "parameters": 1234567,
        "studies": {
            "radloop": {f"{p}-{n}": of(p, mine, 0.9) for p in patients for n in range(2)},
            "threshold": {f"{p}-{n}": {"patient": p, "dice": theirs} for p in patients for n in range(2)},
            "blob": {f"{p}-{n}": of(p, theirs, 1.0) for p in patients for n in range(2)},
        },
    }


def test_figures_of_folds_are_taken_together_and_compared(masks: ModuleType) -> None:
    found = masks.figures({"1": fold("a", "b", mine=0.9, theirs=0.4), "2": fold("c", mine=0.6, theirs=0.4)})
    assert (found["studies"], found["patients"], found["minutes"]) == (6, 3, 2.5)
    assert found["radloop"]["dice"]["value"] == pytest.approx(0.8)
    assert found["blob"]["difference"]["value"] == pytest.approx(0.4)
    assert found["threshold"]["difference"]["low"] == pytest.approx(0.2)
    assert found["radloop"]["sensitivity_at_1_fp"]["value"] == 1.0
    assert found["blob"]["sensitivity_at_1_fp"]["value"] == 0.0


def test_the_table_names_what_is_missing(masks: ModuleType) -> None:
    folds = {"1": fold("a", "b", mine=0.9, theirs=0.4), "4": fold("c", mine=0.6, theirs=0.4)}
    results = {"brain_tumour/unet": {"folds": folds, "figures": masks.figures(folds)}}
    head, _, mine, none = masks.table(results, ["brain_tumour/unet", "lung_nodule/unet"]).splitlines()
    assert head.count("|") == mine.count("|") == none.count("|")
    assert "missing: 2, 3, 5" in mine
    assert "missing: 1, 2, 3, 4, 5" in none
    for cell in ("1,234,567", "0.800 (0.600 to 0.900)", "0.78", "0.90", "0.400; 0.400 (0.200 to 0.500)"):
        assert cell in mine, cell


def test_a_bright_blob_is_found_where_it_was_learned_to_be(masks: ModuleType, tmp_path: Path) -> None:
    cases = []
    for number in range(4):
        rng = np.random.default_rng(number)
        image, label = rng.normal(100, 10, (24, 24, 12)), np.zeros((24, 24, 12), np.uint8)
        corner = rng.integers(2, 14, 3) // (1, 1, 3)
        box = tuple(slice(c, c + 6) for c in corner)
        image[box], label[box] = image[box] + 100, 1
        image[23, 23, :] = 500  # brighter, but small
        paths = tmp_path / f"{number}.nii.gz", tmp_path / f"{number}-label.nii.gz"
        for path, array in zip(paths, (image.astype(np.float32), label), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        cases.append(Case(f"s{number}", f"p{number}", "train", (paths[0],), paths[1], ("tumour",), number, True))
    found = masks.blobs(load_recipe("brain_tumour"), cases[:3], cases[3:])
    assert list(found) == ["s3"]
    assert found["s3"]["dice"] > 0.7
    assert found["s3"]["overlaps"][0][0] > 0.5
