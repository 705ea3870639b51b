"""The versions that serve, as the server's tasks ask for them: opened late, looked up often."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from radloop.recipes.errors import RadloopError
from radloop.studies.home import Home

if TYPE_CHECKING:
    from radloop.engine.predictor import Predictor, PredictorCache
    from radloop.registry.registry import Registry
    from radloop.registry.version import Version

logger = logging.getLogger(__name__)


class Champions:
    """Serving versions and their predictors; the registry is opened at the first question, for its import is slow.

    Args:
        home: whose registry.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
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

    def or_none(self, recipe: str) -> Version | None:
        """As `of`, but None where it cannot serve; for what must always answer."""
        try:
            return self.of(recipe)
        except RadloopError as error:
            logger.warning("%s", error)
            return None

    def predictor(self, version: Version) -> Predictor:
        """The predictor of a version, loaded once."""
        from radloop.engine.predictor import PredictorCache

        with self._lock:
            if self._cache is None:
                self._cache = PredictorCache()
            cache = self._cache
        return cache.get(version)
