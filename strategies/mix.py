"""`mix`: uncertain studies that do not look alike, so that several readers, or one round, do not read one case twice.

Among the most uncertain, farthest first with each distance weighed by the entropy (as core-sets and uncertainty are
joined in Ash et al., BADGE, ICLR 2020, by other means), and one study a patient as long as there are others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import highest, nearest, to_one, vectors, with_unscored

AMONG = 5
FEWEST = 20


@register_strategy("mix")
class Mix:
    """Entropy times the distance to what is labelled or already chosen.

    Args:
        among: the choice is among so many times `k` most uncertain studies, and at least 20.
    """

    name = "mix"
    needs = frozenset({"entropy", "embedding"})

    def __init__(self, among: int = AMONG) -> None:
        self._among = among

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""

        def pick(known: list[Candidate], count: int) -> list[str]:
            names = set(highest(known, "entropy", max(FEWEST, self._among * count)))
            first = [one for one in known if one.study in names and one.embedding is not None]
            chosen = _apart(first, labelled, count)
            rest = [one for one in known if one.study not in set(chosen)]
            return [*chosen, *highest(rest, "entropy", count - len(chosen))]

        return with_unscored(pool, "entropy", k, rng, pick)


def _apart(pool: Sequence[Candidate], labelled: Sequence[Candidate], count: int) -> list[str]:
    """Ids of at most so many, each uncertain and far from those before."""
    points, centres = vectors(pool, labelled)
    weight = np.array([one.scores["entropy"] for one in pool])
    patients = np.array([one.patient for one in pool])
    far, chosen = nearest(points, centres), list[int]()
    left = np.ones(len(pool), bool)
    for _ in range(min(count, len(pool))):
        fresh = left & ~np.isin(patients, patients[chosen]) if chosen else left
        among = fresh if fresh.any() else left
        value = np.where(among, weight * np.where(np.isfinite(far), far, 1.0), -1.0)
        place = int(value.argmax())
        chosen.append(place)
        left[place] = False
        far = np.minimum(far, to_one(points, points[place]))
    return [pool[place].study for place in chosen]
