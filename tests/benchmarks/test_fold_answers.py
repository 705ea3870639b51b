"""Answers out of fold go through the result file: together, in order, and what nobody looked at stays so."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from radloop.engine.assess import AnswerScore


def score(study: str, p: float, truth: float | None) -> AnswerScore:
    return AnswerScore(study, f"p-{study}", {"a": p, "b": 1 - p}, {"a": truth, "b": 1.0}, {}, (p, -p))


def test_answers_of_folds_are_read_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    answers = importlib.import_module("fold_answers").FoldAnswers
    floor = {study: {"b": 0.25, "a": 0.75} for study in "xyz"}
    folds = [[score("z", 0.123456789, None), score("x", 0.5, 0.0)], [score("y", 1.0, 1.0)]]
    told = [{"answers": answers.of(scores, floor, ("a", "b")).columns()} for scores in folds]
    found = answers.read(json.loads(json.dumps(told)))
    assert found.studies == ("x", "y", "z")
    assert found.patients == ("p-x", "p-y", "p-z")
    np.testing.assert_array_equal(found.truth, [[0, 1], [1, 1], [np.nan, 1]])
    np.testing.assert_allclose(found.p, [[0.5, 0.5], [1, 0], [0.12346, 0.87654]], atol=1e-12)
    np.testing.assert_allclose(found.logits[2], [0.12346, -0.12346], atol=1e-12)
    np.testing.assert_array_equal(found.floor, [[0.75, 0.25]] * 3)
    assert found.only({"z", "x"}).studies == ("x", "z")
