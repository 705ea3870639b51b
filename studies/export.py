"""Studies and their labels for other tools: nnU-Net raw, the Medical Segmentation Decathlon's form, or a plain folder.

What was held out stays held out: the test side goes to `imagesTs`, `splits_final.json` (nnU-Net's name and form) has
the train and validation sides, and `sides.csv` names the side of every study. Answers about whole studies go to the
columns of `answers.csv` that they are read from.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from radloop.recipes.boxes import Box
from radloop.recipes.errors import BadInput, Conflict, RadloopError
from radloop.recipes.recipe import JSON_KINDS, Recipe
from radloop.recipes.volume import Volume
from radloop.studies.answer_rows import cells_of
from radloop.studies.box_files import read_boxes, write_boxes
from radloop.studies.cases import renumbered
from radloop.studies.files import writing
from radloop.studies.folder import StudiesFolder, Study, split_ending
from radloop.studies.images import describe, mask_extension, read_mask, read_study, read_volume, same_place, write_mask
from radloop.studies.import_answers import merge_answers
from radloop.studies.import_dicom import save_volume
from radloop.studies.incoming import Progress
from radloop.studies.ledger import LabelRow, Ledger
from radloop.studies.nifti import save_nifti
from radloop.studies.sides import study_sides
from radloop.studies.split import Side

Format = Literal["nnunet", "msd", "folder"]


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        exported: study id -> side of its patient.
        left_out: (study id, reason).
        out: the folder written.
    """

    exported: dict[str, Side]
    left_out: list[tuple[str, str]]
    out: Path


def export_studies(
    folder: StudiesFolder,
    ledger: Ledger,
    recipe: Recipe,
    out: Path,
    format: Format = "nnunet",
    *,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes the labelled studies of a recipe; patients that no split has seen yet are given a side for good.

    Args:
        folder: the studies.
        ledger: its newest final label of each study is written.
        recipe: whose labels.
        out: a new or empty folder; it appears whole or not at all.
        format: `nnunet` (raw, v2), `msd` (4D where there are several channels) or `folder` (files as they are).
        progress: called with (done, total, study).

    Raises:
        BadInput: the format is unknown, or the recipe has no label yet.
        Conflict: `out` has files in it.
        NoSpace: the disk is full or read-only; nothing is left behind.
    """
    if format not in get_args(Format):
        msg = f"format {format!r} is unknown; allowed are {', '.join(get_args(Format))}"
        raise BadInput(msg)
    rows = ledger.current(recipe.name)
    if not rows:
        msg = f"recipe {recipe.name} has no label in the ledger; label a study first"
        raise BadInput(msg)
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} is not empty; give a new folder with --out"
        raise Conflict(msg)
    with writing(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            staging.chmod(0o755)
            export = _Export(folder, ledger, recipe, staging, format)
            export.run(rows, progress)
            if out.exists():
                out.rmdir()
            staging.rename(out)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return ExportReport(export.exported, export.left_out, out)


class _Export:
    """One export into a folder of its own."""

    def __init__(self, folder: StudiesFolder, ledger: Ledger, recipe: Recipe, out: Path, form: Format) -> None:
        self.folder, self.ledger, self.recipe, self.out, self.form = folder, ledger, recipe, out, form
        self.exported: dict[str, Side] = {}
        self.left_out: list[tuple[str, str]] = []
        self.takes_masks = recipe.kind not in JSON_KINDS
        self.cells: dict[str, dict[str, str]] = {}

    def run(self, rows: dict[str, LabelRow], progress: Progress | None) -> None:
        studies = self.folder.studies()
        self.left_out += [(i, "labelled, but not in the studies folder") for i in sorted(set(rows) - set(studies))]
        labelled = {i: studies[i] for i in sorted(set(rows) & set(studies))}
        sides = study_sides(labelled, self.ledger)
        why = "its patient was known under another id, on another side of the split"
        self.left_out += [(i, why) for i in labelled if i not in sides]
        wanted = [study for i, study in labelled.items() if i in sides]
        for number, study in enumerate(wanted, start=1):
            try:
                self._write(study, rows[study.id], sides[study.id])
                self.exported[study.id] = sides[study.id]
            except RadloopError as error:
                self.left_out.append((study.id, str(error)))
            if progress:
                progress(number, len(wanted), study.id)
        self._write_tables({study.id: study for study in wanted if study.id in self.exported})

    def _write(self, study: Study, row: LabelRow, side: Side) -> None:
        volume = read_study(study.first_channels(len(self.recipe.channels)), self.recipe.may_lack)
        mask = self._mask(row, volume) if self.takes_masks else None
        boxes = self._boxes(row) if self.recipe.kind == "detection" else None
        if mask is None and boxes is None:
            self.cells[study.id] = cells_of(self.recipe, self.ledger.content(row))
        images, labels = self._folders(side)
        images.mkdir(parents=True, exist_ok=True)
        self._write_images(study, volume, images)
        if boxes is not None:
            labels.mkdir(parents=True, exist_ok=True)
            write_boxes(labels / f"{study.id}.json", boxes)
        if mask is not None:
            labels.mkdir(parents=True, exist_ok=True)
            ending = mask_extension(study.channels[0]) if self.form == "folder" else ".nii.gz"
            write_mask(labels / f"{study.id}{ending}", mask.array[0], volume.affine)

    def _boxes(self, row: LabelRow) -> list[Box]:
        self._speaks_for_all(row)
        return read_boxes(self.ledger.content(row), self.recipe)

    def _speaks_for_all(self, row: LabelRow) -> None:
        """Refuses what would say of something that nobody looked at that it is not there."""
        silent = [name for name in self.recipe.label_names if name not in row.names]
        if silent:
            msg = f"its label speaks only for {', '.join(row.names) or 'nothing'}, not for {', '.join(silent)}"
            raise BadInput(msg)

    def _mask(self, row: LabelRow, volume: Volume) -> Volume:
        self._speaks_for_all(row)
        mask = renumbered(read_mask(self.ledger.content(row, self.folder.final_dir)), row.ids, self.recipe.labels)
        if not same_place(mask, volume):
            msg = f"its label has {describe(mask)}, its image {describe(volume)}"
            raise BadInput(msg)
        return mask

    def _folders(self, side: Side) -> tuple[Path, Path]:
        if self.form == "folder":
            return self.out, self.out / "labels" / "final"
        part = "Ts" if side == "test" else "Tr"
        return self.out / f"images{part}", self.out / f"labels{part}"

    def _write_images(self, study: Study, volume: Volume, images: Path) -> None:
        channels = study.first_channels(len(self.recipe.channels))
        if self.form == "msd" and len(channels) > 1:
            # the Decathlon keeps several sequences as the fourth axis of one file
            save_nifti(images / f"{study.id}.nii.gz", np.moveaxis(volume.array, 0, -1), volume.affine)
            return
        for number, path in enumerate(channels):
            name = f"{study.id}_{number:04d}" if self.form == "nnunet" or len(channels) > 1 else study.id
            if number not in volume.missing:
                self._write_image(path, images, name)
            elif self.form == "nnunet":  # which knows no missing channels
                save_volume(images / f"{name}.nii.gz", volume.array[number], volume.affine)

    def _write_image(self, path: Path, images: Path, name: str) -> None:
        ending = split_ending(path.name)[1].lower() if path.is_file() else ""
        as_it_is = ending == ".nii.gz" or (ending and self.form == "folder")
        if as_it_is:
            shutil.copyfile(path, images / f"{path.name if self.form == 'folder' else name + ending}")
            return
        one = read_volume(path)
        save_volume(images / f"{name}.nii.gz", one.array[0], one.affine)

    def _write_tables(self, studies: dict[str, Study]) -> None:
        self._write_sides(studies)
        rows = {
            i: {"patient": s.patient, "date": s.date, **s.answers, **self.cells.get(i, {})} for i, s in studies.items()
        }
        merge_answers(self.out / "answers.csv", rows)
        if self.form == "folder":
            (self.out / "labels").mkdir(exist_ok=True)
            if self.takes_masks:
                _write_json(self.out / "labels" / "names.json", self.recipe.labels)
            _write_json(self.out / "labels" / "channels.json", self.recipe.channels)
            return
        told = self._nnunet() if self.form == "nnunet" else self._decathlon()
        _write_json(self.out / "dataset.json", told)
        split = {"train": self._of("train"), "val": self._of("validation")}
        _write_json(self.out / "splits_final.json", [split])

    def _write_sides(self, studies: dict[str, Study]) -> None:
        with (self.out / "sides.csv").open("w", encoding="utf-8", newline="") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(("image", "patient", "side"))
            table.writerows((i, study.patient, self.exported[i]) for i, study in studies.items())

    def _of(self, *sides: Side) -> list[str]:
        return [study for study, side in self.exported.items() if side in sides]

    def _nnunet(self) -> dict[str, Any]:
        return {
            "channel_names": _numbered(self.recipe.channels),
            "labels": {"background": 0, **(self.recipe.labels if self.takes_masks else {})},
            "numTraining": len(self._of("train", "validation")),
            "file_ending": ".nii.gz",
            "name": self.recipe.name,
        }

    def _decathlon(self) -> dict[str, Any]:
        training, test = self._of("train", "validation"), self._of("test")
        labels = self.recipe.labels if self.takes_masks else {}
        return {
            "name": self.recipe.name,
            "description": self.recipe.title,
            "tensorImageSize": "4D" if len(self.recipe.channels) > 1 else "3D",
            "modality": _numbered(self.recipe.channels),
            "labels": {"0": "background", **{str(value): name for name, value in labels.items()}},
            "numTraining": len(training),
            "numTest": len(test),
            "training": [self._pair(i) for i in training],
            "test": [f"./imagesTs/{i}.nii.gz" for i in test],
        }

    def _pair(self, study: str) -> dict[str, str]:
        mask = {"label": f"./labelsTr/{study}.nii.gz"} if self.takes_masks else {}
        return {"image": f"./imagesTr/{study}.nii.gz", **mask}


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


def _write_json(path: Path, content: dict[str, Any] | Iterable[Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
