"""What an uploaded mask or answer is about: which recipes it speaks for."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from radloop.recipes.errors import BadInput, BadLabel, NotFound, closest
from radloop.recipes.recipe import JSON_KINDS, Recipe
from radloop.studies.answers import drawn_recipes, is_answer
from radloop.studies.files import writing
from radloop.studies.fitting import LabelInfo, ids_in, name_values
from radloop.studies.folder import split_ending, valid_id
from radloop.studies.images import read_named_mask

UPLOADS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg")
_CHANNEL = re.compile(r"_\d{4}$")


@contextmanager
def as_upload(file: str | Path, study_id: str, ending: str) -> Iterator[Path]:
    """An uploaded file under its study's name, so that messages name what the reader knows; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="radloop-") as folder:
        named = Path(folder) / f"{study_id}{ending}"
        with writing(named.name):
            shutil.copyfile(file, named)
        yield named


def image_ending(image_id: str, image_filename: str) -> str:
    """The ending of an uploaded image's file, where it may become a study of that id.

    Raises:
        BadInput: the id cannot name a study, or the file is of no kind that studies have.
    """
    ending = split_ending(image_filename, UPLOADS)[1].lower()
    if not valid_id(image_id) or not ending:
        msg = f"image {image_id!r} cannot be added; give an id of letters, digits, ._- and an image file"
        raise BadInput(msg)
    if channel := _CHANNEL.search(image_id):
        msg = (
            f"image {image_id!r} cannot be added: {channel[0]} at the end makes a file a channel of study "
            f"{image_id[: channel.start()]!r}; give an id that does not end in _ and four digits"
        )
        raise BadInput(msg)
    return ending


def recipes_of(
    file: Path,
    label_info: LabelInfo | None,
    recipes: Sequence[Recipe],
    model: str | None,
    shown: Mapping[str, str],
    made_for: str = "",
) -> list[Recipe]:
    """The recipes that a mask or an answer speaks for.

    The one named by `model`; else for an answer the only one that takes answers; else for a mask, by the names of the
    voxels that are there, each recipe with one of them, and the one that the reader works on, if its names are listed
    (all may have been taken away); for an empty mask the recipe whose answer the reader was shown, else the first whose
    names are listed.

    Args:
        file: the mask or answer.
        label_info: names and voxel values, where the viewer sent them.
        recipes: those served, the main one first.
        model: the recipe's name, where the viewer sent it.
        shown: recipe -> version that the reader saw, empty where none.
        made_for: the recipe that the reader works on, empty where nobody knows.

    Raises:
        NotFound: `model` is not served.
        BadLabel: the mask cannot be read, its values have no names, no recipe has any of the names, or nobody can say
            which recipe an answer is for.
    """
    if model:
        return [served(recipes, model)]
    recipes = _taking(file, recipes)
    if len(recipes) == 1:
        return list(recipes)
    mask, inside = read_named_mask(file)
    values = ids_in(mask.array[0])
    if inside is None and not label_info:
        return [recipes[0]]
    if inside is not None:
        named, present = set(inside), {name for name, value in inside.items() if value in values}
    else:
        present = set(name_values(values, label_info or (), file.name).values())
        named = {str(entry["name"]) for entry in label_info or ()}
    listed = [r for r in recipes if named & set(r.labels)]
    chosen = [r for r in listed if present & set(r.labels) or r.name == made_for]
    if not chosen:
        chosen = [r for r in listed if shown.get(r.name)][:1] or listed[:1]
    if not chosen:
        allowed = sorted({name for r in recipes for name in r.labels})
        msg = f"no recipe has {', '.join(sorted(named))}; the recipes served have {', '.join(allowed)}"
        raise BadLabel(msg)
    return chosen


def served(recipes: Sequence[Recipe], name: str) -> Recipe:
    """The recipe of a name among those served.

    Raises:
        NotFound: it is not served; names the closest.
    """
    for recipe in recipes:
        if recipe.name == name:
            return recipe
    names = [recipe.name for recipe in recipes]
    msg = f"recipe {name!r} is not served; served: {', '.join(names)}{closest(name, names)}"
    raise NotFound(msg)


def _taking(file: Path, recipes: Sequence[Recipe]) -> list[Recipe]:
    """The recipes that take such a file: of an answer exactly one, of a mask one at least, those of boxes last."""
    answer = is_answer(file)
    found = [r for r in recipes if r.kind in JSON_KINDS] if answer else drawn_recipes(recipes)
    if not found:
        known = ", ".join(f"{r.name} ({r.kind})" for r in recipes)
        msg = f"{file.name} is {'an answer' if answer else 'a mask'}, which no recipe served takes; served: {known}"
        raise BadLabel(msg)
    if answer and len(found) > 1:
        names = ", ".join(r.name for r in found)
        msg = f'{file.name} may be for {names}; say which recipe in params, {{"model": "{found[0].name}"}}'
        raise BadLabel(msg)
    return found
