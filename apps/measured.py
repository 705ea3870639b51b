"""What `radloop evaluate` measures: which version, on which labelled studies, and what its reader must know."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from radloop.apps.outside_set import outside_cases
from radloop.apps.place import open_folder, read_ids, recipes_asked, take_over_labels, with_own
from radloop.engine.baseline import baseline_scores
from radloop.recipes.errors import Conflict, NotFound
from radloop.recipes.load import load_recipe
from radloop.recipes.recipe import STUDY_KINDS, Recipe
from radloop.registry.registry import Registry
from radloop.registry.version import Version
from radloop.strategies.judged import accuracy
from radloop.studies.cases import Case, labelled_cases
from radloop.studies.folder import StudiesFolder, find_mask
from radloop.studies.home import Home
from radloop.studies.ledger import Ledger, checksum
from radloop.studies.split import SIDES


@dataclass(frozen=True)
class Measured:
    """A version and the labelled studies it is measured on.

    Attributes:
        data: which studies, in words, without paths.
        split: which part of them, in words.
        notes: sentences that a reader of the figures must know.
        learned: labelled studies that the version learned from, for the trivial method; empty for an outside set.
        blindness_known: whether the cases say truly whether their label was given blind.
        keeps: what the cases' files last as long as.
    """

    version: Version
    recipe: Recipe
    cases: list[Case]
    data: str
    split: str
    cache: Path
    notes: list[str] = field(default_factory=list)
    learned: list[Case] = field(default_factory=list)
    blindness_known: bool = True
    keeps: object = None

    def baseline(self) -> dict[str, float]:
        """Patient -> score of the trivial method on the same studies; empty for an outside set."""
        return baseline_scores(self.recipe, self.learned, self.cases, self.cache) if self.learned else {}


def choose(options: argparse.Namespace) -> Measured:
    """What the options of `radloop evaluate` ask for.

    Raises:
        NotFound: no version serves, or there is none of the number or fold.
        Conflict: no study is labelled on that side.
        BadLabel: a mask of an outside set does not fit its image or the recipe.
    """
    home = Home.find(open_folder(options.studies).path, options.home)
    asked = load_recipe(options.recipe, home.path)
    version = _version(Registry(home), asked.name, options)
    recipe = version.load_recipe()
    folder = open_folder(options.studies, len(recipe.channels))
    ledger = Ledger(home)
    own = home.path.resolve() == (folder.path / ".radloop").resolve()
    if own:
        # never with another home: the masks of an outside set must not become labels of this model
        take_over_labels(folder, ledger, with_own(recipe, recipes_asked(home, ledger)))
    if options.images:
        ids = read_ids(options.images, folder)
        ours = [study for study in ids if own or _known(folder, ledger, study)]
        chosen = _of_images(folder, ledger, version, recipe, ids, ours)
    else:
        chosen = _of_ledger(folder, ledger, version, recipe, home.cache)
    if not chosen.cases:
        msg = f"{recipe.name} has no labelled study on {chosen.split}; label some, or give others with --images FILE"
        raise Conflict(msg)
    if version.serves and not options.images:
        chosen.notes.extend(_running(version, ledger))
    trained = {case.patient for case in chosen.cases} & set(version.manifest.get("patients", {}).get("train", ()))
    if trained:
        chosen.notes.append(f"the version has learned from {len(trained)} of these patients, so the figure flatters it")
    return chosen


def _running(version: Version, ledger: Ledger) -> list[str]:
    """What the server found since the version serves, in sentences."""
    found = accuracy(version, ledger)
    told = [
        f"while it serves: {of.told(name, version.figure)} (validation and test side)" for name, of in found.items()
    ]
    return told + [f"drift: {of.alarm(name)}" for name, of in found.items() if of.drift]


def _version(registry: Registry, name: str, options: argparse.Namespace) -> Version:
    if options.number is not None:
        return registry.version(name, options.number)
    if options.fold:
        index, count = options.fold
        for version in reversed(registry.versions(name)):
            if version.manifest.get("fold") == [index, count]:
                return version
        msg = f"no version of {name} was trained with --fold {index}/{count}; do that first with `radloop train`"
        raise NotFound(msg)
    champion = registry.champion(name)
    if champion is None:
        msg = f"no version of {name} serves; train one, or choose one with --version V"
        raise NotFound(msg)
    return champion


def _of_ledger(folder: StudiesFolder, ledger: Ledger, version: Version, recipe: Recipe, cache: Path) -> Measured:
    """The test side, or the patients that were left out of the version's fold."""
    cases = labelled_cases(folder, ledger, recipe, SIDES)
    used = set(version.manifest.get("labels", ()))
    learned = [case for case in cases if case.row in used]
    data = f"studies in {folder.path.name}"
    fold = version.manifest.get("fold")
    if fold:
        out = set(version.manifest["patients"]["fold"])
        split = f"fold {fold[0]} of {fold[1]}, patients that this version never learned from"
        return Measured(
            version, recipe, [case for case in cases if case.patient in out], data, split, cache, learned=learned
        )
    test = [case for case in cases if case.side == "test"]
    return Measured(version, recipe, test, data, "the test side of the patient split", cache, learned=learned)


def _of_images(
    folder: StudiesFolder, ledger: Ledger, version: Version, recipe: Recipe, ids: Sequence[str], ours: Collection[str]
) -> Measured:
    """Exactly these images: ours with their labels of now in the ledger, others with the masks beside them."""
    rows = ledger.current(recipe.name)
    for study in ours:
        if study not in rows:
            msg = (
                f"{study} has no label of recipe {recipe.name}, so nothing can be measured on it; take it off the list"
            )
            raise NotFound(msg)
    cases = labelled_cases(folder, ledger, recipe, SIDES, only=set(ours)) if ours else []
    outside, keeps = outside_cases(folder, recipe, [study for study in ids if study not in ours], ledger.home.cache)
    split = f"the {len(ids)} images of the given list, whatever their side"
    if not outside:
        return Measured(version, recipe, cases, f"studies in {folder.path.name}", split, ledger.home.cache)
    which = "an outside set" if not cases else f"{len(outside)} of the {len(ids)} images are an outside set"
    labels = "in its answers.csv" if recipe.kind in STUDY_KINDS else "the files in its labels/final"
    note = f"{which}: labels are {labels}, nothing of it is in the ledger of this model"
    data = f"outside set {folder.path.name}"
    every = sorted([*cases, *outside], key=lambda case: case.study)
    return Measured(version, recipe, every, data, split, ledger.home.cache, [note], [], False, keeps)


def _known(folder: StudiesFolder, ledger: Ledger, study: str) -> bool:
    """Whether the ledger has the mask beside this study: sets of other hospitals may use the same ids."""
    mask = find_mask(folder.final_dir, study)
    return mask is not None and ledger.knows(checksum(mask), study)
