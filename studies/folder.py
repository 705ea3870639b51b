"""A flat folder of studies, listed by file names alone."""

from __future__ import annotations

import csv
import logging
import os
import re
import threading
import time
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from radloop.recipes.errors import BadInput, NotFound, closest

log = logging.getLogger(__name__)

# The order decides which file is the study where two have one id.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".jpeg")
MASK_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".png")
_CHANNEL = re.compile(r"^(?P<id>.+)_(?P<channel>\d{4})$")
_SIGNS = frozenset("._- ()+=@,")
# File systems keep modification times no finer than this; a younger listing may miss a file of the same tick.
_TICK_SECONDS = 3.0


@dataclass(frozen=True)
class Study:
    """An image, or co-registered channels, of a patient at a time.

    Attributes:
        id: the file name without its ending (and without the channel's `_0000`).
        patient: from `answers.csv`, else the id.
        channels: one path each, in order; a channel that is not there has the path where it should be.
        date: from `answers.csv`, else empty.
        answers: the study's further columns of `answers.csv`.
    """

    id: str
    patient: str
    channels: tuple[Path, ...]
    date: str = ""
    answers: dict[str, str] = field(default_factory=dict)

    def first_channels(self, count: int) -> tuple[Path, ...]:
        """Exactly `count` channels; one that is not there has the path where it should be."""
        missing = range(len(self.channels), count)
        return (self.channels + tuple(_channel_path(self.channels[0], self.id, i) for i in missing))[:count]


def valid_id(study_id: str) -> bool:
    """Whether an id may name a study: letters of any script, digits, `._- ()+=@,`, at most 200 characters."""
    if not 0 < len(study_id) <= 200 or study_id.startswith(".") or ".." in study_id or study_id != study_id.strip():
        return False
    return all(c in _SIGNS or unicodedata.category(c)[0] in "LMN" for c in study_id)


def split_ending(name: str, endings: tuple[str, ...] = IMAGE_ENDINGS) -> tuple[str, str]:
    """A file name's id and ending, `.nii.gz` as a unit; the ending is empty where it is none of `endings`."""
    lower = name.lower()
    for ending in endings:
        if lower.endswith(ending):
            return name[: -len(ending)], name[-len(ending) :]
    return name, ""


def _channel_path(sibling: Path, study_id: str, channel: int) -> Path:
    ending = split_ending(sibling.name)[1]
    return sibling.with_name(f"{study_id}_{channel:04d}{ending}")


class StudiesFolder:
    """The studies of one folder; a new file is seen at the next question.

    Args:
        path: the folder.
        channels: images that every study should have; a study with fewer names the missing paths.

    Raises:
        NotFound: the folder does not exist.
    """

    def __init__(self, path: Path | str, channels: int = 1) -> None:
        self.path = Path(path).expanduser().absolute()
        self.channels = channels
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] | None = None
        self._studies: dict[str, Study] = {}
        if not self.path.is_dir():
            msg = f"studies folder {self.path} does not exist; give a folder with --studies DIR"
            raise NotFound(msg)

    @property
    def final_dir(self) -> Path:
        """Where MONAI Label's users look for labels; a view of the ledger."""
        return self.path / "labels" / "final"

    @property
    def proposal_dir(self) -> Path:
        """Answers that nobody accepted yet."""
        return self.path / "labels" / "original"

    def studies(self) -> dict[str, Study]:
        """Every study by its id, sorted; the caller may change the dict."""
        with self._lock:
            seen = self._signature()
            if seen is None or seen != self._seen:
                self._studies = self._scan()
                self._seen = seen
            return dict(self._studies)

    def study(self, study_id: str) -> Study:
        """One study.

        Raises:
            NotFound: there is none of this id; the message has the closest one.
        """
        found = self.studies()
        if study_id not in found:
            msg = f"study {study_id!r} is not in {self.path.name}{closest(study_id, found)}"
            raise NotFound(msg)
        return found[study_id]

    def proposal(self, study_id: str) -> Path | None:
        """The file of a study's proposal, or None."""
        return find_mask(self.proposal_dir, study_id)

    def _signature(self) -> tuple[object, ...] | None:
        """Changes with the folder; None while it may change without showing."""
        folder = self.path.stat()
        if time.time() - folder.st_mtime < _TICK_SECONDS:
            return None
        table = self.path / "answers.csv"
        answers = (table.stat().st_mtime_ns, table.stat().st_size) if table.is_file() else None
        return folder.st_mtime_ns, len(os.listdir(self.path)), answers

    def _scan(self) -> dict[str, Study]:
        files: dict[str, Path] = {}
        with os.scandir(self.path) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                study_id = _id_of(entry)
                if study_id is None:
                    continue
                path = Path(entry.path)
                other = files.get(study_id)
                if other is not None:
                    path, dropped = sorted((path, other), key=_preference)
                    log.warning("%s and %s have one id; %s is not used", path.name, dropped.name, dropped.name)
                files[study_id] = path
        channels = _group_channels(files)
        answers = read_answers(self.path / "answers.csv", channels)
        return {i: self._study(i, channels[i], answers.get(i, {})) for i in sorted(channels)}

    def _study(self, study_id: str, channels: tuple[Path, ...], answers: dict[str, str]) -> Study:
        rest = dict(answers)
        patient = rest.pop("patient", "") or study_id
        study = Study(study_id, patient, channels, rest.pop("date", ""), rest)
        if len(channels) < self.channels:
            study = Study(study_id, patient, study.first_channels(self.channels), study.date, rest)
        return study


def find_mask(folder: Path, study_id: str) -> Path | None:
    """The mask file of a study in a folder of masks, or None."""
    for ending in MASK_ENDINGS:
        path = folder / f"{study_id}{ending}"
        if path.is_file():
            return path
    return None


def read_answers(path: Path, known: Collection[str] | None = None) -> dict[str, dict[str, str]]:
    """The rows of an `answers.csv` by image id; rows of unknown images are left out with a warning.

    Raises:
        BadInput: the table has no column `image`, or is not UTF-8 text.
    """
    rows: dict[str, dict[str, str]] = {}
    unknown = []
    for _, image, cells in answer_lines(path):
        study = table_id(image, known)
        if study is None:
            unknown.append(image)
        else:
            rows[study] = cells
    if unknown:
        log.warning("%s: %d rows are of no study here, the first %r", path.name, len(unknown), unknown[0])
    return rows


def answer_lines(path: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Every row of an `answers.csv`: its line, what its column `image` says, and the other cells.

    Raises:
        BadInput: the table has no column `image`, or is not UTF-8 text.
    """
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            if "image" not in [(name or "").strip() for name in reader.fieldnames or []]:
                msg = f"{path.name} has columns {reader.fieldnames}; one must be 'image', the study's id"
                raise BadInput(msg)
            for raw in reader:
                row = {k.strip(): (v or "").strip() for k, v in raw.items() if k and not isinstance(v, list)}
                yield reader.line_num, row.pop("image"), row
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path.name} cannot be read as UTF-8 comma-separated text ({error}); save it as 'CSV UTF-8'"
        raise BadInput(msg) from error


def table_id(image: str, known: Collection[str] | None) -> str | None:
    """The study that a cell of the column `image` names, also by its file; None where there is none."""
    if known is None or image in known:
        return image
    bare = split_ending(image)[0]
    return bare if bare in known else None


def _id_of(entry: os.DirEntry[str]) -> str | None:
    """The id that an entry of the folder stands for, or None where it is no study."""
    name = entry.name
    if name.startswith(".") or name.lower().endswith(".seg.nrrd"):
        return None
    if entry.is_dir():
        study_id = name if name != "labels" and _looks_dicom(entry.path) else ""
    else:
        study_id, ending = split_ending(name)
        study_id = study_id if ending else ""
    if not study_id:
        return None
    if not valid_id(study_id):
        log.warning("%r is not used: an id has letters, digits and ._- ()+=@, only; rename it", name)
        return None
    return study_id


def _looks_dicom(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return any(looks_dicom_name(e.name) and e.is_file() for e in entries)


def looks_dicom_name(name: str) -> bool:
    """Whether a file may be DICOM by its name: `.dcm`, `.ima`, no ending, or a number or UID for one."""
    ending = os.path.splitext(name)[1].lower()
    return (
        not name.startswith(".")
        and name != "DICOMDIR"
        and (ending in ("", ".dcm", ".ima", ".dicom") or ending[1:].isdigit())
    )


def _preference(path: Path) -> int:
    ending = split_ending(path.name)[1].lower()
    return IMAGE_ENDINGS.index(ending) if ending in IMAGE_ENDINGS else len(IMAGE_ENDINGS)


def _group_channels(files: dict[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Channels by study; `_0000` anywhere in the folder makes `_NNNN` the channel's number (nnU-Net)."""
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    plain: dict[str, tuple[Path, ...]] = {}
    convention = any(name.endswith("_0000") for name in files)
    for name, path in files.items():
        match = _CHANNEL.match(name) if convention and not path.is_dir() else None
        if match is None:
            plain[name] = (path,)
        else:
            numbered[match["id"]][int(match["channel"])] = path
    for study_id, channels in numbered.items():
        if study_id in plain:
            log.warning("%s is not used: channels %s_NNNN are there too", plain[study_id][0].name, study_id)
        some = next(iter(channels.values()))
        plain[study_id] = tuple(channels.get(i) or _channel_path(some, study_id, i) for i in range(max(channels) + 1))
    return plain
