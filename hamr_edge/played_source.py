"""A recording as if it were live: each frame at its time, and again from the beginning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

from hamr_edge.frame_source import Frame, FrameSource


class PlayedSource(FrameSource):
    """Frames of another source when their time has come; a live source is given as it is.

    Args:
        source: Not open.
        paced: False gives them as fast as they are read.
        loop: A recording begins again at its end; numbers and times go on.
    """

    def __init__(self, source: FrameSource, paced: bool = True, loop: bool = False) -> None:
        self.name, self.is_live = source.name, False
        self.fps, self.frame_count = 0.0, None
        self._source, self._paced, self._loop = source, paced, loop
        self._closed = Event()

    def open(self) -> None:
        """Open the source."""
        self._closed = Event()
        self._source.open()
        self.fps, self.is_live = self._source.fps, self._source.is_live
        self.frame_count = None if self._loop else self._source.frame_count

    def close(self) -> None:
        """Close the source, and wake a thread that waits for a frame's time."""
        self._closed.set()
        self._source.close()

    def fresh(self) -> PlayedSource:
        """Another of the same source, not open."""
        return PlayedSource(self._source.fresh(), self._paced, self._loop)

    def __iter__(self) -> Iterator[Frame]:
        """The frames."""
        if self._source.is_live:
            yield from self._source
            return
        closed, started = self._closed, time.monotonic()
        number, offset_s, step_s = 0, 0.0, 1 / max(self.fps, 1e-3)
        while True:
            last_s = 0.0
            for frame in self._source:
                number, last_s = number + 1, offset_s + frame.time_s
                if self._paced and closed.wait(max(0.0, started + last_s - time.monotonic())):
                    return
                yield replace(frame, number=number, time_s=last_s)
            if not self._loop or closed.is_set():
                return
            offset_s = last_s + step_s
            self._source.close()
            self._source.open()
