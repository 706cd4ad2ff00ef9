"""Draws people's boxes, colours and numbers into frames, and writes them as a video."""

from __future__ import annotations

import colorsys
import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.drawn_text import to_ascii
from hamr_edge.errors import HamrEdgeError
from hamr_edge.identities import Identities
from hamr_edge.letterbox import lay_out_frame
from hamr_edge.output_file import OutputFile
from hamr_edge.video import Frame

_log = logging.getLogger(__name__)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618034
_TONES = ((0.85, 1.0), (0.55, 1.0), (0.95, 0.7))
"""Saturation and value, in turn: neighbours in hue differ in tone."""
_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)


def identity_color(number: int) -> tuple[int, int, int]:
    """A BGR colour for an identity's number, the same every time; numbers that are close get hues that are far."""
    saturation, value = _TONES[number % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN_RATIO) % 1.0, saturation, value)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_people(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    numbers: NDArray[np.int64],
    caption: str = "",
    labels: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Draw boxes with their identities' colours and numbers.

    Args:
        image: (H, W, 3) uint8 BGR; not changed.
        boxes: (N, 4) xyxy pixels.
        numbers: (N,) identities.
        caption: Words for the lower left corner.
        labels: (N,) words for the boxes; their numbers when None.

    Returns:
        A new (H, W, 3) uint8 BGR image.
    """
    canvas: NDArray[np.uint8] = image.copy()
    unit = min(canvas.shape[:2]) / 360
    thickness = max(1, round(1.6 * unit))
    corners = np.round(boxes).astype(int)
    for (x1, y1, x2, y2), number in zip(corners.tolist(), numbers.tolist(), strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), identity_color(number), thickness, cv2.LINE_8)
    # Labels come after all boxes, so that no line crosses a number.
    words = labels if labels is not None else [str(number) for number in numbers.tolist()]
    for (x1, y1, _, _), number, text in zip(corners.tolist(), numbers.tolist(), words, strict=True):
        _draw_label(canvas, text, x1, y1, identity_color(number), unit)
    if caption:
        _draw_label(canvas, caption, 0, canvas.shape[0], _DARK, unit)
    return canvas


def grey_out(picture: NDArray[np.uint8], words: str) -> NDArray[np.uint8]:
    """A copy of an old (H, W, 3) uint8 BGR picture: no colours, half as bright, words in the lower left corner."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) // 2
    canvas: NDArray[np.uint8] = np.repeat(grey[:, :, None], 3, axis=2)
    _draw_label(canvas, words, 0, canvas.shape[0], _LIGHT, min(canvas.shape[:2]) / 360)
    return canvas


def _draw_label(
    canvas: NDArray[np.uint8], text: str, x: int, bottom: int, color: tuple[int, int, int], unit: float
) -> None:
    """Text on a filled ground whose lower left corner is (x, bottom), moved into the image where it would stick out."""
    text = to_ascii(text)
    scale, weight, margin = max(0.35, 0.42 * unit), max(1, round(0.9 * unit)), max(2, round(2.5 * unit))
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, weight)
    width, height = text_width + 2 * margin, text_height + 2 * margin
    left = max(0, min(x, canvas.shape[1] - width))
    top = max(0, min(bottom - height, canvas.shape[0] - height))
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), color, cv2.FILLED)
    blue, green, red = color
    ink = _DARK if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else _LIGHT
    cv2.putText(canvas, text, (left + margin, top + margin + text_height), _FONT, scale, ink, weight, cv2.LINE_AA)


class AnnotatedVideo:
    """An ``.mp4`` in which people keep the colour of their nearest embedding. A context manager.

    Left without an error, the file gets its name; left with one, what was drawn is kept as ``OUT.partial.mp4``. It has
    the size of the first frame; others are fitted into that, with bars.

    Args:
        path: The ``.mp4`` file to make or replace.
        identities: Gives the numbers.
        fps: Frames a second.

    Raises:
        InputError: The file cannot be made there.
    """

    def __init__(self, path: str | Path, identities: Identities, fps: float) -> None:
        self._file = OutputFile(path, ".mp4")
        self._identities, self._fps = identities, fps
        self._writer: Any = None
        self._size_hw = (0, 0)
        self._has_warned = False

    def __enter__(self) -> AnnotatedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if error is None:
                self._file.publish()
            else:
                self._file.keep_partial()
                _log.warning("%s: not finished; what was drawn is kept in %s", self._file.path, self._file.partial)
        except OSError as failure:
            if error is None:
                raise HamrEdgeError(f"cannot write {self._file.path}: {failure}") from failure
            _log.warning("%s: nothing could be kept: %s", self._file.path, failure)
        finally:
            self._file.discard()

    @property
    def partial(self) -> Path:
        """Where the video is kept after an error."""
        return self._file.partial

    def append(self, frame: Frame, boxes: NDArray[np.float32], embeddings: NDArray[np.float32]) -> None:
        """Draw one frame's people, (N, 4) boxes and (N, D) embeddings, and write it.

        Raises:
            HamrEdgeError: OpenCV cannot write the video.
        """
        image = frame.image
        size_hw = (image.shape[0], image.shape[1])
        if self._writer is None:
            self._open(size_hw)
        if size_hw != self._size_hw:
            if not self._has_warned:
                self._has_warned = True
                _log.warning(
                    "%s: frame %d is %d x %d, the first was %d x %d; such frames are fitted into the video with bars",
                    self._file.path,
                    frame.number,
                    *size_hw[::-1],
                    *self._size_hw[::-1],
                )
            image, placement = lay_out_frame(image, self._size_hw, "centred")
            boxes = placement.to_canvas(boxes)
        caption = f"frame {frame.number}   {format_time(frame.time_s)}   people {len(boxes)}"
        self._writer.write(draw_people(image, boxes, self._identities.assign(embeddings), caption))

    def _open(self, size_hw: tuple[int, int]) -> None:
        height, width = size_hw
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self._file.temporary), fourcc, self._fps, (width, height))
        if not writer.isOpened():
            writer.release()
            self._file.discard()
            raise HamrEdgeError(
                f"OpenCV cannot write {self._file.path} ({width} x {height}, {self._fps:g} frames/s, codec mp4v); "
                "its build may have no FFmpeg: python -c 'import cv2; print(cv2.getBuildInformation())' says so"
            )
        self._writer, self._size_hw = writer, size_hw


def format_time(seconds: float) -> str:
    """``0:07.3``, ``1:02:03.4``."""
    tenths = round(10 * seconds)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{tenths // 10:02d}.{tenths % 10}"
