"""Numbers that are known beside the image: read from `answers.csv`, standardised, missing ones told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radloop.recipes.errors import BadInput

Cells = Mapping[str, str]


@dataclass(frozen=True)
class Covariates:
    """How covariates become a network's input: by the training patients' median, mean and deviation.

    Attributes:
        names: columns of `answers.csv`.
        medians: what stands for a missing one.
        means, deviations: for standardising.
    """

    names: tuple[str, ...] = ()
    medians: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()

    @classmethod
    def fitted(cls, names: Sequence[str], cells: Sequence[Cells]) -> Covariates:
        """Fitted on the studies that are learned from.

        Raises:
            BadInput: a cell is no number, or a covariate has none at all.
        """
        if not names:
            return cls()
        values = np.array([[number(of, name) for name in names] for of in cells])
        empty = [name for name, column in zip(names, values.T, strict=True) if np.isnan(column).all()]
        if empty:
            msg = f"covariate {empty[0]!r} has no value in any of {len(cells)} studies to learn from; see answers.csv"
            raise BadInput(msg)
        deviation = np.nanstd(values, axis=0)
        found = (np.nanmedian(values, axis=0), np.nanmean(values, axis=0), np.where(deviation > 0, deviation, 1.0))
        medians, means, deviations = (tuple(float(v) for v in of) for of in found)
        return cls(tuple(names), medians, means, deviations)

    def row(self, cells: Cells) -> np.ndarray:
        """(2 * names,) float32: standardised values, a missing one at the training median; then who is missing.

        Raises:
            BadInput: a cell is no number.
        """
        values = np.array([number(cells, name) for name in self.names], dtype=float)
        missing = np.isnan(values)
        filled = np.where(missing, self.medians, values)
        scaled = (filled - np.array(self.means)) / np.array(self.deviations)
        return np.concatenate([scaled, missing]).astype(np.float32)

    def missing(self, cells: Cells) -> tuple[str, ...]:
        """Names without a value."""
        return tuple(name for name in self.names if math.isnan(number(cells, name)))

    def as_dict(self) -> dict[str, list[float] | list[str]]:
        """For the checkpoint."""
        return {
            "names": list(self.names),
            "medians": list(self.medians),
            "means": list(self.means),
            "deviations": list(self.deviations),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Sequence[float] | Sequence[str]]) -> Covariates:
        """Of `as_dict`."""
        names = tuple(str(name) for name in found["names"])
        medians, means, deviations = (tuple(float(v) for v in found[key]) for key in ("medians", "means", "deviations"))
        return cls(names, medians, means, deviations)


def number(cells: Cells, name: str) -> float:
    """A cell as a number; NaN where it is empty or not there.

    Raises:
        BadInput: it is something else.
    """
    text = cells.get(name, "").strip()
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        msg = f"answers.csv says {name} = {text[:40]!r}; a covariate must be a plain number or empty"
        raise BadInput(msg)
    return value
