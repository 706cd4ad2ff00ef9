"""A source whose frames, faults and hangs a test writes down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hamr_edge.frame_source import Frame, FrameSource
from hamr_edge.reader_status import ReaderStatus
from hamr_edge.reconnect import Reconnect

Step = int | Exception | threading.Event
"""So many frames, an error, or a hang until the event is set."""


class ScriptedSource(FrameSource):
    """Plays one session each time it is opened, or in a fresh one of it, and the last one over and over.

    Args:
        sessions: The steps of each opening; an exception in place of steps is raised by the opening itself.
        is_live: As of a camera; its frames carry the time of day, which here is 1000 s plus their own.
    """

    def __init__(self, *sessions: Sequence[Step] | Exception, is_live: bool = False, fps: float = 100.0) -> None:
        self.name, self.fps, self.frame_count, self.is_live = "scripted", fps, None, is_live
        self.sessions = list(sessions)
        self.log: list[str] = []
        self.given: list[int] = []
        """One entry a frame: the session it came from. Shared with the fresh ones, as are the others."""
        self._steps: Sequence[Step] = ()

    def fresh(self) -> ScriptedSource:
        """Another one that goes on with the same script."""
        other = ScriptedSource(is_live=self.is_live, fps=self.fps)
        other.sessions, other.log, other.given = self.sessions, self.log, self.given
        self.log.append("fresh")
        return other

    def open(self) -> None:
        """Begin the next session."""
        session = self.sessions.pop(0) if len(self.sessions) > 1 else self.sessions[0]
        self.log.append("open")
        if isinstance(session, Exception):
            raise session
        self._steps = session

    def close(self) -> None:
        """Note it."""
        self.log.append("close")

    def __iter__(self) -> Iterator[Frame]:
        """The session's frames; their one pixel is their number within it."""
        session, number = self.log.count("open"), 0
        for step in self._steps:
            if isinstance(step, threading.Event):
                step.wait(20)
            elif isinstance(step, Exception):
                raise step
            else:
                for _ in range(step):
                    number += 1
                    self.given.append(session)
                    image = np.full((1, 1, 3), number % 256, np.uint8)
                    time_s = (number - 1) / self.fps
                    yield Frame(number, time_s, image, 1000 + time_s if self.is_live else None)


AT_ONCE = Reconnect(first_delay_s=0.01, longest_delay_s=0.02)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what must happen; fail after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def check_counts(status: ReaderStatus) -> None:
    assert status.decoded == status.delivered + status.dropped + status.waiting
