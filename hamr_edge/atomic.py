"""Files that are never half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, then rename: readers see the old one or the new one, whole.

    Args:
        path: The file to make or replace; its folder must exist.
        write: Called with the temporary name. If it raises, ``path`` stays as it was.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
