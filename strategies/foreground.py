"""`foreground`: at random, but most of the studies have what is looked for, each label as often as every other.

Foreground-aware random, which nnActive (TMLR 2025) found no published strategy to beat reliably: two thirds of its
patches hold a label, the rest are drawn evenly. There the true label says so; here it is what the version predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import drawn, with_unscored
from radloop.strategies.strata import by_label, spread

SHARE = 2 / 3


@register_strategy("foreground")
class Foreground:
    """Draws at random from the studies in which a label is predicted, label by label.

    Args:
        share: of the studies that are drawn so; the others are drawn from all.
    """

    name = "foreground"
    needs = frozenset({"entropy"})

    def __init__(self, share: float = SHARE) -> None:
        self._share = share

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""

        def pick(known: list[Candidate], count: int) -> list[str]:
            order = {name: drawn(those, len(those), rng) for name, those in by_label(known).items()}
            return spread(order, drawn(known, len(known), rng), count, self._share, rng)

        return with_unscored(pool, "entropy", k, rng, pick)
