"""Sessions: images that a viewer uploads without putting them into the studies, checked before they are unpacked."""

from __future__ import annotations

import logging
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from monailabel.utils.sessions import SessionInfo, Sessions

from radloop.apps.guard_rules import MIB, SESSION, TooLarge
from radloop.recipes.errors import BadInput, NotFound
from radloop.studies.files import write_whole, writing
from radloop.studies.folder import IMAGE_ENDINGS, split_ending

logger = logging.getLogger(__name__)
MEMBERS = 20_000
UNPACKED_LIMIT = 8192 * MIB
UPLOAD_SECONDS = 600.0
asked_image: ContextVar[str] = ContextVar("asked_image", default="")
"""What the viewer calls the image of a session or an upload; MONAI Label puts the server's path in its place."""


class ShownSession(SessionInfo):  # type: ignore[misc]
    """A session that tells viewers nothing about the server's disk."""

    def to_json(self, indent: int | None = None) -> dict[str, Any]:
        """What viewers are told."""
        shown = {k: getattr(self, k) for k in ("name", "create_ts", "last_access_ts", "expiry")}
        return {**shown, "image": os.path.basename(self.image or "")}


class SafeSessions(Sessions):  # type: ignore[misc]
    """MONAI Label's sessions with random ids, checked names and archives that cannot leave their folder."""

    def require(self, session_id: str) -> SessionInfo:
        """The session.

        Raises:
            NotFound: there is none, or it has expired.
        """
        found = self.get_session(session_id)
        if found is None:
            msg = f"session {session_id!r} is not there or has expired; upload the image again"
            raise NotFound(msg)
        return found

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """The session, or None."""
        if not re.fullmatch(SESSION, session_id):
            return None
        try:
            found = super().get_session(session_id, update_ts, fetch_cache)
        except (ValueError, TypeError, AttributeError, OSError) as error:
            logger.warning("session %s cannot be read: %s", session_id, error)
            return None
        if found is None:
            return None
        shown = ShownSession()
        shown.__dict__.update(found.__dict__)
        return shown

    def remove_session(self, session_id: str) -> None:
        """Deletes the session and its image."""
        if re.fullmatch(SESSION, session_id):
            super().remove_session(session_id)

    def remove_expired(self) -> int:
        """Deletes sessions past their time, and old folders that are none; gives their number."""
        folders = [Path(e.path) for e in os.scandir(self.store_path) if e.is_dir()] if self._there() else []
        return sum(self._remove_if_over(folder) for folder in folders)

    def _there(self) -> bool:
        return os.path.isdir(self.store_path)

    def _remove_if_over(self, folder: Path) -> bool:
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            return False
        found = self.get_session(folder.name, update_ts=False, fetch_cache=False)
        if found is None and age > UPLOAD_SECONDS:
            logger.info("session folder %s is not a session; removed", folder.name)
        elif found is None or not 0 < found.expiry < time.time() - found.last_access_ts:
            return False
        self.pop(folder.name, None)
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def _write_meta_info(self, session_id: str, session_info: SessionInfo) -> None:
        file = Path(self.store_path, session_id, "meta.info")  # replaced as a whole: others read it at any time
        text = session_info.to_str()
        write_whole(file, lambda temporary: _write(temporary, text))

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Keeps an uploaded file, the files of a folder or the content of an archive.

        Raises:
            BadInput: an archive has members that are no images, links, or more than one image.
            TooLarge: an archive unpacks to too much.
        """
        source = Path(data_file)
        with writing("the session"), tempfile.TemporaryDirectory(prefix="radloop-") as scratch:
            if uncompress and source.is_file():
                source = unpack(source, Path(scratch))
            elif source.is_file() and not split_ending(source.name)[1]:
                folder = Path(scratch) / "dicom"  # one DICOM file is a series of one
                folder.mkdir()
                shutil.move(source, folder / source.name)
                source = folder
            name, info = super().add_session(str(source), expiry, False, str(uuid.uuid4()))
        shown = ShownSession()
        shown.__dict__.update(info.__dict__)
        self[name] = shown
        return name, shown


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def unpack(archive: Path, scratch: Path) -> Path:
    """Unpacks an archive of one image, or of the DICOM files of one series, into one flat folder.

    Returns:
        The image, or the folder of DICOM files.

    Raises:
        BadInput: not a ZIP or TAR, or a member is a link, leaves the folder or is no image.
        TooLarge: too many members or bytes.
    """
    folder = scratch / "unpacked"
    folder.mkdir()
    try:
        files = _unpack_files(archive, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError) as error:
        msg = f"{archive.name} is not a ZIP or TAR archive that can be read"
        raise BadInput(msg) from error
    images = [f for f in files if split_ending(f.name)[1]]
    if not files or len(images) > 1 or (images and len(files) > 1):
        msg = f"{archive.name} must hold one image or the DICOM files of one series; it has {len(files)} files"
        raise BadInput(msg)
    return images[0] if images else folder


def _unpack_files(archive: Path, folder: Path) -> list[Path]:
    """Unpacks an archive's files flat into a folder, each checked; see `unpack` for the errors."""
    total = 0
    files: list[Path] = []
    for number, (name, stream) in enumerate(_members(archive)):
        if number >= MEMBERS:
            msg = f"{archive.name} has more than {MEMBERS} members; send one series"
            raise TooLarge(msg)
        _check_member(archive.name, name)
        target = folder / f"{number:05d}-{re.split(r'[/]', name)[-1]}"
        with stream, target.open("wb") as out:
            while chunk := stream.read(MIB):
                total += len(chunk)
                if total > UNPACKED_LIMIT:
                    msg = f"{archive.name} unpacks to more than {UNPACKED_LIMIT // MIB} MiB; send one series"
                    raise TooLarge(msg)
                out.write(chunk)
        _check_content(archive.name, name, target)
        files.append(target)
    return files


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of an archive's files, one after another."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.flag_bits & 1 or (info.external_attr >> 16) & 0o170000 == 0o120000:
                    msg = f"{archive.name}: {info.filename[:80]!r} is encrypted or a link"
                    raise BadInput(msg)
                if not info.is_dir():
                    yield info.filename, opened.open(info)
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isfile():
                yield member.name, opened.extractfile(member)  # type: ignore[misc]
            elif not member.isdir():
                msg = f"{archive.name}: {member.name[:80]!r} is a link or a device"
                raise BadInput(msg)


def _check_member(archive: str, name: str) -> None:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        msg = f"{archive}: member {name[:80]!r} leaves the archive's folder"
        raise BadInput(msg)
    if len(parts[-1].encode()) > 200:
        msg = f"{archive}: member {name[:80]!r} has too long a name"
        raise BadInput(msg)


def _check_content(archive: str, name: str, file: Path) -> None:
    if split_ending(file.name, IMAGE_ENDINGS)[1]:
        return
    with file.open("rb") as handle:
        if handle.read(132)[128:] != b"DICM":
            msg = f"{archive}: member {name[:80]!r} is no image (DICOM, or one of {', '.join(IMAGE_ENDINGS)})"
            raise BadInput(msg)
