"""`radloop predict`: answers for many studies, one mask a study and one table; stops and resumes at any time."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from radloop.apps.place import open_folder
from radloop.apps.terminal import NOTICE, bar, complain, plural, say
from radloop.recipes.errors import NotFound, RadloopError
from radloop.studies.home import Home

if TYPE_CHECKING:
    import numpy as np

    from radloop.engine.predictor import Prediction, Predictor
    from radloop.recipes.recipe import Recipe
    from radloop.registry.version import Version

RESULTS = "results.csv"


@dataclass(frozen=True)
class Row:
    """One line of `results.csv`: a label of a study."""

    study: str
    label: str
    volume_ml: str
    version: str
    seconds: str
    warnings: str
    notice: str = NOTICE


@dataclass(frozen=True)
class Job:
    """An image to answer: its id and the files of its channels."""

    study: str
    channels: tuple[Path, ...]


def predict(options: argparse.Namespace) -> int:
    """The command; 1 when a study could not be answered, the others are all the same."""
    home = _home(options)
    version = served_version(options.recipe, home)
    recipe = version.load_recipe()
    jobs = list(_jobs(options, recipe))
    options.out.mkdir(parents=True, exist_ok=True)
    kept = _kept(options.out, version)
    todo = [job for job in jobs if job.study not in kept]
    say(f"{recipe.name} version {version.number}: {plural(len(todo), 'study', 'studies')} to answer ({NOTICE})")
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} are there already")
    failed = _answer_all(todo, version, options.out, [row for rows in kept.values() for row in rows])
    say(f"masks and {RESULTS} are in {options.out}")
    if failed:
        complain(f"{plural(failed, 'study', 'studies')} of {len(todo)} failed; the reasons are above")
    return 1 if failed else 0


def served_version(name: str, home: Home) -> Version:
    """The version of a recipe that serves.

    Raises:
        NotFound: none does.
    """
    from radloop.recipes.load import load_recipe
    from radloop.registry.registry import Registry

    recipe = load_recipe(name, home.path)
    version = Registry(home).champion(recipe.name)
    if version is None:
        msg = f"no version of {recipe.name} serves in {home.path}; train one with `radloop train {name} --studies DIR`"
        raise NotFound(msg)
    return version


def _home(options: argparse.Namespace) -> Home:
    if options.studies:
        return Home.find(open_folder(options.studies).path, options.home)
    if options.home or os.environ.get("RADLOOP_HOME"):
        return Home.find(options.image.parent, options.home)
    msg = "--image: say with --home DIR where the model is (for a studies folder it is <studies>/.radloop)"
    raise NotFound(msg)


def _jobs(options: argparse.Namespace, recipe: Recipe) -> Iterator[Job]:
    from radloop.studies.folder import split_ending

    channels = len(recipe.channels)
    if options.studies:
        for study in open_folder(options.studies, channels).studies().values():
            yield Job(study.id, study.channels[:channels])
        return
    if not options.image.exists():
        msg = f"--image {options.image}: there is no such file"
        raise NotFound(msg)
    yield Job(split_ending(options.image.name)[0], (options.image,))


def _answer_all(jobs: Iterable[Job], version: Version, out: Path, rows: list[Row]) -> int:
    """Answers the jobs; writes each mask, then its rows. Returns how many failed."""
    from radloop.engine.predictor import PredictorCache

    jobs = list(jobs)
    predictor = PredictorCache().get(version)
    failed = 0
    with (
        (out / RESULTS).open("w", newline="", encoding="utf-8") as file,
        bar(len(jobs), "predict", "study") as progress,
    ):
        table = csv.writer(file)
        table.writerow([field.name for field in fields(Row)])
        table.writerows(astuple(row) for row in rows)
        file.flush()
        for job in jobs:
            try:
                answer = _answer(job, predictor, out)
            except (RadloopError, OSError) as error:
                failed += 1
                complain(f"{job.study}: {error}")
            else:
                table.writerows(astuple(row) for row in _rows(job, answer, predictor.recipe, version))
                file.flush()
            progress.update()
    return failed


def _answer(job: Job, predictor: Predictor, out: Path) -> Prediction:
    from radloop.studies.images import read_study, write_mask

    answer = predictor.predict(read_study(job.channels))
    write_mask(_mask_path(job, out), answer.mask, answer.affine, dict(predictor.recipe.labels))
    return answer


def _mask_path(job: Job, out: Path) -> Path:
    from radloop.studies.images import mask_extension

    return out / f"{job.study}{mask_extension(job.channels[0])}"


def _rows(job: Job, answer: Prediction, recipe: Recipe, version: Version) -> Iterator[Row]:
    import numpy as np

    counts = np.bincount(answer.mask.ravel(), minlength=len(recipe.labels) + 1)
    voxel_ml = abs(np.linalg.det(answer.affine[:3, :3])) / 1000
    for name, number in recipe.labels.items():
        volume = f"{counts[number] * voxel_ml:.3f}" if recipe.dimension == 3 else ""
        yield Row(job.study, name, volume, str(version.number), f"{answer.seconds:.2f}", _warnings(answer.mask, number))


def _warnings(mask: np.ndarray, number: int) -> str:
    """What a reader should look at: nothing found, or a label cut off by the image's edge."""
    found = mask == number
    if not found.any():
        return "nothing found"
    # a picture has one slice, which is no edge
    edges = [found.take((0, -1), axis) for axis in range(3) if mask.shape[axis] > 1]
    return "touches the edge of the image" if any(edge.any() for edge in edges) else ""


def _kept(out: Path, version: Version) -> dict[str, list[Row]]:
    """What an earlier run of this version finished: study -> its rows; a mask must be there too."""
    path = out / RESULTS
    if not path.is_file():
        return {}
    names = {field.name for field in fields(Row)}
    kept: dict[str, list[Row]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            # a line cut short by a crash lacks columns
            whole = set(line) == names and None not in line.values()
            if whole and line["version"] == str(version.number):
                kept.setdefault(line["study"], []).append(Row(**line))
    return {
        study: rows
        for study, rows in kept.items()
        if len(rows) == len(version.load_recipe().labels)
        and any((out / f"{study}{ending}").is_file() for ending in (".nii.gz", ".png"))
    }
