"""How long a training goes on, and the learning rate along the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from radloop.recipes.errors import BadInput
from radloop.recipes.recipe import Recipe

_WARM_UP = 0.05  # share of the budget


@dataclass(frozen=True)
class Budget:
    """Steps or seconds, whichever is given."""

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, recipe: Recipe, epochs: int | None, minutes: float | None) -> Budget:
        """The budget asked for, else the recipe's.

        Raises:
            BadInput: both are given, or one is not above 0.
        """
        for name, value in (("epochs", epochs), ("minutes", minutes)):
            if value is not None and not value > 0:
                msg = f"{name} = {value}; it must be above 0"
                raise BadInput(msg)
        if epochs is not None and minutes is not None:
            msg = f"epochs = {epochs} and minutes = {minutes} are both given; give one"
            raise BadInput(msg)
        if epochs is None and minutes is None:
            epochs, minutes = (None, recipe.fit.minutes) if recipe.fit.minutes else (recipe.fit.epochs, None)
        if epochs is not None:
            return cls(epochs * recipe.fit.steps, None)
        return cls(None, 60.0 * float(minutes or 0.0))

    def share(self, step: int, seconds: float) -> float:
        """How much of the budget is used, 0..1; one more step of average length must fit into seconds."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        one_more = seconds * (step + 1) / step if step else seconds
        return (
            1.0 if step and one_more >= float(self.seconds or 0.0) else min(1.0, seconds / float(self.seconds or 1.0))
        )


def peak_share(share: float) -> float:
    """The learning rate at `share` of the budget as a share of its peak: linear warm-up, then cosine to 0."""
    if share < _WARM_UP:
        return 0.01 + 0.99 * share / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))
