"""Ready crops as one frame and its boxes: how an artifact in the frame form takes what was cropped already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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


def fits_a_frame(image: NDArray[np.uint8]) -> bool:
    """Whether an image lies within ``LARGEST_FRAME_HW``."""
    height, width, _ = image.shape
    return bool(height <= LARGEST_FRAME_HW[0] and width <= LARGEST_FRAME_HW[1])


def lay_out_images(
    images: Sequence[NDArray[np.uint8]], most: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Put images of any sizes on frames, in order, in shelves from left to right and from top to bottom.

    Args:
        images: (H, W, 3) uint8 each, none larger than ``LARGEST_FRAME_HW``.
        most: Images on one frame.

    Yields:
        A frame within the two sizes, black where no image lies, and the images' boxes in it: (N, 4) float32 xyxy.
    """
    height, width = LARGEST_FRAME_HW
    placed: list[tuple[int, int, NDArray[np.uint8]]] = []
    left = top = shelf = 0
    for image in images:
        if left + image.shape[1] > width:
            left, top, shelf = 0, top + shelf, 0
        if placed and (len(placed) == most or top + image.shape[0] > height):
            yield _fill_frame(placed)
            placed, left, top, shelf = [], 0, 0, 0
        placed.append((top, left, image))
        left, shelf = left + image.shape[1], max(shelf, image.shape[0])
    if placed:
        yield _fill_frame(placed)


def _fill_frame(
    placed: Sequence[tuple[int, int, NDArray[np.uint8]]],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    boxes = np.array([(x, y, x + image.shape[1], y + image.shape[0]) for y, x, image in placed], np.float32)
    height, width = (
        max(int(boxes[:, side].max()), least) for side, least in zip((3, 2), SMALLEST_FRAME_HW, strict=True)
    )
    frame = np.zeros((height, width, 3), np.uint8)
    for y, x, image in placed:
        frame[y : y + image.shape[0], x : x + image.shape[1]] = image
    return frame, boxes
