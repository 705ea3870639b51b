"""Model versions: publish, promote, roll back; the one that serves is always whole.

Order of a publication: files written and synced in a staging folder, renamed to `versions/<recipe>/<number>`, MLflow
version with its tags, and only at promotion, last, the alias `champion`. A crash before the alias leaves the old
champion; what it leaves behind is put in order when a registry is opened next (`tidy.py`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from radloop.recipes.errors import BadInput, Conflict, NotFound
from radloop.recipes.recipe import Recipe
from radloop.registry import folders
from radloop.registry.manifest import full_manifest, now, tags_of, write_manifest
from radloop.registry.store import FOREIGN, Entry, Store
from radloop.registry.tidy import tidy
from radloop.registry.version import (
    CHALLENGER,
    DAMAGED,
    FOLD,
    HELD,
    INTERRUPTED,
    PROVISIONAL,
    REJECTED,
    Version,
    read_version,
    verify,
)
from radloop.studies.files import writing
from radloop.studies.home import Home

ANY = 0
"""Whatever version serves; numbers start at 1."""
LOOK_EVERY = 1.0
"""Seconds for which `champion` answers without looking at the alias again."""


class Overtaken(Conflict):
    """Another version serves by now than the one that a version was judged against."""


class Registry:
    """The versions of every recipe in a home; safe for several threads and processes.

    Raises:
        Conflict: the registry's database cannot be opened.
        NoSpace: the home cannot be written.
    """

    def __init__(self, home: Home, *, look_every: float = LOOK_EVERY) -> None:
        self._look_every = look_every
        self._versions = home.versions
        self._lock_path = home.registry_db.with_suffix(".lock")
        self._thread_lock = threading.RLock()
        self._looked: dict[str, tuple[float, Version | None]] = {}
        self._verified: set[tuple[str, int]] = set()
        with self._locked():
            self._store = Store(home.registry_db)
            tidy(self._versions, self._store)

    def stage(self, recipe: Recipe | str) -> Path:
        """A new, empty folder to write a version into; left unpublished, it is removed after this process ends."""
        name = recipe if isinstance(recipe, str) else recipe.name
        with self._locked():
            return folders.stage(self._versions, name)

    def discard(self, staged: Path) -> None:
        """Give up a staged folder."""
        folders.release(staged)

    def publish(self, recipe: Recipe, staged: Path, manifest: Mapping[str, Any]) -> Version:
        """Put a staged folder with `model.pt` among the versions; it does not serve yet.

        `manifest` goes into `manifest.json` with `recipe`, `recipe_hash`, `checksum` (SHA-256 of `model.pt`), `created`
        and `code_version` filled in; its `state` may be `challenger`, `provisional`, `rejected` or `fold`.

        Raises:
            BadInput: the folder is not a staged one, has no weights, or the manifest cannot be written as JSON.
            NoSpace: the disk is full or read-only; no version was made.
        """
        weights = staged / folders.WEIGHTS
        if staged.parent != self._versions / folders.STAGING:
            msg = f"{staged} is not a staged folder; ask `stage` for one"
            raise BadInput(msg)
        if not weights.is_file() or weights.stat().st_size == 0:
            msg = f"{staged} has no {folders.WEIGHTS} with weights in it; there is nothing to publish"
            raise BadInput(msg)
        full = full_manifest(recipe, folders.checksum(weights), manifest)
        with writing(f"version of {recipe.name}"):
            (staged / folders.RECIPE).write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
            write_manifest(staged, full)
            folders.sync_tree(staged)
            with self._locked():
                taken = [entry.number for entry in self._store.entries(recipe.name)]
                number = folders.publish(staged, self._versions / recipe.name, taken)
                self._store.add(recipe.name, number, tags_of(full))
        folders.release(staged)
        return self.version(recipe.name, number)

    def promote(self, version: Version, over: int | None = ANY) -> Version:
        """Let a version serve; the alias moves last, the one that served before stays known for `rollback`.

        Args:
            version: what passed the gate.
            over: number of the champion that it was judged against, None for none; `ANY` does not ask.

        Raises:
            Overtaken: another version than `over` serves by now.
            Conflict: it was held, rejected or interrupted (`rollback` to its number serves it all the same), is of a
                fold, its files are damaged, or the registry does not answer.
            NotFound: there is no such version.
        """
        recipe, number = version.recipe, version.number
        current = self.version(recipe, number)
        if current.state in (HELD, REJECTED, INTERRUPTED):
            why = f" ({current.reason})" if current.reason else ""
            serve = f"`radloop model rollback {recipe} {number}`"
            msg = f"{recipe} version {number} is {current.state}{why}; to serve it all the same say {serve}"
            raise Conflict(msg)
        return self._serve(recipe, number, over)

    def champion(self, recipe: str) -> Version | None:
        """The version that serves, or None; a change by another process shows within a second.

        Raises:
            Conflict: it is damaged, or not one of radloop's; nothing else is served in its place.
        """
        with self._thread_lock:
            looked, version = self._looked.get(recipe, (-math.inf, None))
            if time.monotonic() - looked < self._look_every:
                return version
            number = self._store.champion(recipe)
            if number == FOREIGN:
                msg = (
                    f"what serves {recipe!r} in MLflow was registered by another tool; choose one of radloop's own "
                    f"with `radloop model rollback {recipe} VERSION`{self._existing(recipe)}"
                )
                raise Conflict(msg)
            version = None if number is None else self._read(recipe, self._entry(recipe, number), serves=True)
            if version:
                self._verify_once(version)
            self._looked[recipe] = (time.monotonic(), version)
            return version

    def recipes(self) -> list[str]:
        """Names of the recipes that have versions."""
        return self._store.recipes()

    def versions(self, recipe: str) -> list[Version]:
        """Every version of a recipe by number, whatever its state; empty for a recipe without any."""
        serving = self._store.champion(recipe)
        return [self._read(recipe, entry, serves=entry.number == serving) for entry in self._store.entries(recipe)]

    def version(self, recipe: str, number: int) -> Version:
        """One version, whatever its state.

        Raises:
            NotFound: there is none of that number; the message names those there are.
        """
        return self._read(recipe, self._entry(recipe, number), serves=self._store.champion(recipe) == number)

    def rollback(self, recipe: str, number: int | None = None) -> Version:
        """Let the version that served before serve again, or the one of a number, whatever the gate said of it.

        Raises:
            NotFound: there is no earlier champion, or no such number; the message names the versions there are.
            Conflict: it is of a fold, or its files are damaged.
        """
        return self._serve(recipe, self._previous(recipe) if number is None else number)

    def reject(self, version: Version, reason: str) -> Version:
        """Keep a version that may not serve, with the reason.

        Raises:
            Conflict: it serves now.
        """
        return self.set_state(version, REJECTED, reason)

    def hold(self, version: Version, reason: str) -> Version:
        """Keep a version that a person must decide on, with the reason; `rollback` to its number lets it serve.

        Raises:
            Conflict: it serves now.
        """
        return self.set_state(version, HELD, reason)

    def set_state(self, version: Version, state: str, reason: str = "") -> Version:
        """Write a version's state and its reason; the state of the one that serves is the alias's matter.

        Raises:
            BadInput: the state is not one that can be given.
            Conflict: the version serves now and the state forbids that.
        """
        given = (CHALLENGER, PROVISIONAL, HELD, REJECTED, FOLD)
        if state not in given:
            msg = f"state {state!r} cannot be given; allowed are {', '.join(given)} (use promote or rollback to serve)"
            raise BadInput(msg)
        with self._locked():
            entry = self._entry(version.recipe, version.number)
            if state in (HELD, REJECTED, FOLD) and self._store.champion(version.recipe) == version.number:
                msg = f"{version.recipe} version {version.number} serves now; roll back before it becomes {state}"
                raise Conflict(msg)
            self._store.tag(version.recipe, entry.key, {"state": state, "reason": reason})
        return self.version(version.recipe, version.number)

    def reword(self, version: Version, reason: str) -> None:
        """Put other words for a version's reason; whatever its state, it stays.

        Raises:
            NotFound: there is no such version.
        """
        with self._locked():
            entry = self._entry(version.recipe, version.number)
            self._store.tag(version.recipe, entry.key, {"reason": reason})

    def _serve(self, recipe: str, number: int, over: int | None = ANY) -> Version:
        """Move the alias to a verified version, after noting which one it takes over from."""
        version = self.version(recipe, number)
        if version.state == FOLD:
            msg = f"{recipe} version {number} was trained on a fold for figures; such versions never serve"
            raise Conflict(msg)
        verify(version)
        with self._locked():
            entry, serving = self._entry(recipe, number), self._store.champion(recipe)
            if over not in (ANY, serving):
                msg = (
                    f"{recipe} version {number} was judged against version {over}, but version {serving} serves by "
                    "now; train again to compare it with that one"
                )
                raise Overtaken(msg)
            if serving:  # where a crash kept it from being written down that it serves
                self._note_promoted(recipe, self._entry(recipe, serving))
            # Going back along the chain of champions keeps it; anything else becomes its new end.
            if serving and number not in (serving, *self._ancestors(recipe, serving)):
                self._store.tag(recipe, entry.key, {"previous": str(serving)})
            self._store.point(recipe, entry.key)
            self._note_promoted(recipe, entry)
        with self._thread_lock:
            self._verified.add((recipe, number))
            self._looked.pop(recipe, None)
        return self.version(recipe, number)

    def _note_promoted(self, recipe: str, entry: Entry) -> None:
        """Writes down that a version serves, which tells a former one from one that never did."""
        if "promoted" not in entry.tags:
            self._store.tag(recipe, entry.key, {"promoted": now()})

    def _previous(self, recipe: str) -> int:
        serving = self._store.champion(recipe)
        if not serving:
            msg = f"no version of {recipe!r} serves, so there is none to go back from{self._existing(recipe)}"
            raise NotFound(msg)
        before = self._ancestors(recipe, serving)
        if not before:
            msg = f"{recipe} version {serving} is the first that served; there is none before{self._existing(recipe)}"
            raise NotFound(msg)
        return before[0]

    def _ancestors(self, recipe: str, number: int) -> list[int]:
        """Champions before a version, the latest first."""
        before = {e.number: int(e.tags["previous"]) for e in self._store.entries(recipe) if "previous" in e.tags}
        found: list[int] = []
        while number in before and before[number] not in found:
            number = before[number]
            found.append(number)
        return found

    def _entry(self, recipe: str, number: int) -> Entry:
        for entry in self._store.entries(recipe):
            if entry.number == number:
                return entry
        msg = f"there is no version {number} of {recipe!r}{self._existing(recipe)}"
        raise NotFound(msg)

    def _existing(self, recipe: str) -> str:
        there = [str(entry.number) for entry in self._store.entries(recipe)]
        return f"; versions are {', '.join(there)}" if there else f"; {recipe!r} has no versions yet"

    def _read(self, recipe: str, entry: Entry, *, serves: bool) -> Version:
        folder = self._versions / recipe / str(entry.number)
        return read_version(recipe, entry.number, folder, entry.tags, serves=serves)

    def _verify_once(self, version: Version) -> None:
        key = (version.recipe, version.number)
        if key not in self._verified or version.state == DAMAGED:
            verify(version)
            self._verified.add(key)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time numbers, registers, promotes or tidies."""
        with writing("model registry"), folders.locked(self._lock_path):
            yield
