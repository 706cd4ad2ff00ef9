"""Lays a frame onto a detector's canvas, and takes boxes back from there exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Fit = Literal["top-left", "centred", "stretch", "stretch-smooth", "warp", "warp-centred"]
"""How a frame fills a canvas: see :func:`lay_out_frame`."""
_PADDING = 114
_SHORT_SIDE, _LONG_SIDE = 800, 1333


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies on a canvas: frame pixels times ``factors_xy``, plus ``offset_xy``, are canvas pixels."""

    factors_xy: tuple[float, float]
    """They differ a little where the aspect ratio is kept, as a resized frame has whole pixels."""
    offset_xy: tuple[float, float] = (0.0, 0.0)

    def to_canvas(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 4) xyxy boxes of the frame, in pixels of the canvas; a new array."""
        return np.asarray(boxes * np.tile(self.factors_xy, 2) + np.tile(self.offset_xy, 2), dtype=np.float32)

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 4) xyxy boxes of the canvas, in pixels of the frame; a new array."""
        return np.asarray((boxes - np.tile(self.offset_xy, 2)) / np.tile(self.factors_xy, 2), dtype=np.float32)


def lay_out_frame(image: NDArray[np.uint8], size_hw: tuple[int, int], fit: Fit) -> tuple[NDArray[np.uint8], Placement]:
    """Fill a canvas with a frame.

    Args:
        image: (H, W, 3) uint8 BGR.
        size_hw: Height and width of the canvas.
        fit: ``top-left`` and ``centred`` keep the aspect ratio and leave grey (114) around, as YOLOX and ultralytics
            do; ``stretch`` fills the canvas, ``stretch-smooth`` too, with every pixel counted where it shrinks, as
            Pillow does; ``warp`` and ``warp-centred`` stretch or keep the ratio by an affine map of pixel centres that
            leaves black around, as NanoDet does.

    Returns:
        The (height, width, 3) uint8 canvas, and where the frame lies on it.
    """
    if fit in ("warp", "warp-centred"):
        return _warp(image, size_hw, keep_ratio=fit == "warp-centred")
    if fit in ("stretch", "stretch-smooth"):
        return _stretch(image, size_hw, smooth=fit == "stretch-smooth")
    return _letterbox(image, size_hw, centred=fit == "centred")


def short_side_size(frame_size_hw: tuple[int, int]) -> tuple[int, int]:
    """The canvas of DETR: the frame with its short side at 800 pixels, or its long one at 1333 if that is less.

    Carion et al., ECCV 2020, as transformers rounds it.
    """
    short, long = min(frame_size_hw), max(frame_size_hw)
    if long / short * _SHORT_SIDE <= _LONG_SIDE:
        new_short, exact_short = _SHORT_SIDE, float(_SHORT_SIDE)
    else:
        exact_short = _LONG_SIDE * short / long
        new_short = max(1, round(exact_short))
    new_long = long if new_short == short else int(exact_short * long / short)
    return (new_short, new_long) if frame_size_hw[0] <= frame_size_hw[1] else (new_long, new_short)


def _letterbox(
    image: NDArray[np.uint8], size_hw: tuple[int, int], centred: bool
) -> tuple[NDArray[np.uint8], Placement]:
    height, width = image.shape[:2]
    factor = min(size_hw[0] / height, size_hw[1] / width)
    # YOLOX cuts fractions off, ultralytics rounds: a pixel more or less is another picture for the network.
    whole = round if centred else int
    new_height, new_width = max(1, whole(height * factor)), max(1, whole(width * factor))
    top = left = 0
    if centred:
        top, left = (round((size - new) / 2 - 0.1) for size, new in zip(size_hw, (new_height, new_width), strict=True))
    canvas = np.full((*size_hw, 3), _PADDING, np.uint8)
    canvas[top : top + new_height, left : left + new_width] = cv2.resize(
        image, (new_width, new_height), interpolation=cv2.INTER_LINEAR
    )
    return canvas, Placement((new_width / width, new_height / height), (float(left), float(top)))


def _stretch(image: NDArray[np.uint8], size_hw: tuple[int, int], smooth: bool) -> tuple[NDArray[np.uint8], Placement]:
    height, width = image.shape[:2]
    shrinks = size_hw[0] < height and size_hw[1] < width
    rule = cv2.INTER_AREA if smooth and shrinks else cv2.INTER_LINEAR
    canvas = cv2.resize(image, size_hw[::-1], interpolation=rule)
    return np.asarray(canvas, dtype=np.uint8), Placement((size_hw[1] / width, size_hw[0] / height))


def _warp(image: NDArray[np.uint8], size_hw: tuple[int, int], keep_ratio: bool) -> tuple[NDArray[np.uint8], Placement]:
    height, width = image.shape[:2]
    x_factor, y_factor = size_hw[1] / width, size_hw[0] / height
    x_offset = y_offset = 0.0
    if keep_ratio:
        x_factor = y_factor = min(x_factor, y_factor)
        x_offset, y_offset = (size_hw[1] - width * x_factor) / 2, (size_hw[0] - height * y_factor) / 2
    matrix = np.array([[x_factor, 0, x_offset], [0, y_factor, y_offset], [0, 0, 1]])
    # Not warpAffine: its weights are rounded otherwise.
    canvas = cv2.warpPerspective(image, matrix, size_hw[::-1])
    return np.asarray(canvas, dtype=np.uint8), Placement((x_factor, y_factor), (x_offset, y_offset))
