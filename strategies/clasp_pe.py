"""`clasp_pe`: predictive entropy label by label, with noise that fades as labels come.

Class-stratified scheduled power predictive entropy (ClaSP PE, Lüth et al., TMLR 2026): 66 % of the budget goes to the
predicted classes in equal parts, each by the entropy in its own region, the rest by the entropy of the whole. Scores
are noised on a log scale, with a power beta that grows exponentially. Their unit is a patch and the schedule runs over
the rounds of an experiment; ours is a study, and the schedule runs over the labels given so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radloop.strategies.choose import Candidate, register_strategy
from radloop.strategies.drawing import power_noise, with_unscored
from radloop.strategies.strata import by_label, spread

SHARE = 0.66
BETAS = (1.0, 100.0)
UNTIL = 100


@register_strategy("clasp_pe")
class ClaspPE:
    """Class-stratified, power-noised entropy.

    Args:
        share: of the budget that goes to the predicted labels.
        betas: power at the first label, and when the schedule has ended.
        until: so many labels end it.
    """

    name = "clasp_pe"
    needs = frozenset({"entropy"})

    def __init__(self, share: float = SHARE, betas: tuple[float, float] = BETAS, until: int = UNTIL) -> None:
        self._share, self._betas, self._until = share, betas, until

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """See `Chooser.choose`."""
        beta = self._beta(len(labelled))

        def noised(those: list[Candidate], key: str) -> list[str]:
            values = power_noise(np.array([one.scores[key] for one in those]), beta, rng)
            return [those[place].study for place in np.argsort(-values, kind="stable")]

        def pick(known: list[Candidate], count: int) -> list[str]:
            order = {name: noised(those, f"entropy.{name}") for name, those in by_label(known).items()}
            return spread(order, noised(known, "entropy"), count, self._share, rng)

        return with_unscored(pool, "entropy", k, rng, pick)

    def _beta(self, labels: int) -> float:
        first, last = self._betas
        return float(first * (last / first) ** min(1.0, labels / self._until))
