"""Person boxes that someone else detected: MOT text, one box a line (Leal-Taixe et al., MOTChallenge, 2015)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError

_log = logging.getLogger(__name__)
_FORM = "frame,id,x,y,w,h[,score,...]"
_LAST_FRAME = 2**53
"""Up to here a float counts every whole number."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Parallel arrays, one entry a box, sorted by frame and, within a frame, in the file's order."""

    path: Path
    frames: NDArray[np.int64]
    """(N,) frame numbers, from 1."""
    boxes: NDArray[np.float32]
    """(N, 4) xyxy pixels, already scaled; may reach out of the frame."""
    scores: NDArray[np.float32]
    """(N,) as the file has them; 1 where it has none."""
    lines: NDArray[np.int64]
    """(N,) the line each box was read from, from 1."""

    def __len__(self) -> int:
        return len(self.frames)

    def in_frame(self, number: int, frame_size_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The (N, 4) boxes and (N,) scores of one frame, clipped to it.

        Raises:
            InputError: A box lies wholly outside the frame; the message names its line.
        """
        rows = slice(*np.searchsorted(self.frames, [number, number + 1]).tolist())
        self._check_inside(rows, frame_size_hw)
        height, width = frame_size_hw
        limits = np.array([width, height, width, height], np.float32)
        return self.boxes[rows].clip(0, limits), self.scores[rows].copy()

    def check_inside(self, frame_size_hw: tuple[int, int]) -> None:
        """Raise InputError if any box of any frame lies wholly outside: for a video, whose frames have one size."""
        self._check_inside(slice(None), frame_size_hw)

    def _check_inside(self, rows: slice, frame_size_hw: tuple[int, int]) -> None:
        height, width = frame_size_hw
        x1, y1, x2, y2 = self.boxes[rows].T
        outside = np.flatnonzero((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
        if len(outside):
            row = int(outside[np.argmin(self.lines[rows][outside])])
            box = ", ".join(f"{value:g}" for value in self.boxes[rows][row])
            more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
            raise InputError(
                f"{self.path}, line {self.lines[rows][row]}: box ({box}){more} lies wholly outside the {width} x "
                f"{height} frame; if the boxes are of another frame size, give --detections-scale (their ratio)"
            )

    def count_after(self, number: int) -> int:
        """How many boxes belong to frames after ``number``."""
        return int(np.count_nonzero(self.frames > number))


def load_detections(path: str | Path, scale: float = 1.0, min_score: float | None = None) -> Detections:
    """Read MOT text: ``frame,id,x,y,w,h[,score,...]``, frames from 1, x and y of the top left corner in pixels.

    Args:
        path: The file. Blank lines are skipped; columns after the score are not used.
        scale: Factor for the boxes, where they were found on frames of another size.
        min_score: Boxes below it are left out; all are kept when None.

    Raises:
        InputError: The file is missing, or a line is not as expected; the message names the line.
    """
    path = Path(path)
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale of the detections must be above 0, got {scale:g}")
    if not path.is_file():
        raise InputError(f"detections {path} is not there; expected a text file with lines {_FORM}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"detections {path} is not text; expected lines {_FORM}") from error
    rows, lines = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            rows.append(_parse_line(line, f"{path}, line {number}"))
            lines.append(number)
    if not rows:
        _log.warning("detections %s holds no boxes", path)
    values = np.asarray(rows, dtype=np.float64).reshape(-1, 6)
    order = np.argsort(values[:, 0], kind="stable")
    if min_score is not None:
        order = order[values[order, 5] >= min_score]
    values = values[order]
    line_numbers = np.asarray(lines, dtype=np.int64)[order]
    with np.errstate(over="ignore"):  # told below, with its line
        x, y, width, height = values[:, 1:5].T * scale
        boxes = np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)
        scores = values[:, 5].astype(np.float32)
    huge = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | ~np.isfinite(scores))
    if len(huge):
        x, y, width, height, score = values[huge[0], 1:]
        raise InputError(
            f"{path}, line {line_numbers[huge[0]]}: box of x {x:g}, y {y:g}, width {width:g}, height {height:g} and "
            f"score {score:g} is too large for float32 (at scale {scale:g}); expected pixels of a frame"
        )
    flat = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
    if len(flat):
        raise InputError(f"{path}, line {line_numbers[flat[0]]}: box is too thin to have pixels; drop it")
    return Detections(path, values[:, 0].astype(np.int64), boxes, scores, line_numbers)


def _parse_line(line: str, where: str) -> tuple[float, ...]:
    """Frame, x, y, width, height and score of one line; ``where`` begins an error's message."""
    fields = [field.strip() for field in line.rstrip().rstrip(",").split(",")]
    if len(fields) < 6:
        raise InputError(f"{where}: expected {_FORM}, got {len(fields)} columns: {line.strip()[:80]!r}")
    try:
        frame, x, y, width, height = (float(fields[column]) for column in (0, 2, 3, 4, 5))
        score = float(fields[6]) if len(fields) > 6 else 1.0
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected numbers as in {_FORM}") from error
    if not np.isfinite([frame, x, y, width, height, score]).all():
        raise InputError(f"{where}: a value is not finite: {line.strip()[:80]!r}")
    if not 1 <= frame <= _LAST_FRAME or frame != int(frame):
        raise InputError(f"{where}: frame is {fields[0]}; frames are whole numbers, count from 1 and end at 2**53")
    if width <= 0 or height <= 0:
        raise InputError(
            f"{where}: box has width {width:g} and height {height:g}; expected both above 0 (the columns are "
            "x, y, width, height, not two corners)"
        )
    return frame, x, y, width, height, score
