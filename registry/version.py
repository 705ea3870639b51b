"""A model version: its folder, its manifest and the state it is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radloop.recipes.errors import Conflict
from radloop.recipes.recipe import Recipe
from radloop.registry.folders import MANIFEST, RECIPE, WEIGHTS, checksum, is_complete

CHALLENGER = "challenger"
"""Published, and neither promoted nor rejected."""
PROVISIONAL = "provisional"
"""Serves, on too few held-out labels for a full judgement."""
CHAMPION = "champion"
"""Serves."""
FORMER = "former"
"""Served once."""
HELD = "held"
"""Waits for a person, with the reason; serves only by explicit number."""
REJECTED = "rejected"
"""Kept with its reason; serves only by explicit number."""
FOLD = "fold"
"""Trained on a fold for figures; never serves."""
INTERRUPTED = "interrupted"
"""Found complete on disk after a crash before it was registered; serves only by explicit number."""
DAMAGED = "damaged"
"""Registered, but its files are gone or cannot be read; never serves."""
STATES = (CHALLENGER, PROVISIONAL, CHAMPION, FORMER, HELD, REJECTED, FOLD, INTERRUPTED, DAMAGED)


@dataclass(frozen=True)
class Version:
    """One trained model of a recipe.

    Attributes:
        recipe: name of the recipe.
        number: 1, 2, ...; never used twice.
        dir: folder with `model.pt` (`{"state_dict": ...}`, weights only), `recipe.json` and `manifest.json`.
        manifest: what it was made of; `number`, `state` and `reason` are of now, the rest as published.
    """

    recipe: str
    number: int
    dir: Path
    manifest: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The file with the network's weights."""
        return self.dir / WEIGHTS

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return str(self.manifest["state"])

    @property
    def serves(self) -> bool:
        """Whether it is the one that answers."""
        return self.state in (CHAMPION, PROVISIONAL)

    @property
    def reason(self) -> str:
        """Why it is in that state, or an empty string."""
        return str(self.manifest.get("reason", ""))

    @property
    def created(self) -> str:
        """When it was published, UTC ISO."""
        return str(self.manifest.get("created", ""))

    @property
    def figure(self) -> str:
        """What its held-out scores are, in words; empty where its files are lost."""
        return "" if self.state == DAMAGED else self.load_recipe().figure

    @property
    def last_row(self) -> int:
        """The newest label row when its training began; versions of older releases name only those they used."""
        used = [*self.manifest.get("labels", ()), *self.manifest.get("held_out_labels", ())]
        return int(self.manifest.get("last_row") or max(used, default=0))

    def load_recipe(self) -> Recipe:
        """The recipe as it was when the version was trained."""
        return Recipe.model_validate_json((self.dir / RECIPE).read_text(encoding="utf-8"))


def read_version(recipe: str, number: int, folder: Path, tags: Mapping[str, str], *, serves: bool) -> Version:
    """A version from its folder and its tags; a lost or damaged folder leaves little more than the state."""
    manifest = read_manifest(folder)
    state = _state(tags, serves, bool((manifest.get("gate") or {}).get("provisional"))) if manifest else DAMAGED
    manifest |= {"number": number, "state": state, "reason": tags.get("reason", "")}
    return Version(recipe, number, folder, manifest)


def verify(version: Version) -> None:
    """Check that the version's weights are the bytes that were published.

    Raises:
        Conflict: a file is missing or damaged.
    """
    name = f"{version.recipe} version {version.number}"
    mend = (
        f"restore {version.dir} from a backup or choose another with `radloop model rollback {version.recipe} VERSION`"
    )
    if version.state == DAMAGED:
        lost = [part for part in (WEIGHTS, RECIPE, MANIFEST) if not (version.dir / part).is_file()]
        what = f"{', '.join(lost)} is missing" if lost else f"{MANIFEST} is damaged"
        msg = f"{name} cannot serve: {what}; {mend}"
        raise Conflict(msg)
    expected, found = version.manifest.get("checksum", ""), checksum(version.weights)
    if found != expected:
        msg = f"{name} cannot serve: {WEIGHTS} is damaged (checksum {found[:12]}, published as {expected[:12]}); {mend}"
        raise Conflict(msg)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a whole version, or an empty one."""
    if not is_complete(folder):
        return {}
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:  # the caller turns this into the state `damaged`
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _state(tags: Mapping[str, str], serves: bool, judged_provisionally: bool) -> str:
    """The state of now: serving is the alias alone, what came before is in the tags."""
    given = tags.get("state", CHALLENGER)
    if serves:
        return PROVISIONAL if given == PROVISIONAL or judged_provisionally else CHAMPION
    if given in (CHALLENGER, PROVISIONAL, HELD):
        return FORMER if tags.get("promoted") else given if given == HELD else CHALLENGER
    return given
