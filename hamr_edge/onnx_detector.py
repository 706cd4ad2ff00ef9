"""Person detectors in ``.onnx`` files of a declared format, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.detector_decoders import SCORE_ROUNDING
from hamr_edge.detector_formats import find_format
from hamr_edge.detector_metadata import check_metadata, choose_classes
from hamr_edge.detector_shapes import INPUT_TYPES, MASK_INPUT, SIZE_INPUT, image_input, match_outputs, misfit
from hamr_edge.errors import InputError
from hamr_edge.input_description import parse_input_description
from hamr_edge.letterbox import lay_out_frame, short_side_size
from hamr_edge.nms import DEFAULT_NMS_IOU, finish_boxes
from hamr_edge.onnx_session import open_session
from hamr_edge.preprocess import check_image


class OnnxDetector:
    """Runs a detection network and finds the people in what it gives. Any number of threads may call :meth:`detect`.

    Args:
        path: The ``.onnx`` file, of batch 1 or any; float32 or float16.
        format: See :data:`hamr_edge.detector_formats.FORMATS`.
        device: ``cpu``, ``cuda:N`` or ``auto``: CUDA where this ONNX Runtime has it.
        threads: CPU threads of one inference; ONNX Runtime's default when None.
        min_score: Least score, 0..1; the format's own when None.
        nms_iou: See :func:`hamr_edge.detector.open_detector`.
        min_height: Least height of a box in pixels of the frame.
        max_height: Greatest height of a box in pixels of the frame; any when None.
        classes: See :func:`hamr_edge.detector_metadata.choose_classes`.
        input_size_hw: Height and width of the input, where the file leaves it free; the format's own when None.

    Raises:
        InputError: The file is missing, or does not fit the format.
        UnavailableError: ONNX Runtime or the device is not there.
    """

    def __init__(
        self,
        path: str | Path,
        format: str = "yolox",
        device: str = "auto",
        threads: int | None = None,
        min_score: float | None = None,
        nms_iou: float | None = None,
        min_height: float = 0.0,
        max_height: float | None = None,
        classes: Sequence[int | str] | None = None,
        input_size_hw: tuple[int, int] | None = None,
    ) -> None:
        self._path = Path(path)
        self.format = find_format(format)
        if not self._path.is_file():
            raise InputError(f"detector {path} is not there; expected an .onnx file in the format {format}")
        self._min_score = self.format.default_min_score if min_score is None else min_score
        self._nms_iou = DEFAULT_NMS_IOU if nms_iou is None and self.format.suppress else nms_iou
        self._min_height, self._max_height = min_height, max_height
        # It takes turns with the network on the same cores: threads that wait in a loop would slow both.
        self._session, used = open_session(self._path, device, threads, spin=False)
        self.name = f"{self._path.name} ({format}), onnxruntime-{used.split(':')[0]}"
        self._inputs, self._outputs = self._session.get_inputs(), self._session.get_outputs()
        try:
            self._image_input = image_input(self.format, self._inputs, self._outputs)
            self.input_size_hw = self._choose_size(input_size_hw)
            metadata = self._session.get_modelmeta().custom_metadata_map
            fixed = all(isinstance(size, int) for size in self._image_input.shape[2:])
            check_metadata(metadata, self.format, self.input_size_hw, not fixed and input_size_hw is None)
            self._output_names = match_outputs(self.format, self.input_size_hw, self._inputs, self._outputs)
            self.classes = choose_classes(classes, metadata, self.format)
        except InputError as error:
            raise self._named(error) from error
        self._pixels = replace(parse_input_description(self.format.pixels), dtype=INPUT_TYPES[self._image_input.type])
        # What the file does not say of itself, one run does: better now than behind the first frame.
        self.detect(np.full((64, 64, 3), 127, np.uint8))

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See :meth:`hamr_edge.detector.PersonDetector.detect`."""
        check_image(image)
        frame_size_hw = (image.shape[0], image.shape[1])
        size_hw = self.input_size_hw or short_side_size(frame_size_hw)
        canvas, placement = lay_out_frame(image, size_hw, self.format.fit)
        feeds = self._feeds(canvas)
        try:
            found = self._run(feeds)
            self._check_shapes([output.shape for output in found], size_hw)
            outputs = [output[0].astype(np.float32, copy=False) for output in found]
            scores, rows = self.format.read_scores(outputs, self.classes)
            _check_scores(scores)
            rows = rows[scores[rows] >= self._min_score]
            boxes = self.format.read_boxes(outputs, rows, size_hw)
            _check_boxes(boxes, rows)
        except InputError as error:
            raise self._named(error) from error
        return finish_boxes(
            placement.to_frame(boxes), scores[rows], frame_size_hw, self._nms_iou, self._min_height, self._max_height
        )

    def _feeds(self, canvas: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        feeds: dict[str, NDArray[Any]] = {self._image_input.name: self._pixels.prepare(canvas[None])}
        for extra in self._inputs:
            if extra.name == SIZE_INPUT:
                feeds[extra.name] = np.array([canvas.shape[1::-1]], np.int64)
            elif extra.name == MASK_INPUT:  # all of the canvas is frame
                sides = zip(extra.shape[1:], canvas.shape[:2], strict=True)
                feeds[extra.name] = np.ones((1, *(a if isinstance(a, int) else b for a, b in sides)), np.int64)
        return feeds

    def _run(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return list(self._session.run(self._output_names, feeds))
        except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
            sizes = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in feeds.items())
            raise InputError(f"ONNX Runtime cannot run it on {sizes}: {error}") from error

    def _choose_size(self, asked: tuple[int, int] | None) -> tuple[int, int] | None:
        """The input's height and width; None where they go with the frame's."""
        sides = self._image_input.shape[2:]
        wanted: Sequence[int | None] = asked or self.format.size_hw or (None, None)
        if asked and any(isinstance(side, int) and side != want for side, want in zip(sides, asked, strict=True)):
            raise InputError(f"its input is {sides[0]} x {sides[1]}; {asked[0]} x {asked[1]} was asked for")
        height, width = (side if isinstance(side, int) else want for side, want in zip(sides, wanted, strict=True))
        if height is None and width is None:
            return None
        multiple = self.format.multiple
        if height is None or width is None or min(height, width) < 1 or height % multiple or width % multiple:
            raise InputError(
                f"its input would be {height} x {width}; expected a height and a width that are multiples of {multiple}"
            )
        return height, width

    def _check_shapes(self, shapes: Sequence[tuple[int, ...]], size_hw: tuple[int, int]) -> None:
        """Sizes that the file leaves open are known when it has run."""
        counts = self.format.anchor_counts(size_hw)
        if not all(form.fits(shape, counts) for form, shape in zip(self.format.outputs, shapes, strict=True)):
            got = f"outputs of {', '.join(map(str, shapes))} for {size_hw[0]} x {size_hw[1]}"
            raise misfit(self.format, size_hw, self._inputs, self._outputs, got)

    def _named(self, error: InputError) -> InputError:
        return InputError(f"{self._path}, declared as {self.format.name}: {error}")


def _check_scores(scores: NDArray[np.float32]) -> None:
    wrong = np.flatnonzero(~((scores >= -SCORE_ROUNDING) & (scores <= 1 + SCORE_ROUNDING)))  # NaN is neither
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(scores)} scores are not in 0..1, such as {scores[wrong[0]]:g} in row {wrong[0]}; "
            "check that the export ends in the sigmoid or softmax of this format, and that a float16 model does not "
            "overflow"
        )


def _check_boxes(boxes: NDArray[np.float32], rows: NDArray[np.intp]) -> None:
    wrong = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(boxes)} boxes are not finite, such as {boxes[wrong[0]].tolist()} in row "
            f"{rows[wrong[0]]}; check that a float16 model does not overflow"
        )
