"""What a strategy is: it says which of the studies without a label to read next. One file a strategy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from radloop.recipes.errors import NotFound, closest

_FILES = ("random_cases", "foreground", "entropy", "mutual_information", "clasp_pe", "coverage", "mix")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A study as strategies see it.

    Attributes:
        study: its id.
        patient: whose it is.
        scores: what a version said of it, empty where none has yet; see `radloop.strategies.scores`. `entropy` and
            `mutual_information` are in nats, of masks over the predicted target and its border; `entropy.<label>` is
            over one label's and is there for labels that the version predicts; `foreground` is how much target.
        classes: label -> its predicted share of the study (masks), or probability.
        embedding: (D,) what the image looks like, or None where nobody looked yet.
    """

    study: str
    patient: str
    scores: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, float] = field(default_factory=dict)
    embedding: np.ndarray | None = None

    @cached_property
    def predicted(self) -> tuple[str, ...]:
        """The labels that the version predicts in it."""
        return tuple(name for name in self.classes if f"entropy.{name}" in self.scores)


class Chooser(Protocol):
    """A strategy.

    Attributes:
        name: how requests and `radloop simulate` call it.
        needs: of `scores` and `embedding`, what it looks at: names of scores, and `embedding`.
    """

    name: str
    needs: frozenset[str]

    def choose(
        self, pool: Sequence[Candidate], labelled: Sequence[Candidate], k: int, rng: np.random.Generator
    ) -> list[str]:
        """Ids of `k` studies of the pool, the one to read first first; all of them where there are fewer.

        The same pool in any order and the same state of `rng` give the same ids.

        Args:
            pool: studies to choose from.
            labelled: those that have a label, or that somebody is reading.
            k: how many.
            rng: makes what is drawn.
        """
        ...


_known: dict[str, Callable[[], Chooser]] = {}


def register_strategy(name: str) -> Callable[[Callable[[], Chooser]], Callable[[], Chooser]]:
    """A decorator that makes a chooser known by a name; it is built without arguments."""

    def keep(builder: Callable[[], Chooser]) -> Callable[[], Chooser]:
        _known[name] = builder
        return builder

    return keep


def strategy(name: str) -> Chooser:
    """A new chooser by its name.

    Raises:
        NotFound: no strategy has this name; the message has those that there are.
    """
    names = strategy_names()
    if name not in names:
        msg = f"there is no strategy {name!r}{closest(name, names)}; there is: {', '.join(names)}"
        raise NotFound(msg)
    return _known[name]()


def strategy_names() -> tuple[str, ...]:
    """The name of every strategy, sorted."""
    for file in _FILES:
        importlib.import_module(f"radloop.strategies.{file}")
    return tuple(sorted(_known))
