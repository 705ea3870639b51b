"""Files of a study, by their names: images, masks and proposals, what is known of it, sessions that hold it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from radloop.studies.answers import ENDING
from radloop.studies.folder import IMAGE_ENDINGS, StudiesFolder, split_ending
from radloop.studies.home import Home
from radloop.studies.view import VIEW_ENDINGS

_REMOVED = re.compile(r"^\d{8}T\d{6}-[0-9a-f]{8}-")
#: What a file of an unpacked archive is called, before its own name.
_UNPACKED = re.compile(r"^\d{5}-")


def file_ids(folder: StudiesFolder, studies: Collection[str]) -> set[str]:
    """The ids that files of these studies have: the studies' own, and those of their channels."""
    here = folder.studies()
    channels = [path for study in studies if study in here for path in here[study].channels]
    return {*studies, *(path.name if path.is_dir() else split_ending(path.name)[0] for path in channels)}


def images(folder: StudiesFolder, ids: Collection[str]) -> list[Path]:
    """Every file or folder beside the studies that has one of the ids, also one that another stands in front of."""
    found = [path for path in folder.path.iterdir() if path.name != "labels" and is_of(path, ids)]
    # The channel _0000 goes last: without it, the others would be taken for studies of their own.
    return sorted(found, key=lambda path: path.name, reverse=True)


def others(folder: StudiesFolder, home: Home, studies: Collection[str], ids: Collection[str]) -> Iterator[Path]:
    """Masks and proposals of studies, what is known of their images, and sessions with a file of one of the ids."""
    # A folder that is a link is not looked into on the way, so those that may be one are named.
    places = [folder.path / "labels", folder.final_dir, folder.proposal_dir, home.path / "removed"]
    places += [home.path / "view", home.path / "view" / "final", home.path / "view" / "original"]
    inside = (path for place in places if place.is_dir() for path in sorted(place.rglob("*")))
    yield from dict.fromkeys(p for p in inside if (p.is_file() or p.is_symlink()) and is_of(p, studies, _REMOVED))
    facts = {f"{hashlib.sha256(study.encode()).hexdigest()[:32]}.json" for study in studies}
    yield from (path for path in sorted((home.path / "info").glob("*/*.json")) if path.name in facts)
    passing = [*sorted((home.path / "sessions").glob("*")), *sorted((home.path / "tmp").glob("*"))]
    yield from (path for path in passing if holds(path, ids))


def holds(path: Path, ids: Collection[str]) -> bool:
    """Whether a file, or one inside of a folder, has one of the ids, also after the number of an unpacked one."""
    return any(is_of(one, ids, _UNPACKED) for one in (path, *path.rglob("*")))


def is_of(path: Path, ids: Collection[str], before: re.Pattern[str] | None = None) -> bool:
    """Whether a file has one of the ids, maybe after a beginning that is not part of it."""
    names = {path.name, before.sub("", path.name)} if before else {path.name}
    endings = (IMAGE_ENDINGS, VIEW_ENDINGS, *(((ENDING,),) if path.parent.name == "final" else ()))  # boxes
    return any(_id(name, some) in ids for name in names for some in endings)


def elsewhere(paths: Iterable[Path]) -> list[Path]:
    """What links among these files, or in these folders, lead to outside of them."""
    paths = list(paths)
    every = [one for path in paths for one in (path, *(() if path.is_symlink() else path.rglob("*")))]
    targets = {path.resolve() for path in every if path.is_symlink()}
    return sorted(path for path in targets - {path.parent.resolve() / path.name for path in every} if path.exists())


def _id(name: str, endings: tuple[str, ...]) -> str:
    study_id, ending = split_ending(name, endings)
    return study_id if ending else name
