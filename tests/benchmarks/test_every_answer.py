"""The page of all answers names what is measured and what is missing, and the one that is committed is true."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def every(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("every_answer")


def results(every: ModuleType) -> dict:
    files = {name: every.HERE / "results" / f"{name}.json" for name in every.MAINS}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.is_file()}


def test_without_results_every_row_is_missing(every: ModuleType) -> None:
    lines = every.page({}).splitlines()
    for row in every.ROWS:
        assert any(line.startswith(f"| {row.recipe} |") and "missing" in line for line in lines)
        for network in row.families:
            assert any(line.startswith(f"| {row.recipe} | {network} | - ") for line in lines)


def test_the_committed_page_is_made_of_the_committed_results(every: ModuleType) -> None:
    text = every.PAGE.read_text(encoding="utf-8")
    assert text.partition(every.BEGIN)[2].partition(every.END)[0] == every.page(results(every))


def test_a_missing_fold_is_named(every: ModuleType) -> None:
    found = results(every)
    run = found["boxes"]["chest_lungs/retinanet"]
    for number in ("2", "4"):
        del run["folds"][number]
    assert "missing: 2, 4" in next(line for line in every.page(found).splitlines() if "chest_lungs" in line)
