"""Pictures of risks over time, as PNG bytes; drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from radloop.evaluation.plots import DOT, MEAN, OTHER, _figure, _plain, _png, _square, _with_names
from radloop.evaluation.risk_scores import kaplan_meier

GROUPS = {2: ("lower risk", "higher risk"), 3: ("lowest risk", "middle", "highest risk")}
_COLOURS = {2: (DOT, MEAN), 3: (DOT, OTHER, MEAN)}
_FOR_THREE = 30  # events; with fewer, two groups


def groups_of(rank: np.ndarray, event: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (n,) bool, the studies of each risk group: thirds where there are many events, else halves."""
    count = 3 if event.sum() >= _FOR_THREE else 2
    order = np.argsort(np.argsort(rank, kind="stable"), kind="stable") * count // max(len(rank), 1)
    return {name: order == place for place, name in enumerate(GROUPS[count])}


def survival_by_group(
    event: np.ndarray, time: np.ndarray, groups: Mapping[str, np.ndarray], *, unit: str, without: str
) -> bytes:
    """A Kaplan-Meier curve a group; a tick where somebody was lost.

    Args:
        event, time: what became of the patients.
        groups: name -> (n,) bool.
        unit: of times.
        without: name of the event.
    """
    figure = _figure(width=6.4, height=3.8)
    axes = figure.subplots()
    colours = _COLOURS.get(len(groups), _COLOURS[3])
    for (name, here), colour in zip(groups.items(), colours, strict=False):
        if not here.any():
            continue
        came, when = event[here], time[here]
        moments = np.r_[0.0, np.unique(when)]
        axes.step(moments, kaplan_meier(came, when, moments)[0], where="post", color=colour, label=_plain(name))
        lost = np.unique(when[~came])
        if len(lost):
            axes.plot(lost, kaplan_meier(came, when, lost)[0], "|", color=colour, markersize=7)
    axes.set(xlabel=unit, ylabel=_plain(f"share without {without}"), ylim=(-0.03, 1.03))
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def calibration_at(points: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """A curve a named time, of the share to whom the event came over the mean risk told; a perfect model's is dotted.

    Args:
        points: name of a time -> (mean risk, share) of each group.
    """
    figure, axes = _square("mean risk told", "share to whom it came")
    for number, (name, of) in enumerate(points.items()):
        told, came = zip(*of, strict=True)
        axes.plot(told, came, "-o", color=f"C{number % 10}", linewidth=1.4, markersize=5, label=_plain(name))
    return _with_names(figure, axes)
