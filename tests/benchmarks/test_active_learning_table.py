"""What benchmarks/active_learning.py says of results, without a replay."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from radloop.recipes.load import load_recipe
from radloop.strategies.choose import strategy_names


@pytest.fixture
def benchmark(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("active_learning")


def _of(value: float, width: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def _result(lead: float, behind: float = 0.0, complete: bool = True) -> dict[str, Any]:
    def one(against: dict[str, Any]) -> dict[str, Any]:
        rounds = [{"labels": 4, **_of(0.5)}, {"labels": 8, **_of(0.7)}]
        return {"rounds": rounds, "area": _of(0.6), "labels_to_95": _of(8, 0), "labels_to_98": {"value": None},
                "labels_within_a_point": _of(8, 0), "against": against}  # fmt: skip

    mine = {"random": {"area": _of(lead), "labels_within_a_point": _of(-4, 1)}, "foreground": {"area": _of(behind)}}
    strategies = {"random": one({}), "clasp_pe": one(mine)}
    told = {"complete": complete, "done": "10 of 10", "machine_hours": 1.5, "pool": {"studies": 100}}
    return {**told, "strategies": strategies}


def test_every_question_names_what_there_is(benchmark: ModuleType) -> None:
    for question in benchmark.QUESTIONS.values():
        assert load_recipe(question.recipe).name == question.recipe
        assert set(question.strategies) <= set(strategy_names())
    few = benchmark.QUESTIONS["few"]
    assert few.rounds * few.each == 18  # of 126


def test_the_table_has_a_row_a_strategy_and_says_what_is_not_reached(benchmark: ModuleType) -> None:
    head, _, *rows = benchmark.table({"hippocampus": _result(0.02), "lung_nodule": {}}).splitlines()
    assert [row.split(" | ")[1] for row in rows] == ["random", "clasp_pe"]
    assert {row.count("|") for row in [head, *rows]} == {14}
    assert "+0.020 (+0.010 to +0.030)" in rows[1]
    assert " | 8 | - | 8 | " in rows[1]


def test_the_verdict_counts_only_leads_that_are_clear_of_zero(benchmark: ModuleType) -> None:
    results = {"hippocampus": _result(0.02), "lung_nodule": _result(0.005), "brain_tumour": _result(0.02, -0.02, False)}
    said = benchmark.verdict({**results, "few": _result(0.02)})
    assert "above random on 2 of 4 (hippocampus, brain_tumour)" in said
    assert "below foreground on 1 (brain_tumour)" in said
    assert "within a point from 8 labels (goal: at most 15); less random's: -4.0 (-5.0 to -3.0)" in said
    assert said.endswith("not complete: lung_nodule_malignancy, brain_tumour.")
