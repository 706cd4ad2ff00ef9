"""Person detectors: what every one gives, and the one place that chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.hog import HogDetector
from hamr_edge.nms import DEFAULT_NMS_IOU


class PersonDetector(Protocol):
    """Finds people in one frame. Several threads may use one detector at once.

    Attributes:
        name: Detector and device, as reports show them.
    """

    name: str

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find people.

        Args:
            image: (H, W, 3) uint8 BGR.

        Returns:
            (N, 4) float32 xyxy boxes in the image's pixels, inside it, none empty; and their (N,) float32 scores, best
            first. The caller owns both.
        """
        ...  # pragma: no cover


def open_detector(
    detector: str | Path,
    device: str = "auto",
    threads: int | None = None,
    min_score: float | None = None,
    nms_iou: float | None = None,
    min_height: float | None = None,
    format: str | None = None,
    classes: Sequence[int | str] | None = None,
    max_height: float | None = None,
    input_size_hw: tuple[int, int] | None = None,
) -> PersonDetector:
    """Choose the detector.

    Args:
        detector: ``hog``, or a detection network's ``.onnx`` file.
        device: ``cpu``, ``cuda:N`` or ``auto``, for a file.
        threads: CPU threads of a network; the library's default when None.
        min_score: Boxes below it are dropped; the detector's own default when None.
        nms_iou: Of two boxes that overlap by more than this, the better stays; 0..1. When None, 0.45; of networks that
            give every person once, only of two equal boxes.
        min_height: Boxes lower than this many pixels are dropped; the detector's own default when None.
        format: Of a file, what network it is: one of :data:`hamr_edge.detector_formats.FORMATS`; ``yolox`` when None.
            It is never guessed.
        classes: Of a file, which classes to find, by index from 0 or by the names in the file's metadata; people when
            None. A box's score is that of the best of them, whatever the others have.
        max_height: Boxes higher than this many pixels are dropped.
        input_size_hw: Of a file that takes any size, the height and width to use; the format's own when None.

    Raises:
        InputError: Not a detector, a setting makes no sense, or the file is not as declared; the message says what
            was expected, what came, and which formats its shapes would allow.
        UnavailableError: ONNX Runtime or the device is not there.
    """
    if nms_iou is not None and not 0 <= nms_iou <= 1:
        raise InputError(f"nms_iou must be in 0..1, got {nms_iou:g}")
    _check_heights(min_height, max_height)
    if str(detector) == "hog":
        for name, value in (("format", format), ("classes", classes), ("input_size_hw", input_size_hw)):
            if value is not None:
                raise InputError(f"{name} is for .onnx files; the hog detector has none")
        if device.startswith("cuda"):
            raise InputError(f"the hog detector runs on the CPU only, not on {device}")
        score = HogDetector.DEFAULT_MIN_SCORE if min_score is None else min_score
        return HogDetector(score, DEFAULT_NMS_IOU if nms_iou is None else nms_iou, min_height, max_height)
    path = Path(detector)
    if path.suffix != ".onnx":
        raise InputError(f"detector {detector} is of no known kind; expected 'hog' or an .onnx file")
    if min_score is not None and not 0 <= min_score <= 1:
        raise InputError(f"min_score must be in 0..1 for an .onnx file, got {min_score:g}")
    from hamr_edge.onnx_detector import OnnxDetector

    return OnnxDetector(
        path,
        format or "yolox",
        device,
        threads,
        min_score,
        nms_iou,
        min_height or 0.0,
        max_height,
        classes,
        input_size_hw,
    )


def _check_heights(min_height: float | None, max_height: float | None) -> None:
    for name, height in (("min_height", min_height), ("max_height", max_height)):
        if height is not None and not height > 0:
            raise InputError(f"{name} must be above 0, got {height:g}")
    if min_height is not None and max_height is not None and min_height > max_height:
        raise InputError(f"min_height is {min_height:g}, above max_height, {max_height:g}: no box could stay")
