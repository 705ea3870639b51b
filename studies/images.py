"""Images and masks from files and back, one door for every format.

Volumes keep the file's own voxel axes and dtype; places are RAS mm. What is cut short, has more than one
time point, or holds voxels that are no numbers is refused by name, never repaired in silence.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from radloop.recipes.errors import BadImage, BadInput, BadLabel
from radloop.recipes.volume import Volume
from radloop.studies import itk_files
from radloop.studies.files import write_whole
from radloop.studies.folder import MASK_ENDINGS, split_ending

Names = dict[str, int]
_NIFTI = (".nii.gz", ".nii")
_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)
_SEGMENT_NAME = re.compile(r"^Segment(\d+)_Name$")


def read_volume(path: Path) -> Volume:
    """An image of one channel, (1, X, Y, Z), in the file's dtype where it has no scale factor.

    Args:
        path: NIfTI, NRRD, MetaImage, PNG or JPEG file, or a folder of DICOM files.

    Raises:
        BadImage: it is cut short, has four dimensions, no voxels, no usable geometry, or voxels that are no numbers.
    """
    path = Path(path)
    if path.is_dir():
        from radloop.studies.dicom_read import read_folder

        array, affine = read_folder(path)
    elif not path.is_file():
        msg = f"image {path.name} is missing; put it back, or remove its study"
        raise BadImage(msg)
    elif split_ending(path.name, _NIFTI)[1]:
        array, affine = _read_nifti(path)
    else:
        raw = itk_files.read(path)
        array, affine = itk_files.grey(raw.array, path.name), raw.affine
    _check_numbers(array, path.name)
    return Volume(array[np.newaxis], _checked_affine(affine, path.name))


def read_study(paths: Sequence[Path], may_lack: Collection[int] = ()) -> Volume:
    """The channels of a study, (C, X, Y, Z).

    Args:
        paths: a file a channel.
        may_lack: numbers of those that need not be there, such as `Recipe.may_lack`; zeros stand for them. Never the
            first one.

    Raises:
        BadImage: a channel is missing or cannot be read, or lies on another grid than the first.
    """
    gone = tuple(number for number, path in enumerate(paths) if not path.exists())
    missing = [f"{number} ({paths[number].name})" for number in gone if number not in may_lack]
    if missing:
        msg = f"channel {', '.join(missing)} of {len(paths)} is missing; put the file beside the others"
        raise BadImage(msg)
    there = [path for path in paths if path.exists()]
    volumes = [read_volume(path) for path in there]
    first = volumes[0]
    for path, volume in zip(there, volumes, strict=True):
        if not same_place(volume, first):
            msg = f"{path.name} has {describe(volume)}, {paths[0].name} {describe(first)}; resample one onto the other"
            raise BadImage(msg)
    if len(paths) == 1:
        return first
    given = iter(v.array for v in volumes)
    nothing = np.zeros_like(first.array)
    arrays = [nothing if number in gone else next(given) for number in range(len(paths))]
    return Volume(np.concatenate(arrays), first.affine, gone)


def read_header(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (X, Y, Z) and affine (voxel -> RAS mm), without the voxels where the format allows it.

    Raises:
        BadImage: the header cannot be read or its geometry not used.
    """
    path = Path(path)
    if path.is_dir():
        from radloop.studies.dicom_read import read_geometry

        shape, affine = read_geometry(path)
    elif not path.is_file():
        msg = f"image {path.name} is missing; put it back, or remove its study"
        raise BadImage(msg)
    elif split_ending(path.name, _NIFTI)[1]:
        image = _open_nifti(path)
        shape, affine = _three(image.shape, path.name), _nifti_affine(image, path.name)
    else:
        shape, affine = itk_files.read_header(path)
    return shape, _checked_affine(affine, path.name)


def read_mask(path: Path) -> Volume:
    """A mask, (1, X, Y, Z), whole numbers.

    Raises:
        BadLabel: the file cannot be read or its voxels are no ids.
    """
    return read_named_mask(path)[0]


def read_named_mask(path: Path) -> tuple[Volume, Names | None]:
    """A mask, and the names of its ids where the file has them (`.seg.nrrd`).

    Raises:
        BadLabel: the file cannot be read, its voxels are no ids, or its segments overlap.
    """
    path = Path(path)
    try:
        if not path.is_file():
            msg = f"mask {path.name} is missing"
            raise BadLabel(msg)
        if split_ending(path.name, _NIFTI)[1]:
            array, affine = _read_nifti(path)
            names = None
        else:
            raw = itk_files.read(path)
            array, names = _segments(raw, path.name)
            affine = raw.affine
        affine = _checked_affine(affine, path.name)
    except BadImage as error:
        raise BadLabel(str(error)) from error
    return Volume(_ids(array, path.name)[np.newaxis], affine), names


def write_mask(path: Path, mask: np.ndarray, affine: np.ndarray, names: Names | None = None) -> None:
    """Write a mask so that it is there complete or not at all.

    Args:
        path: ends in .nii.gz, .nii, .nrrd, .seg.nrrd or .png, which decides the format.
        mask: (X, Y, Z), ids 0-255; a .png takes one slice.
        affine: 4x4, voxel -> RAS mm; a .png keeps none.
        names: id of each name, written into a .seg.nrrd.

    Raises:
        BadInput: the ending is unknown, or the mask does not fit the format.
        NoSpace: the disk is full or read-only; nothing is left behind.
    """
    path = Path(path)
    ending = split_ending(path.name, (".seg.nrrd", *MASK_ENDINGS))[1].lower()
    if not ending:
        msg = f"a mask cannot be written as {path.name}; end it in one of {', '.join(MASK_ENDINGS)}"
        raise BadInput(msg)
    if mask.ndim != 3 or (ending == ".png" and mask.shape[2] != 1):
        msg = f"a mask of shape {mask.shape} cannot be written as {path.name}; a .png takes one slice, others a volume"
        raise BadInput(msg)
    if mask.size and (mask.min() < 0 or mask.max() > 255):
        msg = f"ids of {path.name} are {mask.min()}..{mask.max()}; a mask holds 0..255"
        raise BadInput(msg)
    voxels = mask.astype(np.uint8, copy=False)
    header = _segment_header(voxels, names or {}) if ending == ".seg.nrrd" else {}

    def write(temporary: Path) -> None:
        if ending in _NIFTI:
            image = nib.Nifti1Image(voxels, affine)
            image.set_sform(affine, 1)
            image.set_qform(affine, 1)
            nib.save(image, temporary)
        else:
            itk_files.write(temporary, voxels, affine, header)

    write_whole(path, write, ending)


def mask_extension(study_path: Path) -> str:
    """The ending under which a study's masks are kept: `.png` for pictures, else `.nii.gz`."""
    return ".png" if itk_files.is_picture(Path(study_path)) else ".nii.gz"


def same_place(one: Volume, other: Volume) -> bool:
    """Whether two grids agree: shape, and corners within 0.01 mm (or a thousandth of the voxel, where larger)."""
    return one.same_grid(other, max(0.01, 1e-3 * max(other.spacing)))


def describe(volume: Volume) -> str:
    """A grid in words: shape, spacing and first voxel's place."""
    shape = "x".join(str(n) for n in volume.shape)
    spacing = "x".join(f"{s:.4g}" for s in volume.spacing)
    origin = ", ".join(f"{o:.2f}" for o in volume.affine[:3, 3])
    return f"{shape} voxels of {spacing} mm at ({origin})"


def _open_nifti(path: Path) -> nib.Nifti1Image:
    try:
        image = nib.load(path, mmap=False)
    except _BROKEN as error:
        msg = f"{path.name} is not a NIfTI file ({_one_line(error, path)}); it may be cut short, copy it again"
        raise BadImage(msg) from error
    if not isinstance(image, nib.Nifti1Image | nib.Nifti2Image):
        msg = f"{path.name} is a {type(image).__name__}, not a NIfTI file; convert it to .nii.gz"
        raise BadImage(msg)
    return image


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = _open_nifti(path)
    shape = _three(image.shape, path.name)
    dtype = image.header.get_data_dtype()
    if dtype.kind not in "iufb":
        msg = f"{path.name} has voxels of type {dtype}; give one number a voxel (grey values, not colour)"
        raise BadImage(msg)
    # The header's own factors are blanked once the image is open; its array keeps them.
    proxy: Any = image.dataobj
    scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
    try:
        # float32 holds every scaled int16 apart and needs half of nibabel's default.
        wide = scaled or (dtype.itemsize > 4 and dtype.kind == "f")
        array = np.asarray(proxy, dtype=np.float32) if wide else np.asarray(proxy)
    except _BROKEN as error:
        msg = f"{path.name} cannot be read to its end ({_one_line(error, path)}); it may be cut short, copy it again"
        raise BadImage(msg) from error
    native = array.dtype.newbyteorder("=")
    return array.reshape(shape, order="F").astype(native, copy=False), _nifti_affine(image, path.name)


def _nifti_affine(image: nib.Nifti1Image, name: str) -> np.ndarray:
    if image.affine is None:
        msg = f"{name} has no geometry; save it with a qform or sform"
        raise BadImage(msg)
    return np.asarray(image.affine, dtype=float)


def _three(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    trimmed = list(shape)
    while len(trimmed) > 3 and trimmed[-1] == 1:
        trimmed.pop()
    if len(trimmed) > 3:
        msg = (
            f"{name} has {len(trimmed)} dimensions {tuple(trimmed)}; give one 3D volume: a time point, "
            f"or each channel as a file <id>_0000.nii.gz, <id>_0001.nii.gz"
        )
        raise BadImage(msg)
    x, y, z = trimmed + [1] * (3 - len(trimmed))
    if min(x, y, z) < 1:
        msg = f"{name} has no voxels (shape {tuple(shape)}); export it again"
        raise BadImage(msg)
    return x, y, z


def _checked_affine(affine: np.ndarray, name: str) -> np.ndarray:
    """The affine, if it takes voxels to three independent directions of at least a nanometre."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    usable = bool(np.isfinite(affine).all()) and lengths.min() > 1e-6
    if not usable or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        msg = f"{name} has no usable geometry (spacing {lengths.tolist()} mm); set its spacing and directions"
        raise BadImage(msg)
    return affine


def _check_numbers(array: np.ndarray, name: str) -> None:
    if array.size == 0:
        msg = f"{name} has no voxels (shape {array.shape}); export it again"
        raise BadImage(msg)
    if array.dtype.kind != "f":
        return
    # Slice by slice: a mask of the whole volume would double the memory of a large CT.
    bad = sum(int(np.count_nonzero(~np.isfinite(array[..., z]))) for z in range(array.shape[-1]))
    if bad:
        msg = f"{name} has {bad} voxels that are not finite numbers (NaN or infinity); replace them, then copy it again"
        raise BadImage(msg)


def _ids(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind in "ub" or array.dtype.kind == "i" or _all_whole(array):
        whole = array
    else:
        msg = f"{name} has voxels that are not whole numbers; a mask holds ids 0, 1, 2, ..."
        raise BadLabel(msg)
    if whole.size and (whole.min() < 0 or whole.max() > 65535):
        msg = f"{name} has voxels from {whole.min()} to {whole.max()}; a mask holds ids 0, 1, 2, ..."
        raise BadLabel(msg)
    small = whole.size == 0 or whole.max() < 256
    return whole.astype(np.uint8 if small else np.uint16, copy=False)


def _all_whole(array: np.ndarray) -> bool:
    return all(bool(np.equal(np.rint(array[..., z]), array[..., z]).all()) for z in range(array.shape[-1]))


def _segments(raw: itk_files.Raw, name: str) -> tuple[np.ndarray, Names | None]:
    """Ids and names of a file; the segments of several layers are merged where no two share a voxel."""
    numbers = sorted(int(m[1]) for m in map(_SEGMENT_NAME.match, raw.header) if m)
    if not numbers:
        return (raw.array if raw.array.ndim == 3 else itk_files.grey(raw.array, name)), None
    layers = raw.array if raw.array.ndim == 4 else raw.array[np.newaxis]
    merged = np.zeros(layers.shape[1:], np.uint16)
    names: Names = {}
    for new_id, number in enumerate(numbers, start=1):
        title = raw.header[f"Segment{number}_Name"].strip()
        value = _header_number(raw, f"Segment{number}_LabelValue", number + 1, name)
        layer = _header_number(raw, f"Segment{number}_Layer", 0, name)
        if title in names:
            msg = f"{name} has two segments named {title!r}; give each its own name"
            raise BadLabel(msg)
        if not 0 <= layer < len(layers):
            msg = f"{name} says segment {title!r} is in layer {layer} of {len(layers)}; save it again"
            raise BadLabel(msg)
        own = layers[layer] == value
        shared = int(np.count_nonzero(own & (merged > 0)))
        if shared:
            other = next(n for n, i in names.items() if i == int(merged[own & (merged > 0)][0]))
            msg = (
                f"{name}: segments {other!r} and {title!r} overlap in {shared} voxels; allow no overlap, save it again"
            )
            raise BadLabel(msg)
        names[title] = new_id if len(layers) > 1 else value
        merged[own] = names[title]
    unnamed = np.count_nonzero((layers > 0).any(axis=0) & (merged == 0))
    if unnamed:
        msg = f"{name} has {unnamed} voxels that belong to no segment of its header; save it again"
        raise BadLabel(msg)
    return merged, names


def _header_number(raw: itk_files.Raw, key: str, default: int, name: str) -> int:
    text = raw.header.get(key, str(default)).strip()
    if not text.lstrip("-").isdigit():
        msg = f"{name} has {key} = {text!r}; it must be a whole number"
        raise BadLabel(msg)
    return int(text)


def _segment_header(mask: np.ndarray, names: Names) -> dict[str, str]:
    """Slicer's keys for segments in a NRRD file (Slicer developer guide, "Segmentation file format")."""
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
    }
    extent = " ".join(f"0 {n - 1}" for n in mask.shape)
    for number, (title, value) in enumerate(sorted(names.items(), key=lambda item: item[1])):
        hue = (0.618 * value) % 1.0
        header |= {
            f"Segment{number}_ID": f"Segment_{value}",
            f"Segment{number}_Name": title,
            f"Segment{number}_LabelValue": str(value),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Extent": extent,
            f"Segment{number}_Color": f"{hue:.3f} {1 - hue:.3f} {(hue * 2) % 1:.3f}",
        }
    return header


def _one_line(error: BaseException, path: Path) -> str:
    # Where the server keeps its files is nobody's business.
    text = " ".join(str(error).replace(f"{path.parent}/", "").split())
    return text[:120] or type(error).__name__
