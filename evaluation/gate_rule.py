"""The gate: may this version serve? One pure function; docs/gate.md says the rule in words.

Scores are one number a held-out patient, higher is better (Dice for masks). A challenger is compared with the champion
on the patients who have both scores; a first model, having no champion, with the trivial baseline.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from statistics import fmean
from typing import NamedTuple

from radloop.evaluation.compare import (
    ALPHA,
    FULL,
    Decision,
    PatientScores,
    fallen_label,
    first_model,
    not_worse,
)

__all__ = ["ALPHA", "FULL", "SPENT", "Decision", "Level", "PatientScores", "alpha_of", "judge", "reconcile"]

SPENT = 0.5
"""How fast that shrinks with further judgements on the same patients, ALPHA / k ** SPENT. Chosen by
benchmarks/gate_error_rates.py: the steepest of the shapes tried that still accepts four of five challengers that are
just as good, the last of fifty judgements on 25 patients included."""

LabelScores = Mapping[str, PatientScores]


class Level(NamedTuple):
    """A version that a challenger must not fall behind, on the labels whose level it set.

    Attributes:
        patients: patient -> score.
        labels: label -> patient -> score, of those labels alone.
    """

    patients: PatientScores
    labels: LabelScores


def judge(
    challenger: PatientScores,
    champion: PatientScores | None,
    baseline: PatientScores | None,
    margin: float,
    *,
    challenger_labels: LabelScores | None = None,
    champion_labels: LabelScores | None = None,
    baseline_labels: LabelScores | None = None,
    label_margins: Mapping[str, float] | None = None,
    references: Sequence[Level] = (),
    looks: int = 0,
    names: Sequence[str] = (),
    shared: bool | None = None,
    proven: Collection[str] | None = None,
    unanswered: int = 0,
) -> Decision:
    """Whether the challenger may serve.

    Args:
        challenger: patient -> score of the new version on held-out patients.
        champion: patient -> score of the version that serves, or None when there is none.
        baseline: patient -> score of the trivial method; for a first model, and for labels that the champion lacks.
        margin: how much worse still counts as not worse, in units of the score.
        challenger_labels: label -> patient -> score, for the guard that no single label gets worse.
        champion_labels: the same of the champion; where it lacks some, only those it has are compared.
        baseline_labels: the same of the trivial method.
        label_margins: margins of single labels; `margin` for the others.
        references: the versions that the champion's line was last shown better with; none where that is the champion.
        looks: full judgements before this one on some of the same patients.
        names: the labels of the challenger's recipe.
        shared: whether the champion's recipe has any of them; None: as the scores say.
        proven: labels on which the champion was fully shown to beat the baseline; None: all of them.
        unanswered: held-out labels that others can be measured on and the challenger cannot.
    """
    # A label that no held-out patient was asked about decides nothing.
    ours, theirs = _asked(challenger_labels), _asked(champion_labels)
    fresh = champion is None or not (_overlap(ours, theirs) if shared is None else shared)
    named = {"challenger": challenger, "champion": champion}
    named |= {f"reference {n}": of.patients for n, of in enumerate(references, start=1)}
    # Only a first model, and a label that was never judged, is compared with the baseline.
    named |= {"baseline": baseline} if fresh or not _all_proven(proven, ours) else {}
    broken = _not_finite(named, {"challenger": ours, "champion": theirs})
    if unanswered:
        broken = f"it has no answer for {unanswered} held-out studies that were read before"
    if broken:
        return Decision(False, False, f"rejected: {broken}", max(0, FULL - len(challenger)), len(challenger))
    alpha = alpha_of(looks)
    if champion is None:
        decision = first_model(challenger, baseline, alpha)
    elif fresh:
        decision = first_model(challenger, baseline, alpha)
        why = "judged as a first model: the champion answers none of its labels"
        decision = replace(decision, reason=f"{decision.reason}; {why}")
    elif challenger and not champion:
        why = f"the champion could not be measured on any of the {len(challenger)} held-out patients"
        return Decision(False, False, f"held for a person: {why}", 0, 0, held=True)
    else:
        margins = _Margins(margin, label_margins or {})
        against = [(Level(champion, theirs), "the champion's")]
        against += [(Level(of.patients, _asked(of.labels)), "the reference's") for of in references]
        decision = _behind_none(challenger, ours, against, margins, alpha)
        for scores, floor, why in _unproven(challenger, baseline, ours, theirs, baseline_labels or {}, proven):
            decision = _first_too(decision, scores, floor, why)
    return replace(_with_proven(decision, ours, names, proven, fresh), alpha=alpha, looks=looks)


def alpha_of(looks: int, spent: float = SPENT) -> float:
    """The error rate of one judgement after so many on the same patients; see `SPENT` and docs/gate.md."""
    return ALPHA / (1 + looks) ** spent


def reconcile(with_batch: Decision, without: Decision | None, authors: Sequence[str]) -> Decision:
    """One decision of two: on all held-out labels, and on those from before the new ones.

    Labels that are wrong on both sides of the split make a bad challenger look good, and only on the new labels.

    Args:
        with_batch: on every held-out label.
        without: on those that the champion was judged on; None or of no patient says nothing.
        authors: who gave the new held-out labels.
    """
    if without is None or not without.n or with_batch.serves == without.serves or with_batch.held:
        return with_batch
    who = f" (by {', '.join(authors)})" if authors else ""
    reason = (
        f"held for a person: the held-out labels given since the champion was trained{who} change the result; "
        f"with them it {with_batch.reason}; without them it {without.reason}; look at those labels, then retract "
        "them with `radloop labels revoke` or let it serve with `radloop model rollback RECIPE VERSION`"
    )
    return replace(with_batch, serves=False, held=True, superior=False, proven=[], reason=reason)


class _Margins(NamedTuple):
    """The margin of the mean, and of single labels."""

    mean: float
    labels: Mapping[str, float]

    def of(self, label: str) -> float:
        return self.labels.get(label, self.mean)


def _asked(labels: LabelScores | None) -> dict[str, PatientScores]:
    return {label: scores for label, scores in (labels or {}).items() if scores}


def _overlap(ours: LabelScores, theirs: LabelScores) -> bool:
    return not ours or not theirs or not ours.keys().isdisjoint(theirs)


def _all_proven(proven: Collection[str] | None, labels: Collection[str]) -> bool:
    return proven is None or (bool(proven) and set(labels) <= set(proven))


def _behind_none(
    new: PatientScores, ours: LabelScores, against: Sequence[tuple[Level, str]], margins: _Margins, alpha: float
) -> Decision:
    """Not worse than the champion, the first of `against`, nor than any of the references."""
    found = []
    for level, whose in against:
        one = not_worse(*_on_shared(new, level.patients, ours, level.labels), margins.mean, alpha, whose)
        found.append(_with_labels(one, ours, level.labels, margins))
    return reduce(_both, found)


def _on_shared(
    new: PatientScores, old: PatientScores, ours: LabelScores, theirs: LabelScores
) -> tuple[PatientScores, PatientScores]:
    """The scores to compare: over all labels, or over those that both have where one has labels the other lacks."""
    if not ours or not theirs or ours.keys() == theirs.keys():
        return new, old
    shared = sorted(ours.keys() & theirs.keys())
    return _mean_over([ours[label] for label in shared]), _mean_over([theirs[label] for label in shared])


def _mean_over(labels: Sequence[PatientScores]) -> dict[str, float]:
    """Patient -> mean over the labels that the patient has a score of."""
    patients = {p for scores in labels for p in scores}
    return {p: fmean(scores[p] for scores in labels if p in scores) for p in sorted(patients)}


def _with_labels(decision: Decision, new: LabelScores, old: LabelScores, margins: _Margins) -> Decision:
    fallen = fallen_label(new, old, margins.of) if decision.serves else ""
    if not fallen:
        return decision
    reason = f"rejected: {fallen}; {decision.reason} by the mean over labels"
    return replace(decision, serves=False, superior=False, reason=reason)


def _both(champion: Decision, reference: Decision) -> Decision:
    """A challenger must pass against the champion and against the reference."""
    if not champion.serves or not reference.n:
        return champion
    if not reference.serves:
        what = "it falls behind the version that set the level"
        return replace(champion, serves=False, superior=False, reason=f"rejected: {what}: {reference.reason}")
    return replace(champion, superior=champion.superior and reference.superior)


def _unproven(
    challenger: PatientScores,
    baseline: PatientScores | None,
    ours: LabelScores,
    theirs: LabelScores,
    floor: LabelScores,
    proven: Collection[str] | None,
) -> Iterator[tuple[PatientScores, PatientScores | None, str]]:
    """What must also beat the baseline: labels that no version before was shown to, or all where none was."""
    if proven is not None and not proven:
        if len(challenger) >= FULL:
            yield challenger, baseline, "no version was fully judged before"
        known: Collection[str] = theirs.keys()
    else:
        known = theirs.keys() if proven is None else proven
    for label in sorted(ours.keys() - set(known)) if theirs else ():
        why = f"label {label!r} was never shown to beat it" if label in theirs else f"new label {label!r}"
        yield ours[label], floor.get(label), why


def _first_too(decision: Decision, scores: PatientScores, baseline: PatientScores | None, why: str) -> Decision:
    """The decision, if the scores also beat the trivial baseline as a first model's must."""
    if not decision.serves:
        return decision
    first = first_model(scores, baseline)
    if first.serves or not scores:
        return decision
    return replace(decision, serves=False, superior=False, reason=f"rejected: {why}: {first.reason}")


def _with_proven(
    decision: Decision, ours: LabelScores, names: Sequence[str], proven: Collection[str] | None, fresh: bool
) -> Decision:
    """The decision with the labels that are shown to beat the baseline by now; provisional while one is not."""
    if not decision.serves:
        return decision
    before = set() if fresh else set(names if proven is None else proven)
    full = {label for label, scores in ours.items() if len(scores) >= FULL} if decision.n >= FULL else set()
    shown = [name for name in names if name in before | full]
    decision = replace(decision, proven=shown)
    few = {name: len(ours.get(name, ())) for name in names if name not in shown}
    if decision.provisional or not few:
        return decision
    told = ", ".join(f"{name!r} has {count}" for name, count in few.items())
    reason = f"{decision.reason}; provisionally, since {FULL} held-out patients a label are needed: {told}"
    return replace(decision, provisional=True, needed=FULL - min(few.values()), reason=reason)


def _not_finite(means: Mapping[str, PatientScores | None], labels: Mapping[str, Mapping[str, PatientScores]]) -> str:
    """Which score is not a number, in words, or an empty string."""
    named = [(who, scores or {}) for who, scores in means.items()]
    named += [(f"{who}'s {label!r}", scores) for who, of in labels.items() for label, scores in of.items()]
    for who, scores in named:
        broken = sorted(p for p, score in scores.items() if not math.isfinite(score))
        if broken:
            return f"the {who} score of one patient is {scores[broken[0]]}, not a finite number"
    return ""
