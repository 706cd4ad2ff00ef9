"""One camera of a pipeline: its source, its frames on their way, and its counts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hamr_edge.camera_report import CameraReport
from hamr_edge.frame_reader import FrameReader
from hamr_edge.frame_source import Frame, FrameSource
from hamr_edge.reader_status import ReaderStatus

FindPeople: TypeAlias = Callable[[Frame], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Gives the (N, 4) xyxy boxes and (N,) scores of one frame; called from the camera's thread."""


@dataclass(slots=True, eq=False)
class Camera:
    """One source and how its people are found."""

    name: str
    source: FrameSource
    find_people: FindPeople


@dataclass(slots=True, eq=False)
class WaitingFrame:
    """A frame whose people are being embedded."""

    frame: Frame
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    future: Future[NDArray[np.float32]]


@dataclass(slots=True, eq=False)
class CameraLane:
    """A camera at work; its counts are guarded by the pipeline's lock."""

    camera: Camera
    reader: FrameReader
    thread: threading.Thread | None = None
    waiting: deque[WaitingFrame] = field(default_factory=deque)
    is_done: bool = False
    """Its thread will add nothing more."""
    last_status: ReaderStatus | None = None
    """The reader's, when its frames were over."""
    read: int = 0
    embedded: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    failed_before_last: int = 0
    """``failed_in_a_row`` before the frame that was given last."""
    dropped: int = 0
    people: int = 0
    last_time_s: float = 0.0
    error: BaseException | None = None
    """What ended the camera."""
    last_failure: str = ""

    def report(self, lock: threading.Condition) -> CameraReport:
        """How it stands; ``lock`` is the pipeline's."""
        with lock:  # before the reader's: what it has read since then waits
            embedded, failed, dropped = self.embedded, self.failed, self.dropped
            people, last_time_s = self.people, self.last_time_s
            error, last_failure, is_done = self.error, self.last_failure, self.is_done
        status = self.last_status or self.reader.status
        dropped += status.dropped
        state: str = status.state
        if error is not None:
            state = "failed"
        elif is_done and (state != "ended" or status.waiting):
            state = "stopped"
        waiting = status.decoded - embedded - failed - dropped
        words = last_failure if error is None else str(error)
        return CameraReport(
            state, status.decoded, embedded, failed, dropped, waiting, people, status.reconnects, last_time_s, words
        )
