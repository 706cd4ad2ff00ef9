"""A recording that begins again at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hamr_edge.frame_source import Frame, FrameSource


class LoopedSource(FrameSource):
    """Frames of a recording over and over: numbers and times go on. A live source is given as it is.

    ``Frame.recorded_number`` keeps the number that the recording gave, which a file of detections goes by.

    Args:
        source: Not open.
    """

    def __init__(self, source: FrameSource) -> None:
        self.name, self.is_live = source.name, False
        self.fps, self.frame_count = 0.0, None
        self._source, self._is_open = source, False

    def open(self) -> None:
        """Open the source."""
        self._source.open()
        self._is_open = True
        self.fps, self.is_live = self._source.fps, self._source.is_live

    def close(self) -> None:
        """Close the source; it does not begin again."""
        self._is_open = False
        self._source.close()

    def fresh(self) -> LoopedSource:
        """Another of the same source, not open."""
        return LoopedSource(self._source.fresh())

    def __iter__(self) -> Iterator[Frame]:
        """The frames; without an end, but for a recording that has none."""
        if self._source.is_live:
            yield from self._source
            return
        number, time_s, step_s = 0, 0.0, 1 / max(self.fps, 1e-3)
        while True:
            number_before, time_before_s = number, time_s + step_s if number else 0.0
            for frame in self._source:
                number, time_s = number + 1, time_before_s + frame.time_s
                yield replace(frame, number=number, time_s=time_s, recorded_number=frame.number)
            if number == number_before or not self._is_open:
                return
            self._source.close()
            self._source.open()
