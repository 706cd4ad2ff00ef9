"""Locks on files, among threads, processes and containers that share a folder; the system lifts them at a kill."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)


@contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Let one writer of a file in at a time: wait until nobody else is in here for ``path``.

    Yields whether the others are kept out.

    The lock is on a hidden, empty file beside ``path``, which stays: ``path`` itself is replaced, and a lock on it
    would go with the old one. It ends with the process that holds it. False where the system or the file system has no
    such locks.

    Raises:
        OSError: The lock's file can be neither made nor opened.
    """
    if sys.platform == "win32":
        yield False
        return
    lock = path.with_name(f".{path.name}.lock")
    number = _open(lock)
    try:
        yield _wait(number, lock)
    finally:
        os.close(number)


def lock_open_file(file: io.FileIO, path: Path, *, is_needed: bool) -> bool:
    """Lock a file that is being written until it is closed: the lock tells whether its process is still there.

    Args:
        file: Open.
        path: Where it lies.
        is_needed: What to answer where the system cannot say: True gives False.

    Returns:
        Whether it is nobody else's.
    """
    if sys.platform == "win32":
        return not is_needed
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return not is_needed
    try:  # whoever had the lock until now may have renamed or deleted the file
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _open(lock: Path) -> int:
    try:
        number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        try:
            return os.open(lock, os.O_RDWR)
        except PermissionError:  # another user made it; reading is enough for a lock, but not on NFS
            return os.open(lock, os.O_RDONLY)
    os.fchmod(number, 0o644)  # whatever the umask says, the folder's other writers must be able to open it
    return number


def _wait(number: int, lock: Path) -> bool:
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another that writes: it holds %s", lock)
            fcntl.flock(number, fcntl.LOCK_EX)
    except OSError as error:
        _log.warning("no lock on %s: %s; of two who write at once, one may lose its change", lock, error)
        return False
    return True
