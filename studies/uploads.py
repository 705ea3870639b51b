"""What an uploaded mask is about: which recipes it speaks for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from radloop.recipes.errors import BadLabel, NotFound, closest
from radloop.recipes.recipe import Recipe
from radloop.studies.files import writing
from radloop.studies.fitting import LabelInfo, ids_in, name_values
from radloop.studies.images import read_named_mask


@contextmanager
def as_upload(file: str | Path, study_id: str, ending: str) -> Iterator[Path]:
    """An uploaded file under its study's name, so that messages name what the reader knows; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="radloop-") as folder:
        named = Path(folder) / f"{study_id}{ending}"
        with writing(named.name):
            shutil.copyfile(file, named)
        yield named


def recipes_of(
    file: Path,
    label_info: LabelInfo | None,
    recipes: Sequence[Recipe],
    model: str | None,
    shown: Mapping[str, str],
    made_for: str = "",
) -> list[Recipe]:
    """The recipes that a mask speaks for.

    The one named by `model`; else, by the names of the voxels that are there, each recipe with one of them, and the
    one that the reader works on, if its names are listed (all may have been taken away); for an empty mask the recipe
    whose answer the reader was shown, else the first whose names are listed.

    Args:
        file: the mask.
        label_info: names and voxel values, where the viewer sent them.
        recipes: those served, the main one first.
        model: the recipe's name, where the viewer sent it.
        shown: recipe -> version that the reader saw, empty where none.
        made_for: the recipe that the reader works on, empty where nobody knows.

    Raises:
        NotFound: `model` is not served.
        BadLabel: the mask cannot be read, its values have no names, or no recipe has any of the names.
    """
    if model:
        chosen = [r for r in recipes if r.name == model]
        if not chosen:
            served = [r.name for r in recipes]
            msg = f"recipe {model!r} is not served; served: {', '.join(served)}{closest(model, served)}"
            raise NotFound(msg)
        return chosen
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
