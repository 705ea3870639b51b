"""`coverage`: the study that looks least like any labelled one, for the time when no model exists.

k-center by farthest first (Gonzalez 1985; core-sets, Sener and Savarese, ICLR 2018): no study is farther from a
labelled one than twice what the best choice of as many could reach.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import nearest, to_one, vectors, with_unscored


@register_strategy("coverage")
class Coverage:
    """Takes the study in the middle of all first, then always the farthest from those taken."""

    name = "coverage"
    needs = frozenset({"embedding"})

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""

        def pick(known: list[Candidate], count: int) -> list[str]:
            points, centres = vectors(known, labelled)
            far, chosen = nearest(points, centres), list[int]()
            for _ in range(min(count, len(points))):
                # a far outlier would be a poor first example
                place = int(far.argmax()) if np.isfinite(far).all() else int((points**2).sum(axis=1).argmin())
                chosen.append(place)
                far = np.minimum(far, to_one(points, points[place]))
                far[chosen] = -1.0
            return [known[place].study for place in chosen]

        return with_unscored(pool, "embedding", k, rng, pick)
