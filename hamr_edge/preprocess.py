"""Crop and resize: the only part of preprocessing outside the graph, shared by training, export, runtime and bench."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.boxes import check_boxes
from hamr_edge.device_array import is_device_array
from hamr_edge.errors import InputError

RESIZE_RULE = "bilinear, half-pixel centres, no antialiasing (OpenCV INTER_LINEAR)"
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)


def check_image(image: object, name: str = "frame") -> NDArray[np.uint8]:
    """Give ``image`` back if it is a (H, W, 3) uint8 array of at least one pixel, else raise InputError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        hint = device_array_hint(image)
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        if isinstance(image, np.ndarray) and image.ndim == 2:
            hint = "; cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) makes one of a grey image"
        raise InputError(f"{name} must be a (H, W, 3) uint8 BGR array, got {got}{hint}")
    if image.size == 0:
        raise InputError(f"{name} is empty: shape {image.shape}")
    return image


def device_array_hint(value: object) -> str:
    """What to do with an array of another library, perhaps on a GPU, where a numpy array is wanted; else nothing."""
    if isinstance(value, np.ndarray) or not (hasattr(value, "__dlpack_device__") or is_device_array(value)):
        return ""
    return "; pass a numpy array (of a PyTorch tensor: .cpu().numpy()); only engines take arrays that are on the GPU"


def pixel_windows(boxes: NDArray[np.float32], frame_size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Round checked boxes to whole pixels, each at least one pixel wide and high: (N, 4) int64 xyxy, end exclusive."""
    height, width = frame_size_hw
    window = np.floor(boxes.astype(np.float64) + 0.5).astype(np.int64)
    window[:, 0] = window[:, 0].clip(0, width - 1)
    window[:, 1] = window[:, 1].clip(0, height - 1)
    window[:, 2] = np.maximum(window[:, 2], window[:, 0] + 1)
    window[:, 3] = np.maximum(window[:, 3], window[:, 1] + 1)
    return window


def resize_crop(crop: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a (H, W, 3) uint8 crop to ``size_hw`` by ``RESIZE_RULE``; the aspect ratio is not kept."""
    height, width = size_hw
    return np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def crop_boxes(frame: NDArray[np.uint8], boxes: ArrayLike, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut boxes out of a frame and resize each.

    Args:
        frame: (H, W, 3) uint8 BGR; need not be contiguous.
        boxes: (N, 4) xyxy pixels; partly outside is clipped.
        size_hw: Height and width of the network's input.

    Returns:
        (N, height, width, 3) uint8 BGR, a new array.

    Raises:
        InputError: See :func:`hamr_edge.boxes.check_boxes` and :func:`check_image`.
    """
    check_image(frame)
    frame_size_hw = (frame.shape[0], frame.shape[1])
    windows = pixel_windows(check_boxes(boxes, frame_size_hw), frame_size_hw)
    batch = np.empty((len(windows), *size_hw, 3), np.uint8)
    for row, (x1, y1, x2, y2) in enumerate(windows.tolist()):
        cv2.resize(frame[y1:y2, x1:x2], size_hw[::-1], dst=batch[row], interpolation=cv2.INTER_LINEAR)
    return batch


def stack_crops(crops: Sequence[NDArray[np.uint8]], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize crops of any size to one (N, height, width, 3) uint8 batch, a new array."""
    batch = np.empty((len(crops), *size_hw, 3), np.uint8)
    for row, crop in enumerate(crops):
        check_image(crop, f"crops[{row}]")
        batch[row] = resize_crop(crop, size_hw)
    return batch
