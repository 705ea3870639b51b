"""Pictures of how boxes do, as PNG bytes; drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = "#2b6cb0"


def froc_plot(false: np.ndarray, found: np.ndarray, rates: Sequence[float]) -> bytes:
    """Sensitivity over false alarms a study, on a scale of doublings."""
    figure, axes = _square("false alarms a study", "sensitivity")
    axes.step([*false, max(false[-1], rates[-1])], [*found, found[-1]], where="post", color=_LINE, linewidth=1.8)
    axes.set_xscale("log", base=2)
    axes.set_xlim(rates[0], rates[-1])
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    return _png(figure)


def precision_recall_plot(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """A curve a label: precision over recall."""
    figure, axes = _square("recall", "precision")
    for place, (name, (recall, precision)) in enumerate(curves.items()):
        colour = _LINE if len(curves) == 1 else f"C{place % 10}"
        axes.plot(recall, precision, color=colour, linewidth=1.8, label=f" {name[:40]}".replace("$", r"\$"))
    axes.set_xlim(-0.03, 1.03)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    return _png(figure)


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # this class draws without a display and leaves pyplot's state alone

    figure = Figure(figsize=(4.4, 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, ylim=(-0.03, 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#a0aec0", alpha=0.35)
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
