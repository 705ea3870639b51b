"""A folder of DICOM files as one volume: geometry from the headers, checked; voxels through ITK's GDCM.

Slices are ordered by their place along the normal of the image plane, never by name or instance number (DICOM
PS3.3 C.7.6.2). A stack that is no regular grid (a gap, a tilted gantry, several time points) is refused.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radloop.recipes.errors import BadImage
from radloop.studies import itk_files
from radloop.studies.folder import looks_dicom_name

log = logging.getLogger(__name__)

_TAGS = [
    "Modality",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "RWV")
# Positions are written with two or three decimals, so that equal gaps differ a little on paper.
_GAP_MM, _GAP_SHARE = 0.02, 0.02
_TILT_MM, _TILT_SHARE = 0.05, 0.005


@dataclass(frozen=True)
class _Frame:
    """One slice: where its first pixel lies (LPS, mm), along what its columns and rows count, and pixel size."""

    position: np.ndarray | None
    along_x: np.ndarray
    along_y: np.ndarray
    spacing: tuple[float, float]


@dataclass(frozen=True)
class _File:
    path: Path
    series: str
    title: str
    columns: int
    rows: int
    colours: int
    whole_numbers: bool
    frames: tuple[_Frame, ...]


@dataclass(frozen=True)
class _Stack:
    """A regular grid of slices.

    Attributes:
        order: the slices from first to last, as numbers of files (or of frames of the only file).
    """

    files: tuple[_File, ...]
    order: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray


def read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (X, Y, Z), rescaled to the modality's values (HU for CT), and affine (voxel -> RAS mm).

    Raises:
        BadImage: there is no image, more than one that could be meant, or no regular grid.
    """
    stack = _stack(folder)
    array = _read_one(stack) if len(stack.files) == 1 else _read_many(folder, stack)
    if array.shape != stack.shape:
        msg = f"{folder.name} has voxels of shape {array.shape}, but headers of {stack.shape}; export it again"
        raise BadImage(msg)
    return array, stack.affine


def read_geometry(folder: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (X, Y, Z) and affine (voxel -> RAS mm), from the headers alone.

    Raises:
        BadImage: as `read_folder`.
    """
    stack = _stack(folder)
    return stack.shape, stack.affine


def _stack(folder: Path) -> _Stack:
    files = _one_series(folder, _image_files(folder))
    first = files[0]
    sizes = Counter((file.columns, file.rows) for file in files)
    if len(sizes) > 1:
        told = ", ".join(f"{count} of {x}x{y}" for (x, y), count in sizes.most_common())
        msg = f"{folder.name} has slices of several sizes ({told}); keep those of one"
        raise BadImage(msg)
    if len(files) > 1 and any(len(file.frames) > 1 for file in files):
        msg = f"{folder.name} has {len(files)} files, some of several frames; keep one multi-frame file, or slices"
        raise BadImage(msg)
    if len(files) > 1 and first.colours > 1:
        msg = f"{folder.name} has {len(files)} pictures in colour; keep one picture a folder"
        raise BadImage(msg)
    frames = [frame for file in files for frame in file.frames]
    order, affine = _grid(folder.name, frames)
    return _Stack(tuple(files), tuple(order), (first.columns, first.rows, len(frames)), affine)


def _image_files(folder: Path) -> list[_File]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    files, strange = [], []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not looks_dicom_name(path.name):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            if "Rows" in header and header.get("Modality", "") not in _NO_IMAGES:
                files.append(_file(path, header))
        except (InvalidDicomError, OSError, EOFError) as error:
            strange.append(f"{path.name} ({error})")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, NotImplementedError) as error:
            msg = f"{folder.name}/{path.name} has a DICOM header that cannot be used ({error}); export it again"
            raise BadImage(msg) from error
    if strange:
        log.warning("%s: %d files are not DICOM, the first %s", folder.name, len(strange), strange[0])
    if not files:
        msg = f"{folder.name} holds no DICOM image ({len(strange)} files cannot be read); put a series of slices there"
        raise BadImage(msg)
    return files


def _one_series(folder: Path, files: Sequence[_File]) -> list[_File]:
    """The series with most slices."""
    by_series: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_series[file.series].append(file)
    size = {series: sum(len(file.frames) for file in members) for series, members in by_series.items()}
    most = max(size.values())
    largest = [series for series in by_series if size[series] == most]
    if len(largest) > 1:
        titles = ", ".join(repr(by_series[series][0].title) for series in largest)
        msg = f"{folder.name} holds {len(largest)} series of {most} slices each ({titles}); keep one series a folder"
        raise BadImage(msg)
    if len(by_series) > 1:
        chosen = by_series[largest[0]][0].title
        log.warning("%s holds %d series; %r with %d slices is used", folder.name, len(by_series), chosen, most)
    return by_series[largest[0]]


def _file(path: Path, header: Any) -> _File:
    frames = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    if per_frame:
        groups = [(group, shared) for group in per_frame]
        transforms = {_transform(*group) for group in groups}
        if len(transforms) > 1:
            msg = f"frames have {len(transforms)} different rescale factors"
            raise ValueError(msg)
        found = tuple(_enhanced_frame(*group) for group in groups)
        if len(found) != frames:
            msg = f"{frames} frames, but {len(found)} places"
            raise ValueError(msg)
    elif frames > 1:
        msg = f"{frames} frames without places: a film is no volume"
        raise ValueError(msg)
    else:
        transforms = {(float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0))}
        spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
        found = (_frame(header.get("ImagePositionPatient"), header.get("ImageOrientationPatient"), spacing),)
    return _File(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        title=str(header.get("SeriesDescription", "")),
        columns=int(header.Columns),
        rows=int(header.Rows),
        colours=int(header.get("SamplesPerPixel") or 1),
        whole_numbers=all(number == int(number) for transform in transforms for number in transform),
        frames=found,
    )


def _enhanced_frame(own: Any, shared: Any) -> _Frame:
    position = _macro(own, shared, "PlanePositionSequence")
    orientation = _macro(own, shared, "PlaneOrientationSequence")
    measures = _macro(own, shared, "PixelMeasuresSequence")
    return _frame(
        position and position.get("ImagePositionPatient"),
        orientation and orientation.get("ImageOrientationPatient"),
        measures and measures.get("PixelSpacing"),
    )


def _transform(own: Any, shared: Any) -> tuple[float, float]:
    found = _macro(own, shared, "PixelValueTransformationSequence")
    return (float(found.RescaleSlope), float(found.RescaleIntercept)) if found else (1.0, 0.0)


def _macro(own: Any, shared: Any, name: str) -> Any:
    """A functional group's only item, of the frame or shared by all, or None."""
    for group in (own, shared):
        if group is not None and group.get(name):
            return group.get(name)[0]
    return None


def _frame(position: Any, orientation: Any, spacing: Any) -> _Frame:
    directions = np.array([float(v) for v in orientation or (1, 0, 0, 0, 1, 0)])
    if len(directions) != 6:
        msg = f"ImageOrientationPatient has {len(directions)} numbers"
        raise ValueError(msg)
    between_rows, between_columns = (float(v) for v in spacing or (1, 1))
    place = np.array([float(v) for v in position]) if position else None
    return _Frame(place, directions[:3], directions[3:], (between_columns, between_rows))


def _grid(name: str, frames: Sequence[_Frame]) -> tuple[list[int], np.ndarray]:
    """Order of the slices and affine of their grid."""
    first = frames[0]
    normal = np.cross(first.along_x, first.along_y)
    if abs(np.linalg.norm(normal) - 1) > 1e-3:
        msg = f"{name} has image axes that are not at right angles; export it again"
        raise BadImage(msg)
    for frame in frames:
        turned = max(np.abs(frame.along_x - first.along_x).max(), np.abs(frame.along_y - first.along_y).max())
        if turned > 1e-3 or frame.spacing != first.spacing:
            msg = f"{name} has slices of several orientations or pixel sizes (a localizer?); keep those of one"
            raise BadImage(msg)
    if len(frames) == 1:
        origin = first.position if first.position is not None else np.zeros(3)
        return [0], _affine(first, normal, origin)
    places = [frame.position for frame in frames if frame.position is not None]
    lost = len(frames) - len(places)
    if lost:
        msg = f"{name} has {lost} of {len(frames)} slices without a position; keep one volume a folder"
        raise BadImage(msg)
    positions = np.array(places)
    order = np.argsort(positions @ normal, kind="stable")
    step = _check_regular(name, positions[order], normal)
    return [int(i) for i in order], _affine(first, step, positions[order[0]])


def _check_regular(name: str, positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The vector from slice to slice, if all are evenly apart and straight above one another."""
    heights = positions @ normal
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() < 0.01:
        count = int((gaps < 0.01).sum()) + 1
        msg = f"{name} has {count} of {len(heights)} slices at one place; keep one time point or echo a folder"
        raise BadImage(msg)
    uneven = np.abs(gaps - usual) > _GAP_MM + _GAP_SHARE * usual
    extent = float(heights[-1] - heights[0])
    aside = positions - positions[0] - np.outer(heights - heights[0], normal)
    lean = float(np.linalg.norm(aside, axis=1).max())
    tilted = lean > _TILT_MM + _TILT_SHARE * extent
    if tilted or uneven.any():
        told = []
        if tilted:
            told.append(f"a tilted gantry ({np.degrees(np.arctan2(lean, extent)):.1f} degrees)")
        if uneven.any():
            told.append(f"uneven gaps ({gaps.min():.2f} to {gaps.max():.2f} mm; slices may be missing)")
        msg = f"{name} has {' and '.join(told)}; resample it to even slices first, as Slicer does at loading"
        raise BadImage(msg)
    return normal * extent / (len(heights) - 1)


def _affine(frame: _Frame, step: np.ndarray, origin: np.ndarray) -> np.ndarray:
    lps = np.eye(4)
    lps[:3, 0] = frame.along_x * frame.spacing[0]
    lps[:3, 1] = frame.along_y * frame.spacing[1]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _read_one(stack: _Stack) -> np.ndarray:
    array = itk_files.grey(itk_files.read(stack.files[0].path).array, stack.files[0].path.name)
    return array if len(stack.order) == 1 else array[:, :, list(stack.order)]


def _read_many(folder: Path, stack: _Stack) -> np.ndarray:
    import itk

    files = [stack.files[i] for i in stack.order]
    # Slices with their own fractional factors (PET) need room for fractions.
    whole = all(file.whole_numbers for file in files)
    kind = itk_files.component(files[0].path) if whole else itk.F
    image_type = itk.Image[kind, 3]
    reader = itk.ImageSeriesReader[image_type].New(ImageIO=itk.GDCMImageIO.New(), ForceOrthogonalDirection=False)
    reader.SetFileNames([str(file.path) for file in files])
    try:
        reader.Update()
    except RuntimeError as error:
        reason = itk_files.last_line(error).replace(f"{folder}/", "")
        msg = f"{folder.name} has slices that cannot be read ({reason}); export it again"
        raise BadImage(msg) from error
    return itk.array_from_image(reader.GetOutput()).T
