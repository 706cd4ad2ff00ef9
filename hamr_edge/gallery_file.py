"""A gallery on disk: one ``.npz`` file of numpy's, without pickle, whose members carry checksums."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.atomic import check_target, delete_leftovers, replace_file, sync_folder
from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.file_lock import lock_file

SCHEMA = 1
SUFFIX = ".npz"
_PRIVATE = 0o600
_HEADER = "header"


@dataclass(frozen=True, slots=True)
class GalleryRecord:
    """All that a gallery file holds. The arrays have one row an embedding."""

    spaces: tuple[EmbeddingSpace, ...]
    """What made the embeddings; the first is the one that the gallery was started with."""
    names: tuple[str, ...]
    """Of the people."""
    cameras: tuple[str, ...]
    next_id: int
    """Number of the next embedding; numbers are never given twice."""
    retention_s: float | None
    embeddings: NDArray[np.float32]
    """(N, D) float32, rows of unit norm."""
    ids: NDArray[np.int64]
    people: NDArray[np.int32]
    """(N,) places in ``names``."""
    camera_places: NDArray[np.int32]
    """(N,) places in ``cameras``."""
    times_s: NDArray[np.float64]
    """(N,) Unix time."""


def check_gallery_path(path: str | Path) -> Path:
    """The path of a gallery that may be made or replaced.

    Raises:
        InputError: Another suffix, or the folder is missing or cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"gallery {path} must end in {SUFFIX}")
    check_target(path, "gallery")
    return path


def file_stamp(path: str | Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None without one."""
    try:
        facts = Path(path).stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def replace_gallery(
    path: Path, record: GalleryRecord, known: tuple[int, ...] | None, overwrite: bool = False
) -> tuple[int, ...] | None:
    """Write a gallery: readers see the old file or the new one, whole, and of two writers the second is refused.

    A new file can be read and written by its owner alone; one that is there keeps its permissions.

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
    try:
        with lock_file(path) as is_alone:
            found = file_stamp(path)
            if found != known and not overwrite:
                raise InputError(_who_was_faster(path, found))
            if is_alone:
                delete_leftovers(path)
            replace_file(path, lambda part: _write(part, path, record), _PRIVATE)
            sync_folder(path.parent)
            return file_stamp(path)
    except OSError as error:
        raise InputError(
            f"gallery {path} cannot be written: {error.strerror or error}; the file is as it was"
        ) from error


def _who_was_faster(path: Path, found: tuple[int, ...] | None) -> str:
    if found is None:
        return f"gallery {path} was deleted by another since; overwrite it to make it again, with all its people"
    return f"gallery {path} was made or changed by another since; load it and enrol or forget there, or overwrite it"


def _write(part: Path, path: Path, record: GalleryRecord) -> None:
    header = {
        "schema": SCHEMA,
        "spaces": [space.to_json() for space in record.spaces],
        "names": record.names,
        "cameras": record.cameras,
        "next_id": record.next_id,
        "retention_s": record.retention_s,
    }
    members: dict[str, Any] = {
        _HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8),
        "embeddings": record.embeddings,
        "ids": record.ids,
        "people": record.people,
        "cameras": record.camera_places,
        "times_s": record.times_s,
    }
    mode = path.stat().st_mode & 0o777 if path.exists() else _PRIVATE
    with part.open("wb") as file:
        np.savez(file, **members)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(mode)


def read_gallery(path: str | Path) -> GalleryRecord:
    """Read a gallery and check all of it.

    Raises:
        InputError: The file is missing, cut short, changed, of another kind or of a later version.
    """
    try:
        with Path(path).open("rb") as file:
            return _record(_read_members(file))
    except FileNotFoundError:
        raise InputError(
            f"gallery {path} is not there; 'hamr-edge gallery enrol' makes one, or Gallery(...).save(...)"
        ) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, TypeError, KeyError, EOFError, MemoryError, OSError) as error:
        raise InputError(
            f"gallery {path} cannot be read: {error}; put a copy in its place, or enrol again into a new file"
        ) from error


def _read_members(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    if file.read(2) != b"PK":  # numpy takes other files for arrays or pickles
        raise ValueError(f"it is no {SUFFIX} file")
    file.seek(0)
    with np.load(file, allow_pickle=False) as members:
        return {name: members[name] for name in members.files}


def _record(members: dict[str, NDArray[Any]]) -> GalleryRecord:
    header = json.loads(members[_HEADER].tobytes().decode())
    if header["schema"] != SCHEMA:
        raise ValueError(f"schema {header['schema']!r}, this version reads {SCHEMA}")
    spaces = tuple(EmbeddingSpace.from_json(space) for space in header["spaces"])
    names, cameras = tuple(header["names"]), tuple(header["cameras"])
    if not spaces or not all(isinstance(text, str) for text in (*names, *cameras)):
        raise ValueError("its header says nothing of what made the embeddings, or has names that are no text")
    count = len(members["ids"])
    wanted = {
        "embeddings": ((count, spaces[0].embedding_dim), np.float32),
        "ids": ((count,), np.int64),
        "people": ((count,), np.int32),
        "cameras": ((count,), np.int32),
        "times_s": ((count,), np.float64),
    }
    for name, (shape, dtype) in wanted.items():
        if members[name].shape != shape or members[name].dtype != dtype:
            raise ValueError(
                f"{name} must be {np.dtype(dtype)} {shape}, got {members[name].dtype} {members[name].shape}"
            )
    for name, known in (("people", names), ("cameras", cameras)):
        if count and not (members[name].min() >= 0 and members[name].max() < len(known)):
            raise ValueError(f"{name} names places outside its list of {len(known)}")
    next_id, ids = int(header["next_id"]), members["ids"]
    if len(np.unique(ids)) != count or (count and int(ids.max()) >= next_id):
        raise ValueError("ids are given twice, or are to be given again")
    if not (np.isfinite(members["embeddings"]).all() and np.isfinite(members["times_s"]).all()):
        raise ValueError("it holds values that are not finite")
    retention = header["retention_s"]
    return GalleryRecord(
        spaces=spaces,
        names=names,
        cameras=cameras,
        next_id=next_id,
        retention_s=None if retention is None else float(retention),
        embeddings=members["embeddings"],
        ids=ids,
        people=members["people"],
        camera_places=members["cameras"],
        times_s=members["times_s"],
    )
