"""OpenCV's own person detector: a fall-back that needs no file."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.nms import DEFAULT_NMS_IOU, finish_boxes
from hamr_edge.preprocess import check_image

_HOG_WINDOW_HW = (128, 64)
_HOG_PERSON = np.array([0.18, 0.1, 0.82, 0.9], np.float32)
"""Where the person is inside HOG's window, xyxy in 0..1: the best of three tried on two videos."""
_HOG_BORDER = (0.15, 0.075)
"""Border above and below as a share of the height, left and right of the width."""
_HOG_FRAME_IN_PEOPLE, _HOG_LEAST_HEIGHT = 7, 32


class HogDetector:
    """OpenCV's default people detector (Dalal and Triggs, CVPR 2005): no file needed, but slow and coarse.

    It knows people of one height, so the frame is resized until the lowest person asked for has it. Its windows have a
    margin around the person: the frame gets a border, that people at its edge fit, and the margin is cut off the boxes.

    Args:
        min_score: Least distance from the classifier's plane; no probability, useful values are 0 to 1.5.
        nms_iou: See :func:`hamr_edge.detector.open_detector`.
        min_height: Height of the lowest person to find, in pixels; a seventh of the frame, at least 32, when None. Half
            of it takes four times as long.
        max_height: Greatest height of a box in pixels; any when None.
    """

    DEFAULT_MIN_SCORE = 0.8

    def __init__(
        self,
        min_score: float = DEFAULT_MIN_SCORE,
        nms_iou: float = DEFAULT_NMS_IOU,
        min_height: float | None = None,
        max_height: float | None = None,
    ) -> None:
        self.name = "hog, cpu"
        self._min_score, self._nms_iou = min_score, nms_iou
        self._min_height, self._max_height = min_height, max_height
        self._of_thread = threading.local()

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`hamr_edge.detector.PersonDetector.detect`."""
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
        found, weights = self._descriptor().detectMultiScale(padded, winStride=(8, 8), scale=1.05)
        windows = np.asarray(found, dtype=np.float32).reshape(-1, 4)
        scores = np.asarray(weights, dtype=np.float32).reshape(-1)
        # OpenCV's own threads give them in any order.
        order = np.lexsort((*windows.T, scores))
        windows, scores = windows[order], scores[order]
        boxes = windows[:, [0, 1, 0, 1]] + windows[:, [2, 3, 2, 3]] * _HOG_PERSON
        boxes -= np.array([border_x, border_y, border_x, border_y], np.float32)
        boxes *= np.tile(np.array([width, height], np.float32) / resized_wh, 2)
        sure = scores >= self._min_score
        return finish_boxes(
            boxes[sure], scores[sure], (height, width), self._nms_iou, 0.99 * min_height, self._max_height
        )

    def _descriptor(self) -> cv2.HOGDescriptor:
        """This thread's own: OpenCV does not promise that several may use one at once."""
        descriptor: cv2.HOGDescriptor | None = getattr(self._of_thread, "descriptor", None)
        if descriptor is None:
            descriptor = cv2.HOGDescriptor()
            descriptor.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), dtype=np.float32))
            self._of_thread.descriptor = descriptor
        return descriptor
