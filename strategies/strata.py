"""A budget spread over labels: a share of the studies for each label that is predicted, the rest for any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from radloop.strategies.choose import Candidate


def by_label(pool: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Label -> studies in which it is predicted, sorted by label."""
    found: dict[str, list[Candidate]] = {}
    for one in pool:
        for name in one.predicted:
            found.setdefault(name, []).append(one)
    return dict(sorted(found.items()))


def spread(
    order: Mapping[str, Sequence[str]], whole: Sequence[str], k: int, share: float, rng: np.random.Generator
) -> list[str]:
    """Ids of `k` studies, none twice: `share` of them label by label, the rest from all; in random order of labels.

    Args:
        order: label -> ids, the one to take first first.
        whole: ids of all, the one to take first first.
        k: how many.
        share: of them for the labels; where that is no whole number, the rest is drawn, so that it holds on average.
        rng: makes the draws.
    """
    wanted = k * share
    places = int(wanted) + int(rng.random() < wanted % 1) if order else 0
    names = [name for start in range(0, places, max(1, len(order))) for name in rng.permutation(list(order)).tolist()]
    turns: list[str | None] = [*names[:places], *[None] * (k - places)]
    queues = {name: iter(ids) for name, ids in order.items()}
    rest, taken = iter(whole), list[str]()
    seen = set[str]()
    for turn in rng.permutation(len(turns)):
        name = turns[turn]
        chosen = _next(queues[name], seen) if name is not None else None
        chosen = chosen or _next(rest, seen)
        if chosen is None:
            break
        seen.add(chosen)
        taken.append(chosen)
    return taken


def _next(ids: Iterator[str], seen: set[str]) -> str | None:
    return next((one for one in ids if one not in seen), None)
