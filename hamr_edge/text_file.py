"""Text results: written whole or not at all, and fit to be written."""

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


def to_writable(text: str) -> str:
    r"""Text that UTF-8 can hold: bytes of a file's name that are not UTF-8 become escapes.

    >>> to_writable("caf\udce9.mp4")
    'caf\\udce9.mp4'
    """
    return text.encode("utf-8", "backslashreplace").decode()
