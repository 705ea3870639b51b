"""The gate: may this version serve? One pure function; docs/gate.md says the rule in words.

Scores are one number a held-out patient, higher is better (Dice for masks). A challenger is compared with the champion
on the patients who have both scores; a first model, having no champion, with the trivial baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from radloop.evaluation.intervals import paired_differences, paired_lower_bound

FULL = 6
"""Held-out patients from which an interval over patients decides."""
WORST_FALL = 5
"""Margins that one patient may fall while the judgement is provisional."""
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
        lower: one-sided 95 % lower bound of that mean; None under six patients.
        held: not refused but waiting for a person, because there was nothing to judge it by.
    """

    serves: bool
    provisional: bool
    reason: str
    needed: int
    n: int
    difference: float | None = None
    lower: float | None = None
    held: bool = False

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
) -> Decision:
    """Whether the challenger may serve.

    Args:
        challenger: patient -> score of the new version on held-out patients.
        champion: patient -> score of the version that serves, or None when there is none.
        baseline: patient -> score of the trivial method; used for a first model only.
        margin: how much worse still counts as not worse, in units of the score.
        challenger_labels: label -> patient -> score, for the guard that no single label gets worse.
        champion_labels: the same of the champion.
    """
    broken = _not_finite(challenger, champion, baseline, challenger_labels, champion_labels)
    if broken:
        return Decision(False, False, f"rejected: {broken}", max(0, FULL - len(challenger)), len(challenger))
    if champion is None:
        return _judge_first(challenger, baseline)
    decision = _judge_next(challenger, champion, margin)
    fallen = _fallen_label(challenger_labels or {}, champion_labels or {}, margin)
    if decision.serves and fallen:
        return replace(decision, serves=False, reason=f"rejected: {fallen}; {decision.reason} by the mean over labels")
    return decision


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


def _judge_next(challenger: PatientScores, champion: PatientScores, margin: float) -> Decision:
    """A later model must not be worse than the champion by more than the margin."""
    differences = paired_differences(challenger, champion)
    n, needed = len(differences), max(0, FULL - len(differences))
    if not n:
        reason = (
            "held for a person: no held-out label to compare it with the champion on, which goes on serving; "
            f"1 held-out label allows a provisional judgement, {needed} a full one"
        )
        return Decision(False, True, reason, needed, 0, held=True)
    mean = fmean(differences.values())
    told = _told(challenger, champion, differences, "the champion's")
    if n >= FULL:
        lower = paired_lower_bound(list(differences.values()))
        serves = lower > -margin + _ROUNDING
        reason = f"{_verdict(serves)}: {told}, one-sided 95 % lower bound {lower:+.3f}, {_where(serves)} {-margin:+.3f}"
        if not serves and min(differences.values()) >= -margin - _ROUNDING:
            reason += "; no patient fell by more than the margin, the differences are too uneven to be sure of the mean"
        return Decision(serves, False, reason, 0, n, mean, lower)
    return _judge_few(differences, told, mean, margin)


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


def _fallen_label(new: Mapping[str, PatientScores], old: Mapping[str, PatientScores], margin: float) -> str:
    """The label whose mean fell furthest beyond the margin, in words, or an empty string."""
    means = {}
    for label in sorted(new.keys() & old.keys()):
        differences = paired_differences(new[label], old[label])
        if differences:
            means[label] = (fmean(differences.values()), len(differences))
    fallen = [label for label, (mean, _) in means.items() if mean < -margin - _ROUNDING]
    if not fallen:
        return ""
    worst = min(fallen, key=lambda label: means[label][0])
    mean, n = means[worst]
    return f"label {worst!r} fell by {-mean:.3f} on average over {_patients(n)}, more than the margin {margin:.3f}"


def _not_finite(
    challenger: PatientScores,
    champion: PatientScores | None,
    baseline: PatientScores | None,
    challenger_labels: Mapping[str, PatientScores] | None,
    champion_labels: Mapping[str, PatientScores] | None,
) -> str:
    """Which score is not a number, in words, or an empty string."""
    named: list[tuple[str, PatientScores]] = [("challenger", challenger)]
    named += [("champion", champion or {})]
    # A first model alone is compared with the baseline.
    named += [("baseline", baseline or {})] if champion is None else []
    named += [(f"challenger's {label!r}", scores) for label, scores in (challenger_labels or {}).items()]
    named += [(f"champion's {label!r}", scores) for label, scores in (champion_labels or {}).items()]
    for who, scores in named:
        broken = sorted(p for p, score in scores.items() if not math.isfinite(score))
        if broken:
            return f"the {who} score of patient {broken[0]!r} is {scores[broken[0]]}, not a finite number"
    return ""


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
