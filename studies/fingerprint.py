"""What a studies folder holds, in numbers: the ground on which a recipe is planned.

Follows nnU-Net's dataset fingerprint (Isensee et al., Nature Methods 2021): spacings, sizes and the intensities inside
the labelled foreground, with what radloop needs besides: label names, a guess of the modality, and ids that look like
one patient. Headers are read of every study, voxels of at most thirty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from nibabel.orientations import io_orientation

from radloop.recipes.errors import BadInput, RadloopError
from radloop.recipes.recipe import Modality
from radloop.studies.folder import StudiesFolder, Study, read_answers
from radloop.studies.images import read_header, read_study
from radloop.studies.import_names import read_channels
from radloop.studies.label_names import LabelLook, look_at_labels
from radloop.studies.patients import look_alike

Progress = Callable[[int, int, str], None]
Geometry = tuple[tuple[int, ...], tuple[float, ...]]

_SAMPLED = 30
_VOXELS_A_STUDY = 50_000
_BODY_HU = -500.0
_PICTURES = (".png", ".jpg", ".jpeg")
_MODALITIES: dict[str, Modality] = {
    "CT": "CT",
    "MR": "MR",
    "XR": "XR",
    "CR": "XR",
    "DX": "XR",
    "MG": "XR",
    "US": "US",
    "PT": "PT",
    "OT": "OT",
}


@dataclass(frozen=True)
class Intensities:
    """Values of one channel over the sampled studies, in the file's units (HU for CT).

    Attributes:
        low, high: the least and the greatest value.
        percentiles: value at 0.5, 50 and 99.5 percent of `where`.
        mean, deviation: over `where`.
        where: `labels` (inside the masks), `body` (above -500 HU) or `image` (all voxels).
        whole: every sampled value was a whole number.
    """

    low: float
    high: float
    percentiles: tuple[float, float, float]
    mean: float
    deviation: float
    where: Literal["labels", "body", "image"]
    whole: bool


@dataclass(frozen=True)
class Fingerprint:
    """What a studies folder holds.

    Attributes:
        ids: the readable studies, sorted.
        spacings: (n, 3) voxel size in mm along R, A, S.
        shapes: (n, 3) voxels along R, A, S.
        channels: images a study.
        dimension: 2 where every study has one slice.
        modality: what the images are; `modality_from` says how that is known.
        intensities: one per channel.
        labels: what the masks hold.
        sampled: studies whose voxels were read.
        unreadable: (study, reason) of those left out.
        same_patient: groups of ids that look like one patient; empty where answers.csv has a patient column.
        channel_names: by labels/channels.json; empty where it is not there or names another number of channels.
        lacking: channel -> how many studies lack it, of those that some do; never the first.
    """

    ids: tuple[str, ...]
    spacings: np.ndarray
    shapes: np.ndarray
    channels: int
    dimension: Literal[2, 3]
    modality: Modality
    modality_from: str
    intensities: tuple[Intensities, ...]
    labels: LabelLook
    sampled: int
    unreadable: tuple[tuple[str, str], ...] = ()
    same_patient: tuple[tuple[str, ...], ...] = ()
    channel_names: tuple[str, ...] = ()
    lacking: Mapping[int, int] = field(default_factory=dict)

    @property
    def median_spacing(self) -> np.ndarray:
        """Median voxel size in mm along R, A, S."""
        return np.median(self.spacings, axis=0)

    @property
    def largest(self) -> int:
        """Index of the study with the most voxels."""
        return int(np.prod(self.shapes, axis=1).argmax())


@dataclass
class _Samples:
    """Sampled values of one channel, grouped by where they lie."""

    image: list[np.ndarray] = field(default_factory=list)
    labelled: list[np.ndarray] = field(default_factory=list)


def fingerprint(folder: StudiesFolder, *, sample: int = _SAMPLED, progress: Progress | None = None) -> Fingerprint:
    """The fingerprint of `folder`.

    Args:
        folder: the studies.
        sample: most studies whose voxels are read, labelled ones first, evenly over the sorted ids.
        progress: called with (studies done, studies in all, id).

    Raises:
        BadInput: no study can be read, or labels/channels.json cannot be used.
        BadLabel: label ids have gaps, or masks and names disagree.
    """
    studies = folder.studies()
    channels = max((len(study.channels) for study in studies.values()), default=0)
    channel_names = read_channels(folder.path / "labels" / "channels.json")
    unreadable: dict[str, str] = {}
    geometry: dict[str, Geometry] = {}
    for study in studies.values():
        try:
            geometry[study.id] = ras_geometry(*read_header(study.channels[0]))
        except RadloopError as error:
            unreadable[study.id] = str(error)
    labels = look_at_labels(folder, sorted(geometry), sample)
    chosen = _choose(sorted(geometry), labels.masks, sample)
    samples = tuple(_Samples() for _ in range(channels))
    read = 0
    for number, study_id in enumerate(chosen, start=1):
        try:
            _sample(studies[study_id].first_channels(channels), study_id, labels, samples)
            read += 1
        except RadloopError as error:
            unreadable[study_id] = str(error)
            del geometry[study_id]
        if progress:
            progress(number, len(chosen), study_id)
    if not read:
        reason = next(iter(unreadable.items()), None)
        why = f"; {reason[0]}: {reason[1]}" if reason else ""
        msg = f"{folder.path} has no study that can be read ({len(unreadable)} cannot{why}); put images there first"
        raise BadInput(msg)
    ids = tuple(sorted(geometry))
    flat = all(min(geometry[i][0]) == 1 for i in ids)
    if flat:
        geometry = {i: _thin_last(*geometry[i]) for i in ids}
    shapes = np.array([geometry[i][0] for i in ids])
    modality, modality_from = _modality([studies[i] for i in ids], samples)
    return Fingerprint(
        ids=ids,
        spacings=np.array([geometry[i][1] for i in ids]),
        shapes=shapes,
        channels=channels,
        dimension=2 if flat else 3,
        modality=modality,
        modality_from=modality_from,
        intensities=tuple(_intensities(s, body=modality == "CT") for s in samples),
        labels=labels,
        sampled=read,
        unreadable=tuple(sorted(unreadable.items())),
        same_patient=() if _patients_known(folder) else look_alike(ids),
        channel_names=channel_names if len(channel_names) == channels else (),
        lacking=_lacking([studies[i] for i in ids], channels),
    )


def _lacking(studies: list[Study], channels: int) -> dict[int, int]:
    gone = Counter(
        number
        for study in studies
        for number, path in enumerate(study.first_channels(channels))
        if channels > 1 and not path.exists()
    )
    return dict(sorted(gone.items()))


def ras_geometry(shape: Sequence[int], affine: np.ndarray) -> Geometry:
    """Voxels and voxel size in mm along the closest R, A, S axes, of a grid given in the file's own axes."""
    axes = io_orientation(affine)[:, 0]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.argsort(axes)
    return tuple(int(shape[i]) for i in order), tuple(float(spacing[i]) for i in order)


def _thin_last(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Geometry:
    """A lone slice with its thin axis last, as a 2D recipe sees it, however it lies in the world."""
    thin = shape.index(1) if shape[2] != 1 else 2
    order = [*(axis for axis in range(3) if axis != thin), thin]
    return tuple(shape[i] for i in order), tuple(spacing[i] for i in order)


def _choose(ids: list[str], masks: dict[str, Path], most: int) -> list[str]:
    """At most `most` ids: labelled ones first, each group evenly over the sorted ids."""
    labelled = _evenly([i for i in ids if i in masks], most)
    rest = _evenly([i for i in ids if i not in masks], most - len(labelled))
    return sorted(labelled + rest)


def _evenly(items: list[str], count: int) -> list[str]:
    if count <= 0 or not items:
        return []
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))]


def _sample(paths: Sequence[Path], study: str, labels: LabelLook, samples: tuple[_Samples, ...]) -> None:
    """Add up to 50 000 values of each channel that is there, and as many of its labelled voxels."""
    volume = read_study(paths, range(1, len(paths)))
    mask = labels.read(study, volume)
    rng = np.random.default_rng(0)  # the same plan for the same folder
    everywhere = rng.integers(0, volume.array[0].size, min(_VOXELS_A_STUDY, volume.array[0].size))
    inside = np.flatnonzero(mask) if mask is not None else np.empty(0, dtype=np.int64)
    if inside.size > _VOXELS_A_STUDY:
        inside = rng.choice(inside, _VOXELS_A_STUDY, replace=False)
    for number, (channel, kept) in enumerate(zip(volume.array, samples, strict=True)):
        if number in volume.missing:
            continue
        kept.image.append(channel.reshape(-1)[everywhere].astype(np.float64))
        if inside.size:
            kept.labelled.append(channel.reshape(-1)[inside].astype(np.float64))


def _intensities(samples: _Samples, *, body: bool) -> Intensities:
    image = np.concatenate(samples.image or [np.zeros(1)])  # none of the studies that were read has the channel
    where: Literal["labels", "body", "image"] = "image"
    values = image
    if samples.labelled:
        where, values = "labels", np.concatenate(samples.labelled)
    elif body and (image > _BODY_HU).any():
        where, values = "body", image[image > _BODY_HU]
    low, middle, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
    return Intensities(
        low=float(image.min()),
        high=float(image.max()),
        percentiles=(low, middle, high),
        mean=float(values.mean()),
        deviation=float(values.std()),
        where=where,
        whole=bool((image == np.round(image)).all()),
    )


def _modality(studies: list[Study], samples: tuple[_Samples, ...]) -> tuple[Modality, str]:
    """The modality and how it is known: answers.csv, the DICOM header, else a guess from files and values."""
    told = {s.answers["modality"].strip().upper() for s in studies if s.answers.get("modality", "").strip()}
    if told:
        known = {_MODALITIES.get(word) for word in told}
        if len(known) > 1 or None in known:
            words = ", ".join(sorted(told))
            msg = f"answers.csv column 'modality' has {words}; a recipe is for one of CT, MR, XR, US, PT, OT"
            raise BadInput(msg)
        return _MODALITIES[told.pop()], "the modality column of answers.csv"
    first = studies[0].channels[0]
    if first.is_dir():
        tag = _dicom_modality(first)
        if tag in _MODALITIES:
            return _MODALITIES[tag], "the DICOM header"
    if first.suffix.lower() in _PICTURES:
        return "XR", "a guess, correct it if wrong: the studies are PNG or JPEG pictures"
    values = np.concatenate(samples[0].image)
    if values.min() < -200 and (values == np.round(values)).all():
        return "CT", f"a guess, correct it if wrong: whole numbers down to {values.min():.0f}, as HU are"
    return "MR", f"a guess, correct it if wrong: values from {values.min():.4g} to {values.max():.4g} are not HU"


def _dicom_modality(folder: Path) -> str:
    import pydicom  # only for DICOM studies

    for file in sorted(folder.iterdir()):
        if file.is_file() and pydicom.misc.is_dicom(file):
            return str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", ""))
    return ""


def _patients_known(folder: StudiesFolder) -> bool:
    return any("patient" in row for row in read_answers(folder.path / "answers.csv").values())
