"""The lines of `results.csv` about a mask: one a label, then one a lesion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from radloop.apps.results_table import MOST_LESIONS, Job, Row, source_of

if TYPE_CHECKING:
    import numpy as np

    from radloop.engine.predictor import Prediction
    from radloop.evaluation.lesion_sizes import Lesion
    from radloop.recipes.recipe import Recipe
    from radloop.registry.version import Version

_WITHOUT_MM = (".png", ".jpg", ".jpeg")


def mask_rows(job: Job, answer: Prediction, recipe: Recipe, version: Version) -> Iterator[Row]:
    """The lines of one study: each label with all it marks, then each label's lesions."""
    from radloop.engine.channels import lacking_words
    from radloop.evaluation.lesion_sizes import count_lesions, lesion_sizes

    source, seconds = asdict(source_of(job, version)), f"{answer.seconds:.2f}"
    known = not job.channels[0].name.lower().endswith(_WITHOUT_MM)
    lines = []
    for name, number in recipe.labels.items():
        found = answer.mask == number
        count = count_lesions(found)
        sizes = lesion_sizes(found, answer.affine, MOST_LESIONS)
        told = [*_warnings(found), *lacking_words(answer.lacking)]
        told += [f"{count} lesions, of which the {MOST_LESIONS} largest are listed"] if count > MOST_LESIONS else []
        yield Row(
            job.study,
            name,
            lesions=str(count),
            volume_ml=_volume(found, answer, recipe),
            axial_mm=_longest([of.axial_mm for of in sizes], known),
            longest_mm=_longest([of.longest_mm for of in sizes], known),
            seconds=seconds,
            warnings="; ".join(told),
            **source,
        )
        lines += [(name, place, size) for place, size in enumerate(sizes, start=1)]
    for name, place, size in lines:
        yield Row(job.study, name, lesion=str(place), seconds=seconds, **_sizes(size, recipe, known), **source)


def _sizes(size: Lesion, recipe: Recipe, known: bool) -> dict[str, str]:
    return {
        "volume_ml": f"{size.volume_ml:.3f}" if recipe.dimension == 3 else "",
        "axial_mm": _longest([size.axial_mm], known),
        "longest_mm": _longest([size.longest_mm], known),
    }


def _volume(found: np.ndarray, answer: Prediction, recipe: Recipe) -> str:
    """In ml; a picture has none."""
    import numpy as np

    voxel_ml = abs(np.linalg.det(answer.affine[:3, :3])) / 1000
    return f"{found.sum() * voxel_ml:.3f}" if recipe.dimension == 3 else ""


def _longest(values: list[float], known: bool) -> str:
    return f"{max(values):.1f}" if values and known else ""


def _warnings(found: np.ndarray) -> list[str]:
    """What a reader should look at: nothing found, or a label cut off by the image's edge."""
    if not found.any():
        return ["nothing found"]
    # a picture has one slice, which is no edge
    edges = [found.take((0, -1), axis) for axis in range(3) if found.shape[axis] > 1]
    return ["touches the edge of the image"] if any(edge.any() for edge in edges) else []
