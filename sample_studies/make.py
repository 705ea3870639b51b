"""Makes the sample studies: 20 small synthetic chest CTs of 14 patients, with nodules to find.

    python -m radloop.sample_studies.make OUT [--seed 7] [--masks half|all|none]

No patient, no licence, no download: use them to try radloop and to test it, never to judge a model for patients.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from radloop.sample_studies.canvas import Canvas
from radloop.sample_studies.phantom import add_noise, paint_chest
from radloop.sample_studies.plan import SampleStudy, plan_studies

Masks = Literal["half", "all", "none"]
LABELS = {"lesion": 1}


def make_sample_studies(out: Path, seed: int = 7, masks: Masks = "half") -> list[str]:
    """Writes a studies folder: images, `answers.csv`, `labels/names.json` and masks in `labels/final`.

    Args:
        out: the folder; made if missing, files of the same names are replaced.
        seed: the same seed gives the same voxels.
        masks: `half` gives the first studies of ten patients with a nodule a mask, `all` every study.

    Returns:
        The study ids, sorted.
    """
    studies = plan_studies(seed)
    final = Path(out) / "labels" / "final"
    final.mkdir(parents=True, exist_ok=True)
    for study in studies:
        image, mask = render(study)
        _save(image, study.affine, Path(out) / f"{study.id}.nii.gz")
        if masks == "all" or (masks == "half" and study.labelled):
            _save(mask, study.affine, final / f"{study.id}.nii.gz")
    (final.parent / "names.json").write_text(json.dumps(LABELS) + "\n", encoding="utf-8")
    _write_answers(studies, Path(out) / "answers.csv")
    return [study.id for study in studies]


def make_truth(out: Path, seed: int = 7) -> list[str]:
    """Writes the true mask of every study (a careful reader's) to `<out>/<id>.nii.gz`; returns the ids."""
    Path(out).mkdir(parents=True, exist_ok=True)
    studies = plan_studies(seed)
    for study in studies:
        _save(_mask(study), study.affine, Path(out) / f"{study.id}.nii.gz")
    return [study.id for study in studies]


def true_mask(study_id: str, seed: int = 7) -> np.ndarray:
    """The true mask of one study, (X, Y, Z) uint8 in the axes of its file; KeyError for an unknown id."""
    return _mask({study.id: study for study in plan_studies(seed)}[study_id])


def render(study: SampleStudy) -> tuple[np.ndarray, np.ndarray]:
    """The image (X, Y, Z) int16 HU and the true mask (X, Y, Z) uint8 of a study."""
    canvas = Canvas(study.size, study.affine)
    paint_chest(canvas, study.anatomy)
    mask = _paint_lesions(canvas, study)
    return add_noise(canvas.hu, np.random.default_rng(study.noise_seed)), mask


def _mask(study: SampleStudy) -> np.ndarray:
    return _paint_lesions(Canvas(study.size, study.affine), study)


def _paint_lesions(canvas: Canvas, study: SampleStudy) -> np.ndarray:
    mask = np.zeros(study.size, np.uint8)
    for lesion in study.lesions:
        box, cover = canvas.paint_near(lesion.centre, lesion.reach, lesion.distance, lesion.hu)
        mask[box][cover >= 0.5] = LABELS["lesion"]
    return mask


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)


def _write_answers(studies: Sequence[SampleStudy], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "patient", "date", "shape", "event", "time"])
        for s in studies:
            rows.writerow([s.id, s.patient, s.date.isoformat(), s.shape_class, s.event, s.time])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m radloop.sample_studies.make", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--masks", choices=("half", "all", "none"), default="half", help="which studies get a mask")
    options = parser.parse_args(argv)
    try:
        ids = make_sample_studies(options.out, options.seed, options.masks)
    except OSError as error:
        sys.stderr.write(f"cannot write {options.out}: {error.strerror or error}\n")
        return 1
    sys.stdout.write(f"{len(ids)} studies in {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
