"""The last steps of every detector: of boxes that overlap, the one with the best score stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DEFAULT_NMS_IOU = 0.45


def box_iou(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of one (4,) xyxy box with each of (N, 4): (N,) float32 in 0..1."""
    top_left = np.maximum(box[:2], boxes[:, :2])
    bottom_right = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod((bottom_right - top_left).clip(0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), dtype=np.float32)


def suppress_overlaps(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,); of equal scores the earlier box goes first.
        iou_threshold: A box that overlaps a better one by more than this is dropped.

    Returns:
        (K,) int64 indices of the boxes that stay, best score first.
    """
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[box_iou(boxes[best], boxes[left]) <= iou_threshold]
    return np.asarray(kept, dtype=np.int64)


def finish_boxes(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    frame_size_hw: tuple[int, ...],
    nms_iou: float | None,
    min_height: float,
    max_height: float | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Drop boxes that are too low or too high, suppress overlaps, clip to the frame, drop what is empty.

    Args:
        boxes: (N, 4) xyxy pixels of the frame.
        scores: (N,).
        frame_size_hw: Height and width of the frame.
        nms_iou: A box that overlaps a better one by more than this is dropped; 0..1. None: only copies of a better one
            are.
        min_height: Least height of a box in pixels, before clipping.
        max_height: Greatest height of a box in pixels, before clipping; any when None.

    Returns:
        Boxes and scores as :meth:`hamr_edge.detector.PersonDetector.detect` promises them.
    """
    # First of all: a box that nobody asked for must not suppress one that was.
    heights = boxes[:, 3] - boxes[:, 1]
    asked = (heights >= min_height) & (heights <= (np.inf if max_height is None else max_height))
    boxes, scores = boxes[asked], scores[asked]
    kept = _drop_copies(boxes, scores) if nms_iou is None else suppress_overlaps(boxes, scores, nms_iou)
    boxes, scores = boxes[kept], scores[kept]
    height, width = frame_size_hw
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    # A sliver of a pixel at the border is no person, and its crop would be somebody else.
    whole = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
    return boxes[whole], scores[whole]


def _drop_copies(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices, best score first, of each box's first: networks that list box and class give a box once a class."""
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    return np.asarray(order[np.sort(first)], dtype=np.int64)
