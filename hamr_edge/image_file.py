"""Reading one image file, with an error where a decoder would quietly give half a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""The files of a data set that are its images; others are left alone."""
_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_MENDING = "delete or replace it"


class CorruptImageError(InputError):
    """An image file is there but cannot be decoded, or not to its end."""


def read_crop(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 BGR.

    A JPEG that stops short is refused; OpenCV's own ``imread`` gives a picture that is grey from there on. Bytes that
    changed inside a file of full length are found only where the decoder finds them: a PNG's pixels carry checksums, a
    JPEG's do not.

    Raises:
        InputError: The file is missing or cannot be read.
        CorruptImageError: It is not an image that OpenCV can decode, or a JPEG cut short.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"image {path} is not there") from None
    except OSError as error:
        raise InputError(f"image {path} cannot be read: {error.strerror}") from error
    if not content:
        raise CorruptImageError(f"image {path} is an empty file; {_MENDING}")
    if content.startswith(_JPEG_START) and not _jpeg_ends(content):
        raise CorruptImageError(f"image {path} is cut short: a JPEG without its end marker; {_MENDING}")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # such as a header that claims an image beyond OpenCV's limit
        image = None
    if image is None:
        raise CorruptImageError(f"image {path} cannot be decoded; {_MENDING}")
    return np.asarray(image, dtype=np.uint8)


def _jpeg_ends(content: bytes) -> bool:
    """Whether an end marker follows the first scan; a thumbnail's own, in a segment before it, does not count."""
    place = len(_JPEG_START)
    while (place := content.find(b"\xff", place)) >= 0 and place + 1 < len(content):
        marker = content[place + 1]
        if marker == _JPEG_SCAN:
            return content.find(_JPEG_END, place) >= 0
        # 0xFF is a fill byte; every other marker before the scan gives its segment's length.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False
