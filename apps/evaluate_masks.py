"""What `radloop evaluate` has to say of masks, beside the trivial method on the same studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radloop.apps.evaluate_groups import groupings, mask_figures
from radloop.apps.evaluate_told import Told, blind_rows, limits
from radloop.apps.terminal import plural

if TYPE_CHECKING:
    from radloop.apps.measured import Measured
    from radloop.engine.assess import CaseScore


def mask_told(by: Sequence[str], chosen: Measured, scores: Sequence[CaseScore]) -> Told:
    """Figures by the columns `by` too, and by lesion."""
    from radloop.evaluation.intervals import bootstrap_mean, paired_differences
    from radloop.evaluation.lesion_report import curves_json, lesion_counts, lesion_section
    from radloop.evaluation.lesions import lesion_figures
    from radloop.evaluation.report import study_row, summarise, write_csv, write_html
    from radloop.evaluation.summary import patient_values

    recipe, blind = chosen.recipe, blind_rows(chosen)
    rows = [
        study_row(
            score.study,
            score.patient,
            {"dice": score.dice, "surface_dice": score.surface_dice, "hd95": score.hd95},
            blind=blind.get(score.row),
            seconds=score.seconds,
            counts=lesion_counts(score.lesions),
        )
        for score in scores
    ]
    lesions = {
        name: [score.lesions[name] for score in scores if name in score.lesions] for name in recipe.evaluate.lesions
    }
    summary, by_lesion = summarise(recipe.name, chosen.version.number, rows), lesion_figures(lesions)
    summary["metrics"] |= {name: vars(interval) for name, interval in by_lesion.items()}
    if by_lesion:
        summary["froc"] = curves_json(lesions)
    floor, after = chosen.baseline(), []
    if gain := paired_differences(patient_values(rows, "dice"), floor):
        trivial = {"trivial_dice": bootstrap_mean({p: floor[p] for p in gain}), "difference": bootstrap_mean(gain)}
        after += [f"trivial method on the same patients: Dice {trivial['trivial_dice']}"]
        after += [f"difference: {trivial['difference']}"]
        summary["metrics"] |= {name: vars(interval) for name, interval in trivial.items()}
    for name, part in summary.get("readings", {}).items():
        if "dice" in part["metrics"]:
            middle, low, high = limits(part["metrics"]["dice"])
            after.append(f"{plural(part['patients'], 'patient')} with {name} labels: Dice {middle} ({low} to {high})")
    return Told(
        summary,
        lambda path, about: write_html(path, rows, about, lesion_section(lesions, by_lesion)),
        lambda path: write_csv(path, rows),
        groupings(by, chosen.cases, scores, rows, mask_figures),
        after=after,
        baseline=floor,
    )
