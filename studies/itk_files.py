"""NRRD, MetaImage, PNG and JPEG through ITK, with axes and frame as the rest of radloop has them.

ITK's arrays are (Z, Y, X) and its world is LPS; what leaves this module is (X, Y, Z) and RAS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radloop.recipes.errors import BadImage, NoSpace

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A picture has no place in the world; this is where Slicer puts one.
PICTURE_AFFINE = _LPS_TO_RAS
PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Raw:
    """An image as it is in the file.

    Attributes:
        array: (X, Y, Z) or, with several components a voxel, (components, X, Y, Z).
        affine: 4x4, voxel -> RAS mm.
        header: the file's own keys, text values only.
    """

    array: np.ndarray
    affine: np.ndarray
    header: dict[str, str]


def is_picture(path: Path) -> bool:
    """Whether a file is a 2D picture without a place in the world."""
    return path.name.lower().endswith(PICTURES)


def read_header(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (X, Y, Z) and affine of a file, without its voxels.

    Raises:
        BadImage: ITK cannot read it, or it has more than three dimensions.
    """
    io = _open(path)
    x, y, z = [io.GetDimensions(i) for i in range(io.GetNumberOfDimensions())] + [1] * (3 - io.GetNumberOfDimensions())
    return (x, y, z), _affine(path, io)


def read(path: Path) -> Raw:
    """The whole file.

    Raises:
        BadImage: ITK cannot read it, or it has more than three dimensions.
    """
    import itk

    io = _open(path)
    kind = _component(io)
    dimension = io.GetNumberOfDimensions()
    several = io.GetNumberOfComponents() > 1
    image_type = (itk.VectorImage if several else itk.Image)[kind, dimension]
    reader = itk.ImageFileReader[image_type].New(FileName=str(path))
    try:
        reader.Update()
    except RuntimeError as error:
        raise _refused(path, error) from error
    image = reader.GetOutput()
    array = itk.array_from_image(image)
    if several:
        array = np.moveaxis(array, -1, 0)
        array = array.transpose(0, *range(dimension, 0, -1))
    else:
        array = array.T
    if dimension == 2:
        array = array[..., np.newaxis]
    header = dict(image)
    return Raw(array, _affine(path, io), {k: v for k, v in header.items() if isinstance(v, str)})


def write(path: Path, array: np.ndarray, affine: np.ndarray, header: dict[str, str]) -> None:
    """Write (X, Y, Z) voxels, compressed; a picture takes the only slice.

    Raises:
        NoSpace: what is on the disk afterwards is not what was written (ITK is silent about a full disk).
    """
    import itk

    picture = is_picture(path)
    voxels = np.ascontiguousarray(array[:, :, 0].T if picture else array.T)
    image = itk.image_from_array(voxels)
    if not picture:
        lps = _LPS_TO_RAS @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing([float(s) for s in spacing])
        image.SetOrigin([float(o) for o in lps[:3, 3]])
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    for key, value in header.items():
        image[key] = value
    try:
        itk.imwrite(image, str(path), compression=True)
        whole = np.array_equal(read(path).array, array)
    except (RuntimeError, BadImage) as error:
        msg = f"cannot write {path.name}: {last_line(error)}; free some space or allow writing, then send it again"
        raise NoSpace(msg) from error
    if not whole:
        msg = f"cannot write {path.name}: the disk took only a part of it; free some space, then send it again"
        raise NoSpace(msg)


def component(path: Path) -> Any:
    """The ITK type that holds a file's voxels; what is wider than 32 bits becomes float32.

    Raises:
        BadImage: ITK cannot read it.
    """
    return _component(_open(path))


def grey(array: np.ndarray, name: str) -> np.ndarray:
    """One value a voxel, (X, Y, Z), of an image in colour, (2-4, X, Y, Z); others as they are.

    Colours become the luma of ITU-R BT.601; transparency is left out.

    Raises:
        BadImage: there are more values a voxel than a colour has.
    """
    if array.ndim == 3:
        return array
    if array.shape[0] > 4:
        msg = f"{name} has {array.shape[0]} values a voxel; give one (grey), or one file a channel"
        raise BadImage(msg)
    if array.shape[0] == 2 or (np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2])):
        return array[0]  # grey with transparency, or grey saved as colour
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), array[:3].astype(np.float64), axes=1)
    return np.rint(luma).astype(array.dtype) if array.dtype.kind in "iu" else luma.astype(array.dtype)


def _open(path: Path) -> Any:
    """ITK's reader of a file's header, header read."""
    import itk

    io = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if io is None:
        msg = f"{path.name} is not an image that can be read; give NIfTI, NRRD, PNG, JPEG or a folder of DICOM files"
        raise BadImage(msg)
    io.SetFileName(str(path))
    try:
        io.ReadImageInformation()
    except RuntimeError as error:
        raise _refused(path, error) from error
    sizes = [io.GetDimensions(i) for i in range(io.GetNumberOfDimensions())]
    if not 2 <= len(sizes) <= 3:
        msg = f"{path.name} has {len(sizes)} dimensions {tuple(sizes)}; give one 3D volume, or a picture, a file"
        raise BadImage(msg)
    return io


def _component(io: Any) -> Any:
    """The ITK type that holds a file's voxels; what is wider than 32 bits becomes float32."""
    import itk

    enums = itk.CommonEnums
    return {
        enums.IOComponent_UCHAR: itk.UC,
        enums.IOComponent_CHAR: itk.SS,
        enums.IOComponent_SHORT: itk.SS,
        enums.IOComponent_USHORT: itk.US,
        enums.IOComponent_INT: itk.SI,
        enums.IOComponent_UINT: itk.UI,
    }.get(io.GetComponentType(), itk.F)


def _affine(path: Path, io: Any) -> np.ndarray:
    if is_picture(path):
        return PICTURE_AFFINE.copy()
    lps = np.eye(4)
    for axis in range(io.GetNumberOfDimensions()):
        direction = io.GetDirection(axis)
        lps[: len(direction), axis] = np.array(direction) * io.GetSpacing(axis)
        lps[axis, 3] = io.GetOrigin(axis)
    return _LPS_TO_RAS @ lps


def _refused(path: Path, error: Exception) -> BadImage:
    # Where the server keeps its files is nobody's business.
    reason = last_line(error).replace(f"{path.parent}/", "")
    return BadImage(f"{path.name} cannot be read: {reason}; it may be cut short or no image, copy it again")


def last_line(error: Exception) -> str:
    """What an ITK error says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    texts = [line for line in lines if not line.startswith(("Filename", "File name"))]
    return (texts or ["unknown reason"])[-1].rstrip(".")
