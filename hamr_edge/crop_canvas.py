"""Ready crops as one frame and its boxes: how an artifact in the frame form takes what was cropped already."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SMALLEST_FRAME_HW = (480, 640)
LARGEST_FRAME_HW = (2160, 3840)
"""Frame sizes that every artifact in the frame form takes, in pixels; engines are built for them."""


def canvas_capacity(size_hw: tuple[int, int]) -> int:
    """How many crops of a size go into the largest frame, at least one."""
    height, width = size_hw
    return max(1, LARGEST_FRAME_HW[0] // height) * max(1, LARGEST_FRAME_HW[1] // width)


def lay_out_crops(batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Put crops side by side and below each other, about as wide as high.

    A window of the network's input size is not resized: the graph reads every pixel as it was.

    Args:
        batch: (N, H, W, 3) uint8; at most :func:`canvas_capacity` crops.

    Returns:
        A frame of at least ``SMALLEST_FRAME_HW``, black where no crop lies, and the crops' boxes in it: (N, 4) float32
        xyxy pixels. The caller owns both.
    """
    count, height, width, _ = batch.shape
    columns = min(math.ceil(math.sqrt(count * height / width)), max(1, LARGEST_FRAME_HW[1] // width))
    columns = max(columns, math.ceil(count / max(1, LARGEST_FRAME_HW[0] // height)), 1)
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width, 3), np.uint8)
    cells[:count] = batch
    tiled = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    frame = np.zeros(
        (max(rows * height, SMALLEST_FRAME_HW[0]), max(columns * width, SMALLEST_FRAME_HW[1]), 3), np.uint8
    )
    frame[: rows * height, : columns * width] = tiled
    row, column = np.divmod(np.arange(count), columns)
    left, top = column * width, row * height
    return frame, np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)
