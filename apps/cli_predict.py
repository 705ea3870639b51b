"""`radloop predict`: answers for many studies, one mask a study and one table; stops and resumes at any time."""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radloop.apps.lesion_table import CHANGES, write_changes
from radloop.apps.mask_rows import mask_rows
from radloop.apps.place import open_folder
from radloop.apps.results_table import RESULTS, Job, Row, is_answer, read_rows, source_of
from radloop.apps.terminal import NOTICE, WrongUse, bar, complain, plural, say
from radloop.recipes.errors import Conflict, NoSpace, NotFound, RadloopError
from radloop.studies.home import Home, is_url

if TYPE_CHECKING:
    from radloop.apps.predict_answers import Answers
    from radloop.apps.predict_boxes import BoxAnswers
    from radloop.recipes.recipe import Recipe
    from radloop.registry.version import Version

_FIRST_CHANNEL = re.compile(r"^(?P<id>.+)_0000$")


def predict(options: argparse.Namespace) -> int:
    """The command; 1 when a study could not be answered, the others are all the same."""
    _check_out(options)
    home = _home(options)
    version = served_version(options.recipe, home)
    recipe = version.load_recipe()
    jobs = list(_jobs(options, recipe))
    answers = _without_masks(options, home, version, recipe)
    follows = answers is None and bool(options.studies) and recipe.dimension == 3
    _protect(jobs, options.out, answers, (RESULTS, CHANGES) if follows else (RESULTS,))
    options.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(options.out)
    todo = [job for job in jobs if options.image or not _is_done(job, version, options.out, rows, answers)]
    say(f"{recipe.name} version {version.number}: {plural(len(todo), 'study', 'studies')} to answer ({NOTICE})")
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} are there already")
    renewed = {job.study for job in todo}
    kept = [row for study, of in rows.items() if study not in renewed for row in of]
    failed = _answer_all(todo, version, options.out, kept, answers)
    files = {"detection": f"boxes and {RESULTS} are", "segmentation": f"masks and {RESULTS} are"}
    say(f"{files.get(recipe.kind, f'{RESULTS} is')} in {options.out}")
    if follows:
        folder = open_folder(options.studies, len(recipe.channels))
        _say_changes(write_changes(folder, recipe, options.out, read_rows(options.out)))
    if failed:
        complain(f"{plural(failed, 'study', 'studies')} of {len(todo)} failed; the reasons are above")
    return 1 if failed else 0


def _say_changes(patients: int) -> None:
    if patients:
        say(f"{CHANGES} follows the lesions of {plural(patients, 'patient')} from study to study")


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


def _without_masks(
    options: argparse.Namespace, home: Home, version: Version, recipe: Recipe
) -> Answers | BoxAnswers | None:
    """What answers in words or boxes, where the recipe is of that kind."""
    from radloop.apps.predict_answers import Answers, in_words
    from radloop.apps.predict_boxes import BoxAnswers
    from radloop.apps.predict_risk import Risks

    if recipe.kind == "detection":
        return BoxAnswers(version, options.out)
    if not in_words(recipe):
        return None
    folder = open_folder(options.studies, len(recipe.channels)) if options.studies else None
    return (Risks if recipe.kind == "risk" else Answers)(home, folder, version)


def _check_out(options: argparse.Namespace) -> None:
    """Refuses an output folder where masks of the images' names would take the place of images or labels.

    Raises:
        WrongUse: it is the folder of the images, or one of its labels.
    """
    if options.studies and is_url(options.studies):
        return
    out = options.out.resolve()
    images = Path(options.studies).expanduser() if options.studies else options.image.expanduser().parent
    labels = {(images / folder).resolve() for folder in ("labels", "labels/final", "labels/original")}
    if out == images.resolve() or labels & {out, *out.parents}:
        what = "holds the images" if out == images.resolve() else "is for labels"
        msg = f"--out {options.out} {what}; answers there would take their place, so give a folder of its own"
        raise WrongUse(msg)


def _protect(
    jobs: Sequence[Job], out: Path, answers: Answers | BoxAnswers | None, tables: Sequence[str] = (RESULTS,)
) -> None:
    """Refuses to write over what is not an earlier answer.

    Args:
        answers: what writes no masks, or None.
        tables: what is written beside the studies' own files.

    Raises:
        WrongUse: a file to write is an image, or the folder is one.
        Conflict: a file to write is there, and no table says that it is an answer.
    """
    targets = [*(out / name for name in tables), *(file for job in jobs for file in _files(job, out, answers))]
    written = {target.resolve() for target in targets} | {out.resolve()}
    for job in jobs:
        for channel in job.channels:
            if channel.resolve() in written:
                msg = f"--out {out}: {channel.name} there is the image itself; give a folder of its own"
                raise WrongUse(msg)
    there = next((target for target in targets if target.exists()), None)
    if there is not None and not (out / RESULTS).is_file():
        msg = f"--out {out}: {there.name} is there and no {RESULTS} says that it is an answer; give an empty folder"
        raise Conflict(msg)


def _files(job: Job, out: Path, answers: Answers | BoxAnswers | None) -> tuple[Path, ...]:
    """What is written of one study beside the table."""
    if answers is None:
        return (_mask_path(job, out),)
    if hasattr(answers, "files"):
        return answers.files(job)
    file = answers.file(job, out)
    return (file,) if file else ()


def _home(options: argparse.Namespace) -> Home:
    if options.studies:
        return Home.find(open_folder(options.studies).path, options.home)
    beside = options.image.expanduser().parent / ".radloop"
    if options.home or os.environ.get("RADLOOP_HOME") or beside.is_dir():
        return Home.find(beside.parent, options.home)
    msg = "--image: say with --home DIR where the model is (for a studies folder it is <studies>/.radloop)"
    raise WrongUse(msg)


def _jobs(options: argparse.Namespace, recipe: Recipe) -> Iterator[Job]:
    channels = len(recipe.channels)
    if options.studies:
        for study in open_folder(options.studies, channels).studies().values():
            yield Job(study.id, study.channels[:channels])
        return
    image = options.image.expanduser()
    if not image.exists():
        msg = f"--image {image}: there is no such file"
        raise NotFound(msg)
    yield _image_job(image, recipe)


def _image_job(image: Path, recipe: Recipe) -> Job:
    """The job of one image: `q_0000.nii.gz` is study `q`, and its further channels lie beside it."""
    from radloop.studies.folder import Study, split_ending

    name, count = split_ending(image.name)[0], len(recipe.channels)
    first = _FIRST_CHANNEL.match(name)
    if count - len(recipe.optional) > 1 and first is None:
        msg = (
            f"--image {image.name}: {recipe.name} takes {count} channels ({', '.join(recipe.channels)}); "
            "name the files ID_0000, ID_0001 and so on, and give ID_0000"
        )
        raise WrongUse(msg)
    study_id = first["id"] if first else name
    return Job(study_id, Study(study_id, study_id, (image,)).first_channels(count))


def _is_done(
    job: Job, version: Version, out: Path, rows: dict[str, list[Row]], answers: Answers | BoxAnswers | None
) -> bool:
    """Whether an earlier run gave the answer of this very version to this very image, and its mask is there."""
    from radloop.apps.predict_boxes import BoxAnswers

    labels = version.load_recipe().label_names
    if isinstance(answers, BoxAnswers):
        return answers.done(job, rows.get(job.study, []))
    if answers:
        file = answers.file(job, out)
        source = source_of(job, version, answers.told(job))
        return is_answer(rows.get(job.study, []), source, answers.labels) and (file is None or file.is_file())
    return is_answer(rows.get(job.study, []), source_of(job, version), labels) and _mask_path(job, out).is_file()


def _answer_all(
    jobs: Sequence[Job], version: Version, out: Path, rows: Sequence[Row], answers: Answers | BoxAnswers | None
) -> int:
    """Answers the jobs; writes each mask, if there is one, then its rows. Returns how many failed.

    Raises:
        NoSpace: the disk is full or read-only, so that no further answer can be kept.
    """
    from radloop.engine.predictor import PredictorCache

    predictor = None if answers else PredictorCache().get(version)
    failed = 0
    with (
        (out / RESULTS).open("w", newline="", encoding="utf-8") as file,
        bar(len(jobs), "predict", "studies") as progress,
    ):
        table = csv.writer(file)
        table.writerow([field.name for field in fields(Row)])
        table.writerows(astuple(row) for row in rows)
        file.flush()
        for job in jobs:
            try:
                found = list(answers.rows(job, out) if answers else _mask_rows(job, predictor, version, out))
            except NoSpace:
                raise
            except (RadloopError, OSError, RuntimeError, MemoryError) as error:
                failed += 1
                complain(f"{job.study}: {_reason(error)}")
            else:
                table.writerows(astuple(row) for row in found)
                file.flush()
            progress.update()
    return failed


def _reason(error: Exception) -> str:
    """One line; what torch and the system say is named, as it may not speak for itself."""
    if isinstance(error, RadloopError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this image"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _mask_rows(job: Job, predictor: Any, version: Version, out: Path) -> Iterator[Row]:
    from radloop.studies.images import read_study, write_mask

    answer = predictor.predict(read_study(job.channels, predictor.recipe.may_lack))
    write_mask(_mask_path(job, out), answer.mask, answer.affine, dict(predictor.recipe.labels))
    return mask_rows(job, answer, predictor.recipe, version)


def _mask_path(job: Job, out: Path) -> Path:
    from radloop.studies.images import mask_extension

    return out / f"{job.study}{mask_extension(job.channels[0])}"
