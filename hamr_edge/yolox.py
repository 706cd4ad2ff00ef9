"""YOLOX person detector on ONNX Runtime (Ge et al., 2021, arXiv:2107.08430): letterbox, network, decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.nms import DEFAULT_NMS_IOU, finish_boxes
from hamr_edge.onnx_session import open_session
from hamr_edge.preprocess import check_image

_STRIDES = (8, 16, 32)
_PADDING = 114
_PERSON = 0
_DEFAULT_SIZE_HW = (640, 640)
_LARGEST_LOG_SIZE = 10.0


def letterbox(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Fit an image into the top left corner of ``size_hw``, its aspect ratio kept, grey around it.

    Args:
        image: (H, W, 3) uint8 BGR.
        size_hw: Height and width of the network's input.

    Returns:
        The (height, width, 3) uint8 canvas, and (2,) float32 factors of x and y: image pixels times these are canvas
        pixels. They differ a little, as the resized image has whole pixels.
    """
    height, width = image.shape[:2]
    factor = min(size_hw[0] / height, size_hw[1] / width)
    resized_height, resized_width = max(1, int(height * factor)), max(1, int(width * factor))
    canvas = np.full((*size_hw, 3), _PADDING, np.uint8)
    resized = cv2.resize(image, (resized_width, resized_height), interpolation=cv2.INTER_LINEAR)
    canvas[:resized_height, :resized_width] = resized
    return canvas, np.array([resized_width / width, resized_height / height], np.float32)


def anchor_grid(size_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cells of YOLOX's three levels in the order of its output: (A, 2) x, y of each cell and its (A, 1) stride."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full((cells[-1].shape[0], 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


class YoloxDetector:
    """A YOLOX model with the COCO classes, or any whose class 0 is a person, exported without decoding.

    Args:
        path: The ``.onnx`` file: float32 (1, 3, H, W) BGR in 0..255 -> (1, A, 5 + classes).
        device: ``cpu``, ``cuda:N`` or ``auto``: CUDA where this ONNX Runtime has it.
        threads: CPU threads; ONNX Runtime's default when None.
        min_score: Least objectness times class score, 0..1.
        nms_iou: See :func:`hamr_edge.detector.open_detector`.
        min_height: Least height of a box in pixels of the frame.

    Raises:
        InputError: The file is missing, or is not such a model.
        UnavailableError: ONNX Runtime or the device is not there.
    """

    DEFAULT_MIN_SCORE = 0.4

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        threads: int | None = None,
        min_score: float = DEFAULT_MIN_SCORE,
        nms_iou: float = DEFAULT_NMS_IOU,
        min_height: float = 0.0,
    ) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise InputError(f"detector {path} is not there; expected a YOLOX model's .onnx file")
        self._min_score, self._nms_iou, self._min_height = min_score, nms_iou, min_height
        # It takes turns with the network on the same cores: threads that wait in a loop would slow both.
        self._session, used = open_session(self._path, device, threads, spin=False)
        self.name = f"{self._path.name}, onnxruntime-{used.split(':')[0]}"
        self._input_name, self.input_size_hw = self._check_input()
        self._cells, self._strides = anchor_grid(self.input_size_hw)
        outputs = self._session.get_outputs()
        if len(outputs) != 1 or not self._fits(outputs[0].shape):
            raise self._not_yolox(f"outputs {[(value.name, value.shape) for value in outputs]}")

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`hamr_edge.detector.PersonDetector.detect`."""
        check_image(image)
        canvas, factors = letterbox(image, self.input_size_hw)
        batch = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32)
        output = self._session.run(None, {self._input_name: batch})[0]
        if not self._fits(output.shape):
            raise self._not_yolox(f"an output of shape {output.shape}")
        boxes, scores = self._decode(np.asarray(output[0], dtype=np.float32))
        boxes /= np.tile(factors, 2)
        return finish_boxes(boxes, scores, image.shape[:2], self._nms_iou, self._min_height)

    def _decode(self, output: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(A, 5 + classes) raw output -> (N, 4) xyxy canvas pixels and (N,) scores of the people."""
        scores = output[:, 4] * output[:, 5 + _PERSON]
        rows = np.flatnonzero(scores >= self._min_score)
        log_sizes = output[rows, 2:4]
        if (log_sizes > _LARGEST_LOG_SIZE).any():
            raise self._not_yolox("boxes that are decoded already; export it without --decode_in_inference")
        centres = (output[rows, :2] + self._cells[rows]) * self._strides[rows]
        halves = np.exp(log_sizes) * self._strides[rows] / 2
        return np.concatenate([centres - halves, centres + halves], axis=1), scores[rows]

    def _check_input(self) -> tuple[str, tuple[int, int]]:
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        batches = isinstance(shape[0], int) and shape[0] != 1 if shape else False
        if len(shape) != 4 or inputs[0].type != "tensor(float)" or shape[1] != 3 or batches:
            raise self._not_yolox(f"inputs {[(value.name, value.type, value.shape) for value in inputs]}")
        # A name instead of a number: the model takes any size.
        height, width = (
            size if isinstance(size, int) else default
            for size, default in zip(shape[2:], _DEFAULT_SIZE_HW, strict=True)
        )
        if height % _STRIDES[-1] or width % _STRIDES[-1]:
            raise self._not_yolox(f"an input of {height} x {width}, no multiple of {_STRIDES[-1]}")
        return str(inputs[0].name), (height, width)

    def _fits(self, shape: tuple[Any, ...] | list[Any]) -> bool:
        """Whether an output's shape is (1, A, 5 + classes); what the file leaves open is checked when it has run."""
        expected = (1, len(self._cells))
        return (
            len(shape) == 3
            and all(not isinstance(size, int) or size == want for size, want in zip(shape[:2], expected, strict=True))
            and (not isinstance(shape[2], int) or shape[2] >= 6)
        )

    def _not_yolox(self, got: str) -> InputError:
        anchors = len(self._cells) if hasattr(self, "_cells") else "A"
        return InputError(
            f"{self._path} is not a YOLOX detector: expected float32 (1, 3, H, W) -> (1, {anchors}, 5 + classes), "
            f"got {got}"
        )
