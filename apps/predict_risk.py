"""`radloop predict` for risks over time: lines of `results.csv` at the named times, and a JSON file a study.

Each named time has a line with the risk, and one with what covariates alone say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.predict_answers import Answers
from radloop.apps.results_table import Job, Row, source_of
from radloop.apps.terminal import NOTICE

if TYPE_CHECKING:
    from radloop.engine.risk_predictor import RiskPrediction
    from radloop.recipes.recipe import Recipe


class Risks(Answers):
    """The lines and files of a risk recipe's answers; see `Answers`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the lines of a study are called, in order."""
        names = [f"{self._recipe.label_names[0]} by {_time(self._recipe, t)}" for t in self._recipe.answer.times]
        return (*names, *(f"{name}, covariates alone" for name in names))

    def file(self, job: Job, out: Path) -> Path | None:
        """Where a study's curve is written."""
        return out / f"{job.study}.json"

    def rows(self, job: Job, out: Path) -> Iterator[Row]:
        """The lines of one study, once its file is written; errors are those of `Answers.rows`."""
        from radloop.engine.channels import lacking_words

        (found, *_), region = self._ask(job)
        warnings = [*(f"{name} is not known" for name in found.missing), *lacking_words(found.lacking)]
        warnings += [f"{_time(self._recipe, time)} is an extrapolation" for time in found.beyond]
        warnings += [f"looked where {region.source} says"] if region else []
        self._write(out / f"{job.study}.json", job, found, warnings)
        source = asdict(source_of(job, self._version, self.told(job)))
        for name, value in zip(self.labels, (*found.risks, *found.clinical), strict=True):
            yield Row(
                job.study,
                name,
                probability=f"{value:.4f}",
                seconds=f"{found.seconds:.2f}",
                warnings="; ".join(warnings),
                **source,
            )

    def _write(self, path: Path, job: Job, found: RiskPrediction, warnings: list[str]) -> None:
        from radloop.studies.files import write_whole

        told: dict[str, Any] = {
            "study": job.study,
            "recipe": self._recipe.name,
            "version": self._version.number,
            "event": self._recipe.label_names[0],
            "unit": self._recipe.answer.unit,
            "times": list(self._recipe.answer.times),
            "risks": _rounded(found.risks),
            "clinical": _rounded(found.clinical),
            "curve": {
                "time": _rounded(found.bounds),
                "survival": _rounded(found.survival),
                "clinical_survival": _rounded(found.clinical_survival),
            },
            "missing": [*found.missing, *found.lacking],
            "warnings": warnings,
            "notice": NOTICE,
        }
        text = json.dumps(told, ensure_ascii=False, indent=1) + "\n"

        def write(temporary: Path) -> None:
            temporary.write_text(text, encoding="utf-8")

        write_whole(path, write)


def _time(recipe: Recipe, time: float) -> str:
    return f"{time:g} {recipe.answer.unit}"


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]
