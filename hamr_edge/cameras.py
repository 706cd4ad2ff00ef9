"""Many cameras at once: each decodes and detects in threads of its own, one service embeds for all of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hamr_edge.camera_report import CameraReport, EmbeddedFrame
from hamr_edge.errors import HamrEdgeError, InputError, OverloadError
from hamr_edge.fair_lanes import FairLanes
from hamr_edge.frame_reader import FrameReader
from hamr_edge.openable import Openable
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.reader_status import ReaderStatus
from hamr_edge.timeline import TimedSource, Timeline
from hamr_edge.video import Frame, FrameSource

_log = logging.getLogger(__name__)
FindPeople: TypeAlias = Callable[[Frame], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Gives the (N, 4) xyxy boxes and (N,) scores of one frame; called from the camera's thread."""
_FAILURES_IN_A_ROW = 25
_STOP_WAIT_S = 5.0
_POLL_S = 0.2


@dataclass(slots=True, eq=False)
class Camera:
    """One source and how its people are found."""

    name: str
    source: FrameSource
    find_people: FindPeople


@dataclass(slots=True, eq=False)
class _Waiting:
    """A frame whose people are being embedded."""

    frame: Frame
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    future: Future[NDArray[np.float32]]


@dataclass(slots=True, eq=False)
class _Lane:
    """A camera at work; its counts are guarded by the pipeline's lock."""

    camera: Camera
    reader: FrameReader
    thread: threading.Thread | None = None
    waiting: deque[_Waiting] = field(default_factory=deque)
    is_done: bool = False
    """Its thread will add nothing more."""
    last_status: ReaderStatus | None = None
    """The reader's, when its frames were over."""
    read: int = 0
    embedded: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    dropped: int = 0
    people: int = 0
    last_time_s: float = 0.0
    error: BaseException | None = None
    """What ended the camera."""
    last_failure: str = ""


class CameraPipeline(Openable):
    """Runs cameras side by side and gives their embedded frames, as they come and in order within each camera.

    ::

        with EmbeddingService(embedder) as service, CameraPipeline(cameras, service) as pipeline:
            for seen in pipeline:
                print(seen.camera, seen.frame.time_s, seen.embeddings.shape)

    A camera has a thread that decodes and one that detects; the service embeds for all. Every hand-over is bounded:
    where the receiver is slow, a recording waits and a live source drops its oldest frames, which are counted.

    A camera that fails leaves the others running. A source that breaks ends its camera, and so does an error that
    hamr-edge raises on purpose while people are looked for in its first frame: detections of another frame size, say.
    Any other exception costs its frame, and 25 of them in a row end the camera. :meth:`report` says which.

    Args:
        cameras: At least one, each with a name of its own; their sources not open.
        service: Open; the pipeline does not close it.
        readers: One for each camera, in order, where the defaults of :class:`FrameReader` do not fit.
        max_frames: Frames of each camera.
        in_flight: Frames of each camera that may be in the service or wait for the receiver.
        detect_lanes: Cameras whose people are looked for at the same time. Each detection may use several cores
            itself, and the network needs some too.
        should_stop: Asked several times a second; True ends the run as :meth:`stop` does.
        timeline: Gets spans of the stages ``decode`` and ``detect``.

    Raises:
        InputError: No camera, two of one name, or a setting makes no sense.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        service: EmbeddingService,
        *,
        readers: Sequence[FrameReader] | None = None,
        max_frames: int | None = None,
        in_flight: int = 8,
        detect_lanes: int = 1,
        should_stop: Callable[[], bool] | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        names = [camera.name for camera in cameras]
        if not names or len(set(names)) < len(names):
            raise InputError(f"cameras must be at least one, each with a name of its own; got {names}")
        if in_flight < 1 or detect_lanes < 1:
            raise InputError(f"in_flight and detect_lanes must be at least 1, got {in_flight} and {detect_lanes}")
        if readers is None:
            timed = (
                camera.source if timeline is None else TimedSource(camera.source, timeline, camera.name)
                for camera in cameras
            )
            readers = [FrameReader(source) for source in timed]
        self._lanes = {camera.name: _Lane(camera, reader) for camera, reader in zip(cameras, readers, strict=True)}
        self._service, self._max_frames, self._in_flight = service, max_frames, in_flight
        self._detecting = FairLanes(detect_lanes)
        self._should_stop, self._timeline = should_stop, timeline
        self._changed = threading.Condition()
        self._stopping = False
        self._turn = 0

    def open(self) -> None:
        """Start the cameras; sources are opened in their own threads, so one that does not answer holds up none."""
        for name, lane in self._lanes.items():
            if lane.thread is None:
                lane.thread = threading.Thread(target=self._run, args=[lane], name=f"detect {name}", daemon=True)
                lane.thread.start()

    def stop(self) -> None:
        """Read no more frames; those on their way are still given. From any thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        # One that hangs is waited for a moment: all at once, so that eight dead cameras take no longer than one.
        closing = [threading.Thread(target=lane.reader.close, daemon=True) for lane in self._lanes.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def close(self) -> None:
        """Stop, and give up what is on its way; a detector that hangs is waited for a moment, never for ever."""
        self.stop()
        give_up_s = time.monotonic() + _STOP_WAIT_S  # of all cameras: one detector that hangs keeps the others waiting
        for lane in self._lanes.values():
            if lane.thread is not None:
                lane.thread.join(max(0.0, give_up_s - time.monotonic()))
            with self._changed:
                waiting = list(lane.waiting)
                lane.waiting.clear()
                lane.dropped += len(waiting)
            for item in waiting:
                item.future.cancel()

    def __iter__(self) -> Iterator[EmbeddedFrame]:
        """Embedded frames until every camera has ended; frames that failed or were dropped are counted, not given."""
        while (ready := self._next_ready()) is not None:
            seen = self._finish(*ready)
            if seen is not None:
                yield seen

    def report(self) -> dict[str, CameraReport]:
        """Each camera at this moment, by name; from any thread."""
        return {name: self._report(lane) for name, lane in self._lanes.items()}

    @property
    def has_reached_max_frames(self) -> bool:
        """Whether some camera gave as many frames as were asked for."""
        return self._max_frames is not None and any(lane.read >= self._max_frames for lane in self._lanes.values())

    def failure(self) -> BaseException | None:
        """What somebody must know who expects every frame: the error of the only camera, or a summary of several.

        Drops of a live source and frames that a stop left behind are no failures.
        """
        errors = {name: lane.error for name, lane in self._lanes.items() if lane.error is not None}
        if len(self._lanes) == 1 and errors:
            return next(iter(errors.values()))
        if errors:
            words = "; ".join(f"{name}: {error}" for name, error in errors.items())
            return HamrEdgeError(f"{len(errors)} of {len(self._lanes)} cameras failed: {words}")
        failed = {name: report for name, report in self.report().items() if report.failed}
        if failed:
            words = "; ".join(f"{name}: {report.failed}, the last {report.error}" for name, report in failed.items())
            return HamrEdgeError(f"frames failed: {words}")
        return None

    def _report(self, lane: _Lane) -> CameraReport:
        with self._changed:  # before the reader's: what it has read since then waits
            embedded, failed, dropped = lane.embedded, lane.failed, lane.dropped
            people, last_time_s = lane.people, lane.last_time_s
            error, last_failure, is_done = lane.error, lane.last_failure, lane.is_done
        status = lane.last_status or lane.reader.status
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

    def _run(self, lane: _Lane) -> None:
        name = lane.camera.name
        try:
            with lane.reader:
                while self._wants_more(lane) and (frame := lane.reader.read()) is not None:
                    lane.read += 1
                    self._detect(lane, frame)
                lane.last_status = lane.reader.status
        except HamrEdgeError as error:
            self._fail(lane, error)
        except Exception as error:
            _log.exception("%s: failed", name)
            self._fail(lane, error)
        finally:
            with self._changed:
                lane.is_done = True
                self._changed.notify_all()

    def _wants_more(self, lane: _Lane) -> bool:
        """Wait until a frame may be on its way; False where none is wanted any more."""
        with self._changed:
            while not self._stopping and lane.error is None:
                if self._max_frames is not None and lane.read >= self._max_frames:
                    return False
                if len(lane.waiting) < self._in_flight:
                    return True
                self._changed.wait()
        return False

    def _detect(self, lane: _Lane, frame: Frame) -> None:
        name = lane.camera.name
        try:
            with self._detecting, nullcontext() if self._timeline is None else self._timeline.span("detect", name):
                boxes, scores = lane.camera.find_people(frame)
        except Exception as error:
            self._frame_failed(lane, frame, error)
            if lane.read == 1 and isinstance(error, HamrEdgeError):
                raise
            return
        future = self._service.submit(name, frame.image, boxes)
        with self._changed:
            lane.waiting.append(_Waiting(frame, boxes, scores, future))
        future.add_done_callback(self._notify)

    def _notify(self, future: Future[NDArray[np.float32]]) -> None:
        del future
        with self._changed:
            self._changed.notify_all()

    def _next_ready(self) -> tuple[_Lane, _Waiting] | None:
        """Wait for the next frame that is through; cameras take turns. None when all have ended."""
        lanes = list(self._lanes.values())
        while True:
            with self._changed:
                for place in range(self._turn, self._turn + len(lanes)):
                    lane = lanes[place % len(lanes)]
                    if lane.waiting and lane.waiting[0].future.done():
                        self._turn = place + 1
                        item = lane.waiting.popleft()
                        self._changed.notify_all()
                        return lane, item
                if all(lane.is_done and not lane.waiting for lane in lanes):
                    return None
                self._changed.wait(_POLL_S)
                stopping = self._stopping
            if not stopping and self._should_stop is not None and self._should_stop():
                self.stop()

    def _finish(self, lane: _Lane, item: _Waiting) -> EmbeddedFrame | None:
        name, count = lane.camera.name, len(item.boxes)
        try:
            embeddings = item.future.result()
        except (OverloadError, CancelledError):
            with self._changed:
                lane.dropped += 1
            return None
        except Exception as error:
            self._frame_failed(lane, item.frame, error)
            return None
        with self._changed:
            lane.embedded, lane.people, lane.failed_in_a_row = lane.embedded + 1, lane.people + count, 0
            lane.last_time_s = item.frame.time_s
        return EmbeddedFrame(name, item.frame, item.boxes, item.scores, embeddings)

    def _frame_failed(self, lane: _Lane, frame: Frame, error: Exception) -> None:
        name = lane.camera.name
        with self._changed:
            lane.failed, lane.failed_in_a_row = lane.failed + 1, lane.failed_in_a_row + 1
            lane.last_failure = f"frame {frame.number}: {error}"
            in_a_row = lane.failed_in_a_row
        if in_a_row == 1:
            _log.warning("%s: frame %d failed: %r", name, frame.number, error)
        if in_a_row == _FAILURES_IN_A_ROW:
            self._fail(lane, HamrEdgeError(f"{name}: {in_a_row} frames in a row failed, the last with {error!r}"))
            lane.reader.close()

    def _fail(self, lane: _Lane, error: Exception) -> None:
        with self._changed:
            if lane.error is None:
                lane.error = error
                if len(self._lanes) > 1:  # the only camera's error is what the run ends with
                    _log.error("%s failed: %s; the others go on", lane.camera.name, error)
            self._changed.notify_all()
