"""What most commands begin with: the studies folder, its home, and the labels that lie in the folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.apps.terminal import WrongUse, complain
from radloop.recipes.errors import BadInput, NotFound, RadloopError
from radloop.studies.folder import StudiesFolder
from radloop.studies.home import Home, is_url

if TYPE_CHECKING:
    from radloop.recipes.recipe import Recipe
    from radloop.studies.ledger import Ledger


def open_folder(studies: str, channels: int = 1) -> StudiesFolder:
    """The studies folder.

    Raises:
        WrongUse: studies are on a DICOMweb server.
        NotFound: there is no such folder.
    """
    if is_url(studies):
        msg = f"--studies {studies}: DICOMweb comes later; give a folder of studies"
        raise WrongUse(msg)
    return StudiesFolder(studies, channels)


def take_recipe(given: str, home: Home) -> Recipe:
    """The recipe of a name or path; one given by path is copied to `<home>/recipes`, so that its name is known there.

    Raises:
        NotFound, BadRecipe: it is not there or has mistakes.
    """
    from radloop.recipes.load import load_recipe
    from radloop.studies.files import write_whole

    recipe = load_recipe(given, home.path)
    source, target = Path(given), home.recipes / f"{recipe.name}.toml"
    if source.is_file() and source.resolve() != target.resolve():
        write_whole(target, lambda path: _copy(source, path), ".toml")
    return recipe


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def recipes_asked(home: Home, ledger: Ledger) -> list[Recipe]:
    """The recipes that somebody asked for: the home's own, then shipped ones that have labels.

    A mask may become a label of any of them, so a shipped recipe that nobody asked for is not among them.
    """
    from radloop.recipes.load import shipped_recipes

    labelled = {row.recipe for row in ledger.history()}
    own = _own(home)
    return _readable([*own, *sorted(labelled & set(shipped_recipes()) - set(own))], home)


def recipes_known(home: Home) -> list[Recipe]:
    """Every recipe of the home and every shipped one, the home's own going before a shipped one of its name."""
    from radloop.recipes.load import shipped_recipes

    return _readable(sorted(set(_own(home)) | set(shipped_recipes())), home)


def _own(home: Home) -> list[str]:
    return sorted(path.stem for path in home.recipes.glob("*.toml"))


def _readable(names: Iterable[str], home: Home) -> list[Recipe]:
    """Those without mistakes; the others are named, and do not stop a command that is about another one."""
    from radloop.recipes.load import load_recipe

    found = []
    for name in names:
        try:
            found.append(load_recipe(name, home.path))
        except RadloopError as error:
            complain(f"warning: recipe {name} is left out: {str(error).splitlines()[0]}")
    return found


def take_over_labels(folder: StudiesFolder, ledger: Ledger, recipes: Iterable[Recipe]) -> None:
    """Brings masks that lie in `labels/final` into the ledger; what cannot be taken is said, and left where it is."""
    from radloop.studies.accept import sync_view

    for file, reason in sync_view(folder, ledger, list(recipes)):
        complain(f"warning: label {Path(file).name} is not used: {reason}")


def with_own(recipe: Recipe, others: Iterable[Recipe]) -> list[Recipe]:
    """A recipe first, then the others that have another name."""
    return [recipe, *(other for other in others if other.name != recipe.name)]


def read_ids(path: Path, folder: StudiesFolder) -> list[str]:
    """The image ids in a file, one a line; empty lines and lines that start with `#` are skipped.

    Raises:
        NotFound: there is no such file, or an id is not among the studies.
        BadInput: the file names nothing.
    """
    if not path.is_file():
        msg = f"--images {path}: there is no such file"
        raise NotFound(msg)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"--images {path}: it is not a text file in UTF-8; write one id a line"
        raise BadInput(msg) from error
    lines = (line.strip() for line in text.splitlines())
    ids = [line for line in lines if line and not line.startswith("#")]
    if not ids:
        msg = f"--images {path}: there are no ids in it; write one a line"
        raise BadInput(msg)
    for study in ids:
        folder.study(study)
    return list(dict.fromkeys(ids))
