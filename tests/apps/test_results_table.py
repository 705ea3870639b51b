"""Lines of `results.csv` about a mask: labels first, then lesions with their sizes; and when they are whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from radloop.apps.mask_rows import mask_rows
from radloop.apps.results_table import MOST_LESIONS, Job, is_answer, source_of
from radloop.engine.predictor import Prediction
from radloop.recipes.recipe import Recipe

TWO = Recipe(name="two", labels={"lesion": 1, "organ": 2})
LABELS = TWO.label_names


@pytest.fixture
def version() -> SimpleNamespace:
    """What a table needs to know of a version."""
    return SimpleNamespace(number=3, created="then", load_recipe=lambda: TWO)


def answer() -> Prediction:
    mask = np.zeros((30, 30, 20), np.uint8)
    mask[2:6, 2:6, 2:4] = 1
    mask[20:28, 10:13, 5:8] = 1
    mask[0:5, 20:25, 10:15] = 2
    return Prediction(mask, np.diag([1.0, 1.0, 2.0, 1.0]), 1.5, lacking=("t1c",))


def test_labels_come_first_then_lesions_from_the_largest(version: SimpleNamespace) -> None:
    rows = list(mask_rows(Job("s", (Path("s.nii.gz"),)), answer(), TWO, version))
    assert [(row.label, row.lesion, row.lesions) for row in rows] == [
        ("lesion", "", "2"),
        ("organ", "", "1"),
        ("lesion", "1", ""),
        ("lesion", "2", ""),
        ("organ", "1", ""),
    ]
    lesion, organ, first, second, _ = rows
    assert float(lesion.volume_ml) == pytest.approx(float(first.volume_ml) + float(second.volume_ml))
    assert float(first.volume_ml) == pytest.approx(8 * 3 * 3 * 2 / 1000)
    assert 8 <= float(first.axial_mm) <= np.hypot(8, 3) + 0.1
    assert float(first.longest_mm) > float(first.axial_mm)
    assert lesion.axial_mm == first.axial_mm
    assert lesion.warnings == "channel t1c is missing; it counted as unknown"
    assert organ.warnings.startswith("touches the edge of the image")
    assert is_answer(rows, source_of(Job("s", (Path("s.nii.gz"),)), version), LABELS)


def test_lines_cut_short_are_no_answer(version: SimpleNamespace) -> None:
    job = Job("s", (Path("s.nii.gz"),))
    rows, source = list(mask_rows(job, answer(), TWO, version)), source_of(job, version)
    assert not is_answer(rows[:-1], source, LABELS)
    assert not is_answer(rows[1:], source, LABELS)
    assert not is_answer([replace(rows[0], lesions="many"), *rows[1:]], source, LABELS)
    assert not is_answer([replace(row, version="2") for row in rows], source, LABELS)


def test_a_sky_of_specks_is_counted_and_not_listed(version: SimpleNamespace) -> None:
    mask = np.zeros((30, 30, 20), np.uint8)
    mask[1::4, 1::4, 1::4] = 1
    job = Job("s", (Path("s.nii.gz"),))
    rows = list(mask_rows(job, Prediction(mask, np.eye(4), 1.0), TWO, version))
    assert rows[0].lesions == str(int(mask.sum()))
    assert f"of which the {MOST_LESIONS} largest are listed" in rows[0].warnings
    assert sum(bool(row.lesion) for row in rows) == MOST_LESIONS
    assert rows[1].warnings == "nothing found"
    assert rows[1].axial_mm == rows[1].longest_mm == ""
    assert is_answer(rows, source_of(job, version), LABELS)


def test_pictures_without_a_pixel_size_have_no_mm(version: SimpleNamespace) -> None:
    flat = Recipe(name="flat", dimension=2, labels={"lesion": 1}, fit={"patch": (16, 16)})
    mask = np.zeros((30, 30, 1), np.uint8)
    mask[3:9, 3:9] = 1
    for name, known in (("s.png", False), ("s.nii.gz", True)):
        row, lesion = mask_rows(Job("s", (Path(name),)), Prediction(mask, np.eye(4), 1.0), flat, version)
        assert row.volume_ml == lesion.volume_ml == ""
        assert bool(row.axial_mm) == bool(lesion.longest_mm) == known
