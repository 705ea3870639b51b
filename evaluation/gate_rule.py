"""The gate: may this version serve? One pure function; docs/gate.md says the rule in words.

Scores are one number a held-out patient, higher is better (Dice for masks). A challenger is compared with the champion
on the patients who have both scores; a first model, having no champion, with the trivial baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from radloop.evaluation.intervals import paired_differences, paired_lower_bound

FULL = 6
"""Held-out patients from which an interval over patients decides."""
WORST_FALL = 5
"""Margins that one patient may fall while the judgement is provisional."""
ALPHA = 0.05
"""How often a challenger worse by just the margin may pass the first judgement on these patients."""
SPENT = 0.5
"""How fast that shrinks with further judgements on the same patients, ALPHA / k ** SPENT. Chosen by
benchmarks/gate_error_rates.py: the steepest of the shapes tried that still accepts four of five challengers that are
just as good, the last of fifty judgements on 25 patients included."""
SUPERIOR = 0.05
"""How often a challenger that is just as good may be taken for better, and so become the reference."""
_ROUNDING = 1e-9  # scores are means of ratios: 0.82 - 0.80 is not exactly 0.02

PatientScores = Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """What the gate says of a challenger.

    Attributes:
        serves: whether it may serve.
        provisional: too few held-out labels for the full rule; the first full judgement may say otherwise.
        reason: one sentence with the numbers.
        needed: how many more held-out labelled patients a full judgement takes; 0 when this was one.
        n: held-out patients compared.
        difference: mean paired difference, challenger minus champion (or baseline); None when nothing was compared.
        lower: one-sided lower bound of that mean, at confidence 1 - alpha; None under six patients.
        held: not refused but waiting for a person.
        alpha: the error rate allowed to this judgement; smaller, the more often these patients were asked before.
        looks: how often they were asked before.
        superior: shown to be better than what it was compared with, so that it sets the level from now on.
    """

    serves: bool
    provisional: bool
    reason: str
    needed: int
    n: int
    difference: float | None = None
    lower: float | None = None
    held: bool = False
    alpha: float = ALPHA
    looks: int = 0
    superior: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The decision for a version's manifest."""
        return asdict(self)


def judge(
    challenger: PatientScores,
    champion: PatientScores | None,
    baseline: PatientScores | None,
    margin: float,
    *,
    challenger_labels: Mapping[str, PatientScores] | None = None,
    champion_labels: Mapping[str, PatientScores] | None = None,
    baseline_labels: Mapping[str, PatientScores] | None = None,
    label_margins: Mapping[str, float] | None = None,
    reference: PatientScores | None = None,
    reference_labels: Mapping[str, PatientScores] | None = None,
    looks: int = 0,
    proven: bool = True,
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
        reference: patient -> score of the version that the champion's line was last shown better with, where that is
            not the champion; the challenger must not be worse than that one either.
        reference_labels: label -> patient -> score of it.
        looks: full judgements before this one on some of the same patients.
        proven: whether the champion passed a full judgement; if not, the challenger is asked what a first model is.
    """
    # A label that no held-out patient was asked about decides nothing.
    ours, theirs, level = map(_asked, (challenger_labels, champion_labels, reference_labels))
    named = {"challenger": challenger, "champion": champion, "reference": reference}
    # A first model alone is compared with the baseline.
    named |= {"baseline": baseline} if champion is None or not proven else {}
    broken = _not_finite(named, {"challenger": ours, "champion": theirs, "reference": level})
    if broken:
        return Decision(False, False, f"rejected: {broken}", max(0, FULL - len(challenger)), len(challenger))
    if champion is None:
        return _judge_first(challenger, baseline)
    if champion_labels is not None and ours and not ours.keys() & theirs.keys():
        first = _judge_first(challenger, baseline)
        return replace(
            first, reason=f"{first.reason}; judged as a first model: the champion answers none of its labels"
        )
    margins = _Margins(margin, label_margins or {})
    alpha = alpha_of(looks)
    decision = _judge_next(*_on_shared(challenger, champion, ours, theirs), margin, alpha, "the champion's")
    decision = _with_labels(decision, ours, theirs, margins)
    if reference is not None:
        against = _judge_next(*_on_shared(challenger, reference, ours, level), margin, alpha, "the reference's")
        decision = _both(decision, _with_labels(against, ours, level, margins))
    for label in sorted(ours.keys() - theirs.keys()) if theirs else ():
        decision = _first_too(decision, ours[label], (baseline_labels or {}).get(label), f"new label {label!r}")
    if not proven and decision.n >= FULL:
        decision = _first_too(decision, challenger, baseline, "no version was fully judged before")
    return replace(decision, alpha=alpha, looks=looks)


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
    return replace(with_batch, serves=False, held=True, superior=False, reason=reason)


class _Margins(NamedTuple):
    """The margin of the mean, and of single labels."""

    mean: float
    labels: Mapping[str, float]

    def of(self, label: str) -> float:
        return self.labels.get(label, self.mean)


def _asked(labels: Mapping[str, PatientScores] | None) -> dict[str, PatientScores]:
    return {label: scores for label, scores in (labels or {}).items() if scores}


def _on_shared(
    new: PatientScores, old: PatientScores, ours: Mapping[str, PatientScores], theirs: Mapping[str, PatientScores]
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


def _with_labels(
    decision: Decision, new: Mapping[str, PatientScores], old: Mapping[str, PatientScores], margins: _Margins
) -> Decision:
    fallen = _fallen_label(new, old, margins) if decision.serves else ""
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


def _first_too(decision: Decision, scores: PatientScores, baseline: PatientScores | None, why: str) -> Decision:
    """The decision, if the scores also beat the trivial baseline as a first model's must."""
    if not decision.serves:
        return decision
    first = _judge_first(scores, baseline)
    if first.serves or not scores:
        return decision
    return replace(decision, serves=False, superior=False, reason=f"rejected: {why}: {first.reason}")


def _judge_first(challenger: PatientScores, baseline: PatientScores | None) -> Decision:
    """A first model must beat the trivial baseline; without held-out labels it serves, marked provisional."""
    differences = paired_differences(challenger, baseline or {})
    n, needed = len(differences), max(0, FULL - len(differences))
    if challenger and not n:
        reason = f"rejected: no baseline score for the {len(challenger)} held-out patients; a first model must beat it"
        return Decision(False, True, reason, needed, 0)
    if not n:
        reason = (
            "serves provisionally: no held-out label yet, so nothing to judge it by, and no earlier model to lose; "
            f"{needed} held-out labels are needed for a full judgement"
        )
        return Decision(True, True, reason, needed, 0)
    mean = fmean(differences.values())
    told = _told(challenger, baseline or {}, differences, "the trivial baseline's")
    if n >= FULL:
        lower = paired_lower_bound(list(differences.values()))
        serves = lower > _ROUNDING
        reason = f"{_verdict(serves)}: {told}, one-sided 95 % lower bound {lower:+.3f}, {_where(serves)} 0"
        return Decision(serves, False, reason, 0, n, mean, lower)
    serves = mean > _ROUNDING
    reason = f"{_verdict(serves, True)}: {told}, {_where(serves)} 0; {_more(needed)}"
    return Decision(serves, True, reason, needed, n, mean)


def _judge_next(new: PatientScores, old: PatientScores, margin: float, alpha: float, whose: str) -> Decision:
    """A later model must not be worse than the champion, or the reference, by more than the margin."""
    differences = paired_differences(new, old)
    n, needed = len(differences), max(0, FULL - len(differences))
    if not n:
        reason = (
            "held for a person: no held-out label to compare it with the champion on, which goes on serving; "
            f"1 held-out label allows a provisional judgement, {needed} a full one"
        )
        return Decision(False, True, reason, needed, 0, held=True)
    mean = fmean(differences.values())
    told = _told(new, old, differences, whose)
    if n < FULL:
        return _judge_few(differences, told, mean, margin)
    values = list(differences.values())
    lower = paired_lower_bound(values, 1 - alpha)
    serves = lower > -margin + _ROUNDING
    reason = f"{_verdict(serves)}: {told}, one-sided {_percent(alpha)} lower bound {lower:+.3f}, "
    reason += f"{_where(serves)} {-margin:+.3f}"
    if not serves and min(values) >= -margin - _ROUNDING:
        reason += "; no patient fell by more than the margin, the differences are too uneven to be sure of the mean"
    superior = serves and paired_lower_bound(values, 1 - SUPERIOR) > _ROUNDING
    return Decision(serves, False, reason, 0, n, mean, lower, superior=superior)


def _judge_few(differences: Mapping[str, float], told: str, mean: float, margin: float) -> Decision:
    """Under six patients no interval is worth its name: the mean decides, and no patient may fall far."""
    n, needed = len(differences), FULL - len(differences)
    patient, worst = min(differences.items(), key=lambda item: item[1])
    mean_holds = mean >= -margin - _ROUNDING
    worst_holds = worst >= -WORST_FALL * margin - _ROUNDING
    reason = f"{_verdict(mean_holds and worst_holds, True)}: {told}, "
    reason += f"{'not below' if mean_holds else 'below'} {-margin:+.3f}"
    if not worst_holds:
        allowed = f"{WORST_FALL} margins ({WORST_FALL * margin:.3f})"
        reason += f", but patient {patient!r} fell by {-worst:.3f}, more than {allowed}"
    return Decision(mean_holds and worst_holds, True, f"{reason}; {_more(needed)}", needed, n, mean)


def _fallen_label(new: Mapping[str, PatientScores], old: Mapping[str, PatientScores], margins: _Margins) -> str:
    """The label whose mean fell furthest beyond its margin, in words, or an empty string."""
    falls = {}
    for label in sorted(new.keys() & old.keys()):
        differences = paired_differences(new[label], old[label])
        if differences and fmean(differences.values()) < -margins.of(label) - _ROUNDING:
            falls[label] = (fmean(differences.values()), len(differences))
    if not falls:
        return ""
    worst = min(falls, key=lambda label: falls[label][0] + margins.of(label))
    mean, n = falls[worst]
    return (
        f"label {worst!r} fell by {-mean:.3f} on average over {_patients(n)}, more than the margin "
        f"{margins.of(worst):.3f}"
    )


def _not_finite(means: Mapping[str, PatientScores | None], labels: Mapping[str, Mapping[str, PatientScores]]) -> str:
    """Which score is not a number, in words, or an empty string."""
    named = [(who, scores or {}) for who, scores in means.items()]
    named += [(f"{who}'s {label!r}", scores) for who, of in labels.items() for label, scores in of.items()]
    for who, scores in named:
        broken = sorted(p for p, score in scores.items() if not math.isfinite(score))
        if broken:
            return f"the {who} score of patient {broken[0]!r} is {scores[broken[0]]}, not a finite number"
    return ""


def _percent(alpha: float) -> str:
    return f"{100 * (1 - alpha):.4g} %"


def _told(new: PatientScores, old: PatientScores, differences: Mapping[str, float], whose: str) -> str:
    new_mean, old_mean = (fmean(scores[p] for p in differences) for scores in (new, old))
    gap = fmean(differences.values())
    return f"on {_patients(len(differences))} mean {new_mean:.3f} against {whose} {old_mean:.3f}, difference {gap:+.3f}"


def _verdict(serves: bool, provisional: bool = False) -> str:
    return ("serves" if serves else "rejected") + (" provisionally" if provisional else "")


def _where(above: bool) -> str:
    return "above" if above else "not above"


def _more(needed: int) -> str:
    return f"{needed} more held-out label{'s' if needed > 1 else ''} for a full judgement"


def _patients(n: int) -> str:
    return f"{n} held-out patient{'s' if n != 1 else ''}"
