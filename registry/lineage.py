"""Which labels a version learned from, also through the versions it started from, and the way back.

A version that starts from another's weights has learned, in part, from that one's labels too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from radloop.registry.registry import Registry
from radloop.registry.version import Version
from radloop.studies.ledger import Ledger


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


def ancestors(version: Version, versions: Collection[Version]) -> list[Version]:
    """The versions that a version started from, the nearest first."""
    by_number = {one.number: one for one in versions}
    found: list[Version] = []
    number = version.manifest.get("started_from")
    while number in by_number and by_number[number] not in found:
        found.append(by_number[number])
        number = found[-1].manifest.get("started_from")
    return found


def uses(registry: Registry, rows: Collection[int], recipe: str | None = None) -> list[Use]:
    """Every version that used any of these ledger rows, by recipe and number.

    Args:
        recipe: only versions of it.
    """
    wanted = set(rows)
    found = []
    for name in [recipe] if recipe else registry.recipes():
        versions = registry.versions(name)
        for version in versions:
            own = own_labels(version)
            before = set[int]().union(*(own_labels(one) for one in ancestors(version, versions))) - own
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
