"""Studies in and out: `import_studies` fills a studies folder from what people have, `export_studies` gives it back."""

from __future__ import annotations

import filecmp
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from radloop.recipes.boxes import Box
from radloop.recipes.errors import BadImage, BadInput, BadLabel, Conflict, NotFound, RadloopError
from radloop.recipes.volume import Volume
from radloop.studies.box_files import content
from radloop.studies.export import ExportReport, export_studies
from radloop.studies.files import sync, write_whole, writing
from radloop.studies.folder import find_mask, split_ending, valid_id
from radloop.studies.images import (
    describe,
    mask_extension,
    read_mask,
    read_named_mask,
    read_study,
    same_place,
    write_mask,
)
from radloop.studies.import_answers import drop_answers, merge_answers
from radloop.studies.import_coco import ANNOTATIONS, read_coco_source
from radloop.studies.import_dicom import has_dicom, read_dicom_source
from radloop.studies.import_folder import image_folder, read_folder_source, read_nested_source
from radloop.studies.import_json import read_json_source
from radloop.studies.import_names import LabelNames, keep_channels, renumber
from radloop.studies.import_rest import leftovers
from radloop.studies.incoming import ImportReport, Incoming, Progress, Source

__all__ = ["ExportReport", "ImportReport", "export_studies", "import_source", "import_studies", "read_source"]

log = logging.getLogger(__name__)
_STAGING = ".import-"
_STALE_SECONDS = 24 * 3600
_LOOKS_NUMBERED = re.compile(r"_\d{4}$")


def import_studies(
    src: Path, dst: Path, *, names: Mapping[str, int] | None = None, progress: Progress | None = None
) -> ImportReport:
    """Copies studies and their masks into a studies folder; what is there already is never overwritten.

    The form of the source is found out: MSD or nnU-Net raw (`dataset.json`), a plain folder of images or of
    folders of them, DICOM at any depth. An interrupted import can be repeated: what is there with the same content
    counts as imported.

    Args:
        src: the folder to read; nothing in it is changed.
        dst: the studies folder; made if missing.
        names: name -> voxel value of masks that do not say it themselves.
        progress: called with (done, total, what).

    Returns:
        What came in, and everything that was left out with its reason.

    Raises:
        NotFound: `src` is no folder.
        BadInput: nothing in it is a form that can be imported, or one of its tables cannot be read.
        BadLabel: `labels/names.json` cannot be used.
        NoSpace: the disk is full or read-only.
    """
    return import_source(read_source(Path(src), progress), dst, names=names, progress=progress)


def import_source(
    source: Source, dst: Path, *, names: Mapping[str, int] | None = None, progress: Progress | None = None
) -> ImportReport:
    """The second half of `import_studies`: puts what a reader found into a studies folder."""
    dst = Path(dst)
    with writing(str(dst)):
        dst.mkdir(parents=True, exist_ok=True)
        _sweep(dst)
    return _Import(dst, source, dict(names) if names else None).run(progress)


def read_source(src: Path, progress: Progress | None = None) -> Source:
    """What is in a folder to import, its form found out; see `import_studies` for the errors."""
    if not src.is_dir():
        msg = f"{src} is no folder; give the folder that holds the images"
        raise NotFound(msg)
    source = _read(src, progress)
    return replace(source, excluded=[*source.excluded, *leftovers(src, source)])


def _read(src: Path, progress: Progress | None) -> Source:
    if (src / "dataset.json").is_file():
        return read_json_source(src)
    if (src / ANNOTATIONS).is_file():
        return read_coco_source(src)
    images = image_folder(src)
    plain = read_folder_source(src, images) if images else Source(())
    if has_dicom(src):
        dicom = read_dicom_source(src, progress)
        return replace(
            dicom,
            studies=[*plain.studies, *dicom.studies],
            excluded=[*plain.excluded, *dicom.excluded],
            channel_names=plain.channel_names,
            accounted=[*plain.accounted, *dicom.accounted],
        )
    plain = plain if images else read_nested_source(src)
    if not plain.studies and not plain.excluded:
        msg = (
            f"{src} has no images: give a folder of .nii.gz, .nrrd, .mha, .png or .jpg files, DICOM at any depth, "
            "or an nnU-Net or Decathlon dataset with dataset.json"
        )
        raise BadInput(msg)
    return plain


class _Import:
    """One import: its folder, what is in it, and what came of each study."""

    def __init__(self, dst: Path, source: Source, names: dict[str, int] | None) -> None:
        self.dst = dst
        self.source = source
        self.given_names = names
        self.names = LabelNames(dst / "labels" / "names.json")
        self.imported: list[str] = []
        self.labels: list[str] = []
        self.excluded = list(source.excluded)
        self.answers = dst / "answers.csv"
        self.told: set[str] = set()  # ids whose answers are written
        self.rows: set[str] = set()  # those of them that had no row before
        self.there = {split_ending(p.name)[0]: p for p in dst.iterdir() if not p.name.startswith(".")}

    def run(self, progress: Progress | None) -> ImportReport:
        studies = self._valid()
        # Patients first: were this interrupted, no study would lie here without its patient. But what is here already
        # is another's, until it is found to be the same.
        self._tell([study for study in studies if not any(map(self._is_there, _ids(study)))])
        late: list[Incoming] = []
        try:
            for number, study in enumerate(studies, start=1):
                taken = self._take(study)
                if taken is not None and taken.id not in self.told:
                    late.append(taken)
                if progress:
                    progress(number, len(studies), study.id)
        finally:
            drop_answers(self.answers, self.rows - set(self.imported))
            self._tell(late)
        if self.imported:
            with writing("labels/channels.json"):
                keep_channels(self.dst / "labels" / "channels.json", self.source.channel_names)
        names = dict(self.names.ids)
        return ImportReport(self.imported, self.excluded, self.labels, names, self.source.channel_names)

    def _tell(self, studies: list[Incoming]) -> None:
        """Writes rows of answers; those made here are taken out again if their study does not come in."""
        rows = {study.id: study.answers for study in studies}
        self.rows |= merge_answers(self.answers, rows)
        self.told |= set(rows)

    def _valid(self) -> list[Incoming]:
        seen: dict[str, str] = {}
        studies = []
        for study in self.source.studies:
            if not valid_id(study.id) or study.id == "labels":
                reason = f"{study.id!r} cannot be an id: letters, digits and ._- ()+=@, only; rename the file"
                self.excluded.append((study.source, reason))
            elif study.id in seen:
                self.excluded.append((study.source, f"{seen[study.id]} has the same id {study.id}"))
            else:
                seen[study.id] = study.source
                studies.append(study)
        return studies

    def _is_there(self, study_id: str) -> bool:
        return study_id in self.there or f"{study_id}_0000" in self.there

    def _take(self, study: Incoming) -> Incoming | None:
        """The study as it came in, maybe by its other id; None where it is left out."""
        refused: RadloopError | None = None
        for name in sorted(_ids(study), key=lambda name: not self._is_there(name)):
            try:
                self._take_as(replace(study, id=name))
            except Conflict as error:
                refused = error
            except (BadImage, BadInput) as error:
                refused = error
                break
            else:
                return replace(study, id=name)
        self.excluded.append((study.source, str(refused)))
        return None

    def _take_as(self, study: Incoming) -> None:
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=self.dst) as staging, writing(study.id):
            staged = self._stage(study, Path(staging))
            image = read_study(staged)
            self._check(staged, study)
            if not self._is_there(study.id) and study.id not in self.told:
                self._tell([study])
            self._place(staged)
        self.imported.append(study.id)
        try:
            if study.boxes is not None:
                self._take_boxes(study.id, study.boxes(image.affine))
            if study.mask is not None:
                self._take_mask(study, study.mask, image, staged[0].name)
            if study.mask is not None or study.boxes is not None:
                self.labels.append(study.id)
        except (BadLabel, BadInput, Conflict) as error:
            self.excluded.append((f"label of {study.source}" if study.boxes else f"mask of {study.source}", str(error)))

    def _stage(self, study: Incoming, staging: Path) -> list[Path]:
        # a lone image whose id ends like a channel number would be taken for a channel; then it gets one
        numbered = len(study.channels) > 1 or _LOOKS_NUMBERED.search(study.id)
        staged = []
        for channel, picture in enumerate(study.channels):
            suffix = f"_{channel:04d}" if numbered else ""
            path = staging / f"{study.id}{suffix}{picture.ending}"
            picture.write(path)
            staged.append(path)
        return staged

    def _check(self, staged: list[Path], study: Incoming) -> None:
        """Refuses a study where something else is there by its id."""
        if study.id in self.there and study.id not in {split_ending(p.name)[0] for p in staged}:
            msg = f"{self.there[study.id].name} is there already in another form; nothing was overwritten"
            raise Conflict(msg)
        for path in staged:
            other = self.there.get(split_ending(path.name)[0])
            if other is not None and (other.name != path.name or not filecmp.cmp(path, other, shallow=False)):
                msg = f"{other.name} is there already with other content; nothing was overwritten"
                raise Conflict(msg)

    def _place(self, staged: list[Path]) -> None:
        for path in staged:
            name = split_ending(path.name)[0]
            if name not in self.there:
                sync(path)
                self.there[name] = path.replace(self.dst / path.name)
        sync(self.dst)

    def _take_boxes(self, study_id: str, boxes: Sequence[Box]) -> None:
        final = self.dst / "labels" / "final"
        final.mkdir(parents=True, exist_ok=True)
        file, text = final / f"{study_id}.json", content(boxes)
        if not file.is_file():
            write_whole(file, lambda temporary: _write(temporary, text))
        elif file.read_bytes() != text:
            msg = f"labels/final/{file.name} is there already with other content; nothing was overwritten"
            raise Conflict(msg)

    def _take_mask(self, study: Incoming, path: Path, image: Volume, image_name: str) -> None:
        mask, told = read_named_mask(path)
        if not same_place(mask, image):
            msg = f"{path.name} has {describe(mask)}, its image {describe(image)}; draw it on the image's grid"
            raise BadLabel(msg)
        names = told or study.names or self.given_names
        voxels = mask.array[0]
        if names:
            _refuse_strangers(voxels, names, path.name)
            ids = self.names.merge(names)
        else:
            ids = self.names.merge_nameless({int(v) for v in _values(voxels)} - {0})
        numbered = renumber(voxels, ids)
        final = self.dst / "labels" / "final"
        final.mkdir(parents=True, exist_ok=True)
        there = find_mask(final, study.id)
        if there is None:
            write_mask(final / f"{study.id}{mask_extension(Path(image_name))}", numbered, image.affine)
        elif not _same_mask(there, Volume(numbered[None], image.affine)):
            msg = f"labels/final/{there.name} is there already with other content; nothing was overwritten"
            raise Conflict(msg)


def _write(file: Path, text: bytes) -> None:
    file.write_bytes(text)


def _ids(study: Incoming) -> list[str]:
    return [name for name in (study.id, study.other_id) if name]


def _values(voxels: np.ndarray) -> list[int]:
    return [int(v) for v in np.unique(voxels)]


def _refuse_strangers(voxels: np.ndarray, names: Mapping[str, int], what: str) -> None:
    strange = [v for v in _values(voxels) if v != 0 and v not in names.values()]
    if strange:
        msg = f"{what} has the values {strange[:8]}, which have no name (named are {dict(names)})"
        raise BadLabel(msg)


def _same_mask(path: Path, mask: Volume) -> bool:
    there = read_mask(path)
    return same_place(there, mask) and bool((there.array == mask.array).all())


def _sweep(dst: Path) -> None:
    """Removes what an import that was killed left behind; younger folders may belong to one that runs."""
    for entry in os.scandir(dst):
        if entry.name.startswith(_STAGING) and time.time() - entry.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(entry.path, ignore_errors=True)
            log.info("removed %s, left by an import that was interrupted", entry.name)
