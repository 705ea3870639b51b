"""Risk over time in discrete hazards: bounds, curves, and how well they fit what became of patients.

Time is cut at `bounds` (K + 1 of them, the first 0). The hazard of an interval is the chance that the event comes
there, for those without it at its beginning: the sigmoid of one logit (Gensheimer and Narasimhan, PeerJ 2019). Within
an interval the logarithm of survival is linear; after the last bound it goes on as in the last interval. A patient
without an event who was last heard of within an interval counts for the share of it that was lived through.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.evaluation.calibration import HIGHEST, LOWEST, PATIENTS, Temperature

_LEAST = 1e-3  # of a hazard that is counted: an interval without an event is not free of risk
_GAP = 1e-4  # of the last bound, the shortest interval


def bounds_of(event: np.ndarray, time: np.ndarray, intervals: int) -> np.ndarray:
    """(intervals + 1,) bounds: quantiles of the times of events, up to the last word of anybody.

    Not up to a named time beyond that: events would be spread over time that nobody was followed for.

    Args:
        event: (n,) bool, at least one holds.
        time: (n,) more than 0.
        intervals: how many.
    """
    inner = np.quantile(time[event], np.arange(1, intervals) / intervals) if intervals > 1 else []
    bounds = np.concatenate([[0.0], inner, [time.max()]])
    for number in range(1, len(bounds)):  # events at one and the same time would leave intervals without length
        bounds[number] = max(bounds[number], bounds[number - 1] + _GAP * bounds[-1])
    return bounds


def shares(time: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(n, K) of each interval the share that lies before each of (n,) times; more than 1 after the last bound."""
    lived = np.maximum((np.asarray(time, float)[:, None] - bounds[:-1]) / np.diff(bounds), 0.0)
    lived[:, :-1] = np.minimum(lived[:, :-1], 1.0)
    return lived


def place(time: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(n,) number of the interval that each time lies in; a bound belongs to the interval before it."""
    return np.clip(np.searchsorted(bounds, time, side="left") - 1, 0, len(bounds) - 2)


def exposure(event: np.ndarray, time: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) where each event lies, and how much of each interval was lived through without one."""
    came = np.asarray(event, bool)
    where = place(time, bounds)
    inside = (np.arange(len(bounds) - 1) == where[:, None]) & came[:, None]
    whole = np.arange(len(bounds) - 1) < where[:, None]
    return inside.astype(float), np.where(came[:, None], whole, np.minimum(shares(time, bounds), 1.0))


def counted_logits(event: np.ndarray, time: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(K,) logits of the hazards that were counted over all patients: the Kaplan-Meier curve at the bounds."""
    inside, lived = exposure(event, time, bounds)
    came, without = inside.sum(axis=0), lived.sum(axis=0)
    hazard = np.divide(came, came + without, out=np.zeros_like(came), where=came + without > 0)
    hazard = np.clip(hazard, _LEAST, 1 - _LEAST)
    return np.log(hazard) - np.log1p(-hazard)


def survival(logits: np.ndarray, bounds: np.ndarray, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """(n, m) chance to be without the event at each of m times, of (n, K) logits."""
    quiet = -np.logaddexp(0.0, np.asarray(logits, float))  # log(1 - hazard)
    return np.exp(quiet @ shares(np.asarray(times, float), bounds).T)


def time_lost(logits: np.ndarray, bounds: np.ndarray, until: float) -> np.ndarray:
    """(n,) time that the event is expected to take before `until`: the higher, the greater the risk all along."""
    grid = np.linspace(0.0, until, 201)
    curve = survival(logits, bounds, grid)
    return until - ((curve[:, 1:] + curve[:, :-1]) / 2 * np.diff(grid)).sum(axis=1)


def log_losses(logits: np.ndarray, event: np.ndarray, time: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(n,) minus the logarithm of how likely each patient's outcome was."""
    inside, lived = exposure(event, time, bounds)
    x = np.asarray(logits, float)
    return (inside * np.logaddexp(0.0, -x) + lived * np.logaddexp(0.0, x)).sum(axis=1)


def known_at(event: np.ndarray, time: np.ndarray, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """(n, m) whether the event had come at each of m times: 1 or 0, NaN where the patient was lost before."""
    came, when, asked = np.asarray(event, bool)[:, None], np.asarray(time, float)[:, None], np.asarray(times, float)
    return np.where(came & (when <= asked), 1.0, np.where(when >= asked, 0.0, np.nan))


def fit_scale(
    logits: np.ndarray,
    base: np.ndarray,
    event: np.ndarray,
    time: np.ndarray,
    bounds: np.ndarray,
    patients: Sequence[str],
) -> Temperature:
    """What a network's logits are divided by before `base` is added, so that validation patients are likeliest.

    The larger it is, the closer all curves are to what covariates alone say.

    Args:
        logits: (n, K) of the network.
        base: (n, K) of covariates alone.
        event, time: what became of the patients.
        bounds: of the intervals.
        patients: whose each study is.
    """
    from scipy.optimize import minimize_scalar

    count = len(set(patients))
    if not count:
        return Temperature(1.0, 0, None, None, "left at 1: no validation study was looked at")

    def loss(log_scale: float) -> float:
        return float(log_losses(base + logits / np.exp(log_scale), event, time, bounds).mean())

    before = loss(0.0)
    if count < PATIENTS:
        reason = f"left at 1: {count} validation patients, and fewer than {PATIENTS} say too little"
        return Temperature(1.0, count, before, before, reason)
    if not np.asarray(event, bool).any():
        return Temperature(1.0, count, before, before, "left at 1: no validation patient had the event")
    limits = (float(np.log(LOWEST)), float(np.log(HIGHEST)))
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6})
    if found.fun > before - 1e-9:
        return Temperature(1.0, count, before, before, "left at 1: no other temperature has a smaller loss")
    return Temperature(float(np.exp(found.x)), count, before, float(found.fun))
