"""`random`: every study with the same chance. What all others are measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import drawn, in_order


@register_strategy("random")
class RandomCases:
    """Draws at random."""

    name = "random"
    needs: frozenset[str] = frozenset()

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""
        return drawn(in_order(pool), k, rng)
