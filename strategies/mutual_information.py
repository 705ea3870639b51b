"""`mutual_information`: the study on which several looks of one network disagree most (BALD, Houlsby et al. 2011).

Entropy that every look agrees on is in the image; what they disagree on is what more labels can teach. The looks differ
by dropout, see `radloop.engine.dropout`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import highest, with_unscored

KEY = "mutual_information"


@register_strategy(KEY)
class MutualInformation:
    """Takes the highest mutual information between answer and weights."""

    name = KEY
    needs = frozenset({KEY})

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""
        return with_unscored(pool, KEY, k, rng, lambda known, count: highest(known, KEY, count))
