"""Pictures for a report, as PNG bytes; drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radloop.evaluation.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOT = "#2b6cb0"
OTHER = "#a0aec0"
MEAN = "#c05621"
_LONGEST = 48  # letters of a name beside a picture


def patient_dots(
    values: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Interval], *, unit: str = "", ratio: bool = True
) -> bytes:
    """One column a name with a dot a patient, the mean and its interval beside them.

    Args:
        values: name (a label) -> patient -> value.
        intervals: name -> mean over patients.
        unit: of the axis.
        ratio: the values lie between 0 and 1, and the axis shows all of that.
    """
    figure = _figure(width=2.4 + 1.3 * len(values))
    axes = figure.subplots()
    for column, (name, found) in enumerate(values.items()):
        heights = list(found.values())
        axes.scatter(_spread(column - 0.08, len(heights)), heights, s=16, color=DOT, alpha=0.7, linewidths=0)
        mean = intervals[name]
        axes.plot(column + 0.28, mean.value, "D", color=MEAN, markersize=5)
        if mean.low is not None and mean.high is not None:
            axes.plot([column + 0.28] * 2, [mean.low, mean.high], color=MEAN, linewidth=1.6)
    axes.set_xticks(range(len(values)), [_plain(name) for name in values])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylabel(unit)
    if ratio:
        axes.set_ylim(-0.03, 1.03)
    return _png(figure)


def paired_lines(first: Mapping[str, float], second: Mapping[str, float], names: Sequence[str]) -> bytes:
    """A line a patient from the `second` score (left) to the `first` (right)."""
    figure = _figure(width=4.2)
    axes = figure.subplots()
    for patient in sorted(first.keys() & second.keys()):
        pair = (second[patient], first[patient])
        axes.plot((0, 1), pair, "-o", color=DOT if pair[1] >= pair[0] else MEAN, alpha=0.6, markersize=4, linewidth=1)
    axes.set_xticks((0, 1), [_plain(name) for name in names])
    axes.set_xlim(-0.3, 1.3)
    axes.set_ylim(-0.03, 1.03)
    return _png(figure)


def roc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """A curve a name, of its true positive rate over its false positive rate; a coin's is dotted.

    Args:
        curves: name -> false and true positive rates.
    """
    figure, axes = _square("1 - specificity", "sensitivity (recall)")
    for number, (name, (false, true)) in enumerate(curves.items()):
        axes.plot(false, true, color=_colour(number, len(curves)), linewidth=1.8, label=_short(name))
    return _with_names(figure, axes)


def froc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """A curve a name, of sensitivity over false positives a study, from an eighth to eight.

    Args:
        curves: name -> false positives a study and sensitivity, both rising.
    """
    figure = _figure(width=5.2, height=4.0)
    axes = figure.subplots()
    rates = [2.0**power for power in range(-3, 4)]
    for number, (name, (rate, sensitivity)) in enumerate(curves.items()):
        # what is found without a false positive counts from the left edge on; what is found at last, to the right
        x = np.r_[0.0, rate, max(rates[-1], rate[-1] if len(rate) else 0)].clip(rates[0] / 2)
        y = np.r_[0.0, sensitivity, sensitivity[-1] if len(rate) else 0.0]
        axes.step(x, y, where="post", color=_colour(number, len(curves)), linewidth=1.8, label=_short(name))
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlabel="false positives a study", ylabel="share of lesions found")
    axes.set(xlim=(rates[0], rates[-1]), ylim=(-0.03, 1.03))
    return _with_names(figure, axes)


def reliability_curves(curves: Mapping[str, Sequence[tuple[float, float, int]]]) -> bytes:
    """A curve a name, of how often events came about over their probability; a perfect model's is dotted.

    Args:
        curves: name -> mean probability, share that came about and number of studies of each bin.
    """
    figure, axes = _square("mean probability", "share that came about")
    for number, (name, points) in enumerate(curves.items()):
        predicted, observed, counts = zip(*points, strict=True)
        colour = _colour(number, len(curves))
        axes.plot(predicted, observed, "-o", color=colour, linewidth=1.4, markersize=5, label=_short(name))
        for place in zip(predicted, observed, counts, strict=True) if len(curves) == 1 else ():
            axes.annotate(str(place[2]), place[:2], xytext=(6, -9), textcoords="offset points", fontsize=8)
    return _with_names(figure, axes)


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    """A figure with axes from 0 to 1 and a diagonal."""
    figure = _figure(width=4.4, height=4.0)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), ":", color=OTHER, linewidth=1.4)
    axes.set(xlabel=x, ylabel=y, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    return figure, axes


def _with_names(figure: Figure, axes: Axes) -> bytes:
    """The picture as wide as the names beside it need."""
    figure.set_layout_engine("none")  # it would shrink the axes instead
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    return _png(figure, box="tight")


def _short(name: str) -> str:
    """As much of a name as fits; one that begins with _ would be left out."""
    cut = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
    return _plain(f" {cut}" if cut.startswith("_") else cut)


def _colour(number: int, count: int) -> str:
    return DOT if count == 1 else f"C{number % 10}"


def _figure(width: float, height: float = 3.4) -> Figure:
    from matplotlib.figure import Figure  # this class draws without a display and leaves pyplot's state alone

    return Figure(figsize=(min(width, 14.0), height), dpi=110, layout="constrained")


def _png(figure: Figure, box: str | None = None) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=OTHER, alpha=0.35)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None}, bbox_inches=box)
    return out.getvalue()


def _plain(name: str) -> str:
    """A name that matplotlib does not read as a formula."""
    return name.replace("$", r"\$")


def _spread(centre: float, count: int) -> list[float]:
    """Places around a centre that keep dots apart, the same at every drawing."""
    return [centre + 0.22 * ((i * 0.618) % 1.0 - 0.5) for i in range(count)]
