"""Person boxes: plain (N, 4) float32 xyxy pixel arrays, checked once at each public entry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.errors import InputError


def check_boxes(boxes: ArrayLike, frame_size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Check boxes against their frame and clip them to it.

    Args:
        boxes: (N, 4) real xyxy pixels, x to the right and y down; an empty list is no boxes.
        frame_size_hw: Height and width of the frame in pixels.

    Returns:
        (N, 4) float32, a new array, inside the frame.

    Raises:
        InputError: Wrong shape or dtype, or a row that is not finite, is inverted or lies wholly outside the frame; the
            message names the row.
    """
    try:
        given: NDArray[Any] = np.asarray(boxes)
    except ValueError as error:
        raise InputError(f"boxes must have shape (N, 4) xyxy pixels, got rows of different lengths: {error}") from error
    if given.size == 0 and given.ndim <= 2:
        return np.zeros((0, 4), np.float32)
    if given.ndim != 2 or given.shape[1] != 4:
        hint = "; wrap a single box as boxes[None]" if given.shape == (4,) else "; pass x1, y1, x2, y2 only"
        raise InputError(f"boxes must have shape (N, 4) xyxy pixels, got {given.shape}{hint}")
    if not (np.issubdtype(given.dtype, np.floating) or np.issubdtype(given.dtype, np.integer)):
        raise InputError(f"boxes must hold real numbers, got dtype {given.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is rejected with its row
        boxes_xyxy = given.astype(np.float32)
    height, width = frame_size_hw
    x1, y1, x2, y2 = boxes_xyxy.T
    _reject(boxes_xyxy, ~np.all(np.isfinite(boxes_xyxy), axis=1), "is not finite; drop it before embedding")
    _reject(
        boxes_xyxy,
        (x2 <= x1) | (y2 <= y1),
        "is inverted or empty; expected x1 < x2 and y1 < y2 (boxes as x, y, width, height need "
        "boxes[:, 2:] += boxes[:, :2])",
    )
    _reject(
        boxes_xyxy,
        (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
        f"lies wholly outside the {width} x {height} frame; drop it, or scale the boxes to the frame's size",
    )
    boxes_xyxy[:, 0::2] = boxes_xyxy[:, 0::2].clip(0, width)
    boxes_xyxy[:, 1::2] = boxes_xyxy[:, 1::2].clip(0, height)
    return boxes_xyxy


def _reject(boxes: NDArray[np.float32], wrong: NDArray[np.bool_], reason: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        values = ", ".join(f"{value:g}" for value in boxes[rows[0]])
        raise InputError(f"boxes[{rows[0]}] = ({values}){more} {reason}")
