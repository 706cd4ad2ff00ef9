"""Words as OpenCV's fonts can draw them: they have ASCII only, and show two question marks for one ``ü``."""

from __future__ import annotations

import unicodedata


def to_ascii(text: str) -> str:
    """Text without its accents; ``?`` for what is no Latin letter.

    >>> to_ascii("büro, Zoë, кухня")
    'buro, Zoe, ?????'
    """
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()
