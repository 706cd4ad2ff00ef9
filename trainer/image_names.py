"""Images by name, in messages and records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

_NAMED = 5


def short_names(paths: Sequence[Path]) -> list[str]:
    """Folder and file: in a set of one folder for each identity, file names alone may not tell images apart."""
    return [f"{path.parent.name}/{path.name}" for path in paths]


def list_names(names: Sequence[str]) -> str:
    """How many images they are, and the first few of them."""
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} image{'' if len(names) == 1 else 's'}" + (f" ({listed})" if names else "")


def fingerprint(paths: Sequence[Path]) -> str:
    """SHA-256 of the names in their order; where the folders lie does not matter."""
    return hashlib.sha256("\n".join(short_names(paths)).encode()).hexdigest()
