"""The one file a viewer downloads for a study: the image itself, or a NIfTI copy of a DICOM folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np

from radloop.studies.files import write_whole, writing
from radloop.studies.home import Home
from radloop.studies.images import read_volume


def display_file(channel: Path, home: Home) -> Path:
    """The channel's file; a DICOM folder is converted once and kept in the home's cache until it changes.

    Raises:
        BadImage: the folder cannot be read as one series.
        NoSpace: the copy cannot be kept.
    """
    if not channel.is_dir():
        return channel
    stamp = f"{channel}|{channel.stat().st_mtime_ns}"
    folder = home.cache / "display" / hashlib.sha256(stamp.encode()).hexdigest()[:16]
    copy = folder / f"{channel.name}.nii.gz"
    if not copy.is_file():
        volume = read_volume(channel)
        with writing(copy.name):
            folder.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(_plain(volume.array[0]), volume.affine)
        write_whole(copy, lambda path: nib.save(image, path), ".nii.gz")
    return copy


def _plain(array: np.ndarray) -> np.ndarray:
    """The array in a type that NIfTI and every viewer have."""
    return array.astype(np.float32) if array.dtype.itemsize > 4 or array.dtype.kind == "b" else array
