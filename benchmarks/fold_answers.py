"""A network's answers about whole studies out of fold, as the result file keeps them: a column for each thing told."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radloop.engine.assess import AnswerScore
from radloop.evaluation.classification import Comparison, compare
from radloop.recipes.recipe import Recipe


@dataclass(frozen=True)
class FoldAnswers:
    """Rows are studies, columns labels in the recipe's order.

    Attributes:
        studies, patients: whose.
        truth: 1 or 0; NaN where nobody looked.
        p: probabilities, scaled.
        logits: as the network gave them.
        floor: the trivial method's probabilities.
    """

    studies: tuple[str, ...]
    patients: tuple[str, ...]
    truth: np.ndarray
    p: np.ndarray
    logits: np.ndarray
    floor: np.ndarray

    @classmethod
    def of(
        cls, scores: Iterable[object], floor: Mapping[str, Mapping[str, float]], names: Sequence[str]
    ) -> FoldAnswers:
        """What a fold's version and the trivial method said."""
        rows = [score for score in scores if isinstance(score, AnswerScore)]

        def table(found: Iterable[Mapping[str, float | None]]) -> np.ndarray:
            return np.array([[math.nan if of[name] is None else of[name] for name in names] for of in found], float)

        return cls(
            tuple(row.study for row in rows),
            tuple(row.patient for row in rows),
            table(row.truth for row in rows),
            table(row.probabilities for row in rows),
            np.array([row.logits for row in rows]),
            table(floor[row.study] for row in rows),
        )

    @classmethod
    def read(cls, folds: Iterable[Mapping[str, Any]]) -> FoldAnswers:
        """The answers of some folds of a result file together, in the order of the studies' names."""
        told = [fold["answers"] for fold in folds]
        studies = [study for one in told for study in one["study"]]
        order = sorted(range(len(studies)), key=studies.__getitem__)

        def table(key: str) -> np.ndarray:
            return np.array([row for one in told for row in one[key]], float)[order]  # null becomes NaN

        patients = [patient for one in told for patient in one["patient"]]
        return cls(
            tuple(studies[i] for i in order),
            tuple(patients[i] for i in order),
            *(table(key) for key in ("truth", "p", "logits", "floor")),
        )

    def columns(self) -> dict[str, Any]:
        """For the result file: numbers have five digits, as no figure has more."""

        def short(table: np.ndarray) -> list[list[float | None]]:
            return [[None if math.isnan(value) else float(f"{value:.5g}") for value in row] for row in table]

        tables = {key: short(getattr(self, key)) for key in ("truth", "p", "logits", "floor")}
        return {"study": list(self.studies), "patient": list(self.patients), **tables}

    def only(self, studies: Collection[str]) -> FoldAnswers:
        """Those about some studies."""
        rows = [i for i, study in enumerate(self.studies) if study in studies]
        return FoldAnswers(
            tuple(self.studies[i] for i in rows),
            tuple(self.patients[i] for i in rows),
            *(table[rows] for table in (self.truth, self.p, self.logits, self.floor)),
        )

    def against(self, other: np.ndarray, metric: str, recipe: Recipe) -> Comparison | None:
        """A metric of these probabilities less that of others about the same studies, by patients."""
        patients, names = list(self.patients), recipe.label_names
        return compare(self.p, other, self.truth, patients, metric, kind=recipe.kind, labels=names)
