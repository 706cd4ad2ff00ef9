"""Small real videos and images for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np


def moving_square(count: int, size_hw: tuple[int, int] = (120, 160)) -> list[np.ndarray]:
    """Grey frames; frame i has a white 20 x 20 square at x = 4 i, y = 30."""
    frames = []
    for index in range(count):
        frame = np.full((*size_hw, 3), 90, np.uint8)
        frame[30:50, 4 * index : 4 * index + 20] = 255
        frames.append(frame)
    return frames


def square_x(image: np.ndarray) -> int:
    """Where the square of ``moving_square`` begins."""
    return int(np.flatnonzero(image[40, :, 0] > 170)[0])


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float = 10.0) -> Path:
    """Write frames as Motion JPEG."""
    frames = list(frames)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def read_video(path: Path) -> list[np.ndarray]:
    """All frames of a video."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        read, frame = capture.read()
        if not read:
            capture.release()
            return frames
        frames.append(frame)
