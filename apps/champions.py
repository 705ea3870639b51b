"""The versions that serve, as the server's tasks ask for them: opened late, looked up often."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from radloop.recipes.errors import RadloopError
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.engine.predictor import PredictorCache
    from radloop.registry.registry import Registry
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)
LOOK_EVERY = 1.0
CHORES_EVERY = 30.0


class Champions:
    """Serving versions and their predictors; the registry is opened at the first question, for its import is slow.

    Args:
        home: whose registry.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._known: dict[str, Version | None] = {}
        self._complained = ""
        self._registry: Registry | None = None
        self._cache: PredictorCache | None = None

    def registry(self) -> Registry:
        """The registry of the home."""
        from radloop.registry.registry import Registry

        with self._lock:
            if self._registry is None:
                self._registry = Registry(self._home)
            return self._registry

    def of(self, recipe: str) -> Version | None:
        """The version that serves, or None; a new one shows within a second.

        Raises:
            Conflict: its files are missing or damaged.
        """
        return self.registry().champion(recipe)

    def watch(self, recipes: Sequence[str], chores: Sequence[Callable[[], object]] = ()) -> None:
        """Looks in the background, once a second, so that `known` never waits for the registry.

        Args:
            recipes: their names.
            chores: what the server does from time to time, twice a minute.
        """

        def look() -> None:
            rested = time.monotonic()
            while True:
                for recipe in recipes:
                    self._survive(functools.partial(self._look_at, recipe))
                if time.monotonic() - rested >= CHORES_EVERY:
                    for chore in chores:
                        self._survive(chore)
                    rested = time.monotonic()
                time.sleep(LOOK_EVERY)

        threading.Thread(target=look, name="radloop-champions", daemon=True).start()

    def _look_at(self, recipe: str) -> None:
        self._known[recipe] = self.or_none(recipe)

    def _survive(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:  # one failure must not end the looking for ever
            if repr(error) != self._complained:
                self._complained = repr(error)
                logger.warning("looking for what serves and what is due failed", exc_info=error)

    def known(self, recipe: str) -> Version | None:
        """The version that served at the last look, at most a second or two ago; waits for the first look only."""
        if recipe not in self._known:
            self._known[recipe] = self.or_none(recipe)
        return self._known[recipe]

    def or_none(self, recipe: str) -> Version | None:
        """As `of`, but None where it cannot serve; for what must always answer."""
        try:
            return self.of(recipe)
        except RadloopError as error:
            if str(error) != self._complained:
                self._complained = str(error)
                logger.warning("%s", error)
            return None

    def predictor(self, version: Version) -> Any:
        """What answers for a version, loaded once."""
        from radloop.engine.predictor import PredictorCache

        with self._lock:
            if self._cache is None:
                self._cache = PredictorCache()
            cache = self._cache
        return cache.get(version)
