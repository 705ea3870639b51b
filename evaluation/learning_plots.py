"""The picture of learning curves, as PNG bytes; drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radloop.evaluation.plots import OTHER, _figure, _plain, _png, _short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def learning_curves(told: Mapping[str, Any], *, figure: str, x: str = "labels") -> bytes:
    """A curve a strategy with its interval, the full-data figure dashed; beside it the outline left to draw, if any.

    Args:
        told: what `radloop.evaluation.learning_curves.summarise` gives.
        figure: name of the figure, for the axis.
        x: name of the other axis.
    """
    strategies: Mapping[str, Any] = told["strategies"]
    paths = bool(strategies) and all("path_mm" in entry for of in strategies.values() for entry in of["rounds"])
    drawn = _figure(width=11.0 if paths else 6.4, height=4.2)
    panels = drawn.subplots(1, 2) if paths else [drawn.subplots()]
    for number, (name, of) in enumerate(strategies.items()):
        labels = [entry["labels"] for entry in of["rounds"]]
        _curve(panels[0], labels, of["rounds"], f"C{number % 10}", _short(name))
        if paths:
            _curve(panels[1], labels, [entry["path_mm"] for entry in of["rounds"]], f"C{number % 10}", _short(name))
    full = told.get("full")
    if full and full["value"] is not None:
        panels[0].axhline(full["value"], color=OTHER, linestyle="--", linewidth=1.4, label="all labels")
    panels[0].set(xlabel=x, ylabel=_plain(figure))
    panels[0].legend(frameon=False, fontsize=9)
    if paths:
        panels[1].set(xlabel=x, ylabel="outline left to draw, mm a study")
        panels[1].set_ylim(bottom=0)
    return _png(drawn)


def _curve(axes: Axes, labels: list[int], entries: list[Mapping[str, Any]], colour: str, name: str) -> None:
    known = [(count, entry) for count, entry in zip(labels, entries, strict=True) if entry["value"] is not None]
    axes.plot(
        [count for count, _ in known], [e["value"] for _, e in known], "-o", color=colour, label=name, markersize=4
    )
    whole = [(count, entry) for count, entry in known if entry["low"] is not None and entry["high"] is not None]
    if whole:
        low, high = [e["low"] for _, e in whole], [e["high"] for _, e in whole]
        axes.fill_between([count for count, _ in whole], low, high, color=colour, alpha=0.15, linewidth=0)
