"""Reads scores and boxes out of what detection networks give; which network, :mod:`hamr_edge.detector_formats` says.

Every function takes the outputs of one frame, without the axis of the batch, in float32 or as the network has them.
``read_*_scores`` give the (A,) scores of all rows and the (K,) rows that can be of the wanted classes; a row's score is
that of the best wanted class. ``read_*_boxes`` give the (N, 4) xyxy boxes of some rows, in pixels of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError

Outputs: TypeAlias = Sequence[NDArray[Any]]
Scores: TypeAlias = tuple[NDArray[np.float32], NDArray[np.intp]]
Boxes: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.intp]

_LARGEST_LOG_SIZE = 10.0
_YOLO_STRIDES = (8, 16, 32)
_NANODET_STRIDES = (8, 16, 32, 64)
DISTRIBUTION_BINS = 8
"""NanoDet's distances are distributions over 0 to 7 strides."""
_LARGEST_SHARE = 2.0
"""Boxes in shares of the canvas stay below it; boxes in pixels do not all lie within so few."""
_LISTED_COLUMNS = 6
_ANOTHER = "the format that it is"
SCORE_ROUNDING = 1e-3
"""How far float16 may carry a score beyond 0..1."""


def anchor_grid(
    size_hw: tuple[int, int], strides: Sequence[int] = _YOLO_STRIDES
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cells of several levels, row by row: (A, 2) x, y of each cell and its (A, 1) stride in pixels."""
    cells, cell_strides = [], []
    for stride in strides:
        rows, columns = np.mgrid[: -(-size_hw[0] // stride), : -(-size_hw[1] // stride)]
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        cell_strides.append(np.full((cells[-1].shape[0], 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(cell_strides).astype(np.float32)


def read_yolox_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (A, 5 + classes): objectness times class score."""
    scores, rows = _best_of(outputs[0][:, 5:], classes)
    return scores * outputs[0][:, 4], rows


def read_yolox_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:
    """Of centres relative to their cells and logarithms of sizes, both in strides."""
    cells, strides = anchor_grid(size_hw)
    log_sizes = outputs[0][rows, 2:4]
    if (log_sizes > _LARGEST_LOG_SIZE).any():
        raise InputError("its boxes are decoded already; declare it as yolox-decoded")
    centres = (outputs[0][rows, :2] + cells[rows]) * strides[rows]
    return _centred_boxes(centres, np.exp(log_sizes) * strides[rows])


def read_yolox_decoded_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:
    """Of centres and sizes in pixels of the canvas."""
    # Of all rows: logarithms of sizes may be above 0 where large people are, but not all over a frame.
    if (outputs[0][:, 2:4] < 0).any():
        raise InputError("its boxes have widths or heights below 0: they are not decoded; declare it as yolox")
    return read_yolov5_boxes(outputs, rows, size_hw)


def read_yolov5_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:  # noqa: ARG001
    """Of centres and sizes in pixels of the canvas, in the first four columns."""
    _check_pixels(outputs[0][:, :4], rows)
    return _centred_boxes(outputs[0][rows, :2], outputs[0][rows, 2:4])


def read_yolov8_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (4 + classes, A)."""
    return _best_of(outputs[0][4:].T, classes)


def read_yolov8_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:  # noqa: ARG001
    """Of centres and sizes in pixels of the canvas."""
    _check_pixels(outputs[0][:4], rows)
    return _centred_boxes(outputs[0][:2, rows].T, outputs[0][2:4, rows].T)


def read_listed_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (N, 6): box, score, class."""
    return outputs[0][:, 4], np.flatnonzero(np.isin(outputs[0][:, 5], classes))


def read_listed_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:  # noqa: ARG001
    """Of corners in pixels of the canvas."""
    _check_pixels(outputs[0][:, :4], rows, "it as rtdetr-ultralytics, if it is one")
    return np.asarray(outputs[0][rows, :4], dtype=np.float32)


def read_nanodet_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (A, classes + 32)."""
    scores = outputs[0][:, : -4 * DISTRIBUTION_BINS]
    # Of all classes: where there are more bins, the first of them stand in the columns of the last classes.
    if scores.min() < -SCORE_ROUNDING or scores.max() > 1 + SCORE_ROUNDING:
        wrong = np.flatnonzero(((scores < -SCORE_ROUNDING) | (scores > 1 + SCORE_ROUNDING)).any(axis=0))[0]
        raise InputError(
            f"column {wrong} of {outputs[0].shape[1]} holds values outside 0..1; expected scores in "
            f"{scores.shape[1]} columns, and distances in 4 x {DISTRIBUTION_BINS}. Networks of reg_max 10 (nanodet-g, "
            "RepVGG-A0, EfficientNet-Lite1 and 2) are not covered; one of reg_max 7 must end in the sigmoid"
        )
    return _best_of(scores, classes)


def read_nanodet_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:
    """Of distributions of the distances from a cell's corner to the box's left, top, right and bottom, in strides."""
    cells, strides = anchor_grid(size_hw, _NANODET_STRIDES)
    return _boxes_around(cells[rows] * strides[rows], outputs[0], rows, strides, size_hw)


def read_nanodet_legacy_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:
    """As :func:`read_nanodet_boxes`, from the cell's middle and with three levels, as before NanoDet-Plus."""
    cells, strides = anchor_grid(size_hw, _YOLO_STRIDES)
    return _boxes_around((cells[rows] + 0.5) * strides[rows], outputs[0], rows, strides, size_hw)


def read_labelled_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (N,) labels, (N, 4) boxes, (N,) scores."""
    return outputs[2], np.flatnonzero(np.isin(outputs[0], classes))


def read_labelled_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:  # noqa: ARG001
    """Of corners in pixels of the size that the network was told, the canvas's."""
    _check_pixels(outputs[1], rows)
    return np.asarray(outputs[1][rows], dtype=np.float32)


def read_sigmoid_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (N, classes) logits, each class on its own."""
    _check_logits(outputs[0])
    # A sigmoid that cannot overflow.
    return _best_of(np.asarray((1 + np.tanh(outputs[0] / 2)) / 2, dtype=np.float32), classes)


def read_softmax_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (N, classes + 1) logits, the last of which is of no object."""
    _check_logits(outputs[0])
    return _best_of(_softmax(outputs[0])[:, :-1], classes)


def read_relative_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:
    """Of (N, 4) centres and sizes as shares of the canvas, in the second output."""
    return _scaled_boxes(outputs[1][rows], size_hw)


def read_relative_table_scores(outputs: Outputs, classes: Sequence[int]) -> Scores:
    """Of (N, 4 + classes) boxes and scores."""
    return _best_of(outputs[0][:, 4:], classes)


def read_relative_table_boxes(outputs: Outputs, rows: Rows, size_hw: tuple[int, int]) -> Boxes:
    """Of centres and sizes as shares of the canvas, in the first four columns."""
    listed = outputs[0].shape[1] == _LISTED_COLUMNS
    instead = "it as yolov8-end2end, if it is one" if listed else _ANOTHER
    return _scaled_boxes(outputs[0][rows, :4], size_hw, instead)


def _best_of(table: NDArray[np.float32], classes: Sequence[int]) -> Scores:
    """The best wanted class of each row of (A, classes) scores."""
    if max(classes) >= table.shape[1]:
        raise InputError(f"it has {table.shape[1]} classes, from 0; class {max(classes)} was asked for")
    chosen = table[:, classes[0]] if len(classes) == 1 else table[:, list(classes)].max(axis=1)
    return chosen, np.arange(len(table))


def _check_logits(table: NDArray[np.float32]) -> None:
    if table.size and table.min() >= 0 and table.max() <= 1:
        raise InputError("its logits are all in 0..1: they are scores already, after sigmoid or softmax")


def _softmax(table: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(table - table.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def _centred_boxes(centres: NDArray[np.float32], sizes: NDArray[np.float32]) -> Boxes:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)


def _check_pixels(boxes: NDArray[np.float32], rows: Rows, instead: str = _ANOTHER) -> None:
    """Refuse shares of the canvas.

    Args:
        boxes: Of all rows, in any form: one of few pixels is possible, a frame of nothing else is not.
        rows: Those over the score; where there are none, the others may be filler.
        instead: What to declare.
    """
    if len(rows) and np.abs(boxes).max() <= _LARGEST_SHARE:
        raise InputError(
            "the declared format does not fit: it has boxes in pixels, and the file's all lie within "
            f"0..{_LARGEST_SHARE:g}, as shares of the picture do; declare {instead}"
        )


def _scaled_boxes(relative: NDArray[np.float32], size_hw: tuple[int, int], instead: str = _ANOTHER) -> Boxes:
    if (relative > _LARGEST_SHARE).any():
        raise InputError(
            "the declared format does not fit: it has boxes in shares of the picture, 0..1, and the file's reach "
            f"{relative.max():g}, as pixels do; declare {instead}"
        )
    size_wh = np.array(size_hw[::-1], np.float32)
    return _centred_boxes(relative[:, :2] * size_wh, relative[:, 2:4] * size_wh)


def _boxes_around(
    points: NDArray[np.float32],
    table: NDArray[np.float32],
    rows: Rows,
    strides: NDArray[np.float32],
    size_hw: tuple[int, int],
) -> Boxes:
    """Boxes of points and distributions of distances, kept inside the canvas (Li et al., NeurIPS 2020)."""
    bins = table[rows, -4 * DISTRIBUTION_BINS :].reshape(-1, 4, DISTRIBUTION_BINS)
    distances = _softmax(bins) @ np.arange(DISTRIBUTION_BINS, dtype=np.float32) * strides[rows]
    boxes = np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)
    return np.asarray(boxes.clip(0, np.tile(size_hw[::-1], 2)), dtype=np.float32)
