"""A drawn frame and boxes in it, for timing where no video may be had."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.preprocess import pixel_windows, resize_crop

_COARSEST = 8
"""Blobs of the coarsest layer from top to bottom; each layer has three times as many as the one before."""
_LAYERS = (70.0, 35.0, 18.0)
"""Standard deviation of each layer in grey levels, coarsest first: amplitude falls with size, as in photographs."""
_HEIGHTS = (1 / 9, 1 / 3)
"""Least and greatest height of a box as a share of the frame's."""
_ASPECT = 0.4


def draw_frame(size_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A smooth coloured pattern without pixel noise: (H, W, 3) uint8 BGR, as a compressed video would hold."""
    height, width = size_hw
    frame = np.full((height, width, 3), 127.5, np.float32)
    for layer, deviation in enumerate(_LAYERS):
        rows = _COARSEST * 3**layer
        blobs = rng.normal(0, deviation, (rows, max(1, round(rows * width / height)), 3)).astype(np.float32)
        frame += cv2.resize(blobs, (width, height), interpolation=cv2.INTER_LINEAR)
    return frame.clip(0, 255).astype(np.uint8)


def draw_boxes(count: int, size_hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Boxes as upright as people, at places that are not whole pixels, all inside the frame: (N, 4) float32 xyxy."""
    height, width = size_hw
    heights = rng.uniform(*_HEIGHTS, count) * height
    widths = np.minimum(_ASPECT * heights, width)
    left, top = rng.uniform(0, width - widths), rng.uniform(0, height - heights)
    return np.stack([left, top, left + widths, top + heights], axis=1).astype(np.float32)


def paste_crops(
    frame: NDArray[np.uint8], boxes: NDArray[np.float32], crops: Sequence[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Fill the boxes of a frame with crops, one each and later over earlier: a copy, (H, W, 3) uint8 BGR."""
    filled: NDArray[np.uint8] = frame.copy()
    windows = pixel_windows(boxes, (frame.shape[0], frame.shape[1])).tolist()
    for (x1, y1, x2, y2), crop in zip(windows, crops, strict=True):
        filled[y1:y2, x1:x2] = resize_crop(crop, (y2 - y1, x2 - x1))
    return filled
