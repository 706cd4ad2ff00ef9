"""Text results, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from hamr_edge.atomic import replace_file
from hamr_edge.errors import InputError


def write_text(text: str, target: str, option: str) -> None:
    """Write text to a file, in UTF-8.

    Raises:
        InputError: The file cannot be written; the message names the option that asked for it.
    """
    try:
        replace_file(Path(target), lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{option} {target} cannot be written: {error.strerror or error}") from error
