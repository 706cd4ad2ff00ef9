"""One run of a lane with CUDA events between its stages, as trtexec has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamr_edge.execution_lane import ExecutionLane, Shapes
from hamr_edge.stage_times import StageTimes


class TimedLane:
    """Stands for a lane when a part starts. Uploads wait until the run, so that they follow each other.

    Copies into page-locked memory, and what else the host does before the run, are outside the events, as in trtexec.

    Args:
        lane: An idle lane.
    """

    def __init__(self, lane: ExecutionLane) -> None:
        self._lane = lane
        self._uploads: list[tuple[str, int]] = []

    def pinned(self, name: str, size: int) -> NDArray[np.uint8]:
        """As the lane's."""
        return self._lane.pinned(name, size)

    def upload(self, name: str, size: int) -> None:
        """Send an input when the run begins."""
        self._uploads.append((name, size))

    def fetch(self, name: str, pointer: int, size: int) -> None:
        """As the lane's; outside the events."""
        self._lane.fetch(name, pointer, size)

    def execute(self, shapes: Shapes, addresses: dict[str, int] | None = None) -> None:
        """Put the uploads and the run on the stream."""
        self._lane.mark(0)
        for name, size in self._uploads:
            self._lane.upload(name, size)
        self._lane.mark(1)
        self._lane.execute(shapes, addresses)
        self._lane.mark(2)

    def finish(self, size: int) -> StageTimes:
        """Bring ``size`` bytes of the embeddings to the host, and wait."""
        self._lane.download(size)
        self._lane.mark(3)
        self._lane.wait()
        return StageTimes(*(self._lane.elapsed_ms(mark, mark + 1) for mark in range(3)))
