"""Risks over time: the curve, the risk at the named times, and beside it what covariates alone say.

Stock viewers show masks and their names only. So the reply is a mask with one name, such as `death by 365 days 31 %
(covariates alone 24 %)`: the region that was looked at, or nothing where that is the whole image.
"""

from __future__ import annotations

from typing import Any

from radloop.engine.channels import lacking_words
from radloop.engine.regions import Region
from radloop.engine.risk_predictor import RiskPrediction
from radloop.infers.answers import AnswerInfer


class RiskInfer(AnswerInfer):
    """The infer task of one recipe whose answers are risks over time; see `AnswerInfer`."""

    def _answer(self, found: RiskPrediction, region: Region | None) -> dict[str, Any]:  # type: ignore[override]
        event, unit = self.recipe.label_names[0], found.unit
        names = [f"{event} by {time:g} {unit}" for time in found.times]
        risks, alone = (
            {name: round(float(p), 4) for name, p in zip(names, of, strict=True)}
            for of in (found.risks, found.clinical)
        )
        words = "; ".join(f"{n} {100 * risks[n]:.0f} % (covariates alone {100 * alone[n]:.0f} %)" for n in names)
        warnings = [f"{name} is not known; the training median stood for it" for name in found.missing]
        warnings += lacking_words(found.lacking)
        warnings += [
            f"no training patient was followed for {time:g} {unit}: the risk then is an extrapolation"
            for time in found.beyond
        ]
        return {
            "answer": risks,
            "probabilities": risks,
            "clinical": alone,
            "curve": {
                "unit": unit,
                "time": [round(float(t), 4) for t in found.bounds],
                "survival": [round(float(s), 4) for s in found.survival],
                "clinical_survival": [round(float(s), 4) for s in found.clinical_survival],
            },
            "missing": [*found.missing, *found.lacking],
            "label_names": {words: 1},
            "message": f"{self.recipe.title or self.recipe.name}: {words}",
            "region": region.source if region else None,
            "warnings": warnings,
        }
