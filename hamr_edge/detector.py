"""Person detectors: what every one gives, OpenCV's own, and the one place that chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.nms import suppress_overlaps
from hamr_edge.preprocess import check_image

DEFAULT_NMS_IOU = 0.45
_HOG_WINDOW_HW = (128, 64)
_HOG_PERSON = np.array([0.18, 0.1, 0.82, 0.9], np.float32)
"""Where the person is inside HOG's window, xyxy in 0..1: the best of three tried on two videos."""
_HOG_BORDER = (0.15, 0.075)
"""Border above and below as a share of the height, left and right of the width."""
_HOG_FRAME_IN_PEOPLE, _HOG_LEAST_HEIGHT = 7, 32


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


class HogDetector:
    """OpenCV's default people detector (Dalal and Triggs, CVPR 2005): no file needed, but slow and coarse.

    It knows people of one height, so the frame is resized until the lowest person asked for has it. Its windows have a
    margin around the person: the frame gets a border, that people at its edge fit, and the margin is cut off the boxes.

    Args:
        min_score: Least distance from the classifier's plane; no probability, useful values are 0 to 1.5.
        nms_iou: See :func:`open_detector`.
        min_height: Height of the lowest person to find, in pixels; a seventh of the frame, at least 32, when None. Half
            of it takes four times as long.
    """

    DEFAULT_MIN_SCORE = 0.8

    def __init__(
        self,
        min_score: float = DEFAULT_MIN_SCORE,
        nms_iou: float = DEFAULT_NMS_IOU,
        min_height: float | None = None,
    ) -> None:
        self.name = "hog, cpu"
        self._min_score, self._nms_iou, self._min_height = min_score, nms_iou, min_height
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), dtype=np.float32))

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`PersonDetector.detect`."""
        check_image(image)
        height, width = image.shape[:2]
        min_height = self._min_height or max(_HOG_LEAST_HEIGHT, height / _HOG_FRAME_IN_PEOPLE)
        factor = _HOG_WINDOW_HW[0] * float(_HOG_PERSON[3] - _HOG_PERSON[1]) / min_height
        resized_wh = max(1, round(width * factor)), max(1, round(height * factor))
        # At least a whole window, however small the frame is.
        border_y, border_x = (
            max(round(share * size), -(-(window - size) // 2))
            for share, size, window in zip(_HOG_BORDER, resized_wh[::-1], _HOG_WINDOW_HW, strict=True)
        )
        padded = cv2.copyMakeBorder(
            cv2.resize(image, resized_wh), border_y, border_y, border_x, border_x, cv2.BORDER_REPLICATE
        )
        found, weights = self._hog.detectMultiScale(padded, winStride=(8, 8), scale=1.05)
        windows = np.asarray(found, dtype=np.float32).reshape(-1, 4)
        scores = np.asarray(weights, dtype=np.float32).reshape(-1)
        boxes = windows[:, [0, 1, 0, 1]] + windows[:, [2, 3, 2, 3]] * _HOG_PERSON
        boxes -= np.array([border_x, border_y, border_x, border_y], np.float32)
        boxes *= np.tile(np.array([width, height], np.float32) / resized_wh, 2)
        sure = scores >= self._min_score
        return finish_boxes(boxes[sure], scores[sure], (height, width), self._nms_iou, 0.99 * min_height)


def finish_boxes(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    frame_size_hw: tuple[int, ...],
    nms_iou: float,
    min_height: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The last steps of every detector: suppress overlaps, clip to the frame, drop what is empty or too low.

    Args:
        boxes: (N, 4) xyxy pixels of the frame.
        scores: (N,).
        frame_size_hw: Height and width of the frame.
        nms_iou: See :func:`open_detector`.
        min_height: Least height of a box in pixels, before clipping.

    Returns:
        Boxes and scores as :meth:`PersonDetector.detect` promises them.
    """
    kept = suppress_overlaps(boxes, scores, nms_iou)
    kept = kept[boxes[kept, 3] - boxes[kept, 1] >= min_height]
    boxes, scores = boxes[kept], scores[kept]
    height, width = frame_size_hw
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    # A sliver of a pixel at the border is no person, and its crop would be somebody else.
    whole = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
    return boxes[whole], scores[whole]
