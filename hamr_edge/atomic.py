"""Files that are never half-written, and checks that come before the long work that fills them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hamr_edge.errors import InputError


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, then rename: readers see the old one or the new one, whole.

    Args:
        path: The file to make or replace; its folder must exist.
        write: Called with the temporary name. If it raises, ``path`` stays as it was.
    """
    temporary = temporary_name(path)
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path``, with its suffix, that no other process uses."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


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
