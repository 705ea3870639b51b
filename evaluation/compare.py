"""Two versions on the same held-out patients: the gate's single comparisons, which `gate_rule` puts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from radloop.evaluation.intervals import paired_differences, paired_lower_bound

FULL = 6
"""Held-out patients from which an interval over patients decides."""
WORST_FALL = 5
"""Margins that one patient may fall while the judgement is provisional."""
ALPHA = 0.05
"""How often a challenger worse by just the margin may pass the first judgement on these patients."""
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
        first: compared with the trivial baseline alone, so that it sets the level too.
        proven: labels on which it, or a version before it, was fully shown to beat the baseline.
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
    first: bool = False
    proven: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The decision for a version's manifest."""
        return asdict(self)


def first_model(challenger: PatientScores, baseline: PatientScores | None, alpha: float = ALPHA) -> Decision:
    """A first model must beat the trivial baseline; without held-out labels it serves, marked provisional."""
    differences = paired_differences(challenger, baseline or {})
    n, needed = len(differences), max(0, FULL - len(differences))
    if challenger and not n:
        reason = f"rejected: no baseline score for the {len(challenger)} held-out patients; a first model must beat it"
        return Decision(False, True, reason, needed, 0, first=True)
    if not n:
        reason = (
            "serves provisionally: no held-out label yet, so nothing to judge it by, and no earlier model to lose; "
            f"{needed} held-out labels are needed for a full judgement"
        )
        return Decision(True, True, reason, needed, 0, first=True)
    mean = fmean(differences.values())
    told = _told(challenger, baseline or {}, differences, "the trivial baseline's")
    if n >= FULL:
        lower = paired_lower_bound(list(differences.values()), 1 - alpha)
        serves = lower > _ROUNDING
        reason = f"{_verdict(serves)}: {told}, one-sided {_percent(alpha)} lower bound {lower:+.3f}, {_where(serves)} 0"
        return Decision(serves, False, reason, 0, n, mean, lower, alpha=alpha, first=True)
    serves = mean > _ROUNDING
    reason = f"{_verdict(serves, True)}: {told}, {_where(serves)} 0; {_more(needed)}"
    return Decision(serves, True, reason, needed, n, mean, first=True)


def not_worse(new: PatientScores, old: PatientScores, margin: float, alpha: float, whose: str) -> Decision:
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
    return Decision(serves, False, reason, 0, n, mean, lower, alpha=alpha, superior=superior)


def _judge_few(differences: Mapping[str, float], told: str, mean: float, margin: float) -> Decision:
    """Under six patients no interval is worth its name: the mean decides, and no patient may fall far."""
    n, needed = len(differences), FULL - len(differences)
    worst = min(differences.values())
    mean_holds = mean >= -margin - _ROUNDING
    worst_holds = worst >= -WORST_FALL * margin - _ROUNDING
    reason = f"{_verdict(mean_holds and worst_holds, True)}: {told}, "
    reason += f"{'not below' if mean_holds else 'below'} {-margin:+.3f}"
    if not worst_holds:
        allowed = f"{WORST_FALL} margins ({WORST_FALL * margin:.3f})"
        reason += f", but one patient fell by {-worst:.3f}, more than {allowed}"
    return Decision(mean_holds and worst_holds, True, f"{reason}; {_more(needed)}", needed, n, mean)


def fallen_label(
    new: Mapping[str, PatientScores], old: Mapping[str, PatientScores], margin_of: Callable[[str], float]
) -> str:
    """The label whose mean fell furthest beyond its margin, in words, or an empty string."""
    falls = {}
    for label in sorted(new.keys() & old.keys()):
        differences = paired_differences(new[label], old[label])
        if differences and fmean(differences.values()) < -margin_of(label) - _ROUNDING:
            falls[label] = (fmean(differences.values()), len(differences))
    if not falls:
        return ""
    worst = min(falls, key=lambda label: falls[label][0] + margin_of(label))
    mean, n = falls[worst]
    return (
        f"label {worst!r} fell by {-mean:.3f} on average over {_patients(n)}, more than the margin "
        f"{margin_of(worst):.3f}"
    )


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
