"""A gallery on disk: one ``.npz`` file of numpy's, without pickle, whose members carry checksums."""

from __future__ import annotations

import logging
import os
import stat
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.atomic import check_target, delete_leftovers, replace_file, sync_folder
from hamr_edge.errors import InputError
from hamr_edge.file_lock import lock_file
from hamr_edge.gallery_record import MEMBERS, GalleryRecord

_log = logging.getLogger(__name__)
SUFFIX = ".npz"
_PRIVATE = 0o600
Stamp = tuple[int, int, int]
"""Of a file: what changes when it is replaced."""


def check_gallery_path(path: str | Path) -> Path:
    """The path of a gallery that may be made or replaced; of the file itself where it is a link.

    Raises:
        InputError: Another suffix, or the folder is missing or cannot be written to.
    """
    real = real_path(path)
    if Path(path).suffix.lower() != SUFFIX:
        raise InputError(f"gallery {path} must end in {SUFFIX}")
    try:
        check_target(real, "gallery")
    except OSError as error:
        raise InputError(f"gallery {path} cannot be written: {error.strerror or error}; name another") from error
    return real


def real_path(path: str | Path) -> Path:
    """The path without links: a link that is replaced would leave the file as it was, with who was forgotten.

    Raises:
        InputError: It is no path, or a link that leads to itself.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"gallery {str(path)!r} is no path to a file: {error}; name another") from error


def file_stamp(path: str | Path) -> Stamp | None:
    """The stamp of a file; None without one."""
    try:
        return _stamp(Path(path).stat())
    except FileNotFoundError:
        return None


def _stamp(facts: os.stat_result) -> Stamp:
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def replace_gallery(path: Path, record: GalleryRecord, known: Stamp | None, overwrite: bool = False) -> Stamp | None:
    """Write a gallery: readers see the old file or the new one, whole, and of two writers the second is refused.

    A new file can be read and written by its owner alone; one that is there keeps its owner, group
    and permissions, or a warning says what it could not keep.

    Args:
        path: The file, not a link to it.
        record: What it shall hold.
        known: Stamp of the file whose content the record takes into account; None when there was none.
        overwrite: Replace another file too.

    Returns:
        The stamp of the new file.

    Raises:
        InputError: There is another file than the known one, or it cannot be written.
    """
    members = record.to_members()
    try:
        GalleryRecord.from_members(members)  # nothing is published that could not be read again
    except Exception as error:
        raise InputError(f"gallery {path} is not written, as it could not be read again: {error}") from error
    try:
        with lock_file(path) as is_alone:
            found = file_stamp(path)
            if found != known and not overwrite:
                raise InputError(_who_was_faster(path, found))
            if is_alone:
                delete_leftovers(path)
            replace_file(path, lambda part: _write(part, path, members), _PRIVATE)
            sync_folder(path.parent)
            return file_stamp(path)
    except OSError as error:
        raise InputError(
            f"gallery {path} cannot be written: {error.strerror or error}; the file is as it was"
        ) from error


def _who_was_faster(path: Path, found: Stamp | None) -> str:
    if found is None:
        return f"gallery {path} was deleted by another since; overwrite it to make it again, with all its people"
    return f"gallery {path} was made or changed by another since; load it and enrol or forget there, or overwrite it"


def _write(part: Path, path: Path, members: dict[str, NDArray[Any]]) -> None:
    with part.open("wb") as file:
        np.savez(file, **members)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        _give(part, path)


def _give(part: Path, path: Path) -> None:
    """Owner, group and permissions of the file that is replaced, as far as they may be given."""
    old, new = path.stat(), part.stat()
    mode = old.st_mode & 0o777
    if os.name == "posix" and old.st_gid != new.st_gid:
        try:
            os.chown(part, -1, old.st_gid)
        except OSError as error:
            mode &= ~0o070  # another group than before shall not read it
            _log.warning(
                "gallery %s keeps neither its group %d nor what that may do: %s", path, old.st_gid, error.strerror
            )
    part.chmod(mode)  # before the owner is another, who alone may do that
    if os.name == "posix" and old.st_uid != new.st_uid:
        try:
            os.chown(part, old.st_uid, -1)
        except OSError as error:
            _log.warning("gallery %s is user %d's now, not user %d's: %s", path, new.st_uid, old.st_uid, error.strerror)


def read_gallery(path: str | Path) -> tuple[GalleryRecord, Stamp]:
    """Read a gallery and check all of it; and the stamp of the file that was read.

    Raises:
        InputError: The file is missing, cut short, changed, of another kind or of a later version.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            return GalleryRecord.from_members(_read_members(file)), _stamp(os.fstat(file.fileno()))
    except FileNotFoundError:
        raise InputError(
            f"gallery {path} is not there; 'hamr-edge gallery enrol' makes one, or Gallery(...).save(...)"
        ) from None
    except OSError as error:
        raise InputError(
            f"gallery {path} cannot be read: {error.strerror or error}; see that it is a file and that this user may "
            "read it"
        ) from error
    except Exception as error:  # a damaged file leads zipfile, numpy and json to raise almost anything
        is_told = isinstance(error, ValueError | zipfile.BadZipFile) and str(error)
        raise InputError(
            f"gallery {path} cannot be read: {error if is_told else repr(error)}; put a copy in its place, or enrol "
            "again into a new file"
        ) from error


def _open_at_once(name: str, flags: int) -> int:
    """Open without waiting for who writes to a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _read_members(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ValueError("it is no regular file")
    if file.read(2) != b"PK":  # numpy takes other files for arrays or pickles
        raise ValueError(f"it is no {SUFFIX} file")
    file.seek(0)
    with np.load(file, allow_pickle=False) as members:
        missing = sorted(set(MEMBERS) - set(members.files))
        if missing:
            raise ValueError(f"it holds no {missing[0]}")
        for member in members.zip.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # a few bytes of it may fill all memory
                raise ValueError(f"its member {member.filename!r} is compressed")
        return {name: members[name] for name in MEMBERS}
