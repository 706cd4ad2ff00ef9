"""Person detectors: what every one gives, and the one place that chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.hog import HogDetector
from hamr_edge.nms import DEFAULT_NMS_IOU


class PersonDetector(Protocol):
    """Finds people in one frame.

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
    nms_iou: float = DEFAULT_NMS_IOU,
    min_height: float | None = None,
) -> PersonDetector:
    """Choose the detector.

    Args:
        detector: ``hog``, or a YOLOX model's ``.onnx`` file.
        device: ``cpu``, ``cuda:N`` or ``auto``, for a model.
        threads: CPU threads of a model; the library's default when None.
        min_score: Boxes below it are dropped; the detector's own default when None.
        nms_iou: Of two boxes that overlap by more than this, the better stays; 0..1.
        min_height: Boxes lower than this many pixels are dropped; the detector's own default when None.

    Raises:
        InputError: Not a detector, or a setting makes no sense.
        UnavailableError: ONNX Runtime or the device is not there.
    """
    if not 0 <= nms_iou <= 1:
        raise InputError(f"nms_iou must be in 0..1, got {nms_iou:g}")
    if min_height is not None and not min_height > 0:
        raise InputError(f"min_height must be above 0, got {min_height:g}")
    if str(detector) == "hog":
        if device.startswith("cuda"):
            raise InputError(f"the hog detector runs on the CPU only, not on {device}")
        return HogDetector(HogDetector.DEFAULT_MIN_SCORE if min_score is None else min_score, nms_iou, min_height)
    path = Path(detector)
    if path.suffix != ".onnx":
        raise InputError(f"detector {detector} is of no known kind; expected 'hog' or a YOLOX model's .onnx file")
    from hamr_edge.yolox import YoloxDetector

    score = YoloxDetector.DEFAULT_MIN_SCORE if min_score is None else min_score
    return YoloxDetector(path, device, threads, score, nms_iou, min_height or 0.0)
