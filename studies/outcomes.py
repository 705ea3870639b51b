"""What became of a patient, as an answer of kind `risk`: whether the event came, and when.

    {"format": 1, "kind": "risk", "event": true, "time": 412, "unit": "days"}

Without an event the time says until when the patient was known to be without it. A sender may leave `unit` out: then it
is the recipe's. What is kept always has it, so that times keep their meaning when a recipe's unit changes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from radloop.recipes.errors import BadLabel, closest
from radloop.recipes.recipe import Recipe, Unit

DAYS: dict[Unit, float] = {"days": 1.0, "months": 365.25 / 12, "years": 365.25}
KEYS = ("format", "kind", "event", "time", "unit")
_YES, _NO = ("1", "yes", "true", "1.0"), ("0", "no", "false", "0.0")
_FORM = '{"format": 1, "kind": "risk", "event": true or false, "time": a number}'


@dataclass(frozen=True)
class Outcome:
    """Whether an event came, and when.

    Attributes:
        event: it came; else the patient was without it so far.
        time: of the event, or of the last word about the patient; more than 0.
        unit: of the time.
    """

    event: bool
    time: float
    unit: Unit = "days"

    def within(self, unit: Unit) -> Outcome:
        """The same in another unit."""
        if unit == self.unit:
            return self
        return Outcome(self.event, self.time * DAYS[self.unit] / DAYS[unit], unit)

    def told(self) -> dict[str, Any]:
        """As JSON holds it."""
        time = int(self.time) if self.time == int(self.time) else self.time
        return {"event": self.event, "time": time, "unit": self.unit}

    def content(self, form: int) -> bytes:
        """The answer file."""
        return (json.dumps({"format": form, "kind": "risk", **self.told()}) + "\n").encode()

    def cells(self, recipe: Recipe) -> dict[str, str | bool]:
        """Column -> cell of `answers.csv`, in the recipe's unit."""
        found = self.within(recipe.answer.unit)
        return {recipe.answer.event: found.event, recipe.answer.time: f"{found.time:.10g}"}


def wrong_outcome(told: Mapping[str, Any]) -> str:
    """Why a JSON object of kind `risk` is no outcome, or ""."""
    for key in (*told, *KEYS[:-1]):
        if key not in KEYS:
            return f"has the key {key[:80]!r}, which is not allowed; allowed are {', '.join(KEYS)}{closest(key, KEYS)}"
        if key not in told:
            return f"has no key {key!r}; write {_FORM}"
    event, time, unit = told["event"], told["time"], told.get("unit", "days")
    if not isinstance(event, bool):
        return f"has event {event!r:.80}; write true or false"
    if isinstance(time, bool) or not isinstance(time, int | float) or not _usable(float(time)):
        return f"has time {time!r:.80}; write a number above 0"
    if unit not in get_args(Unit):
        return f"has unit {unit!r:.80}; allowed are {', '.join(get_args(Unit))}"
    return ""


def outcome_of(told: Mapping[str, Any], unit: Unit = "days") -> Outcome:
    """The outcome in a JSON object that `wrong_outcome` found nothing wrong with; `unit` where it names none."""
    return Outcome(told["event"], float(told["time"]), told.get("unit", unit))


def outcome_in_cells(recipe: Recipe, row: Mapping[str, str]) -> Outcome | None:
    """The outcome in a row of `answers.csv`; None where both cells are empty or not there.

    Raises:
        BadLabel: one of them is empty, or holds something else.
    """
    names = (recipe.answer.event, recipe.answer.time)
    event, time = (row.get(name, "").strip() for name in names)
    if not event and not time:
        return None
    if not event or not time:
        empty, full = names if not event else names[::-1]
        msg = f"column {full!r} is filled and {empty!r} is empty or not there; fill both, or neither"
        raise BadLabel(msg)
    if event.casefold() not in (*_YES, *_NO):
        msg = f"{event[:80]!r} in column {names[0]!r} is neither yes nor no; allowed are 1, 0, yes, no, true, false"
        raise BadLabel(msg)
    try:
        value = float(time)
    except ValueError:
        value = math.nan
    if not _usable(value):
        unit = recipe.answer.unit
        msg = f"{time[:80]!r} in column {names[1]!r} is no time; write a number of {unit} above 0"
        raise BadLabel(msg)
    return Outcome(event.casefold() in _YES, value, recipe.answer.unit)


def _usable(time: float) -> bool:
    return math.isfinite(time) and 0 < time < 1e9
