"""Several cameras in one picture: equal cells, each frame whole in its cell, with a line of text."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.drawn_text import to_ascii

_GROUND, _INK, _DIM = (24, 24, 24), (235, 235, 235), (130, 130, 130)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPTION_HEIGHT = 22


def make_mosaic(
    pictures: Mapping[str, NDArray[np.uint8] | None], captions: Mapping[str, str], cell_wh: tuple[int, int] = (480, 270)
) -> NDArray[np.uint8]:
    """Put cameras side by side, as square as they go.

    Args:
        pictures: (H, W, 3) uint8 BGR by camera; None for one that has given none yet.
        captions: A line a camera, under its picture.
        cell_wh: Width and height of one picture's place, in pixels.

    Returns:
        (rows * (height + 22), columns * width, 3) uint8 BGR.
    """
    count = max(1, len(pictures))
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    width, height = cell_wh
    whole = np.full((rows * (height + _CAPTION_HEIGHT), columns * width, 3), _GROUND, np.uint8)
    for place, (name, picture) in enumerate(pictures.items()):
        top, left = place // columns * (height + _CAPTION_HEIGHT), place % columns * width
        if picture is not None:
            fitted = fit_inside(picture, cell_wh)
            y, x = top + (height - fitted.shape[0]) // 2, left + (width - fitted.shape[1]) // 2
            whole[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
        ink = _DIM if picture is None else _INK
        text = to_ascii(captions.get(name, name))
        cv2.putText(whole, text, (left + 6, top + height + 16), _FONT, 0.45, ink, 1, cv2.LINE_AA)
    return whole


def fit_inside(picture: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a (H, W, 3) picture to the largest size that fits, its aspect ratio kept."""
    factor = min(size_wh[0] / picture.shape[1], size_wh[1] / picture.shape[0])
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=how), dtype=np.uint8)
