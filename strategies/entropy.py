"""`entropy`: the study whose answer is least certain, over the predicted target and its border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import highest, with_unscored


@register_strategy("entropy")
class Entropy:
    """Takes the highest predictive entropy."""

    name = "entropy"
    needs = frozenset({"entropy"})

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""
        return with_unscored(pool, "entropy", k, rng, lambda known, count: highest(known, "entropy", count))
