"""Frame numbers and times that go on when a stream is opened anew."""

from __future__ import annotations

import time
from dataclasses import replace

from hamr_edge.frame_source import Frame


class FrameTimes:
    """Places the frames of several openings of one source on one line; the first opening's stay as they are.

    Numbers go on without a gap. Times include the pause.
    """

    def __init__(self) -> None:
        self._number, self._time_s = 0, 0.0
        self._number_before, self._time_before_s = 0, 0.0
        self._started_s: float | None = None
        """Of the first frame, by the monotonic clock."""
        self._is_new = False

    def restart(self) -> None:
        """The next frame is the first of another opening."""
        self._is_new = self._started_s is not None

    def due_s(self, frame: Frame) -> float:
        """When a placed frame is due by the monotonic clock, were the line to play at its own speed."""
        return frame.time_s + (self._started_s or 0.0)

    def place(self, frame: Frame) -> Frame:
        """The frame as the whole line counts it; called when the frame comes."""
        now_s = time.monotonic()
        if self._started_s is None:
            self._started_s = now_s - frame.time_s
        if self._is_new:
            self._is_new = False
            self._number_before = self._number - frame.number + 1
            self._time_before_s = now_s - self._started_s - frame.time_s
        if self._number_before or self._time_before_s:
            frame = replace(
                frame,
                number=self._number_before + frame.number,
                time_s=max(self._time_before_s + frame.time_s, self._time_s),
            )
        self._number, self._time_s = frame.number, frame.time_s
        return frame
