"""One file that holds many, with their checksums: written whole and read back, unpacked whole or not at all.

A tar archive (PAX, not compressed). Its last member, `backup.json`, names the format, the time and the SHA-256 of every
other one, so a cut archive is known by its absence.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from radloop.recipes.errors import BadInput, Conflict
from radloop.studies.files import sync, write_whole, writing
from radloop.studies.rows import now

FORMAT = 1
"""Grows when an older radloop could not read the archive any more."""
CONTENTS = "backup.json"
_LARGEST = 64 << 20  # bytes of a `backup.json`
_BLOCK = 1 << 20


def pack(files: Mapping[str, Path], out: Path, step: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Write files into an archive and read it back; gives what its `backup.json` says.

    Args:
        files: name in the archive -> file.
        out: the archive; its folder exists.
        step: called with the number of bytes after each file that was written, and again after each read back.

    Raises:
        NoSpace: the disk is full or read-only; nothing is left behind.
        Conflict: what was written does not read back.
    """
    said: dict[str, Any] = {"format": FORMAT, "created": now(), "files": {}}

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, file in sorted(files.items()):
                said["files"][name] = _add(archive, name, file)
                step(file.stat().st_size)
            text = json.dumps(said, ensure_ascii=False, indent=1).encode()
            member = tarfile.TarInfo(CONTENTS)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        sync(temporary)
        read(temporary, None, step)

    write_whole(out, write)
    return said


def read(archive: Path, into: Path | None, step: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Check every file of an archive against its checksum; gives what its `backup.json` says.

    Args:
        archive: as `pack` wrote it.
        into: an empty folder for the files, or None to check alone; what lies there after an error is of no use.
        step: called with the number of bytes after each file.

    Raises:
        BadInput: it is damaged, cut, or no backup.
        Conflict: it is of a newer radloop.
        NoSpace: the disk is full or read-only.
    """
    found: dict[str, str] = {}
    said = None
    try:
        with tarfile.open(archive, "r:") as opened:
            for member in opened:
                content = opened.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None or member.name in found or said is not None or not plain(member.name):
                    _refuse(archive, f"it has {member.name!r}, which no backup has")
                if member.name == CONTENTS:
                    said = _said(archive, content.read(_LARGEST))
                    continue
                found[member.name] = _take(content, into / member.name if into else None)
                step(member.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        _refuse(archive, f"it is damaged or cut: {error}", error)
    if said is None:
        _refuse(archive, "its end is missing, or it is no backup of radloop")
    wrong = sorted(name for name, digest in found.items() if said["files"].get(name) != digest)
    lost = sorted(said["files"].keys() - found.keys())
    if wrong or lost:
        _refuse(archive, f"{wrong[0]} is not what was written" if wrong else f"{lost[0]} is missing")
    return said


def _add(archive: tarfile.TarFile, name: str, file: Path) -> str:
    with file.open("rb") as handle:
        member = archive.gettarinfo(arcname=name, fileobj=handle)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.type, member.linkname, member.mode = tarfile.REGTYPE, "", 0o644
        hashed = _Hashed(handle)
        archive.addfile(member, hashed)  # type: ignore[arg-type]
    return hashed.digest.hexdigest()


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        block = self._handle.read(size)
        self.digest.update(block)
        return block


def _take(content: IO[bytes], target: Path | None) -> str:
    """Read a member through, into a file where one is given; its checksum."""
    digest = hashlib.sha256()
    if target is None:
        while block := content.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()
    with writing(target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as handle:
            while block := content.read(_BLOCK):
                digest.update(block)
                handle.write(block)
    return digest.hexdigest()


def plain(name: str) -> bool:
    """Whether a name stays inside the folder that it is unpacked into."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0"}


def _said(archive: Path, text: bytes) -> dict[str, Any]:
    said = json.loads(text)
    if not isinstance(said, dict) or not isinstance(said.get("format"), int) or not isinstance(said.get("files"), dict):
        _refuse(archive, f"its {CONTENTS} is none of radloop's")
    if said["format"] > FORMAT:
        msg = f"{archive} is a backup of format {said['format']}, this radloop knows {FORMAT}; update radloop"
        raise Conflict(msg)
    return said


def _refuse(archive: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    msg = f"{archive} cannot be restored: {why}; nothing was changed, take another backup"
    raise BadInput(msg) from cause
