"""Which labels a version learned from, also through the versions it started from, and the way back.

A version that starts from another's weights has learned, in part, from that one's labels too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from radloop.registry.folders import MANIFEST, checksum
from radloop.registry.registry import Registry
from radloop.registry.version import Version, read_manifest
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger

VersionsOf = Callable[[str], Sequence[Version]]


@dataclass(frozen=True)
class Use:
    """How a version used some labels.

    Attributes:
        trained: rows it learned from itself.
        inherited: rows that versions it started from learned from, and it did not.
        judged: held-out rows that the gate judged it on.
    """

    version: Version
    trained: tuple[int, ...]
    inherited: tuple[int, ...]
    judged: tuple[int, ...]

    @property
    def learned(self) -> bool:
        """Whether its weights learned from any of them."""
        return bool(self.trained or self.inherited)


def own_labels(version: Version) -> set[int]:
    """Ledger rows that a version was trained on itself; none where its manifest is lost."""
    return {int(row) for row in version.manifest.get("labels") or ()}


def judged_labels(version: Version) -> set[int]:
    """Held-out ledger rows that a version was judged on."""
    return {int(row) for row in version.manifest.get("held_out_labels") or ()}


def ancestors(version: Version, versions_of: VersionsOf) -> list[Version]:
    """The versions that a version's weights come from, the nearest first, also those of other recipes.

    Args:
        versions_of: gives every version of a recipe, such as `Registry.versions`.
    """
    found: list[Version] = []
    while (one := _parent(version, versions_of)) and one not in found:
        found.append(one)
        version = one
    return found


def _parent(version: Version, versions_of: VersionsOf) -> Version | None:
    """What a version started from: one of its own recipe, or the one whose weights its recipe named."""
    recipe, number = version.manifest.get("weights_of") or (version.recipe, version.manifest.get("started_from"))
    return next((one for one in versions_of(recipe) if one.number == number), None) if number else None


def made_by(registry: Registry, weights: Path) -> Version | None:
    """The version whose weights a file holds, byte by byte; None where the registry knows none."""
    digest = checksum(weights)
    every = (version for recipe in registry.recipes() for version in registry.versions(recipe))
    return next((version for version in every if version.manifest.get("checksum") == digest), None)


def last_row_named(home: Home) -> int:
    """The largest ledger row that a version of a home names; 0 where none does. Opens no registry."""
    manifests = [read_manifest(file.parent) for file in (home.path / "versions").glob(f"*/*/{MANIFEST}")]
    lists = [[*(m.get("labels") or ()), *(m.get("held_out_labels") or ()), m.get("last_row") or 0] for m in manifests]
    return max((int(row) for found in lists for row in found), default=0)


def uses(registry: Registry, rows: Collection[int], recipe: str | None = None) -> list[Use]:
    """Every version that used any of these ledger rows, by recipe and number.

    Args:
        recipe: only versions of it.
    """
    wanted = set(rows)
    found = []
    versions_of = cache(registry.versions)
    for name in [recipe] if recipe else registry.recipes():
        for version in versions_of(name):
            own = own_labels(version)
            before = set[int]().union(*(own_labels(one) for one in ancestors(version, versions_of))) - own
            parts = (own, before, judged_labels(version))
            trained, inherited, judged = (tuple(sorted(part & wanted)) for part in parts)
            if trained or inherited or judged:
                found.append(Use(version, trained, inherited, judged))
    return found


def used_retracted(registry: Registry, ledger: Ledger, recipe: str) -> list[Version]:
    """Versions of a recipe whose weights learned from a label that was retracted since, or that were judged on one."""
    return [use.version for use in uses(registry, ledger.retracted(recipe), recipe)]


def tainted(registry: Registry, ledger: Ledger, recipe: str) -> list[Version]:
    """Versions of a recipe whose weights learned from a label that was retracted since."""
    return [use.version for use in uses(registry, ledger.retracted(recipe), recipe) if use.learned]
