"""DICOM folders of any depth: one series a study, chosen by a rule that is stated, the others listed with the reason.

The rule, a study (StudyInstanceUID) at a time:

1. Left out: what is no image of CT, MR, PT, CR or DX (SEG, SR, RTSTRUCT, dose reports); screen saves (secondary
   capture); localizers; derived or secondary series of CT, MR and PT; fewer than 5 slices of CT, MR and PT; several
   images at one place (time points, echoes, several multi-frame files); uneven gaps; a tilted gantry.
2. Of the rest the series with the most slices; then the thinnest slices; then the lowest series number.

X-ray pictures (CR, DX) are no stack: each is a study of its own.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from radloop.studies.folder import looks_dicom_name, valid_id
from radloop.studies.images import read_volume
from radloop.studies.incoming import Incoming, Progress, Source
from radloop.studies.nifti import save_nifti

VOLUMES = ("CT", "MR", "PT")
PICTURES = ("CR", "DX")
FEWEST_SLICES = 5
GAP_TOLERANCE_MM = 0.1
"""Slices may lie this far from even gaps, and a stack this far off its normal a slice: scanners round positions."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "SliceThickness",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PatientID",
    "StudyDate",
    "PatientSex",
    "PatientAge",
    "SpecificCharacterSet",
    "SeriesDescription",
]


@dataclass(frozen=True)
class Header:
    """One DICOM file without its pixels."""

    path: Path
    data: pydicom.Dataset

    def text(self, name: str) -> str:
        """An element as text; empty where it is missing."""
        return str(self.data.get(name) or "").strip()

    def numbers(self, name: str) -> np.ndarray:
        """An element as numbers; empty where it is missing or no number."""
        value = self.data.get(name)
        values = value if isinstance(value, Sequence | pydicom.multival.MultiValue) else [value]
        try:
            return np.array([float(v) for v in values])
        except (TypeError, ValueError):
            return np.array([])

    @property
    def modality(self) -> str:
        """Such as CT."""
        return self.text("Modality")

    @property
    def image_type(self) -> list[str]:
        """The words of ImageType, upper case."""
        words = self.data.get("ImageType") or []
        return [str(w).upper() for w in ([words] if isinstance(words, str) else words)]


@dataclass(frozen=True)
class DicomSeries:
    """Files of one series on their way to one NIfTI file."""

    files: tuple[Path, ...]
    name: str
    ending: str = ".nii.gz"

    def write(self, path: Path) -> None:
        """Converts to `.nii.gz`, values in HU (or the series' own units): int16 where they fit, else float32."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / self.name  # what the reader says names the study
            folder.mkdir()
            for number, file in enumerate(self.files):
                (folder / f"{number:05d}.dcm").symlink_to(file.resolve())
            volume = read_volume(folder)
        save_volume(path, volume.array[0], volume.affine)


def save_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes (X, Y, Z) voxels as NIfTI, int16 where no value is lost, else float32."""
    whole = array.dtype.kind in "iub" or bool((np.rint(array) == array).all())
    fits = array.size == 0 or (array.min() >= -32768 and array.max() <= 32767)
    save_nifti(path, array.astype(np.int16 if whole and fits else np.float32), affine)


def read_dicom_source(src: Path, progress: Progress | None = None) -> Source:
    """The studies among the DICOM files below a folder.

    Args:
        src: searched at any depth.
        progress: called with (files read, files in all, name).
    """
    excluded: list[tuple[str, str]] = []
    headers, accounted = _read_headers(src, excluded, progress)
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        series[header.text("SeriesInstanceUID") or str(header.path.parent)].append(header)
    usable: dict[str, list[list[Header]]] = defaultdict(list)
    for files in series.values():
        files = _without_localizers(_without_copies(files, src, excluded), src, excluded)
        reason = _unusable(files) if files else ""
        if reason:
            excluded.append((_name(files, src), reason))
        elif files and files[0].modality in PICTURES:
            usable[files[0].text("SOPInstanceUID") or str(files[0].path)].append(files[:1])
            for other in files[1:]:
                usable[other.text("SOPInstanceUID") or str(other.path)].append([other])
        elif files:
            usable[files[0].text("StudyInstanceUID") or str(files[0].path.parent)].append(files)
    chosen = [_choose(group, src, excluded) for group in usable.values()]
    return Source(_name_studies(chosen, src), excluded, accounted=accounted)


def has_dicom(src: Path) -> bool:
    """Whether any file below a folder is DICOM."""
    return any(_is_dicom(path) for path in _files(src))


def _files(src: Path) -> Iterable[Path]:
    for folder, below, names in os.walk(src, followlinks=False):
        below[:] = sorted(n for n in below if not n.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            # UIDs as names end in anything after their last dot
            if path.is_file() and (looks_dicom_name(name) or _is_dicom(path)):
                yield path


def _is_dicom(path: Path) -> bool:
    try:
        return bool(pydicom.misc.is_dicom(path))
    except OSError:
        return False  # what cannot be opened is listed with that reason


def _read_headers(
    src: Path, excluded: list[tuple[str, str]], progress: Progress | None
) -> tuple[list[Header], set[Path]]:
    """The headers of images, and every file that is DICOM."""
    files = list(_files(src))
    headers = []
    for number, path in enumerate(files, start=1):
        try:
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            headers.append(Header(path, data))
        except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, NotImplementedError) as error:
            if path.suffix.lower() in (".dcm", ".ima", ".dicom"):
                excluded.append((path.relative_to(src).as_posix(), f"cannot be read as DICOM ({error})"))
        if progress:
            progress(number, len(files), path.name)
    images = [h for h in headers if h.text("SOPClassUID") != "1.2.840.10008.1.3.10"]  # DICOMDIR
    return images, {h.path for h in headers}


def _without_copies(files: list[Header], src: Path, excluded: list[tuple[str, str]]) -> list[Header]:
    first: dict[str, Header] = {}
    copies = []
    for header in files:
        uid = header.text("SOPInstanceUID") or str(header.path)
        if first.setdefault(uid, header) is not header:
            copies.append(header)
    if copies:
        excluded.append((_name(copies, src), f"copies ({len(copies)}) of images that lie elsewhere too"))
    return list(first.values())


def _without_localizers(files: list[Header], src: Path, excluded: list[tuple[str, str]]) -> list[Header]:
    scouts = [h for h in files if {"LOCALIZER", "SCOUT"} & set(h.image_type)]
    if scouts:
        excluded.append((_name(scouts, src), f"localizer ({len(scouts)} images)"))
    return [h for h in files if h not in scouts]


def _unusable(files: list[Header]) -> str:
    """Why a series cannot be a study, or an empty string."""
    first = files[0]
    if first.modality not in (*VOLUMES, *PICTURES):
        return f"modality {first.modality or 'missing'} is no image for a study (CT, MR, PT, CR and DX are)"
    if first.text("SOPClassUID").startswith(_SECONDARY_CAPTURE):
        return "screen save (secondary capture)"
    if "SECONDARY" in first.image_type[1:2] or (first.modality in VOLUMES and first.image_type[:1] == ["DERIVED"]):
        return f"derived images ({chr(92).join(first.image_type[:3])})"
    if first.modality in PICTURES:
        return ""
    if _slices(files) < FEWEST_SLICES:
        return f"{_slices(files)} slices; a volume has at least {FEWEST_SLICES}"
    if _slices(files) > len(files) > 1:
        return f"{len(files)} multi-frame files in one series (time points or echoes); export one of them"
    # the places of a multi-frame file's slices are looked at when it is converted
    return _geometry_problem(files) if len(files) > 1 else ""


def _slices(files: list[Header]) -> int:
    return sum(max(1, int(h.numbers("NumberOfFrames").sum())) for h in files)


def _geometry_problem(files: list[Header]) -> str:
    """Why slices are no even stack (DICOM PS3.3 C.7.6.2), or an empty string."""
    sizes = {(h.text("Rows"), h.text("Columns")) for h in files}
    directions = np.array([d for h in files if len(d := h.numbers("ImageOrientationPatient")) == 6])
    places = np.array([p for h in files if len(p := h.numbers("ImagePositionPatient")) == 3])
    if len(directions) < len(files) or len(places) < len(files):
        return "images without position or orientation"
    if len(sizes) > 1 or np.abs(directions - directions[0]).max() > 1e-3:
        return "images of different size or orientation in one series"
    normal = np.cross(directions[0][:3], directions[0][3:])
    order = np.argsort(places @ normal)
    steps = np.diff(places[order], axis=0)
    gaps = steps @ normal
    if gaps.min() < 1e-3:
        return "several images at one place (time points or echoes); export one of them"
    sideways = np.linalg.norm(steps - gaps[:, None] * normal, axis=1)
    if sideways.max() > GAP_TOLERANCE_MM:
        angle = np.degrees(np.arctan2(sideways.max(), gaps[sideways.argmax()]))
        return f"tilted gantry (slices shifted by {angle:.1f} degrees); resample it to an upright volume first"
    if gaps.max() - gaps.min() > GAP_TOLERANCE_MM:
        return f"uneven slice gaps ({gaps.min():.2f} to {gaps.max():.2f} mm); slices are missing or of two scans"
    return ""


def _choose(group: list[list[Header]], src: Path, excluded: list[tuple[str, str]]) -> list[Header]:
    """The series of a study by the rule; the others are listed."""
    group = sorted(group, key=_rank)
    for other in group[1:]:
        reason = f"not chosen: {_name(group[0], src)} has {_why(group[0], other)}"
        excluded.append((_name(other, src), reason))
    return group[0]


def _rank(files: list[Header]) -> tuple[int, float, float, str]:
    return -_slices(files), _thickness(files), _number(files), files[0].text("SeriesInstanceUID")


def _why(best: list[Header], other: list[Header]) -> str:
    if _slices(best) > _slices(other):
        return f"more slices ({_slices(best)} > {_slices(other)})"
    if _thickness(best) < _thickness(other):
        return f"thinner slices ({_thickness(best):g} < {_thickness(other):g} mm)"
    return "the lower series number"


def _thickness(files: list[Header]) -> float:
    value = files[0].numbers("SliceThickness")
    return float(value[0]) if len(value) else np.inf


def _number(files: list[Header]) -> float:
    value = files[0].numbers("SeriesNumber")
    return float(value[0]) if len(value) else np.inf


def _name(files: Sequence[Header], src: Path) -> str:
    """A series in words: where it lies, its number and description."""
    first = files[0]
    place = first.path.relative_to(src) if len(files) == 1 else first.path.parent.relative_to(src)
    number, words = first.text("SeriesNumber"), first.text("SeriesDescription")
    return " ".join(filter(None, (place.as_posix(), f"series {number}" if number else "", words)))


def _name_studies(chosen: list[list[Header]], src: Path) -> list[Incoming]:
    wanted = [(_id(files), files) for files in chosen]
    often = Counter(name for name, _ in wanted)
    studies = []
    for plain, files in wanted:
        # Studies of one day share series numbers, pictures of one series too: the tail of a hash keeps them apart.
        # Whoever came in alone has the plain id and keeps it, so either may be there already.
        uid = "SOPInstanceUID" if files[0].modality in PICTURES else "SeriesInstanceUID"
        tailed = f"{plain}_{_digest(files[0].text(uid) or _name(files, src))}"
        name, other = (plain, tailed) if often[plain] == 1 else (tailed, plain)
        channels = (DicomSeries(_in_order(files), plain),)
        studies.append(Incoming(name, _name(files, src), channels, answers=_answers(files[0]), other_id=other))
    return sorted(studies, key=lambda study: study.id)


def _in_order(files: list[Header]) -> tuple[Path, ...]:
    return tuple(h.path for h in sorted(files, key=lambda h: (h.numbers("InstanceNumber").sum(), h.path)))


def _id(files: list[Header]) -> str:
    """`<PatientID>_<StudyDate>_s<SeriesNumber>`, with `-` for what an id may not hold."""
    first = files[0]
    parts = (_patient(first), first.text("StudyDate"), f"s{first.text('SeriesNumber') or '0'}")
    text = "_".join(part for part in parts if part)
    text = "".join(c if valid_id(f"a{c}a") else "-" for c in unicodedata.normalize("NFC", text))
    return text.replace("..", "-").strip(" ").lstrip(".")[-180:]


def _patient(header: Header) -> str:
    return header.text("PatientID") or f"unknown-{_digest(header.text('StudyInstanceUID') or str(header.path.parent))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _answers(header: Header) -> dict[str, str]:
    day = header.text("StudyDate")
    return {
        "patient": _patient(header),
        "date": f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 and day.isdigit() else "",
        "modality": header.modality,
        "sex": header.text("PatientSex"),
        "age": _years(header.text("PatientAge")),
    }


def _years(age: str) -> str:
    """Whole years of a DICOM age string (PS3.5, AS: `041Y`, `018M`); empty where it is none."""
    parts: dict[str, Any] = {"Y": 1, "M": 12, "W": 52, "D": 365}
    if len(age) != 4 or not age[:3].isdigit() or age[3] not in parts:
        return ""
    return str(int(age[:3]) // parts[age[3]])
