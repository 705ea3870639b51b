"""What an import reads: studies as a source tells them, before they are checked and put into a studies folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import nibabel as nib
import numpy as np

from radloop.recipes.boxes import Box
from radloop.recipes.errors import BadImage
from radloop.studies.folder import split_ending
from radloop.studies.nifti import save_nifti

_BLOCK = 1 << 22

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what)."""


class Picture(Protocol):
    """One channel's image on its way in."""

    @property
    def ending(self) -> str:
        """The ending of the file that `write` makes, such as `.nii.gz`."""

    def write(self, path: Path) -> None:
        """Writes the image; the same source always gives the same bytes."""


@dataclass(frozen=True)
class CopiedFile:
    """An image that is taken as it is."""

    path: Path

    @property
    def ending(self) -> str:
        """The file's own ending, in lower case."""
        return split_ending(self.path.name)[1].lower()

    def write(self, path: Path) -> None:
        """Copies the bytes."""
        if not self.path.is_file():
            msg = f"{self.path.name} is listed but not there; put it back or take it off the list"
            raise BadImage(msg)
        with ExitStack() as opened:
            with _reading(self.path):
                source = opened.enter_context(self.path.open("rb"))
            target = opened.enter_context(path.open("wb"))
            while block := self._next(source):
                target.write(block)

    def _next(self, source: BinaryIO) -> bytes:
        with _reading(self.path):
            return source.read(_BLOCK)


@dataclass(frozen=True)
class ChannelOf4D:
    """One channel of a 4D NIfTI file, as the Medical Segmentation Decathlon keeps several sequences."""

    path: Path
    channel: int
    ending: str = ".nii.gz"

    def write(self, path: Path) -> None:
        """Cuts the channel out; scaled voxels become float32, 64-bit ones a type that every tool reads."""
        try:
            whole = cast("nib.Nifti1Image", nib.load(self.path))
            voxels = np.asarray(whole.dataobj[..., self.channel])
        except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
            msg = f"{self.path.name} cannot be read as a 4D NIfTI file ({error}); it may be cut short, copy it again"
            raise BadImage(msg) from error
        save_nifti(path, voxels, np.asarray(whole.affine, float))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A block that reads a source: what fails there is the file's fault, never the disk's that is written to."""
    try:
        yield
    except OSError as error:
        msg = f"{path.name} cannot be read: {error.strerror or error}; allow reading it or copy it again"
        raise BadImage(msg) from error


@dataclass(frozen=True)
class Incoming:
    """A study as its source tells it.

    Attributes:
        id: the study's id here.
        source: what the user knows it by, for the list of exclusions.
        channels: one image a channel, in order.
        mask: file of the label, or None.
        names: name -> voxel value in `mask`; None where the source does not say.
        answers: columns for `answers.csv`.
        other_id: the id that it has where an earlier import gave it that one, or where `id` is taken; or empty.
        boxes: makes the label's boxes from the affine of the study's file; None where it has none.
    """

    id: str
    source: str
    channels: tuple[Picture, ...]
    mask: Path | None = None
    names: dict[str, int] | None = None
    answers: dict[str, str] = field(default_factory=dict)
    other_id: str = ""
    boxes: Callable[[np.ndarray], Sequence[Box]] | None = None


@dataclass(frozen=True)
class Source:
    """All that was found.

    Attributes:
        studies: in the order in which they come in.
        excluded: (file or series, reason) of what is left out.
        channel_names: where they are told.
        accounted: files that the studies or exclusions stand for without naming each.
    """

    studies: Sequence[Incoming]
    excluded: Sequence[tuple[str, str]] = ()
    channel_names: tuple[str, ...] = ()
    accounted: Collection[Path] = ()


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        imported: ids now in the studies folder (also those that an earlier import had put there).
        excluded: (file or series, reason), one for everything that was left out.
        labels: ids whose mask is in `labels/final`.
        names: label name -> id, as in `labels/names.json`.
        channel_names: what the source calls its channels, if it does.
    """

    imported: list[str]
    excluded: list[tuple[str, str]]
    labels: list[str]
    names: dict[str, int]
    channel_names: tuple[str, ...] = ()

    def write_csv(self, path: Path) -> None:
        """Writes one line a study or exclusion: `what`, `outcome` and `reason`."""
        labelled = set(self.labels)
        rows: Iterable[tuple[str, str, str]] = [
            *((i, "imported with mask" if i in labelled else "imported", "") for i in self.imported),
            *((what, "left out", reason) for what, reason in self.excluded),
        ]
        with Path(path).open("w", encoding="utf-8", newline="") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(("what", "outcome", "reason"))
            table.writerows(rows)
