"""Files that are never half-written, and checks that come before the long work that fills them."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hamr_edge.errors import InputError

_log = logging.getLogger(__name__)
_TOKEN_BYTES = 8


def replace_file(path: Path, write: Callable[[Path], object], mode: int = 0o666) -> None:
    """Write a file under a temporary name beside it, then rename: readers see the old one or the new one, whole.

    Args:
        path: The file to make or replace; its folder must exist.
        write: Called with the temporary name, an empty file. If it raises, ``path`` stays as it was.
        mode: Permissions of the file, less those that the umask takes.
    """
    temporary = temporary_name(path)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path``, with its suffix, that nobody else uses.

    Drawn, not counted: two threads share a process number, and so do the first processes of two containers.
    """
    return path.with_name(f".{path.stem}.{secrets.token_hex(_TOKEN_BYTES)}{path.suffix}")


def find_leftovers(path: Path) -> list[Path]:
    """What lies beside ``path`` under a name of :func:`temporary_name`: of a process that writes it, or was killed."""
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}{re.escape(path.suffix)}")
    return sorted(found for found in path.parent.iterdir() if pattern.fullmatch(found.name))


def delete_leftovers(path: Path) -> None:
    """Delete what a killed process left of ``path``; for who alone writes it."""
    for found in find_leftovers(path):
        try:
            found.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s is what a killed process left of %s, and cannot be deleted: %s", found, path, error)


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk, where the system can: after a rename and a power cut the new file is there."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def make_folder(path: Path, name: str) -> None:
    """Make a folder and its parents, or find that it is there and can be written to.

    Args:
        path: The folder.
        name: What to call it in a message.

    Raises:
        InputError: It cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{name} {path} cannot be made: {error.strerror or error}; name another with -o") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{name} {path} cannot be written to; name another with -o")


def check_target(path: Path, name: str) -> None:
    """Find out before long work whether a file can be made.

    Args:
        path: The file to make or replace.
        name: What to call it in a message.

    Raises:
        InputError: The folder is missing or cannot be written to, or ``path`` is a folder.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"{name} {path} is a folder; name a file in it")
    if not folder.is_dir():
        raise InputError(f"{name} {path}: folder {folder} is not there; mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{name} {path}: folder {folder} cannot be written to")
