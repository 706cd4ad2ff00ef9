"""Ways to resize a crop that others use; ours is :func:`hamr_edge.preprocess.resize_crop`."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Resize = Callable[[NDArray[np.uint8], tuple[int, int]], NDArray[np.uint8]]


def _by_opencv(interpolation: int) -> Resize:
    def resize(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(image, size_hw[::-1], interpolation=interpolation), np.uint8)

    return resize


def _align_corners(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The outermost pixels' centres stay where they are, as PyTorch's ``align_corners=True`` has it."""
    rows, columns = (
        np.linspace(0, side - 1, size, dtype=np.float32) for side, size in zip(image.shape, size_hw, strict=False)
    )
    across, down = np.meshgrid(columns, rows)
    return np.asarray(cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _asymmetric(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels are counted from their corners: ONNX's ``asymmetric``, and TensorFlow 1."""
    rows, columns = (
        np.arange(size, dtype=np.float32) * np.float32(side / size)
        for side, size in zip(image.shape, size_hw, strict=False)
    )
    across, down = np.meshgrid(columns, rows)
    return np.asarray(cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _antialiased(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Pillow's bilinear filter: shrinking widens the triangle to all pixels that fall together."""
    down, across = (_triangles(side, size) for side, size in zip(image.shape, size_hw, strict=False))
    resized = np.einsum("hi,ijc,wj->hwc", down, image.astype(np.float32), across, optimize=True)
    return np.asarray(resized.round().clip(0, 255), np.uint8)


def _triangles(side: int, size: int) -> NDArray[np.float32]:
    """(size, side) weights of the source pixels in each resized one."""
    step = side / size
    centres = (np.arange(size) + 0.5) * step
    distances = np.abs(np.arange(side) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = np.maximum(1 - distances, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _letterbox(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole crop in its own proportions, in the middle, black around it."""
    height, width = size_hw
    factor = min(height / image.shape[0], width / image.shape[1])
    inner = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = cv2.resize(image, inner[::-1])
    return canvas


RESIZE_RULES: dict[str, Resize] = {
    "the nearest pixel": _by_opencv(cv2.INTER_NEAREST),
    "area averages": _by_opencv(cv2.INTER_AREA),
    "antialiased bilinear interpolation, as Pillow does it": _antialiased,
    "cubic interpolation": _by_opencv(cv2.INTER_CUBIC),
    "Lanczos interpolation": _by_opencv(cv2.INTER_LANCZOS4),
    "bilinear interpolation with corners aligned": _align_corners,
    "bilinear interpolation from pixels' corners (asymmetric)": _asymmetric,
    "letterboxing": _letterbox,
}
"""By words that a message can use."""
