"""Voxels as a NIfTI file can hold them and every reader can read them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

_WHOLE = (np.int16, np.uint16, np.int32)


def storable(voxels: np.ndarray) -> np.ndarray:
    """Voxels in a type that NIfTI-1 tools read: 64-bit whole numbers become the smallest that loses nothing.

    What no whole type of up to 32 bits holds, and floats of other sizes, become float32; others keep their type.
    """
    kind, size = voxels.dtype.kind, voxels.dtype.itemsize
    if kind == "b":
        return voxels.astype(np.uint8)
    if kind in "iu" and size > 4:
        low, high = (int(voxels.min()), int(voxels.max())) if voxels.size else (0, 0)
        fitting = (t for t in _WHOLE if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
        return voxels.astype(next(fitting, np.float32))
    if kind == "f" and size != 4:
        return voxels.astype(np.float32)
    return voxels


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Writes voxels (X, Y, Z) or (X, Y, Z, C) with their place in RAS mm in both of NIfTI's forms."""
    image = nib.Nifti1Image(storable(voxels), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
